"""The course of a verdict on one input, whatever is asked: outputs, nodes, steps, diagnosis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from conformance.bounds import Declaration
from conformance.candidates.arrays import attempted
from conformance.candidates.candidate import OwnGraph
from conformance.judge.coverage import covered
from conformance.judge.envelope_cache import cached_envelope
from conformance.judge.fusions import find_crash, find_fusion
from conformance.judge.movement import another, frozen_problem, moving, still
from conformance.judge.nodes import judge_nodes_and_parts
from conformance.judge.optimised_parts import MadePart, parts_made
from conformance.judge.outputs import infinite_outputs, other_when_captured, run_twice, spread
from conformance.judge.quantized import CPUS, NPU, judge_units, only_as_shipped
from conformance.judge.steps import FUSION_REACH
from conformance.reports.report import Comparison, Decision, Diagnosis, Fault, InputReport, PlacedNode
from refimpl import Recording
from refimpl.errors import CandidateError, MobileInstError, ProcessError
from refimpl.ops.operation import Array

Progress = Callable[[str], None]
"""Called with a few words before each stage."""


class Judged(Protocol):
    """What is judged, and takes whatever its kind takes: images, or a graph's inputs by name."""

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""

    def run(self, given: Any) -> Mapping[str, Array]:
        """Return the outputs by name."""

    def capture(self, given: Any) -> Mapping[str, Array]:
        """Return every tensor that can be had by name."""

    def own_graph(self, given: Any) -> OwnGraph | None:
        """Return what it says it computes, after `capture`."""


