"""No child process runs code from the folder it is started in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from conformance.candidates.child_process import python_command, safe_environment, start
from conformance.candidates.kinds import Request
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.candidates.onnx_runtime_process import IsolatedOnnxRuntimeGraph
from conformance.candidates.process import IsolatedCandidate
from conformance.evidence.memory import peak_memory
from conformance.graph.onnx_graph import OnnxGraph
from refimpl import MobileInstConfig, Weights
from refimpl.errors import CandidateError

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


class Held:
    """A pipe that is held open by what is started, as long as it lives."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path, self.reader = path, os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def wait_until(self, wanted: bytes) -> None:
        """Wait for what is said; nothing: until nobody holds it any more."""
        for _ in range(600):
            try:
                if (said := os.read(self.reader, 100)) == wanted:
                    return
                assert not said
            except BlockingIOError:  # somebody holds it, and says nothing
                pass
            time.sleep(0.1)
        raise AssertionError(f"there is no {wanted!r}")


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path / "held")


HOLDING = """
import subprocess
def port(*images):
    subprocess.run("printf started; exec sleep 600", shell=True, stdout=open({!r}, "w"))
"""
"""A program that waits for another, which holds the pipe."""


def test_what_a_candidate_started_ends_with_it(held, tmp_path):
    program = tmp_path / "port.py"
    program.write_text(HOLDING.format(str(held.path)))
    candidate = IsolatedCandidate(f"python:{program}:port", Request("", SMALL, {}), 4)
    try:
        with pytest.raises(CandidateError, match="it hangs"):
            candidate.run(np.ones((1, 3, 32, 32), np.float32))
    finally:
        candidate.close()
    held.wait_until(b"started")
    held.wait_until(b"")


CONVERTING = """
import dataclasses, sys
from pathlib import Path
from conformance.candidates import converters
converters.LONGEST = {longest}
converter = dataclasses.replace(
    converters.LITERT, package="numpy", command=lambda *given: [sys.executable, "-P", "-c", {program!r}]
)
source = Path({folder!r}) / "model.onnx"
source.write_bytes(b"")
converters.convert(converter, source, source.with_suffix(".tflite"))
"""
"""A program that converts a model by another program."""


def converting(folder, program, longest):
    program = CONVERTING.format(folder=str(folder), program=program, longest=longest)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program], env=safe_environment(), stderr=subprocess.PIPE
    )


def test_what_a_converter_started_ends_with_it(held, tmp_path):
    process = converting(tmp_path, HOLDING.format(str(held.path)) + "port()", 4.0)
    assert b"hangs: it has not ended within 4 s" in process.communicate()[1]
    held.wait_until(b"started")
    held.wait_until(b"")


def test_a_converter_ends_with_what_started_it(held, tmp_path):
    program = (
        "import time\nfrom conformance.candidates.child_process import end_with_starter\nend_with_starter()\n"
        f"pipe = open({str(held.path)!r}, 'w')\npipe.write('started')\npipe.flush()\ntime.sleep(600)\n"
    )
    process = converting(tmp_path, program, 600.0)
    held.wait_until(b"started")
    process.kill()
    process.communicate()
    held.wait_until(b"")


@pytest.mark.runtimes
@pytest.mark.parametrize("module", ["litert_conversion", "executorch_conversion"])
def test_our_converters_end_with_what_started_them(module, tmp_path):
    source = tmp_path / "never.onnx"
    os.mkfifo(source)
    command = python_command(f"conformance.candidates.{module}", str(source), str(tmp_path / "m"), "", "")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=safe_environment())
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(10)
        process.stdin.close()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def test_a_process_that_waits_for_its_starter_can_end_by_itself():
    program = "from conformance.candidates.child_process import end_with_starter; end_with_starter()"
    process = subprocess.Popen([sys.executable, "-P", "-c", program], stdin=subprocess.PIPE)
    assert process.wait() == 0
    process.stdin.close()
