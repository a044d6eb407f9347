"""Quantised graphs of an integer runtime: DequantizeLinear … operation … QuantizeLinear, judged as one.

Such a runtime makes integers from integers; the floats between exist on paper only. So a result is held
against float64 of the integers that went in, in steps of its own scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conformance.bounds import propagated_bound
from conformance.bounds.worst_element import largest_in
from conformance.graph.evaluation import widened
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import DEQUANTIZE, QUANTIZE, quantized_results
from conformance.reports.report import Comparison
from conformance.threads import in_threads
from refimpl.graph import Node
from refimpl.ops.operation import Array

REQUANTISATION = 0.2
"""Steps that requantising may lose beside the rounding itself: products with a fixed-point factor."""
STEPS: dict[int, dict[str, float]] = {
    1: {"AveragePool": 0.8, "Concat": 0.5, "ReduceMean": 1.0, "MatMul": 2.5},
    2: {"Add": 3.5, "AveragePool": 1.0, "Conv": 40.0, "Div": 30.0, "HardSigmoid": 1.2, "MatMul": 650.0}
    | {"Mul": 1.0, "ReduceMean": 1.8, "ReduceSum": 1.0, "Reshape": 30.0, "Resize": 1.0, "Sigmoid": 5.0}
    | {"Softmax": 70.0},
}
"""Bytes of a result → operator → the steps that the NPU loses, as measured (`docs/snapdragon.md`).

QNN 2.51, three networks with weights and pictures of three seeds, two chips. Of 16 bits it computes many with
fewer; a product of two activations with about 8."""
LARGEST_FACTOR = 127
"""Steps from its zero point that the NPU keeps of an 8-bit product's second operand."""
ANOTHER = 0.1
"""Of its spread: an output that moves by more when integers are shown is another."""
DEEPEST = 2
"""Units over which a runtime may leave out the rounding in between."""
STAGED = ("AveragePool",)
IN_STAGES = "the NPU pools large windows in stages, at the scale of what follows; no bound of that is known"
CUT_OFF_EARLY = "its operands are cut off to the range of its result before it is computed"
FACTOR_CUT_OFF = (
    f"the second operand is cut off {LARGEST_FACTOR} steps from its zero point: quantise it symmetrically"
)
LEFT_OUT = "what its operands are rounded and cut off to, in between, is left out"


def judge_units(
    graph: OnnxGraph, inputs: Mapping[str, Array], tensors: Mapping[str, Array]
) -> tuple[list[Comparison], list[str]]:
    """Judge every quantised result that was captured, in order, in steps of its scale.

    Parameters
    ----------
    graph
        The candidate's QDQ graph.
    inputs
        What the candidate was fed, by name.
    tensors
        What it computed, by name; the integers among them are what is judged, and what others are made of.

    Returns
    -------
    rows, remarks
        A row for each result; what the runtime does otherwise than the graph says, where that explains it.
    """
    integers = {name: tensors[name] for name in quantized_results(graph) if name in tensors}
    judge = _Judge(graph, {**graph.initializers, **inputs, **integers})
    found = list(in_threads(judge.result, integers))
    return [row for row, _ in found], [remark for _, remark in found if remark]


def steps_between(
    graph: OnnxGraph, other: OnnxGraph, inputs: Mapping[str, Array], tensors: Mapping[str, Array]
) -> dict[str, float]:
    """Return by how many steps at most each integer result of another graph should differ, where it does.

    Parameters
    ----------
    graph, other
        Two QDQ graphs of the same results.
    inputs, tensors
        As of `judge_units`, of the first: what both compute each result of.
    """
    integers = {name: tensors[name] for name in quantized_results(graph) if name in tensors}
    ours, theirs = (_Judge(each, {**each.initializers, **inputs, **integers}) for each in (graph, other))
    apart = {name: _largest_apart(ours.integers(name), theirs.integers(name)) for name in integers}
    return {name: steps for name, steps in apart.items() if steps}


def _largest_apart(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max(initial=0.0)) if ours.shape == theirs.shape else np.inf


def only_as_shipped(
    graph: OnnxGraph,
    rows: Sequence[Comparison],
    shipped: Mapping[str, Array],
    captured: Mapping[str, Array],
) -> tuple[list[Comparison], list[str]]:
    """Leave unjudged what leads only to outputs that are others when integers are shown; say which.

    To be shown, integers are rounded that are not in the model as shipped: an output may move by some steps,
    but not by a part of its spread.
    """
    apart = [name for name, array in shipped.items() if _is_another(array, captured.get(name))]
    if not apart:
        return list(rows), []
    same = graph.between((), [name for name in shipped if name not in apart])
    seen = {name for node in same for name in node.outputs}
    unseen = [row.name for row in rows if row.name not in seen]
    left = [
        row if row.name in seen else replace(row, tolerance=None, utilisation=None, verdict="not judged")
        for row in rows
    ]
    return left, [
        f"outputs that are others when integers are shown: {', '.join(apart)}; the {len(unseen)} results "
        "that lead to nothing else were not judged"
    ]


