"""A failing step as a folder: complete, minimal, and shown again by the command in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import onnxruntime
import pytest
from typer.testing import CliRunner

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.cli import app
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.pictures.graph_inputs import graph_inputs
from conformance.reports.report import Report
from conformance.reproduction.folder import reproduce_node
from refimpl.errors import FileError
from refimpl.ops.operation import Array

GRAPH = OnnxGraph.load(onnx_models.residual_network())
FEEDS = graph_inputs(GRAPH, shapes=["1x3x32x32"])
WRONG = next(node for node in GRAPH.nodes if node.op_type == "Conv" and "relu" in node.inputs[0])


class WrongConvolution(OnnxRuntimeGraph):
    """ONNX Runtime that doubles one weight of a convolution."""

    shares_weights = False

    def _run(
        self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
    ) -> dict[str, Array]:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        for tensor in wrong.graph.initializer:
            if tensor.name == WRONG.inputs[1]:
                weight = onnx.numpy_helper.to_array(tensor).copy()
                weight.flat[7] *= 2
                tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
        return super()._run(wrong, feeds, options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reproduced step."""
    candidate = WrongConvolution(GRAPH)
    report = verify_graph(candidate, FEEDS)
    assert written(tmp_path / "step", report, candidate) is not None
    return tmp_path / "step"


def written(folder: Path, report: Report, candidate: OnnxRuntimeGraph) -> str | None:
    """Write what a runtime computes wrongly."""
    known = {**FEEDS, **candidate.capture(FEEDS)}
    return reproduce_node(folder, report.leading, GRAPH, known, candidate.declaration)


def command(folder: Path) -> list[str]:
    """Return the arguments of the command in the folder's README that judges what is recorded."""
    return commands(folder)[0]


def commands(folder: Path) -> list[list[str]]:
    """Return the arguments of the commands in the folder's README."""
    lines = (folder / "README.md").read_text().splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("    mobileinst ")]


def test_the_folder_is_complete_and_minimal(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("step.onnx", "step.json", "README.md", "input_0.npy"),
        *("candidate_0.npy", "truth_0.npy", "bound_0.npy"),
    }
    model = onnx.load(folder / "step.onnx")
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    candidate, truth, bound = (np.load(folder / f"{name}_0.npy") for name in ("candidate", "truth", "bound"))
    assert np.any(np.abs(candidate - truth) > bound)
    session = onnxruntime.InferenceSession(folder / "step.onnx")
    (right,) = session.run(None, {session.get_inputs()[0].name: np.load(folder / "input_0.npy")})
    assert np.all(np.abs(right - truth) <= bound)


def test_the_command_shows_it_again(folder: Path) -> None:
    result = CliRunner().invoke(app, command(folder))
    assert result.exit_code == 1, result.output
    assert "leaves the reference at" in result.output
    # Without what was recorded, the installed runtime computes it, rightly.
    result = CliRunner().invoke(app, commands(folder)[1])
    assert result.exit_code == 0, result.output


def test_nothing_to_reproduce(tmp_path: Path) -> None:
    candidate = OnnxRuntimeGraph(GRAPH)
    assert written(tmp_path / "step", verify_graph(candidate, FEEDS), candidate) is None
    assert not (tmp_path / "step").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "mine.txt").write_text("mine")
    candidate = WrongConvolution(GRAPH)
    report = verify_graph(candidate, FEEDS)
    with pytest.raises(FileError, match="no empty folder"):
        written(tmp_path / "step", report, candidate)
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
