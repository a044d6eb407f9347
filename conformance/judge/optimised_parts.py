"""The parts of a graph that a runtime computes otherwise when it optimises, each judged on what it was given.

A part lies between tensors that both graphs have. Each is fed what the run without optimisation made, so that
what is known of a node there holds here too, and no part's error is another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conformance.bounds import FLOAT16, Declaration, Format, propagated_bound
from conformance.bounds.propagation import Evaluated
from conformance.bounds.worst_element import worst_of
from conformance.candidates.candidate import Optimising
from conformance.graph.evaluation import widened
from conformance.graph.narrow import narrow_tensors
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import is_quantized
from refimpl.errors import CandidateError, MobileInstError
from refimpl.graph import Node
from refimpl.ops.operation import Array

MOST_NODES = 64
"""Nodes of a part that is judged: rounding may make anything of more."""
MOST_SHOWN = 8
"""Nodes of a part that are all named."""

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
"""What optimisers apply to constants ahead of time, in another order."""


@dataclass(frozen=True)
class Part:
    """Nodes that a runtime computes as one, or in another way.

    Attributes
    ----------
    nodes
        Empty if it is not known which.
    utilisation
        How much of what rounding may do it uses.
    """

    nodes: tuple[str, ...] = ()
    utilisation: float = 0.0

    def __str__(self) -> str:
        """Say where; nothing if that is not known."""
        if not self.nodes:
            return ""
        shown = [*self.nodes[:2], "…", *self.nodes[-2:]] if len(self.nodes) > MOST_SHOWN else self.nodes
        return f" at {', '.join(shown)}"


@dataclass(frozen=True)
class MadePart:
    """What a runtime's optimised graph makes of a part.

    Attributes
    ----------
    nodes
        Of the graph as it is, in order.
    name
        The tensor that they make.
    made
        It, as the optimised graph makes it.
    known
        Name → what the nodes are given, and more.
    inexact
        Of that, what may be off by a rounding to a format.
    finely
        Whether none of it is stored in less than float32.
    """

    nodes: Sequence[Node]
    name: str
    made: Array
    known: Mapping[str, Array]
    inexact: Mapping[str, Format]
    finely: bool = True

    def judged(self, declared: Declaration, evaluated: Mapping[str, Evaluated] | None = None) -> Part | None:
        """Judge it; None if nothing can be said of it. ``evaluated`` as of `propagated_bound`."""
        declared = declared.finely() if self.finely else declared
        try:
            names = {name for node in self.nodes for name in node.uses if name in self.known}
            exact = {name: widened(self.known[name]) for name in names}
            errors = {name: self.inexact[name].rounding_of(exact[name]) for name in names & {*self.inexact}}
            values, bounds = propagated_bound(self.nodes, exact, declared, errors=errors, evaluated=evaluated)
        except (MobileInstError, KeyError, ValueError):
            return None
        bound, value = bounds[self.name], values[self.name]
        if bound is None or self.made.dtype.kind != "f" or self.made.shape != value.shape:
            return None
        worst = worst_of(self.made, value, bound)
        return Part(tuple(node.name for node in self.nodes), worst.utilisation) if worst.judged else None


def parts_made(
    candidate: Optimising, feeds: Mapping[str, Array], captured: Mapping[str, Array], wide_float16: bool
) -> list[MadePart]:
    """Return the parts that a runtime's optimised graph computes otherwise, and not to the same numbers.

    None of them if the runtime does not show what it made. A quantised graph may be quantised further: there
    is no bound for that.

    Parameters
    ----------
    candidate
        Whose optimised graph is in question.
    feeds
        What it was fed.
    captured
        Its tensors without optimisation.
    wide_float16
        As of `conformance.candidates.candidate.OwnGraph`.
    """
    graph = candidate.graph
    if is_quantized(graph):
        return []
    try:
        given, tensors = candidate.optimized(feeds, captured)
    except CandidateError:
        return []
    held = {**graph.initializers, **feeds}
    handed_on = {name for name, array in captured.items() if wide_float16 and array.dtype == np.float16}
    narrow = narrow_tensors(graph) if candidate.declaration.otherwise else frozenset[str]()
    found = []
    for name, made in tensors.items():
        known = {**held, **{each: captured[each] for each in given[name]}}
        part = [] if _equal(made, captured[name]) else graph.between(known, [name])
        if 0 < len(part) <= MOST_NODES:
            halves = dict.fromkeys(handed_on.intersection(given[name]), FLOAT16)
            inexact = {**_rearranged(graph, part, candidate.declaration), **halves}
            tensors_of = {each for node in part for each in (*node.uses, *node.outputs)}
            found.append(MadePart(part, name, made, known, inexact, narrow.isdisjoint(tensors_of)))
    return found


def _equal(array: Array, other: Array) -> bool:
    # NaN is looked for only where something differs.
    return np.array_equal(array, other) or (
        array.dtype.kind == "f" and np.array_equal(array, other, equal_nan=True)
    )


def _rearranged(graph: OnnxGraph, part: Sequence[Node], declared: Declaration) -> dict[str, Format]:
    """Return the constants that may have been added or multiplied to one another first, and so rounded."""
    used = [name for node in part if node.op_type in ARITHMETIC for name in node.uses]
    return {name: declared.arithmetic for name in used if name in graph.initializers} if part[1:] else {}
