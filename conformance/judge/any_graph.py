"""Does the runtime compute this graph? Any ONNX model of the vocabulary, node by node and at its outputs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from conformance.bounds.worst_element import worst_output
from conformance.candidates.arrays import attempted
from conformance.candidates.candidate import OwnGraph
from conformance.graph.control_flow import is_written_out
from conformance.graph.large_models import digest
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.branches import with_branches_shown
from conformance.judge.course import Course, Judged, first_wrong
from conformance.judge.diagnosis import diagnose_node, unexplained
from conformance.judge.worth_knowing import worth_knowing
from conformance.pictures.graph_inputs import described
from conformance.reports.report import Comparison, Report
from refimpl import Recording
from refimpl.errors import MobileInstError, UnsupportedOperationError
from refimpl.ops.operation import Array


class GraphCandidate(Judged, Protocol):
    """A graph, and something that runs it on its inputs by name."""

    graph: OnnxGraph


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
    whole, candidate = candidate.graph, with_branches_shown(candidate, feeds)
    progress("float64")
    recording = graph_recording(candidate.graph, feeds, taken_over(candidate, feeds))
    shape = next((array.shape for array in feeds.values()), ())
    course = _Course(candidate, feeds, described(feeds), shape, digest_of(feeds), recording, progress, cache)
    course.remarks += _of_unknown(candidate.graph)
    tolerance = getattr(candidate, "tolerance", str(candidate.declaration))
    return Report([course.follow()], name, model_of(whole), tolerance)


@dataclass
class _Course(Course):
    """One set of inputs' way, beside float64 alone: there is no other network to compare with."""

    candidate: GraphCandidate
    takes_any = False

    def given(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what is fed."""
        return feeds

    def compare_outputs(self, outputs: Mapping[str, Array]) -> tuple[list[Comparison], list[str]]:
        """Compare each output with float64's of its name."""
        rows = [self._output(name, outputs.get(name)) for name in self.candidate.graph.outputs]
        return rows, _misshapen(outputs, {row.name: row.shape for row in rows})

    def _output(self, name: str, values: Array | None) -> Comparison:
        truth = self.recording.tensors[name]
        maker = self.candidate.graph.producer(name)
        operation = maker.op_type if maker else "Identity"
        if values is None or values.shape != truth.shape:
            return Comparison.absent(name, operation, truth.shape, "fail")
        worst = worst_output(values, truth, self.allowed[name])
        row = partial(Comparison.judged, name, operation, name, truth, worst.error, worst.index)
        return row(allowed=worst.bound, utilisation=worst.utilisation) if worst.judged else row()

    def compare_steps(self, own: OwnGraph | None) -> None:
        """Guess nothing of outputs that depend on a node without bound: no run has perturbed that."""
        self.remarks += worth_knowing(self.recording, self.captured)
        open_ends = self._reached({row.name for row in self.nodes if row.verdict == "not judged"})
        moving = self._reached({*self.recording.inputs.values()})
        fixed = [name for name in self.recording.outputs if name not in moving]
        self.remarks += [
            f"no input reaches output {', '.join(fixed)}: it is the same whatever is given"
        ] * bool(fixed)
        self.outputs = [
            replace(row, tolerance=None, utilisation=None, verdict="not judged")
            if row.name in open_ends and row.candidate is not None
            else row
            for row in self.outputs
        ]

    def _reached(self, names: set[str]) -> set[str]:
        """Return the tensors with all that is computed of them, by nodes of unknown operators too."""
        graph, count = self.candidate.graph, 0
        steps = [*self.recording.steps, *(node for node in graph.nodes if node.name in graph.unknown)]
        while count != len(names):
            count = len(names)
            names.update(name for step in steps if not names.isdisjoint(step.uses) for name in step.outputs)
        return names

    def truth(self, feeds: Mapping[str, Array]) -> Recording:
        """Return the graph's run on another input."""
        whole = getattr(self.candidate, "whole", self.candidate)
        return graph_recording(whole.graph, feeds, taken_over(whole, feeds))

    def tensor_of(self, name: str) -> str | None:
        """Return the name itself: both sides are the same graph."""
        return name if name in self.recording.tensors else None

    def diagnose(self) -> None:
        """Name the mistake of the first node that is wrong."""
        first = first_wrong(self.nodes)
        maker = None if first is None else self.candidate.graph.producer(first.name)
        if first is not None and maker is not None and not is_written_out(maker):
            known = {**self.recording.tensors, **self.feeds, **self.captured}
            graph, declared = self.candidate.graph, self.candidate.declaration
            explained = diagnose_node(graph, known, first, declared)
            self.diagnoses, self.evidence = explained.diagnoses, explained.evidence
            self.evidence += unexplained(self.diagnoses, self.evidence)


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


def taken_over(candidate: GraphCandidate, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return what the candidate makes of the nodes of unknown operators.

    Raises
    ------
    UnsupportedOperationError
        It does not show it.
    """
    nodes = [node for node in candidate.graph.nodes if node.name in candidate.graph.unknown]
    if not nodes:
        return {}
    captured = attempted(candidate.capture, feeds, passed=MobileInstError)
    hidden = [node.name for node in nodes if not all(name in captured for name in node.outputs if name)]
    if hidden:
        raise UnsupportedOperationError(
            f"{', '.join(hidden)}: outside the vocabulary, and the candidate does not show its results"
        )
    return {name: captured[name] for node in nodes for name in node.outputs if name}


def _of_unknown(graph: OnnxGraph) -> list[str]:
    """Say what of a graph is not judged because its operators are unknown."""
    if not graph.unknown:
        return []
    counts = Counter(node.op_type for node in graph.nodes if node.name in graph.unknown)
    listed = ", ".join(f"{name} ×{count}" for name, count in counts.most_common())
    share = 1 - len(graph.unknown) / len(graph.nodes)
    return [
        f"{len(graph.unknown)} of {len(graph.nodes)} nodes are outside the vocabulary and not judged, nor is "
        f"the way of their results to the outputs: {listed}; {share:.1%} of the nodes are known"
    ]


def digest_of(feeds: Mapping[str, Array]) -> str:
    """Return a SHA-256 over the inputs' names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in feeds.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def model_of(graph: OnnxGraph) -> dict[str, Any]:
    """Return what a report says of a graph."""
    return {
        "graph": graph.model.graph.name,
        "sha256": digest(graph.model),
        "nodes": len(graph.nodes),
        "opset": graph.opset,
    }
