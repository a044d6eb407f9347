"""Convolution whose taps are moved, each at each window, by offsets that are data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from refimpl.errors import ShapeError
from refimpl.ops.operation import Array, Trait, operation
from refimpl.ops.windows import Windows, sliding_windows


@operation("DeformConv", Trait.ROUNDS)
def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Convolve ``x`` with ``w``, whose every tap reads where its offset says, between the elements.

    Parameters
    ----------
    x : array (N, C, *spatial)
    w : array (M, C / group, *kernel)
    offset : array (N, offset_group · taps · rank, *output)
        In elements of ``x``; of each tap first along the first axis. Outside of ``x`` there are zeros.
    b : array (M,), optional
    mask : array (N, offset_group · taps, *output), optional
        What each tap's reading is multiplied by.
    dilations, group, kernel_shape, pads, strides
        As of Conv.
    offset_group : int
        How many groups of neighbouring channels have offsets of their own.

    Returns
    -------
    array (N, M, *output), the dtype of ``x``

    Raises
    ------
    ShapeError
        The offsets are not as many as the windows have taps.

    Source: Dai et al. 2017; Zhu et al. 2019 (the mask); ONNX DeformConv.
    """
    columns = deformed_columns(
        x,
        offset,
        mask,
        w.shape[2:],
        dilations=dilations,
        offset_group=offset_group,
        pads=pads,
        strides=strides,
    )
    grouped = columns.reshape(len(x), group, -1, columns.shape[-1])
    product = w.reshape(group, w.shape[0] // group, -1).astype(columns.dtype) @ grouped
    result = product.reshape(len(x), w.shape[0], *offset.shape[2:])
    if b is not None:
        result = result + b.reshape(-1, *(1,) * (x.ndim - 2))
    return np.asarray(result).astype(x.dtype, copy=False)


def deformed_columns(
    x: Array,
    offset: Array,
    mask: Array | None,
    kernel: Sequence[int],
    *,
    dilations: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Return what the taps of `deform_conv` read, (N, C · taps, windows); float16 in float32.

    Raises
    ------
    ShapeError
        The offsets are not as many as the windows have taps.
    """
    windows = sliding_windows(x.shape[2:], kernel, dilations=dilations, pads=pads, strides=strides)
    rank, taps = x.ndim - 2, math.prod(kernel)
    expected = (len(x), offset_group * taps * rank, *windows.output)
    if offset.shape != expected:
        raise ShapeError(f"the offsets have shape {offset.shape}; expected {expected}")
    wide = np.promote_types(x.dtype, np.float32)
    moved = offset.astype(wide).reshape(len(x), offset_group, taps, rank, -1)
    places = moved + _places(windows).astype(wide)
    # (N, groups, channels of each, taps · windows)
    maps = x.astype(wide).reshape(len(x), offset_group, x.shape[1] // offset_group, -1)
    read = _read(maps, np.moveaxis(places, 3, 0).reshape(rank, len(x), offset_group, -1), x.shape[2:])
    if mask is not None:
        read = read * mask.astype(wide).reshape(len(x), offset_group, 1, -1)
    return read.reshape(len(x), x.shape[1] * taps, -1)


def _places(windows: Windows) -> Array:
    """Return where each tap (taps, rank, windows) reads if nothing moves it."""
    axes = [
        np.arange(k)[:, None] * d + np.arange(o) * s - p
        for k, d, o, s, p in zip(
            windows.kernel, windows.dilations, windows.output, windows.strides, windows.begin, strict=True
        )
    ]
    rank = len(axes)
    spread = [
        np.expand_dims(axis, tuple(a for a in range(2 * rank) if a not in (place, rank + place)))
        for place, axis in enumerate(axes)
    ]
    shape = (*windows.kernel, *windows.output)
    every = [np.broadcast_to(axis, shape).reshape(math.prod(windows.kernel), -1) for axis in spread]
    return np.stack(every, axis=1)


def _read(maps: Array, places: Array, size: Sequence[int]) -> Array:
    """Return the maps (…, channels, positions) at places (rank, …, points), interpolated linearly."""
    # Far outside there are zeros, however far.
    held = np.clip(places, -2, np.reshape(size, (-1, *(1,) * (places.ndim - 1))) + 1).astype(places.dtype)
    below = np.floor(held)
    share = held - below
    result = np.zeros((*maps.shape[:-1], places.shape[-1]), maps.dtype)
    for corner in itertools.product((0, 1), repeat=len(size)):
        index = [(below[axis] + step).astype(np.intp) for axis, step in enumerate(corner)]
        weight = np.multiply.reduce([share[a] if step else 1 - share[a] for a, step in enumerate(corner)])
        inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(index, size, strict=True)])
        flat = np.ravel_multi_index([np.clip(i, 0, n - 1) for i, n in zip(index, size, strict=True)], size)
        value = np.take_along_axis(maps, flat[:, :, None], -1)
        result += np.where(inside[:, :, None], value * weight[:, :, None], 0)
    return result
