"""Pooling: the maximum or the mean of sliding windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from refimpl.errors import ShapeError
from refimpl.ops.linear import mat_mul
from refimpl.ops.operation import Array, Trait, operation
from refimpl.ops.shape import constant
from refimpl.ops.windows import Windows, padded, sliding_windows


@operation("MaxPool", Trait.SELECTS | Trait.MAPS)
def max_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Array:
    """Maximum of every window of ``x`` (N, C, *spatial); padding never wins, NaN always does.

    Only the first output of ONNX's MaxPool is computed, so ``storage_order``, which orders the second, has no
    effect: see `max_pool_with_indices`.

    Raises
    ------
    ShapeError
        If the attributes do not fit the rank, or the kernel is larger than the padded input.

    Notes
    -----
    ONNX operator MaxPool.
    """
    windows = _pooling_windows(x, kernel_shape, auto_pad, dilations, pads, strides, ceil_mode)
    result = padded(x, windows, _lowest(x.dtype))
    for axis in range(x.ndim - 2):
        result = _fold(np.maximum, result, windows, axis)
    return result


def max_pool_with_indices(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> tuple[Array, Array]:
    """Both outputs of ONNX's MaxPool: the maxima, and the int64 index of each in the flattened ``x``.

    ``storage_order`` 1 counts the spatial axes column-major; of equal maxima the first is named.
    """
    windows = _pooling_windows(x, kernel_shape, auto_pad, dilations, pads, strides, ceil_mode)
    data = padded(x, windows, _lowest(x.dtype))
    stacked = np.stack([data[where] for _, where in windows.taps()])
    winner = stacked.argmax(axis=0)
    tap = np.unravel_index(winner, windows.kernel)
    position = []
    for axis, (count, stride) in enumerate(zip(windows.output, windows.strides, strict=True)):
        start = (np.arange(count) * stride - windows.begin[axis]).reshape(
            -1, *(1,) * (len(windows.output) - 1 - axis)
        )
        position.append(start + tap[axis] * windows.dilations[axis])
    spatial = np.ravel_multi_index(tuple(position), x.shape[2:], order="F" if storage_order else "C")
    maps = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(windows.output))
    maxima = np.take_along_axis(stacked, winner[None], axis=0)[0]
    return maxima, (maps * math.prod(x.shape[2:]) + spatial).astype(np.int64)


@operation("AveragePool", Trait.SUMS | Trait.MAPS)
def average_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Mean of every window of ``x`` (N, C, *spatial).

    The divisor counts the elements of the window inside the input, or, with ``count_include_pad``, inside the
    padded input; what ``ceil_mode`` adds beyond that never counts.

    Raises
    ------
    ShapeError
        If the attributes do not fit the rank, or the kernel is larger than the padded input.

    Notes
    -----
    ONNX operator AveragePool.
    """
    windows = _pooling_windows(x, kernel_shape, auto_pad, dilations, pads, strides, ceil_mode)
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    result = padded(wide, windows)
    for axis in range(x.ndim - 2):
        result = _fold(np.add, result, windows, axis)
        result /= _divisor(x.shape[2 + axis], windows, axis, count_include_pad).astype(wide.dtype)
    return result.astype(x.dtype, copy=False)


