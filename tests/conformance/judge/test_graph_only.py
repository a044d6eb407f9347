"""Any ONNX model, whatever it computes: is what the runtime makes of each node what the node says?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import onnxruntime
import pytest
from typer.testing import CliRunner

from conformance.bounds import FLOAT16, FLOAT32
from conformance.candidates.onnx_runtime import LEVELS, OnnxRuntimeGraph, RuntimeOptions, declared_by
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.cli import app
from conformance.graph import large_models
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.judge.nodes import judge_nodes
from conformance.pictures.graph_inputs import graph_inputs, parse_shape
from refimpl.errors import (
    ConfigurationError,
    FileError,
    NonFiniteError,
    ShapeError,
    UnsupportedOperationError,
)
from refimpl.ops.operation import Array

MODELS: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    "residual": (onnx_models.residual_network(), ["2x3x32x32"]),
    "residual, float16": (onnx_models.residual_network(np.float16), ["1x3x32x64"]),
    "mobile": (onnx_models.mobile_network(), []),
    "mobile, float16": (onnx_models.mobile_network(np.float16), []),
    "quantised": (onnx_models.quantised_network(), []),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("model", MODELS)
def test_a_correct_runtime_passes(model: str, level: str) -> None:
    proto, shapes = MODELS[model]
    graph = OnnxGraph.load(proto)
    for seed in range(2):
        candidate = OnnxRuntimeGraph(graph, RuntimeOptions(level, threads=1))
        report = verify_graph(candidate, graph_inputs(graph, shapes=shapes, seed=seed))
        report.raise_on_failure()
        (item,) = report.inputs
        assert len(item.nodes) == len(graph.nodes)
        assert {row.verdict for row in [*item.nodes, *item.outputs]} == {"pass"}


def without_bound(op_type: str, sizes: list[int], **attributes: Any) -> onnx.ModelProto:
    """One operation that has no bound with these attributes, and a ReLU of its result."""
    last = onnx.numpy_helper.from_array(np.array(sizes, np.int64), "last")
    names = ["x", "last"] if op_type == "TopK" else ["x", "", "", "last"]
    made = ["made", "places"][: 2 if op_type == "TopK" else 1]
    nodes = [
        onnx.helper.make_node(op_type, names, made, **attributes),
        onnx.helper.make_node("Relu", ["made"], ["y"]),
    ]
    infos = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, 5, 6])]
    outputs = [onnx.ValueInfoProto(name=name) for name in ("made", "y")]
    graph = onnx.helper.make_graph(nodes, "open", infos, outputs, [last])
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8))


@pytest.mark.parametrize(
    "model",
    [
        without_bound("Resize", [1, 1, 9, 11], mode="cubic", exclude_outside=1),
        without_bound("TopK", [3], sorted=0),
    ],
    ids=["cubic", "TopK"],
)
def test_outputs_behind_a_node_without_bound_are_not_guessed(model: onnx.ModelProto) -> None:
    graph = OnnxGraph.load(model)
    report = verify_graph(OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), graph_inputs(graph))
    (item,) = report.inputs
    assert report.verdict == "pass"
    assert {row.verdict for row in item.outputs} == {"not judged"}
    assert {row.utilisation for row in item.outputs} == {None}


def test_a_node_may_leave_out_an_output_before_another() -> None:
    """LayerNormalization's mean is not wanted, the inverse deviation behind it is."""
    node = onnx.helper.make_node("LayerNormalization", ["x", "scale"], ["y", "", "inverse"])
    floats = onnx.TensorProto.FLOAT
    inputs = [onnx.helper.make_tensor_value_info("x", floats, [2, 3, 8])]
    outputs = [onnx.helper.make_tensor_value_info(name, floats, None) for name in ("y", "inverse")]
    scale = onnx.numpy_helper.from_array(np.linspace(0.5, 2, 8, dtype=np.float32), "scale")
    model = onnx.helper.make_graph([node], "norm", inputs, outputs, [scale])
    opset = [onnx.helper.make_opsetid("", 17)]
    graph = OnnxGraph.load(onnx.helper.make_model(model, opset_imports=opset, ir_version=8))
    report = verify_graph(OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), graph_inputs(graph))
    assert report.verdict == "pass"
    assert [row.name for row in report.inputs[0].nodes] == ["y", "inverse"]


