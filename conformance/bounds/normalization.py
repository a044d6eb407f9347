"""Normalisations at inference."""

from __future__ import annotations

import math

import numpy as np

from conformance.bounds.step import Bound, Step, rule
from refimpl.ops.operation import Array


@rule("BatchNormalization")
def batch_normalization(step: Step) -> Bound:
    """γ₆ · (|x·f| + |mean·f| + |bias|), f = scale / √(var + ε), and what flushing ε does to f.

    It holds whether the runtime subtracts the mean first, or folds all into ``x·f + shift``.
    """
    x, scale, bias, mean, var = (step.required(i) for i in range(5))
    shape = (1, -1, *(1,) * (x.ndim - 2))
    radicand = var + step.attributes.get("epsilon", 1e-5)
    factor = np.abs(scale) / np.sqrt(radicand)
    shift = step.gamma(6) * (np.abs(mean) * factor + np.abs(bias)) + 3 * step.floor
    bound = np.abs(x)
    bound *= (step.gamma(6) * factor).reshape(shape)
    bound += shift.reshape(shape)
    if not step.flushes_are_negligible:
        lost = _epsilon_loss(step) / radicand / 2
        bound += lost.reshape(shape) * np.abs(step.y - bias.reshape(shape))
    return bound


def _epsilon_loss(step: Step) -> float:
    """Return what storing ε in the arithmetic's format may lose beyond a relative rounding."""
    return min(step.attributes.get("epsilon", 1e-5), step.floor)


@rule("LayerNormalization")
def layer_normalization(step: Step) -> tuple[Bound, ...]:
    """As `standardized`, then a product and a sum; the statistics, if asked for, by the same analysis."""
    x, scale, bias = step.required(0), step.required(1), step.operand(2)
    first = step.attributes.get("axis", -1) % x.ndim
    axes = tuple(range(first, x.ndim))
    bound, mean, deviation = standardized(step, x, axes)
    result = _scaled(step, bound, scale, np.zeros(()) if bias is None else bias)
    return (result, mean, deviation)[: len(step.outputs)]


@rule("RMSNormalization")
def rms_normalization(step: Step) -> Bound:
    """Half of the relative error of the mean square, then the root, a quotient and a product."""
    x = step.required(0)
    axes = tuple(range(step.attributes.get("axis", -1) % x.ndim, x.ndim))
    n = math.prod(x.shape[axis] for axis in axes)
    square = np.square(x).mean(axis=axes, keepdims=True)
    radicand = square + step.attributes.get("epsilon", 1e-5)
    lost = (_epsilon_loss(step) + 2 * step.floor) / radicand
    return _over_length(step, step.gamma_of_sum(n + 3) + lost, n * square)


def _over_length(step: Step, of_square: Array | float, total: Array) -> Array:
    """Return what the relative error of a sum of squares makes of x over its root."""
    relative = of_square / 2 * (1 + 2 * of_square) + step.gamma(6)
    bound = np.abs(step.y) * relative + 4 * step.floor
    return np.where(total > step.arithmetic.largest, np.inf, bound)


