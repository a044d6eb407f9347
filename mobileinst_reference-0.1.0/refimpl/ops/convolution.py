"""Convolution, and what it is by definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refimpl.errors import ShapeError
from refimpl.ops.fast_convolution import correlate
from refimpl.ops.operation import Array, operation
from refimpl.ops.windows import Windows, padded, sliding_windows


def convolve(x: Array, w: Array, windows: Windows, group: int) -> Array:
    """Convolution by its definition: at every window, the sum over the taps of weights times what they read.

    `refimpl.ops.fast_convolution.correlate` computes the same in less time.

    Parameters
    ----------
    x : array (N, C, *spatial)
    w : array (M, C / group, *kernel)
    windows
        Where the kernel lies on ``x``.
    group
        How many groups of neighbouring channels have nothing to do with each other.

    Returns
    -------
    array (N, M, *output)
    """
    channels, outputs = x.shape[1] // group, w.shape[0] // group
    x = padded(x, windows)
    x = x.reshape(len(x), group, channels, *x.shape[2:])  # (N, g, C/g, *padded)
    w = w.reshape(group, outputs, channels, -1)  # (g, M/g, C/g, taps)
    taps = [
        np.einsum("gmc,ngc...->ngm...", w[..., tap], x[read]) for tap, (_, read) in enumerate(windows.taps())
    ]
    return np.sum(taps, axis=0).reshape(len(x), group * outputs, *windows.output)


@operation("Conv")
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Convolve (cross-correlate) ``x`` with ``w`` over any number of spatial axes.

    Parameters
    ----------
    x : array (N, C, *spatial)
    w : array (M, C / group, *kernel)
    b : array (M,), optional
    auto_pad, dilations, group, kernel_shape, pads, strides
        As in ONNX; ``pads`` lists all beginnings, then all ends.

    Returns
    -------
    array (N, M, *output), the dtype of ``x``; float16 is accumulated in float32.

    Raises
    ------
    ShapeError
        If ranks, channels and groups disagree, or the kernel is larger than the padded input.

    Notes
    -----
    ONNX operator Conv.
    """
    check_operands(x, w, b, group, x.shape[1] if x.ndim > 1 else 0, w.shape[0], kernel_shape)
    windows = sliding_windows(
        x.shape[2:], w.shape[2:], auto_pad=auto_pad, dilations=dilations, pads=pads, strides=strides
    )
    accumulator = np.float32 if x.dtype == np.float16 else x.dtype
    wide = correlate(x.astype(accumulator, copy=False), w.astype(accumulator, copy=False), windows, group)
    if b is not None:
        wide += b.reshape(-1, *(1,) * (x.ndim - 2))
    return wide.astype(x.dtype, copy=False)


def check_operands(
    x: Array, w: Array, b: Array | None, group: int, c_in: int, c_out: int, kernel_shape: Sequence[int] | None
) -> None:
    """Raise `ShapeError` unless data, weight and bias of ``c_in`` and ``c_out`` channels belong together."""
    if x.ndim < 3 or w.ndim != x.ndim:
        raise ShapeError(
            f"x has shape {x.shape} and w {w.shape}; expected two arrays of the same rank, at least 3"
        )
    if group < 1 or c_in % group or c_out % group:
        raise ShapeError(f"{group} groups do not divide {c_in} input and {c_out} output channels")
    if b is not None and b.shape != (c_out,):
        raise ShapeError(f"the bias has shape {b.shape}; expected ({c_out},)")
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
        raise ShapeError(f"kernel_shape is {tuple(kernel_shape)}, but w has shape {w.shape}")
