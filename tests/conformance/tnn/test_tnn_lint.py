"""Each rule of the lint fires on the construct it is about and not on its harmless neighbour."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.tnn.lint import lint
from conformance.tnn.registry import CONVERTED
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
FULL = {"strides": [1, 1], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
SIZES = {"z": np.array([1, 4, 11, 11])}


ORDER = {"perm": [0, 2, 3, 1]}


def transposed(**attributes) -> onnx.ModelProto:
    """Return a transposed convolution whose output is twice its input, but for the attributes."""
    given = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3], "output_padding": [1, 1]}
    return model([("ConvTranspose", "x w", "y", {**given, **attributes})], w=W)


def gemm(**attributes) -> onnx.ModelProto:
    square = np.zeros((4, 4), np.float32)
    return model([("Gemm", "x w b", "y", attributes)], (4, 4), w=square, b=np.zeros(4, np.float32))


def pad(pads, mode="constant", axes=()) -> onnx.ModelProto:
    operands = "x p v a" if axes else "x p"
    constants = {"p": np.array(pads), "v": np.float32(0), "a": np.array(axes, np.int64)}
    return model([("Pad", operands, "y", {"mode": mode})], opset=19, **constants)


def split(**attributes) -> onnx.ModelProto:
    """Return a split of axis 0 of two equal parts."""
    parts = helper.make_node("Split", ["x"], ["p", "q"], name="s", **attributes)
    found = model([("Add", "p q", "y", {})], dims=(2, 4))
    found.graph.node.insert(0, parts)
    return found


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
    (
        "implicit-convolution-attributes",
        model([("MaxPool", "x", "y", {"kernel_shape": [2, 2]})]),
        model([("Conv", "x w", "y", {"strides": [1, 1], "kernel_shape": [3, 3]})], w=W),
    ),
    (
        "asymmetric-pads",
        model([("Conv", "x w", "y", {**FULL, "pads": [1, 0, 0, 2]})], w=W),
        model([("MaxPool", "x", "y", {**FULL, "pads": [1, 0, 1, 2]})]),
    ),
    (
        "asymmetric-pads-at-the-beginning",
        model([("MaxPool", "x", "y", {**FULL, "pads": [1, 0, 1, 2]})]),
        model([("Conv", "x w", "y", {**FULL, "pads": [1, 0, 1, 2]})], w=W),
    ),
    (
        "swapped-pads",
        model(
            [("Conv", "x w", "y", {"strides": [1], "pads": [1, 2], "kernel_shape": [3]})],
            (1, 4, 8),
            w=W[:, :, 0],
        ),
        model(
            [("Conv", "x w", "y", {"strides": [1], "pads": [1, 1], "kernel_shape": [3]})],
            (1, 4, 8),
            w=W[:, :, 0],
        ),
    ),
    (
        "same-lower",
        model(
            [("Conv", "x w", "y", {"strides": [1, 1], "kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"})], w=W
        ),
        model(
            [("Conv", "x w", "y", {"strides": [1, 1], "kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"})], w=W
        ),
    ),
    (
        "transposed-convolution-3d",
        model([("ConvTranspose", "x w", "y", {"kernel_shape": [3, 3, 3], "strides": [1, 1, 1]})], w=W),
        model([("ConvTranspose", "x w", "y", FULL)], w=W),
    ),
    ("output-padding", transposed(output_padding=[0, 1]), transposed(output_padding=[1, 1])),
    ("output-padding", transposed(strides=[3, 3], output_padding=[1, 1], pads=[1, 1, 1, 1]), transposed()),
    (
        "weight-not-constant",
        model([("Relu", "x", "v", {}), ("Conv", "x v", "y", FULL)]),
        model([("Conv", "x w", "y", FULL)], w=W),
    ),
    ("gemm-scaled", gemm(alpha=0.5), gemm(transB=1)),
    ("gemm-scaled", gemm(transA=1), gemm(beta=0.0)),
    ("gemm-beta", gemm(beta=0.0), gemm()),
    (
        "power-of-a-tensor",
        model([("Pow", "x p", "y", {})], p=np.float32([1, 2])),
        model([("Pow", "x p", "y", {})], p=np.float32(2)),
    ),
    ("power-of-a-tensor", model([("Pow", "x x", "y", {})]), model([("Mul", "x x", "y", {})])),
    (
        "reduction-as-output",
        model([("ReduceMax", "x", "y", {"axes": [2, 3]})]),
        model([("ReduceMax", "x", "r", {"axes": [2, 3]}), ("Relu", "r", "y", {})]),
    ),
    (
        "reduction-as-output",
        model([("ReduceMean", "x", "y", {"axes": [2, 3], "keepdims": 1})]),
        model([("ReduceMean", "x", "y", {"axes": [2, 3]})]),
    ),
    (
        "reduce-max-keeps-axes",
        model([("ReduceMax", "x", "r", {"axes": [2, 3], "keepdims": 0}), ("Relu", "r", "y", {})]),
        model([("ReduceMax", "x", "r", {"axes": [2], "keepdims": 0}), ("Relu", "r", "y", {})]),
    ),
    (
        "last-index",
        model([("ArgMax", "x", "y", {"select_last_index": 1})]),
        model([("ArgMax", "x", "y", {"axis": 1})]),
    ),
    ("pad-of-the-batch", pad([1, 0, 0, 0, 0, 0, 0, 0]), pad([0, 1, 0, 0, 0, 0, 0, 0])),
    ("pad-of-some-axes", pad([1, 1], axes=[1]), pad([0, 0, 1, 1, 0, 0, 1, 1])),
    (
        "pad-reflects-channels",
        pad([0, 1, 0, 0, 0, 1, 0, 0], "reflect"),
        pad([0, 0, 1, 1, 0, 0, 1, 1], "reflect"),
    ),
    ("pad-edge", pad([0, 0, 1, 1, 0, 0, 1, 1], "edge"), pad([0, 0, 1, 1, 0, 0, 1, 1], "reflect")),
    ("pad-wraps", pad([0, 0, 1, 1, 0, 0, 1, 1], "wrap"), pad([0, 0, 1, 1, 0, 0, 1, 1], "constant")),
    (
        "einsum-of-a-constant",
        model([("Einsum", "x k", "y", {"equation": "abcd,ce->abed"})], k=np.zeros((8, 3), np.float32)),
        model([("Einsum", "x x", "y", {"equation": "abcd,abce->abde"})]),
    ),
    (
        "einsum-with-spaces",
        model([("Einsum", "x x", "y", {"equation": "abcd, abce -> abde"})]),
        model([("Einsum", "x x", "y", {"equation": "abcd,abce->abde"})]),
    ),
    (
        "transpose-without-order",
        model([("Transpose", "x", "y", {})]),
        model([("Transpose", "x", "y", ORDER)]),
    ),
    (
        "normalisation-without-bias",
        model([("LayerNormalization", "x s", "y", {})], opset=17, s=np.ones(8, np.float32)),
        model([("LayerNormalization", "x s s", "y", {})], opset=17, s=np.ones(8, np.float32)),
    ),
    ("no-converter", model([("Mish", "x", "y", {})], opset=18), model([("Softplus", "x", "y", {})])),
    ("no-converter", model([("Sum", "x x", "y", {})]), model([("Add", "x x", "y", {})])),
    ("resize-without-mode", resize(SIZES), resize(SIZES, mode="nearest")),
    (
        "resize-of-other-axes",
        resize({"s": np.float32([1, 2, 2, 2])}, **LINEAR),
        resize({"s": np.float32([1, 1, 2, 2])}, **LINEAR),
    ),
    ("attribute", model([("Flatten", "x", "y", {})]), model([("Flatten", "x", "y", {"axis": 1})])),
    ("attribute", model([("Selu", "x", "y", {})]), model([("Elu", "x", "y", {})])),
    ("attribute", split(), split(axis=0)),
    (
        "attribute",
        model([("MaxPool", "x", "y", {**FULL, "dilations": [2, 2]})]),
        model([("MaxPool", "x", "y", {**FULL, "dilations": [1, 1]})]),
    ),
    (
        "attribute",
        model(
            [("GridSample", "x g", "y", {"align_corners": 1})], opset=16, g=np.zeros((1, 2, 2, 2), np.float32)
        ),
        model([("Dropout", "x", "d", {"ratio": 0.1}), ("Relu", "d", "y", {})], opset=11),
    ),
    ("opset", model([("Relu", "x", "y", {})], opset=8), model([("Relu", "x", "y", {})], opset=9)),
    ("dynamic-input", model([("Relu", "x", "y", {})], dims=("n", 3)), model([("Relu", "x", "y", {})])),
]
# helper.make_node cannot be given a name with a space through split().
(SPACED,) = (broken.graph.node for rule, broken, _ in CASES if rule == "name-breaks-the-line")
SPACED[0].output[0] = SPACED[1].input[0] = "a b"


@pytest.mark.parametrize(("rule", "broken", "harmless"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_fires_on_its_construct_and_not_on_its_neighbour(rule, broken, harmless):
    assert rule in rules(broken)
    assert rule not in rules(harmless)


def test_every_rule_has_a_case():
    assert {trap.rule for trap in TRAPS} | {"opset", "dynamic-input", "attribute"} == {
        rule for rule, _, _ in CASES
    }


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


def test_an_operator_that_holds_graphs_is_a_finding():
    relu = helper.make_node("Relu", ["x"], ["a"])
    branch = helper.make_graph([relu], "b", [], [helper.make_tensor_value_info("a", TensorProto.FLOAT, None)])
    branches = {"then_branch": branch, "else_branch": branch}
    assert rules(model([("If", "c", "y", branches)], c=np.array(True))) == {"no-converter"}


def test_every_operator_of_onnx_is_converted_or_named():
    for schema in onnx.defs.get_all_schemas():
        if schema.domain == "":
            operands = " ".join(["x"] * max(schema.min_input, 1))
            found = rules(model([(schema.name, operands, "y", {})], opset=20))
            assert ("no-converter" in found) == (schema.name not in CONVERTED)


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