def test_input_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((1, 1, 5, 6), np.nan, np.float32))
    graph = OnnxGraph.load(without_bound("TopK", [3]))
    with pytest.raises(NonFiniteError, match="30 of 30 numbers"):
        graph_inputs(graph, [str(tmp_path / "x.npy")])


class WrongNode(OnnxRuntimeGraph):
    """ONNX Runtime with one node's result changed, and all that follows from it."""

    def __init__(self, graph: OnnxGraph, place: int, change: Any) -> None:
        super().__init__(graph, RuntimeOptions(threads=1))
        self.place, self.change = place, change

    def run(self, feeds: Any) -> dict[str, Array]:
        tensors = self.capture(feeds)
        return {name: tensors[name] for name in self.graph.outputs}

    def capture(self, feeds: Any) -> dict[str, Array]:
        tensors = super().capture(feeds)
        wrong = self.graph.nodes[self.place].outputs[0]
        tensors[wrong] = self.change(tensors[wrong].copy())
        fed = {**feeds, **{name: tensors[name] for name in list(tensors)[: list(tensors).index(wrong) + 1]}}
        extracted = onnx.utils.Extractor(self.graph.model)
        rest = list(self.graph.model.graph.node[self.place + 1 :])
        needed = {name for node in rest for name in node.input}
        inputs = [name for name in fed if name in needed]
        outputs = [name for node in rest for name in node.output]
        part = extracted.extract_model(inputs, outputs)
        results = onnxruntime.InferenceSession(part.SerializeToString()).run(
            None, {n: fed[n] for n in inputs}
        )
        return {**tensors, **dict(zip(outputs, results, strict=True))}


def one_element(x: Array) -> Array:
    """Change the last element by a thousandth of the largest."""
    x.flat[-1] += 1e-3 * np.abs(x).max()
    return x


@pytest.mark.parametrize("place", [0, 2, 7, 12, 22])
def test_a_wrong_node_is_named(place: int) -> None:
    proto, shapes = MODELS["residual"]
    graph = OnnxGraph.load(proto)
    report = verify_graph(WrongNode(graph, place, one_element), graph_inputs(graph, shapes=shapes))
    assert report.verdict == "fail"
    fault = report.inputs[0].first_fault
    assert fault is not None
    assert fault.step == graph.nodes[place].outputs[0]
    assert fault.question == "graph"


def test_float16_is_not_judged_as_float32() -> None:
    graph = OnnxGraph.load(MODELS["mobile, float16"][0])
    declared = OnnxRuntimeGraph(graph).declaration
    assert (declared.arithmetic, declared.storage) == (FLOAT32, FLOAT16)


# --- inputs ---------------------------------------------------------------------------------------


def test_inputs_by_name_in_order_and_random(tmp_path: Path) -> None:
    graph = OnnxGraph.load(MODELS["mobile"][0])
    offset = np.arange(8, dtype=np.float32).reshape(8, 1, 1)
    np.save(tmp_path / "offset.npy", offset)
    feeds = graph_inputs(graph, [f"offset={tmp_path / 'offset.npy'}"], seed=4)
    assert list(feeds) == ["x", "offset"]
    np.testing.assert_array_equal(feeds["offset"], offset)
    np.testing.assert_array_equal(feeds["x"], graph_inputs(graph, seed=4)["x"])
    assert not np.array_equal(feeds["x"], graph_inputs(graph, seed=5)["x"])
    np.save(tmp_path / "a=b.npy", feeds["x"])
    ordered = graph_inputs(graph, [str(tmp_path / "a=b.npy"), str(tmp_path / "offset.npy")])
    np.testing.assert_array_equal(ordered["offset"], offset)


