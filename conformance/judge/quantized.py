"""Quantised graphs of an integer runtime: DequantizeLinear … operation … QuantizeLinear, judged as one.

Such a runtime makes integers from integers; the floats between exist on paper only. So a result is held
against float64 of the integers that went in, in steps of its own scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from conformance.bounds import propagated_bound
from conformance.bounds.worst_element import largest_in
from conformance.graph.evaluation import widened
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import (
    DEQUANTIZE,
    LARGEST_FACTOR,
    MOVING,
    QUANTIZE,
    joined_convolutions,
    quantized_results,
    stored_scale,
)
from conformance.reports.report import Comparison
from conformance.threads import in_threads
from refimpl.graph import Node
from refimpl.ops.operation import Array

REQUANTISATION = 0.2
"""Steps that requantising may lose beside the rounding itself: products with a fixed-point factor."""
STEPS: dict[int, dict[str, float]] = {
    1: {"AveragePool": 0.8, "Concat": 0.5, "ReduceMean": 1.0, "MatMul": 2.5},
    2: {
        "Add": 3.5,
        "AveragePool": 1.0,
        "Concat": 0.6,
        "Conv": 40.0,
        "Div": 30.0,
        "HardSigmoid": 1.2,
        "MatMul": 650.0,
    }
    | {"Mul": 1.0, "ReduceMean": 1.8, "ReduceSum": 1.0, "Reshape": 30.0, "Resize": 1.6, "Sigmoid": 5.0}
    | {"Softmax": 3.0},
}
"""Bytes of a result → operator → the steps that the NPU loses, as measured (`docs/snapdragon.md`).

QNN 2.51, three networks with weights and pictures of three seeds, two chips. Of 16 bits it computes many with
fewer; a product of two activations with about 8."""
LOG2_E_STEP = 2.0**-22
"""To a multiple of this the NPU's 16-bit softmax cuts off a step of its operand times log₂ e."""
EXPONENTIAL = 2.0**-10
"""Of 2ᶠ, 0 ≤ f < 1, relatively: a polynomial's error, at most 7e-4 as measured."""
OF_UNIT_INTERVAL = ("HardSigmoid", "Sigmoid")
"""Operators whose 16-bit results the NPU shows in steps of 2⁻¹⁶, whatever scale the graph gives them."""
UNIT_STEP = 2.0**-16
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
AT_ANOTHER_SCALE = (
    "the third convolution's weights are rounded and cut off to the second's steps, and its bias counted in "
    "them: give joined convolutions weights of one scale"
)
_MOST_PLACES = 4
PER_BLOCK = 32
"""Channels that the NPU computes at once; the last ones may hold the third's integers themselves."""
LEFT_OUT = "what its operands are rounded and cut off to, in between, is left out"
WITHOUT_SIGN = "bytes of 128 more are compared as signed: 0 and more as less than all below"
NOT_CUT_OFF = "its operands are not cut off to the range of their integers"
IN_UNIT_STEPS = "it is shown in steps of 2⁻¹⁶, and what follows takes it so"


@dataclass(frozen=True)
class Losses:
    """What a runtime of integers loses.

    Attributes
    ----------
    steps
        Bytes of a result → operator → steps, beside half a one.
    others
        Of other operators.
    explained
        Whether the NPU's own ways are looked for where a result is off by more.
    """

    steps: Mapping[int, Mapping[str, float]]
    others: float
    explained: bool = False


NPU = Losses(STEPS, REQUANTISATION, explained=True)
CPUS = Losses({}, 0.5)
"""Kernels of CPUs, which round to a neighbour: whole steps."""


