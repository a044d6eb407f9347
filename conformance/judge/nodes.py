"""Does the runtime compute its own graph? Every node replayed in float64 on its own operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from conformance.bounds import (
    BFLOAT16,
    FLOAT16,
    RECURRENT,
    Declaration,
    Format,
    Shared,
    carried_bounds,
    format_of,
    introduced_bounds,
    propagated_bound,
    step_by_step,
)
from conformance.bounds.propagation import Evaluated
from conformance.bounds.worst_element import is_varied, unlike_rounding, worst_of
from conformance.graph.control_flow import Written, is_written_out
from conformance.graph.evaluation import evaluate_node, widened
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.detail import Spotlight
from conformance.judge.optimised_parts import MadePart, Part
from conformance.reports.report import Comparison
from conformance.threads import in_threads
from refimpl.graph import Node
from refimpl.ops import TRAITS, Trait, having
from refimpl.ops.operation import Array

CHOOSING = having(Trait.MOVES) | having(Trait.SELECTS)
"""Operations that only choose and move numbers: they need no wider arithmetic."""


def judge_nodes(
    graph: OnnxGraph,
    inputs: Mapping[str, Array],
    tensors: Mapping[str, Array],
    declaration: Declaration,
    wide_float16: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Comparison]:
    """Judge every node output that was captured, in order; parameters as of `judge_nodes_and_parts`."""
    rows, _ = judge_nodes_and_parts(graph, inputs, tensors, declaration, (), wide_float16, progress)
    return rows


def judge_nodes_and_parts(
    graph: OnnxGraph,
    inputs: Mapping[str, Array],
    tensors: Mapping[str, Array],
    declaration: Declaration,
    parts: Sequence[MadePart],
    wide_float16: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Comparison], list[Part]]:
    """Judge every node output that was captured, in order, and what an optimised graph makes of the same.

    Parameters
    ----------
    graph
        The candidate's graph, of MobileInst or not.
    inputs
        What the candidate was fed, by name.
    tensors
        What it computed, by name; a node whose operands or outputs are not among them is not judged.
    declaration
        What the candidate is declared to compute with.
    parts
        Of the optimised graph: what is computed of a node is of use for its part.
    wide_float16
        As of `conformance.candidates.candidate.OwnGraph`.
    progress
        Called with the number of nodes done and of all.

    Returns
    -------
    rows, parts
        Those of the parts of which something can be said.
    """
    wide = {name for name, array in tensors.items() if array.dtype == np.float16} if wide_float16 else set()
    shown = {name: array for name, array in tensors.items() if name not in graph.within}
    known = {**graph.initializers, **inputs, **shown}
    judge = _Judge(graph, known, declaration, frozenset(wide))
    spotlight = Spotlight()
    rows: dict[str, list[Comparison]] = {}
    judged_parts: list[Part] = []
    for made, looked_at, judged in in_threads(judge.results_of_all, _groups(graph.nodes, parts)):
        rows |= made
        for result in looked_at:
            result.shown_by(spotlight)
        judged_parts += judged
        progress(len(rows), len(graph.nodes))
    return spotlight.placed([row for node in graph.nodes for row in rows[node.name]]), judged_parts


Group = tuple[Sequence[Node], Sequence[MadePart]]
"""Nodes, and the parts that what is computed of them is of use for."""


def _groups(nodes: Sequence[Node], parts: Sequence[MadePart]) -> Iterator[Group]:
    """Yield the nodes, those of a part together; a part that has some in common with one before, alone."""
    together: dict[str, MadePart] = {}
    for part in parts:
        names = [node.name for node in part.nodes]
        if together.keys().isdisjoint(names):
            together |= dict.fromkeys(names, part)
        else:
            yield (), [part]
    for node in nodes:
        own = together.get(node.name)
        if own is None:
            yield [node], ()
        elif own.nodes[0].name == node.name:
            yield own.nodes, [own]


@dataclass(frozen=True)
class _Result:
    """The judgement of one tensor; with its arrays, if it was compared with a bound."""

    row: Comparison
    values: Array
    truth: Array | None = None
    bound: Array | None = None

    @property
    def reached(self) -> float:
        """How much of its bound it uses; infinite if it fails all the same."""
        return np.inf if self.row.systematic else self.row.utilisation or 0.0

    def shown_by(self, spotlight: Spotlight) -> None:
        """Let a reader look at it, if it is the tensor to be looked at."""
        if self.truth is not None and self.bound is not None:
            spotlight.show(self.row.name, self.values, self.truth, self.bound, self.reached)


@dataclass(frozen=True)
class _Judge:
    """What the candidate computed and how; ``wide`` are its tensors that later nodes may be fed unrounded."""

    graph: OnnxGraph
    known: Mapping[str, Array]
    declared: Declaration
    wide: frozenset[str]

    def results_of_all(self, group: Group) -> tuple[dict[str, list[Comparison]], list[_Result], list[Part]]:
        """Judge the outputs of nodes, and the parts that they make up.

        Returns
        -------
        rows, shown, parts
            Of each node, by its name; those that a reader may look at; as of `judge_nodes_and_parts`.
        """
        nodes, parts = group
        evaluated: dict[str, Evaluated] = {}
        rows, shown, made = dict[str, list[Comparison]](), list[_Result](), set[str]()
        for node in nodes:
            # What is computed on a captured tensor is not what a part makes of its own before it.
            begins = bool(parts) and made.isdisjoint(node.uses)
            results = self.results(node, evaluated if begins else {})
            made.update(node.outputs)
            rows[node.name] = [result.row for result in results]
            # Their arrays are large: no more are kept than are looked at.
            shown = [each for each in (*shown, *results) if each.reached > 1] or sorted(
                (*shown, *results), key=lambda each: -each.reached
            )[:1]
        judged = [part.judged(self.declared, evaluated) for part in parts]
        return rows, shown, [part for part in judged if part is not None]

    def results(self, node: Node, evaluated: dict[str, Evaluated]) -> list[_Result]:
        """Judge the outputs of one node, none if its operands were not captured; note what it should make."""
        if node.name in self.graph.unknown:
            return self._unjudged(node)
        missing = [name for name in node.uses if name not in self.known]
        made = [name for name in node.outputs if name in self.known]
        if missing or is_written_out(node):
            return self._unit(node, made) if made and self.graph.within.issuperset(missing) else []
        if node.op_type in RECURRENT and node.outputs[0] in self.known:
            return self._step_by_step(node)
        if node.op_type in CHOOSING and self._is_exact(node):
            return [_Result(_exact_row(node, name, self.known[name]), self.known[name]) for name in made]
        operands = tuple(None if x is None else widened(x) for x in node.operands(self.known))
        truths = evaluate_node(node, operands, np.float64)
        shared: Shared = {}
        evaluated[node.outputs[0]] = truths, shared
        bounds = self._bounds(node, operands, truths, shared)
        # Only long sums have bounds so loose that a fault could hide in them.
        sums, nothing = Trait.SUMS in TRAITS[node.op_type], (None,) * len(bounds)
        scales = self._bounds(node, operands, truths, shared, probable=True) if sums else nothing
        return [
            _result(node, name, self.known[name], truth, bound, scale, operands[:2])
            for name, truth, bound, scale in zip(node.outputs, truths, bounds, scales, strict=False)
            if name in self.known
        ]

    def _unjudged(self, node: Node) -> list[_Result]:
        """Show what a node of an unknown operator makes."""
        shown = [(name, self.known[name]) for name in node.outputs if name in self.known]
        return [
            _Result(judged_row(node, name, values, widened(values), None), values) for name, values in shown
        ]

    def _unit(self, node: Node, made: list[str]) -> list[_Result]:
        """Judge what several nodes make of one of the file, or one written out as it runs: together.

        Their errors are carried along.
        """
        nodes = self.graph.between(self.known, made)
        given = {name for each in nodes for name in each.uses} - {n for each in nodes for n in each.outputs}
        if not given <= self.known.keys():
            return []
        written = Written({name: widened(self.known[name]) for name in given}, np.float64)
        for each in nodes:
            written.run(each)
        exact = {name: written.values[name] for name in (*given, *written.constants)}
        values, bounds = propagated_bound(written.nodes, exact, self._declared(made))
        node = _telling_node(node, written.nodes)
        return [
            _result(node, name, self.known[name], values[name], _telling(bounds[name], values[name]), None)
            for name in made
        ]

    def _step_by_step(self, node: Node) -> list[_Result]:
        """Judge a recurrent node, each step on the candidate's own state before it."""
        operands = tuple(None if x is None else widened(x) for x in node.operands(self.known))
        made = [name for name in node.outputs if name in self.known]
        call = (node.op_type, operands, node.attributes, self.known[node.outputs[0]])
        rows = zip(node.outputs, *step_by_step(*call, self._declared(made)), strict=False)
        return [
            _result(node, name, self.known[name], truth, bound, None)
            for name, truth, bound in rows
            if name in self.known
        ]

    def _is_exact(self, node: Node) -> bool:
        """Tell whether an operation that never rounds gives the same numbers in the candidate's own dtype."""
        results = evaluate_node(node, node.operands(self.known))
        return all(
            np.array_equal(self.known[name], result, equal_nan=result.dtype.kind == "f")
            for name, result in zip(node.outputs, results, strict=False)
            if name in self.known
        )

    def _bounds(
        self,
        node: Node,
        operands: Sequence[Array | None],
        truths: tuple[Array, ...],
        shared: Shared,
        probable: bool = False,
    ) -> tuple[Array | None, ...]:
        declared = self._declared([name for name in node.outputs if name in self.known])
        if self.wide.intersection(node.inputs):
            given = [
                x
                for name, x in zip(node.inputs, operands, strict=True)
                if name in self.wide and x is not None
            ]
            if not all(np.isfinite(x).all() for x in given):
                return (None,) * len(truths)  # shown as infinite, it may be handed on as it was computed
            errors = [
                FLOAT16.rounding_of(x) if name in self.wide and x is not None else 0.0
                for name, x in zip(node.inputs, operands, strict=True)
            ]
            carried = (node, operands, errors, truths, declared)
            return carried_bounds(*carried, probable=probable, shared=shared)
        call = (node.op_type, operands, node.attributes, truths, declared)
        return introduced_bounds(*call, probable=probable, shared=shared)

    def _declared(self, made: Sequence[str]) -> Declaration:
        """Return what results are declared to be computed with: stored as they are."""
        if self.graph.bfloat16.intersection(made):
            return replace(self.declared, storage=BFLOAT16, otherwise=None)
        arrays = [self.known[name] for name in made]
        return replace(self.declared, storage=_stored_format(arrays, self.declared.finest), otherwise=None)


