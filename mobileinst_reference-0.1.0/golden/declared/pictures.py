"""Preprocessing and postprocessing on a small picture, confirmed by PyTorch in public SparseInst's order."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, Format, introduced_bound
from conformance.bounds.formats import gamma
from conformance.graph.pytorch_replay import import_torch
from golden.case import Bounds, Case, Confirmation, Golden, halves
from golden.sources.comparison import confirmed
from golden.sources.source import _torch_version
from refimpl.errors import VerificationError
from refimpl.inference import PIXEL_DEVIATION, PIXEL_MEAN, place, postprocess, preprocess
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture

PICTURE, SIZING = (23, 41), (30, 53)
ROUNDINGS = 20
KEEP = 0.4


def _interpolated(torch: Any, x: Any, size: tuple[int, int]) -> Any:
    return torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _preprocessed() -> Case:
    picture = render_picture(*PICTURE, seed=7)
    images, placement = preprocess(picture, SIZING)
    planes = picture.astype(np.float64).transpose(2, 0, 1)[None]

    def bounds(form: Format) -> Bounds:
        height, width = placement.resized
        mean, deviation = (np.asarray(v).reshape(1, 3, 1, 1) for v in (PIXEL_MEAN, PIXEL_DEVIATION))
        resized = images[:, :, :height, :width] * deviation + mean
        sizes = np.asarray((1, 3, height, width))
        call = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        own = introduced_bound("Resize", (planes, None, None, sizes), call, resized, form, form)
        assert own is not None
        bound = np.zeros(images.shape)
        # The mean is rounded, subtracted, and the difference divided by a rounded deviation.
        bound[:, :, :height, :width] = (own + gamma(4, form.unit_roundoff) * (resized + mean)) / deviation
        return {"images": bound}

    def confirm() -> list[Confirmation]:
        torch = import_torch()
        mean, deviation = (
            torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (PIXEL_MEAN, PIXEL_DEVIATION)
        )
        normalised = (_interpolated(torch, torch.from_numpy(planes), SIZING) - mean) / deviation
        bottom, right = (p - r for p, r in zip(placement.padded, placement.resized, strict=True))
        padded = torch.nn.functional.pad(normalised, (0, right, 0, bottom)).numpy()
        truth, allowed = {"images": images}, bounds(FLOAT32)
        return [confirmed(f"PyTorch {_torch_version()}, float64", {"images": padded}, truth, allowed)]

    return Case({"picture": picture}, {"images": images}, bounds, confirm)


def _drawn_outputs(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"class_logits": (1, 6, 4), "objectness": (1, 6, 1), "masks": (1, 6, 4, 8)}
    return {name: halves(2 * rng.normal(size=shape)) for name, shape in shapes.items()}


def _postprocessed() -> Case:
    given, placement = _drawn_outputs(5), place(*PICTURE, SIZING)
    wide = {name: x.astype(np.float64) for name, x in given.items()}
    result = postprocess(SimpleNamespace(**wide), placement, keep_threshold=KEEP)
    names = ("queries", "labels", "class_scores", "maskness", "scores", "masks")
    truth = {name: getattr(result, name) for name in names}
    truth = {name: x.astype(np.int64) if x.dtype.kind == "i" else x for name, x in truth.items()}

    def bounds(form: Format) -> Bounds:
        few, many = (
            gamma(ROUNDINGS, form.unit_roundoff),
            gamma(given["masks"][0, 0].size + ROUNDINGS, form.unit_roundoff),
        )
        return {
            "class_scores": few * result.class_scores,
            "maskness": many * result.maskness,
            "scores": many * result.scores,
        }

    def confirm() -> list[Confirmation]:
        return [confirmed(f"PyTorch {_torch_version()}, float64", _sparseinst(wide), truth, bounds(FLOAT32))]

    return Case(given, truth, bounds, confirm)


def _sparseinst(wide: dict[str, Array]) -> dict[str, Array]:
    """The steps of the public SparseInst, with PyTorch's operators."""
    torch = import_torch()
    placement = place(*PICTURE, SIZING)
    logits, objectness, masks = (torch.from_numpy(x[0]) for x in wide.values())
    scores, labels = torch.sqrt(logits.sigmoid() * objectness.sigmoid()).max(dim=-1)
    keep = scores > KEEP
    probabilities = masks[keep].sigmoid()
    above = (probabilities > 0.45).double()
    maskness = (probabilities * above).sum([1, 2]) / (above.sum([1, 2]) + 1e-6)
    height, width = placement.resized
    full = _interpolated(torch, probabilities[:, None], placement.padded)[:, :, :height, :width]
    full = _interpolated(torch, full, placement.original)[:, 0]
    return {
        "queries": torch.nonzero(keep)[:, 0].numpy(),
        "labels": labels[keep].numpy(),
        "class_scores": scores[keep].numpy(),
        "maskness": maskness.numpy(),
        "scores": (scores[keep] * maskness).numpy(),
        "masks": full.numpy() > 0.45,
    }


SIZES = (
    (480, 640),
    (427, 640),
    (640, 427),
    (1, 3000),
    (720, 1280),
    (1280, 720),
    (33, 32),
    (1, 1),
    (357, 500),
)


def _placed() -> Case:
    results = {
        f"{sizing} {height}x{width}": [list(placement.resized), list(placement.padded)]
        for sizing in ("image", "video", "phone", "native")
        for height, width in SIZES
        if (sizing, height) != ("video", 1)  # too long for the network
        and (placement := place(height, width, sizing))
    }

    def confirm() -> list[Confirmation]:
        wrong = [key for key, value in results.items() if value != _in_fractions(*key.split())]
        if wrong:
            raise VerificationError(f"sizes in exact fractions differ for {wrong}")
        return [Confirmation("brute force: Python's exact fractions", 0.0, "decisions")]

    return Case({}, {}, lambda form: {}, confirm, decisions={"results": results})


def _in_fractions(sizing: str, size: str) -> list[list[int]]:
    height, width = (int(n) for n in size.split("x"))
    shorter, longest = {"image": (640, 864), "video": (360, 10**9)}.get(sizing, (0, 0))
    resized = {"phone": [320, 640], "native": [height, width]}.get(sizing)
    if resized is None:
        scale = min(Fraction(shorter, min(height, width)), Fraction(longest, max(height, width)))
        resized = [max(1, int(n * scale + Fraction(1, 2))) for n in (height, width)]
    return [resized, [-(-n // 32) * 32 for n in resized]]


def goldens() -> Iterator[Golden]:
    """Yield the goldens around the network."""
    arguments = {"sizing": list(SIZING)}
    module = "refimpl.inference"
    yield Golden(
        "pictures/preprocess",
        "picture",
        f"{module}.preprocess",
        arguments,
        7,
        "half-pixel without antialias, RGB, normalised, then zeros at the right and the bottom",
        _preprocessed,
        ("refimpl.scenes.render_picture",),
    )
    yield Golden(
        "pictures/postprocess",
        "picture",
        f"{module}.postprocess",
        {**arguments, "keep_threshold": KEEP},
        5,
        "scores, labels, and masks at the picture's size; thresholds are strict",
        _postprocessed,
        (f"{module}.maskness", f"{module}.placement_matrices"),
    )
    yield Golden(
        "pictures/sizes",
        "picture",
        f"{module}.place",
        {},
        None,
        "resized and padded sizes: halves are rounded up, padding to multiples of 32",
        _placed,
        (f"{module}.resized_size",),
    )
