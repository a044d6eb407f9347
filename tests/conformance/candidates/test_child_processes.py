"""No child process runs code from the folder it is started in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from conformance.candidates.child_process import safe_environment, start
from conformance.candidates.kinds import Request
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.candidates.onnx_runtime_process import IsolatedOnnxRuntimeGraph
from conformance.candidates.process import IsolatedCandidate
from conformance.evidence.memory import peak_memory
from conformance.graph.onnx_graph import OnnxGraph
from refimpl import MobileInstConfig, Weights

HOSTILE = (
    "secrets",
    "safetensors",
    "numpy",
    "json",
    "onnxruntime",
    "conformance",
    "sitecustomize",
    "usercustomize",
)
SMALL = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in it files named like modules; each leaves a mark when it is imported."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name in HOSTILE:
        mark = str(folder / "mark")
        (folder / f"{name}.py").write_text(f"open({mark!r}, 'w').close()\nraise SystemExit('strange')\n")
    monkeypatch.chdir(folder)
    return folder


# What a shell leaves of PYTHONPATH=$UNSET:more, what `python -m` and an empty entry put there.
@pytest.fixture(params=["nothing", "empty", "folder", "relative"])
def path_with_folder(
    request: pytest.FixtureRequest, hostile_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    entry = {"nothing": None, "empty": "", "folder": str(hostile_folder), "relative": "."}[request.param]
    if entry is not None:
        monkeypatch.setattr(sys, "path", [*sys.path, entry])
        monkeypatch.setenv("PYTHONPATH", entry + os.pathsep)
    return hostile_folder


def test_a_candidates_process(path_with_folder, tmp_path):
    program = tmp_path / "port.py"
    program.write_text("def port(images):\n    return {'out': images * 2}\n")
    candidate = IsolatedCandidate(f"python:{program}:port", Request("", SMALL, {}), 60)
    try:
        images = np.ones((1, 3, 32, 32), np.float32)
        assert np.array_equal(candidate.run(images)["out"], images * 2)
    finally:
        candidate.close()
    assert not (path_with_folder / "mark").exists()


def identity() -> OnnxGraph:
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    return OnnxGraph.load(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8))


def test_onnx_runtimes_process(path_with_folder):
    feeds = {"x": np.array([1, -1], np.float32)}
    isolated = IsolatedOnnxRuntimeGraph(identity(), timeout=60).run(feeds)
    assert np.array_equal(isolated["y"], OnnxRuntimeGraph(identity()).run(feeds)["y"])
    assert not (path_with_folder / "mark").exists()


def test_the_benchmarks_process(path_with_folder):
    assert peak_memory(SMALL, Weights.seeded(SMALL), (64, 64)) > 10
    assert not (path_with_folder / "mark").exists()


def test_what_a_child_starts_is_as_safe(path_with_folder):
    process = subprocess.run(
        [sys.executable, "-m", "this"], env=safe_environment(), capture_output=True, text=True
    )
    assert process.returncode == 0
    assert not (path_with_folder / "mark").exists()


def test_a_candidates_file_imports_its_neighbours_but_they_hide_no_library(hostile_folder):
    (hostile_folder / "part_of_the_port.py").write_text("FACTOR = 3\n")
    program = hostile_folder / "port.py"
    program.write_text(
        "import secrets, numpy\nfrom part_of_the_port import FACTOR\n"
        "def port(images):\n    return {'out': images * FACTOR}\n"
    )
    candidate = IsolatedCandidate(f"python:{program}:port", Request("", SMALL, {}), 60)
    try:
        images = np.ones((1, 3, 32, 32), np.float32)
        assert np.array_equal(candidate.run(images)["out"], images * 3)
    finally:
        candidate.close()
    assert not (hostile_folder / "mark").exists()


def test_a_process_that_is_started_knows_this_programs_packages(hostile_folder):
    process = start("conformance.candidates.process", str(hostile_folder))
    process.communicate("", timeout=60)
    assert process.returncode == 0
