"""Older forms of operators against ONNX Runtime, which reads every operator set."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from conformance.graph.onnx_graph import OnnxGraph, evaluate
from conformance.graph.opset import LATEST, OLDEST, Context, modernised
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import OPERATIONS

X = np.random.default_rng(5).normal(size=(2, 6, 4, 4)).astype(np.float32)
POSITIVE = np.abs(X) + 1

Operands = dict[str, Any]
Case = tuple[int, str, Operands, dict[str, Any], int]


def _model(
    opset: int, operator: str, operands: Operands, outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """Return a model of one node: the operand "x" is its input, the others are initializers."""
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(operator, list(operands), made, **attributes)
    x = operands["x"]
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [onnx.ValueInfoProto(name=name) for name in made],
        [
            numpy_helper.from_array(np.asarray(a), name)
            for name, a in operands.items()
            if name not in ("x", "")
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


STATISTICS = dict(zip("sbmv", POSITIVE[0, :, 0, :].T, strict=True))
SCALES = np.array([1, 1, 2.5, 1.5], np.float32)
OLDER: list[Case] = [
    *[
        (opset, f"Reduce{name}", {"x": POSITIVE}, {"axes": axes, "keepdims": keepdims}, 1)
        for name in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
        for opset, axes, keepdims in ((9, [1, 3], 0), (11, [1, -1], 1))
    ],
    (11, "ReduceMean", {"x": X}, {}, 1),
    (13, "ReduceMean", {"x": X}, {"axes": [2]}, 1),
    (17, "ReduceMax", {"x": X}, {"axes": [2]}, 1),
    (13, "ReduceSum", {"x": X, "axes": np.array([2])}, {}, 1),
    (9, "Softmax", {"x": X}, {}, 1),
    (11, "Softmax", {"x": X}, {"axis": 2}, 1),
    (11, "Softmax", {"x": X}, {"axis": 3}, 1),
    (11, "Softmax", {"x": X}, {"axis": -1}, 1),
    (11, "Softmax", {"x": X}, {"axis": -2}, 1),
    (9, "LogSoftmax", {"x": X}, {"axis": 1}, 1),
    (13, "Softmax", {"x": X}, {"axis": 1}, 1),
    (7, "Hardmax", {"x": X}, {}, 1),
    (11, "Hardmax", {"x": X}, {"axis": 2}, 1),
    (11, "Hardmax", {"x": X}, {"axis": -2}, 1),
    (12, "Hardmax", {"x": X}, {"axis": 3}, 1),
    (13, "Hardmax", {"x": X}, {"axis": 1}, 1),
    (9, "Clip", {"x": X}, {"min": -0.5, "max": 0.25}, 1),
    (9, "Clip", {"x": X}, {"max": 0.25}, 1),
    (9, "Clip", {"x": X}, {}, 1),
    (11, "Clip", {"x": X, "": None, "max": np.float32(0.5)}, {}, 1),
    (9, "Squeeze", {"x": X[:, :1]}, {"axes": [1]}, 1),
    (11, "Squeeze", {"x": X[:, :1]}, {}, 1),
    (13, "Squeeze", {"x": X[:, :1], "axes": np.array([1])}, {}, 1),
    (9, "Unsqueeze", {"x": X}, {"axes": [0, 3]}, 1),
    (11, "Unsqueeze", {"x": X}, {"axes": [-1]}, 1),
    (9, "Split", {"x": X}, {"axis": 1, "split": [1, 2, 3]}, 3),
    (11, "Split", {"x": X}, {"axis": 1}, 3),
    (13, "Split", {"x": X}, {"axis": -1}, 2),
    (9, "Slice", {"x": X}, {"starts": [1, -3], "ends": [9, 3], "axes": [1, 3]}, 1),
    (9, "Slice", {"x": X}, {"starts": [0, 1], "ends": [1, 4]}, 1),
    (10, "Slice", {"x": X, **dict(zip("seat", np.array([[3], [-99], [2], [-2]]), strict=True))}, {}, 1),
    (10, "Slice", {"x": X, **dict(zip("seat", np.array([[-9], [-99], [2], [-1]]), strict=True))}, {}, 1),
    (9, "Pad", {"x": X}, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.3}, 1),
    (9, "Pad", {"x": X}, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "mode": "reflect"}, 1),
    (11, "Pad", {"x": X, "p": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "v": np.float32(0.3)}, {"mode": "edge"}, 1),
    (9, "Upsample", {"x": X, "s": SCALES}, {"mode": "nearest"}, 1),
    (9, "Upsample", {"x": X, "s": SCALES}, {"mode": "linear"}, 1),
    (7, "Upsample", {"x": X}, {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}, 1),
    (10, "Resize", {"x": X, "s": SCALES}, {"mode": "nearest"}, 1),
    (10, "Resize", {"x": X, "s": 1 / SCALES}, {"mode": "linear"}, 1),
    (
        11,
        "Resize",
        {"x": X, "roi": np.zeros(0, np.float32), "s": SCALES},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        1,
    ),
    (9, "Dropout", {"x": X}, {"ratio": 0.3}, 1),
    (12, "Dropout", {"x": X, "r": np.float32(0.3), "t": np.array(False)}, {}, 1),
    (9, "TopK", {"x": X}, {"axis": 2, "k": 2}, 2),
    (10, "TopK", {"x": X, "k": np.array([2])}, {"axis": 1}, 2),
    (9, "Scatter", {"x": X, "i": np.array([[[[1, 0]]]]), "u": POSITIVE[:1, :1, :1, :2]}, {"axis": 1}, 1),
    (7, "BatchNormalization", {"x": X, **STATISTICS}, {}, 1),
    (8, "BatchNormalization", {"x": X, **STATISTICS}, {"spatial": 1}, 1),
    (9, "BatchNormalization", {"x": X, **STATISTICS}, {}, 1),
    (9, "BatchNormalization", {"x": X, **STATISTICS}, {"epsilon": 0.1}, 1),
    (9, "Flatten", {"x": X}, {"axis": 2}, 1),
    (9, "AveragePool", {"x": X}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 1),
    (9, "MaxPool", {"x": X}, {"kernel_shape": [2, 2], "strides": [2, 2]}, 1),
    (9, "Cast", {"x": X * 5}, {"to": 7}, 1),
    (9, "PRelu", {"x": X, "s": np.full((6, 1, 1), 0.1, np.float32)}, {}, 1),
    (9, "ConstantOfShape", {"x": np.array([2, 3])}, {}, 1),
    (11, "ArgMax", {"x": X}, {"axis": -1, "keepdims": 0}, 1),
    (11, "DepthToSpace", {"x": X[:, :4]}, {"blocksize": 2, "mode": "CRD"}, 1),
    (13, "HardSigmoid", {"x": X}, {}, 1),
    (
        18,
        "GroupNormalization",
        {"x": X, "s": np.array([1.5, -2], np.float32), "b": np.array([0.5, 3], np.float32)},
        {"num_groups": 2},
        1,
    ),
    *[
        (20, "AffineGrid", {"x": X[:n, 0, :2, :3], "s": np.array([n, 3, 4, 5])}, {"align_corners": flag}, 1)
        for n in (1, 2)
        for flag in (0, 1)
    ],
]  # fmt: skip


@pytest.mark.parametrize(
    ("opset", "operator", "operands", "attributes", "outputs"),
    [pytest.param(*case, id=f"{case[1]}-{case[0]}-{index}") for index, case in enumerate(OLDER)],
)
def test_as_onnxruntime(
    opset: int, operator: str, operands: Operands, attributes: dict[str, Any], outputs: int
) -> None:
    model = _model(opset, operator, operands, outputs, **attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": operands["x"]})
    graph = OnnxGraph.load(model)
    actual = evaluate(graph, {"x": operands["x"]})
    for name, array in zip(graph.outputs, expected, strict=True):
        assert actual[name].dtype == array.dtype
        np.testing.assert_allclose(actual[name], array, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "attributes",
    [{"value_int": 3}, {"value_ints": [3, 4]}, {"value_float": 0.1}, {"value_floats": [0.1, 2.0]}],
    ids=lambda attributes: next(iter(attributes)),
)
def test_constants_as_onnxruntime(attributes: dict[str, Any]) -> None:
    node = helper.make_node("Constant", [], ["y"], **attributes)
    graph = helper.make_graph([node], "constant", [], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    actual = evaluate(OnnxGraph.load(model), {})["y"]
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


def test_softmax_over_the_last_axis_stays_one_node() -> None:
    graph = OnnxGraph.load(_model(11, "Softmax", {"x": X}, axis=3))
    assert [(node.op_type, node.attributes) for node in graph.nodes] == [("Softmax", {"axis": -1})]


def test_defaults_are_the_float32_of_onnx() -> None:
    (node,) = OnnxGraph.load(_model(13, "HardSigmoid", {"x": X})).nodes
    assert node.attributes == {"alpha": float(np.float32(0.2)), "beta": 0.5}


def test_older_operator_sets_are_refused() -> None:
    with pytest.raises(UnsupportedOperationError, match="opset 6"):
        OnnxGraph.load(_model(6, "Relu", {"x": X}))


def test_operator_sets_and_formats_newer_than_the_installed_onnx_are_read_by_name() -> None:
    model = _model(LATEST + 1, "Relu", {"x": X})
    model.ir_version = onnx.IR_VERSION + 1
    graph = OnnxGraph.load(model)
    assert graph.opset == LATEST
    np.testing.assert_array_equal(evaluate(graph, {"x": X})[next(iter(graph.outputs))], np.maximum(X, 0))


def test_the_mask_of_an_inactive_dropout_keeps_all() -> None:
    graph = OnnxGraph.load(_model(13, "Dropout", {"x": X}, 2))
    same, mask = (evaluate(graph, {"x": X})[name] for name in graph.outputs)
    np.testing.assert_array_equal(same, X)
    assert mask.dtype == bool
    assert mask.shape == X.shape
    assert mask.all()


def test_an_operator_newer_than_its_operator_set() -> None:
    with pytest.raises(UnsupportedOperationError, match="Gelu is no operator of opset 13"):
        OnnxGraph.load(_model(13, "Gelu", {"x": X}))


@pytest.mark.parametrize(
    ("opset", "operator", "operands", "attributes", "outputs"),
    [
        (13, "Dropout", {"x": X, "r": np.float32(0.5), "t": np.array(True)}, {}, 1),
        (13, "RandomUniformLike", {"x": X}, {}, 1),
        (9, "Add", {"x": X, "b": X}, {"axis": 1}, 1),
        (7, "BatchNormalization", {"x": X, **STATISTICS}, {"spatial": 0}, 1),
    ],
    ids=["training", "random", "unknown attribute", "statistics of every element"],
)
def test_forms_outside_the_vocabulary(
    opset: int, operator: str, operands: Operands, attributes: dict[str, Any], outputs: int
) -> None:
    with pytest.raises(UnsupportedOperationError, match=operator):
        OnnxGraph.load(_model(opset, operator, operands, outputs, **attributes))


@pytest.mark.parametrize("opset", range(OLDEST, LATEST + 1))
def test_operations_take_all_that_their_operator_sets_fill_in(opset: int) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    for name in (known & OPERATIONS.keys()) - {"Constant"}:  # whose attributes exclude each other
        try:
            schema = onnx.defs.get_schema(name, opset)
        except onnx.defs.SchemaError:
            continue
        needed = {each.name: 1 for each in schema.attributes.values() if each.required}
        operands = tuple(f"x{place}" for place in range(schema.min_input))
        for node in modernised(Node("n", name, operands, ("y",), needed), Context(opset, {"x0": 4})):
            taken = inspect.signature(OPERATIONS[node.op_type]).parameters
            assert node.attributes.keys() <= taken.keys(), name


def test_batch_statistics_are_refused() -> None:
    operands = {"x": X, **{name: np.ones(6, np.float32) for name in "sbmv"}}
    graph = OnnxGraph.load(_model(9, "BatchNormalization", operands, 5))
    with pytest.raises(UnsupportedOperationError, match="evaluation mode"):
        evaluate(graph, {"x": X})
