"""Qualcomm's own emulation of its NPU: right models pass, wrong ones are found where they are wrong."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, FIELDS, picture, weights
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.onnx_runtime import PLUGINS, OnnxRuntimeGraph
from conformance.candidates.qnn import CHIPS, ON_NPU, Npu, NpuCandidate, NpuGraph, npu_graph
from conformance.candidates.qnn_conversion import check_compiled
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import quantized_for_npu
from conformance.judge.any_graph import verify_graph
from conformance.judge.network import verify
from conformance.judge.quantized import judge_units
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import CandidateError, ConfigurationError, FileError, MissingDependencyError

pytestmark = pytest.mark.runtimes

NPU = "snapdragon-8-gen-2"


@functools.cache
def own_model() -> onnx.ModelProto:
    """Return the narrow network as a model."""
    return export(narrow_network.network(), picture())


def judged(model: onnx.ModelProto, chip: str = NPU) -> Any:
    """Judge a model of the narrow network on the NPU."""
    candidate = NpuCandidate(OnnxGraph.load(model), Npu.parse(chip))
    return verify(candidate, CONFIG, weights(), {"scene": picture()})


@pytest.mark.parametrize("chip", ["snapdragon-8-gen-2,strict", "htp_arch=79,soc_model=69"])
def test_a_right_model_passes_with_every_step_judged(chip: str) -> None:
    report = judged(own_model(), chip)
    report.raise_on_failure()
    assert all(row.verdict == "pass" for row in report.inputs[0].steps)
    assert report.inputs[0].nodes


def test_seaformer_passes() -> None:
    config = MobileInstConfig.preset("seaformer-tiny", **FIELDS)
    drawn = Weights.seeded(config, seed=1).astype(np.float32)
    graph = OnnxGraph.load(export(MobileInst(config, drawn), picture()))
    report = verify(NpuCandidate(graph, Npu.parse(NPU)), config, drawn, {"scene": picture()})
    report.raise_on_failure()


@pytest.mark.parametrize(
    "weight", ["mask_decoder.lateral.1.conv.weight", "backbone.tpm.layer3.conv.0.c.weight"]
)
def test_a_weight_off_in_a_slice_is_found_at_its_layer(weight: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(own_model())
    (tensor,) = (each for each in model.graph.initializer if each.name == weight)
    values = np.array(numpy_helper.to_array(tensor))
    values[: max(1, len(values) // 4)] *= 1.05
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    report = judged(model)
    (node,) = (each for each in own_model().graph.node if weight in each.input)
    assert report.verdict == "fail"
    assert node.name in report.inputs[0].first_fault.candidate_nodes


def graph_of(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> NpuGraph:
    """Return a graph of one input x, 1×3×8×8, on the NPU."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return NpuGraph(OnnxGraph.load(model), Npu.parse(NPU).options, ON_NPU)


RELU = helper.make_node("Relu", ["x"], ["y"], "relu")
FED = {"x": np.random.default_rng(3).normal(size=(1, 3, 8, 8)).astype(np.float32)}