def test_an_input_is_given_once(tmp_path: Path) -> None:
    graph = OnnxGraph.load(MODELS["mobile"][0])
    for name in ("first", "second"):
        np.save(tmp_path / f"{name}.npy", np.zeros((8, 1, 1), np.float32))
    files = [f"offset={tmp_path / name}.npy" for name in ("first", "second")]
    with pytest.raises(ConfigurationError, match="--input gives 'offset' twice"):
        graph_inputs(graph, files)
    with pytest.raises(ConfigurationError, match="--shape gives 'x' twice"):
        graph_inputs(graph, (), ["x=1x3x8x8", "x=1x3x4x4"])


@pytest.mark.parametrize("kind", [onnx_models.FLOAT, onnx_models.INT8, onnx_models.INT64])
def test_inputs_of_any_type(kind: int) -> None:
    graph = OnnxGraph.load(onnx_models.with_type(kind, "Abs"))
    report = verify_graph(OnnxRuntimeGraph(graph), graph_inputs(graph))
    report.raise_on_failure()
    assert report.inputs[0].nodes[0].shape == (2, 3)


def test_boolean_input() -> None:
    graph = OnnxGraph.load(onnx_models.with_type(onnx_models.BOOL, "Not"))
    verify_graph(OnnxRuntimeGraph(graph), graph_inputs(graph)).raise_on_failure()


@pytest.mark.parametrize("dtype", [">f4", "<f4"])
def test_an_input_in_another_byte_order_is_the_same_input(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3).astype(dtype))
    feeds = graph_inputs(PASSED_ON["an input"], [str(tmp_path / "x.npy")])
    assert feeds["x"].dtype.isnative
    verify_graph(OnnxRuntimeGraph(PASSED_ON["an input"]), feeds).raise_on_failure()


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "bool"])
def test_an_input_of_another_type_is_bad_input_and_no_verdict(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), dtype))
    with pytest.raises(FileError, match=f"x.npy holds {dtype}; .* takes float32"):
        graph_inputs(PASSED_ON["an input"], [str(tmp_path / "x.npy")])


@pytest.mark.parametrize("kind", ["string", "complex64", "bfloat16"])
def test_a_graph_that_takes_no_numbers_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="input 'x'"):
        graph_inputs(OnnxGraph.load(written(f"({kind}[2] x) => ({kind}[2] y) {{ y = Identity(x) }}")))


def written(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')


PASSED_ON = {
    "an input": OnnxGraph.load(written("(float[2,3] x) => (float[2,3] x) { }")),
    "a constant": OnnxGraph.load(written("(float[1] x) => (float[1] c) <float[1] c = {7}> { }")),
    "an input beside a result": OnnxGraph.load(
        written("(float[2] x) => (float[2] x, float[2] y) { y = Exp(x) }")
    ),
}


@pytest.mark.parametrize("case", PASSED_ON)
def test_an_output_that_no_node_makes(case: str) -> None:
    feeds = graph_inputs(PASSED_ON[case])
    verify_graph(OnnxRuntimeGraph(PASSED_ON[case]), feeds).raise_on_failure()


NARROW = [
    "{ y = Cast<to = 10> (x) }",
    "{ half = Cast<to = 10> (x)  more = Add(half, half)  y = Exp(more) }",
    "{ half = Cast<to = 10> (x)  y = Cast<to = 1> (half) }",
    "{ brain = Cast<to = 16> (x)  y = Cast<to = 1> (brain) }",
    "{ t = Relu(x)  brain = Cast<to = 16> (t)  u = Cast<to = 1> (brain)  y = Exp(u) }",
]


@pytest.mark.parametrize("body", NARROW)
def test_what_a_graph_of_float32_makes_narrower_is_rounded_so(body: str) -> None:
    kind = "float" if "to = 1>" in body else "float16"
    model = written(f"(float[4, 50] x) => ({kind}[4, 50] y) {body}")
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)}
    verify_graph(OnnxRuntimeGraph(OnnxGraph.load(model)), feeds).raise_on_failure()


