"""Arithmetic, comparisons and logic, element by element with NumPy's (ONNX's multidirectional) broadcasting.

A Python scalar or sequence among the operands takes the dtype of the first array operand, so `mul(x, 0.5)`
keeps the precision of ``x``. Names that would shadow Python's are written out: `absolute`, `power`,
`minimum`, `maximum`, `round_half_even`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from refimpl.errors import ShapeError
from refimpl.ops.operation import Array, Trait, operation


def tensors(*operands: ArrayLike) -> list[Array]:
    """Return the operands as arrays, Python scalars and sequences in the dtype of the first array among them.

    Raises
    ------
    ShapeError
        A fractional Python scalar would have to be truncated to the integer dtype of a tensor.
    """
    like = next((operand.dtype for operand in operands if isinstance(operand, np.ndarray)), None)
    return [x if isinstance(x, np.ndarray) else _in_dtype(x, like) for x in operands]


def _in_dtype(value: ArrayLike, dtype: np.dtype[Any] | None) -> Array:
    array = np.asarray(value)
    if dtype is None:
        return array
    if array.dtype.kind == "f" and dtype.kind != "f" and not np.array_equal(array, np.trunc(array)):
        raise ShapeError(
            f"operand {value!r} does not fit a tensor of {dtype}; cast the tensor to a float type first"
        )
    return array.astype(dtype)


# --- arithmetic -----------------------------------------------------------------------------------


@operation("Add", Trait.ROUNDS | Trait.ELEMENTWISE)
def add(a: ArrayLike, b: ArrayLike) -> Array:
    """Return ``a + b``. ONNX Add."""
    return np.asarray(np.add(*tensors(a, b)))


@operation("Sub", Trait.ROUNDS | Trait.ELEMENTWISE)
def sub(a: ArrayLike, b: ArrayLike) -> Array:
    """Return ``a − b``. ONNX Sub."""
    return np.asarray(np.subtract(*tensors(a, b)))


@operation("Mul", Trait.ROUNDS | Trait.ELEMENTWISE)
def mul(a: ArrayLike, b: ArrayLike) -> Array:
    """Return ``a · b``. ONNX Mul."""
    return np.asarray(np.multiply(*tensors(a, b)))


@operation("Div", Trait.ROUNDS | Trait.ELEMENTWISE)
def div(a: ArrayLike, b: ArrayLike) -> Array:
    """Return ``a / b``; of integers, the quotient truncated towards zero. ONNX Div."""
    dividend, divisor = tensors(a, b)
    if dividend.dtype.kind == "f":
        return np.asarray(np.divide(dividend, divisor))
    quotient = np.floor_divide(dividend, divisor)
    inexact_negative = (np.remainder(dividend, divisor) != 0) & ((dividend < 0) != (divisor < 0))
    return np.asarray(quotient + inexact_negative.astype(quotient.dtype))


@operation("Pow", Trait.ROUNDS | Trait.ELEMENTWISE)
def power(x: ArrayLike, y: ArrayLike) -> Array:
    """Return ``x`` to the power ``y`` in the dtype of ``x``. ONNX Pow."""
    base, exponent = tensors(x, y)
    return np.asarray(np.power(base, exponent)).astype(base.dtype, copy=False)


@operation("Mod", Trait.ROUNDS | Trait.ELEMENTWISE)
def mod(a: ArrayLike, b: ArrayLike, *, fmod: int = 0) -> Array:
    """Return the remainder, with the sign of ``b``, or with ``fmod`` that of ``a``. ONNX Mod."""
    return np.asarray((np.fmod if fmod else np.mod)(*tensors(a, b)))


@operation("Neg", Trait.EXACT | Trait.MONOTONE)
def neg(x: ArrayLike) -> Array:
    """Return ``−x``. ONNX Neg."""
    return np.asarray(np.negative(x))


@operation("Abs", Trait.EXACT | Trait.ELEMENTWISE)
def absolute(x: ArrayLike) -> Array:
    """Return the absolute value. ONNX Abs."""
    return np.asarray(np.abs(x))


@operation("Sign", Trait.EXACT | Trait.MONOTONE)
def sign(x: ArrayLike) -> Array:
    """Return −1, 0 or 1. ONNX Sign."""
    return np.asarray(np.sign(x))


@operation("Reciprocal", Trait.ROUNDS | Trait.ELEMENTWISE)
def reciprocal(x: ArrayLike) -> Array:
    """Return ``1 / x``. ONNX Reciprocal."""
    return np.asarray(np.reciprocal(x))


@operation("Sqrt", Trait.ROUNDS | Trait.MONOTONE)
def sqrt(x: ArrayLike) -> Array:
    """Return the square root. ONNX Sqrt."""
    return np.asarray(np.sqrt(x))


@operation("Exp", Trait.ROUNDS | Trait.MONOTONE)
def exp(x: ArrayLike) -> Array:
    """Return e to the power ``x``. ONNX Exp."""
    return np.asarray(np.exp(x))


@operation("Log", Trait.ROUNDS | Trait.MONOTONE)
def log(x: ArrayLike) -> Array:
    """Return the natural logarithm. ONNX Log."""
    return np.asarray(np.log(x))


@operation("Sin", Trait.ROUNDS | Trait.ELEMENTWISE)
def sin(x: ArrayLike) -> Array:
    """Return the sine of ``x`` radians. ONNX Sin."""
    return np.asarray(np.sin(x))


@operation("Cos", Trait.ROUNDS | Trait.ELEMENTWISE)
def cos(x: ArrayLike) -> Array:
    """Return the cosine of ``x`` radians. ONNX Cos."""
    return np.asarray(np.cos(x))


@operation("Tan", Trait.ROUNDS | Trait.ELEMENTWISE)
def tan(x: ArrayLike) -> Array:
    """Return the tangent of ``x`` radians. ONNX Tan."""
    return np.asarray(np.tan(x))


@operation("Asin", Trait.ROUNDS | Trait.MONOTONE)
def asin(x: ArrayLike) -> Array:
    """Return the angle whose sine is ``x``. ONNX Asin."""
    return np.asarray(np.arcsin(x))


@operation("Acos", Trait.ROUNDS | Trait.MONOTONE)
def acos(x: ArrayLike) -> Array:
    """Return the angle whose cosine is ``x``. ONNX Acos."""
    return np.asarray(np.arccos(x))


@operation("Atan", Trait.ROUNDS | Trait.MONOTONE)
def atan(x: ArrayLike) -> Array:
    """Return the angle whose tangent is ``x``. ONNX Atan."""
    return np.asarray(np.arctan(x))


@operation("Sinh", Trait.ROUNDS | Trait.MONOTONE)
def sinh(x: ArrayLike) -> Array:
    """Return the hyperbolic sine. ONNX Sinh."""
    return np.asarray(np.sinh(x))


@operation("Cosh", Trait.ROUNDS | Trait.ELEMENTWISE)
def cosh(x: ArrayLike) -> Array:
    """Return the hyperbolic cosine. ONNX Cosh."""
    return np.asarray(np.cosh(x))


@operation("Asinh", Trait.ROUNDS | Trait.MONOTONE)
def asinh(x: ArrayLike) -> Array:
    """Return the number whose hyperbolic sine is ``x``. ONNX Asinh."""
    return np.asarray(np.arcsinh(x))


@operation("Acosh", Trait.ROUNDS | Trait.MONOTONE)
def acosh(x: ArrayLike) -> Array:
    """Return the number whose hyperbolic cosine is ``x``. ONNX Acosh."""
    return np.asarray(np.arccosh(x))


@operation("Atanh", Trait.ROUNDS | Trait.MONOTONE)
def atanh(x: ArrayLike) -> Array:
    """Return the number whose hyperbolic tangent is ``x``. ONNX Atanh."""
    return np.asarray(np.arctanh(x))


@operation("Floor", Trait.EXACT | Trait.MONOTONE)
def floor(x: ArrayLike) -> Array:
    """Return the largest integer not above ``x``. ONNX Floor."""
    return np.asarray(np.floor(x))


@operation("Ceil", Trait.EXACT | Trait.MONOTONE)
def ceil(x: ArrayLike) -> Array:
    """Return the smallest integer not below ``x``. ONNX Ceil."""
    return np.asarray(np.ceil(x))


@operation("Round", Trait.EXACT | Trait.MONOTONE)
def round_half_even(x: ArrayLike) -> Array:
    """Return the nearest integer, halves to the even one. ONNX Round."""
    return np.asarray(np.rint(x))


# --- of several tensors ---------------------------------------------------------------------------


def _fold(function: np.ufunc, operands: tuple[ArrayLike, ...]) -> Array:
    first, *rest = tensors(*operands)
    for operand in rest:
        first = function(first, operand)
    return np.asarray(first)


@operation("Max", Trait.SELECTS | Trait.ELEMENTWISE)
def maximum(*inputs: ArrayLike) -> Array:
    """Return the largest of the inputs, element by element; NaN wins. ONNX Max."""
    return _fold(np.maximum, inputs)


@operation("Min", Trait.SELECTS | Trait.ELEMENTWISE)
def minimum(*inputs: ArrayLike) -> Array:
    """Return the smallest of the inputs, element by element; NaN wins. ONNX Min."""
    return _fold(np.minimum, inputs)


@operation("Sum", Trait.ROUNDS | Trait.ELEMENTWISE)
def sum_of(*inputs: ArrayLike) -> Array:
    """Return the sum of the inputs, element by element. ONNX Sum."""
    return _fold(np.add, inputs)


@operation("Mean", Trait.ROUNDS | Trait.ELEMENTWISE)
def mean_of(*inputs: ArrayLike) -> Array:
    """Return the mean of the inputs, element by element. ONNX Mean."""
    total = _fold(np.add, inputs)
    return np.asarray(total / np.asarray(len(inputs), total.dtype))


# --- comparisons and logic ------------------------------------------------------------------------


@operation("Equal", Trait.EXACT | Trait.ELEMENTWISE)
def equal(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where ``a`` equals ``b``, as booleans. ONNX Equal."""
    return np.asarray(np.equal(*tensors(a, b)))