@dataclass
class Course(ABC):
    """A verdict on its way: what is found so far is kept if the candidate fails later.

    A kind of verdict says what the outputs are compared with, whether there are steps to compare, and where
    a mistake is looked for.

    Attributes
    ----------
    candidate
    feeds
        What it is fed, by name.
    label, shape, sha256
        The input's, in the report.
    recording
        What the candidate should compute, in float64.
    progress
    cache
        Folder in which envelopes are kept; None: nowhere.
    alone
        Whether this is the only input; then it is tried what an input of the judge's own changes.
    reach
        How many steps in a row the candidate may fuse.
    crashes
        Whether the shipped run fails, so that the outputs are of another.
    ended
        Whether its process ended, hangs, or answers what is no answer.
    suspected
        Whether a part of its optimised graph is wrong, or that is not known.
    """

    candidate: Judged
    feeds: Mapping[str, Array]
    label: str
    shape: tuple[int, ...]
    sha256: str
    recording: Recording
    progress: Progress
    cache: Path | None
    shipped: dict[str, Array] = field(default_factory=dict)
    allowed: dict[str, float] = field(default_factory=dict)
    captured: dict[str, Array] = field(default_factory=dict)
    outputs: list[Comparison] = field(default_factory=list)
    nodes: list[Comparison] = field(default_factory=list)
    steps: list[Comparison] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    subgraphs: dict[str, list[PlacedNode]] = field(default_factory=dict)
    fault: Fault | None = None
    alone: bool = True
    reach: int = FUSION_REACH
    crashes: bool = False
    ended: bool = False
    suspected: bool = True
    takes_any: ClassVar[bool] = True
    """Whether any numbers can be fed, in any order."""

    @abstractmethod
    def given(self, feeds: Mapping[str, Array]) -> Any:
        """Return what the candidate's methods take."""

    @abstractmethod
    def compare_outputs(self, outputs: Mapping[str, Array]) -> tuple[list[Comparison], list[str]]:
        """Return a row for each output, and what else is wrong with them."""

    @abstractmethod
    def compare_steps(self, own: OwnGraph | None) -> None:
        """Compare what was captured with the recording, where that is not the candidate's own graph's."""

    @abstractmethod
    def truth(self, feeds: Mapping[str, Array]) -> Recording:
        """Return what the candidate should compute on another input."""

    @abstractmethod
    def tensor_of(self, name: str) -> str | None:
        """Return the recording's tensor that a captured one was found to be; None: of none it is known."""

    @abstractmethod
    def diagnose(self) -> None:
        """Name the mistake that explains the first fault."""

    def further(self) -> list[str]:
        """Return the candidate's outputs that are besides what it should give, and are not judged."""
        return []

    def follow(self) -> InputReport:
        """Go all the way, or as far as the candidate lets."""
        try:
            self._judge_outputs()
            own = self._judge_nodes()
            self.progress("comparing step by step")
            self.compare_steps(own)
            self._search_fusions(own)
            self._judge_movement()
            if not self.problems:
                self.progress("diagnosis")
                self.diagnose()
        except CandidateError as error:
            self.problems.append(str(error))
            self.ended = isinstance(error, ProcessError)
        return self._report()

    def judge_own(self, own: OwnGraph | None) -> list[Comparison]:
        """Judge the candidate's own nodes, where its graph can be replayed."""
        if own is None or own.graph is None:
            return []
        declared = self.candidate.declaration
        if getattr(self.candidate, "integer", False):
            lost = getattr(self.candidate, "steps_lost", None)
            losses = NPU if lost is None else replace(CPUS, steps={1: lost})
            rows, remarks = judge_units(own.graph, own.feeds, self.captured, losses)
            rows, apart = only_as_shipped(own.graph, rows, self.shipped, self.captured, losses)
            self.remarks += remarks + apart
            return rows
        parts = self._optimised_parts(own)
        rows, judged = judge_nodes_and_parts(
            own.graph, own.feeds, self.captured, declared, parts, own.wide_float16
        )
        self.suspected = any(part.utilisation > 1 for part in judged)
        return rows

    def _optimised_parts(self, own: OwnGraph) -> list[MadePart]:
        """Return what its optimised graph makes of what was captured, where it has one and that runs."""
        if own.optimising is None or self.crashes:
            return []
        return parts_made(own.optimising, own.feeds, self.captured, own.wide_float16)

    def _call(self, method: Callable[[Any], Any], feeds: Mapping[str, Array]) -> dict[str, Array]:
        return attempted(method, self.given(feeds), passed=MobileInstError)

    def _judge_outputs(self) -> None:
        """Compare what the shipped run gives with float64."""
        self.progress("candidate")
        # A graph may mean NaN: then the runtime is to make it, too.
        truths = {name: self.recording.tensors[tensor] for name, tensor in self.recording.outputs.items()}
        infinite = [name for name, truth in truths.items() if not _is_finite(truth)]
        self.shipped, self.problems = self._run_as_shipped()
        self.progress("noise envelope")
        declared = self.candidate.declaration
        if getattr(self.candidate, "integer", False):
            # Rounding to steps moves a deep output by far more than it varies; each result is judged alone.
            self.allowed = dict.fromkeys(self.recording.outputs, np.inf)
        else:
            self.allowed = cached_envelope(self.recording, declared, self.cache, self.progress)
        self.outputs, problems = self.compare_outputs(self.shipped)
        self.problems += infinite_outputs(self.shipped, {*infinite, *self.further()})
        self.outputs = [self._as_far_as_they_tell(row) for row in self.outputs]
        self.problems += problems

    def _run_as_shipped(self) -> tuple[dict[str, Array], list[str]]:
        """Return the outputs as shipped, or as they are unoptimised if only that runs; and what is wrong."""
        try:
            return run_twice(partial(self._call, self.candidate.run), self.feeds)
        except CandidateError as error:
            own = self.candidate.own_graph(self.given(self.feeds))
            if own is None or own.optimising is None:
                raise
            self.progress("optimisers")
            try:
                problem, outputs = find_crash(own.optimising, own.feeds, error)
            except CandidateError:
                raise error from None
            self.crashes = True
            return outputs, [problem]

    def _as_far_as_they_tell(self, row: Comparison) -> Comparison:
        """Return an output unjudged if rounding may move it by more than it varies: anything would pass."""
        truth = self.recording.tensors[self.recording.outputs[row.name]]
        if row.verdict != "pass" or self.allowed[row.name] <= spread(truth):
            return row
        return replace(row, verdict="not judged")

    def _judge_nodes(self) -> OwnGraph | None:
        """Capture every tensor and replay every node on what it was fed; return the candidate's graph."""
        self.progress("candidate, every tensor")
        self.captured = self._call(self.candidate.capture, self.feeds)
        own = self.candidate.own_graph(self.given(self.feeds))
        if own is None or own.graph is None:
            self.problems += other_when_captured(self.shipped, self.captured, self._allowed_of())
        self.progress("its own graph, node by node")
        self.nodes = self.judge_own(own)
        return own

    def _allowed_of(self) -> dict[str, float]:
        """Return how far the candidate's outputs, by its own names, may be off."""
        return {row.candidate: self.allowed[row.name] for row in self.outputs if row.candidate}

    def _search_fusions(self, own: OwnGraph | None) -> None:
        """Say what optimisation makes wrong, where every node is right without it."""
        wrong = [row for row in self.outputs if row.verdict == "fail"]
        parts = [row for row in (*self.nodes, *self.steps) if row.introduced_error is not None]
        absent = any(row.candidate is None for row in wrong)
        if absent or self.crashes or _any_fails(parts) or own is None or own.optimising is None:
            return
        self.progress("as it is optimised")
        given = own.optimising, own.feeds, self.captured
        fusion = find_fusion(*given, self._is_right, bool(wrong), own.wide_float16, self.suspected)
        self.problems += [] if fusion is None else [str(fusion)]

    def _judge_movement(self) -> None:
        """Say what stays as it is on another input though the truth of it does not."""
        other = another(self.feeds) if self.alone and getattr(self.candidate, "reruns", True) else None
        # What is wrong is told by its place; a tensor that stands for a wrong step's may be a constant.
        if other is None or self.problems or self.fault is not None:
            return
        self.progress("candidate, another input")
        try:
            self._compare_movement(other)
        except CandidateError as error:
            if self.takes_any:
                raise
            # Lengths and factors among the inputs are not in any order those of an input that fits.
            self.remarks.append(f"it was not seen on another input, its own in another order: {error}")

    def _compare_movement(self, other: Mapping[str, Array]) -> None:
        places = {row.candidate: self.recording.outputs[row.name] for row in self.outputs if row.candidate}
        shown = {name: self.shipped[name] for name in places}
        outputs = still(shown, self._call(self.candidate.run, other))
        inside = still(self.captured, self._call(self.candidate.capture, other))
        tensors = {name: self.tensor_of(name) for name in inside if name not in places}
        if not outputs and not any(tensors.values()):
            return
        moved = self.truth(other)
        frozen = self._should_move({name: places[name] for name in outputs}, moved)
        self.problems += [frozen_problem("output", frozen)] * bool(frozen)
        hidden = [] if frozen else self._should_move(tensors, moved)
        self.problems += [frozen_problem("tensor", hidden)] * bool(hidden)

    def _should_move(self, tensors: Mapping[str, str | None], moved: Recording) -> list[str]:
        """Return which of the candidate's tensors, given with the truth's, must differ on the other input."""
        declared = None if getattr(self.candidate, "integer", False) else self.candidate.declaration
        wanted = moving({name for name in tensors.values() if name}, self.recording, moved, declared)
        return [name for name, tensor in tensors.items() if tensor in wanted]

    def _is_right(self, outputs: Mapping[str, Array]) -> bool:
        return not _any_fails(self.compare_outputs(outputs)[0])

    def _report(self) -> InputReport:
        self.remarks += getattr(self.candidate, "remarks", ())
        return InputReport(
            self.label,
            self.shape,
            self.sha256,
            self.outputs,
            self.steps,
            self.nodes,
            self._wrong_node() or self.fault,
            self.problems,
            self.diagnoses,
            self.decisions,
            self.remarks,
            self.evidence,
            covered(self.recording, self.steps or self.nodes, self.reach),
            self.subgraphs,
            self.ended,
        )

    def _wrong_node(self) -> Fault | None:
        """Return the first node the runtime computes wrongly, under the reference's name if that is known."""
        first = first_wrong(self.nodes)
        if first is None:
            return None
        names = [row.name for row in self.steps if row.candidate == first.name]
        own = (first.candidate or first.name,)
        return Fault(names[0] if names else first.name, first.operation, "graph", own)


def first_wrong(rows: list[Comparison]) -> Comparison | None:
    """Return the first row that fails."""
    return next((row for row in rows if row.verdict == "fail"), None)


def _any_fails(rows: list[Comparison]) -> bool:
    return first_wrong(rows) is not None


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