def judge_units(
    graph: OnnxGraph, inputs: Mapping[str, Array], tensors: Mapping[str, Array], losses: Losses = NPU
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
    losses
        What is allowed.

    Returns
    -------
    rows, remarks
        A row for each result; what the runtime does otherwise than the graph says, where that explains it.
    """
    integers = {name: tensors[name] for name in quantized_results(graph) if name in tensors}
    known = {**graph.initializers, **inputs, **integers}
    judge = _Judge(graph, known, losses=losses)
    if losses.explained:
        judge = replace(judge, meant=judge.in_unit_steps(integers))
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


def _listed(places: Array) -> str:
    """Return a few numbers, as words."""
    return ", ".join(map(str, places[:_MOST_PLACES])) + (", …" if len(places) > _MOST_PLACES else "")


def _largest_apart(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max(initial=0.0)) if ours.shape == theirs.shape else np.inf


def only_as_shipped(
    graph: OnnxGraph,
    rows: Sequence[Comparison],
    shipped: Mapping[str, Array],
    captured: Mapping[str, Array],
    losses: Losses = NPU,
) -> tuple[list[Comparison], list[str]]:
    """Leave unjudged what leads only to outputs that are others when integers are shown; say which.

    To be shown, integers are rounded that are not in the model as shipped: an output may move by some steps,
    but not by a part of its spread. Kernels of CPUs are the same ones then, but for what is fused, and are
    judged all the same.
    """
    apart = [name for name, array in shipped.items() if _is_another(array, captured.get(name))]
    if not apart:
        return list(rows), []
    if not losses.explained:
        return list(rows), [
            f"outputs that are others when integers are shown: {', '.join(apart)}; as shipped, results of "
            "operations that are fused are not rounded in between, and a wrong fusion is not seen"
        ]
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
    def only_moves(self) -> bool:
        """Whether its integers are those of its operand, in another order."""
        return all(node.op_type in MOVING for node in self._computing)

    @property
    def _computing(self) -> list[Node]:
        return [node for node in self.made_by if node.op_type not in (DEQUANTIZE, "Constant")]

    @property
    def name(self) -> str:
        """The node that a reader looks for: the first that computes."""
        return self._computing[0].name if self._computing else self.quantize.name


@dataclass(frozen=True)
class _Judge:
    """A graph, what it is known to hold, and what of it stands for other integers than those shown."""

    graph: OnnxGraph
    known: Mapping[str, Array]
    meant: Mapping[str, Array] = field(default_factory=dict)
    losses: Losses = NPU

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
        if result in self.meant:
            return row, f"{unit.name}: {IN_UNIT_STEPS}"
        if row.verdict != "fail" or row.introduced_error is None:
            return row, None
        if not self.losses.explained:
            return row, self._seen(unit, row)
        # Explained or not, it may lose no more than its own operations do; what only moves integers has none.
        steps = None if unit.only_moves else self._requantisation(unit.quantize, unit.made_by)
        for depth, early in itertools.product(range(1, DEEPEST + 1), (False, True)):
            fused = self.row(unit, self._through(unit, depth), early, steps)
            if fused.verdict == "pass":
                how = CUT_OFF_EARLY if early else LEFT_OUT
                return fused, f"{unit.name}: {row.introduced_error:.1f} steps off as written; right if {how}"
        for depth in range(1, DEEPEST + 1):
            uncut = self.row(unit, unit.made_by, instead=self._through(unit, depth))
            if uncut.verdict == "pass":
                how = NOT_CUT_OFF
                return uncut, f"{unit.name}: {row.introduced_error:.1f} steps off as written; right if {how}"
        if self._is_right_if_cut_off(unit):
            return row, f"{unit.name}: {row.introduced_error:.1f} steps off; right if {FACTOR_CUT_OFF}"
        if self._is_right_at_another_scale(unit):
            return row, f"{unit.name}: {row.introduced_error:.1f} steps off; right if {AT_ANOTHER_SCALE}"
        if any(node.op_type in STAGED for node in self._through(unit, 1)):
            unjudged = replace(row, tolerance=None, utilisation=None, verdict="not judged")
            return unjudged, f"{unit.name}: {row.introduced_error:.1f} steps off, not judged: {IN_STAGES}"
        return row, None

    def _seen(self, unit: Unit, row: Comparison) -> str | None:
        """Say how a result is off, if that tells what a kernel does."""
        said = f"{unit.name}: {row.introduced_error:.1f} steps off"
        if self._is_right_without_sign(unit):
            return f"{said}; right if {WITHOUT_SIGN}"
        truth, allowed, ends = self._allowed(unit, unit.made_by)
        wrong = np.abs(self._read(unit.quantize.outputs[0]) - np.clip(truth, *ends)) > allowed
        if wrong.ndim < 3:
            return None
        columns = np.flatnonzero(wrong.reshape(-1, wrong.shape[-1]).any(axis=0))
        if not 0 < len(columns) <= wrong.shape[-1] / 2:
            return None
        return f"{said}, in {len(columns)} of {wrong.shape[-1]} columns only: {_listed(columns)}"

    def _is_right_without_sign(self, unit: Unit) -> bool:
        """Tell whether a maximum is explained by bytes of 128 more that are compared as if with a sign."""
        entries, result = [node for node in unit.made_by if self._is_entry(node)], unit.quantize.outputs[0]
        names = [result, *(node.inputs[0] for node in entries)]
        kinds = {node.op_type for node in unit.made_by} - {DEQUANTIZE, "Clip", "Identity"}
        if kinds != {"MaxPool"} or any(self.known[name].dtype != np.int8 for name in names):
            return False
        turned = {name: widened(self.known[name] ^ np.int8(-128)) for name in names}
        return replace(self, meant=turned).row(unit, unit.made_by).verdict == "pass"

    def _is_right_if_cut_off(self, unit: Unit) -> bool:
        """Tell whether a product is explained by a second operand that is cut off around its zero point."""
        makers = {node.outputs[0]: node for node in unit.made_by}
        products = [node for node in unit.made_by if node.op_type == "MatMul"]
        factors = [makers[node.inputs[1]] for node in products if node.inputs[1] in makers]
        if len(factors) != 1 or not self._is_entry(factors[0]):
            return False
        integers = self._read(factors[0].inputs[0])
        _, point = self._scale_and_point(factors[0], integers.ndim)
        cut_off = np.clip(integers, point - LARGEST_FACTOR, point + LARGEST_FACTOR)
        other = replace(self, meant={**self.meant, factors[0].inputs[0]: cut_off})
        return other.row(unit, unit.made_by, steps=REQUANTISATION).verdict == "pass"

    def _is_right_at_another_scale(self, unit: Unit) -> bool:
        """Tell whether joined convolutions are explained by the third one taken at the second one's scale."""
        joined = joined_convolutions(self.graph, unit.made_by[-1]) if unit.operation == "Concat" else []
        if len(joined) != 3:
            return False
        others = [replace(self, known={**self.known, **known}) for known in self._at_scale_of(*joined[1:])]
        whole = self._through(unit, 1)
        return any(other.row(unit, whole).verdict == "pass" for other in others)

    def _at_scale_of(self, second: Node, third: Node) -> Iterator[dict[str, Array]]:
        """Yield what the third convolution would hold at the second one's scale, in each way there is."""
        scales = [[stored_scale(self.graph, name) for name in node.uses[1:]] for node in (second, third)]
        if len(scales[0]) != len(scales[1]) or None in itertools.chain(*scales):
            return
        others = {str(own): self.known[str(other)] for other, own in zip(*scales, strict=True)}
        if any(scale.size != 1 for name in others for scale in (others[name], self.known[name])):
            return
        weight = self.graph.producer(third.inputs[1])
        assert weight is not None
        whole, own = self.known[weight.inputs[0]], weight.inputs[1]
        ends = np.iinfo(whole.dtype)
        rounded = np.floor(whole * (self.known[own] / others[own]) + 0.5).clip(ends.min, ends.max)
        for last in (0, PER_BLOCK):
            first = len(whole) - last
            yield others | {weight.inputs[0]: np.concatenate([rounded[:first], whole[first:]])}

    def in_unit_steps(self, integers: Mapping[str, Array]) -> dict[str, Array]:
        """Return the integers that are shown in steps of 2⁻¹⁶ as those of the graph's scale would be."""
        found: dict[str, Array] = {}
        for name, shown in integers.items():
            unit = self.unit(name)
            if unit.operation in OF_UNIT_INTERVAL and shown.dtype == np.uint16:
                scale, point = self._scale_and_point(unit.quantize, shown.ndim)
                meant = np.asarray(shown * (UNIT_STEP / scale) + point)
                other = _Judge(self.graph, self.known, {name: meant})
                as_shown, as_meant = (each.row(unit, unit.made_by) for each in (self, other))
                found |= {name: meant} if (as_shown.verdict, as_meant.verdict) == ("fail", "pass") else {}
        return found

    def row(
        self,
        unit: Unit,
        made_by: list[Node],
        early: bool = False,
        steps: float | Array | None = None,
        instead: list[Node] | None = None,
    ) -> Comparison:
        """Return the comparison of a unit computed in one way.

        ``steps`` is what it may lose, if given. ``instead`` is another way, for the elements that are made of
        integers at an end of their range, where more may have been cut off.
        """
        name = unit.quantize.outputs[0]
        shape = self.known[name].shape
        truth, allowed, ends = self._allowed(unit, made_by, early, steps)
        if shape != truth.shape:
            return Comparison.absent(name, unit.operation, truth.shape, "fail", candidate=name)
        if instead is not None:
            other, wider, _ = self._allowed(unit, instead)
            apart = self._made_of_ends(unit, truth)
            truth, allowed = np.where(apart, other, truth), np.where(apart, wider, allowed)
        error = np.abs(self._read(name) - np.clip(truth, *ends))
        share = error / allowed
        _, place = largest_in(share)
        row = Comparison.judged(
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
        bounded = bool(np.isfinite(allowed).any())
        return row if bounded else replace(row, tolerance=None, utilisation=None, verdict="not judged")

    def _made_of_ends(self, unit: Unit, truth: Array) -> Array:
        """Tell which elements of a result change if what is at an end of its range is moved beyond it."""
        moved = {}
        for node in filter(self._is_activation, unit.made_by):
            integers, ends = self.known[node.inputs[0]], np.iinfo(self.known[node.inputs[0]].dtype)
            beyond = (integers == ends.max).astype(np.float64) - (integers == ends.min)
            moved[node.inputs[0]] = self._read(node.inputs[0]) + beyond
        other = replace(self, meant={**self.meant, **moved})
        return np.asarray(other._in_steps(unit.quantize, unit.made_by, early=False)[0] != truth)

    def _allowed(
        self, unit: Unit, made_by: list[Node], early: bool = False, steps: float | Array | None = None
    ) -> tuple[Array, Array, tuple[float, float]]:
        """Return what a result should be before it is rounded, by how much it may be off, and its ends."""
        truth, bound, ends = self._in_steps(unit.quantize, made_by, early)
        lost = self._requantisation(unit.quantize, made_by) if steps is None else steps
        return truth, 0.5 + lost + bound, ends

    def _read(self, name: str) -> Array:
        """Return the integers that a tensor stands for."""
        return self.meant[name] if name in self.meant else widened(self.known[name])

    def _requantisation(self, quantize: Node, made_by: list[Node]) -> float | Array:
        """Return the steps that the operations may lose, whatever their width."""
        widths = [self.known[node.inputs[0]].dtype.itemsize for node in made_by if self._is_entry(node)]
        width = max([width for width in widths if width < 4], default=1)
        steps = max(
            (self.losses.steps.get(width, {}).get(node.op_type, self.losses.others) for node in made_by),
            default=self.losses.others,
        )
        last = made_by[-1] if made_by else quantize
        if width == 2 and last.op_type == "Softmax" and self._is_entry(made_by[0]) and len(made_by) == 2:
            scale, _ = self._scale_and_point(quantize, self.known[quantize.outputs[0]].ndim)
            return steps + self._softmax_loss(*made_by) / scale
        return steps

    def _softmax_loss(self, entry: Node, softmax: Node) -> Array:
        """Return by how much a 16-bit softmax may be off.

        eˣ is 2ᵗ, where t is a number of steps times what one step is in log₂, which is cut off to a multiple
        of `LOG2_E_STEP`: the logarithm of each term is off by at most λ = steps · ln 2 · that, always to one
        side, and by `EXPONENTIAL` to either. Then p errs by p·(λ − Σ p λ).
        """
        axis = softmax.attributes.get("axis", -1)
        integers = self._read(entry.inputs[0]).astype(np.float64)
        scale, _ = self._scale_and_point(entry, integers.ndim)
        below = integers.max(axis, keepdims=True) - integers
        p = np.exp(-below * scale)
        p /= p.sum(axis, keepdims=True)
        cut_off = below * np.log(2) * LOG2_E_STEP
        others = (p * cut_off).sum(axis, keepdims=True) - p * cut_off
        return p * (np.maximum(cut_off * (1 - p), others) + 2 * EXPONENTIAL * (1 - p))

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
        exact = {name: self._read(name) for node in made_by for name in node.uses if name in self.known}
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
        integers = self._read(entry.inputs[0])
        scale, point = self._scale_and_point(entry, integers.ndim)
        return np.clip(integers, lowest / scale + point, highest / scale + point)

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
