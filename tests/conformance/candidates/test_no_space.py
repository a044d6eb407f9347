"""That no space is left for the judge's temporary files says nothing about the candidate."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from conformance.candidates.kinds import Request
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.candidates.process import IsolatedCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.judge.weights_cache import seeded_weights
from refimpl import MobileInstConfig, Weights
from refimpl.errors import SpaceError

ROOM = 8192
SMALL = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
NAMED = "cannot write temporary files"


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file, of this process or of those that it starts, may grow larger than `ROOM`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def doubled(count: int = 1, taken: int = 1, weight: int = 1) -> OnnxGraph:
    """Return a graph of one input, of so many numbers; so many come out, and are stored in it."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("ReduceMax", ["weight"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["wide", "largest"], ["y"]),
    ]
    stored = [
        onnx.numpy_helper.from_array(np.array([taken]), "shape"),
        onnx.numpy_helper.from_array(np.arange(weight, dtype=np.float32), "weight"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [count])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [taken])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], stored), opset_imports=opset, ir_version=8
    )
    return OnnxGraph.load(model)


@pytest.mark.parametrize("sizes", [(ROOM, ROOM), (1, ROOM), (1, 1, ROOM)], ids=["input", "output", "model"])
@pytest.mark.parametrize("interpreter", [(), (sys.executable,)], ids=["own", "far"])
def test_of_onnx_runtimes_process(little_room: None, sizes: tuple[int, ...], interpreter: tuple[str]) -> None:
    graph = doubled(*sizes)
    candidate = runtime_graph(graph, timeout=60.0, interpreter=interpreter)
    feeds = {"x": np.ones(sizes[0], np.float32)}
    if interpreter and len(sizes) < 3:  # through pipes
        assert len(candidate.run(feeds)["y"]) == ROOM
        return
    with pytest.raises(SpaceError, match=NAMED):
        verify_graph(candidate, feeds)


PORTS = {
    "input": "def port(images):\n    return {'out': images[0, 0, 0]}\n",
    "output": "import numpy\ndef port(images):\n    return {'out': numpy.zeros(100000)}\n",
    "its own": "def port(images):\n    open('own', 'wb').write(bytes(100000))\n    return {'out': images}\n",
}


@pytest.mark.parametrize("case", PORTS)
def test_of_a_candidates_process(
    little_room: None, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "port.py").write_text(PORTS[case])
    candidate = IsolatedCandidate("python:port.py:port", Request("", SMALL, {}), 60)
    side = 64 if case == "input" else 8
    try:
        with pytest.raises(SpaceError, match=NAMED):
            candidate.run(np.ones((1, 3, side, side), np.float32))
    finally:
        candidate.close()


def test_of_a_candidates_weights(little_room: None, tmp_path: Path) -> None:
    (tmp_path / "port.py").write_text(PORTS["input"])
    request = Request("", SMALL, {"weight": np.zeros(ROOM)})
    with pytest.raises(SpaceError, match=NAMED):
        IsolatedCandidate(f"python:{tmp_path}/port.py:port", request, 60)


def test_a_full_cache_costs_time_and_nothing_else(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    expected = Weights.seeded(SMALL, 0)
    request.getfixturevalue("little_room")
    made = seeded_weights(SMALL, 0, tmp_path)
    assert all(np.array_equal(made[name], expected[name]) for name in expected)
    assert list(tmp_path.iterdir()) == []
