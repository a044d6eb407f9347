"""Mistakes of which the catalogue knows nothing are described: it is emptied; SciPy and NumPy make them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.special
from onnx import TensorProto, helper, numpy_helper

from conformance.bounds import Declaration
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.faults import CATALOGUE
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.diagnosis import Explanation, diagnose_node
from conformance.judge.network import verify
from conformance.judge.nodes import judge_nodes
from conformance.reports.report import InputReport
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

X = np.random.default_rng(0).standard_normal((1, 4, 6, 10)).astype(np.float32)
PRESET, FIELDS, SIZE = "topformer-tiny", {"dim": 32, "num_queries": 7, "num_classes": 5}, (96, 160)


@pytest.fixture(autouse=True)
def _no_catalogue() -> Iterator[None]:
    kept = dict(CATALOGUE)
    CATALOGUE.clear()
    yield
    CATALOGUE.update(kept)


def explained(operator: str, wrong: Array, constants: Mapping[str, Array], **attributes: Any) -> Explanation:
    """Judge a runtime that computes ``wrong`` for a model of one node."""
    node = helper.make_node(operator, ["x", *constants], ["y"], name="node", **attributes)
    graph = helper.make_graph(
        [node],
        "one node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items() if name],
    )
    model = OnnxGraph.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    known = {"x": X, "y": wrong.astype(np.float32)}
    (row,) = judge_nodes(model, {"x": X}, {"y": known["y"]}, Declaration())
    assert row.verdict == "fail"
    return diagnose_node(model, known, row, Declaration())


WIDE = X.astype(np.float64)
SCALES = np.asarray([1, 1, 1.5, 1.5], np.float32)


@pytest.mark.parametrize(
    ("operator", "wrong", "constants", "attributes", "said"),
    [
        ("Relu", np.tanh(WIDE), {}, {}, "Tanh instead of Relu"),
        ("Sigmoid", scipy.special.erf(WIDE / np.sqrt(2)) * WIDE / 2 + WIDE / 2, {}, {}, "Gelu instead of"),
        ("HardSigmoid", np.clip(0.2 * WIDE + 0.5, 0, 1), {}, {"alpha": 1 / 6}, "alpha 0.2 instead of"),
        ("Softmax", scipy.special.softmax(WIDE, 1), {}, {"axis": -1}, "axis 1 instead of 3"),
        ("Relu", WIDE, {}, {}, "Relu left out"),
        ("Tanh", np.tanh(np.tanh(WIDE)), {}, {}, "Tanh twice"),
        ("Relu", np.maximum(WIDE, 0)[..., ::-1], {}, {}, "axis 3 reversed"),
        ("Add", WIDE * SCALES[:, None, None], {"b": SCALES[:, None, None]}, {}, "Mul instead of Add"),
    ],
)
def test_an_operation_is_described(
    operator: str, wrong: Array, constants: Mapping[str, Array], attributes: dict[str, Any], said: str
) -> None:
    found = explained(operator, wrong, constants, **attributes)
    assert any(said in diagnosis.detail for diagnosis in found.diagnoses), found
    assert all(diagnosis.source == "" for diagnosis in found.diagnoses)


def test_what_nothing_explains_is_not_explained() -> None:
    for seed in range(1, 4):
        wrong = np.random.default_rng(seed).standard_normal(X.shape)
        assert explained("Relu", wrong, {}).diagnoses == []


# --- in a network whose names are kept, with its own graph ----------------------------------------

Change = Callable[[onnx.ModelProto], None]


def _node(model: onnx.ModelProto, op_type: str, place: int) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == op_type][place]


def _constant(model: onnx.ModelProto, name: str, change: Callable[[Array], Array]) -> None:
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    array = np.ascontiguousarray(change(numpy_helper.to_array(tensor).copy())).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def _dilated(model: onnx.ModelProto) -> None:
    node = next(
        node
        for node in model.graph.node
        if node.op_type == "Conv" and helper.get_node_attr_value(node, "kernel_shape") == [5, 5]
    )
    for attribute in [each for each in node.attribute if each.name in ("dilations", "pads")]:
        node.attribute.remove(attribute)
    node.attribute.extend(
        [helper.make_attribute("dilations", [2, 2]), helper.make_attribute("pads", [4] * 4)]
    )


def _extra(model: onnx.ModelProto) -> None:
    place, node = next((i, each) for i, each in enumerate(model.graph.node) if each.op_type == "Softmax")
    extra = helper.make_node("Clip", [node.input[0], "", "ceiling"], ["clipped"], name="extra")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.05), "ceiling"))
    node.input[0] = "clipped"
    model.graph.node.insert(place, extra)


def _other_picture(model: onnx.ModelProto) -> None:
    node = _node(model, "Conv", 0)
    node.input[0] = "fed"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.node.insert(0, helper.make_node("Mul", ["images", "half"], ["fed"], name="half"))


WEIGHT = "backbone.tpm.layer2.conv.2.c.weight"
CHANGES: dict[str, tuple[Change, str]] = {
    "dilation": (_dilated, "dilations is [2, 2]; the reference has absent"),
    "extra node": (_extra, "the candidate has Clip more than the reference there: Clip (max 0.05) at extra"),
    "mean and scale exchanged": (
        lambda model: _exchange(
            model, "backbone.tpm.layer2.conv.2.bn.weight", "backbone.tpm.layer2.conv.2.bn.bias"
        ),
        "weight backbone.tpm.layer2.conv.2.bn.weight holds the values of backbone.tpm.layer2.conv.2.bn.bias",
    ),
    "statistics never loaded": (
        lambda model: _constant(model, "backbone.tpm.layer2.conv.2.bn.running_mean", np.zeros_like),
        "weight backbone.tpm.layer2.conv.2.bn.running_mean is all zeros",
    ),
    "channels moved": (
        lambda model: _constant(model, WEIGHT, lambda w: np.roll(w, 5, 0)),
        f"weight {WEIGHT} has its output channels in another order",
    ),
    "a picture half as bright": (_other_picture, "the picture that was fed is the right one"),
}


def _exchange(model: onnx.ModelProto, first: str, second: str) -> None:
    arrays = {each.name: numpy_helper.to_array(each).copy() for each in model.graph.initializer}
    _constant(model, first, lambda _: arrays[second])
    _constant(model, second, lambda _: arrays[first])


@functools.cache
def given() -> tuple[MobileInst, Array, onnx.ModelProto]:
    """Return a network, what it is fed, and its export."""
    config = MobileInstConfig.preset(PRESET, **FIELDS)
    network = MobileInst(config, Weights.seeded(config, 3))
    images = np.random.default_rng(3).standard_normal((1, 3, *SIZE)).astype(np.float32)
    return network, images, export(network, images)


def report_of(change: Change) -> InputReport:
    network, images, exported = given()
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    change(model)
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
    return verify(candidate, network.config, network.weights, {"noise": images}).leading


@pytest.mark.parametrize("kind", CHANGES)
def test_what_differs_is_said(kind: str) -> None:
    change, said = CHANGES[kind]
    report = report_of(change)
    assert report.verdict == "fail"
    assert any(said in sentence for sentence in report.evidence), report.evidence


def test_constants_that_stand_for_wrong_steps_are_not_called_frozen() -> None:
    """Of a candidate that is wrong at a place, no tensor is said to ignore the picture."""
    report = report_of(lambda model: _constant(model, WEIGHT, lambda w: np.roll(w, 5, 0)))
    assert report.problems == []
