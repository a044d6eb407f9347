"""Sampling maps at places that are data: grids, regions, and convolutions whose taps are moved.

A place is a coordinate per axis, in elements: 0 is the centre of the first one. Between elements the samples
are interpolated; everything is computed in the dtype of the map.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from refimpl.errors import ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array, Trait, operation

Coordinates = Sequence[Array]
"""Per spatial axis, arrays of one shape that begins with the batch."""


# --- a grid ---------------------------------------------------------------------------------------


@operation("GridSample", Trait.ROUNDS)
def grid_sample(
    x: Array, grid: Array, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0
) -> Array:
    """Return ``x`` sampled at the places of ``grid``. ONNX GridSample.

    Parameters
    ----------
    x : array (N, C, D1, …, Dr)
    grid : array (N, d1, …, dr, r)
        Places, the last axis of ``x`` first: −1 and 1 are the edges of the map, or with ``align_corners`` the
        centres of its outermost elements.
    mode : "linear", "nearest" or "cubic"
        Halves go to the even neighbour; cubic is Keys' kernel with a = −0.75.
    padding_mode : "zeros", "border" or "reflection"
        What is outside the map.
    align_corners : int

    Returns
    -------
    array (N, C, d1, …, dr) of the dtype of ``x``

    Raises
    ------
    UnsupportedOperationError
        Another mode.
    ShapeError
        The grid's places have not one coordinate per spatial axis.

    Source: Jaderberg et al. 2015, *Spatial transformer networks*; ONNX GridSample.
    """
    if mode not in _TAPS or padding_mode not in ("zeros", "border", "reflection"):
        raise UnsupportedOperationError(
            f"GridSample has mode {mode!r}, padding {padding_mode!r}; expected linear, nearest or cubic, and "
            "zeros, border or reflection"
        )
    lengths = x.shape[2:]
    if grid.shape[-1] != len(lengths) or grid.ndim != x.ndim or len(grid) != len(x):
        raise ShapeError(f"a grid of shape {grid.shape} for data of shape {x.shape}")
    wide = np.promote_types(x.dtype, np.float32)
    places = [
        _denormalised(grid[..., -1 - axis].astype(wide, copy=False), length, align_corners)
        for axis, length in enumerate(lengths)
    ]
    taps = [
        _TAPS[mode](place, length, padding_mode, align_corners)
        for place, length in zip(places, lengths, strict=True)
    ]
    return _gathered(x, taps)


def _denormalised(place: Array, length: int, align_corners: int) -> Array:
    if align_corners:
        return np.asarray((place + 1) * (length - 1) / 2)
    return np.asarray(((place + 1) * length - 1) / 2)


Taps = tuple[Array, Array]
"""Indices of the elements along an axis, and their weights; zero for what is outside."""


def _gathered(x: Array, taps: Sequence[Taps]) -> Array:
    """Return the weighted sums of elements: every combination of the axes' taps."""
    batch = np.arange(len(x)).reshape(-1, *(1,) * (taps[0][0].ndim - 2))
    result = 0.0
    for chosen in itertools.product(*(range(len(indices)) for indices, _ in taps)):
        index = tuple(indices[tap] for tap, (indices, _) in zip(chosen, taps, strict=True))
        weight = math.prod(weights[tap] for tap, (_, weights) in zip(chosen, taps, strict=True))
        # Advanced indices around a slice: the channels come last.
        result = result + x[(batch, slice(None), *index)] * weight[..., None]
    return np.moveaxis(np.asarray(result), -1, 1).astype(x.dtype, copy=False)


def _tap(index: Array, weight: Array, length: int, padding_mode: str, align_corners: int) -> Taps:
    """Return integer positions inside the map, and their weights."""
    if padding_mode == "reflection":
        index = _reflected(index, length, align_corners)
    inside = (index >= 0) & (index < length)
    weight = np.where(inside | (padding_mode != "zeros"), weight, 0).astype(weight.dtype)
    return np.clip(index, 0, length - 1).astype(np.intp), weight


def _reflected(place: Array, length: int, align_corners: int) -> Array:
    """Mirror places at the outermost centres (``align_corners``) or edges until they are inside."""
    low, high = (0.0, length - 1.0) if align_corners else (-0.5, length - 0.5)
    span = high - low
    if span == 0:
        return np.zeros_like(place)
    away = np.mod(np.abs(place - low), 2 * span)
    return np.asarray(low + np.minimum(away, 2 * span - away), place.dtype)


def _finite(place: Array) -> Array:
    """Return places that can be indices: those that are no numbers, or far away, are outside."""
    return np.clip(np.nan_to_num(place, nan=-1e6), -1e6, 1e6)


def _limited(place: Array, length: int, padding_mode: str, align_corners: int) -> Array:
    if padding_mode == "border":
        return np.clip(place, 0, length - 1)
    return _reflected(place, length, align_corners) if padding_mode == "reflection" else _finite(place)


def _nearest_taps(place: Array, length: int, padding_mode: str, align_corners: int) -> Taps:
    index = np.rint(_limited(place, length, padding_mode, align_corners))
    indices, weights = _tap(index, np.ones_like(place), length, padding_mode, align_corners)
    return indices[None], weights[None]


def _linear_taps(place: Array, length: int, padding_mode: str, align_corners: int) -> Taps:
    place = _limited(place, length, padding_mode, align_corners)
    below = np.floor(place)
    share = place - below
    return _stacked(((below, 1 - share), (below + 1, share)), length, padding_mode, align_corners)


