"""Does this graph mean what that one does? Both in float64, the tensors of the one found in the other.

By name and value, as the network's are found in a candidate of it. They may differ by what folding constants
in float32 does, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from conformance.bounds import FLOAT64, Declaration, Format
from conformance.bounds.declaration import MULTIPLE, SAMPLES
from conformance.candidates.candidate import OwnGraph
from conformance.candidates.evaluated import EvaluatedGraph, fit_for_both
from conformance.candidates.onnx_runtime import declared_by
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.any_graph import digest_of, model_of
from conformance.judge.diagnosis import steps_behind
from conformance.judge.folding import FOLDINGS, folded_errors
from conformance.judge.outputs import compare_outputs
from conformance.judge.step_course import StepCourse
from conformance.reports.report import Comparison, Report
from refimpl import Recording
from refimpl.ops.operation import Array

FUSED = 32
"""How many steps in a row one node may stand for: a layer norm has nine, rotated attention some thirty."""

Inputs = Mapping[str, Mapping[str, Array]]
"""What a report calls an input → name of the graph's input → array."""


def verify_against(
    after: OnnxGraph,
    before: OnnxGraph,
    inputs: Inputs,
    *,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
) -> Report:
    """Judge whether a graph means what another does, from which a tool has made it.

    Parameters
    ----------
    after, before
        Both are computed in float64.
    inputs
        Under the names that ``before`` has for them.
    names
        What to call them in the report.
    progress
        Called with a few words before each stage.
    cache
        Folder in which envelopes are kept between runs; None: nowhere.

    Raises
    ------
    ShapeError
        An input does not fit one of them: they are of different models.
    UnsupportedOperationError
        A node of either is outside the vocabulary.
    """
    candidate = EvaluatedGraph(after, declaration=declared_by(after))
    storage = candidate.declaration.storage
    reports = []
    for label, given in inputs.items():
        progress(f"{label}: float64")
        feeds = fit_for_both(after, given)
        recording = graph_recording(before, feeds)
        shape = next((array.shape for array in feeds.values()), ())
        course = _Course(candidate, feeds, label, shape, digest_of(feeds), recording, progress, cache)
        course.alone = len(inputs) == 1
        course.before, course.storage = before, storage
        reports.append(course.follow())
    return Report(reports, names[0], model_of(after), _tolerance(storage), reference=names[1])


def _tolerance(storage: Format) -> str:
    return (
        f"both in float64; a constant that the two do not share may be off by {FOLDINGS} roundings to "
        f"{storage.name}, each tensor by one (unit roundoff {storage.unit_roundoff:.1e}); each output by "
        f"{MULTIPLE:g} × the largest of {SAMPLES} runs with random rounding"
    )


@dataclass
class _Course(StepCourse):
    """One set of inputs' way through both graphs."""

    candidate: EvaluatedGraph
    before: OnnxGraph | None = None
    storage: Format = FLOAT64
    reach: int = FUSED

    @property
    def declared(self) -> Declaration:
        """Wide arithmetic, each result stored."""
        return Declaration(FLOAT64, self.storage)

    def given(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what is fed."""
        return feeds

    def compare_outputs(self, outputs: Mapping[str, Array]) -> tuple[list[Comparison], list[str]]:
        """Pair the outputs of both."""
        return compare_outputs(self.recording, self.allowed, outputs, list(self.recording.outputs))

    def judge_own(self, own: OwnGraph | None) -> list[Comparison]:
        """Judge no node: whoever computes it is ourselves."""
        return []

    def compare_steps(self, own: OwnGraph | None) -> None:
        """Look for every tensor of the one in the other."""
        held = self.candidate.graph.initializers.values()
        self.folded = folded_errors(self.recording, held, self.storage)
        super().compare_steps(own)

    def truth(self, feeds: Mapping[str, Array]) -> Recording:
        """Return the run on another input."""
        assert self.before is not None
        return graph_recording(self.before, feeds)

    def diagnose(self) -> None:
        """Name the mistake, and the nodes of both sides."""
        super().diagnose()
        if self.fault is not None:
            calls, _ = steps_behind(self.recording, self.steps, self.captured, self.fault.step)
            names = tuple(call.name for call in calls)
            self.fault = replace(self.fault, question="meaning", reference_nodes=names)
