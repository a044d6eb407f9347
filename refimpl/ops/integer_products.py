"""Products of quantised numbers: sums of integers, exact, and the same brought back to 8 bits.

Integers are less their zero points; a sum of them in float64 is exact as long as it is below 2⁵³.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refimpl.ops.operation import OPERATIONS, Array, Trait, operation


@operation("ConvInteger", Trait.EXACT)
def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Convolve ``x − x_zero_point`` with ``w − w_zero_point``.

    Parameters
    ----------
    x, w : arrays of uint8 or int8, as of `refimpl.ops.conv`
    x_zero_point : scalar of the dtype of ``x``, optional
    w_zero_point : scalar or array (M,) of the dtype of ``w``, optional
    auto_pad, dilations, group, kernel_shape, pads, strides
        As of Conv; what is padded is the zero point.

    Returns
    -------
    array, int32

    Source: ONNX ConvInteger.
    """
    taps = _shifted(w, w_zero_point, (-1, *(1,) * (w.ndim - 1)))
    convolution = OPERATIONS["Conv"](
        _shifted(x, x_zero_point, (1,) * x.ndim),
        taps,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _as_int32(convolution)


@operation("MatMulInteger", Trait.EXACT)
def mat_mul_integer(
    a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None
) -> Array:
    """Return the matrix product of ``a − a_zero_point`` and ``b − b_zero_point``, int32.

    Parameters
    ----------
    a, b : arrays of uint8 or int8
    a_zero_point : scalar, array (rows,), or (…, rows, 1); optional
    b_zero_point : scalar, array (columns,), or (…, 1, columns); optional

    Source: ONNX MatMulInteger.
    """
    return _as_int32(np.matmul(_shifted(a, a_zero_point, (-1, 1)), _shifted(b, b_zero_point, (1, -1))))


def _shifted(x: Array, zero_point: Array | None, shape: tuple[int, ...]) -> Array:
    """Return ``x`` less its zero point, float64; one of several stands along ``shape``."""
    return x.astype(np.float64) - (0 if zero_point is None else _placed(zero_point, shape))


def _placed(values: Array, shape: tuple[int, ...]) -> Array:
    """Return a scale or zero point so that it broadcasts, float64."""
    wide = np.asarray(values, np.float64)
    if wide.ndim > 1:
        return wide
    return wide.reshape(shape if wide.size > 1 else ())


def _as_int32(x: Array) -> Array:
    """Return whole numbers as int32, which overflows by wrapping around."""
    return np.asarray(x).astype(np.int64).astype(np.int32)


# --- back to 8 bits -------------------------------------------------------------------------------


@operation("QLinearConv", Trait.ROUNDS)
def q_linear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Convolve quantised numbers: ``round(Σ · x_scale · w_scale / y_scale) + y_zero_point``, saturated.

    Parameters
    ----------
    x, x_zero_point, w, w_zero_point, auto_pad, …, strides
        As of `conv_integer`.
    x_scale, y_scale : scalars
    w_scale : scalar or array (M,)
    y_zero_point : scalar, of the dtype of the result
    b : array (M,), int32, optional
        In steps of ``x_scale · w_scale``.

    Returns
    -------
    array, the dtype of ``y_zero_point``; halves are rounded to even

    Source: Jacob et al. 2018; ONNX QLinearConv.
    """
    along = (-1, *(1,) * (x.ndim - 2))
    total = OPERATIONS["ConvInteger"](
        x,
        w,
        x_zero_point,
        w_zero_point,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    if b is not None:
        total = total + b.reshape(along)
    return _requantized(total, x_scale * _placed(w_scale, along), y_scale, y_zero_point)


@operation("QLinearMatMul", Trait.ROUNDS)
def q_linear_mat_mul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
) -> Array:
    """Multiply quantised matrices: ``round(Σ · a_scale · b_scale / y_scale) + y_zero_point``, saturated.

    Parameters
    ----------
    a, a_zero_point, b, b_zero_point
        As of `mat_mul_integer`.
    a_scale, b_scale
        Scalars, or as many as their zero points.
    y_scale, y_zero_point : scalars

    Returns
    -------
    array, the dtype of ``y_zero_point``; halves are rounded to even

    Source: Jacob et al. 2018; ONNX QLinearMatMul.
    """
    total = OPERATIONS["MatMulInteger"](a, b, a_zero_point, b_zero_point)
    return _requantized(total, _placed(a_scale, (-1, 1)) * _placed(b_scale, (1, -1)), y_scale, y_zero_point)


def _requantized(total: Array, scale: Array, y_scale: Array, y_zero_point: Array) -> Array:
    limits = np.iinfo(y_zero_point.dtype)
    steps = np.rint(total * (scale / np.asarray(y_scale, np.float64))) + y_zero_point.astype(np.float64)
    return np.clip(steps, limits.min, limits.max).astype(y_zero_point.dtype)
