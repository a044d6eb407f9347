"""Reductions, cumulative sums and scattered sums."""

from __future__ import annotations

import math

import numpy as np

from conformance.bounds.linear import accumulated
from conformance.bounds.step import Bound, Step, is_float, rule
from refimpl.ops.operation import Array


def _terms(step: Step) -> int:
    """Return how many elements one result is made of."""
    return max(step.required(0).size // max(step.y.size, 1), 1)


def _reduced(step: Step, data: Array, op_type: str = "ReduceSum") -> Array:
    """Reduce other data in the way of the step."""
    return np.asarray(step.like(op_type, outputs=(), **step.attributes).run(data, *step.inputs[1:]))


@rule("ReduceSum", "ReduceL1", "ReduceSumSquare")
def reduce_sum(step: Step) -> Bound:
    """γ of the number of terms, times the sum of their sizes; 0 of integers."""
    if not is_float(step.y):
        return 0.0
    n = _terms(step) + (step.op_type == "ReduceSumSquare")
    return accumulated(step, n, step.run(np.abs(step.required(0)), *step.inputs[1:]))


@rule("ReduceMean")
def reduce_mean(step: Step) -> Bound:
    """γ_{n+1} · mean|x|: n − 1 sums, and a product with a rounded 1/n."""
    if not is_float(step.y):
        return None
    n = _terms(step)
    return _mean(step, n, step.run(np.abs(step.required(0)), *step.inputs[1:]))


def _mean(step: Step, n: int, mean_size: Array) -> Array:
    with np.errstate(all="ignore"):
        overflow = mean_size * n > step.arithmetic.largest
        bound = step.gamma_of_products(n + 1) * mean_size + np.minimum(3 * step.floor, mean_size)
        return np.where(overflow, np.inf, bound)


@rule("AveragePool")
def average_pool(step: Step) -> Bound:
    """γ_{K+1} · the mean of |x|, K the elements of a window."""
    terms = math.prod(step.attributes["kernel_shape"])
    return _mean(step, terms, step.run(np.abs(step.required(0))))


@rule("GlobalAveragePool")
def global_average_pool(step: Step) -> Bound:
    """γ_{n+1} · the mean of |x|."""
    return _mean(step, _terms(step), step.run(np.abs(step.required(0))))


@rule("LpPool", "GlobalLpPool")
def lp_pool(step: Step) -> Bound:
    """The relative errors of the powers and of their sum, over p, and the allowance of the last power."""
    p = step.attributes.get("p", 2)
    pooled = step.attributes.get("kernel_shape")
    terms = math.prod(pooled) if pooled else _terms(step)
    powers = 2 * step.runtime.allowances["Pow"].ulps
    relative = 2 * step.gamma(terms + powers) / p + step.gamma(powers + 1)
    with np.errstate(all="ignore"):
        flush = (2 * terms * step.floor) ** (1 / p)
        overflow = (np.abs(step.y) * (1 + relative)) ** p > step.arithmetic.largest
        lost = np.where(np.abs(step.y) < flush / step.unit_roundoff, flush, 0)
        return np.where(overflow, np.inf, relative * np.abs(step.y) + lost)


@rule("ReduceProd")
def reduce_prod(step: Step) -> Bound:
    """γ_{n−1} · |y|; without bound where a partial product could leave the range."""
    if not is_float(step.y):
        return 0.0
    with np.errstate(all="ignore"):
        size = np.abs(step.required(0))
        above = _reduced(step, np.maximum(size, 1), "ReduceProd")
        below = _reduced(step, _at_most_one(size), "ReduceProd")
        leaves = (above > step.arithmetic.largest) | (below < step.floor)
        return np.where(leaves, np.inf, step.gamma(_terms(step)) * np.abs(step.y))


@rule("ReduceL2")
def reduce_l2(step: Step) -> Bound:
    """Half of γ_{n+1}, through the root, and the root's own allowance."""
    n = _terms(step)
    flush = math.sqrt(2 * n * step.floor)
    with np.errstate(all="ignore"):
        overflow = np.square(step.y) * (1 + step.gamma(n + 1)) > step.arithmetic.largest
        bound = step.gamma(n + 1) * np.abs(step.y) + step.allowance("Sqrt", step.y)
        return np.where(overflow, np.inf, bound + np.where(step.y < flush / step.unit_roundoff, flush, 0))


@rule("ReduceLogSum")
def reduce_log_sum(step: Step) -> Bound:
    """The relative error of the sum, and the logarithm's allowance."""
    total = _reduced(step, step.required(0))
    error = accumulated(step, _terms(step), _reduced(step, np.abs(step.required(0))))
    with np.errstate(all="ignore"):
        inside = np.where(error < total, -np.log1p(-error / total), np.inf)
    return inside + step.allowance("Log", step.y) + step.floor


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(step: Step) -> Bound:
    """u · the mean distance to the maximum, the relative error of the sum, the logarithm, the last sum."""
    data = step.required(0)
    with np.errstate(all="ignore"):
        largest = _reduced(step, data, "ReduceMax")
        distance = _reduced(step, np.abs(data), "ReduceMax") + np.abs(largest)
    exponential = step.runtime.allowances["Exp"]
    relative = (
        step.gamma(_terms(step) + 2 * exponential.ulps) + step.gamma(1) * distance + exponential.relative
    )
    logarithm = step.allowance("Log", step.y - largest)
    return relative + logarithm + step.gamma(1) * np.abs(step.y) + step.floor


@rule("CumSum")
def cum_sum(step: Step) -> Bound:
    """γ of the axis' length, times the running sum of sizes; 0 of integers."""
    if not is_float(step.y):
        return 0.0
    axis = int(np.asarray(step.inputs[1]).reshape(-1)[0])
    n = step.y.shape[axis]
    return accumulated(step, n, step.run(np.abs(step.required(0)), step.inputs[1]))


@rule("CumProd")
def cum_prod(step: Step) -> Bound:
    """γ of the axis' length, times |y|; without bound where a partial product could leave the range."""
    if not is_float(step.y):
        return 0.0
    x, axis = step.required(0), step.inputs[1]
    n = step.y.shape[int(np.asarray(axis).reshape(-1)[0])]
    with np.errstate(all="ignore"):
        above, below = step.run(np.maximum(np.abs(x), 1), axis), step.run(_at_most_one(x), axis)
        leaves = (above > step.arithmetic.largest) | (below < step.floor)
        return np.where(leaves, np.inf, step.gamma(n) * np.abs(step.y))


@rule("Col2Im")
def col2_im(step: Step) -> Bound:
    """γ of the elements of a block, at most so many of which meet, times the sum of their sizes."""
    terms = math.prod(int(n) for n in np.asarray(step.inputs[2]).reshape(-1))
    if not is_float(step.y):
        return 0.0
    return accumulated(step, terms, step.run(np.abs(step.required(0)), *step.inputs[1:]))


@rule("ScatterND", "ScatterElements")
def scatter(step: Step) -> Bound:
    """0 but for sums and products of floats, which round once for each update of an element."""
    reduction = step.attributes.get("reduction", "none")
    if not is_float(step.y) or reduction not in ("add", "mul"):
        return 0.0
    data, indices, updates = (step.required(i) for i in range(3))
    count = step.run(np.zeros_like(data), indices, np.ones_like(updates), reduction="add")
    relative = np.vectorize(step.gamma, otypes=[np.float64])(np.arange(count.max(initial=0) + 1))
    size = step.run(np.abs(data), indices, np.abs(updates))
    bound = relative[count.astype(np.intp)] * size + np.minimum(2 * count * step.floor, size)
    if reduction == "mul":
        above = step.run(np.maximum(np.abs(data), 1), indices, np.maximum(np.abs(updates), 1))
        below = step.run(_at_most_one(data), indices, _at_most_one(updates))
        bound = np.where((above > step.arithmetic.largest) | (below < step.floor), np.inf, bound)
    return np.where(count > 0, bound, 0.0)


def _at_most_one(x: Array) -> Array:
    """Return the sizes that make a product smaller; zeros make it exact."""
    size = np.abs(x)
    return np.where(size > 0, np.minimum(size, 1), 1.0)