def test_more_than_what_bfloat16_rounds_fails() -> None:
    class Short(OnnxRuntimeGraph):
        def _run(self, *given: Any) -> dict[str, Array]:
            return {name: array * np.float32(0.95) for name, array in super()._run(*given).items()}

    graph = OnnxGraph.load(written(f"(float[4, 50] x) => (float[4, 50] y) {NARROW[-1]}"))
    assert verify_graph(Short(graph), graph_inputs(graph)).verdict == "fail"


def test_weights_kept_in_bfloat16_round_nothing() -> None:
    model = written("(float[2] x) => (float[2] y) { wide = Cast<to = 1> (w)  y = Mul(x, wide) }")
    model.graph.initializer.append(onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [2], [1.5, 3.0]))
    assert declared_by(OnnxGraph.load(model)).storage == FLOAT32


def test_an_output_that_no_node_makes_and_is_another_fails() -> None:
    class Negating(OnnxRuntimeGraph):
        def _run(self, *given: Any) -> dict[str, Array]:
            return {name: -array for name, array in super()._run(*given).items()}

    graph = PASSED_ON["an input"]
    assert verify_graph(Negating(graph), graph_inputs(graph)).verdict == "fail"


def test_more_threads_than_any_machine_has_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="threads"):
        RuntimeOptions(threads=99999999)


def test_refused_inputs(tmp_path: Path) -> None:
    residual, mobile = (OnnxGraph.load(MODELS[name][0]) for name in ("residual", "mobile"))
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "text.npy").write_text("1 2 3")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ShapeError, match=r"dynamic axes.*--shape x="):
        graph_inputs(residual)
    with pytest.raises(ConfigurationError, match=r"no input of the graph.*x, offset"):
        graph_inputs(mobile, ["a.npy", "b.npy", "c.npy"])
    for name in ("torn.npy", "text.npy", "objects.npy", "missing.npy"):
        with pytest.raises(FileError, match=name):
            graph_inputs(mobile, [str(tmp_path / name)])
    for text in ("1x-3", "1,3", "axb"):
        with pytest.raises(ConfigurationError, match="1x3x224x224"):
            parse_shape(text)
    wrong = graph_inputs(residual, shapes=["2x4x64x64"])
    with pytest.raises(ShapeError, match="input 'x' has shape"):
        verify_graph(OnnxRuntimeGraph(residual), wrong)


# --- the command ----------------------------------------------------------------------------------


