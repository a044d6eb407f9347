"""Quantisation: a quantum where the scaled value is within rounding of a tie, else none."""

from __future__ import annotations

import numpy as np

from conformance.bounds.step import Bound, Step, rule
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
