"""A runtime that makes a known mistake at one node of any graph: the node, and the mistake by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.special
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.pictures.graph_inputs import graph_inputs
from conformance.reports.html_report import html_report
from conformance.reports.report import Report
from refimpl.ops.operation import Array

Mistake = Callable[[Array], Array]


def model(operator: str, attributes: Mapping[str, Any], constants: Mapping[str, Array]) -> OnnxGraph:
    """Return a convolution, the operator, and another convolution."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((2, 4, 1, 1)).astype(np.float32),
        **constants,
    }
    operands = [name if array.size else "" for name, array in constants.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="before", pads=[1] * 4),
        helper.make_node(operator, ["a", *operands], ["b"], name="faulty", **attributes),
        helper.make_node("Conv", ["b", "v"], ["y"], name="after"),
    ]
    graph = helper.make_graph(
        nodes,
        "three nodes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 10))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items() if array.size],
    )
    return OnnxGraph.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


class MistakenRuntime(OnnxRuntimeGraph):
    """ONNX Runtime, but for the middle node, which a function computes."""

    def __init__(self, graph: OnnxGraph, mistake: Mistake) -> None:
        super().__init__(graph, RuntimeOptions(threads=1))
        self.mistake = mistake

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": self.capture(feeds)["y"]}

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        a = super().capture(feeds)["a"]
        b = self.mistake(a).astype(np.float32)
        extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(self.graph.model))
        after = OnnxGraph.load(extractor.extract_model(["b"], ["y"]))
        return {"a": a, "b": b, **OnnxRuntimeGraph(after, self.options).run({"b": b})}


def judged(
    operator: str, mistake: Mistake, attributes: Mapping[str, Any], constants: Mapping[str, Array]
) -> Report:
    graph = model(operator, attributes, constants)
    return verify_graph(MistakenRuntime(graph, mistake), graph_inputs(graph), name="runtime")


def test_a_softmax_over_another_axis_is_named_in_every_report() -> None:
    report = judged("Softmax", lambda x: scipy.special.softmax(x, axis=1), {"axis": -1}, {})
    (item,) = report.inputs
    assert item.first_fault is not None
    assert (item.first_fault.step, item.first_fault.question) == ("b", "graph")
    assert item.diagnoses[0].call == "faulty"
    named = "attention/softmax over the wrong axis, axis 1"
    assert report.headline().endswith(f"at b (Softmax) on {item.name}: {named}")
    assert json.loads(json.dumps(report.to_json()))["diagnoses"][0]["detail"] == "axis 1"
    assert "softmax over the wrong axis" in html_report(report)


def test_a_hard_sigmoid_of_the_default_slope() -> None:
    """The runtime ignores the attribute: Keras' hard sigmoid is clip(0.2 x + 0.5, 0, 1)."""
    report = judged("HardSigmoid", lambda x: np.clip(0.2 * x + 0.5, 0, 1), {"alpha": 1 / 6}, {})
    assert report.leading.diagnoses[0].fault == "activation/hard sigmoid of slope 0.2"


def test_a_runtime_that_is_right_has_no_diagnosis() -> None:
    report = judged("Softmax", lambda x: scipy.special.softmax(x, axis=-1), {"axis": -1}, {})
    assert (report.verdict, report.inputs[0].diagnoses) == ("pass", [])


def test_what_no_mistake_explains_is_located_only() -> None:
    report = judged("Relu", lambda x: np.random.default_rng(1).standard_normal(x.shape), {}, {})
    (item,) = report.inputs
    assert item.first_fault is not None
    assert (item.first_fault.step, item.diagnoses) == ("b", [])


def by_pytorch(function: str, **options: Any) -> Mistake:
    """Return a function of ``torch.nn.functional`` as one of arrays."""

    def compute(x: Array) -> Array:
        torch = pytest.importorskip("torch")
        computed: Array = getattr(torch.nn.functional, function)(torch.from_numpy(x), **options).numpy()
        return computed

    return compute


LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
SIZES = {
    "roi": np.zeros(0, np.float32),
    "scales": np.zeros(0, np.float32),
    "sizes": np.asarray([1, 4, 9, 15]),
}
POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
ALIGNED = {"size": (9, 15), "mode": "bilinear", "align_corners": True}
POOLED = {"kernel_size": 3, "stride": 1, "padding": 1}

MISTAKES = [
    ("resize/corners aligned", by_pytorch("interpolate", **ALIGNED), "Resize", LINEAR, SIZES),
    ("pooling/padding counted", by_pytorch("avg_pool2d", **POOLED), "AveragePool", POOL, {}),
    ("activation/GELU by tanh", by_pytorch("gelu", approximate="tanh"), "Gelu", {}, {}),
    ("activation/leaky ReLU", by_pytorch("leaky_relu"), "Relu", {}, {}),
]


@pytest.mark.runtimes
@pytest.mark.parametrize(("fault", "mistake", "operator", "attributes", "constants"), MISTAKES)
def test_mistakes_computed_by_pytorch(
    fault: str, mistake: Mistake, operator: str, attributes: dict[str, Any], constants: dict[str, Array]
) -> None:
    item = judged(operator, mistake, attributes, constants).leading
    assert item.first_fault is not None
    assert item.first_fault.step == "b"
    assert item.diagnoses[0].fault.startswith(fault), item.diagnoses


class OneOff(OnnxRuntimeGraph):
    """ONNX Runtime, but for its last output, which is off by a tenth."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._off(super().run(feeds))

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._off(super().capture(feeds))

    def _off(self, tensors: dict[str, Array]) -> dict[str, Array]:
        return tensors | {name: tensors[name] * np.float32(1.1) for name in self.graph.outputs}


def test_a_node_that_leaves_out_outputs_before_the_wrong_one_is_named() -> None:
    node = helper.make_node("LSTM", ["s", "w", "r"], ["", "", "cell"], name="cells", hidden_size=16)
    rng = np.random.default_rng(0)
    shapes = {"s": (4, 1, 2), "w": (1, 64, 2), "r": (1, 64, 16)}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    graph = helper.make_graph(
        [node],
        "one of three",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("cell", TensorProto.FLOAT, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    report = verify_graph(OneOff(OnnxGraph.load(made)), feeds)
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == "cell"
    assert any("1.1 ×" in said for said in report.leading.evidence)