def _telling_node(last: Node, nodes: Sequence[Node]) -> Node:
    """Return the node that a reader looks for among several, whose last does nothing."""
    if last.op_type != "Identity":
        return last
    products = (node for node in nodes if Trait.PRODUCTS in TRAITS[node.op_type])
    computing = (node for node in reversed(nodes) if node.op_type not in CHOOSING)
    return next(products, next(computing, last))


def _telling(bound: Array | None, truth: Array) -> Array | None:
    """Return a carried bound, None if it is larger than all numbers everywhere: anything would pass."""
    if bound is None or not truth.size or truth.dtype.kind != "f":
        return bound
    return None if float(np.min(bound)) > float(np.max(np.abs(truth))) > 0 else bound


def _stored_format(outputs: Sequence[Array], declared: Format) -> Format:
    """Return the format of a node's outputs: that of their dtype, if it is coarser than the one declared."""
    formats = [format_of(array.dtype) for array in outputs if array.dtype.kind == "f"]
    return max([declared, *formats], key=lambda format: format.unit_roundoff)


def _exact_row(node: Node, name: str, values: Array) -> Comparison:
    place = (0,) * values.ndim if values.size else ()
    nothing = {"introduced": 0.0, "allowed": 0.0, "utilisation": 0.0}
    return Comparison.judged(name, node.op_type, node.name, values, 0.0, place, **nothing)


