"""Pictures and network inputs in files: read safely, draw instances, write results in COCO's form."""

from __future__ import annotations

import colorsys
import json
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from conformance.evaluation.segmentations import encode
from conformance.files import atomic_write
from refimpl.assembly import Assembled
from refimpl.errors import FileError, ShapeError
from refimpl.inference import Instances
from refimpl.predictions import require_finite

Array = NDArray[Any]
PathLike = str | os.PathLike[str]

_ABSENT_FROM_COCO = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _ABSENT_FROM_COCO)
"""Category id of each of COCO's 80 labels: the ids run to 90 with ten left out."""

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "PPM", "TIFF")
"""Formats that are read, as Pillow calls them; of the others one starts a program (EPS: Ghostscript)."""

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_picture(path: PathLike) -> Array:
    """Read a picture as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Grey is repeated, a palette looked up, alpha dropped; 16 bits keep their upper 8; of an animation the
    first frame is taken.

    Raises
    ------
    FileError
        No such file, not a picture of one of `FORMATS`, truncated, of a kind with no defined brightness
        (32-bit or floating-point grey), or so large that it may be a decompression bomb.
    """
    _require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a palette has transparency is no news: alpha is dropped
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                return np.array(_rgb(ImageOps.exif_transpose(picture)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise FileError(f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller") from error
    # Pillow's decoders raise whatever a broken byte leads them to: OSError, SyntaxError, struct.error…
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FileError(
            f"{path} is not a readable picture ({reason}); give a whole file of {', '.join(FORMATS)}"
        ) from error


def _rgb(picture: Image.Image) -> Image.Image:
    """Return the picture with three channels of 8 bits."""
    if picture.mode == "F":
        raise ValueError("floating-point grey has no defined brightness")
    if not picture.mode.startswith("I"):
        return picture.convert("RGB")
    grey = np.asarray(picture)
    if grey.min() < 0 or grey.max() > 0xFFFF:
        raise ValueError("32-bit grey has no defined brightness")
    # Pillow's own conversion would clip 16-bit grey at 255.
    return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")


def _extrema(picture: Image.Image) -> tuple[float, float]:
    """Return the lowest and highest value of a picture with one channel."""
    low, high = np.asarray(picture).min(), np.asarray(picture).max()
    return float(low), float(high)


def read_network_input(path: PathLike) -> Array:
    """Read a normalised network input (B, 3, H, W), or one of (3, H, W), from a ``.npy`` file.

    Returns
    -------
    (B, 3, H, W) float16, float32 or float64 array, C-contiguous, native byte order

    Raises
    ------
    FileError
        No such file, not a ``.npy``, truncated, with bytes left over, or holding Python objects.
    ShapeError
        Not floating-point, or not (B, 3, H, W).
    NonFiniteError
        NaN or infinity.
    """
    _require_file(path)
    with open(path, "rb") as file:
        images = _array(file, path)
    images = images[None] if images.ndim == 3 else images
    _require_input_shape(images.shape, path)
    require_finite(images, str(path))
    return images


def _array(file: BinaryIO, path: PathLike) -> Array:
    """Read the one array of a ``.npy`` file, after comparing the size its header claims with the file's."""
    try:
        shape, fortran, dtype = _HEADER_READERS[np.lib.format.read_magic(file)](file)
    # The header is a Python literal; what a broken one raises is not documented.
    except Exception as error:
        raise FileError(f"{path} is not a .npy file; write one with numpy.save") from error
    if dtype.hasobject:
        raise FileError(f"{path} holds Python objects, which are not read; save an array of floats")
    native = dtype.newbyteorder("=")
    if native not in (np.float16, np.float32, np.float64):
        raise ShapeError(f"{path} holds {dtype}; a network input is float32 or float64, already normalised")
    claimed, present = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - file.tell()
    if claimed != present or min(shape, default=0) < 0:
        raise FileError(
            f"{path} claims shape {shape} of {dtype}, {claimed} bytes, but has {present}; write it again"
        )
    flat = np.fromfile(file, dtype=dtype, count=math.prod(shape))
    array = flat.reshape(shape, order="F" if fortran else "C")
    return array.astype(native, order="C", copy=False)


def _require_input_shape(shape: tuple[int, ...], path: PathLike) -> None:
    """Raise `ShapeError`, saying what to do, unless ``shape`` is (B, 3, H, W)."""
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        advice = "transpose it from channels last" if shape[-1:] == (3,) else "give one"
        raise ShapeError(f"{path} has shape {shape}; a network input is (B, 3, H, W): {advice}")


def coco_results(
    instances: Instances | Assembled, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the instances in COCO's results format, masks run-length encoded; empty masks are left out.

    Parameters
    ----------
    instances : Instances or Assembled
    image_id : int
    category_ids : sequence of int
        The data set's id of each label, for instance `COCO_CATEGORY_IDS`.
    """
    # One mask at a time: encoding needs a copy of it.
    segmentations = (encode(mask[None])[0] for mask in instances.masks)
    return [
        {
            "image_id": image_id,
            "category_id": int(category_ids[label]),
            "segmentation": segmentation,
            "score": float(score),
        }
        for label, segmentation, score in zip(instances.labels, segmentations, instances.scores, strict=True)
        if segmentation
    ]


def write_results(path: PathLike, results: Sequence[dict[str, Any]]) -> None:
    """Write COCO results as JSON; raise `FileError` if that is not possible."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(list(results), indent=1, allow_nan=False) + "\n", encoding="utf-8")


UNTRAINED = "untrained"
"""What is written on pictures by weights that have learned nothing."""


def annotate(
    picture: Array,
    instances: Instances | Assembled,
    *,
    above: float = 0.4,
    names: Sequence[str] | None = None,
    remark: str = "",
) -> Array:
    """Return the picture with the instances that score above ``above`` drawn over it.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    instances : Instances or Assembled
        At the picture's size.
    above : float
        The paper's pictures use 0.4 (Figure 5).
    names : sequence of str, optional
        A name for each label; without it the label's number is written.
    remark : str
        Written at the bottom, such as `UNTRAINED`.
    """
    shown = [i for i in np.argsort(instances.scores, kind="stable") if instances.scores[i] > above]
    labels = instances.labels[shown].tolist()
    words = [names[label] if names else label for label in labels]
    captions = [f"{word} {instances.scores[i]:.2f}" for word, i in zip(words, shown, strict=True)]
    return remarked(draw_masks(picture, instances.masks[shown], labels, captions), remark)


def remarked(picture: Array, remark: str) -> Array:
    """Return the picture with a remark in its lower left corner; without one, the picture."""
    if not remark:
        return picture
    canvas = Image.fromarray(picture)
    at = (4, picture.shape[0] - 4)
    ImageDraw.Draw(canvas).text(at, remark, anchor="ls", fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(canvas)


def draw_masks(picture: Array, masks: Array, numbers: Sequence[int], captions: Sequence[str]) -> Array:
    """Return the picture with masks drawn over it, tinted and outlined, the last on top.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    masks : (K, H, W) bool
    numbers : K integers
        Equal numbers have equal colours.
    captions : K strings
    """
    drawn = picture.copy()
    for inside, number in zip(masks, numbers, strict=True):
        colour = np.asarray(_colour(number), np.uint8)
        drawn[inside] = drawn[inside] // 3 * 2 + colour // 3
        drawn[outline(inside)] = colour
    canvas = Image.fromarray(drawn)
    pen = ImageDraw.Draw(canvas)
    for inside, caption in zip(masks, captions, strict=True):
        pen.text(_corner(inside), caption, fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(canvas)


def outline(mask: Array) -> Array:
    """Return the pixels of a mask, (H, W) bool, that have a neighbour outside it or the picture."""
    padded = np.pad(mask, 1)
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: Array = mask & ~within
    return edge


def _corner(mask: Array) -> tuple[float, float]:
    """Return (x, y) of the top left corner of the mask's box."""
    return (float(np.argmax(mask.any(axis=0))), float(np.argmax(mask.any(axis=1))))


def _colour(number: int) -> tuple[int, int, int]:
    """Return a saturated colour; the golden ratio keeps neighbouring numbers apart."""
    red, green, blue = colorsys.hsv_to_rgb(0.618034 * number % 1.0, 0.8, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


def write_picture(path: PathLike, picture: Array) -> None:
    """Write an (H, W, 3) uint8 picture as PNG; raise `FileError` if that is not possible."""
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _require_file(path: PathLike) -> None:
    """Raise `FileError` unless ``path`` is a regular file with something in it: a pipe would never end."""
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise FileError(f"there is no readable file {path}; give the path of an existing one")
    if not os.path.getsize(path):
        raise FileError(f"{path} is empty; give a whole file")
