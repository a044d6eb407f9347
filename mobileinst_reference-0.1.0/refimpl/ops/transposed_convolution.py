"""Transposed convolution: the adjoint of convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refimpl.errors import ShapeError
from refimpl.ops.convolution import check_operands
from refimpl.ops.operation import Array, operation
from refimpl.ops.windows import Windows, padding, per_axis, split_padding


@operation("ConvTranspose")
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Transposed convolution: every input element adds its multiple of the kernel to the output.

    Parameters
    ----------
    x : array (N, C, *spatial)
    w : array (C, M / group, *kernel)
    b : array (M,), optional
    auto_pad, dilations, group, kernel_shape, output_padding, output_shape, pads, strides
        As in ONNX; a given ``output_shape`` decides the padding.

    Returns
    -------
    array (N, M, *output), the dtype of ``x``; float16 is accumulated in float32.

    Raises
    ------
    ShapeError
        If ranks, channels and groups disagree, or the padding leaves no output.

    Notes
    -----
    ONNX operator ConvTranspose.
    """
    c_out = w.shape[1] * group if w.ndim > 1 else 0
    check_operands(x, w, b, group, w.shape[0], c_out, kernel_shape)
    if x.shape[1] != w.shape[0]:
        raise ShapeError(f"x has {x.shape[1]} channels, but w {w.shape} takes {w.shape[0]}")
    rank = x.ndim - 2
    strides = per_axis("strides", strides or (1,) * rank, rank)
    dilations = per_axis("dilations", dilations or (1,) * rank, rank)
    extra = per_axis("output_padding", output_padding or (0,) * rank, rank, least=0)
    full = Windows(w.shape[2:], strides, dilations, (0,) * rank, (0,) * rank, x.shape[2:])
    size = tuple(r + e for r, e in zip(full.reach(), extra, strict=True))
    begin, end = _cropping(auto_pad, pads, output_shape, size, x.shape[2:], strides)
    if any(n - p - q < 1 for n, p, q in zip(size, begin, end, strict=True)):
        raise ShapeError(f"pads {begin} and {end} leave nothing of an output of {size}")
    wide = _scatter(x, w, full, size, group)
    kept = _cut(wide, begin, end)
    if b is not None:
        kept = kept + b.reshape(-1, *(1,) * rank)
    return np.ascontiguousarray(kept, dtype=x.dtype)


def _cut(wide: Array, begin: Sequence[int], end: Sequence[int]) -> Array:
    """Cut the spatial ends off; a negative cut, from an ``output_shape`` beyond the reach, adds zeros."""
    bounds = list(zip(wide.shape[2:], begin, end, strict=True))
    inside: tuple[Any, ...] = (..., *(slice(max(p, 0), n - max(q, 0)) for n, p, q in bounds))
    grown = [(max(-p, 0), max(-q, 0)) for _, p, q in bounds]
    return np.pad(wide[inside], [(0, 0), (0, 0), *grown])


def _cropping(
    auto_pad: str,
    pads: Sequence[int] | None,
    output_shape: Sequence[int] | None,
    size: Sequence[int],
    input_size: Sequence[int],
    strides: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what is cut from either end of each axis of the full output of ``size``."""
    rank = len(size)
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    if output_shape is None and not same:
        return padding(auto_pad, pads, size, (1,) * rank, (1,) * rank)
    if output_shape is None:
        wanted = tuple(n * s for n, s in zip(input_size, strides, strict=True))
    else:
        wanted = per_axis("output_shape", tuple(output_shape)[-rank:], rank)
    total = [n - m for n, m in zip(size, wanted, strict=True)]
    # ONNX: unless SAME_UPPER is asked for, the odd element is cut from the beginning.
    return split_padding("SAME_UPPER" if auto_pad == "SAME_UPPER" else "SAME_LOWER", total)


def _scatter(x: Array, w: Array, full: Windows, size: Sequence[int], group: int) -> Array:
    """Return the full output: the products of all inputs and taps, added where the taps point."""
    accumulator = np.float32 if x.dtype == np.float16 else x.dtype
    batch, taps = x.shape[0], w.shape[2:]
    weight = w.astype(accumulator, copy=False).reshape(group, w.shape[0] // group, -1).swapaxes(1, 2)
    columns = np.matmul(
        weight, x.astype(accumulator, copy=False).reshape(batch, group, w.shape[0] // group, -1)
    )
    columns = columns.reshape(batch, w.shape[1] * group, *taps, *x.shape[2:])
    result = np.zeros((batch, w.shape[1] * group, *size), dtype=accumulator)
    for index, where in full.taps():
        result[where] += columns[(slice(None), slice(None), *index)]
    return result
