"""Does the runtime compute this graph? Any ONNX model of the vocabulary, node by node and at its outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from conformance.bounds.declaration import Declaration
from conformance.bounds.worst_element import worst_of
from conformance.candidates.arrays import attempted
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.graph.onnx_file import Node
from conformance.graph.onnx_graph import OnnxGraph, evaluate
from conformance.judge.diagnosis import diagnose_node
from conformance.judge.envelope_cache import cached_envelope
from conformance.judge.fusions import find_fusion
from conformance.judge.verification import run_twice
from conformance.pictures.graph_inputs import described
from conformance.reports.report import Comparison, Diagnosis, Fault, InputReport, Report
from refimpl import Recording, Step
from refimpl.errors import CandidateError, MobileInstError
from refimpl.ops.operation import Array


class GraphCandidate(Protocol):
    """A graph, and something that runs it: what the second question needs."""

    graph: OnnxGraph

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs by name."""

    def capture(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return every tensor that can be had by name."""

    def judge(self, feeds: Mapping[str, Array], tensors: Mapping[str, Array]) -> list[Comparison]:
        """Judge the nodes on the tensors they were fed."""


def verify_graph(
    candidate: GraphCandidate,
    feeds: Mapping[str, Array],
    *,
    name: str = "candidate",
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
) -> Report:
    """Judge a runtime on a graph of its own, MobileInst or not.

    Parameters
    ----------
    candidate
        The graph and its runtime.
    feeds
        Input → array, of the declared dtypes and shapes.
    name
        What to call the candidate in the report.
    progress
        Called with a few words before each stage.
    cache
        Folder in which envelopes are kept between runs; None: nowhere.

    Returns
    -------
    Report
        Without ``steps``: there is no other network to compare with.

    Raises
    ------
    ShapeError
        An input is missing, unknown or does not fit, or the graph's operands do not fit together.
    UnsupportedOperationError
        A node wants what its operation does not compute.
    """
    progress("float64")
    recording = graph_recording(candidate.graph, feeds)
    course = _Course(candidate, feeds, recording, progress, cache)
    try:
        allowed = course.judge_outputs()
        course.judge_nodes(allowed)
    except CandidateError as error:
        course.problems.append(str(error))
    return Report([course.report()], name, _model(candidate.graph), str(candidate.declaration))


@dataclass
class _Course:
    """A verdict on its way: what is found so far is kept if the candidate fails later."""

    candidate: GraphCandidate
    feeds: Mapping[str, Array]
    recording: Recording
    progress: Callable[[str], None]
    cache: Path | None
    outputs: list[Comparison] = field(default_factory=list)
    nodes: list[Comparison] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)

    def judge_outputs(self) -> dict[str, float]:
        """Compare what the shipped run gives with float64; return how far each output may be off."""
        graph, declared = self.candidate.graph, self.candidate.declaration
        self.progress("candidate")
        # A graph may mean NaN: then the runtime is to make it, too.
        infinite = [name for name in graph.outputs if not _is_finite(self.recording.tensors[name])]
        run = partial(attempted, self.candidate.run, passed=MobileInstError)
        outputs, self.problems = run_twice(run, self.feeds, infinite)
        self.progress("noise envelope")
        formats = (declared.arithmetic, declared.storage, declared.runtime)
        allowed = cached_envelope(self.recording, *formats, self.cache, self.progress)
        self.outputs = [
            _output(graph, self.recording, name, outputs.get(name), allowed[name]) for name in graph.outputs
        ]
        self.problems += _misshapen(outputs, {row.name: row.shape for row in self.outputs})
        return allowed

    def judge_nodes(self, allowed: Mapping[str, float]) -> None:
        """Replay every node; name the mistake of the first that is wrong, or the optimiser if none is."""
        self.progress("candidate, every tensor")
        captured = attempted(self.candidate.capture, self.feeds, passed=MobileInstError)
        self.progress("node by node")
        self.nodes = self.candidate.judge(self.feeds, captured)
        self._leave_unjudged()
        if self.first is not None and not self.problems:
            self.progress("diagnosis")
            known = {**self.recording.tensors, **self.feeds, **captured}
            declared = self.candidate.declaration
            self.diagnoses = diagnose_node(self.candidate.graph, known, self.first, declared)
        given = all(row.candidate is not None for row in self.outputs)
        if self.first is None and given and any(row.verdict == "fail" for row in self.outputs):
            self.progress("optimisers")
            self.problems += fusion_problems(self.candidate, self.feeds, captured, self.recording, allowed)

    def _leave_unjudged(self) -> None:
        """Guess nothing of outputs that depend on a node without bound: no run has perturbed that."""
        open_ends = {row.name for row in self.nodes if row.verdict == "not judged"}
        for step in self.recording.steps:
            if not open_ends.isdisjoint(step.inputs):
                open_ends.update(step.outputs)
        self.outputs = [
            replace(row, tolerance=None, utilisation=None, verdict="not judged")
            if row.name in open_ends and row.candidate is not None
            else row
            for row in self.outputs
        ]

    @property
    def first(self) -> Comparison | None:
        """The first node that is wrong."""
        return next((row for row in self.nodes if row.verdict == "fail"), None)

    def report(self) -> InputReport:
        """Return all of it."""
        first = self.first
        return InputReport(
            described(self.feeds),
            next((array.shape for array in self.feeds.values()), ()),
            digest_of(self.feeds),
            self.outputs,
            [],
            self.nodes,
            Fault(first.name, first.operation, "graph", (first.candidate or first.name,)) if first else None,
            self.problems,
            self.diagnoses,
        )


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _misshapen(outputs: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Say which outputs are not those of the graph."""
    absent = [f"it gives no output {name!r}" for name in shapes if name not in outputs]
    unknown = [f"its output {name!r} is none of the graph's" for name in outputs if name not in shapes]
    return [
        *absent,
        *unknown,
        *(
            f"its output {name!r} has shape {outputs[name].shape}; the graph's has {shape}"
            for name, shape in shapes.items()
            if name in outputs and outputs[name].shape != shape
        ),
    ]


def fusion_problems(
    candidate: Any,
    feeds: Mapping[str, Array],
    captured: Mapping[str, Array],
    recording: Recording,
    allowed: Mapping[str, float],
) -> list[str]:
    """Say what optimisation makes wrong, where only the optimised run leaves its envelope."""
    if not isinstance(candidate, OnnxRuntimeGraph):
        return []

    def is_right(outputs: Mapping[str, Array]) -> bool:
        rows = [
            _output(candidate.graph, recording, name, outputs.get(name), allowed[name])
            for name in recording.outputs
        ]
        return all(row.verdict == "pass" for row in rows)

    fusion = find_fusion(candidate, feeds, captured, is_right)
    return [] if fusion is None else [str(fusion)]


def graph_recording(graph: OnnxGraph, feeds: Mapping[str, Array]) -> Recording:
    """Return the graph's run in float64 in the form of the reference's own runs."""
    made = evaluate(graph, feeds, np.float64)
    fixed = {name: _widened(array) for name, array in {**graph.initializers, **feeds}.items()}
    return Recording(
        steps=[_step(node) for node in graph.nodes],
        tensors={**fixed, **made},
        inputs={name: name for name in feeds},
        outputs={name: name for name in graph.outputs},
        weights=list(graph.initializers),
    )


def _step(node: Node) -> Step:
    outputs = tuple(name or f"{node.name}:{place}" for place, name in enumerate(node.outputs))
    return Step(node.name, node.op_type, node.inputs, outputs, node.attributes)


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _output(
    graph: OnnxGraph, recording: Recording, name: str, values: Array | None, allowed: float
) -> Comparison:
    truth = recording.tensors[name]
    operation = next((node.op_type for node in graph.nodes if name in node.outputs), "Identity")
    if values is None or values.shape != truth.shape:
        return Comparison(name, operation, None, truth.shape, None, None, None, None, None, None, "fail")
    worst = worst_of(values, truth, allowed)
    scale = float(np.abs(truth.astype(np.float64)).max(initial=0.0))
    return Comparison(
        name=name,
        operation=operation,
        candidate=name,
        shape=truth.shape,
        max_abs_error=worst.error,
        relative_error=worst.error / scale if scale else worst.error,
        worst_index=worst.index,
        introduced_error=None,
        tolerance=worst.bound,
        utilisation=worst.utilisation,
        verdict="pass" if worst.utilisation <= 1 else "fail",
    )


def digest_of(feeds: Mapping[str, Array]) -> str:
    """Return a SHA-256 over the inputs' names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in feeds.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _model(graph: OnnxGraph) -> dict[str, Any]:
    content = hashlib.sha256(graph.model.SerializeToString(deterministic=True)).hexdigest()
    return {
        "graph": graph.model.graph.name,
        "sha256": content,
        "nodes": len(graph.nodes),
        "opset": graph.opset,
    }
