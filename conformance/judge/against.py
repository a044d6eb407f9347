"""Does this mean what that graph does? The graph in float64, its tensors found in what should compute it.

They are found by name and value, as the network's are in a candidate of it. Two graphs are both computed in
float64: they may differ by what folding constants in float32 does, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from conformance.bounds import FLOAT64, Declaration, Format
from conformance.bounds.declaration import MULTIPLE, SAMPLES
from conformance.candidates.arrays import Given
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.evaluated import EvaluatedGraph, fit_for_both
from conformance.candidates.onnx_runtime import declared_by
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.alignment import CandidateTensors
from conformance.judge.any_graph import digest_of, model_of
from conformance.judge.diagnosis import steps_behind
from conformance.judge.folding import FOLDINGS, folded_errors
from conformance.judge.outputs import compare_outputs
from conformance.judge.replay import DATA_MOVEMENT
from conformance.judge.step_course import StepCourse
from conformance.judge.stored_weights import weights_of_file
from conformance.reports.report import Comparison, InputReport, Report, is_telling
from refimpl import Recording
from refimpl.ops.operation import Array

FUSED = 32
"""How many steps in a row one node may stand for: a layer norm has nine, rotated attention some thirty."""

PASSED_OVER = DATA_MOVEMENT | {"Constant", "Shape", "Size", "Identity"}
"""Operators that are not listed where a fault may be."""

Inputs = Mapping[str, Mapping[str, Array]]
"""What a report calls an input → name of the graph's input → array."""


def verify_beside(
    candidate: Candidate,
    graph: OnnxGraph,
    inputs: Inputs,
    *,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
) -> Report:
    """Judge whether a candidate of any kind computes a graph.

    Parameters
    ----------
    candidate
        It is given the graph's input, or several by name; it need not have its names of tensors.
    graph
        What it should compute, in float64.
    inputs
        Under the graph's names.
    names
        What to call the two in the report.
    progress
        Called with a few words before each stage.
    cache
        Folder in which envelopes are kept between runs; None: nowhere.

    Raises
    ------
    ShapeError, FileError
        An input does not fit, or the candidate's tensors are of another model.
    UnsupportedOperationError
        A node of the graph is outside the vocabulary.
    """
    reports = []
    for label, feeds in inputs.items():
        progress(f"{label}: float64")
        recording = graph_recording(graph, feeds)
        if hasattr(candidate, "fit"):
            candidate.fit(recording.tensors)
        found, rounded = weights_of_file(candidate, replace(recording, weights=[*graph.initializers])), graph
        if found.weights:
            rounded = replace(graph, initializers={**graph.initializers, **found.weights})
            recording = graph_recording(rounded, feeds)
        shape = next((array.shape for array in feeds.values()), ())
        course = _Course(candidate, feeds, label, shape, digest_of(feeds), recording, progress, cache)
        course.alone, course.graph, course.needed = len(inputs) == 1, rounded, graph.outputs
        course.mistaken = found.wrong
        reports.append(course.follow())
    tolerance = getattr(candidate, "tolerance", str(candidate.declaration))
    return Report(reports, names[0], model_of(graph), tolerance, reference=names[1])


def verify_against(
    after: OnnxGraph,
    before: OnnxGraph,
    inputs: Inputs,
    *,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
    partly: bool = False,
) -> Report:
    """Judge whether a graph means what another does, from which a tool has made it.

    Parameters
    ----------
    after, before
        Both are computed in float64.
    inputs
        Under the names that ``before`` has for them.
    names, progress, cache
        As of `verify_beside`.
    partly
        Operands in ``after`` that do not fit together are a fault of it, and no error.

    Raises
    ------
    ShapeError
        An input does not fit one of them: they are of different models.
    UnsupportedOperationError
        A node of either is outside the vocabulary.
    """
    fitting = {label: fit_for_both(after, feeds) for label, feeds in inputs.items()}
    candidate = Wide(after)
    candidate.failed = [] if partly else None
    report = verify_beside(candidate, before, fitting, names=names, progress=progress, cache=cache)
    return replace(report, model=model_of(after))


def verify_export(
    export: OnnxGraph,
    module: Candidate,
    inputs: Inputs,
    *,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
) -> Report:
    """Judge whether an exported graph means what a module does, whose operators cannot be replayed.

    So it is the graph's tensors that are looked for in the module's.

    Parameters
    ----------
    export
    module
        Computes in float64, if its ``constants`` are there.
    inputs
        Under the names that ``export`` has for them.
    names, progress, cache, and errors
        As of `verify_beside`.
    """
    report = verify_beside(module, export, inputs, names=names, progress=progress, cache=cache)
    declared = module.declaration.storage
    wide = getattr(module, "constants", None) is not None
    tolerance = wide_tolerance(declared) if wide else report.tolerance
    return replace(report, inputs=[_turned(item) for item in report.inputs], tolerance=tolerance)


