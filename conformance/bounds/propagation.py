"""Bounds carried through a fused chain: running error analysis, to first order in the errors.

Each operation hands on what its operands may be wrong by (`conformance.bounds.carry`) and adds its own.
Source: Higham, §3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conformance.bounds.carry import passed_on
from conformance.bounds.declaration import DEFAULT, Declaration
from conformance.bounds.formats import FLOAT32, Format
from conformance.bounds.introduced import introduced_bounds
from conformance.bounds.step import Shared
from conformance.graph.evaluation import evaluate_node, run
from refimpl.graph import Node
from refimpl.ops import TRAITS, Trait
from refimpl.ops.operation import Array

Evaluated = tuple[tuple[Array, ...], Shared]
"""An operation's exact results, and what its bounds share."""

FOLDED_ROUNDINGS = 6
"""Roundings that a product gains when the runtime folds a following scale and shift into its weights."""


def propagated_bound(
    chain: Sequence[Node],
    exact: Mapping[str, Array],
    declaration: Declaration = DEFAULT,
    *,
    errors: Mapping[str, Array] | None = None,
    evaluated: Mapping[str, Evaluated] | None = None,
) -> tuple[dict[str, Array], dict[str, Array | None]]:
    """Return the exact results of a fused chain, and how far a correct candidate's may be from them.

    Parameters
    ----------
    chain
        Operations in topological order, such as the nodes of an `OnnxGraph`.
    exact
        Name → the chain's operands, float64: the candidate's own captured tensors, and the weights.
    declaration
        As of `introduced_bound`; every result of the chain may be rounded to its storage.
    errors
        Name → by how much operands are wrong already; none by default.
    evaluated
        First output of an operation all of whose operands are among those → what was computed of it before.

    Returns
    -------
    values, bounds
        Of every tensor the chain makes. A bound is None after an operation that none can be carried through.
    """
    bounds, before = dict[str, Array | None](errors or {}), evaluated or {}

    def bounded(call: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
        known = before.get(call.outputs[0])
        outputs, shared = known or (evaluate_node(call, operands, np.float64), {})
        wrong = [bounds.get(name, 0.0) for name in call.inputs]
        after = carried_bounds(call, operands, wrong, outputs, declaration, shared=shared)
        bounds.update(zip(call.outputs, after, strict=False))
        return outputs

    values = run(chain, exact, bounded)
    names = [name for call in chain for name in call.outputs]
    return {name: values[name] for name in names}, {name: bounds[name] for name in names}


def carried_bounds(
    call: Node,
    operands: Sequence[Any],
    errors: Sequence[Any],
    outputs: tuple[Array, ...],
    declaration: Declaration = DEFAULT,
    *,
    probable: bool = False,
    shared: Shared | None = None,
) -> tuple[Array | None, ...]:
    """Return the bound of each output of one operation whose operands may be off by ``errors``.

    Parameters
    ----------
    call
    operands
        Exact, None where absent.
    errors
        Of each operand: 0, an array, or None for unknown.
    outputs
        The operation's exact results.
    declaration, probable, shared
        As of `introduced_bounds`.
    """
    passed = passed_on(call, list(operands), list(errors), outputs)
    introduced = introduced_bounds(
        call.op_type,
        operands,
        call.attributes,
        outputs,
        declaration,
        probable=probable,
        extra=FOLDED_ROUNDINGS if Trait.PRODUCTS in TRAITS[call.op_type] else 0,
        shared=shared,
    )
    return tuple(
        _together(before, own, declaration.storage) for before, own in zip(passed, introduced, strict=False)
    )


def _together(passed: Any, own: Array | None, storage: Format) -> Array | None:
    """Add a step's own bound; its own grows with the error of its operands, by a factor of a few u."""
    if passed is None or own is None:
        return None
    if np.ndim(passed) == 0 and passed == 0:
        return own
    if storage.unit_roundoff > FLOAT32.unit_roundoff:
        # What is less than half the least number that it holds may be rounded to none, or to that.
        own = np.maximum(own, storage.unit_roundoff * storage.smallest_normal)
    with np.errstate(invalid="ignore"):
        total = np.asarray(passed * (1 + 16 * storage.unit_roundoff) + own)
    if np.isnan(total.max(initial=0.0)):
        total[np.isnan(total)] = np.inf
    return total
