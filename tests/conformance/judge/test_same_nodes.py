"""What is known of a node is known of the step that it is, and no node is taken for another step's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from altered_models import change
from narrow_network import CONFIG, exported, network, picture
from small_backbones import on_small_backbones

from conformance.bounds import Declaration
from conformance.candidates.candidate import OwnGraph
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge import replay
from conformance.judge.alignment import CandidateTensors
from conformance.judge.nodes import judge_nodes
from conformance.judge.same_nodes import SameNodes
from conformance.judge.steps import compare_steps
from conformance.reports.report import Comparison, Fault
from refimpl import Recording, record
from refimpl.forward import parameter_shapes
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")


@functools.cache
def reference() -> Recording:
    return record(network(np.float64), picture().astype(np.float64))


class Run:
    """What ONNX Runtime makes of a model, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
        self.tensors = dict(candidate.capture(picture()))
        own = candidate.own_graph(picture())
        assert own is not None
        assert own.graph is not None
        self.own, self.graph = own, own.graph
        self.nodes = judge_nodes(own.graph, own.feeds, self.tensors, Declaration())

    def compared(self, nodes: Sequence[Comparison]) -> tuple[list[Comparison], Fault | None]:
        outputs = {name: name for name in reference().outputs}
        both = reference(), outputs, CandidateTensors(self.tensors)
        return compare_steps(*both, Declaration(), own=self.own, nodes=nodes)


def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the operator of every step that is computed is added."""
    operators: list[str] = []
    compute = replay.Replay.compute
    monkeypatch.setattr(
        replay.Replay, "compute", lambda self, step: (operators.append(step.op_type), compute(self, step))[1]
    )
    return operators


def test_steps_are_as_if_they_were_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(exported())
    alone, _ = run.compared(())
    operators = computed(monkeypatch)
    known, fault = run.compared(run.nodes)
    assert fault is None
    # Those that are looked at, because they use most of their bound so far, are computed.
    assert operators.count("Conv") < 12 < sum(step.op_type == "Conv" for step in reference().steps)
    for one, other in zip(alone, known, strict=True):
        assert (one.name, one.candidate, one.verdict) == (other.name, other.candidate, other.verdict)
        assert one.max_abs_error == other.max_abs_error
        assert one.introduced_error is not None
        assert other.introduced_error is not None
        assert other.introduced_error <= (other.tolerance or 0.0)
        # What a step may be off by allows for constants that were folded, which a node of its own has not.
        assert (other.tolerance or 0.0) <= (one.tolerance or 0.0) * (1 + 1e-6)


def test_the_highest_is_looked_at() -> None:
    run = Run(exported())
    rows, _ = run.compared(run.nodes)
    (looked_at,) = [row for row in rows if row.detail]
    assert looked_at.utilisation == max(row.utilisation or 0.0 for row in rows)


with on_small_backbones():
    WEIGHTS = [name for name in parameter_shapes(CONFIG) if name.endswith(("weight", "bias"))][::6]


@pytest.mark.parametrize("name", WEIGHTS)
def test_of_another_weight_nothing_is_known(name: str) -> None:
    """The node is right, the step is not: as it is blamed where every step is computed."""
    model = exported()
    change(model, name, lambda x: np.concatenate([1.5 * x[:1] + 0.1, x[1:]]))
    run = Run(model)
    assert all(row.verdict != "fail" for row in run.nodes)
    fault = run.compared(run.nodes)[1]
    assert fault is not None
    assert fault == run.compared(())[1]


def middle(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    """Return a node of an operator in the middle of the model."""
    nodes = [node for node in model.graph.node if node.op_type == op_type]
    return nodes[len(nodes) // 2]


def give(node: onnx.NodeProto, name: str, value: float | list[int]) -> None:
    """Set an attribute."""
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def with_other_pads(model: onnx.ModelProto) -> None:
    padded = [node for node in model.graph.node if node.op_type == "Conv" and _pads(node) == [1, 1, 1, 1]]
    give(padded[3], "pads", [0, 1, 2, 1])


def _pads(node: onnx.NodeProto) -> list[int]:
    return next(([*each.ints] for each in node.attribute if each.name == "pads"), [])


def with_another_epsilon(model: onnx.ModelProto) -> None:
    give(middle(model, "BatchNormalization"), "epsilon", 3e-2)


def with_another_axis(model: onnx.ModelProto) -> None:
    give(middle(model, "Softmax"), "axis", 1)


def without_the_scale(model: onnx.ModelProto) -> None:
    """Leave out an attention's scale: the node after it is fed something else."""
    makers = {name: node for node in model.graph.node for name in node.output}
    logits = makers[middle(model, "Softmax").input[0]]
    scaled = makers[logits.input[0]]
    assert scaled.op_type == "Mul"
    logits.input[0] = scaled.input[0]


@pytest.mark.parametrize(
    "alter", [with_other_pads, with_another_epsilon, with_another_axis, without_the_scale]
)
def test_a_node_that_computes_something_else_is_no_step(alter: Callable[[onnx.ModelProto], None]) -> None:
    model = exported()
    alter(model)
    run = Run(model)
    assert all(row.verdict != "fail" for row in run.nodes)
    fault = run.compared(run.nodes)[1]
    assert fault is not None
    assert fault == run.compared(())[1]


def same_nodes(run: Run, own: OwnGraph, tensors: dict[str, Array], declared: Declaration) -> SameNodes | None:
    return SameNodes.of(own, run.nodes, tensors, declared, reference())


def test_where_nodes_are_allowed_something_else_they_say_nothing() -> None:
    run = Run(exported())
    declared = Declaration()
    assert same_nodes(run, run.own, run.tensors, declared)
    assert not same_nodes(run, replace(run.own, graph=None), run.tensors, declared)
    halves = {name: array.astype(np.float16) for name, array in run.tensors.items()}
    assert run.own.wide_float16
    assert not same_nodes(run, run.own, halves, declared)
    for flag in ({"stores_when_used": True}, {"adds_constants_first": True}):
        runtime = replace(declared.runtime, **flag)
        assert not same_nodes(run, run.own, run.tensors, replace(declared, runtime=runtime))
