"""Candidates of every kind beside any graph: dumps with and without shapes, functions, modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from typer.testing import CliRunner

from conformance.bounds import FLOAT16
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.graph_dumps import GraphDumps
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.candidates.plain import PythonCandidate
from conformance.cli import app
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_beside
from conformance.pictures.graph_inputs import graph_inputs
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError, FileError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

MODEL = onnx_models.mobile_network()
GRAPH = OnnxGraph.load(MODEL)
FEEDS = graph_inputs(GRAPH)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    """Return what ONNX Runtime computes."""
    return OnnxRuntimeGraph(GRAPH).capture(FEEDS)


def judged(candidate: object) -> Report:
    return verify_beside(candidate, GRAPH, {"random": FEEDS}, names=("candidate", "graph"))  # type: ignore[arg-type]


def first_wrong(report: Report) -> str:
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    return report.leading.first_fault.step


def write_raw(folder: Path, arrays: Mapping[str, Array]) -> Path:
    """Write tensors as Qualcomm's tools do: channels last, no shape, names without their signs."""
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        last = np.moveaxis(array, 1, -1) if array.ndim == 4 else array
        np.ascontiguousarray(last).astype("<f4").tofile(folder / f"{re.sub(r'[^A-Za-z0-9]', '_', name)}.raw")
    return folder


def altered(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Return the tensors with one element of one wrong."""
    wrong = arrays[name].copy()
    wrong.flat[wrong.size // 2] += 0.1
    return {**arrays, name: wrong}


def test_dumps_are_found_by_name(tensors: dict[str, Array], tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", **tensors)
    report = judged(GraphDumps(tmp_path, GRAPH))
    report.raise_on_failure()
    assert {row.verdict for row in report.leading.steps} == {"pass"}
    np.savez(tmp_path / "all.npz", **altered(tensors, "conv_16"))
    assert first_wrong(judged(GraphDumps(tmp_path, GRAPH))) == "conv_16"


def test_dumps_are_found_by_value(tensors: dict[str, Array], tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", **{f"t{place}": x for place, x in enumerate(tensors.values())})
    report = judged(GraphDumps(tmp_path, GRAPH))
    report.raise_on_failure()
    assert {row.verdict for row in report.leading.steps} == {"pass"}


def test_raw_dumps_have_the_shapes_of_the_graph(tensors: dict[str, Array], tmp_path: Path) -> None:
    write_raw(tmp_path / "right" / "Result_0", tensors)
    report = judged(GraphDumps(tmp_path / "right", GRAPH))
    report.raise_on_failure()
    assert {row.verdict for row in report.leading.steps} == {"pass"}
    write_raw(tmp_path / "wrong" / "Result_0", altered(tensors, "add_25"))
    assert first_wrong(judged(GraphDumps(tmp_path / "wrong", GRAPH))) == "add_25"


def test_names_with_slashes_are_folders(tensors: dict[str, Array], tmp_path: Path) -> None:
    """As `snpe-net-run` writes them; here of one tensor, and the rest as it is."""
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"block/{name}" if name == "conv_16" else name for name in names]
    folder = write_raw(tmp_path / "Result_0", tensors)
    (folder / "block").mkdir()
    (folder / "conv_16.raw").rename(folder / "block" / "conv_16.raw")
    graph = OnnxGraph.load(model)
    report = verify_beside(GraphDumps(tmp_path, graph), graph, {"random": FEEDS})
    assert next(row for row in report.leading.steps if row.name == "block/conv_16").verdict == "pass"


def test_a_raw_file_of_another_length_is_named(tensors: dict[str, Array], tmp_path: Path) -> None:
    folder = write_raw(tmp_path / "Result_0", tensors)
    with (folder / "conv_16.raw").open("r+b") as file:
        file.truncate(6140)
    with pytest.raises(FileError, match=r"conv_16\.raw has 6140 bytes.*'conv_16' of shape \(1, 24, 8, 8\)"):
        judged(GraphDumps(tmp_path, GRAPH))


def test_dumps_of_another_model_are_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "Result_0", {"other": np.zeros((1, 7, 5, 5))})
    with pytest.raises(FileError, match="of another model"):
        judged(GraphDumps(tmp_path, GRAPH))


def test_one_of_several_runs_must_be_named(tensors: dict[str, Array], tmp_path: Path) -> None:
    for run in ("Result_0", "Result_1"):
        write_raw(tmp_path / run, tensors)
    with pytest.raises(FileError, match="holds 2 runs"):
        GraphDumps(tmp_path, GRAPH)
    judged(GraphDumps(tmp_path / "Result_1", GRAPH)).raise_on_failure()


def test_dumps_of_another_input_are_refused(tensors: dict[str, Array], tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", **{**tensors, "x": FEEDS["x"] + 1})
    assert "of another input" in judged(GraphDumps(tmp_path, GRAPH)).headline()


def test_a_function_is_called_with_the_inputs_in_order() -> None:
    runtime = OnnxRuntimeGraph(GRAPH)

    def function(*arrays: Array) -> list[Array]:
        return list(runtime.run(dict(zip(FEEDS, arrays, strict=True))).values())

    judged(PythonCandidate(function)).raise_on_failure()
    wrong = judged(PythonCandidate(lambda *arrays: [1.1 * x for x in function(*arrays)]))
    assert first_wrong(wrong) in GRAPH.outputs


def test_a_graph_in_another_precision() -> None:
    report = judged(EvaluatedGraph(GRAPH, FLOAT16))
    report.raise_on_failure()
    assert max(row.utilisation or 0 for row in report.leading.steps) > 0.1


def test_on_the_command_line(
    tensors: dict[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(MODEL, "m.onnx")
    write_raw(Path("out/Result_0"), tensors)
    Path("code.py").write_text("def crash(*images):\n    return {}['no']\n\n\nobject = 3\n")

    def verify(candidate: str) -> object:
        words = ["verify", "m.onnx", "--graph-only", "--candidate", candidate, "--no-cache"]
        return CliRunner().invoke(app, words)

    assert verify("dumps:out").exit_code == 0  # type: ignore[attr-defined]
    assert verify("numpy:float32").exit_code == 0  # type: ignore[attr-defined]
    crashed = verify("python:code.py:crash")
    assert crashed.exit_code == 1  # type: ignore[attr-defined]
    assert "it crashes: KeyError: 'no' (code.py:2)" in crashed.stdout  # type: ignore[attr-defined]
    uncallable = verify("python:code.py:object").exception  # type: ignore[attr-defined]
    assert isinstance(uncallable, ConfigurationError)
    assert "int, which cannot be called" in str(uncallable)
