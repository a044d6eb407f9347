"""Reading and evaluating ONNX graphs: hostile files, older parts, precision, liveness."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.graph.evaluation import evaluate_node, run
from conformance.graph.onnx_file import array_of
from conformance.graph.onnx_graph import OnnxGraph, evaluate
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import Array

X = np.random.default_rng(11).normal(size=(2, 3, 5, 5)).astype(np.float32)
WEIGHT = np.random.default_rng(12).normal(size=(4, 3, 3, 3)).astype(np.float32)


def _value(name: str, shape: Any = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[onnx.NodeProto],
    initializers: dict[str, Array] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
    **options: Any,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in (initializers or {}).items()]
    inputs = [_value("x", ["batch", 3, 5, 5])]
    graph = helper.make_graph(nodes, "graph", inputs, [_value(name) for name in outputs], tensors)
    imports = [helper.make_opsetid("", opset), *options.pop("imports", [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **options)


def _small(opset: int = 17) -> onnx.ModelProto:
    """Return a convolution, a constant, a local function and a split."""
    half = helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32([0.5]), "h"))
    double = helper.make_function(
        "local",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", opset)],
    )
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        half,
        helper.make_node("Mul", ["r", "half"], ["m"]),
        helper.make_node("Double", ["m"], ["d"], domain="local"),
        helper.make_node("Softmax", ["d"], ["s"], axis=1),
        helper.make_node("Split", ["s"], ["y", "z"], axis=1, **({"num_outputs": 2} if opset >= 18 else {})),
    ]
    return _model(
        nodes,
        {"w": WEIGHT, "b": np.float32([0.1, -1, 2, 0])},
        ("y", "z"),
        opset,
        functions=[double],
        imports=[helper.make_opsetid("local", 1)],
    )


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
def test_as_onnxruntime(opset: int) -> None:
    model = _small(opset)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})
    tensors = evaluate(OnnxGraph.load(model.SerializeToString()), {"x": X})
    for name, array in zip(("y", "z"), expected, strict=True):
        np.testing.assert_allclose(tensors[name], array, rtol=1e-5, atol=1e-6)
        assert tensors[name].dtype == np.float32


def _of_function(opset: int, operator: str) -> onnx.ModelProto:
    """Return a model of opset 17 of a function that is of another, in a branch of an If."""
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(operator, ["a"], ["c"])], name, [], [_value("c")]
        )
        for name in ("then", "else")
    }
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True), "yes")),
        helper.make_node("If", ["yes"], ["b"], **branches),
    ]
    function = helper.make_function("local", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", opset)])
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    return _model([call], functions=[function], imports=[helper.make_opsetid("local", 1)])


@pytest.mark.parametrize(
    ("opset", "operator"),
    [(16, "Erf"), (18, "Erf"), (12, "Relu"), (12, "Sum"), (12, "Flatten"), (12, "Abs")],
)
def test_functions_of_another_operator_set_whose_operators_are_the_same(opset: int, operator: str) -> None:
    model = _of_function(opset, operator)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})
    actual = evaluate(OnnxGraph.load(model), {"x": X})["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("opset", "operator"), [(12, "Softmax"), (12, "Hardmax"), (2**40, "ReduceMax"), (-(2**40), "ReduceMax")]
)
def test_functions_of_another_operator_set_whose_operators_are_others(opset: int, operator: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="no function whose operators are those of the model"):
        OnnxGraph.load(_of_function(opset, operator))


def test_functions_that_are_not_called_are_not_read() -> None:
    model = _of_function(12, "Softmax")
    model.graph.node[0].CopyFrom(helper.make_node("Relu", ["x"], ["y"]))
    np.testing.assert_array_equal(evaluate(OnnxGraph.load(model), {"x": X})["y"], np.maximum(X, 0))


def test_what_a_graph_says_of_itself() -> None:
    graph = OnnxGraph.load(_small())
    assert graph.opset == 17
    assert graph.declared["x"].shape == ("batch", 3, 5, 5)
    assert graph.declared["x"].dtype == np.float32
    assert list(graph.outputs) == ["y", "z"]
    assert [node.op_type for node in graph.nodes] == [
        "Conv",
        "Relu",
        "Constant",
        "Mul",
        "Add",
        "Softmax",
        "Split",
    ]
    assert graph.nodes[0].name == "conv"
    assert graph.nodes[0].attributes["pads"] == (1, 1, 1, 1)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)


def test_float64_is_closer_to_nothing_but_itself() -> None:
    graph = OnnxGraph.load(_small())
    wide = evaluate(graph, {"x": X}, np.float64)
    from_wide = evaluate(graph, {"x": X.astype(np.float64)}, np.float64)
    narrow = evaluate(graph, {"x": X})
    for name, array in wide.items():
        assert array.dtype == np.float64, name
        np.testing.assert_array_equal(array, from_wide[name])
        np.testing.assert_allclose(narrow[name], array, rtol=1e-4, atol=1e-5)
    assert np.any(wide["y"] != narrow["y"])


@pytest.mark.parametrize("through", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_a_cast_to_a_narrow_float_loses_nothing_in_float64(through: int) -> None:
    nodes = [
        helper.make_node("Div", ["x", "three"], ["third"]),
        helper.make_node("Cast", ["third"], ["cast"], to=through),
        helper.make_node("Mul", ["cast", "three"], ["y"]),
    ]
    graph = OnnxGraph.load(_model(nodes, {"three": np.float32([3])}))
    tensors = evaluate(graph, {"x": X}, np.float64)
    np.testing.assert_array_equal(tensors["cast"], X.astype(np.float64) / 3)


def test_a_cast_to_integers_still_casts() -> None:
    graph = OnnxGraph.load(_model([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT32)]))
    assert evaluate(graph, {"x": X}, np.float64)["y"].dtype == np.int32


def test_only_what_is_kept_remains_and_whoever_computes_sees_the_rest() -> None:
    graph = OnnxGraph.load(_small())
    seen: dict[str, Array] = {}

    def noted(node: Node, operands: tuple[Array | None, ...]) -> tuple[Array, ...]:
        outputs = evaluate_node(node, operands)
        seen.update(zip(node.outputs, outputs, strict=True))
        return outputs

    kept = run(graph.nodes, {**graph.initializers, "x": X}, noted, keep=["r", "z"])
    everything = evaluate(graph, {"x": X})
    assert sorted(kept) == ["r", "z"]
    assert sorted(everything) == sorted(seen) == sorted(["c", "r", "half", "m", "d", "s", "y", "z"])
    for name, array in everything.items():
        np.testing.assert_array_equal(seen[name], array)
    with pytest.raises(ShapeError, match="nowhere"):
        evaluate(graph, {"x": X}, keep=["nowhere"])


def test_outputs_may_be_inputs_and_initializers() -> None:
    graph = OnnxGraph.load(_model([helper.make_node("Relu", ["x"], ["y"])], {"w": WEIGHT}, ("y", "x", "w")))
    tensors = evaluate(graph, {"x": X})
    np.testing.assert_array_equal(tensors["x"], X)
    np.testing.assert_array_equal(tensors["w"], WEIGHT)


def test_an_input_with_a_default() -> None:
    model = _model([helper.make_node("Add", ["x", "shift"], ["y"])], {"shift": np.float32([2])})
    model.graph.input.append(_value("shift", [1]))
    graph = OnnxGraph.load(model)
    assert list(graph.inputs) == ["x"]
    np.testing.assert_array_equal(evaluate(graph, {"x": X})["y"], X + 2)
    np.testing.assert_array_equal(evaluate(graph, {"x": X, "shift": np.float32([3])})["y"], X + 3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing"),
        ({"x": X, "u": X}, "unknown: .'u'"),
        ({"x": X.astype(np.float64)}, "float64; the graph takes float32"),
        ({"x": X[:, :2]}, "shape"),
        ({"x": X[0]}, "shape"),
    ],
    ids=["missing", "unknown", "dtype", "length", "rank"],
)
def test_inputs_that_do_not_fit(inputs: dict[str, Array], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        evaluate(OnnxGraph.load(_small()), inputs)


def test_a_dynamic_length_has_one_value() -> None:
    model = _model([helper.make_node("Add", ["x", "u"], ["y"])])
    model.graph.input.append(_value("u", ["batch", 3, 5, 5]))
    with pytest.raises(ShapeError, match="'u'"):
        evaluate(OnnxGraph.load(model), {"x": X, "u": X[:1]})


def test_operands_that_do_not_fit_name_the_node() -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], name="the sum")]
    graph = OnnxGraph.load(_model(nodes, {"w": WEIGHT}))
    with pytest.raises(
        ShapeError, match=r"'the sum' \(Add\) on float32\[2, 3, 5, 5\], float32\[4, 3, 3, 3\]"
    ):
        evaluate(graph, {"x": X})


def test_overflow_is_a_result() -> None:
    graph = OnnxGraph.load(_model([helper.make_node("Exp", ["x"], ["y"])]))
    assert np.isinf(evaluate(graph, {"x": X * 0 + 1e4})["y"]).all()


# --- outside the vocabulary -----------------------------------------------------------------------


def test_all_that_is_outside_the_vocabulary_is_listed() -> None:
    nodes = [
        helper.make_node("StringNormalizer", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("FusedConv", ["b"], ["c"], name="second", domain="com.microsoft"),
        helper.make_node("TfIdfVectorizer", ["c"], ["y"]),
    ]
    model = _model(nodes, imports=[helper.make_opsetid("com.microsoft", 1)])
    with pytest.raises(UnsupportedOperationError) as raised:
        OnnxGraph.load(model)
    message = str(raised.value)
    assert "3 of 4" in message
    for part in (
        "first (StringNormalizer)",
        "second (com.microsoft::FusedConv)",
        "y/TfIdfVectorizer (TfIdfVectorizer)",
    ):
        assert part in message
    assert "fine" not in message


def test_what_is_unknown_within_a_branch_is_named() -> None:
    inner = [helper.make_node("StringNormalizer", ["x"], ["o"])]
    branch = helper.make_graph(inner, "branch", [], [_value("o")])
    nodes = [helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=branch, else_branch=branch)]
    with pytest.raises(UnsupportedOperationError, match=r"choice \(If\).*o/StringNormalizer"):
        OnnxGraph.load(_model(nodes, {"flag": np.array(True)}))


def test_a_branch_without_a_result_is_named() -> None:
    branch = helper.make_graph([], "branch", [], [])
    nodes = [helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=branch, else_branch=branch)]
    with pytest.raises(UnsupportedOperationError, match=r"choice \(If\).*makes 0, the node"):
        OnnxGraph.load(_model(nodes, {"flag": np.array(True)}))


def test_types_outside_the_vocabulary_are_named() -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [1], [1.0])
    model = _model([helper.make_node("Relu", ["x"], ["y"])])
    model.graph.initializer.append(tensor)
    with pytest.raises(UnsupportedOperationError, match="'w' is of type FLOAT8E4M3FN"):
        OnnxGraph.load(model)


@pytest.mark.parametrize("raw", [False, True])
def test_bfloat16_weights_are_held_in_float32(raw: bool) -> None:
    numbers = np.array([1.0, -2.5, 3.140625, 0.0], ml_dtypes.bfloat16)
    tensor = numpy_helper.from_array(numbers, "w")
    if not raw:
        tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [4], numbers.astype(np.float64).tolist())
    model = _model([helper.make_node("Relu", ["x"], ["y"])])
    model.graph.initializer.append(tensor)
    held = OnnxGraph.load(model).initializers["w"]
    assert held.dtype == np.float32
    np.testing.assert_array_equal(held, [1.0, -2.5, 3.140625, 0.0])


def test_an_unknown_attribute_is_not_ignored() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="odd", slope=0.1)]
    with pytest.raises(UnsupportedOperationError, match=r"odd \(Relu\).*slope"):
        OnnxGraph.load(_model(nodes))


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "ONNX"),
        (b"just text, more than a few words of it", "ONNX"),
        (_small().SerializeToString()[:-40], "truncated|no ONNX graph"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no ONNX graph"),
    ],
    ids=["empty", "picture", "text", "truncated", "without graph"],
)
def test_files_of_another_kind(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(FileError, match=message):
            OnnxGraph.load(source)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            OnnxGraph.load(path)


def _initializer(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def _shorten(model: onnx.ModelProto) -> None:
    _initializer(model).raw_data = _initializer(model).raw_data[:-1]


def _inflate(model: onnx.ModelProto) -> None:
    _initializer(model).dims[0] = 2**40


def _negate(model: onnx.ModelProto) -> None:
    _initializer(model).dims[0] = -4


def _reverse(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def _close_a_circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def _repeat(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[1])


def _want_more(model: onnx.ModelProto) -> None:
    model.graph.output.append(_value("nobody"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_shorten, "needs 432 bytes, the file holds 431"),
        (_inflate, r"needs \d{15} bytes"),
        (_negate, "negative length"),
        (_close_a_circle, "in a circle: "),
        (_repeat, "exists already"),
        (_want_more, "nothing makes the outputs"),
    ],
)
def test_files_that_lie(spoil: Any, message: str) -> None:
    model = _small()
    spoil(model)
    with pytest.raises(FileError, match=message):
        OnnxGraph.load(model.SerializeToString())


def test_nodes_need_not_be_in_order() -> None:
    model = _small()
    _reverse(model)
    expected = onnxruntime.InferenceSession(_small().SerializeToString()).run(None, {"x": X})
    tensors = evaluate(OnnxGraph.load(model), {"x": X})
    for name, array in zip(("y", "z"), expected, strict=True):
        np.testing.assert_allclose(tensors[name], array, rtol=1e-5, atol=1e-6)


def _external(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save_model(
        _small(),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        all_tensors_to_one_file=True,
    )
    return path


def test_external_data_is_read(tmp_path: Path) -> None:
    path = _external(tmp_path)
    graph = OnnxGraph.load(path)
    np.testing.assert_array_equal(graph.initializers["w"], WEIGHT)
    np.testing.assert_array_equal(
        evaluate(graph, {"x": X})["y"], evaluate(OnnxGraph.load(_small()), {"x": X})["y"]
    )
    # The model held in memory is complete.
    onnxruntime.InferenceSession(graph.model.SerializeToString())


def test_external_data_that_is_missing_short_or_without_a_folder(tmp_path: Path) -> None:
    path = _external(tmp_path)
    with pytest.raises(FileError, match="by its path"):
        OnnxGraph.load(path.read_bytes())
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(FileError, match=r"needs \d+ bytes"):
        OnnxGraph.load(path)
    data.unlink()
    with pytest.raises(FileError, match="missing; put it beside the model"):
        OnnxGraph.load(path)


@pytest.mark.parametrize("location", ["../secret.bin", "link.bin", "/etc/hostname", ""])
def test_external_data_stays_in_the_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = _external(folder)
    (folder / "weights.bin").rename(tmp_path / "secret.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load_model(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="outside the model's folder"):
        OnnxGraph.load(path)


def test_damaged_bytes_never_escape_the_named_errors() -> None:
    data = _small(11).SerializeToString()
    generator = random.Random(0)
    for _ in range(600):
        damaged = bytearray(data)
        for _ in range(generator.choice([1, 1, 3])):
            damaged[generator.randrange(len(data))] = generator.randrange(256)
        with contextlib.suppress(MobileInstError):
            evaluate(OnnxGraph.load(bytes(damaged)), {"x": X})


def test_truncated_bytes_never_escape_the_named_errors() -> None:
    data = _small().SerializeToString()
    for length in range(0, len(data), 7):
        with contextlib.suppress(MobileInstError):
            OnnxGraph.load(data[:length])


@pytest.mark.parametrize("dims", [[1] * 112, [0, 2**62, 2**62]], ids=["axes", "lengths"])
def test_a_shape_that_no_array_has_is_a_named_error(dims: list[int]) -> None:
    data = b"" if 0 in dims else b"\0\0\0\0"
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=dims, raw_data=data)
    with pytest.raises(FileError, match="'w': no array is of its shape"):
        array_of(tensor)
