"""Inference around the network: a picture becomes its input, its outputs become instances.

Paper section 4.2; what the paper leaves open follows the public SparseInst code. Pure functions of arrays, no
non-maximum suppression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import DTypeLike, NDArray

from refimpl.errors import ConfigurationError, ShapeError
from refimpl.ops.resize import resize
from refimpl.predictions import Predictions, check_predictions, require_finite

Array = NDArray[Any]
Size = tuple[int, int]
Sizing = str | Size
"""A named sizing rule, or exactly (height, width)."""

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_DEVIATION = (58.395, 57.12, 57.375)
STRIDE = 32
PHONE_SIZE = (320, 640)
SIDES = {
    "image": (640, 864),
    "video": (360, math.inf),
    "lite": (448, 768),
    "detector": (800, 1333),
    "torchvision": (800, 1333),
}
"""Sizings that keep the aspect: the shorter side, and the longest that the longer may be."""
SIZINGS = (*SIDES, "phone", "native")
KEEP = 0.005
"""The score above which a query is kept, unless another is given."""
LARGEST_INPUT = 2**26
LARGEST_MASKS = 2**33


@dataclass(frozen=True)
class Preparation:
    """How a network's own code makes its input of a picture.

    Attributes
    ----------
    sizing
        See `resized_size`.
    mean, deviation
        Of red, green and blue, 0…255.
    blue_first : bool
        Whether the channels are blue, green, red.
    smoothed : bool
        Whether a picture is made smaller as Pillow does it: of all that a pixel covers.
    stride : int
        The input is padded to multiples of it.
    """

    sizing: Sizing = "image"
    mean: tuple[float, float, float] = PIXEL_MEAN
    deviation: tuple[float, float, float] = PIXEL_DEVIATION
    blue_first: bool = False
    smoothed: bool = False
    stride: int = STRIDE


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in the network's input: resized, then padded at the right and at the bottom.

    Attributes
    ----------
    original, resized, padded : (height, width) in pixels
        Of the picture, of the picture as the network sees it, and of the network's input.
    """

    original: Size
    resized: Size
    padded: Size

    @classmethod
    def unscaled(cls, height: int, width: int) -> Placement:
        """Return the placement of a network input that was prepared elsewhere: all of it is picture."""
        return cls((height, width), (height, width), (height, width))


@dataclass(frozen=True)
class Instances:
    """The kept instances of one picture, in the order of their queries, with the margins of every decision.

    A margin is the distance to the nearest flip, in units of probability.

    Attributes
    ----------
    queries : (K,) int
        The query that found each instance.
    labels : (K,) int
        Class index, from 0.
    class_scores : (K,) float
        ``sqrt(sigmoid(class) · sigmoid(objectness))``.
    maskness : (K,) float
        Mean of the mask probabilities above the mask threshold, at mask resolution; 0 if none is.
    scores : (K,) float
        ``class_scores · maskness``.
    masks : (K, H, W) bool
        At the picture's original size.
    class_margins : (K,) float
        Probability of the best class minus that of the second; infinite if there is one class only.
    keep_margins : (N,) float
        Of *every* query: its class score minus the keep threshold. Positive: kept.
    mask_margins : (K,) float
        Smallest ``|probability - mask threshold|`` over the mask's pixels, at original size.
    tied_pixels : (K,) int
        Number of pixels whose probability is within ``tie_band`` of the mask threshold.
    """

    queries: Array
    labels: Array
    class_scores: Array
    maskness: Array
    scores: Array
    masks: Array
    class_margins: Array
    keep_margins: Array
    mask_margins: Array
    tied_pixels: Array

    def __len__(self) -> int:
        """Return the number of instances, K."""
        return len(self.queries)


OURS = Preparation()
"""Of the paper's network, and of SparseInst."""


