"""Runtimes and files that misbehave, with --graph-only and without: a headline each, never a traceback."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates import onnx_runtime_process
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.candidates.onnx_runtime_process import IsolatedOnnxRuntimeGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.reports.report import Report
from refimpl.errors import CandidateError, FileError, UnsupportedOperationError
from refimpl.ops.operation import Array

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
Run = Callable[[dict[str, Array], Mapping[str, Array]], Any]


def model(*nodes: onnx.NodeProto, opsets: Mapping[str, int] | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    versions = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    return helper.make_model(graph, opset_imports=versions, ir_version=8)


MATMUL = helper.make_node("MatMul", ["x", "w"], ["a"], name="product")
RELU = helper.make_node("Relu", ["a"], ["y"], name="relu")


class Misbehaving(OnnxRuntimeGraph):
    """ONNX Runtime whose answers pass through a function that also sees the inputs."""

    def __init__(self, change: Run) -> None:
        super().__init__(OnnxGraph.load(model(MATMUL, RELU)))
        self.change = change

    def run(self, feeds: Mapping[str, Array]) -> Any:
        return self.change(super().run(feeds), feeds)


def raises(outputs: dict[str, Array], feeds: Mapping[str, Array]) -> Any:
    raise ValueError("out of\norder")


def rewrites(outputs: dict[str, Array], feeds: Mapping[str, Array]) -> Any:
    feeds["x"][...] = 0
    return outputs


_CALLS = itertools.count()


def is_random(outputs: dict[str, Array], feeds: Mapping[str, Array]) -> Any:
    return {"y": outputs["y"] + np.float32(next(_CALLS))}


HEADLINES: list[tuple[Run, str]] = [
    (raises, "it crashes: ValueError: out of"),
    (rewrites, "it rewrites its input 'x'"),
    (is_random, "it is not repeatable: two runs on the same input differ in output 'y'"),
    (lambda y, _: {"y": y["y"] * np.float32("nan")}, "its output 'y' has 6 of 6 numbers that are NaN"),
    (lambda y, _: {"y": y["y"][:1]}, "its output 'y' has shape (1, 3); the graph's has (2, 3)"),
    (lambda y, _: {"z": y["y"]}, "it gives no output 'y'; its output 'z' is none of the graph's"),
    (lambda y, _: {"y": "many"}, "its outputs are not arrays of numbers: y is <U4"),
    (lambda y, _: {"y": [[1.0], [2.0, 3.0]]}, "its outputs are not arrays of numbers: ValueError"),
    (lambda y, _: None, "its outputs are not arrays of numbers: it returned NoneType"),
]


@pytest.mark.parametrize(("change", "headline"), HEADLINES)
def test_misbehaviour_is_the_headline(change: Run, headline: str) -> None:
    report = verify_graph(Misbehaving(change), {"x": X.copy()})
    assert report.verdict == "fail"
    assert headline in report.headline()


def test_what_is_known_before_a_crash_is_kept() -> None:
    class Silent(Misbehaving):
        def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            raise RuntimeError("no debug build")

    report = verify_graph(Silent(lambda outputs, _: outputs), {"x": X})
    assert report.headline().endswith("it crashes: RuntimeError: no debug build")
    assert [row.verdict for row in report.leading.outputs] == ["pass"]


def test_a_nan_that_the_graph_means_is_no_fault() -> None:
    graph = OnnxGraph.load(model(MATMUL, helper.make_node("Log", ["a"], ["y"], name="log")))
    assert np.isnan(OnnxRuntimeGraph(graph).run({"x": X})["y"]).any()
    verify_graph(OnnxRuntimeGraph(graph), {"x": X}).raise_on_failure()


# --- in a process of its own ----------------------------------------------------------------------


def isolated(timeout: float = 60.0) -> IsolatedOnnxRuntimeGraph:
    return IsolatedOnnxRuntimeGraph(OnnxGraph.load(model(MATMUL, RELU)), timeout=timeout)


def judged_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str, timeout: float = 60.0) -> Report:
    """Judge with a runtime that executes some code when it is loaded for a run."""
    (folder / "sitecustomize.py").write_text(
        "import onnxruntime, os, time\n"
        "class Session(onnxruntime.InferenceSession):\n"
        f"    def run(self, *_):\n        {code}\n"
        "onnxruntime.InferenceSession = Session\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    return verify_graph(isolated(timeout), {"x": X})


def test_a_process_computes_the_same() -> None:
    report = verify_graph(isolated(), {"x": X})
    report.raise_on_failure()
    assert len(report.leading.nodes) == 2
    with pytest.raises(CandidateError, match="ONNX Runtime cannot run the model on x"):
        isolated().run({"x": X[:1]})


def test_nothing_of_an_isolated_runtime_is_made_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RuntimeOptions, "session", lambda *_: pytest.fail("a session is made here"))
    graph = isolated()
    assert graph.run({"x": X}).keys() == {"y"}
    assert graph.capture({"x": X}).keys() == {"a", "y"}
    graph.optimized({"x": X}, graph.capture({"x": X}))


@pytest.mark.parametrize(
    "answer", ["don", "{}", "[1, 2, 3]", '["SystemExit", "1"]', '[["a"], "b"]', "\x1b[31m"]
)
def test_an_answer_that_is_none_is_said(answer: str) -> None:
    said = onnx_runtime_process._error_of(answer)
    assert isinstance(said, CandidateError)
    assert "which is no answer" in str(said)
    assert "\x1b" not in str(said)


def test_a_process_is_kept_for_its_model_and_ends_with_it() -> None:
    graph = isolated()
    graph.run({"x": X})
    (kept,) = graph.kept.values()
    np.testing.assert_array_equal(graph.run({"x": 2 * X})["y"], np.maximum(2 * X, 0))
    assert [*graph.kept.values()] == [kept]
    graph.capture({"x": X})
    graph.without(["ConstantFolding"]).run({"x": X})
    assert len(graph.kept) == 2
    assert kept not in graph.kept.values()
    process = kept.process
    del kept
    assert process.poll() is not None


def test_a_kept_process_that_dies_is_said_and_another_is_started() -> None:
    graph = isolated()
    graph.run({"x": X})
    (kept,) = graph.kept.values()
    kept.process.kill()
    kept.process.wait()
    with pytest.raises(CandidateError, match="it crashes: its process was ended by SIGKILL"):
        graph.run({"x": X})
    np.testing.assert_array_equal(graph.run({"x": X})["y"], np.maximum(X, 0))


@pytest.mark.parametrize(
    ("code", "timeout", "headline"),
    [
        ("os.abort()", 60, "it crashes: its process was ended by SIGABRT"),
        ("os._exit(3)", 60, "it crashes: its process ended with status 3"),
        ("time.sleep(3600)", 3, "it hangs: no answer within 3 s"),
    ],
)
def test_a_runtime_that_ends_or_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, timeout: float, headline: str
) -> None:
    assert headline in judged_in(monkeypatch, tmp_path, code, timeout).headline()


# --- files ----------------------------------------------------------------------------------------


def test_refused_models(tmp_path: Path) -> None:
    whole = model(MATMUL, RELU).SerializeToString()
    (tmp_path / "torn.onnx").write_bytes(whole[: len(whole) // 2])
    onnx.save(
        model(MATMUL, RELU),
        tmp_path / "apart.onnx",
        save_as_external_data=True,
        location="apart.bin",
        size_threshold=0,
    )
    (tmp_path / "apart.bin").unlink()
    custom = helper.make_node("Fancy", ["a"], ["y"], name="fancy", domain="com.example")
    onnx.save(model(MATMUL, custom, opsets={"": 17, "com.example": 1}), tmp_path / "custom.onnx")
    onnx.save(model(MATMUL, helper.make_node("Fancy", ["a"], ["y"])), tmp_path / "unknown.onnx")
    for name, kind, message in (
        ("torn.onnx", FileError, "not an ONNX model, or truncated"),
        ("apart.onnx", FileError, r"apart\.bin is missing; put it beside the model"),
        ("custom.onnx", UnsupportedOperationError, r"fancy \(com\.example::Fancy\): of another domain"),
        ("unknown.onnx", UnsupportedOperationError, "Fancy is no operator of opset 17"),
    ):
        with pytest.raises(kind, match=message):
            OnnxGraph.load(tmp_path / name)