def _turned(item: InputReport) -> InputReport:
    """Return a report as seen from the other side."""
    fault = item.first_fault
    if fault is not None:
        fault = replace(fault, candidate_nodes=fault.reference_nodes, reference_nodes=fault.candidate_nodes)
    said = [text.replace("the reference", "the export") for text in item.evidence if is_telling(text)]
    said = [text.replace("the candidate", "the module") for text in said]
    known = [f"the module computes it with {found.named}; the export does not" for found in item.diagnoses]
    sides = dict(zip(item.subgraphs, reversed(item.subgraphs.values()), strict=True))
    return replace(item, first_fault=fault, diagnoses=[], evidence=[*known[:1], *said], subgraphs=sides)


class Wide(EvaluatedGraph):
    """A graph in float64: what it differs by from another is what was done to its constants."""

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__(graph, declaration=declared_by(graph))

    @property
    def constants(self) -> list[Array]:
        """What it holds."""
        return list(self.graph.initializers.values())

    @property
    def tolerance(self) -> str:
        """What a verdict on it allows, in words."""
        return wide_tolerance(self.declaration.storage)


def wide_tolerance(storage: Format) -> str:
    """Return what two sides in float64 may differ by, in words."""
    return (
        f"both in float64; a constant that the two do not share may be off by {FOLDINGS} roundings to "
        f"{storage.name}, each tensor by one (unit roundoff {storage.unit_roundoff:.1e}); each output by "
        f"{MULTIPLE:g} × the largest of {SAMPLES} runs with random rounding"
    )


@dataclass
class _Course(StepCourse):
    """One set of inputs' way through the graph and the candidate."""

    candidate: Candidate
    graph: OnnxGraph | None = None
    reach: int = FUSED

    @property
    def declared(self) -> Declaration:
        """What the candidate computes with; where that is float64, wide arithmetic and each result stored."""
        declared = self.candidate.declaration
        return declared if self.folded is None else Declaration(FLOAT64, declared.storage)

    def given(self, feeds: Mapping[str, Array]) -> Given:
        """Return one input as it is, several by name."""
        return next(iter(feeds.values())) if len(feeds) == 1 else feeds

    def compare_outputs(self, outputs: Mapping[str, Array]) -> tuple[list[Comparison], list[str]]:
        """Pair the outputs of both; among dumps they are looked for."""
        given = outputs if self.candidate.reruns else self._outputs_among(outputs)
        rows, problems = compare_outputs(self.recording, self.allowed, given, self.needed)
        return rows, [f"it cannot be computed: {said}" for said in self.failed] or problems

    @property
    def failed(self) -> list[str]:
        """What is wrong with the candidate's nodes whose operands do not fit together."""
        return getattr(self.candidate, "failed", None) or []

    def held_outputs(self) -> dict[str, str]:
        """Return also outputs that it cannot compute: so that what is before them is looked for."""
        lacking = {row.name: "" for row in self.outputs if row.candidate is None} if self.failed else {}
        return super().held_outputs() | lacking

    def _outputs_among(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Return the tensors that bear an output's name, or are one by value."""
        found = {}
        pool = CandidateTensors(tensors)
        for name, tensor in self.recording.outputs.items():
            match = None if name in tensors else pool.find(self.recording.tensors[tensor], self.allowed[name])
            own = name if name in tensors else match and match.name
            found.update({own: tensors[own]} if own else {})
        return found

    def judge_own(self, own: OwnGraph | None) -> list[Comparison]:
        """Judge no node: whoever computes it, it is the graph that counts."""
        return []

    def compare_steps(self, own: OwnGraph | None) -> None:
        """Look for every tensor of the graph in the candidate."""
        constants = getattr(self.candidate, "constants", None)
        if constants is not None and all(map(_is_wide, self.captured.values())):
            self.folded = folded_errors(self.recording, constants, self.candidate.declaration.storage)
        super().compare_steps(own)

    def truth(self, feeds: Mapping[str, Array]) -> Recording:
        """Return the graph's run on another input."""
        assert self.graph is not None
        return graph_recording(self.graph, feeds)

    def diagnose(self) -> None:
        """Name the mistake, and the nodes of both sides."""
        super().diagnose()
        if self.fault is not None:
            calls, _ = steps_behind(self.recording, self.steps, self.captured, self.fault.step)
            found = any(row.candidate for row in self.steps)
            names = tuple(call.name for call in calls if found and call.op_type not in PASSED_OVER)
            self.fault = replace(self.fault, question="meaning", reference_nodes=names)


def _is_wide(array: Array) -> bool:
    return array.dtype.kind != "f" or array.dtype == np.float64
