"""ncnn's files read as a graph: what the converter kept of the meaning, and that ncnn computes the same."""

from __future__ import annotations

from pathlib import Path

import narrow_network
import numpy as np
import onnx
import pytest
from narrow_network import FIELDS, weights
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.kinds import PHONE_RUNTIMES
from conformance.conversion.ncnn_graph import ncnn_graph
from conformance.conversion.ncnn_model import NcnnLayer, read_ncnn
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from conformance.reports.report import Report
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import UnsupportedOperationError

runtimes = pytest.mark.runtimes
SHAPE = (1, 3, 128, 128)
IMAGES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def converted(folder: Path, network: MobileInst) -> Path:
    """Export a network and convert it; the ONNX file lies beside the ``.param``."""
    onnx.save(export(network, IMAGES), folder / "m.onnx")
    return convert(CONVERTERS["ncnn"], folder / "m.onnx", folder / "m.param")[0]


def read(param: Path) -> tuple[OnnxGraph, OnnxGraph]:
    """Return what ncnn's files mean, and their source."""
    before = OnnxGraph.load(param.with_suffix(".onnx"))
    return OnnxGraph.load(ncnn_graph(read_ncnn(param), {"images": SHAPE}, list(before.outputs))), before


def beside_its_source(param: Path) -> Report:
    after, before = read(param)
    return verify_against(after, before, {"noise": {"images": IMAGES}})


@pytest.fixture(scope="module")
def param(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network's ``.param``."""
    return converted(tmp_path_factory.mktemp("ncnn"), narrow_network.network())


@runtimes
def test_a_converted_network_means_what_it_was_made_from(param: Path) -> None:
    beside_its_source(param).raise_on_failure()


@runtimes
def test_ncnn_computes_what_its_files_are_read_as(param: Path) -> None:
    """Every blob that both have, in ncnn's own kernels and by our evaluation of the graph."""
    own = PHONE_RUNTIMES["ncnn"].candidate(f"{param},winograd=off").capture(IMAGES)
    ours = EvaluatedGraph(read(param)[0]).capture({"images": IMAGES})
    shared = own.keys() & ours.keys()
    assert len(shared) > 200
    for name in shared:
        assert own[name].shape == ours[name].shape, name
        assert np.abs(own[name] - ours[name]).max() <= 1e-3 * max(np.abs(ours[name]).max(), 1e-3), name


@runtimes
def test_a_weight_changed_on_the_way_is_found(param: Path, tmp_path: Path) -> None:
    content = bytearray(param.with_suffix(".bin").read_bytes())
    kernel = np.sort(weights()["instance_decoder.class_head.weight"].ravel())
    layers = read_ncnn(param)
    before = 0
    for layer in layers:
        for array in layer.weights:
            if array.size == kernel.size and np.array_equal(np.sort(array.ravel()), kernel):
                before = content.find(array.tobytes())
    assert before
    changed = np.frombuffer(bytes(content[before : before + 64]), np.float32) * np.float32(1.05)
    content[before : before + 64] = changed.tobytes()
    for name in ("m.param", "m.onnx"):
        (tmp_path / name).write_bytes(param.with_name(name).read_bytes())
    (tmp_path / "m.bin").write_bytes(content)
    report = beside_its_source(tmp_path / "m.param")
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == "instance_decoder.class_head/MatMul"


@runtimes
def test_the_axes_that_pnnx_loses_of_a_sum_are_found(tmp_path: Path) -> None:
    """SparseInst divides by a sum along the last axis; in ncnn's file no axis is summed."""
    config = MobileInstConfig.preset("sparseinst-topformer-tiny", **FIELDS)
    drawn = Weights.seeded(config, seed=0).astype(np.float32)
    report = beside_its_source(converted(tmp_path, MobileInst(config, drawn)))
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step in ("decoder.inst_branch/ReduceSum", "decoder.inst_branch/Div")


@runtimes
def test_the_command_takes_a_param(param: Path) -> None:
    line = ["verify", str(param), "--against", str(param.with_suffix(".onnx")), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (NcnnLayer("Frobnicate", "x", ("a",), ("out0",), {}), "what Frobnicate means is not written down"),
        (NcnnLayer("Softmax", "x", ("a",), ("out0",), {0: 1}), "a Softmax whose axis counts the batch"),
        (NcnnLayer("Pooling", "x", ("v",), ("out0",), {4: 1}), "Pooling of 1 axes"),
    ],
)
def test_what_is_not_known_is_named(layer: NcnnLayer, said: str) -> None:
    given = [
        NcnnLayer("Input", "a", (), ("a",), {}),
        NcnnLayer("MemoryData", "v", (), ("v",), {0: 2}, [np.zeros(2, np.float32)]),
    ]
    with pytest.raises(UnsupportedOperationError, match=said):
        ncnn_graph([*given, layer], {"images": SHAPE}, ["y"])


def test_what_ncnns_converter_leaves_as_it_is_is_named(tmp_path: Path) -> None:
    lines = ["7767517", "2 2", "Input in0 0 1 in0", "nn.InstanceNorm1d norm 1 1 in0 out0 0=4"]
    (tmp_path / "m.param").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(UnsupportedOperationError, match="InstanceNorm1d: no layers of ncnn"):
        read_ncnn(tmp_path / "m.param")
