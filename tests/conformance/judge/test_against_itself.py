"""A graph beside itself: both are computed in float64, whatever formats it goes through, and are the same."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser

from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge import step_course
from conformance.judge.against import verify_against

CODES = {"float": 1, "int32": 6, "int64": 7, "float16": 10, "double": 11}
RNG = np.random.default_rng(3)
CONV = (RNG.standard_normal((4, 4, 3, 3)) / 6).astype(np.float16)


def graph(body: str, kind: str = "float", made: str = "float") -> OnnxGraph:
    head = f'<ir_version: 8, opset_import: ["" : 17]> graph ({kind}[1, 4, 8, 8] x) => ({made}[1, 4, 8, 8] y)'
    model = parser.parse_model(head + body)
    used = {name for node in model.graph.node for name in node.input}
    for name, array in (("w", CONV), ("f", CONV.astype(np.float32))):
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    return OnnxGraph.load(model)


def cast(to: str) -> str:
    return f"Cast<to = {CODES[to]}>"


@pytest.mark.parametrize(
    ("body", "kind", "made"),
    [
        (f"{{ a = Relu(x) y = {cast('float16')}(a) }}", "float", "float16"),
        (f"{{ a = {cast('float16')}(x) b = Exp(a) y = {cast('float')}(b) }}", "float", "float"),
        (f"{{ a = {cast('double')}(x) b = Exp(a) y = {cast('float')}(b) }}", "float", "float"),
        (
            f"{{ a = {cast('float16')}(x) b = Conv<pads = [1, 1, 1, 1]>(a, w) "
            f"c = Softmax(b) y = {cast('float')}(c) }}",
            "float",
            "float",
        ),
        (f"{{ a = Neg(x) y = {cast('float')}(a) }}", "int64", "float"),
        (f"{{ a = Exp(x) y = {cast('int32')}(a) }}", "float", "int32"),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 2.0**30])
def test_it_means_the_same(body: str, kind: str, made: str, scale: float) -> None:
    """Among them numbers that float32 does not hold, that int32 does not, and that float16 makes infinite."""
    given = graph(body, kind, made)
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)) * scale
    feeds = {"x": (x * 2**20 if kind == "int64" else x).astype(np.int64 if kind == "int64" else np.float32)}
    report = verify_against(given, given, {"input": feeds})
    assert report.verdict == "pass", report.headline()
    assert not report.inputs[0].problems


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (
            "v, i = TopK<axis = -1>(x, k)",
            "v, i = TopK<axis = -1, largest = 0>(x, k)",
            "largest is 0; the reference has 1",
        ),
        ("v = LogSoftmax<axis = -2>(x)", "v = LogSoftmax<axis = -1>(x)", "axis is 1; the reference has 0"),
        (
            "v = LayerNormalization<axis = -1>(x, s)",
            "v = LayerNormalization<axis = -1, epsilon = 0.01>(x, s)",
            "epsilon is 0.01; the reference has 1e-05",
        ),
    ],
)
def test_what_else_a_node_counts_from_the_end_is_not_what_differs(right: str, wrong: str, said: str) -> None:
    """The first node is fed the graph's input."""

    def made(body: str) -> OnnxGraph:
        model = parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : 17]> graph (float[3, 9] x) => (float[N, M] v) {{ {body} }}'
        )
        used = {name for node in model.graph.node for name in node.input}
        constants = {"k": np.array([4]), "s": np.linspace(0.5, 1.5, 9, dtype=np.float32)}
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in constants.items() if name in used
        )
        return OnnxGraph.load(model)

    x = np.random.default_rng(5).standard_normal((3, 9)).astype(np.float32)
    report = verify_against(made(wrong), made(right), {"input": {"x": x}})
    assert report.verdict == "fail"
    (read,) = (each for each in report.inputs[0].evidence if "the reference has" in each)
    assert said in read


def test_of_tensors_that_are_alike_the_one_of_the_name_is_taken() -> None:
    """A mean of one number is that number: its node is no node more than the reference has."""

    def made(factor: float) -> OnnxGraph:
        model = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> graph (float[1, 4, 1, 1] x) => (float[1, 4, 1, 1] y) '
            "{ a = Exp(x) b = GlobalAveragePool(a) y = Mul(b, f) }"
        )
        model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "f"))
        return OnnxGraph.load(model)

    x = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 4, 1, 1)
    report = verify_against(made(1.5), made(1.25), {"input": {"x": x}})
    assert report.inputs[0].first_fault is not None
    assert report.inputs[0].first_fault.candidate_nodes == ("y/Mul",)
    assert not any("more than the reference" in said for said in report.inputs[0].evidence)


def test_an_operand_that_was_only_moved_is_no_layer_left_out() -> None:
    """The candidate holds what is cut out, as it should: that is no result of a step handed on."""

    def made(epsilon: float) -> OnnxGraph:
        model = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> graph (float[1, 8, 8, 8] x) => (float[1, 4, 8, 8] z) {'
            "a = Exp(x) b = Slice(a, first, last, axis) "
            f"y = BatchNormalization<epsilon = {epsilon}>(b, s, m, m, s) z = Exp(y) }}"
        )
        constants = {"first": np.array([2]), "last": np.array([6]), "axis": np.array([1])}
        norm = {"s": np.linspace(0.5, 1.5, 4, dtype=np.float32), "m": np.linspace(-1, 1, 4, dtype=np.float32)}
        for name, array in {**constants, **norm}.items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        return OnnxGraph.load(model)

    x = np.random.default_rng(2).standard_normal((1, 8, 8, 8)).astype(np.float32)
    report = verify_against(made(0.01), made(0.001), {"input": {"x": x}})
    assert report.verdict == "fail"
    assert not any("missing" in each.fault for each in report.inputs[0].diagnoses)
    assert any("epsilon is 0.01; the reference has 0.001" in said for said in report.inputs[0].evidence)


def test_in_float64_no_fast_convolution_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those of half the output a wrong pad may look as uneven as tiles do."""
    monkeypatch.setattr(step_course, "winograd_explains", lambda *_: pytest.fail("Winograd is looked for"))
    right = graph("{ a = Relu(x) y = Conv<pads = [1, 1, 1, 1]>(a, f) }")
    wrong = graph("{ a = Relu(x) y = Conv<pads = [0, 0, 2, 2]>(a, f) }")
    x = np.random.default_rng(4).standard_normal((1, 4, 8, 8)).astype(np.float32)
    report = verify_against(wrong, right, {"input": {"x": x}})
    assert report.verdict == "fail"
    evidence = report.inputs[0].evidence
    assert any("pads is [0, 0, 2, 2]; the reference has [1, 1, 1, 1]" in said for said in evidence)
