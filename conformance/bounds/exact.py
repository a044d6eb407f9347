"""Operations that make no rounding: what they move, select or compare is exact, and so are integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.bounds.step import Bound, Step, is_float, rule
from conformance.graph.evaluation import as_tuple
from refimpl.ops import Trait, having
from refimpl.ops.operation import Array

MOVING = having(Trait.MOVES) | {
    *("Constant", "ConstantOfShape", "Shape", "Size", "NonZero", "OneHot"),
    *("And", "Or", "Xor", "Not", "IsNaN", "IsInf"),
    *("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift", "EyeLike", "Unique"),
    *("ConvInteger", "MatMulInteger"),
}
"""Exact operations to which a subnormal number is like any other."""


@rule(*MOVING, stored=True)
def moving(step: Step) -> tuple[Bound, ...]:
    """0: bits are moved, not computed with."""
    return (0.0,) * len(step.outputs)


@rule(*(having(Trait.EXACT) - MOVING), stored=True)
def selecting(step: Step) -> tuple[Bound, ...]:
    """0, but what another result subnormal operands give when they are flushed to zero.

    TopK with ``sorted = 0`` leaves the order open, so it has no bound.
    """
    if step.op_type == "TopK" and not step.attributes.get("sorted", 1):
        return (None,) * len(step.outputs)
    flushed = [_flushed(x, step.floor) for x in step.inputs]
    if all(new is old for new, old in zip(flushed, step.inputs, strict=True)):
        return (0.0,) * len(step.outputs)
    results: tuple[Any, ...] = as_tuple(step.run(*flushed))
    # Outputs that the plain operation does not make, such as the indices of a MaxPool.
    results += (None,) * (len(step.outputs) - len(results))
    return tuple(
        None if result is None else _difference(result, y)
        for result, y in zip(results, step.outputs, strict=False)
    )


def _flushed(x: Any, smallest_normal: float) -> Any:
    """Return ``x`` itself, or a copy without subnormals if it has any."""
    if x is None or not is_float(np.asarray(x)):
        return x
    subnormal = (np.abs(x) < smallest_normal) & (np.asarray(x) != 0)
    return np.where(subnormal, 0.0, x) if subnormal.any() else x


def _difference(result: Array, y: Array) -> Array:
    new, old = result.astype(np.float64), y.astype(np.float64)
    same = (new == old) | (np.isnan(new) & np.isnan(old))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.abs(new - old))


@rule("Cast", "CastLike", stored=True)
def cast(step: Step) -> Bound:
    """0 to integers and where the stored format holds the value, else its rounding."""
    if not is_float(step.y):
        return 0.0
    size = np.abs(step.y)
    lost = np.where(size < step.storage.smallest_normal, size, step.storage.unit_roundoff * size)
    lost = np.where((size + lost > step.storage.largest) & np.isfinite(size), np.inf, lost)
    return np.where((step.storage.rounded(step.y) == step.y) | ~np.isfinite(size), 0.0, lost)
