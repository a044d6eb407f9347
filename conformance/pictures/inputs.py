"""Inputs of a verification: pictures and arrays from files, or a rendered scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conformance.pictures.picture import read_network_input, read_picture
from refimpl.errors import ShapeError
from refimpl.inference import preprocess
from refimpl.ops import resize
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture


def load_inputs(paths: Sequence[Path], size: tuple[int, int], batch: bool = False) -> dict[str, Array]:
    """Read network inputs.

    Parameters
    ----------
    paths
        ``.npy`` files are normalised inputs (B, 3, H, W), taken as they are; anything else is a picture,
        resized to ``size`` and normalised.
    size
        (height, width) of the network's input, without padding beyond it.
    batch
        Whether to stack all into one batch instead.

    Returns
    -------
    dict
        Label → float32 (B, 3, H, W).
    """
    inputs: dict[str, Array] = {}
    for path in paths:
        images = read_network_input(path) if path.suffix == ".npy" else picture_input(path, size)
        inputs[_unused(path.name, inputs)] = images.astype(np.float32)
    return {" + ".join(inputs): _stack(inputs)} if batch else inputs


Resized = Callable[[], Iterator[tuple[str, Array]]]
"""What a picture would be for the network, resized in other ways: how, and the images."""


def not_resized() -> Iterator[tuple[str, Array]]:
    """Return nothing: the input is no picture."""
    return iter(())


_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "Lanczos": Image.Resampling.LANCZOS,
}
_UNFILTERED: dict[str, dict[str, Any]] = {
    "bilinear with corners aligned": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    "bilinear without half pixels": {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
    "bicubic without a filter": {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"},
    "nearest without half pixels": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
}


def resized_otherwise(paths: Sequence[Path], inputs: Mapping[str, Array]) -> dict[str, Resized]:
    """Return, by the labels of `load_inputs`, what other tools would make of the files that are pictures."""
    return {
        label: partial(_in_other_ways, path, (images.shape[2], images.shape[3]))
        for path, (label, images) in zip(paths, inputs.items(), strict=True)
        if path.suffix != ".npy"
    }


def _in_other_ways(path: Path, size: tuple[int, int]) -> Iterator[tuple[str, Array]]:
    picture = read_picture(path)
    for name, kind in _PILLOW.items():
        small = np.asarray(Image.fromarray(picture).resize(size[::-1], kind))
        yield f"resized by Pillow's {name}", preprocess(small, sizing=size)[0]
    planes = picture.astype(np.float64).transpose(2, 0, 1)[None]
    for name, rule in _UNFILTERED.items():
        resized = resize(planes, None, None, (1, 3, *size), **rule)
        yield f"resized {name}", preprocess(resized[0].transpose(1, 2, 0), sizing=size)[0]


def picture_input(path: Path, size: tuple[int, int]) -> Array:
    """Return a picture as the network's input (1, 3, H, W)."""
    images, _ = preprocess(read_picture(path), sizing=size)
    return images[..., : size[0], : size[1]]


def rendered_input(size: tuple[int, int], batch: int = 1, seed: int = 0) -> dict[str, Array]:
    """Return a batch of rendered scenes under one label."""
    scenes = [preprocess(render_picture(*size, seed + i), sizing="native")[0] for i in range(batch)]
    images = np.concatenate(scenes)[..., : size[0], : size[1]]
    return {f"rendered scene {seed}": np.ascontiguousarray(images, np.float32)}


def _stack(inputs: dict[str, Array]) -> Array:
    shapes = {array.shape[1:] for array in inputs.values()}
    if len(shapes) > 1:
        raise ShapeError(
            f"inputs of shapes {sorted(shapes)} cannot be one batch; give --size, or arrays of one size"
        )
    return np.concatenate(list(inputs.values()))


def _unused(name: str, taken: Mapping[str, Array]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name} ({number})"
    return candidate