def _result(
    node: Node,
    name: str,
    values: Array,
    truth: Array,
    bound: Array | None,
    scale: Array | None,
    factors: Sequence[Array | None] = (),
) -> _Result:
    """Compare one tensor; with a ``scale``, its errors must also look like rounding, if its factors vary."""
    if values.shape != truth.shape:
        return _Result(judged_row(node, name, values, truth, bound), values)
    row = judged_row(node, name, values, truth, bound)
    bounded = row.verdict == "pass" and bound is not None and scale is not None
    reason = unlike_rounding(values, truth, np.asarray(bound), np.asarray(scale)) if bounded else None
    if reason and all(is_varied(x) for x in factors if x is not None):
        row = row.made_systematic(reason)
    return _Result(row, values, truth, bound)


def judged_row(node: Node, name: str, values: Array, truth: Array, bound: Array | None) -> Comparison:
    """Return the comparison of a node's result with float64, within a bound; None: not judged."""
    if values.shape != truth.shape:
        return Comparison.absent(name, node.op_type, truth.shape, "fail", candidate=name)
    worst = worst_of(values, truth, math.inf if bound is None else bound)
    row = partial(Comparison.judged, name, node.op_type, node.name, truth, worst.largest)
    if bound is None or not worst.judged:
        return row(worst.largest_index, introduced=worst.largest)
    return row(worst.index, introduced=worst.error, allowed=worst.bound, utilisation=worst.utilisation)