def test_biases_that_are_subnormal_in_half_are_no_fault() -> None:
    """The NPU takes a subnormal m · 2⁻²⁴ for (1 + m · 2⁻¹⁰) · 2⁻¹⁵, which shows where all else is 0."""
    random = np.random.default_rng(0)
    weight = (random.standard_normal((64, 1, 3, 3)) / 2).astype(np.float32)
    bias = (random.standard_normal(64) * 1e-4).astype(np.float32)
    picture = np.maximum(random.standard_normal((1, 64, 64, 96)), 0).astype(np.float32)
    picture[:, :, 20:50, 30:70] = 0
    held = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], group=64, pads=[1] * 4, strides=[2, 2], kernel_shape=[3, 3]
    )
    ends = [helper.make_tensor_value_info("x", 1, picture.shape), onnx.ValueInfoProto(name="y")]
    made = helper.make_graph([node], "depthwise", ends[:1], ends[1:], held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    candidate = npu_graph(OnnxGraph.load(model), Npu.parse("snapdragon-8-gen-2"))
    (row,) = verify_graph(candidate, {"x": picture}).inputs[0].nodes
    assert row.verdict == "pass", row
    nothing = candidate.run({"x": picture})["y"][0, :, 14, 20]
    small = np.abs(bias) < 2.0**-14
    taken = np.sign(bias) * (np.abs(bias) + 2**-14) / 2
    np.testing.assert_allclose(nothing[small], taken[small], rtol=0, atol=2**-24)


def test_nodes_that_fall_back_to_the_cpu_are_named_and_refused_if_strict() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], "relu"), helper.make_node("Erf", ["a"], ["y"], "erf")]
    on_npu = graph_of(*nodes)
    report = verify_graph(on_npu, FED)
    report.raise_on_failure()
    assert any("1 node fell back" in remark and "erf (Erf)" in remark for remark in report.inputs[0].remarks)
    strict = NpuGraph(on_npu.graph, Npu.parse(f"{NPU},strict").options, ON_NPU)
    with pytest.raises(ConfigurationError, match="strict"):
        strict.run(FED)


@pytest.mark.parametrize("chip", ["snapdragon-778g", "htp_arch=73,soc_model=1"])
def test_a_chip_that_refuses_float_models_is_bad_input(chip: str) -> None:
    candidate = NpuCandidate(OnnxGraph.load(own_model()), Npu.parse(chip))
    with pytest.raises(ConfigurationError, match=r"refuses the model.*htp_arch 69 or newer"):
        verify(candidate, CONFIG, weights(), {"scene": picture()})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "snapdragon-9",
        "htp_arch=73",
        "htp_arch=v73,soc_model=43",
        "htp_arch=99,soc_model=43",
        f"{NPU},no_such=1",
        "strict",
    ],
)
def test_what_names_no_chip_lists_those_there_are(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Npu.parse(text)


def test_a_process_that_takes_too_long_is_a_problem_of_the_candidate() -> None:
    slow = graph_of(RELU)
    slow.timeout = 0.001
    with pytest.raises(CandidateError, match="hangs"):
        slow.run(FED)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLUGINS, "QNNExecutionProvider", ("no_such_module", "qnn"))
    with pytest.raises(MissingDependencyError, match=r"mobileinst-reference\[qnn\]"):
        _ = Npu.parse(NPU).options


def test_another_qnn_is_refused_if_older_and_said_if_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.import_module("onnxruntime_qnn").build_and_package_info
    monkeypatch.setattr(package, "qnn_version", "2.50.0")
    with pytest.raises(ConfigurationError, match=r"QNN 2\.50 is older than 2\.51"):
        _ = Npu.parse(NPU).options
    monkeypatch.setattr(package, "qnn_version", "3.2.1")
    assert any("this is 3.2" in remark for remark in graph_of(RELU).remarks)


def test_chips_are_versions_and_numbers() -> None:
    assert all(arch.isdecimal() and soc.isdecimal() for arch, soc in CHIPS.values())
    assert len({soc for _, soc in CHIPS.values()}) == len(CHIPS)


# --- quantised ------------------------------------------------------------------------------------


@functools.cache
def quantized(quantization: str) -> onnx.ModelProto:
    """Return the narrow network quantised, its ranges those of its picture."""
    folded = MobileInst(CONFIG, weights().folded().astype(np.float32))
    return quantized_for_npu(export(folded, picture()), [picture()], quantization)


def judged_graph(model: onnx.ModelProto) -> Any:
    """Judge any graph of the network's input on the NPU."""
    return verify_graph(npu_graph(OnnxGraph.load(model), Npu.parse(NPU)), {"images": picture()}).leading


