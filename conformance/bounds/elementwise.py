"""Arithmetic and functions of single elements."""

from __future__ import annotations

import math

import numpy as np

from conformance.bounds.step import Bound, Step, is_float, rule
from refimpl.ops.operation import Array


def flushed(step: Step, *operands: Array | None, gain: float = 1.0) -> Array | float:
    """Return what is lost where an operand, or y, is subnormal and may count as zero: all of y.

    ``gain`` is the largest |y| / |operand|.
    """
    if step.flushes_are_negligible:
        return step.floor * max(1.0, gain)
    size = np.abs(step.y)
    may = size < step.floor
    for x in operands:
        if x is not None:
            may = may | ((np.abs(x) < step.floor) & (x != 0))
    return np.where(may, size, 0.0)


@rule("Add", "Sub")
def add(step: Step) -> Bound:
    """u·|y|, and two flushes."""
    if not is_float(step.y):
        return 0.0
    bound = np.abs(step.y)
    bound *= step.gamma(1)
    if step.flushes_are_negligible:
        bound += 2 * step.floor
        return bound
    small = [np.minimum(np.abs(np.asarray(x)), step.floor) for x in step.inputs]
    return bound + small[0] + small[1]


@rule("Mul")
def mul(step: Step) -> Bound:
    """u·|y|."""
    if not is_float(step.y):
        return 0.0
    a, b = step.required(0), step.required(1)
    return step.gamma(1) * np.abs(step.y) + flushed(step, a, b, gain=max(largest(a), largest(b)))


def largest(x: Array) -> float:
    """Return the largest size; infinite if it is NaN."""
    size = max(float(x.max(initial=0)), -float(x.min(initial=0)))
    return math.inf if math.isnan(size) else size


@rule("Div")
def div(step: Step) -> Bound:
    """The allowance of a division, u·|y| by IEEE; without bound where the divisor may be flushed to zero."""
    if not is_float(step.y):
        return 0.0
    return _quotient(step, "Div", step.operand(0), step.required(1))


@rule("Reciprocal")
def reciprocal(step: Step) -> Bound:
    """The allowance of a reciprocal, u·|y| by IEEE."""
    return _quotient(step, "Reciprocal", None, step.required(0))


def _quotient(step: Step, function: str, dividend: Array | None, divisor: Array) -> Array:
    size = np.abs(divisor)
    least = float(size.min(initial=1, where=size > 0))
    bound = step.allowance(function, step.y) + flushed(step, dividend, gain=1 / least)
    return np.where((size < step.floor) & (size > 0), np.inf, bound) if least < step.floor else bound


TRIGONOMETRIC = ("Sin", "Cos", "Tan", "Asin", "Acos", "Atan")
HYPERBOLIC = ("Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh")


@rule("Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Softplus", *TRIGONOMETRIC, *HYPERBOLIC)
def function(step: Step) -> Bound:
    """The runtime's allowance."""
    # Small coefficients of a polynomial make subnormal terms of a result that is well above.
    inner = min(2.0**10 * step.floor, step.unit_roundoff**2)
    bound = step.allowance(step.op_type, step.y) + flushed(step) + inner
    if step.op_type not in ("Sqrt", "Log"):
        return bound + 2 * step.floor
    x = step.required(0)
    tiny = (np.abs(x) < step.floor) & (x != 0)
    return np.where(tiny, np.inf if step.op_type == "Log" else np.abs(step.y), bound)


@rule("Pow")
def power(step: Step) -> Bound:
    """The runtime's allowance; without bound where the base may be flushed to zero."""
    if not is_float(step.y):
        return 0.0
    x = step.required(0)
    tiny = (np.abs(x) < step.floor) & (x != 0)
    return np.where(tiny, np.inf, step.allowance("Pow", step.y) + flushed(step))


@rule("Mod")
def mod(step: Step) -> Bound:
    """0 of integers and with ``fmod``, which is exact; none else, where a rounded quotient makes it jump."""
    if not is_float(step.y):
        return 0.0
    return flushed(step, step.operand(0)) if step.attributes.get("fmod", 0) else None


@rule("Sum", "Mean")
def sum_of(step: Step) -> Bound:
    """γₙ of the sum of absolute values; infinite where a mean's sum may overflow."""
    if not is_float(step.y):
        return 0.0
    terms = len(step.inputs)
    size = step.run(*[np.abs(np.asarray(x)) for x in step.inputs])
    bound = step.gamma(terms + 1) * size + 2 * terms * step.floor
    total = terms * size if step.op_type == "Mean" else size
    return np.where((total > step.arithmetic.largest) & np.isfinite(step.y), np.inf, bound)


