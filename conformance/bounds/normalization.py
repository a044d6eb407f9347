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


def standardized(step: Step, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Bound (x − mean) / √(variance + ε), the mean, and 1 / √(variance + ε).

    Two-pass, as the definition reads: the mean errs by δ = γₙ·mean|x|, every difference by δ and a rounding.
    The exact differences sum to zero, so δ enters their mean square only as δ². With
    ``runtime.one_pass_variance`` the variance is E[x²] − E[x]², which errs by γ of E[x²] itself.

    Returns
    -------
    bounds of the standardized x, of the mean, of the inverse deviation; kept axes
    """
    n = math.prod(x.shape[axis] for axis in axes)
    mean = x.mean(axis=axes, keepdims=True)
    difference = x - mean
    variance = np.square(difference).mean(axis=axes, keepdims=True)
    radicand = variance + step.attributes.get("epsilon", 1e-5)
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
