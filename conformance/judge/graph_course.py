"""The course of a verdict on what should compute a graph; and on what a candidate's own file means.

The graph in float64, its tensors found in the candidate's by name and value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from conformance.bounds import FLOAT32, FLOAT64, Declaration, Format, copied_weights
from conformance.bounds.declaration import MULTIPLE, SAMPLES
from conformance.candidates.arrays import Given
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.onnx_runtime import declared_by
from conformance.conversion.stored_weight import StoredWeight
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.alignment import CandidateTensors
from conformance.judge.course import first_wrong
from conformance.judge.diagnosis import steps_behind
from conformance.judge.folding import FOLDINGS, folded_errors
from conformance.judge.outputs import compare_outputs
from conformance.judge.replay import DATA_MOVEMENT
from conformance.judge.step_course import StepCourse
from conformance.judge.stored_weights import with_weights_of_file
from conformance.reports.report import Comparison, Fault
from refimpl import Recording
from refimpl.errors import MobileInstError
from refimpl.ops.operation import Array

FUSED = 32
"""How many steps in a row one node may stand for: a layer norm has nine, rotated attention some thirty."""

PASSED_OVER = DATA_MOVEMENT | {"Constant", "Shape", "Size", "Identity"}
"""Operators that are not listed where a fault may be."""


class Wide(EvaluatedGraph):
    """A graph in float64: what it differs by from another is what was done to its constants.

    Parameters
    ----------
    graph
    stored
        The constants of the file that it was read from, if weights are integers there: of `weights_of_file`.
    weights
        Those integers.
    """

    def __init__(
        self, graph: OnnxGraph, stored: Sequence[StoredWeight] = (), weights: Format | None = None
    ) -> None:
        super().__init__(graph, declaration=replace(declared_by(graph), weights=weights))
        self.stored = stored

    @property
    def read(self) -> tuple[tuple[str, int, int], ...]:
        """Which weights the truth has as the file does."""
        return self.declaration.read

    @read.setter
    def read(self, runs: tuple[tuple[str, int, int], ...]) -> None:
        """Declare them."""
        self.declaration = replace(self.declaration, read=runs)

    @property
    def constants(self) -> list[Array]:
        """What it holds."""
        return list(self.graph.initializers.values())

    @property
    def tolerance(self) -> str:
        """What a verdict on it allows, in words."""
        said, taken = wide_tolerance(self.declaration), len({name for name, *_ in self.read})
        return said + (f"; weights of integers taken as the file has them: {taken}" if taken else "")


def wide_tolerance(declared: Declaration) -> str:
    """Return what two sides in float64 may differ by, in words."""
    roundoff = f"unit roundoff {declared.storage.unit_roundoff:.1e}"
    return (
        f"both in float64; a constant that the two do not share may be off by {FOLDINGS} roundings to "
        f"{declared.stored_as}, each tensor by one ({roundoff}); each output by "
        f"{MULTIPLE:g} × the largest of {SAMPLES} runs with random rounding"
    )


@dataclass
class GraphCourse(StepCourse):
    """One set of inputs' way through the graph that should be computed, and the candidate.

    Attributes
    ----------
    graph
        What should be computed.
    folded_finely
        As ``folded``, of constants that only finely stored steps use.
    """

    candidate: Candidate
    graph: OnnxGraph | None = None
    reach: int = FUSED
    folded_finely: Mapping[str, Array] = field(default_factory=dict)

    @property
    def declared(self) -> Declaration:
        """What the candidate computes with; where that is float64, wide arithmetic and each result stored."""
        declared = self.candidate.declaration
        wide = Declaration(FLOAT64, declared.storage, otherwise=declared.otherwise)
        return declared if self.folded is None else wide

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
            declared = self.candidate.declaration
            self.folded = self._folded(constants, declared.storage)
            if declared.otherwise:
                self.folded_finely = self._folded(constants, declared.finest)
        super().compare_steps(own)

    def _folded(self, constants: Iterable[Array], storage: Format) -> dict[str, Array]:
        """Return by how much constants may be off that are stored in a format."""
        folded = folded_errors(self.recording, constants, storage)
        # Of weights that are integers there, what is not taken from the file may be off by its rounding.
        rounded = copied_weights(self.recording, self.candidate.declaration)
        return folded | {
            name: error + folded.get(name, 0.0) for name, error in rounded.items() if error.any()
        }

    def folded_of(self, finely: Collection[str]) -> Mapping[str, Array] | None:
        """Return by how much constants may be off: those by less that only finely stored steps use."""
        if self.folded is None or not finely:
            return self.folded
        users = self.recording.graph.consumers
        coarse = {
            name: error
            for name, error in self.folded.items()
            if any(step.outputs[0] not in finely for step in users.get(name, []))
        }
        return {**self.folded_finely, **coarse}

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
        look_into_file(self, self.feeds)


def look_into_file(course: StepCourse, feeds: Mapping[str, Array]) -> None:
    """Look for a mistake in the file of a candidate of narrow arithmetic, before what its run shows.

    That hides small ones: a weight 5 % off in a slice is less than what bfloat16 may round. What the file
    means, in float64, hides nothing.

    Parameters
    ----------
    course
        It is given the fault, if its own is not before it, or a remark where the file cannot be compared.
    feeds
        What the candidate was fed, by the names of the graph's inputs.
    """
    meaning = getattr(course.candidate, "meaning", None)
    declared, unplaced = course.candidate.declaration, course.fault is None and first_wrong(_rows(course))
    # Of a file whose own floats are narrow, what converters round is known for each runtime, not here.
    of_integers = declared.weights is not None and declared.weights.by_channel
    # Of a weight made integers the run itself tells what is wrong, by its file.
    hides = course.fault is None if of_integers else is_narrow(declared) and declared.weights is None
    if meaning is None or not hides or unplaced or getattr(course.candidate, "integer", False):
        return
    course.progress("what its file means, in float64")
    try:
        graph = meaning(course.given(feeds), len(course.shipped))
        found = None if is_narrow(declared_by(graph)) else _compared(graph, course)
    except MobileInstError as error:
        course.remarks.append(f"what its file means was not compared: {error}")
        return
    if found and found.fault:
        if course.explained or _is_not_behind(found.fault, course):
            course.fault, course.diagnoses, course.evidence = found.fault, found.diagnoses, found.evidence
        said = "what its file says is something else: computed in float64, it leaves the reference at"
        course.problems.append(f"{said} {found.fault.step}")


def _rows(course: StepCourse) -> list[Comparison]:
    return [*course.outputs, *course.nodes, *course.steps]


def _is_not_behind(fault: Fault, course: StepCourse) -> bool:
    """Tell whether a fault is of no step behind that of what a course found."""
    places = {name: place for place, (_, name) in enumerate(course.recording.results())}
    found = None if course.fault is None else places.get(course.fault.step)
    return found is None or places.get(fault.step, 0) <= found


def _compared(graph: OnnxGraph, course: StepCourse) -> StepCourse:
    """Return how far a file's graph and what it should compute agree, step by step; no output is judged."""
    candidate = Wide(graph, getattr(course.candidate, "stored", ()), course.candidate.declaration.weights)
    candidate.failed = []
    recording = with_weights_of_file(candidate, course.recording, ahead=True)
    own = GraphCourse(candidate, course.feeds, "", (), "", recording, course.progress, None)
    own.weights, own.captured = course.weights, candidate.capture(own.given(course.feeds))
    own.outputs = [*_outputs_of(graph, course, own.captured)]
    own.compare_steps(None)
    if own.fault:
        own.diagnose()
    return own


def _outputs_of(graph: OnnxGraph, course: StepCourse, captured: Mapping[str, Array]) -> Iterator[Comparison]:
    """Yield the outputs with the file's tensors for them: by their names, else the nearest of a shape."""
    pool = CandidateTensors({name: captured[name] for name in graph.outputs if name in captured})
    for row in course.outputs:
        truth = course.recording.tensors[course.recording.outputs[row.name]]
        near = None if row.candidate in captured else pool.nearest(truth, np.inf, set())
        if row.candidate in captured or near is not None:
            yield replace(row, candidate=row.candidate if near is None else near.name)


def is_narrow(declared: Declaration) -> bool:
    """Tell whether something is stored or computed in less than float32."""
    return max(declared.arithmetic.unit_roundoff, declared.storage.unit_roundoff) > FLOAT32.unit_roundoff


def _is_wide(array: Array) -> bool:
    return array.dtype.kind != "f" or array.dtype == np.float64