def _cubic_taps(place: Array, length: int, padding_mode: str, align_corners: int) -> Taps:
    """Of cubic interpolation the elements are limited, not the place."""
    place = _finite(place)
    below = np.floor(place)
    share = place - below
    weights = (_keys(share + 1), _keys(share), _keys(1 - share), _keys(2 - share))
    pairs = [(below + shift, weight) for shift, weight in zip((-1, 0, 1, 2), weights, strict=True)]
    return _stacked(pairs, length, padding_mode, align_corners)


def _stacked(
    pairs: Sequence[tuple[Array, Array]], length: int, padding_mode: str, align_corners: int
) -> Taps:
    taps = [_tap(index, weight, length, padding_mode, align_corners) for index, weight in pairs]
    return np.stack([indices for indices, _ in taps]), np.stack([weights for _, weights in taps])


def _keys(t: Array, a: float = -0.75) -> Array:
    """Keys' cubic convolution kernel at a distance between 0 and 2."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, far).astype(t.dtype)


_TAPS: dict[str, Callable[[Array, int, str, int], Taps]] = {
    "linear": _linear_taps,
    "nearest": _nearest_taps,
    "cubic": _cubic_taps,
}


# --- regions --------------------------------------------------------------------------------------


@operation("RoiAlign", Trait.ROUNDS)
def roi_align(
    x: Array,
    rois: Array,
    batch_indices: Array,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """Return each region of interest, pooled to one size from interpolated samples. ONNX RoiAlign.

    Parameters
    ----------
    x : array (N, C, H, W)
    rois : array (R, 4)
        x1, y1, x2, y2 in units of ``1 / spatial_scale`` elements.
    batch_indices : integers (R,)
    coordinate_transformation_mode : "half_pixel" or "output_half_pixel"
        The latter does not shift by half an element, and takes regions for one element large at least.
    mode : "avg" or "max"
        Of the samples; "max" is of the four weighted neighbours of each.
    sampling_ratio : int
        Samples per axis and cell; 0: as many as the cell has elements, rounded up.

    Returns
    -------
    array (R, C, output_height, output_width)

    Source: He et al. 2017, *Mask R-CNN*; ONNX RoiAlign.
    """
    y = np.zeros((len(rois), x.shape[1], output_height, output_width), x.dtype)
    for place, (roi, batch) in enumerate(zip(rois, batch_indices, strict=True)):
        samples = roi_samples(
            x[batch],
            roi,
            coordinate_transformation_mode=coordinate_transformation_mode,
            mode=mode,
            output_height=output_height,
            output_width=output_width,
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )
        y[place] = samples.sum(0).mean((2, 4)) if mode == "avg" else samples.max((0, 3, 5))
    return y


def roi_samples(
    maps: Array,
    roi: Array,
    *,
    away: ArrayLike = 0,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """Return the weighted neighbours of the samples of one region; arguments as of `roi_align`.

    Parameters
    ----------
    maps : array (C, H, W)
    roi : array (4,)
    away : pair
        How far across and down the samples are taken from their places, in units of ``roi``.

    Returns
    -------
    array (4, C, output_height, samples down, output_width, samples across)
        Upper left, upper right, lower left and lower right neighbour, each times its weight.
    """
    half = {"half_pixel": 0.5, "output_half_pixel": 0.0}.get(coordinate_transformation_mode)
    if half is None or mode not in ("avg", "max"):
        raise UnsupportedOperationError(
            f"RoiAlign has mode {mode!r}, coordinates {coordinate_transformation_mode!r}; expected avg or "
            "max, and half_pixel or output_half_pixel"
        )
    wide = np.promote_types(maps.dtype, np.float32).type
    corners = roi.astype(wide) * wide(spatial_scale) - wide(half)
    shift = np.broadcast_to(np.asarray(away, wide) * wide(spatial_scale), (2,))
    taps = []
    for axis, cells in ((1, output_height), (0, output_width)):
        places = _region_places(corners[axis], corners[2 + axis], cells, sampling_ratio, half == 0)
        taps.append(_region_taps(places + shift[axis], maps.shape[2 - axis]))
    return np.stack(
        [
            maps[:, row[:, :, None, None], column] * (of_row[:, :, None, None] * of_column)
            for (row, of_row), (column, of_column) in itertools.product(*taps)
        ]
    )


def _region_places(first: Any, last: Any, cells: int, sampling_ratio: int, at_least_one: bool) -> Array:
    """Return the places of the samples along an axis, (cells, samples)."""
    length = max(last - first, first.dtype.type(1)) if at_least_one else last - first
    cell = length / cells
    count = sampling_ratio or max(math.ceil(cell), 1)
    steps = (np.arange(count, dtype=first.dtype) + first.dtype.type(0.5)) / count
    return np.asarray(first + (np.arange(cells, dtype=first.dtype)[:, None] + steps) * cell)


def _region_taps(place: Array, length: int) -> list[Taps]:
    """Return both neighbours of places; those beyond an element outside of the map count as zero."""
    outside = (place < -1) | (place > length)
    inside = np.clip(place, 0, length - 1)
    below = np.floor(inside)
    share = inside - below
    above = np.minimum(below + 1, length - 1)
    kept = np.where(outside, 0, 1).astype(place.dtype)
    return [(below.astype(np.intp), (1 - share) * kept), (above.astype(np.intp), share * kept)]