def preprocess(
    picture: Array,
    sizing: Sizing | None = None,
    dtype: DTypeLike = np.float64,
    preparation: Preparation = OURS,
) -> tuple[Array, Placement]:
    """Turn a picture into the network's input: resize, normalise, pad (paper section 4.2).

    Parameters
    ----------
    picture : (H, W, 3), (H, W, 4), (H, W, 1) or (H, W) array, uint8 or floating, values 0…255
        RGB. Grey is repeated three times; the alpha of RGBA is dropped, as Pillow's and OpenCV's readers do.
    sizing : str or (height, width), optional
        See `resized_size`. Default: that of the preparation.
    dtype : floating dtype
        Of the result. Computed in float64 and rounded once: a float32 input is the rounded float64 one.
    preparation : Preparation
        What else the network expects; that of a rival is `refimpl.rival_pictures.preparation_of`.

    Returns
    -------
    images : (1, 3, H', W') array
        The padding, right and bottom, is zero *after* normalisation.
    placement : Placement

    Raises
    ------
    ShapeError, NonFiniteError, ConfigurationError
        The array is not a picture; it has NaN or infinity; there is no such sizing.
    """
    colours = _colours(picture)
    sizing = preparation.sizing if sizing is None else sizing
    placement = place(colours.shape[0], colours.shape[1], sizing, preparation.stride)
    images = np.zeros((1, 3, *placement.padded), dtype=dtype)
    height, width = placement.resized
    # One plane at a time: a photograph of 48 megapixels is 1.2 GB in float64, one of its planes 0.4 GB.
    for colour, (mean, deviation) in enumerate(zip(preparation.mean, preparation.deviation, strict=True)):
        plane = colours[:, :, colour].astype(np.float64)
        plane = resize_plane(plane, placement.resized, preparation.smoothed)
        channel = 2 - colour if preparation.blue_first else colour
        images[0, channel, :height, :width] = (plane - mean) / deviation
    return images, placement


def place(height: int, width: int, sizing: Sizing = "image", stride: int = STRIDE) -> Placement:
    """Return the geometry of a picture of ``height`` × ``width`` pixels in the network's input."""
    resized = resized_size(height, width, sizing)
    padded = (math.ceil(resized[0] / stride) * stride, math.ceil(resized[1] / stride) * stride)
    if padded[0] * padded[1] > LARGEST_INPUT:
        raise ShapeError(
            f"a picture of {height}×{width} pixels becomes a network input of {padded[0]}×{padded[1]} "
            f"under sizing {sizing!r}, more than {LARGEST_INPUT} pixels; "
            "make the picture smaller or choose sizing 'phone'"
        )
    return Placement((height, width), resized, padded)


def resized_size(height: int, width: int, sizing: Sizing) -> Size:
    """Return the size of the picture as the network sees it, before padding.

    ``image``: shorter side 640, longer at most 864. ``video``: shorter side 360. ``lite``: 448, at most 768,
    as SOLOv2-Lite. ``detector``: 800, at most 1333. ``torchvision``: so too, rounded down. ``phone``: exactly
    320×640, the paper's input for timing; the aspect ratio is not kept. ``native``: unchanged. A pair
    (height, width): exactly that. Otherwise rounded half up; at least one pixel.
    """
    if isinstance(sizing, str) and sizing in SIDES:
        return _shorter_side(height, width, *SIDES[sizing], add=0.0 if sizing == "torchvision" else 0.5)
    if sizing == "phone":
        return PHONE_SIZE
    if sizing == "native":
        return height, width
    if isinstance(sizing, tuple) and len(sizing) == 2 and min(sizing) >= 1:
        return sizing
    raise ConfigurationError(f"unknown sizing {sizing!r}; choose one of {', '.join(SIZINGS)}")


def postprocess(
    outputs: Predictions,
    placement: Placement,
    *,
    index: int = 0,
    keep_threshold: float = KEEP,
    mask_threshold: float = 0.45,
    tie_band: float = 1e-3,
) -> Instances:
    """Turn the network's outputs into instances at the picture's original size (paper section 4.2).

    Parameters
    ----------
    outputs : Predictions
        Logits: ``class_logits`` (B, N, classes), ``objectness`` (B, N, 1), ``masks`` (B, N, h, w) of any
        resolution.
    placement : Placement
        What `preprocess` returned with the input.
    index : int
        Which picture of the batch.
    keep_threshold, mask_threshold : float
        Strict: a query is kept, a pixel belongs to the mask, when the probability is *above*.
    tie_band : float
        A mask pixel this close to ``mask_threshold`` counts as tied.

    Returns
    -------
    Instances

    Raises
    ------
    ShapeError, NonFiniteError
        The outputs do not fit together or have NaN or infinity; the kept masks would need more than 8 GiB.
    """
    check_predictions(outputs)
    if not 0 <= index < len(outputs.masks):
        raise ShapeError(f"index {index} is outside the batch of {len(outputs.masks)}")
    probabilities = scipy.special.expit(outputs.class_logits[index])
    class_scores = np.sqrt(probabilities.max(axis=1) * scipy.special.expit(outputs.objectness[index, :, 0]))
    kept = np.flatnonzero(class_scores > keep_threshold)
    mask_probabilities = scipy.special.expit(outputs.masks[index, kept])
    mean = maskness(mask_probabilities, mask_threshold)
    masks, mask_margins, tied = _decided_masks(mask_probabilities, placement, mask_threshold, tie_band)
    return Instances(
        queries=kept,
        labels=probabilities[kept].argmax(axis=1),
        class_scores=class_scores[kept],
        maskness=mean,
        scores=class_scores[kept] * mean,
        masks=masks,
        class_margins=_lead(probabilities[kept]),
        keep_margins=class_scores - np.asarray(keep_threshold, class_scores.dtype),
        mask_margins=mask_margins,
        tied_pixels=tied,
    )


