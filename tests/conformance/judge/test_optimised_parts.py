"""Parts of an optimised graph: fed what was captured, and judged as if nothing of them were known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import narrow_network
import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper, parser

from conformance.candidates.candidate import OwnGraph
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.submodel import GIVEN, feed_each_node, given_to_each
from conformance.judge.nodes import judge_nodes_and_parts
from conformance.judge.optimised_parts import MadePart, parts_made
from conformance.pictures.graph_inputs import graph_inputs
from refimpl.ops.operation import Array

RESIDUAL = OnnxGraph.load(onnx_models.residual_network())


def made_by(
    runtime: OnnxRuntimeGraph, feeds: Mapping[str, Array]
) -> tuple[list[MadePart], Mapping[str, Array], OwnGraph]:
    captured, own = runtime.capture(feeds), runtime.own_graph(feeds)
    return parts_made(runtime, feeds, captured, own.wide_float16), captured, own


def test_what_is_known_of_the_nodes_changes_nothing() -> None:
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(narrow_network.exported()), threads=1)
    feeds = candidate.feeds(narrow_network.picture())
    parts, captured, _ = made_by(candidate.model, feeds)
    assert any(len(part.nodes) > 2 for part in parts)
    _, judged = judge_nodes_and_parts(candidate.graph, feeds, captured, candidate.declaration, parts)
    alone = [part.judged(candidate.declaration) for part in parts]
    assert {each.nodes: each.utilisation for each in judged} == {
        each.nodes: each.utilisation for each in alone if each is not None
    }


class Doubling(OnnxRuntimeGraph):
    """ONNX Runtime whose optimised sums are twice as large as they should be."""

    def _session(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> Any:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        if options.level != "disabled":
            for node in wrong.graph.node:
                if node.op_type == "Add":
                    node.input[1] = node.input[0]
        return super()._session(wrong, feeds, replace(options, threads=1))


def test_no_part_pays_for_another() -> None:
    """Every sum is wrong, and nothing else, though all behind the first is computed of wrong numbers."""
    runtime = Doubling(RESIDUAL)
    parts, _, _ = made_by(runtime, graph_inputs(RESIDUAL, shapes=["1x3x32x32"]))
    found = {part.name: part.judged(runtime.declaration) for part in parts}
    wrong = {name for name, each in found.items() if each is not None and each.utilisation > 1}
    with_sums = {part.name for part in parts if any(node.op_type == "Add" for node in part.nodes)}
    assert wrong == with_sums
    assert len(wrong) > 1


def test_a_branch_is_fed_what_was_captured_too() -> None:
    x, y, b = (helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in DECLARED)
    shifted = helper.make_graph([helper.make_node("Add", ["a", "a"], ["s"])], "then", [], [value("s")])
    same = helper.make_graph([helper.make_node("Identity", ["a"], ["t"])], "else", [], [value("t")])
    nodes = [
        helper.make_node("Neg", ["x"], ["a"], name="a"),
        helper.make_node("If", ["b"], ["c"], name="c", then_branch=shifted, else_branch=same),
        helper.make_node("Neg", ["c"], ["y"], name="y"),
    ]
    graph = helper.make_graph(nodes, "branches", [x, b], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    numbers = np.arange(3, dtype=np.float32)
    given = feed_each_node(model, {"a": 10 * numbers, "c": 100 * numbers}, ["c", "y"])
    assert given.keys() == {f"{GIVEN}a", f"{GIVEN}c"}
    assert [node.name for node in model.graph.node] == ["c", "y"]  # nothing takes what a makes
    for chosen, expected in ((True, 20 * numbers), (False, 10 * numbers)):
        session = RuntimeOptions(threads=1).session(model)
        made = session.run(None, {"x": numbers, "b": np.array(chosen), **given})
        np.testing.assert_array_equal(made[0], expected)
        np.testing.assert_array_equal(made[1], -100 * numbers)


DECLARED = (("x", TensorProto.FLOAT, [3]), ("y", TensorProto.FLOAT, [3]), ("b", TensorProto.BOOL, []))


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])


@pytest.mark.parametrize("precision", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_narrow_tensors_are_fed_in_their_own_type(precision: int) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=precision),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy")
    graph = helper.make_graph(nodes, "narrow", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    numbers = np.array([1, 2, -4], np.float32)
    held = numbers if precision == TensorProto.BFLOAT16 else numbers.astype(np.float16)
    feed_each_node(model, {"a": held}, ["y"], {"a"} if precision == TensorProto.BFLOAT16 else ())
    (kind,) = [each.type.tensor_type.elem_type for each in model.graph.input if each.name == f"{GIVEN}a"]
    assert kind == precision
    session = RuntimeOptions(threads=1).session(model)
    assert {each.name for each in session.get_inputs()} == {"x", f"{GIVEN}a"}


def test_given_is_what_a_runtime_reads_whatever_it_calls_what_is_between() -> None:
    """The second node takes what the first makes under another name: that is none of the tensors given."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> graph (float[2] x) => (float[2] y) '
        "{ own = Neg(x) a = Identity(own) b = Exp(a) other = Relu(own) y = Add(other, b) }"
    )
    numbers = np.ones(2, np.float32)
    feed_each_node(model, {"a": numbers, "b": numbers}, ["a", "b", "y"])
    assert given_to_each(model, ["a", "b", "y"]) == {"a": set(), "b": {"a"}, "y": {"b"}}
