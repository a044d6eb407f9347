"""Files of integers throughout, LiteRT's, OpenVINO's and MNN's, judged by what they mean; and wrong ones."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import narrow_network
import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, weights
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.integer_graph import IntegerGraph, integer_graph
from conformance.candidates.kinds import Request, make
from conformance.conversion.litert_model import read_litert
from conformance.graph.onnx_export import export
from conformance.judge.any_graph import verify_graph
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError, ShapeError
from refimpl.inference import preprocess
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture

pytestmark = pytest.mark.runtimes
RUNTIMES = ["litert", "mnn", "openvino"]


@functools.cache
def picture() -> Array:
    """Return a rendered picture on which no range was taken, float32."""
    return preprocess(render_picture(128, 128, 20), sizing="native")[0].astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network as an ONNX file, in a folder for what becomes of it."""
    place = tmp_path_factory.mktemp("integers")
    onnx.save(export(narrow_network.network(), picture()), place / "m.onnx")
    return place


@functools.cache
def converted(folder: Path, runtime: str) -> Path:
    """Return the network of integers, as the runtime's own tools write it."""
    converter = CONVERTERS[runtime]
    return convert(converter, folder / "m.onnx", folder / f"m{converter.suffixes[0]}", "int8-static")[0]


def candidate(path: Path, said: str = "") -> IntegerGraph:
    runtime = {".tflite": "litert", ".mnn": "mnn", ".xml": "openvino"}[path.suffix]
    return integer_graph(path, f"{runtime}:weights=int8-static{said}")


def judged(made: IntegerGraph) -> Report:
    (name,) = made.graph.inputs
    return verify_graph(made, {name: picture()})


@pytest.mark.parametrize(("runtime", "said"), [("litert", ""), ("litert", ",xnnpack=off"), ("openvino", "")])
def test_a_right_file_passes(folder: Path, runtime: str, said: str) -> None:
    report = judged(candidate(converted(folder, runtime), said))
    assert report.verdict != "fail", report.headline()
    rows = report.leading.nodes
    assert len(rows) > 100
    assert sum(row.verdict == "pass" for row in rows) > 0.9 * len(rows)


def test_of_a_right_file_in_mnn_what_it_computes_wrongly_is_named(folder: Path) -> None:
    """On x86 its max pooling compares bytes that 128 was added to as if they had a sign."""
    made = candidate(converted(folder, "mnn"))
    item = judged(made).leading
    rows = item.nodes
    assert len(rows) > 100
    assert sum(row.verdict == "pass" for row in rows) > 0.9 * len(rows)
    failed = [row.name for row in rows if row.verdict == "fail"]
    (name,) = made.graph.inputs
    found = made.capture({name: picture()})
    for row in failed:
        pool = made.graph.producer(made.graph.producer(row).inputs[0])
        assert pool.op_type == "MaxPool"
        given = found[made.graph.producer(pool.inputs[0]).inputs[0]]
        flipped, side = given ^ np.int8(-128), pool.attributes["kernel_shape"][0]
        windows = np.lib.stride_tricks.sliding_window_view(flipped, (side, side), (2, 3))
        most = windows[:, :, ::side, ::side].max(axis=(-2, -1))
        np.testing.assert_array_equal(found[row], most ^ np.int8(-128))
    told = [each for each in item.remarks if "right if bytes of 128 more are compared as signed" in each]
    assert len(told) == len(failed)


def test_no_output_is_lost_in_mnn(folder: Path) -> None:
    """Its quantiser forgets those that other operators take."""
    wanted = {each.name for each in onnx.load(folder / "m.onnx").graph.output}
    made = candidate(converted(folder, "mnn"))
    (name,) = made.graph.inputs
    assert made.run({name: picture()}).keys() == wanted


def test_a_wrong_scale_in_mnn_is_found_where_it_is(folder: Path) -> None:
    made = candidate(converted(folder, "mnn"))
    name = list(made.grids)[20]
    scale = next(node for node in made.graph.nodes if node.outputs[0] == name).inputs[1]
    made.graph.initializers[scale] = made.graph.initializers[scale] * np.float32(1.05)
    fault = judged(made).leading.first_fault
    assert fault is not None
    assert fault.step == name