@operation("Less", Trait.EXACT | Trait.ELEMENTWISE)
def less(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where ``a < b``, as booleans. ONNX Less."""
    return np.asarray(np.less(*tensors(a, b)))


@operation("LessOrEqual", Trait.EXACT | Trait.ELEMENTWISE)
def less_or_equal(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where ``a ≤ b``, as booleans. ONNX LessOrEqual."""
    return np.asarray(np.less_equal(*tensors(a, b)))


@operation("Greater", Trait.EXACT | Trait.ELEMENTWISE)
def greater(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where ``a > b``, as booleans. ONNX Greater."""
    return np.asarray(np.greater(*tensors(a, b)))


@operation("GreaterOrEqual", Trait.EXACT | Trait.ELEMENTWISE)
def greater_or_equal(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where ``a ≥ b``, as booleans. ONNX GreaterOrEqual."""
    return np.asarray(np.greater_equal(*tensors(a, b)))


@operation("And", Trait.EXACT | Trait.ELEMENTWISE)
def logical_and(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where both hold. ONNX And."""
    return np.asarray(np.logical_and(a, b))


@operation("Or", Trait.EXACT | Trait.ELEMENTWISE)
def logical_or(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where at least one holds. ONNX Or."""
    return np.asarray(np.logical_or(a, b))


@operation("Xor", Trait.EXACT | Trait.ELEMENTWISE)
def logical_xor(a: ArrayLike, b: ArrayLike) -> Array:
    """Return where exactly one holds. ONNX Xor."""
    return np.asarray(np.logical_xor(a, b))


@operation("Not", Trait.EXACT | Trait.ELEMENTWISE)
def logical_not(x: ArrayLike) -> Array:
    """Return where ``x`` does not hold. ONNX Not."""
    return np.asarray(np.logical_not(x))


@operation("Where", Trait.MOVES | Trait.ELEMENTWISE)
def where(condition: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """Return ``x`` where ``condition`` holds, ``y`` elsewhere. ONNX Where."""
    chosen, other = tensors(x, y)
    return np.where(np.asarray(condition, dtype=bool), chosen, other)


@operation("IsNaN", Trait.EXACT | Trait.ELEMENTWISE)
def is_nan(x: ArrayLike) -> Array:
    """Return where ``x`` is NaN. ONNX IsNaN."""
    return np.asarray(np.isnan(x))


@operation("IsInf", Trait.EXACT | Trait.ELEMENTWISE)
def is_inf(x: ArrayLike, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Return where ``x`` is infinite, of the signs asked for. ONNX IsInf."""
    positive, negative = np.equal(x, np.inf), np.equal(x, -np.inf)
    return np.asarray((positive & bool(detect_positive)) | (negative & bool(detect_negative)))
