"""Quantisation: a quantum where the scaled value is within rounding of a tie, else none."""

from __future__ import annotations

import numpy as np

from conformance.bounds.step import Bound, Step, rule
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

ROUNDINGS_OF_THE_QUOTIENT = 3
"""Of x / scale: a rounded reciprocal, its product with x, and the format it is kept in."""


@rule("QuantizeLinear", stored=True)
def quantize_linear(step: Step) -> Bound:
    """The distance to what the quantised value becomes when x moves by its rounding either way."""
    return _between(step, step.required(0), step.gamma(ROUNDINGS_OF_THE_QUOTIENT))


def _between(step: Step, x: Array, relative: float) -> Array:
    y = step.y.astype(np.float64)
    # Ties go to even here, away from zero elsewhere: a hair beyond the rounding reaches both sides of an
    # exact tie.
    hair = np.abs(x) * (relative + 1e-12)
    sides = [step.run(x + sign * hair, *step.inputs[1:]).astype(np.float64) for sign in (-1, 1)]
    return np.maximum(np.abs(sides[0] - y), np.abs(sides[1] - y))


ROUNDINGS_OF_A_PRODUCT = 5
"""Of Σ · (x_scale · w_scale / y_scale): the sum as a float, a product, a quotient, and their product."""


@rule("QLinearConv", stored=True)
def q_linear_conv(step: Step) -> Bound:
    """The distance to what the exact sum becomes when its factor moves by its rounding either way."""
    x, x_zero, w, w_zero = (step.required(place) for place in (0, 2, 3, 5))
    total = OPERATIONS["ConvInteger"](x, w, x_zero, w_zero, **step.attributes).astype(np.float64)
    along = (-1, *(1,) * (x.ndim - 2))
    bias = step.operand(8)
    total += 0 if bias is None else bias.reshape(along)
    scale = step.required(4)
    return _requantized(step, total, step.required(1) * scale.reshape(along if scale.size > 1 else ()))


@rule("QLinearMatMul", stored=True)
def q_linear_mat_mul(step: Step) -> Bound:
    """As QLinearConv."""
    a, a_zero, b, b_zero = (step.required(place) for place in (0, 2, 3, 5))
    total = OPERATIONS["MatMulInteger"](a, b, a_zero, b_zero).astype(np.float64)
    of_rows, of_columns = step.required(1), step.required(4)
    of_rows = of_rows.reshape(-1, 1) if of_rows.ndim == 1 and of_rows.size > 1 else of_rows
    return _requantized(step, total, of_rows * of_columns)


def _requantized(step: Step, total: Array, scale: Array) -> Array:
    """Return the distance between a quantised sum and what its neighbours within rounding become."""
    zero, limits = step.required(7), np.iinfo(step.y.dtype)
    exact = total * (scale / step.required(6))
    hair = np.abs(exact) * (step.gamma(ROUNDINGS_OF_A_PRODUCT) + 1e-12)
    y = step.y.astype(np.float64)
    sides = [np.clip(np.rint(exact + s * hair) + zero, limits.min, limits.max) - y for s in (-1, 1)]
    return np.maximum(np.abs(sides[0]), np.abs(sides[1]))


@rule("DequantizeLinear")
def dequantize_linear(step: Step) -> Bound:
    """A product, and the rounding of integers that the arithmetic cannot hold."""
    return step.gamma(2) * np.abs(step.y) + step.floor


@rule("DynamicQuantizeLinear")
def dynamic_quantize_linear(step: Step) -> tuple[Bound, ...]:
    """Two roundings of the scale; the zero point moves by one near a tie, and the values with it."""
    x, (_, scale, zero_point) = step.required(0), step.outputs
    lowest, highest = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    relative = step.gamma(2)
    if highest == lowest:
        return 0.0, 0.0, 0.0
    if float(scale) < step.floor or highest - lowest > step.arithmetic.largest:
        return np.inf, np.inf, np.inf
    exact = np.clip(-lowest / float(scale), 0, 255)
    hair = exact * (relative + step.gamma(ROUNDINGS_OF_THE_QUOTIENT) + 1e-12)
    point_error = float(max(abs(np.rint(exact + sign * hair) - float(zero_point)) for sign in (-1, 1)))
    point_error = min(point_error, 1.0)
    quantised = step.like("QuantizeLinear", x, scale, zero_point, outputs=step.outputs[:1])
    of_quotient = _between(quantised, x, step.gamma(ROUNDINGS_OF_THE_QUOTIENT + 2))
    return of_quotient + point_error, relative * np.abs(scale) + step.floor, point_error