def test_a_model_in_mnn_whose_input_has_no_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    content = converted(folder, "mnn").read_bytes()
    shape, other = (np.array(each, "<i4").tobytes() for each in ((4, 1, 3, 128, 128), (4, -1, 3, 128, 128)))
    assert content.count(shape) == 1
    (tmp_path / "m.mnn").write_bytes(content.replace(shape, other))
    with pytest.raises(ShapeError, match="fix the sides of its input"):
        candidate(tmp_path / "m.mnn")


def wrong(path: Path, target: Path) -> tuple[Path, str]:
    """Copy a ``.tflite`` with some of a convolution's weights ten steps off; and its result."""
    model, content = read_litert(path), bytearray(path.read_bytes())
    layer = [each for each in model.operators if each.kind == "CONV_2D"][5]
    held = model.constants[layer.inputs[1]]
    begin = content.find(held.tobytes())
    assert begin > 0
    count = held.size // 8
    moved = np.frombuffer(bytes(content[begin : begin + count]), np.int8)
    content[begin : begin + count] = np.where(moved > 0, moved - 10, moved + 10).astype(np.int8).tobytes()
    target.write_bytes(content)
    return target, model.names[layer.outputs[0]]


def test_a_wrong_weight_is_found_where_it_is(folder: Path, tmp_path: Path) -> None:
    """What runs has another weight than what it is judged by."""
    path, place = wrong(converted(folder, "litert"), tmp_path / "m.tflite")
    made, right = candidate(path), candidate(converted(folder, "litert"))
    made.graph = right.graph
    report = judged(made)
    assert report.verdict == "fail"
    fault = report.leading.first_fault
    assert fault is not None
    assert fault.step == place


def test_a_wrong_scale_is_found_where_it_is(folder: Path) -> None:
    """OpenVINO computes one range of eight bits, and is judged by one that is a twentieth wider."""
    made = candidate(converted(folder, "openvino"))
    name = list(made.grids)[20]
    scale = next(node for node in made.graph.nodes if node.outputs[0] == name).inputs[1]
    made.graph.initializers[scale] = made.graph.initializers[scale] * np.float32(1.05)
    report = judged(made)
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == name


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_of_integers_is_not_judged_as_the_network(folder: Path, runtime: str) -> None:
    path = converted(folder, runtime)
    with pytest.raises(ConfigurationError, match="another than the network; judge it by itself"):
        make(f"{runtime}:{path},weights=int8-static", Request("", CONFIG, weights()))
    with pytest.raises(ConfigurationError, match="has weights of int8-static: declare weights=int8-static"):
        make(f"{runtime}:{path}", Request("", CONFIG, weights()))


def test_a_file_of_floats_is_not_judged_as_integers(folder: Path) -> None:
    path = convert(CONVERTERS["openvino"], folder / "m.onnx", folder / "float.xml")[0]
    with pytest.raises(ConfigurationError, match="has no weights of int8-static"):
        candidate(path)
    with pytest.raises(ConfigurationError, match="if all of it is of integers: declare weights=int8-static"):
        integer_graph(path, "openvino:threads=1")
    with pytest.raises(ConfigurationError, match="is a model of openvino; give --candidate openvino"):
        integer_graph(path, "litert:weights=int8-static")


def test_the_command_judges_a_file_by_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".xml", ".bin"):
        shutil.copy(converted(folder, "openvino").with_suffix(suffix), tmp_path)
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", picture())
    run = functools.partial(CliRunner().invoke, conformance.cli.app)
    line = ["verify", "m.xml", "--graph-only", "--input", "p.npy"]
    result = run([*line, "--candidate", "openvino:weights=int8-static"])
    assert "results of nodes judged" in result.output
    assert result.exit_code == 0, result.output
    assert isinstance(run(line).exception, ConfigurationError)
