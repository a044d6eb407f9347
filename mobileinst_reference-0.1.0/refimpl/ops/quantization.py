"""Linear quantisation, per tensor, per axis or in blocks, as ONNX defines it: to even, then saturated."""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.errors import ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array, operation
from refimpl.ops.shape import ONNX_DTYPES


@operation("QuantizeLinear")
def quantize_linear(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    """Return ``round(x / y_scale) + y_zero_point``, saturated to the integer dtype of the zero point.

    Parameters
    ----------
    x : array, float or int32
    y_scale : array
        A scalar (per tensor), of shape (``x.shape[axis]``,) (per axis), or of the shape of ``x`` with
        ``axis`` divided by ``block_size`` (in blocks).
    y_zero_point : array like ``y_scale``, of uint8, int8, uint16, int16; optional
        None is zero, of the dtype ``output_dtype``, uint8 by default.
    axis, block_size : int
    output_dtype : int
        An `onnx.TensorProto.DataType`.
    precision : int
        The `onnx.TensorProto.DataType` of the division; 0 is that of ``x`` and the scale together.
    saturate
        Of float8 types only, which the vocabulary does not have.

    Raises
    ------
    UnsupportedOperationError
        A type that is no 8- or 16-bit integer.
    ShapeError
        The scale fits ``x`` in none of the three ways.

    Source: Jacob et al. 2018; ONNX QuantizeLinear.
    """
    dtype = y_zero_point.dtype if y_zero_point is not None else np.dtype(_onnx_dtype(output_dtype or 2))
    limits = _limits(dtype)
    divided_in = _onnx_dtype(precision) if precision else None
    y = np.asarray(np.divide(x, _spread(y_scale, x, axis, block_size), dtype=divided_in))
    np.rint(y, out=y)
    if y_zero_point is not None:
        # A 16-bit sum can need more than float16's 11 bits.
        y = y.astype(np.promote_types(y.dtype, np.float32)) + _spread(y_zero_point, x, axis, block_size)
    return np.clip(y, limits.min, limits.max).astype(dtype)


@operation("DequantizeLinear")
def dequantize_linear(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    """Return ``(x − x_zero_point) · x_scale`` in the dtype of the scale, or ``output_dtype``.

    Parameters as of `quantize_linear`; int32 is allowed as well, as biases are.

    Raises
    ------
    ShapeError
        The scale fits ``x`` in none of the three ways.

    Source: Jacob et al. 2018; ONNX DequantizeLinear.
    """
    steps = x.astype(np.int64)
    if x_zero_point is not None:
        steps -= _spread(x_zero_point, x, axis, block_size)
    scale = _spread(x_scale, x, axis, block_size)
    wide = np.promote_types(scale.dtype, np.float32)
    result = steps.astype(wide) * scale
    return result.astype(_onnx_dtype(output_dtype) if output_dtype else scale.dtype, copy=False)


@operation("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """Quantise to uint8 over the range of ``x`` and zero: the quantised, the scale, the zero point.

    Source: ONNX DynamicQuantizeLinear.
    """
    lowest, highest = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
    scale = np.asarray((highest - lowest) / x.dtype.type(255))
    zero_point = np.asarray(np.rint(np.clip(-lowest / scale, 0, 255)).astype(np.uint8))
    return quantize_linear(x, scale, zero_point), scale, zero_point


def _onnx_dtype(code: int) -> type[Any]:
    if code not in ONNX_DTYPES:
        raise UnsupportedOperationError(
            f"quantisation in ONNX type {code}; expected one of {sorted(ONNX_DTYPES)}"
        )
    return ONNX_DTYPES[code]


def _limits(dtype: np.dtype[Any]) -> np.iinfo[Any]:
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        raise UnsupportedOperationError(f"quantisation to {dtype}; expected an integer of 8 or 16 bits")
    return np.iinfo(dtype)


def _spread(values: Array, x: Array, axis: int, block_size: int) -> Array:
    """Return a scale or zero point so that it broadcasts to ``x``."""
    if values.size == 1 and values.ndim <= 1:
        return values.reshape(())
    if values.ndim == 1 and values.shape[0] == x.shape[axis]:
        return values.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])
    if block_size and values.ndim == x.ndim and values.shape[axis] == -(-x.shape[axis] // block_size):
        return np.take(values, np.arange(x.shape[axis]) // block_size, axis=axis)
    raise ShapeError(
        f"quantisation parameter of shape {values.shape} for data of shape {x.shape}, axis {axis}, "
        f"block size {block_size}; expected a scalar, one value per index of the axis, or one per block"
    )