@rule("Range")
def arange(step: Step) -> Bound:
    """γ of the length: a runtime may add ``delta`` again and again."""
    if not is_float(step.y):
        return 0.0
    return step.gamma(step.y.size + 1) * (np.abs(step.y - step.required(0)) + np.abs(step.y)) + 2 * step.floor


# --- activations ----------------------------------------------------------------------------------


@rule("LeakyRelu", "PRelu")
def leaky_relu(step: Step) -> Bound:
    """0 where x passes, else 2u·|y|: the slope itself may have to be rounded to the arithmetic."""
    x = step.required(0)
    slope = step.operand(1)
    scaled = step.gamma(2) * np.abs(step.y)
    scaled += flushed(step, slope, gain=max(largest(x), 1 if slope is None else largest(slope)))
    return np.where(x < 0, scaled, flushed(step))


@rule("Elu")
def elu(step: Step) -> Bound:
    """0 where x passes, else the allowance times α."""
    alpha = abs(step.attributes.get("alpha", 1.0))
    scaled = step.allowance("Elu", step.y / alpha if alpha else step.y, alpha) + step.gamma(2) * np.abs(
        step.y
    )
    return np.where(step.required(0) < 0, scaled + 2 * step.floor, flushed(step))


@rule("Selu")
def selu(step: Step) -> Bound:
    """The allowance of Elu times γ·α below zero, and three roundings of constants and products."""
    gain = abs(step.attributes.get("alpha", 1.6732632423543772) * step.attributes.get("gamma", 1.05070098))
    scaled = step.allowance("Elu", step.y / gain if gain else step.y, gain) * (step.required(0) <= 0)
    return scaled + step.gamma(3) * np.abs(step.y) + 2 * step.floor


@rule("Celu")
def celu(step: Step) -> Bound:
    """0 where x passes, else the allowance of Elu times α, and what rounding x / α makes of it."""
    x, alpha = step.required(0), abs(step.attributes.get("alpha", 1.0))
    argument = step.gamma(1) * np.abs(x) * np.exp(-np.abs(x) / alpha)
    scaled = step.allowance("Elu", step.y / alpha, alpha) + step.gamma(2) * np.abs(step.y) + argument
    return np.where(x < 0, scaled + 2 * step.floor, flushed(step))


@rule("Softsign")
def softsign(step: Step) -> Bound:
    """The rounding of 1 + |x|, and the allowance of a division, or of a reciprocal and a product."""
    return step.gamma(2) * np.abs(step.y) + step.allowance("Div", step.y) + 2 * step.floor


@rule("Shrink")
def shrink(step: Step) -> Bound:
    """u·|y|, and two flushes; none where x is within the threshold's own rounding, and y jumps."""
    if not is_float(step.y):
        return 0.0
    x, edge = np.abs(step.required(0)), abs(step.attributes.get("lambd", 0.5))
    bound = step.gamma(1) * np.abs(step.y) + 2 * step.floor
    jumps = (np.abs(x - edge) <= step.unit_roundoff * edge) & (x != edge)
    return np.where(x > edge, bound, np.where(jumps, np.inf, 0.0))


def _line(step: Step, x: Array, alpha: float, beta: float) -> Array:
    """Return the bound of ``clip(α·x + β, 0, 1)``: 0 where it is surely saturated."""
    line = alpha * x
    error = np.abs(line)
    error += abs(beta)
    error *= step.gamma(3)
    error += 2 * step.floor
    line += beta
    # Beyond the interval by more than the error, whichever the end.
    line -= 0.5
    np.copyto(error, 0.0, where=np.abs(line, out=line) > error + 0.5)
    return error


@rule("HardSigmoid")
def hard_sigmoid(step: Step) -> Bound:
    """γ₃ · (|α·x| + |β|) between the flat ends, where it is 0."""
    attributes = step.attributes
    return _line(step, step.required(0), attributes.get("alpha", 0.2), attributes.get("beta", 0.5))


@rule("HardSwish")
def hard_swish(step: Step) -> Bound:
    """|x| times the bound of the hard sigmoid, and two roundings of the products between the ends."""
    x = step.required(0)
    bound = _line(step, x, 1 / 6, 0.5)
    bound *= np.abs(x)
    bound += step.gamma(2) * np.abs(step.y)
    bound += step.floor
    return bound