def _is_another(shipped: Array, shown: Array | None) -> bool:
    if shown is None or shown.shape != shipped.shape:
        return True
    moved = np.abs(shown.astype(np.float64) - shipped.astype(np.float64)).max(initial=0.0)
    return bool(moved > ANOTHER * np.ptp(shipped)) if shipped.size else False


@dataclass(frozen=True)
class Unit:
    """One quantised result, and the nodes that make it of others.

    Attributes
    ----------
    quantize
        The node that gives it.
    made_by
        The nodes before it, in order, from dequantising its operands on.
    """

    quantize: Node
    made_by: list[Node]

    @property
    def operation(self) -> str:
        """What it computes: its operators without the dequantising."""
        return "+".join(node.op_type for node in self._computing) or QUANTIZE

    @property
    def _computing(self) -> list[Node]:
        return [node for node in self.made_by if node.op_type not in (DEQUANTIZE, "Constant")]

    @property
    def name(self) -> str:
        """The node that a reader looks for: the first that computes."""
        return self._computing[0].name if self._computing else self.quantize.name


@dataclass(frozen=True)
class _Judge:
    graph: OnnxGraph
    known: Mapping[str, Array]

    def unit(self, result: str) -> Unit:
        """Return the unit that makes a result."""
        others = self.known.keys() - {result}
        *made_by, quantize = self.graph.between(others, [result])
        return Unit(quantize, made_by)

    def integers(self, result: str) -> Array:
        """Return what a result should be."""
        unit = self.unit(result)
        truth, _, ends = self._in_steps(unit.quantize, unit.made_by, early=False)
        return np.clip(np.rint(truth), *ends)

    def result(self, result: str) -> tuple[Comparison, str | None]:
        """Compare one result with float64 of the integers it is made of; return also what was left out."""
        unit = self.unit(result)
        row = self.row(unit, unit.made_by)
        if row.verdict != "fail" or row.introduced_error is None:
            return row, None
        # Explained or not, it may lose no more than its own operations do.
        steps = self._requantisation(unit.made_by)
        for depth, early in itertools.product(range(1, DEEPEST + 1), (False, True)):
            fused = self.row(unit, self._through(unit, depth), early, steps)
            if fused.verdict == "pass":
                how = CUT_OFF_EARLY if early else LEFT_OUT
                return fused, f"{unit.name}: {row.introduced_error:.1f} steps off as written; right if {how}"
        if self._is_right_if_cut_off(unit):
            return row, f"{unit.name}: {row.introduced_error:.1f} steps off; right if {FACTOR_CUT_OFF}"
        if any(node.op_type in STAGED for node in self._through(unit, 1)):
            unjudged = replace(row, tolerance=None, utilisation=None, verdict="not judged")
            return unjudged, f"{unit.name}: {row.introduced_error:.1f} steps off, not judged: {IN_STAGES}"
        return row, None

    def _is_right_if_cut_off(self, unit: Unit) -> bool:
        """Tell whether a product is explained by a second operand that is cut off around its zero point."""
        makers = {node.outputs[0]: node for node in unit.made_by}
        products = [node for node in unit.made_by if node.op_type == "MatMul"]
        factors = [makers[node.inputs[1]] for node in products if node.inputs[1] in makers]
        if len(factors) != 1 or not self._is_entry(factors[0]):
            return False
        integers = self.known[factors[0].inputs[0]]
        _, point = self._scale_and_point(factors[0], integers.ndim)
        cut_off = np.clip(widened(integers), point - LARGEST_FACTOR, point + LARGEST_FACTOR)
        other = _Judge(self.graph, {**self.known, factors[0].inputs[0]: cut_off})
        return other.row(unit, unit.made_by, steps=REQUANTISATION).verdict == "pass"

    def row(
        self, unit: Unit, made_by: list[Node], early: bool = False, steps: float | None = None
    ) -> Comparison:
        """Return the comparison of a unit computed in one way; ``steps`` is what it may lose, if given."""
        name = unit.quantize.outputs[0]
        values = self.known[name].astype(np.float64)
        truth, bound, (lowest, highest) = self._in_steps(unit.quantize, made_by, early)
        if values.shape != truth.shape:
            return Comparison.absent(name, unit.operation, truth.shape, "fail", candidate=name)
        error = np.abs(values - np.clip(truth, lowest, highest))
        allowed = 0.5 + (self._requantisation(made_by) if steps is None else steps) + bound
        share = error / allowed
        _, place = largest_in(share)
        return Comparison.judged(
            name,
            unit.operation,
            unit.name,
            truth,
            float(error.max(initial=0.0)),
            place,
            introduced=float(error[place]),
            allowed=float(allowed[place]),
            utilisation=float(share[place]),
        )

    def _requantisation(self, made_by: list[Node]) -> float:
        """Return the steps that the operations may lose, whatever their width."""
        widths = [self.known[node.inputs[0]].dtype.itemsize for node in made_by if self._is_entry(node)]
        table = STEPS[max([width for width in widths if width < 4], default=1)]
        return max((table.get(node.op_type, REQUANTISATION) for node in made_by), default=REQUANTISATION)

    def _is_entry(self, node: Node) -> bool:
        return node.op_type == DEQUANTIZE and node.inputs[0] in self.known

    def _through(self, unit: Unit, depth: int) -> list[Node]:
        """Return what makes a result if what it is made of is not made integers before, some units deep."""
        skipped: set[str] = set()
        chain = unit.made_by
        for _ in range(depth):
            entries = {node.inputs[0] for node in chain if self._is_entry(node)}
            skipped |= entries - self.graph.initializers.keys()
            others = self.known.keys() - skipped - {unit.quantize.outputs[0]}
            chain = self.graph.between(others, [unit.quantize.inputs[0]])
        return [_kept_wide(node, skipped) for node in chain]

    def _in_steps(
        self, quantize: Node, made_by: list[Node], early: bool
    ) -> tuple[Array, Array, tuple[float, float]]:
        """Return what the result should be before it is rounded, by how much it may be off, and its ends.

        ``early``: the operands are cut off to what the result can hold, before they are computed with.
        """
        integers = self.known[quantize.outputs[0]]
        scale, point = self._scale_and_point(quantize, integers.ndim)
        lowest, highest = float(np.iinfo(integers.dtype).min), float(np.iinfo(integers.dtype).max)
        exact = {
            name: widened(self.known[name]) for node in made_by for name in node.uses if name in self.known
        }
        if early:
            within = float(((lowest - point) * scale).min()), float(((highest - point) * scale).max())
            exact |= {
                node.inputs[0]: self._cut_off(node, *within) for node in made_by if self._is_activation(node)
            }
        real, error = self._real(quantize.inputs[0], made_by, exact)
        return real / scale + point, error / scale, (lowest, highest)

    def _real(self, given: str, made_by: list[Node], exact: Mapping[str, Array]) -> tuple[Array, Array]:
        if not made_by:
            array = widened(self.known[given])
            return array, np.zeros(array.shape)
        values, bounds = propagated_bound(made_by, exact)
        bound = bounds[given]
        return values[given], np.full(values[given].shape, np.inf) if bound is None else bound

    def _is_activation(self, node: Node) -> bool:
        return self._is_entry(node) and node.inputs[0] not in self.graph.initializers

    def _cut_off(self, entry: Node, lowest: float, highest: float) -> Array:
        """Return the integers of an operand, cut off to what stands for numbers in an interval."""
        integers = self.known[entry.inputs[0]]
        scale, point = self._scale_and_point(entry, integers.ndim)
        return np.clip(widened(integers), lowest / scale + point, highest / scale + point)

    def _scale_and_point(self, node: Node, ndim: int) -> tuple[Array, Array]:
        """Return the scale and the zero point of a node, as they broadcast to what it quantises."""
        axis = node.attributes.get("axis", 1)
        scale, *point = (self.known[name].astype(np.float64) for name in node.uses[1:])
        return _along(scale, axis, ndim), _along(point[0], axis, ndim) if point else np.zeros(())


def _kept_wide(node: Node, skipped: set[str]) -> Node:
    """Return a node, or what hands on its operand if it makes skipped integers or undoes that."""
    within = node.op_type == QUANTIZE or (node.op_type == DEQUANTIZE and node.inputs[0] in skipped)
    return Node(node.name, "Identity", node.inputs[:1], node.outputs) if within else node


def _along(x: Array, axis: int, ndim: int) -> Array:
    """Return a number for each place along an axis, or one for all, as it broadcasts."""
    return x if x.ndim == 0 or x.size == 1 else x.reshape(-1, *(1,) * (ndim - 1 - axis % ndim))
