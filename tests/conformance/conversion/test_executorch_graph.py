"""ExecuTorch's program read as a graph: what the converter kept, and that ExecuTorch computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import pytest
from changed_files import changed, with_a_slice_off
from converted_files import beside_its_source, read
from executorch_files import SHOWN, SMALL, W, meaning, small
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.kinds import PHONE_RUNTIMES
from conformance.conversion.executorch_model import ExecutorchProgram, read_executorch
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import FileError, ShapeError, UnsupportedOperationError

runtimes = pytest.mark.runtimes
SHAPE = (1, 3, 128, 128)
IMAGES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def test_a_small_one_means_what_it_was_made_from() -> None:
    report = beside_its_source(SMALL, small())
    report.raise_on_failure()
    assert len(report.leading.steps) >= 15


CHANGES: dict[str, tuple[bytes, bytes, str]] = {
    "weight": (W["w1"].tobytes()[:96], (W["w1"].ravel()[:24] * np.float32(1.05)).tobytes(), "conv"),
    "bias": (W["b1"].tobytes(), W["b2"].tobytes(), "conv"),
    "kernel order": (W["w2"].tobytes(), W["w2"].swapaxes(2, 3).tobytes(), "deep"),
    "limit": (np.float64(6).tobytes(), np.float64(7).tobytes(), "six"),
    "scale": (W["scale"].tobytes(), W["shift"].tobytes(), "normal"),
    "matrix": (W["w3"].tobytes(), W["w3"].reshape(6, 18).T.tobytes(), "product"),
    "slope": (np.float32(0.2).tobytes() + bytes(12), np.float32(1 / 6).tobytes() + bytes(12), "gate"),
}
"""What is changed in the file → bytes, others, and the step that it shows at."""


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_named_where_it_is(tmp_path: Path, kind: str) -> None:
    *change, step = CHANGES[kind]
    report = beside_its_source(changed(SMALL, tmp_path, *change), small())
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == step


@pytest.mark.parametrize("name", SHOWN)
def test_slices_of_weights_are_named_where_they_are(tmp_path: Path, name: str) -> None:
    weight = W[name]
    for other in with_a_slice_off(weight, name):
        path = changed(SMALL, tmp_path, weight.tobytes(), other.tobytes())
        report = beside_its_source(path, small())
        assert report.leading.first_fault is not None
        assert report.leading.first_fault.step == SHOWN[name]


def with_call(number: int, **parts: Any) -> ExecutorchProgram:
    """Return the small program with another instruction in one's place."""
    program = read_executorch(SMALL)
    call = replace(program.calls[number], **parts)
    return replace(program, calls={**program.calls, number: call})


def test_arguments_in_another_order_are_named() -> None:
    convolution = read_executorch(SMALL).calls[0]
    first, second, *others = convolution.arguments
    graph = OnnxGraph.load(meaning(with_call(0, arguments=(second, first, *others))))
    with pytest.raises(ShapeError, match=r"aten::convolution.out_0"):
        EvaluatedGraph(graph).run({"x": np.zeros((1, 4, 8, 12), np.float32)})


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (with_call(1, kind="aten::frobnicate.out"), "what aten::frobnicate.out means is not written down"),
        (with_call(1, delegated=True), "what aten::relu.out computes is not written down"),
        (replace(read_executorch(SMALL), jumps=2), "its 2 jumps and moves are not written down"),
    ],
)
def test_what_is_not_known_is_named(program: ExecutorchProgram, said: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=said):
        meaning(program)


def test_a_call_without_its_arguments_is_named() -> None:
    call = read_executorch(SMALL).calls[1]
    with pytest.raises(FileError, match=r"aten::relu.out_1: it is malformed"):
        meaning(with_call(1, arguments=call.arguments[1:]))


def test_an_operand_that_is_not_made_is_named() -> None:
    program = read_executorch(SMALL)
    calls = {number: call for number, call in program.calls.items() if number != 1}
    with pytest.raises(FileError, match=r"aten::convolution.out_2: it is malformed: KeyError"):
        meaning(replace(program, calls=calls))


def test_a_source_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"takes \[\(1, 4, 8, 12\)\], its source \[\(1, 4, 8, 8\)\]"):
        meaning(read_executorch(SMALL), 1, 4, 8, 8)


# --- beside ExecuTorch itself ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def pte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network's ``.pte``; the ONNX file lies beside it."""
    folder = tmp_path_factory.mktemp("executorch")
    onnx.save(export(narrow_network.network(), IMAGES), folder / "m.onnx")
    return convert(CONVERTERS["executorch"], folder / "m.onnx", folder / "m.pte")[0]


@runtimes
def test_a_converted_network_means_what_it_was_made_from(pte: Path) -> None:
    report = beside_its_source(pte, pte.with_suffix(".onnx"))
    report.raise_on_failure()
    assert len(report.leading.steps) > 290


@runtimes
@pytest.mark.parametrize("which", ["small", "narrow"])
def test_executorch_computes_what_its_file_is_read_as(pte: Path, which: str) -> None:
    """Every tensor, in ExecuTorch's own kernels and by our evaluation of the graph."""
    path, source = (SMALL, small()) if which == "small" else (pte, pte.with_suffix(".onnx"))
    graph, before = read(path, source)
    ((name, info),) = before.declared.items()
    images = np.random.default_rng(0).normal(size=info.shape).astype(np.float32)
    own = PHONE_RUNTIMES["executorch"].candidate(str(path)).capture(images)
    ours = EvaluatedGraph(graph).capture({name: images})
    shared = own.keys() & ours.keys()
    assert len(shared) > (20 if which == "small" else 400)
    for name in shared:
        assert own[name].shape == ours[name].shape, name
        assert np.abs(own[name] - ours[name]).max() <= 1e-3 * max(np.abs(ours[name]).max(), 1e-3), name


NORMS = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[1, 6, 5, 4] x) => (float[2, 12, 5, 4] y)
{
  normal = InstanceNormalization <epsilon = 0.01> (x, scale, shift)
  y = Tile (normal, counts)
}
"""


@runtimes
def test_norms_of_an_inputs_own_and_repeats_are_read(tmp_path: Path) -> None:
    """Each channel by its own mean; and along two axes."""
    rng = np.random.default_rng(4)
    model = onnx.parser.parse_model(NORMS)
    held = {"scale": rng.normal(size=6).astype(np.float32), "shift": rng.normal(size=6).astype(np.float32)}
    held["counts"] = np.array([2, 2, 1, 1])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(each, name) for name, each in held.items())
    onnx.save(model, tmp_path / "m.onnx")
    path = convert(CONVERTERS["executorch"], tmp_path / "m.onnx", tmp_path / "m.pte")[0]
    kinds = {call.kind.partition(".")[0] for call in read_executorch(path).calls.values()}
    assert {"aten::_native_batch_norm_legit", "aten::repeat"} <= kinds
    beside_its_source(path, tmp_path / "m.onnx").raise_on_failure()


def test_the_command_takes_a_pte(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "small.onnx")
    line = ["verify", str(SMALL), "--against", str(tmp_path / "small.onnx"), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output