def invoke(*arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    result = CliRunner().invoke(app, ["verify", "--graph-only", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "residual.onnx"
    onnx.save(MODELS["residual"][0], path)
    code, output = invoke(str(path), "--shape", "x=1x3x64x64", "--json", str(tmp_path / "r.json"))
    assert code == 0
    assert "PASS" in output
    assert "BatchNormalization" in output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["verdict"] == "pass"
    assert len(report["nodes"]) == len(MODELS["residual"][0].graph.node)


def test_the_command_on_a_float16_model_declared_too_precise(tmp_path: Path) -> None:
    path = tmp_path / "mobile.onnx"
    onnx.save(MODELS["mobile, float16"][0], path)
    assert invoke(str(path))[0] == 0
    assert invoke(str(path), "--arithmetic", "float16")[0] == 0
    code, output = invoke(str(path), "--storage", "float32")
    assert code == 1
    assert "FAIL" in output


def test_the_command_without_a_model() -> None:
    with pytest.raises(ConfigurationError, match="--graph-only"):
        invoke()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (1, 3, 0, 4)])
def test_an_output_without_elements_passes(shape: tuple[int, ...]) -> None:
    build = onnx_models.GraphBuilder()
    model = build.model({"x": list(shape)}, build.node("Exp", "x"))
    verify_graph(
        OnnxRuntimeGraph(OnnxGraph.load(model)), {"x": np.zeros(shape, np.float32)}
    ).raise_on_failure()


# --- operators outside the vocabulary ---------------------------------------------------------------


def with_unknown() -> onnx.ModelProto:
    """A ReLU, a Scaler of ONNX's machine learning domain, an exponential of it, and a tangent beside."""
    floats = onnx.TensorProto.FLOAT
    scaler = {"offset": [0.25], "scale": [0.5], "domain": "ai.onnx.ml"}
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["r"]),
        onnx.helper.make_node("Scaler", ["r"], ["s"], name="scaler", **scaler),
        onnx.helper.make_node("Exp", ["s"], ["y"]),
        onnx.helper.make_node("Tanh", ["r"], ["z"]),
    ]
    x = onnx.helper.make_tensor_value_info("x", floats, [3, 8])
    outputs = [onnx.helper.make_tensor_value_info(name, floats, [3, 8]) for name in ("y", "z")]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    graph = onnx.helper.make_graph(nodes, "partly", [x], outputs)
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_what_is_unknown_is_not_judged_and_the_rest_is() -> None:
    graph = OnnxGraph.load(with_unknown(), partly=True)
    candidate = OnnxRuntimeGraph(graph, RuntimeOptions(threads=1))
    feeds = graph_inputs(graph)
    report = verify_graph(candidate, feeds)
    (item,) = report.inputs
    assert report.verdict == "pass"
    assert {row.name: row.verdict for row in item.nodes} == {
        **dict.fromkeys("ryz", "pass"),
        "s": "not judged",
    }
    assert {row.name: row.verdict for row in item.outputs} == {"y": "not judged", "z": "pass"}
    assert "3 of 4 results of nodes judged" in report.headline()
    assert "1 of 4 nodes are outside the vocabulary" in item.remarks[0]
    assert "ai.onnx.ml::Scaler ×1" in item.remarks[0]
    assert not any("no input reaches" in remark for remark in item.remarks)


@pytest.mark.parametrize("name", ["r", "y", "z"])
def test_a_wrong_node_beside_an_unknown_one_is_named(name: str) -> None:
    graph = OnnxGraph.load(with_unknown(), partly=True)
    candidate = OnnxRuntimeGraph(graph, RuntimeOptions(threads=1))
    tensors = candidate.capture(feeds := graph_inputs(graph))
    tensors[name] = one_element(tensors[name].copy())
    rows = judge_nodes(graph, feeds, tensors, candidate.declaration)
    assert next(row.name for row in rows if row.verdict == "fail") == name


def test_the_command_on_a_partly_known_graph(tmp_path: Path) -> None:
    onnx.save(with_unknown(), tmp_path / "partly.onnx")
    code, output = invoke(str(tmp_path / "partly.onnx"))
    assert code == 0
    assert "75.0% of the nodes are known" in " ".join(output.split())


# --- large models -----------------------------------------------------------------------------------


def test_a_model_too_large_for_one_message_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of 2 GiB is, with its data in a file: here what is large begins at 1 KiB."""
    path = tmp_path / "large.onnx"
    whole = OnnxGraph.load(MODELS["residual"][0])
    beside = {"save_as_external_data": True, "location": "large.data", "size_threshold": 64}
    onnx.save(whole.model, path, **beside)
    graph = OnnxGraph.load(path)
    monkeypatch.setattr(large_models, "LARGEST_MESSAGE", 1024)
    before = graph.model.SerializeToString(deterministic=True)
    feeds = graph_inputs(graph, shapes=["1x3x32x32"])
    for timeout in (None, 60.0):
        report = verify_graph(runtime_graph(graph, RuntimeOptions(threads=1), timeout=timeout), feeds)
        report.raise_on_failure()
        assert len(report.inputs[0].nodes) == len(whole.nodes)
    assert graph.model.SerializeToString(deterministic=True) == before