@pytest.mark.parametrize("quantization", ["a8w8", "a16w8"])
def test_a_quantised_network_is_judged_result_by_result(quantization: str) -> None:
    rows = judged_graph(quantized(quantization)).nodes
    judged_rows = [row for row in rows if row.verdict != "not judged"]
    assert len(judged_rows) > 0.98 * len(rows)
    assert {row.operation for row in judged_rows if row.verdict == "fail"} == set()


@pytest.mark.parametrize("quantization", ["a8w8", "a16w8"])
def test_a_relu_is_not_lost_by_quantising(quantization: str) -> None:
    """ONNX Runtime leaves it to the range that begins at zero; what a product takes must keep that range."""
    graph = OnnxRuntimeGraph(OnnxGraph.load(quantized(quantization)))
    assert graph.run({"images": picture()})["mask_features"].min() == 0


def test_a_scale_that_is_off_is_found_at_its_layer() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(quantized("a8w8"))
    node = next(node for node in model.graph.node if node.op_type == "Conv" and "lateral.1" in node.name)
    (dequantize,) = (each for each in model.graph.node if node.input[1] in each.output)
    (scale,) = (each for each in model.graph.initializer if each.name == dequantize.input[1])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.1), scale.name))
    npu = npu_graph(OnnxGraph.load(model), Npu.parse(NPU))
    captured = npu.capture({"images": picture()})
    rows, _ = judge_units(OnnxGraph.load(quantized("a8w8")), {"images": picture()}, captured)
    assert [row.candidate for row in rows if row.verdict == "fail" and row.operation == "Conv"] == [node.name]


def test_a_quantised_model_is_no_candidate_for_the_network() -> None:
    with pytest.raises(ConfigurationError, match="--graph-only"):
        NpuCandidate(OnnxGraph.load(quantized("a8w8")), Npu.parse(NPU))


def small(kind: str) -> onnx.ModelProto:
    """Return a convolution, and an operator behind it."""
    rng = np.random.default_rng(0)
    held = numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node(kind, ["a"], ["y"], "last"),
    ]
    ends = (
        (helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8]),),
        (helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 8, 8]),),
    )
    graph = helper.make_graph(nodes, "g", *ends, [held])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_compiled_model_computes_the_same_bits(tmp_path: Path) -> None:
    onnx.save(small("Relu"), tmp_path / "m.onnx")
    made, record = convert(CONVERTERS["qnn"], tmp_path / "m.onnx", tmp_path / "m.qnn.onnx", delegate=NPU)
    assert [node.op_type for node in onnx.load(made).graph.node] == ["EPContext"]
    assert json.loads(record.read_text())["versions"].keys() == {"onnxruntime-qnn", "onnxruntime"}
    x = {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    sessions = (Npu.parse(NPU).options.session(onnx.load(each)) for each in (tmp_path / "m.onnx", made))
    (before,), (after,) = (session.run(None, x) for session in sessions)
    np.testing.assert_array_equal(before, after)
    assert np.abs(before).max() > 1


@pytest.mark.parametrize(
    ("kind", "chip", "said"),
    [
        ("Relu", None, "qnn compiles for one chip: name it by --delegate: snapdragon-778g, "),
        ("Relu", "snapdragon-9000", "qnn has no delegate 'snapdragon-9000'; known: snapdragon-778g"),
        ("Det", NPU, "the NPU lacks some of the model's nodes"),
    ],
)
def test_what_is_not_compiled_is_named(tmp_path: Path, kind: str, chip: str | None, said: str) -> None:
    onnx.save(small(kind), tmp_path / "m.onnx")
    with pytest.raises((ConfigurationError, FileError), match=said):
        convert(CONVERTERS["qnn"], tmp_path / "m.onnx", tmp_path / "m.qnn.onnx", delegate=chip)
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("content", [b"", b"half a file", small("Relu").SerializeToString()])
def test_what_is_not_compiled_is_no_conversion(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.qnn.onnx").write_bytes(content)
    with pytest.raises(FileError, match=r"EPContext|cut off"):
        check_compiled(tmp_path / "m.qnn.onnx")
