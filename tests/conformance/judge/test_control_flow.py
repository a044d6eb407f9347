"""If, Loop and Scan in ONNX Runtime: judged as what they come to, wrong results named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, parser

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.onnx_graph import OnnxGraph, evaluate
from conformance.judge.any_graph import verify_graph
from conformance.judge.branches import with_branches_shown
from conformance.judge.nodes import judge_nodes
from refimpl.errors import FileError, ShapeError
from refimpl.ops.operation import Array

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
GRAPHS = {
    "If": """
        choice (float[3, 4] x, bool[1] flag) => (float[3, 4] y)
        {
            t = Tanh(x)
            c = If (flag) <
                then_branch = positive () => (float[3, 4] a) { a = Exp(t) },
                else_branch = negative () => (float[3, 4] b) { s = Sin(t)  b = Mul(s, x) }
            >
            y = Relu(c)
        }""",
    "Loop": """
        steps (float[3, 3] x, int64 count) => (float[3, 3] y, float[n, 3, 3] all)
        {
            go = Constant <value = bool {1}> ()
            y, all = Loop (count, go, x) <
                body = turn (int64 i, bool before, float[3, 3] state)
                    => (bool after, float[3, 3] new, float[3, 3] shown)
                {
                    after = Identity(before)
                    product = MatMul(state, x)
                    new = Tanh(product)
                    shown = Mul(new, new)
                }
            >
        }""",
    "Loop until": """
        search (float[4] x) => (float[4] y)
        {
            go = Constant <value = bool {1}> ()
            limit = Constant <value = float {10.0}> ()
            y = Loop ("", go, x) <
                body = turn (int64 i, bool before, float[4] state) => (bool after, float[4] new)
                {
                    new = Add(state, x)
                    most = ReduceMax <keepdims = 0> (new)
                    after = Less(most, limit)
                }
            >
        }""",
    "Scan": """
        running (float[2, 3] start, float[5, 2, 3] x) => (float[2, 3] last, float[5, 2, 3] y)
        {
            last, y = Scan <num_scan_inputs = 1, body = step (float[2, 3] s, float[2, 3] each)
                => (float[2, 3] sum, float[2, 3] out) { sum = Add(s, each)  out = Sigmoid(sum) }
            > (start, x)
        }""",
    "sequence": """
        list (float[4, 3] x) => (float[2, 3] y, float[3, 1, 3] z, int64 n)
        {
            t = Exp(x)
            two = Constant <value = int64 {2}> ()
            first = Constant <value = int64 {0}> ()
            parts = SplitToSequence <axis = 0> (t, two)
            head = SequenceAt (parts, first)
            y = Tanh (head)
            rows = SplitToSequence <axis = 0> (x)
            more = SequenceInsert (rows, y_row, first)
            fewer = SequenceErase (more)
            less = SequenceErase (fewer, first)
            n = SequenceLength (less)
            stacked = ConcatFromSequence <axis = 0, new_axis = 1> (less)
            z = Sin (stacked)
            y_row = ReduceSum <keepdims = 1> (x, axes)
            axes = Constant <value = int64[1] {0}> ()
        }""",
    "sequence of a loop": """
        collect (float[3] x, int64 count) => (float[n, 3] y)
        {
            go = Constant <value = bool {1}> ()
            none = SequenceEmpty ()
            all = Loop (count, go, none) <
                body = turn (int64 i, bool before, seq(float[3]) held) => (bool after, seq(float[3]) longer)
                {
                    after = Identity(before)
                    number = Cast <to = 1> (i)
                    scaled = Mul(x, number)
                    longer = SequenceInsert(held, scaled)
                }
            >
            y = ConcatFromSequence <axis = 0, new_axis = 1> (all)
        }""",
    "optional": """
        maybe (float[3] x) => (float[3] y, bool there)
        {
            t = Exp(x)
            held = Optional (t)
            there = OptionalHasElement (held)
            got = OptionalGetElement (held)
            y = Tanh (got)
        }""",
    "nested": """
        nested (float[3] x, int64 count) => (float[3] y)
        {
            go = Constant <value = bool {1}> ()
            one = Constant <value = int64 {1}> ()
            two = Constant <value = int64 {2}> ()
            y = Loop (count, go, x) <
                body = turn (int64 i, bool before, float[3] state) => (bool after, float[3] new)
                {
                    after = Identity(before)
                    rest = Mod(i, two)
                    odd = Equal(rest, one)
                    new = If (odd) <
                        then_branch = add () => (float[3] a) { a = Add(state, x) },
                        else_branch = half () => (float[3] b) { b = Mul(state, state) }
                    >
                }
            >
        }""",
}


LOOKED_AT = ("If", "Loop", "Scan", "SequenceAt", "OptionalGetElement", "ConcatFromSequence")


def feeds_of(name: str, seed: int) -> dict[str, Array]:
    """Random inputs."""
    rng = np.random.default_rng(seed)
    model = parser.parse_model(HEAD + GRAPHS[name])
    found: dict[str, Any] = {}
    for info in model.graph.input:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            found[info.name] = np.asarray(rng.uniform(0.1, 1, shape), np.float32)
        elif info.type.tensor_type.elem_type == TensorProto.BOOL:
            found[info.name] = rng.random(shape) < 0.5
        else:
            found[info.name] = np.asarray(rng.integers(2, 7), np.int64)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", GRAPHS)
def test_what_onnx_runtime_computes_is_judged_and_right(name: str, seed: int) -> None:
    graph = OnnxGraph.load(parser.parse_model(HEAD + GRAPHS[name]))
    report = verify_graph(OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), feeds_of(name, seed))
    report.raise_on_failure()
    (item,) = report.inputs
    assert {row.verdict for row in [*item.nodes, *item.outputs]} == {"pass"}
    shown = {name for node in graph.nodes for name in node.outputs if name not in graph.within}
    assert shown <= {row.name for row in item.nodes}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_wrong_result_is_named(name: str) -> None:
    graph = OnnxGraph.load(parser.parse_model(HEAD + GRAPHS[name]))
    candidate = OnnxRuntimeGraph(graph, RuntimeOptions(threads=1))
    feeds = feeds_of(name, 0)
    tensors = candidate.capture(feeds)
    made = [node.outputs[0] for node in graph.nodes if node.op_type in LOOKED_AT]
    wrong = next(name for name in made if name in tensors)
    tensors[wrong] = tensors[wrong] * np.float32(1 + 1e-4)
    rows = judge_nodes(graph, feeds, tensors, candidate.declaration)
    assert next(row.name for row in rows if row.verdict == "fail") == wrong


def test_a_subgraph_that_refers_to_a_missing_outer_name_is_named() -> None:
    model = parser.parse_model(HEAD + GRAPHS["If"].replace("a = Exp(t)", "a = Exp(nowhere)"))
    with pytest.raises(FileError, match=r"nowhere.*which no node before it makes"):
        OnnxGraph.load(model)


def test_a_body_that_never_runs_leaves_the_state() -> None:
    graph = OnnxGraph.load(parser.parse_model(HEAD + GRAPHS["nested"]))
    x = np.ones(3, np.float32)
    tensors = evaluate(graph, {"x": x, "count": np.asarray(0, np.int64)})
    np.testing.assert_array_equal(tensors["y"], x)


def test_a_loop_whose_errors_may_grow_beyond_its_numbers_is_not_judged() -> None:
    graph = OnnxGraph.load(parser.parse_model(HEAD + GRAPHS["Loop"].replace("3, 3", "16, 16")))
    x = np.random.default_rng(0).standard_normal((16, 16), np.float32)
    feeds = {"x": x, "count": np.asarray(60, np.int64)}
    report = verify_graph(OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), feeds)
    verdicts = {row.name: row.verdict for row in report.inputs[0].nodes}
    assert verdicts["y"] == "not judged"


def test_operands_that_do_not_fit_within_a_branch_are_named() -> None:
    graph = OnnxGraph.load(parser.parse_model(HEAD + FAILING))
    feeds = {"x": np.ones(3, np.float32), "far": np.array([9])}
    with pytest.raises(ShapeError, match="Gather"):
        verify_graph(OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), feeds)


FAILING = """
    fails (float[3] x, int64[1] far) => (float[1] y)
    {
        zero = Constant <value = int64[1] {0}> ()
        beyond = Greater (far, zero)
        y = If (beyond) <
            then_branch = some () => (float[1] a) { a = Gather (x, far) },
            else_branch = none () => (float[1] b) { b = Gather (x, zero) }
        >
    }"""

BRANCHES = """
    choices (float[6] x, float[1] level) => (float[6] y)
    {
        zero = Constant <value = float[1] {0.0}> ()
        high = Greater (level, zero)
        t = Tanh (x)
        y = If (high) <
            then_branch = outer () => (float[6] a)
            {
                s = Exp (t)
                total = ReduceSum <keepdims = 1> (x)
                rising = Greater (total, level)
                r = If (rising) <
                    then_branch = inner () => (float[6] b) { d = Sin (s)  b = Mul (d, t) },
                    else_branch = other () => (float[6] c) { c = Neg (s) }
                >
                a = Add (r, x)
            },
            else_branch = low () => (float[6] e) { e = Identity (t) }
        >
    }"""


def branching() -> tuple[Any, dict[str, Array]]:
    """Branches within branches, and inputs that take them."""
    graph = OnnxGraph.load(parser.parse_model(HEAD + BRANCHES))
    feeds = {"x": np.linspace(0.5, 2, 6, dtype=np.float32), "level": np.ones(1, np.float32)}
    return OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), feeds


def test_what_is_within_branches_is_judged_node_by_node() -> None:
    candidate, feeds = branching()
    report = verify_graph(candidate, feeds)
    report.raise_on_failure()
    rows = {row.name: row for row in report.inputs[0].nodes}
    assert {row.verdict for row in rows.values()} == {"pass"}
    assert {row.operation for row in rows.values()} >= {"Exp", "Sin", "Mul", "Add"}
    assert "If" not in {row.operation for row in rows.values()}


def test_a_wrong_node_within_a_branch_is_named() -> None:
    whole, feeds = branching()
    candidate = with_branches_shown(whole, feeds)
    tensors = candidate.capture(feeds)
    wrong = next(name for name in tensors if name.endswith("/d"))
    tensors[wrong] = tensors[wrong] * np.float32(1 + 1e-5)
    rows = judge_nodes(candidate.graph, feeds, tensors, whole.declaration)
    assert next(row.name for row in rows if row.verdict == "fail") == wrong


@pytest.mark.parametrize("level", [1.0, -1.0, 100.0])
def test_branches_that_other_inputs_do_not_take_raise_no_alarm(level: float) -> None:
    candidate, feeds = branching()
    verify_graph(candidate, {**feeds, "level": np.full(1, level, np.float32)}).raise_on_failure()
