"""Mistakes computed by PyTorch and SciPy, not by the catalogue, are recognised by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
from onnx import TensorProto, helper, numpy_helper

from conformance.bounds import Declaration
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.diagnosis import diagnose_node
from conformance.judge.nodes import judge_nodes
from conformance.reports.report import Diagnosis
from refimpl.ops.operation import Array

X = np.random.default_rng(0).standard_normal((1, 4, 6, 10)).astype(np.float32)


def diagnosed(
    operator: str, wrong: Array, constants: Mapping[str, Array], x: Array = X, **attributes: Any
) -> list[Diagnosis]:
    """Judge a runtime that computes ``wrong`` for a model of one node, and return the diagnoses."""
    inputs = ["x", *constants]
    node = helper.make_node(operator, inputs, ["y"], name="node", **attributes)
    graph = helper.make_graph(
        [node],
        "one node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items() if name],
    )
    model = OnnxGraph.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    known = {"x": x, "y": wrong.astype(np.float32)}
    (row,) = judge_nodes(model, {"x": x}, {"y": known["y"]}, Declaration())
    assert row.verdict == "fail"
    return diagnose_node(model, known, row, Declaration()).diagnoses


def first(diagnoses: list[Diagnosis]) -> tuple[str, str]:
    return (diagnoses[0].fault, diagnoses[0].detail) if diagnoses else ("", "")


def test_softmax_over_another_axis() -> None:
    wrong = scipy.special.softmax(X.astype(np.float64), axis=2)
    assert first(diagnosed("Softmax", wrong, {}, axis=-1)) == (
        "attention/softmax over the wrong axis",
        "axis 2",
    )


def test_a_true_convolution() -> None:
    weight = np.random.default_rng(1).standard_normal((1, 4, 3, 3)).astype(np.float32)
    planes = [
        scipy.ndimage.convolve(X[0, c].astype(np.float64), weight[0, c], mode="constant") for c in range(4)
    ]
    wrong = np.sum(planes, axis=0)[None, None]
    named = diagnosed("Conv", wrong, {"w": weight}, pads=[1, 1, 1, 1])
    assert first(named) == ("convolution/kernel flipped", "both axes")


def test_weights_in_float16() -> None:
    weight = np.random.default_rng(2).standard_normal((10, 7)).astype(np.float32)
    wrong = X.astype(np.float64) @ weight.astype(np.float16).astype(np.float64)
    assert first(diagnosed("MatMul", wrong, {"w": weight})) == ("weights/float16", "rounded")


def test_a_result_stored_in_float16() -> None:
    weight = np.random.default_rng(2).standard_normal((10, 7)).astype(np.float32)
    wrong = (X @ weight).astype(np.float16)
    assert "quantization/float16 storage" in [d.fault for d in diagnosed("MatMul", wrong, {"w": weight})]


def test_what_no_mistake_explains_is_not_named() -> None:
    wrong = np.random.default_rng(3).standard_normal(X.shape)
    assert diagnosed("Softmax", wrong, {}, axis=-1) == []
    assert diagnosed("Relu", wrong, {}) == []


def _resize(torch: Any, x: Any) -> Any:
    return torch.nn.functional.interpolate(x, (9, 15), mode="bilinear", align_corners=True)


def _nearest(torch: Any, x: Any) -> Any:
    return torch.nn.functional.interpolate(x, (9, 15), mode="nearest")


def _antialiased(torch: Any, x: Any) -> Any:
    return torch.nn.functional.interpolate(x, (3, 5), mode="bilinear", antialias=True)


def _batch(torch: Any, x: Any) -> Any:
    return torch.nn.functional.batch_norm(x, None, None, torch.ones(4), torch.zeros(4), training=True)


def _batch_epsilon(torch: Any, x: Any) -> Any:
    return torch.nn.functional.batch_norm(x, torch.zeros(4), torch.ones(4), eps=1e-3)


def _layer_epsilon(torch: Any, x: Any) -> Any:
    return torch.nn.functional.layer_norm(x, (10,), torch.ones(10), torch.zeros(10), eps=1e-3)


def _unbiased(torch: Any, x: Any) -> Any:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def _counted(torch: Any, x: Any) -> Any:
    return torch.nn.functional.avg_pool2d(x, 3, 1, 1)


def _average(torch: Any, x: Any) -> Any:
    return torch.nn.functional.avg_pool2d(x, 2)


def _gelu(torch: Any, x: Any) -> Any:
    return torch.nn.functional.gelu(x, approximate="tanh")


def _sigmoid(torch: Any, x: Any) -> Any:
    return torch.nn.functional.hardsigmoid(x)


def _relu6(torch: Any, x: Any) -> Any:
    return torch.nn.functional.relu6(x)


def _leaky(torch: Any, x: Any) -> Any:
    return torch.nn.functional.leaky_relu(x)


_SIZES = np.asarray([1, 4, 9, 15])
_LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
_NORM = {name: np.full(4, value, np.float32) for name, value in (("s", 1), ("b", 0), ("m", 0), ("v", 1))}
_LAYER = {"s": np.ones(10, np.float32), "b": np.zeros(10, np.float32)}
_POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}

MISTAKES: list[tuple[str, Callable[[Any, Any], Any], str, dict[str, Array], dict[str, Any]]] = [
    ("resize/corners aligned", _resize, "Resize", {"sizes": _SIZES}, _LINEAR),
    ("resize/nearest instead of bilinear", _nearest, "Resize", {"sizes": _SIZES}, _LINEAR),
    ("resize/antialiased", _antialiased, "Resize", {"sizes": np.asarray([1, 4, 3, 5])}, _LINEAR),
    ("normalization/statistics of the batch", _batch, "BatchNormalization", _NORM, {}),
    ("normalization/batch norm epsilon", _batch_epsilon, "BatchNormalization", _NORM, {}),
    ("normalization/layer norm epsilon", _layer_epsilon, "LayerNormalization", _LAYER, {}),
    ("normalization/unbiased variance", _unbiased, "LayerNormalization", _LAYER, {}),
    ("pooling/padding counted", _counted, "AveragePool", {}, _POOL),
    (
        "pooling/average instead of maximum",
        _average,
        "MaxPool",
        {},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    ("activation/GELU by tanh", _gelu, "Gelu", {}, {}),
    ("activation/hard sigmoid instead of sigmoid", _sigmoid, "Sigmoid", {}, {}),
    ("activation/ReLU6 instead of ReLU", _relu6, "Relu", {}, {}),
    ("activation/leaky ReLU", _leaky, "Relu", {}, {}),
]


@pytest.mark.runtimes
@pytest.mark.parametrize(("fault", "wrong", "operator", "constants", "attributes"), MISTAKES)
def test_mistakes_computed_by_pytorch(
    fault: str,
    wrong: Callable[[Any, Any], Any],
    operator: str,
    constants: dict[str, Array],
    attributes: dict[str, Any],
) -> None:
    torch = pytest.importorskip("torch")
    x = 5 * X
    made = wrong(torch, torch.from_numpy(x)).numpy()
    if operator == "Resize":
        constants = {
            "roi": np.zeros(0, np.float32),
            "scales": np.zeros(0, np.float32),
            "sizes": constants["sizes"],
        }
    assert first(diagnosed(operator, made, constants, x, **attributes))[0] == fault