def maskness(probabilities: Array, threshold: float = 0.45) -> Array:
    """Return the mean of the probabilities above ``threshold``, 0 if there is none (public SparseInst).

    ``sum / (count + 1e-6)`` over the last two axes: (K, h, w) → (K,).
    """
    above = probabilities > threshold
    count = above.sum(axis=(1, 2)).astype(probabilities.dtype)
    mean: Array = (probabilities * above).sum(axis=(1, 2)) / (count + 1e-6)
    return mean


def placement_matrices(placement: Placement, mask_size: Size, dtype: DTypeLike) -> tuple[Array, Array]:
    """Return R (H, h) and C (W, w) that take a mask to the original picture: ``R @ mask @ C.T``.

    Bilinear resizing to the padded input, cropping to the picture and bilinear resizing to its original size
    are linear and separable, so the three together are one product from each side.
    """
    lengths = zip(mask_size, placement.padded, placement.resized, placement.original, strict=True)
    rows, columns = (_axis_matrix(*axis).astype(dtype) for axis in lengths)
    return rows, columns


def _axis_matrix(mask: int, padded: int, resized: int, original: int) -> Array:
    """Return the (original, mask) matrix of resizing, cropping and resizing along one axis."""
    to_input = resize_plane(np.eye(mask), (padded, mask))[:resized]
    return resize_plane(to_input, (original, mask))


def _decided_masks(
    probabilities: Array, placement: Placement, threshold: float, band: float
) -> tuple[Array, Array, Array]:
    """Threshold the masks at the original size; also return their smallest margins and tied pixel counts."""
    count, height, width = len(probabilities), *placement.original
    if count * height * width > LARGEST_MASKS:
        raise ShapeError(
            f"{count} masks of {height}×{width} pixels need more than {LARGEST_MASKS} bytes; "
            "raise keep_threshold or make the picture smaller"
        )
    rows, columns = placement_matrices(placement, probabilities.shape[1:], probabilities.dtype)
    masks = np.empty((count, height, width), dtype=bool)
    margins = np.empty(count, dtype=probabilities.dtype)
    tied = np.empty(count, dtype=np.int64)
    # Only one mask is held as floating-point numbers at full size.
    for i, probability in enumerate(probabilities):
        difference = (rows @ probability) @ columns.T - np.asarray(threshold, probabilities.dtype)
        np.greater(difference, 0, out=masks[i])
        distance = np.abs(difference, out=difference)
        margins[i] = distance.min()
        tied[i] = np.count_nonzero(distance <= band)
    return masks, margins, tied


def _lead(probabilities: Array) -> Array:
    """Return by how much the best class leads the second: (K, classes) → (K,)."""
    if probabilities.shape[1] == 1:
        return np.full(len(probabilities), np.inf, dtype=probabilities.dtype)
    second, best = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return best - second


def _colours(picture: Array) -> Array:
    """Return the picture as (H, W, 3), uint8 or floating, checked."""
    shape_of_picture = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3, 4))
    if not shape_of_picture or picture.size == 0:
        raise ShapeError(
            f"a picture is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) and not empty; got {picture.shape}"
        )
    if picture.dtype != np.uint8 and not np.issubdtype(picture.dtype, np.floating):
        raise ShapeError(f"a picture is uint8 or floating with values 0…255; got {picture.dtype}, convert it")
    if picture.dtype != np.uint8:
        require_finite(picture, "the picture")
    if picture.ndim == 2:
        picture = picture[:, :, None]
    return np.broadcast_to(picture, (*picture.shape[:2], 3)) if picture.shape[2] == 1 else picture[:, :, :3]


def _shorter_side(height: int, width: int, shorter: int, longest: float, add: float) -> Size:
    """Return the size with this shorter side, or, if that is smaller, with longer side ``longest``."""
    scale = min(shorter / min(height, width), longest / max(height, width))
    return max(1, math.floor(height * scale + add)), max(1, math.floor(width * scale + add))


def resize_plane(plane: Array, size: Size, smoothed: bool = False) -> Array:
    """Resize one (H, W) plane bilinearly, with half-pixel centres; smoothed, of all that a pixel covers."""
    resized: Array = resize(
        plane[None, None],
        None,
        None,
        (1, 1, *size),
        antialias=int(smoothed),
        exclude_outside=int(smoothed),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    return resized[0, 0]
