"""A candidate that was computed once and stored is found out with a single input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from narrow_network import CONFIG, exported, network, picture, weights
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.candidates.plain import PythonCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.judge.movement import another
from conformance.judge.network import verify
from conformance.reports.report import Report
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")


def candidate_of(model: onnx.ModelProto) -> OnnxRuntimeCandidate:
    return OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)


def judged(candidate: Any, images: Array | None = None) -> Report:
    return verify(candidate, CONFIG, weights(), {"scene": picture() if images is None else images})


def stored(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Replace tensors by their values on this picture."""
    values = candidate_of(model).capture(picture())
    for node in model.graph.node:
        if node.output[0] in names:
            constant = numpy_helper.from_array(values[node.output[0]])
            node.CopyFrom(helper.make_node("Constant", [], [node.output[0]], name=node.name, value=constant))
    return model


def first_convolution(model: onnx.ModelProto) -> list[str]:
    return [next(node for node in model.graph.node if node.op_type == "Conv").output[0]]


def every_output(model: onnx.ModelProto) -> list[str]:
    return [output.name for output in model.graph.output]


def the_masks(model: onnx.ModelProto) -> list[str]:
    return ["masks"]


def one_level_of_the_backbone(model: onnx.ModelProto) -> list[str]:
    return [[node for node in model.graph.node if node.name.startswith("backbone.tpm.")][-1].output[0]]


@pytest.mark.parametrize("place", [first_convolution, every_output, the_masks, one_level_of_the_backbone])
def test_a_stored_result_fails(place: Callable[[onnx.ModelProto], list[str]]) -> None:
    model = exported()
    report = judged(candidate_of(stored(model, place(model))))
    assert report.verdict == "fail"
    assert "not change with the input, as it should" in report.headline()


def test_a_black_box_that_returns_its_first_result_fails() -> None:
    memory: list[dict[str, Array]] = []

    def cached(images: Array) -> dict[str, Array]:
        if not memory:
            memory.append({name: np.asarray(array) for name, array in network()(images).items()})
        return memory[0]

    report = judged(PythonCandidate(cached))
    assert report.verdict == "fail"
    assert "its output 'class_logits', 'objectness', 'kernels' and 3 more do not change" in report.headline()


def test_a_right_network_passes_on_a_picture_without_content() -> None:
    judged(candidate_of(exported()), np.zeros_like(picture())).raise_on_failure()


def graph(nodes: list[onnx.NodeProto], outputs: list[str]) -> OnnxGraph:
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "table")],
    )
    return OnnxGraph.load(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))


BY_DESIGN = graph(
    [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Exp", ["table"], ["z"])], ["y", "z"]
)
"""One output is a table: no input changes it."""
X = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}


def test_what_is_constant_by_design_passes_and_is_said() -> None:
    report = verify_graph(OnnxRuntimeGraph(BY_DESIGN), X)
    report.raise_on_failure()
    assert report.leading.remarks == ["no input reaches output z: it is the same whatever is given"]


def test_a_runtime_that_returns_its_first_result_fails() -> None:
    class Lazy(OnnxRuntimeGraph):
        memory: dict[bool, dict[str, Array]] = {}  # noqa: RUF012

        def _run(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: Any) -> dict[str, Array]:
            return self.memory.setdefault(len(model.graph.output) > 2, super()._run(model, feeds, options))

    report = verify_graph(Lazy(BY_DESIGN), X)
    assert report.verdict == "fail"
    assert "its output 'y' does not change with the input" in report.headline()


@pytest.mark.parametrize("share", [0.5, 5e-3, 1e-4])
def test_a_first_result_that_moves_little_fails(share: float) -> None:
    nodes = [helper.make_node("Mul", ["x", "share"], ["t"]), helper.make_node("Add", ["t", "one"], ["y"])]
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(value), name) for name, value in (("share", share), ("one", 1))],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])

    class Lazy(OnnxRuntimeGraph):
        memory: dict[int, dict[str, Array]] = {}  # noqa: RUF012

        def _run(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: Any) -> dict[str, Array]:
            made = super()._run(model, feeds, options)
            return {**made, **self.memory.setdefault(len(model.graph.output), {"y": made["y"]})}

    report = verify_graph(Lazy(OnnxGraph.load(model)), X)
    assert "does not change with the input" in report.headline()


@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(max_dims=4, max_side=5), elements=st.floats(-10, 10, width=32)
    )
)
def test_another_input_is_of_the_same_numbers_and_differs(x: Array) -> None:
    other = another({"x": x, "count": np.array(3)})
    assert other is not None
    assert (other["x"].shape, other["x"].dtype, other["count"]) == (x.shape, x.dtype, 3)
    assert not np.array_equal(other["x"], x)
    assert (x == x.flat[0]).all() or np.array_equal(np.sort(other["x"], axis=None), np.sort(x, axis=None))


def test_integers_stay_as_they_are() -> None:
    assert another({"index": np.arange(4)}) is None


def saturated(*nodes: tuple[str, list[str]]) -> OnnxGraph:
    """A graph whose result float32 cannot tell from that of another input."""
    names = ["x", *(f"t{place}" for place in range(len(nodes) - 1)), "y"]
    made = [
        helper.make_node(operator, [names[place], *others], [names[place + 1]])
        for place, (operator, others) in enumerate(nodes)
    ]
    constants = {"far": 1e3, "huge": 1e9, "tiny": 1e-12, "one": 1.0}
    graph = helper.make_graph(
        made,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    return OnnxGraph.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


SATURATED = {
    "absorbed by a sum": [("Add", ["huge"])],
    "sigmoid": [("Abs", []), ("Mul", ["one"]), ("Add", ["far"]), ("Sigmoid", [])],
    "cosine of next to nothing": [("Mul", ["tiny"]), ("Cos", [])],
    "exponential of next to nothing": [("Mul", ["tiny"]), ("Exp", [])],
    "product and sum": [("Mul", ["tiny"]), ("Add", ["one"])],
    "root": [("Mul", ["tiny"]), ("Add", ["one"]), ("Sqrt", [])],
    "sum and difference": [("Mul", ["tiny"]), ("Add", ["one"]), ("Sub", ["one"]), ("Div", ["tiny"])],
    "difference, then much else": [("Mul", ["tiny"]), ("Add", ["one"]), ("Sub", ["one"]), ("Tanh", [])],
    "logarithm of next to one": [("Mul", ["tiny"]), ("Add", ["one"]), ("Log", []), ("Mul", ["huge"])],
}


@pytest.mark.parametrize("case", SATURATED)
def test_what_moves_less_than_float32_tells_passes(case: str) -> None:
    report = verify_graph(OnnxRuntimeGraph(saturated(*SATURATED[case])), X)
    assert not any("not change with the input" in problem for problem in report.leading.problems)
    assert report.verdict == "pass"


def test_lengths_among_the_inputs_need_not_be_in_any_order() -> None:
    """ONNX Runtime resizes the last two axes only; of scales in another order it says that it does not."""
    text = """<ir_version: 8, opset_import: ["": 18]>
    g (float[1,2,4,6] x, float[4] scales) => (float[1,2,N,M] y)
    { y = Resize <mode = "linear"> (x, , scales) }"""
    feeds = {
        "x": np.random.default_rng(0).standard_normal((1, 2, 4, 6)).astype(np.float32),
        "scales": np.array([1, 1, 1.5, 0.5], np.float32),
    }
    report = verify_graph(OnnxRuntimeGraph(OnnxGraph.load(onnx.parser.parse_model(text))), feeds)
    report.raise_on_failure()
    assert any("not seen on another input" in remark for remark in report.leading.remarks)
