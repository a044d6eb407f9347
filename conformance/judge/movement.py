"""Does what depends on the input change with it? A stored result is right on one input only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from conformance.bounds import Declaration
from conformance.bounds.envelope import envelope
from conformance.bounds.worst_element import absolute_error
from refimpl import Recording
from refimpl.ops.operation import Array

NOTICEABLE = 0.01
"""Share of its largest element by which a tensor in integers must change; steps hide less."""
ASKED = 16
"""Of how many tensors, those that change most, it is computed what rounding may hide."""
FEW = 4
"""Elements along each axis that are compared first."""
MOST = 3
"""How many tensors are named."""


def another(feeds: Mapping[str, Array], seed: int = 0) -> dict[str, Array] | None:
    """Return an input of the judge's own; None without floating-point numbers.

    The same numbers in another order, so that each stays one that the graph may be given; halved where all
    are equal, and 1 where all are 0.
    """
    random = np.random.default_rng(seed)
    moved = {name: _reordered(array, random) for name, array in feeds.items()}
    return moved if any(not np.array_equal(moved[name], array) for name, array in feeds.items()) else None


def _reordered(array: Array, random: np.random.Generator) -> Array:
    if array.dtype.kind != "f" or not array.size:
        return array
    flat = array.reshape(-1)
    if (flat == flat[0]).all():
        return np.full_like(array, flat[0] / 2 if flat[0] else 1.0)
    other = random.permutation(flat)
    return (np.roll(flat, 1) if np.array_equal(other, flat) else other).reshape(array.shape)


def still(first: Mapping[str, Array], second: Mapping[str, Array]) -> list[str]:
    """Return the names of the tensors that are the same, bit for bit, in both runs."""
    return [name for name, array in first.items() if name in second and _same(array, second[name])]


def _same(first: Array, second: Array) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    # Of those that are not, nearly all differ in the first few.
    if first[(slice(FEW),) * first.ndim].tobytes() != second[(slice(FEW),) * second.ndim].tobytes():
        return False
    return first.tobytes() == second.tobytes()


def moving(
    names: Collection[str], first: Recording, second: Recording, declaration: Declaration | None
) -> set[str]:
    """Return the tensors whose truth is so different on two inputs that no rounding hides it.

    Parameters
    ----------
    names
        Tensors of both runs.
    first, second
        Runs in float64.
    declaration
        What the candidate computes with; None: integers, whose steps no envelope bounds.
    """
    changes = {name: _change(first.tensors[name], second.tensors[name]) for name in names}
    least = NOTICEABLE if declaration is None else declaration.storage.unit_roundoff
    found = sorted((name for name in names if changes[name][1] > least), key=lambda name: -changes[name][1])
    if declaration is None:
        return set(found)
    asked = {name: name for name in found[:ASKED]}
    runs = [envelope(replace(run, outputs=asked), declaration) for run in (first, second)] if asked else []
    return {name for name in asked if changes[name][0] > sum(allowed[name] for allowed in runs)}


def _change(first: Array, second: Array) -> tuple[float, float]:
    """Return the largest change of an element, and its share of the largest element."""
    change = float(absolute_error(second, first).max(initial=0.0))
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(first.astype(np.float64)).max(initial=0.0))
    return change, change / largest if largest else np.inf if change else 0.0


def frozen_problem(kind: str, names: list[str]) -> str:
    """Say that tensors do not follow the input."""
    shown = ", ".join(map(repr, names[:MOST])) + (f" and {len(names) - MOST} more" * (len(names) > MOST))
    return f"its {kind} {shown} {'do' if len(names) > 1 else 'does'} not change with the input, as it should"