@operation("LpPool", Trait.ROUNDS | Trait.MAPS)
def lp_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Return ``(Σ |x|^p)^(1/p)`` of every window of ``x`` (N, C, *spatial).

    Raises
    ------
    ShapeError
        If the attributes do not fit the rank, or the kernel is larger than the padded input.

    Notes
    -----
    ONNX operator LpPool.
    """
    windows = _pooling_windows(x, kernel_shape, auto_pad, dilations, pads, strides, ceil_mode)
    result = padded(np.abs(x) ** p, windows)
    for axis in range(x.ndim - 2):
        result = _fold(np.add, result, windows, axis)
    return np.asarray(result ** (1 / p)).astype(x.dtype, copy=False)


@operation("GlobalLpPool", Trait.ROUNDS | Trait.MAPS)
def global_lp_pool(x: Array, *, p: int = 2) -> Array:
    """Return ``(Σ |x|^p)^(1/p)`` over the spatial axes of ``x``, kept as 1 (ONNX operator GlobalLpPool)."""
    total = np.sum(np.abs(x) ** p, axis=_spatial_axes(x), keepdims=True)
    return np.asarray(total ** (1 / p)).astype(x.dtype, copy=False)


@operation("GlobalAveragePool", Trait.SUMS | Trait.MAPS)
def global_average_pool(x: Array) -> Array:
    """Mean over the spatial axes of ``x`` (N, C, *spatial), kept as 1 (ONNX operator GlobalAveragePool)."""
    return x.mean(axis=_spatial_axes(x), keepdims=True)


@operation("GlobalMaxPool", Trait.SELECTS | Trait.MAPS)
def global_max_pool(x: Array) -> Array:
    """Maximum over the spatial axes of ``x`` (N, C, *spatial), kept as 1 (ONNX operator GlobalMaxPool)."""
    return x.max(axis=_spatial_axes(x), keepdims=True)


def adaptive_average_pool(x: Array, output_size: Sequence[int]) -> Array:
    """Mean of ``output_size`` windows spread evenly over ``x`` (N, C, H, W).

    Window i of n over L elements is [⌊iL/n⌋, ⌈(i+1)L/n⌉), as in PyTorch's AdaptiveAvgPool2d. Composed of
    operations: one AveragePool if the sizes divide, else a product with an averaging matrix on either side.

    Raises
    ------
    ShapeError
        If ``x`` is not of rank 4 or ``output_size`` not two positive integers.
    """
    if x.ndim != 4 or len(output_size) != 2 or min(output_size) < 1:
        raise ShapeError(
            f"x has shape {x.shape} and output_size is {tuple(output_size)}; expected rank 4 and (H, W)"
        )
    height, width = x.shape[2:]
    rows, columns = output_size
    if height % rows == 0 and width % columns == 0:
        kernel = (height // rows, width // columns)
        return average_pool(x, kernel_shape=kernel, strides=kernel)
    over_columns = constant(value=_averaging_matrix(width, columns).T.astype(x.dtype))
    over_rows = constant(value=_averaging_matrix(height, rows).astype(x.dtype))
    return mat_mul(over_rows, mat_mul(x, over_columns))


def _averaging_matrix(size: int, count: int) -> Array:
    """Return the (count, size) matrix whose rows average the adaptive windows."""
    windows = np.arange(count)[:, None]
    element = np.arange(size)
    # ⌈(i+1)L/n⌉ in whole numbers
    inside = (element >= windows * size // count) & (element < -(-(windows + 1) * size // count))
    return inside / inside.sum(axis=1, keepdims=True)


def _spatial_axes(x: Array) -> tuple[int, ...]:
    """Return the axes after batch and channels, or raise `ShapeError` if there are none."""
    if x.ndim < 3:
        raise ShapeError(f"x has shape {x.shape}; expected (N, C, *spatial)")
    return tuple(range(2, x.ndim))


def _pooling_windows(
    x: Array,
    kernel_shape: Sequence[int],
    auto_pad: str,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
    ceil_mode: int,
) -> Windows:
    """Place the windows over the spatial axes of ``x``."""
    _spatial_axes(x)
    return sliding_windows(
        x.shape[2:],
        kernel_shape,
        auto_pad=auto_pad,
        dilations=dilations,
        pads=pads,
        strides=strides,
        ceil_mode=ceil_mode,
    )


def _lowest(dtype: np.dtype) -> float:
    """Return the value that no element is below."""
    return -math.inf if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).min


def _fold(combine: np.ufunc, data: Array, windows: Windows, axis: int) -> Array:
    """Combine the taps of one spatial axis: maximum and sum are separable, so axis follows axis."""
    before = (slice(None),) * (2 + axis)
    result = data[(*before, windows.tap(axis, 0))].copy()
    for index in range(1, windows.kernel[axis]):
        combine(result, data[(*before, windows.tap(axis, index))], out=result)
    return result


def _divisor(size: int, windows: Windows, axis: int, count_include_pad: int) -> Array:
    """Return how many taps of each window count along one axis, shaped to broadcast over the output."""
    start = np.arange(windows.output[axis])[:, None] * windows.strides[axis] - windows.begin[axis]
    position = start + np.arange(windows.kernel[axis]) * windows.dilations[axis]
    first, last = (-windows.begin[axis], size + windows.end[axis]) if count_include_pad else (0, size)
    count = ((position >= first) & (position < last)).sum(axis=1)
    return np.maximum(count, 1).reshape(-1, *(1,) * (len(windows.output) - 1 - axis))
