"""A limit that no number of an input reaches: read in the candidate's nodes, or said not to be seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from narrow_network import CONFIG, picture, weights
from onnx import numpy_helper, parser

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.plain import NumpyCandidate
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.against import verify_against
from conformance.judge.network import verify
from conformance.judge.unreached import unreached
from conformance.reports.report import Report
from refimpl import MobileInst, record
from refimpl.ops.operation import Array

HEAD = '<ir_version: 8, opset_import: ["" : 17]> graph (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y)'
RIGHT = "{ c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Clip(c, zero, six) y = Mul(r, two) }"
INPUT = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
W = (np.random.default_rng(1).standard_normal((4, 3, 3, 3)) / 5).astype(np.float32)
NUMBERS = {"zero": 0.0, "five": 5.0, "six": 6.0, "seven": 7.0, "two": 2.0, "none": np.finfo(np.float32).max}


def graph(body: str) -> OnnxGraph:
    """Return the graph of a text, whose constants are in `NUMBERS`."""
    model = parser.parse_model(HEAD + body)
    used = {name for node in model.graph.node for name in node.input}
    for name, number in NUMBERS.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.float32(number), name))
    model.graph.initializer.append(numpy_helper.from_array(W, "w"))
    return OnnxGraph.load(model)


def judged(body: str, scale: float = 1.0) -> Report:
    """Return the verdict on a graph against the right one, on numbers of which none reaches 5."""
    return verify_against(graph(body), graph(RIGHT), {"input": {"x": INPUT * np.float32(scale)}})


def test_no_number_reaches_five() -> None:
    """What follows would show nothing otherwise."""
    recording = graph_recording(graph(RIGHT), {"x": INPUT})
    assert recording.tensors["c"].max() < 5
    assert recording.tensors["c"].min() < 0
    assert unreached(recording) == {"r": (False, True)}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (RIGHT.replace("six", "five"), "max is 5 at its"),
        (RIGHT.replace("six", "seven"), "max is 7 at its"),
        (RIGHT.replace("Clip(c, zero, six)", "Relu(c)"), "max is absent at its"),
        (RIGHT.replace("Clip(c, zero, six)", "Clip(c, zero)"), "max is absent at its"),
        (RIGHT.replace("Clip(c, zero, six)", "Clip(c, zero, none)"), "max is absent at its"),
        (RIGHT.replace("r = Clip(c, zero, six)", "q = Relu(c) r = Min(seven, q)"), "max is 7 at its"),
        (
            RIGHT.replace("r = Clip(c, zero, six)", "q = Clip(c, zero, five) r = Clip(q, zero, six)"),
            "max is 5",
        ),
    ],
)
def test_another_limit_is_read(body: str, said: str) -> None:
    report = judged(body)
    assert report.verdict == "fail"
    (problem,) = report.inputs[0].problems
    assert said in problem
    assert "the reference has 6 at r, which no number of this input reaches" in problem
    fault = report.inputs[0].first_fault
    assert fault is not None
    assert (fault.step, fault.operation) == ("r", "Clip")


@pytest.mark.parametrize(
    "body",
    [
        RIGHT,
        RIGHT.replace("r = Clip(c, zero, six)", "q = Relu(c) r = Min(q, six)"),
        RIGHT.replace("r = Clip(c, zero, six)", "q = Relu(c) p = Identity(q) r = Min(six, p)"),
        RIGHT.replace("r = Clip(c, zero, six)", "q = Min(c, six) r = Relu(q)"),
        RIGHT.replace("r = Clip(c, zero, six)", "q = Clip(c, zero, six) r = Identity(q)"),
        RIGHT.replace("c = Conv", "b = Conv").replace(
            "r = Clip(c, zero, six)", "q = Clip(b, zero, six) t = Transpose(q) r = Transpose(t)"
        ),
        RIGHT.replace("r = Clip(c, zero, six)", "q = Max(c, zero) r = Clip(q, zero, six)"),
        RIGHT.replace("r = Clip(c, zero, six)", "q = Clip(c, zero, seven) r = Clip(q, zero, six)"),
    ],
)
def test_the_same_limit_otherwise_written_passes_silently(body: str) -> None:
    report = judged(body)
    assert report.verdict == "pass"
    assert not report.inputs[0].remarks


SLOPED = "{ c = Conv<pads = [1, 1, 1, 1]>(x, w) q = Mul(c, c) r = LeakyRelu<alpha = 0.1>(q) y = Mul(r, two) }"


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("LeakyRelu<alpha = 0.1>(q)", "LeakyRelu<alpha = 0.2>(q)", "alpha is 0.2 at its"),
        ("LeakyRelu(q)", "LeakyRelu<alpha = 0.02>(q)", "alpha is 0.02 at its"),
        ("Elu<alpha = 1.5>(q)", "Elu(q)", "alpha is 1 at its"),
        ("Celu<alpha = 1.5>(q)", "Celu<alpha = 3.0>(q)", "alpha is 3 at its"),
    ],
)
def test_a_slope_below_zero_where_nothing_is(right: str, wrong: str, said: str) -> None:
    """Squares are never below zero: whatever is made of such numbers, none shows it."""
    sides = [graph(SLOPED.replace("LeakyRelu<alpha = 0.1>(q)", body)) for body in (wrong, right)]
    report = verify_against(*sides, {"input": {"x": INPUT}})
    assert report.verdict == "fail"
    (problem,) = report.inputs[0].problems
    assert said in problem
    same = verify_against(sides[1], sides[1], {"input": {"x": INPUT}})
    assert same.verdict == "pass"
    assert not same.inputs[0].remarks


def test_a_slope_that_is_a_weight_is_told_of() -> None:
    bodies = [SLOPED.replace("LeakyRelu<alpha = 0.1>(q)", f"PRelu(q, {slope})") for slope in ("six", "five")]
    report = verify_against(*map(graph, bodies), {"input": {"x": INPUT}})
    assert report.inputs[0].remarks == [
        "what this input does not reach was not seen, so that a wrong one passes: min of r"
    ]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("q = Exp(c) r = Clip(q, zero, six)", "q = Exp(c) r = Min(q, six)"),
        ("q = Sigmoid(c) r = Clip(q, zero, six)", "q = Sigmoid(c) r = Relu(q)"),
        ("q = Relu(c) r = LeakyRelu<alpha = 0.1>(q)", "q = Relu(c) r = LeakyRelu<alpha = 0.3>(q)"),
        ("q = Tanh(c) r = Clip(q, , two)", "q = Tanh(c) r = Clip(q, , six)"),
    ],
)
def test_a_limit_that_no_input_can_reach_is_none(right: str, wrong: str) -> None:
    sides = [graph(RIGHT.replace("r = Clip(c, zero, six)", body)) for body in (wrong, right)]
    report = verify_against(*sides, {"input": {"x": INPUT / 4}})
    assert report.verdict == "pass"
    assert not any("max" in each or "slope" in each for each in report.inputs[0].problems)


@pytest.mark.parametrize(
    "written",
    [
        "a = Relu(c) b = Sub(c, six) d = Relu(b) r = Sub(a, d)",
        "a = Relu(c) g = Greater(a, six) r = Where(g, six, a)",
        "a = Relu(c) k = Sub(a, a) b = Min(a, six) r = Add(b, k)",
    ],
)
def test_what_is_written_in_another_way_is_not_called_wrong(written: str) -> None:
    """The tensor before its upper limit has the same numbers, and is taken for what is behind it."""
    report = judged(RIGHT.replace("r = Clip(c, zero, six)", written))
    assert report.verdict == "pass"
    assert report.inputs[0].remarks == [
        "what this input does not reach was not seen, so that a wrong one passes: max of r"
    ]


def test_a_limit_that_is_reached_is_judged_by_its_numbers() -> None:
    report = judged(RIGHT.replace("six", "seven"), scale=4.0)
    assert report.verdict == "fail"
    assert not report.inputs[0].problems


def test_a_limit_that_one_of_several_inputs_reaches_was_seen() -> None:
    other = RIGHT.replace("r = Clip(c, zero, six)", "a = Relu(c) k = Sub(a, a) b = Min(a, six) r = Add(b, k)")
    inputs: dict[str, Mapping[str, Array]] = {"small": {"x": INPUT}}
    assert "max of r" in verify_against(graph(other), graph(RIGHT), inputs).inputs[0].remarks[0]
    inputs["large"] = {"x": INPUT * np.float32(4)}
    report = verify_against(graph(other), graph(RIGHT), inputs)
    assert report.verdict == "pass"
    assert not any(item.remarks for item in report.inputs)


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=8),
    st.floats(-4, 4, width=32),
    st.floats(-4, 4, width=32),
)
def test_a_limit_is_reached_exactly_if_it_changes_a_number(
    numbers: list[float], one: float, other: float
) -> None:
    low, high = np.float32(min(one, other)), np.float32(max(one, other))
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> graph (float[N] x) => (float[N] y) { y = Clip(x, a, b) }'
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in (("a", low), ("b", high))
    )
    x = np.asarray(numbers, np.float32)
    found = unreached(graph_recording(OnnxGraph.load(model), {"x": x})).get("y", (False, False))
    assert found == (np.array_equal(np.maximum(x, low), x), np.array_equal(np.minimum(x, high), x))


def test_a_constants_limit_is_nobodys() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> graph (float[2] x) => (float[2] y) '
        "{ a = Constant<value = float[2] {1, 2}>() b = Relu(a) y = Add(x, b) }"
    )
    assert not unreached(graph_recording(OnnxGraph.load(model), {"x": np.zeros(2, np.float32)}))


def _with_limit(model: onnx.ModelProto, step: str, limit: float) -> OnnxGraph:
    (node,) = (node for node in model.graph.node if step in node.output)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(limit), "another"))
    node.input[2] = "another"
    return OnnxGraph.load(model)


def test_in_the_network() -> None:
    network = MobileInst(CONFIG, weights())
    idle = unreached(record(MobileInst(CONFIG, weights().astype(np.float64)), picture().astype(np.float64)))
    step = next(name for name, which in idle.items() if name.endswith("Clip") and which[1])
    right = verify(
        OnnxRuntimeCandidate(OnnxGraph.load(export(network, picture()))), CONFIG, weights(), {"a": picture()}
    )
    assert right.verdict == "pass"
    assert not any("not reach" in remark for remark in right.inputs[0].remarks)
    wrong = _with_limit(export(network, picture()), step, 5.5)
    report = verify(OnnxRuntimeCandidate(wrong), CONFIG, weights(), {"a": picture()})
    assert report.verdict == "fail"
    assert report.inputs[0].first_fault is not None
    assert report.inputs[0].first_fault.step == step
    assert "max is 5.5" in report.inputs[0].problems[0]


def test_what_shows_no_nodes_is_told_of() -> None:
    report = verify(NumpyCandidate(CONFIG, weights()), CONFIG, weights(), {"a": picture()})
    assert report.verdict == "pass"
    assert any("what this input does not reach was not seen" in remark for remark in report.inputs[0].remarks)
