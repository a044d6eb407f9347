"""Each rule of the lint fires on the construct it is about and not on its harmless neighbour."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.tnn.lint import lint
from conformance.tnn.traps import TRAPS
from refimpl.errors import ConfigurationError, FileError


def model(nodes, dims=(1, 4, 8, 8), opset=13, outputs=("y",), **constants) -> onnx.ModelProto:
    """Return a model whose nodes read ``x``; ``nodes`` are (operator, inputs, output, attributes)."""
    made = [
        helper.make_node(operator, operands.split(), [output], name=output, **attributes)
        for operator, operands, output, attributes in nodes
    ]
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    y = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(made, "g", [x], y, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def rules(found: onnx.ModelProto) -> set[str]:
    return {finding.rule for finding in lint(found)}


def resize(constants=None, **attributes) -> onnx.ModelProto:
    constants = constants or {"s": np.float32([1, 1, 2, 2])}
    operands = ["x", "e", *constants] if "s" in constants else ["x", "e", "e", *constants]
    return model([("Resize", " ".join(operands), "y", attributes)], e=np.zeros(0, np.float32), **constants)


W = np.zeros((4, 4, 3, 3), np.float32)
FULL = {"strides": [1, 1], "pads": [1, 1, 1, 1]}
LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
SIZES = {"z": np.array([1, 4, 11, 11])}


def gelu(root: float = 2**0.5, half: float = 0.5) -> onnx.ModelProto:
    nodes = [("Div", "x r", "d", {}), ("Erf", "d", "e", {}), ("Add", "e o", "a", {}), ("Mul", "x a", "m", {})]
    return model([*nodes, ("Mul", "m h", "y", {})], r=np.float32(root), o=np.float32(1), h=np.float32(half))


CASES = [
    (
        "resize-asymmetric-linear",
        resize(mode="linear", coordinate_transformation_mode="asymmetric"),
        resize(**LINEAR),
    ),
    (
        "resize-nearest-rule",
        resize(SIZES, mode="nearest"),
        resize(SIZES, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    ),
    (
        "resize-nearest-rule",
        resize({"z": np.array([1, 4, 12, 12])}, nearest_mode="ceil"),
        resize(mode="nearest"),
    ),
    ("resize-floored-scale", resize({"s": np.float32([1, 1, 1.7, 1.7])}, **LINEAR), resize(SIZES, **LINEAR)),
    ("resize-cubic", resize(mode="cubic"), resize(**LINEAR)),
    (
        "resize-dynamic-size",
        model(
            [("Shape", "x", "s", {}), ("Add", "s s", "z", {}), ("Resize", "x e e z", "y", LINEAR)],
            e=np.zeros(0, np.float32),
        ),
        resize(SIZES, **LINEAR),
    ),
    (
        "average-pool-counts-padding",
        model([("AveragePool", "x", "y", {**FULL, "kernel_shape": [3, 3], "count_include_pad": 1})]),
        model([("AveragePool", "x", "y", {"kernel_shape": [2, 2], "count_include_pad": 1})]),
    ),
    (
        "asymmetric-pads",
        model([("Conv", "x w", "y", {**FULL, "pads": [0, 0, 2, 2]})], w=W),
        model([("Conv", "x w", "y", {**FULL, "pads": [1, 0, 1, 0]})], w=W),
    ),
    (
        "asymmetric-pads-at-the-beginning",
        model([("Conv", "x w", "y", {**FULL, "pads": [1, 1, 0, 0]})], w=W),
        model([("Conv", "x w", "y", {**FULL, "pads": [0, 0, 1, 1]})], w=W),
    ),
    (
        "softmax-default-axis",
        model([("Softmax", "x", "y", {})]),
        model([("Softmax", "x", "y", {"axis": -1})]),
    ),
    (
        "softmax-default-axis",
        model([("Softmax", "x", "y", {})]),
        model([("Softmax", "x", "y", {})], opset=11),
    ),
    (
        "softmax-default-axis",
        model([("Softmax", "x", "y", {})]),
        model([("Softmax", "x", "y", {})], dims=(4, 8)),
    ),
    (
        "implicit-convolution-attributes",
        model([("Conv", "x w", "y", {})], w=W),
        model([("Conv", "x w", "y", FULL)], w=W),
    ),
    (
        "output-copies-an-input",
        model([("Identity", "x", "y", {})]),
        model([("Relu", "x", "r", {}), ("Identity", "r", "y", {})]),
    ),
    (
        "output-before-a-fusion",
        model([("Conv", "x w", "c", FULL), ("Relu", "c", "y", {})], outputs=("c", "y"), w=W),
        model([("Conv", "x w", "c", FULL), ("Sigmoid", "c", "y", {})], outputs=("c", "y"), w=W),
    ),
    (
        "no-arm-kernel",
        model([("Einsum", "x", "y", {"equation": "abcd->abdc"})]),
        model([("MatMul", "x x", "y", {})]),
    ),
    ("erf-outside-gelu", gelu(half=0.25), gelu()),
    ("erf-outside-gelu", gelu(root=1.0), gelu()),
    ("erf-outside-gelu", model([("Erf", "x", "y", {})]), gelu()),
    (
        "name-breaks-the-line",
        model([("Relu", "x", "a", {}), ("Relu", "a", "y", {})]),
        model([("Relu", "x", "a::b/c.1", {}), ("Relu", "a::b/c.1", "y", {})]),
    ),
    ("opset", model([("Relu", "x", "y", {})], opset=8), model([("Relu", "x", "y", {})], opset=9)),
    ("dynamic-input", model([("Relu", "x", "y", {})], dims=("n", 3)), model([("Relu", "x", "y", {})])),
]
# helper.make_node cannot be given a name with a space through split().
CASES[-3][1].graph.node[0].output[0] = CASES[-3][1].graph.node[1].input[0] = "a b"


@pytest.mark.parametrize(("rule", "broken", "harmless"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_fires_on_its_construct_and_not_on_its_neighbour(rule, broken, harmless):
    assert rule in rules(broken)
    assert rule not in rules(harmless)


def test_every_rule_has_a_case():
    assert {trap.rule for trap in TRAPS} | {"opset", "dynamic-input"} == {rule for rule, _, _ in CASES}


def test_findings_say_which_node_what_happens_and_what_to_do():
    (finding,) = lint(model([("Softmax", "x", "y", {})]))
    assert "Softmax 'y'" in str(finding)
    assert finding.severity == "changes the meaning"
    assert "axis 1" in finding.happens
    assert "explicitly" in finding.instead


@pytest.mark.parametrize(
    ("operator", "operands", "attributes"),
    [
        ("Softmax", "", {}),
        ("Resize", "", {}),
        ("Resize", "x", {"mode": "nearest", "nearest_mode": "sideways"}),
        ("Conv", "x w", {"pads": [1, 1, 1]}),
        ("Conv", "x w", {"pads": "left"}),
        ("AveragePool", "x", {"count_include_pad": "yes", "pads": [0.5]}),
        ("Identity", "", {}),
        ("Erf", "", {}),
        ("Constant", "", {}),
    ],
)
def test_malformed_nodes_are_named_or_pass(operator, operands, attributes):
    with contextlib.suppress(FileError):
        lint(model([(operator, operands, "y", attributes)], w=W))


def test_constants_are_known_however_they_are_written():
    nodes = [
        ("Constant", "", "s", {"value_floats": [1.0, 1.0, 2.0, 2.0]}),
        ("Resize", "x e s", "y", LINEAR),
    ]
    assert rules(model(nodes, e=np.zeros(0, np.float32))) == set()


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="known: tnn"):
        lint(model([("Relu", "x", "y", {})]), target="ncnn")
    with pytest.raises(FileError):
        lint(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(FileError):
        lint(tmp_path / "broken.onnx")