@rule("LpNormalization")
def lp_normalization(step: Step) -> Bound:
    """The relative error of the sum, or half that of the sum of squares, the root and the quotient."""
    x, axis = step.required(0), step.attributes.get("axis", -1)
    n = x.shape[axis]
    if step.attributes.get("p", 2) == 1:
        total = np.abs(x).sum(axis=axis, keepdims=True)
        return _over_length(step, 2 * step.gamma_of_sum(n), total)
    total = np.square(x).sum(axis=axis, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(total > 0, n * step.floor / total, 0.0)
    return _over_length(step, step.gamma_of_sum(n + 1) + lost, total)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(step: Step) -> Bound:
    """As `standardized`, with or without the 1e-9; none where the squares may be flushed.

    ONNX's formula divides by the deviation, its function adds 1e-9 first.
    """
    x, axes = step.required(0), tuple(step.attributes.get("axes", (0, 2, 3)))
    deviation = x.std(axis=axes, keepdims=True)
    bound = standardized(step, x, axes, (deviation + 1e-9) ** 2 - deviation**2)[0]
    flushed = np.square(deviation) < 2 * step.floor / step.unit_roundoff
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = bound + (step.gamma(2) + 1e-9 / deviation) * np.abs(step.y) + 2 * step.floor
    return np.where(flushed, np.inf, bound)


@rule("LRN")
def lrn(step: Step) -> Bound:
    """The relative error of the base times its exponent, the power's allowance, and a quotient.

    A runtime may hold a running sum over the channels, to which one square is added and from which another is
    taken at each: its error is that of all the sums before.
    """
    x, size = step.required(0), step.attributes["size"]
    alpha, beta = step.attributes.get("alpha", 1e-4), step.attributes.get("beta", 0.75)
    sums = _window_sums(np.square(x), size)
    base = step.attributes.get("bias", 1.0) + alpha / size * sums
    error = step.gamma(size + 3) * np.abs(base) + step.gamma(4) * alpha / size * np.cumsum(sums, axis=1)
    with np.errstate(all="ignore"):
        relative = (1 - error / base) ** -beta - 1 + step.gamma(2 * step.runtime.allowances["Pow"].ulps + 3)
    bounded = (error < base) & (sums <= step.arithmetic.largest)
    return np.where(bounded, relative * np.abs(step.y) + 4 * step.floor, np.inf)


def _window_sums(x: Array, size: int) -> Array:
    """Return the sums over ``size`` channels about each, as LRN takes them."""
    before, channels = (size - 1) // 2, x.shape[1]
    until = np.concatenate([np.zeros_like(x[:, :1]), np.cumsum(x, axis=1)], axis=1)
    first = np.maximum(np.arange(channels) - before, 0)
    last = np.minimum(np.arange(channels) - before + size, channels)
    return np.asarray(until[:, last] - until[:, first])


@rule("InstanceNormalization")
def instance_normalization(step: Step) -> Bound:
    """As `standardized` over the positions, then a product and a sum."""
    x = step.required(0)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    bound = standardized(step, x, tuple(range(2, x.ndim)))[0]
    return _scaled(step, bound, step.required(1).reshape(shape), step.required(2).reshape(shape))


@rule("GroupNormalization")
def group_normalization(step: Step) -> Bound:
    """As `standardized` over the groups, then a product and a sum."""
    x = step.required(0)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    groups = x.reshape(x.shape[0], step.attributes["num_groups"], -1)
    bound = standardized(step, groups, (2,))[0].reshape(x.shape)
    return _scaled(step, bound, step.required(1).reshape(shape), step.required(2).reshape(shape))


def _scaled(step: Step, bound: Array, scale: Array, bias: Array) -> Array:
    """Add the product and the sum, also if folded into ``x · factor + (bias − mean · factor)``."""
    product = np.abs(step.y - bias)
    return np.abs(scale) * bound + step.gamma(2) * (product + np.abs(bias)) + 2 * step.floor


def standardized(
    step: Step, x: Array, axes: tuple[int, ...], epsilon: Array | None = None
) -> tuple[Array, Array, Array]:
    """Bound (x − mean) / √(variance + ε), the mean, and 1 / √(variance + ε).

    Two-pass, as the definition reads: the mean errs by δ = γₙ·mean|x|, every difference by δ and a rounding.
    The exact differences sum to zero, so δ enters their mean square only as δ². With
    ``runtime.one_pass_variance`` the variance is E[x²] − E[x]², which errs by γ of E[x²] itself. ``epsilon``
    is the step's attribute if not given.

    Returns
    -------
    bounds of the standardized x, of the mean, of the inverse deviation; kept axes
    """
    n = math.prod(x.shape[axis] for axis in axes)
    mean = x.mean(axis=axes, keepdims=True)
    difference = x - mean
    variance = np.square(difference).mean(axis=axes, keepdims=True)
    radicand = variance + (step.attributes.get("epsilon", 1e-5) if epsilon is None else epsilon)
    mean_error = step.gamma_of_sum(n) * np.abs(x).mean(axis=axes, keepdims=True) + 2 * step.floor
    variance_error = step.gamma_of_sum(n + 3) * variance + mean_error**2
    variance_error += 2 * step.floor + _epsilon_loss(step)
    if step.runtime.one_pass_variance:
        variance_error += step.gamma_of_sum(n + 3) * (variance + 2 * mean**2) + 2 * np.abs(mean) * mean_error
    shrunk = np.maximum(1 - variance_error / radicand, 0)
    with np.errstate(divide="ignore"):
        relative = 1 / np.sqrt(shrunk) - 1 + step.gamma(3)
    deviation = np.sqrt(radicand)
    standard = np.abs(difference) / deviation
    with np.errstate(invalid="ignore"):
        # Folded, the mean is multiplied and subtracted after; else the difference is rounded.
        lost = mean_error + step.gamma(1) * np.abs(difference) + step.gamma(3) * np.abs(mean)
        bound = lost / deviation * (1 + relative) + standard * relative + step.gamma(1) * standard
    overflow = np.square(np.abs(difference).max(axis=axes, keepdims=True)) * n > step.arithmetic.largest
    bound = np.where(overflow | np.isnan(bound), np.inf, bound)
    return _at_most_root(step, bound, standard, n), mean_error, relative / deviation


def _at_most_root(step: Step, bound: Array, standard: Array, n: int) -> Array:
    """Cap the bound: of n numbers no standardized one exceeds √n, however wrong mean and variance came out.

    Not so with a one-pass variance, which can be too small, even negative.
    """
    if step.runtime.one_pass_variance:
        return bound
    return np.where(np.isfinite(bound), np.minimum(bound, standard + 1.01 * math.sqrt(n)), bound)