@rule("Swish")
def swish(step: Step) -> Bound:
    """|x| times the allowance of the sigmoid, the rounding of α·x, and the product."""
    x = step.required(0)
    with np.errstate(all="ignore"):
        gate = np.where(x == 0, 0.5, step.y / np.where(x == 0, 1, x))
    argument = step.gamma(1) * 0.25 if step.attributes.get("alpha", 1.0) != 1.0 else 0.0
    # |z|·σ'(z) < 1/4 bounds what the rounded argument z = α·x does.
    return (
        np.abs(x) * (step.allowance("Sigmoid", gate) + argument)
        + step.gamma(1) * np.abs(step.y)
        + 2 * step.floor
    )


@rule("Mish")
def mish(step: Step) -> Bound:
    """|x| times the allowances of softplus, through the slope of tanh, and of tanh; and the product."""
    x = step.required(0)
    inner = np.logaddexp(0, x)
    outer = np.tanh(inner)
    gate = step.allowance("Softplus", inner) * (1 - outer**2) + step.allowance("Tanh", outer)
    return np.abs(x) * gate + step.gamma(1) * np.abs(step.y) + 2 * step.floor


@rule("Gelu")
def gelu(step: Step) -> Bound:
    """|x| / 2 times the allowance of erf (or tanh), its argument's and 1 + erf's rounding, two products."""
    x = step.required(0)
    u = step.unit_roundoff
    if step.attributes.get("approximate", "none") == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        function, value, slope, roundings = "Tanh", np.tanh(inner), 1 - np.tanh(inner) ** 2, 6
    else:
        inner = x * math.sqrt(0.5)
        function, roundings = "Erf", 2
        value, slope = (
            step.like("Erf", inner, outputs=()).run(inner),
            2 / math.sqrt(math.pi) * np.exp(-(inner**2)),
        )
    gate = step.allowance(function, value) + roundings * u * np.abs(inner) * slope + u * np.abs(1 + value)
    # The cube overflows float16 beyond 40, and the tanh of infinity is one.
    return np.abs(x) / 2 * gate + step.gamma(2) * np.abs(step.y) + 2 * step.floor


@rule("Softmax")
def softmax(step: Step) -> Bound:
    """Relative: the logits' distance from their maximum, the exponentials, n terms of the sum, the division.

    |ŷ − y| ≤ y · ((m − x) + Σ y·(m − x) + n + c) · u to first order, where the second term is the mean
    distance, so that a logit far below the others costs only its own element.
    """
    axis = step.attributes.get("axis", -1)
    distance, mean_distance = _distances(step.required(0), axis, step.y)
    n = step.y.shape[axis]
    exponential = step.runtime.allowances["Exp"]
    quotient = 2 * step.runtime.allowances["Div"].ulps
    relative = step.gamma(n + 4 * exponential.ulps + quotient) + step.gamma(1) * (distance + mean_distance)
    # Of an exponential and of the sum.
    relative = relative + 2 * exponential.relative
    if step.runtime.stores_when_used:
        relative = relative + step.storage.unit_roundoff
    size = np.abs(step.y)
    return np.where(size > 0, size * relative, 0.0) + 2 * step.floor


@rule("LogSoftmax")
def log_softmax(step: Step) -> Bound:
    """u · the distance to the maximum, the relative error of the sum, the logarithm, and the difference."""
    axis = step.attributes.get("axis", -1)
    probability = np.exp(step.y)
    distance, mean_distance = _distances(step.required(0), axis, probability)
    n = step.y.shape[axis]
    exponential = step.runtime.allowances["Exp"]
    total = step.gamma(n + 2 * exponential.ulps) + step.gamma(1) * mean_distance + exponential.relative
    logarithm = step.allowance("Log", np.maximum(-step.y - distance, 0))
    return step.gamma(1) * (distance + np.abs(step.y)) + total + logarithm + n * step.floor


def _distances(x: Array, axis: int, probability: Array) -> tuple[Array, Array]:
    """Return m − x, and its mean under the probabilities; infinite logits count for nothing."""
    with np.errstate(invalid="ignore"):
        distance = np.max(x, axis=axis, keepdims=True) - x
    distance = np.where(np.isfinite(distance), distance, 0.0)
    return distance, np.sum(probability * distance, axis=axis, keepdims=True)
