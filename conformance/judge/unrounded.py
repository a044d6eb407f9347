"""A phone's model whose tensors are integers throughout, beside the float graph it was made from.

What it does besides rounding is exact: computed with floats where it has integers, it must be the float graph
with its constants rounded, step by step. And its ranges must hold what they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from conformance.bounds import INT8
from conformance.candidates.evaluated import fit_for_both, own_feeds
from conformance.conversion.stored_weight import StoredWeight
from conformance.graph.evaluation import evaluate_node, run, widened
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import DEQUANTIZE, QUANTIZE
from conformance.graph.recorded import graph_recording
from conformance.judge.against import Inputs, verify_against
from conformance.judge.any_graph import model_of
from conformance.judge.quantised_against import SATURATES, decibels
from conformance.reports.report import InputReport, Report
from refimpl import Recording
from refimpl.graph import Node
from refimpl.ops.operation import Array

MOST_RANGES = 5
"""How many ranges that cut off too much are named."""


def rounds_only(graph: OnnxGraph) -> bool:
    """Tell whether integers are used by DequantizeLinear, and made by QuantizeLinear, of constant scales."""
    others = ("QLinear", "DynamicQuantize", "ConvInteger", "MatMulInteger")
    kinds = {node.op_type for node in graph.nodes}
    scales = {
        name for node in graph.nodes if node.op_type in (QUANTIZE, DEQUANTIZE) for name in node.inputs[1:]
    }
    known = scales <= graph.initializers.keys()
    return known and DEQUANTIZE in kinds and not any(kind.startswith(others) for kind in kinds)


def verify_unrounded(
    after: OnnxGraph,
    before: OnnxGraph,
    inputs: Inputs,
    *,
    stored: Sequence[StoredWeight] = (),
    ranged: bool = False,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
) -> Report:
    """Judge whether a quantised graph means what a float graph does, but for rounding.

    Parameters
    ----------
    after
        Of `rounds_only`.
    before, inputs, names, progress, cache, and errors
        As of `conformance.judge.against.verify_against`.
    stored
        Constants of the file that are integers and no node's.
    ranged
        Whether the inputs are of the kind that ranges were taken from: then they are judged, too.
    """

    plain, held = unrounded(after)
    own = [*held, *computed_of_integers(plain, [*held, *stored]), *stored]

    def judged(bounds: Mapping[str, float]) -> Report:
        plain, _ = unrounded(after, bounds=bounds)
        return verify_against(
            *(plain, before, inputs),
            names=names,
            progress=progress,
            cache=cache,
            partly=True,
            stored=own,
            weights=INT8,
        )

    report, bounds = judged({}), dict[str, float]()
    # With those that are known the values further on are others, which may pass another bound.
    while more := {
        name: bound for name, bound in _left_to_ranges(after, before, report).items() if name not in bounds
    }:
        bounds |= more
        report = judged(bounds)
    fitting = [fit_for_both(after, feeds) for feeds in inputs.values()]
    items = report.inputs
    if ranged and report.verdict == "pass":
        progress("ranges")
        items = [_ranged(item, after, before, feeds) for item, feeds in zip(items, fitting, strict=True)]
    elif report.verdict == "pass" and any(node.op_type == QUANTIZE for node in after.nodes):
        items = [replace(item, remarks=[*item.remarks, _UNRANGED]) for item in items]
    return replace(report, inputs=items, model=model_of(after), tolerance=f"{report.tolerance}; {_ROUNDED}")


def _left_to_ranges(after: OnnxGraph, before: OnnxGraph, report: Report) -> dict[str, float]:
    """Return tensors that lack the upper bound of a Clip, as their ranges keep it → the bound.

    A quantiser may leave such a bound out: no integer stands for more.
    """
    makers = {node.inputs[0]: node for node in after.nodes if node.op_type == QUANTIZE}
    found: dict[str, float] = {}
    for step in (step for item in report.inputs for step in item.steps):
        clip, maker = before.producer(step.name), makers.get(step.candidate or "")
        if step.verdict != "fail" or clip is None or clip.op_type != "Clip" or maker is None:
            continue
        upper = before.initializers.get([*clip.inputs, "", ""][2], clip.attributes.get("max"))
        grid = _Grid.of(maker, after.initializers, 0)
        if upper is not None and np.all(grid.ends[1] <= float(upper) + np.max(grid.step) / 2):
            found[maker.inputs[0]] = float(upper)
    return found


_ROUNDED = "activations are not rounded here"
_UNRANGED = "ranges are judged on inputs of the kind that they were taken from: name some with --input"


def _ranged(
    item: InputReport, after: OnnxGraph, before: OnnxGraph, feeds: Mapping[str, Array]
) -> InputReport:
    """Add what integers leave of the outputs, and which ranges are to blame where these cut off too much."""
    wide = unrounded(after, whole=False)[0]
    given = own_feeds(after, feeds)
    rounded, endless, truth = (
        graph_recording(*pair) for pair in ((after, given), (wide, given), (before, own_feeds(before, feeds)))
    )
    noises = {name: _noises(name, truth, rounded, endless) for name in truth.outputs if name in after.outputs}
    left = [f"{name} {decibels(*noise[:2]):.1f} dB" for name, noise in noises.items()]
    cut = [
        name
        for name, (_, noise, rounding) in noises.items()
        if np.sum(np.square(noise)) > SATURATES * np.sum(np.square(rounding))
    ]
    problems = [*item.problems]
    if cut:
        said = f"what ranges cut off is more than {SATURATES:g} × the noise of rounding in {', '.join(cut)}"
        ranges = [f"the range of {each}" for each in _cut_off(after, endless.tensors)]
        problems += [said, *ranges[:MOST_RANGES]]
    remark = f"signal to noise with integers: {', '.join(left)}"
    return replace(item, problems=problems, remarks=[*item.remarks, remark])


def _noises(name: str, *runs: Recording) -> tuple[Array, Array, Array]:
    """Return an output, and what two other runs have more."""
    right, *others = (np.asarray(run.tensors[run.outputs[name]], np.float64) for run in runs)
    first, second = (other - right for other in others)
    return right, first, second


def _cut_off(after: OnnxGraph, tensors: Mapping[str, Array]) -> list[str]:
    """Say which ranges cut off much more than they round, and how much, in the order of the nodes."""
    found = []
    for node in after.nodes:
        if node.op_type == QUANTIZE and node.inputs[0] in tensors:
            grid = _Grid.of(node, after.initializers, tensors[node.inputs[0]].ndim)
            given, (low, high) = tensors[node.outputs[0]], grid.ends
            beyond = given - np.clip(given, low, high)
            if np.mean(np.square(beyond)) > SATURATES * np.mean(np.square(grid.step)) / 12:
                share, largest = float(np.mean(beyond != 0)), float(np.abs(given).max(initial=0.0))
                ends = f"{float(low.min()):.3g} … {float(high.max()):.3g}"
                found.append(f"{node.name}, {ends}, cuts off {share:.1%} of its numbers, up to {largest:.3g}")
    return found


@dataclass(frozen=True)
class _Grid:
    """The numbers that integers stand for, as they broadcast to a tensor: scale and zero point."""

    step: Array
    point: Array

    @classmethod
    def of(cls, node: Node, held: Mapping[str, Array], axes: int) -> _Grid:
        """Return the grid of a QuantizeLinear or DequantizeLinear."""
        scale = held[node.inputs[1]]
        point = held[node.inputs[2]] if len(node.inputs) > 2 else np.zeros((), np.uint8)
        axis = int(node.attributes.get("axis", 1)) % max(axes, 1)
        shape = [-1 if place == axis else 1 for place in range(axes)]
        laid = (each.reshape(shape) if each.size > 1 else each.reshape(()) for each in (scale, point))
        return cls(*laid)

    @property
    def ends(self) -> tuple[Array, Array]:
        """The least and the largest number."""
        limits, point, step = np.iinfo(self.point.dtype), *map(np.float64, (self.point, self.step))
        return np.asarray((limits.min - point) * step), np.asarray((limits.max - point) * step)


def unrounded(
    graph: OnnxGraph, whole: bool = True, bounds: Mapping[str, float] | None = None
) -> tuple[OnnxGraph, list[StoredWeight]]:
    """Return a graph that makes no tensor integers, and its constants as they are stored.

    Parameters
    ----------
    graph
        Of `rounds_only`.
    whole
        Without rounding; else tensors are rounded to multiples of their steps, in ranges without ends.
    bounds
        Tensors that are made integers → what none of them is above.
    """
    writing = _Unrounding(graph, whole, bounds or {})
    for node in graph.nodes:
        writing.write(node)
    floats = [StoredWeight(array) for array in graph.initializers.values() if array.dtype.kind == "f"]
    return replace(graph, nodes=writing.nodes, initializers=writing.held), [*writing.weights, *floats]


def computed_of_integers(graph: OnnxGraph, stored: Sequence[StoredWeight]) -> list[StoredWeight]:
    """Return what a graph computes of no input, but of several constants that are integers in its file.

    Parameters
    ----------
    graph
        With floats in the integers' place.
    stored
        The constants of the file.
    """
    known, found = {name: widened(array) for name, array in graph.initializers.items()}, []
    varying = graph.dependent(graph.inputs.values())
    nodes = [node for node in graph.nodes if node.uses and varying.isdisjoint(node.uses)]
    sources = _integers_among(
        {name: known[name] for node in nodes for name in node.uses if name in known}, stored
    )
    for node in nodes:
        known |= run([node], {name: known[name] for name in node.uses}, evaluate_node)
        of = set[str]().union(*(sources.get(name, ()) for name in node.uses))
        sources |= dict.fromkeys(node.outputs, of)
        numbers = known[node.outputs[0]]
        largest = max(
            (float(np.abs(known[name]).max(initial=0.0)) for name in (*of, node.outputs[0])), default=0.0
        )
        if len(of) > 1 and numbers.dtype.kind == "f" and 0 < largest < np.inf:
            # Each may be off by half a step.
            step = np.array(len(of) * largest * INT8.unit_roundoff * 2)
            found.append(StoredWeight(numbers / step, step))
    return found


def _integers_among(held: Mapping[str, Array], stored: Sequence[StoredWeight]) -> dict[str, set[str]]:
    """Return which constants are integers in the file, each of itself."""
    sizes = {array.size for array in held.values()}
    whole = {
        np.float32(each.numbers).tobytes()
        for each in stored
        if each.scale is not None and each.held.size in sizes
    }
    return {name: {name} for name, array in held.items() if np.float32(array).tobytes() in whole}


@dataclass
class _Unrounding:
    """The nodes of a graph, written anew."""

    graph: OnnxGraph
    whole: bool
    bounds: Mapping[str, float]
    nodes: list[Node] = field(default_factory=list)
    weights: list[StoredWeight] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held: dict[str, Array] = dict(self.graph.initializers)

    def write(self, node: Node) -> None:
        """Write a node."""
        if node.op_type == QUANTIZE:
            self._add(node, "Identity", [self._nearest(node)])
        elif node.op_type == DEQUANTIZE and node.inputs[0] in self.held:
            integers = self.held[node.inputs[0]]
            grid = _Grid.of(node, self.held, integers.ndim)
            weight = StoredWeight(integers, grid.step, grid.point.astype(np.float64))
            self.weights.append(weight)
            self.held[node.outputs[0]] = weight.numbers
        elif node.op_type == DEQUANTIZE:
            self._read(node)
        else:
            self.nodes.append(node)

    def _nearest(self, node: Node) -> str:
        """Return what is made integers, if asked for as the multiples of its steps that are nearest."""
        name, step = node.inputs[:2]
        if name in self.bounds:
            bound, bounded = f"{node.name}/bound", f"{node.name}/bounded"
            self.held[bound] = np.array(self.bounds[name], np.float32)
            self.nodes.append(Node(bounded, "Min", (name, bound), (bounded,), {}))
            name = bounded
        for op_type in () if self.whole else ("Div", "Round", "Mul"):
            operands = (name,) if op_type == "Round" else (name, step)
            name = f"{node.name}/{op_type}"
            self.nodes.append(Node(name, op_type, operands, (name,), {}))
        return name

    def _add(self, node: Node, op_type: str, inputs: Sequence[str]) -> None:
        self.nodes.append(replace(node, op_type=op_type, inputs=tuple(inputs), attributes={}))

    def _read(self, node: Node) -> None:
        """Write what reads integers: other numbers if not by the scale and zero point they were made with."""
        maker = self._quantizer(node.inputs[0])
        own = [self.held[name] for name in node.inputs[1:]]
        others = own if maker is None else [self.held[name] for name in maker.inputs[1:]]
        if all(map(np.array_equal, own, others)) or any(each.size > 1 for each in (*own, *others)):
            self._add(node, "Identity", node.inputs[:1])
            return
        (step, *point), (made, *before) = ([float(each) for each in side] for side in (own, others))
        constants = np.array(step / made), np.array((sum(before) - sum(point)) * step)
        names = [f"{node.name}/{each}" for each in ("factor", "shift", "scaled")]
        self.held |= dict(zip(names, constants, strict=False))
        self.nodes.append(Node(f"{node.name}/Mul", "Mul", (node.inputs[0], names[0]), (names[2],), {}))
        self._add(node, "Add", (names[2], names[1]))

    def _quantizer(self, name: str) -> Node | None:
        """Return what made integers, also of those that were moved since."""
        maker = self.graph.producer(name)
        while maker is not None and maker.op_type != QUANTIZE:
            maker = self.graph.producer(maker.inputs[0]) if maker.inputs else None
        return maker
