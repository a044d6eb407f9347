"""Products with integer weights whose other operand is made integers as they run: what that may move."""

from __future__ import annotations

import numpy as np

from conformance.bounds.formats import INT8
from conformance.bounds.step import Step
from refimpl.ops.operation import Array

PRODUCTS = ("Conv", "Gemm", "MatMul")


def made_integers(step: Step) -> Array | float:
    """Return by how much the first result may be off where a runtime makes its operand integers of 8 bits.

    Half a step of each number, a 127th of the largest of those that share a scale: at most a row, of a
    convolution a picture, or all of it. ``probable``: the size of so many roundings in random directions.
    """
    if step.op_type not in PRODUCTS:
        return 0.0
    operand, weights, along = _ends(step)
    along = tuple(range(operand.ndim)) if step.declaration.runtime.shares_scales else along
    step_size = INT8.unit_roundoff * np.abs(operand).max(axis=along, keepdims=True, initial=0.0)
    total = _total(weights, step.probable)
    return step_size * (total if step.op_type != "Conv" else total.reshape(-1, *(1,) * (operand.ndim - 2)))


def _ends(step: Step) -> tuple[Array, Array, tuple[int, ...]]:
    """Return what is made integers, the weights with the axis that is summed first, and who share a scale."""
    x, w = (step.required(place) for place in (0, 1))
    if step.op_type == "Conv":
        return x, w.reshape(len(w), -1).T, tuple(range(1, x.ndim))
    if step.op_type == "Gemm":
        turned = [
            each.T if step.attributes.get(name, 0) else each for each, name in ((x, "transA"), (w, "transB"))
        ]
        return turned[0] * step.attributes.get("alpha", 1.0), turned[1], (-1,)
    if w.ndim > 2 == x.ndim:
        return w, x.T[..., None], (-2,)
    return x, w if w.ndim == 2 else np.zeros((1, 1)), (-1,)


def _total(weights: Array, probable: bool) -> Array:
    """Return Σ |w| over the first axis, of weights that are themselves off by half a step; or √Σ w²."""
    sizes = np.abs(weights)
    if probable:
        return np.sqrt((sizes**2).sum(0))
    return np.asarray((sizes + INT8.unit_roundoff * sizes.max(axis=0, initial=0.0)).sum(0))
