"""Is this candidate MobileInst, and does the runtime compute its own graph? Each step beside float64, within
derived bounds.

The order of the checks: shapes, repeatability, finiteness, values. A step is judged by the error it
*introduces* on its own operands, against a rigorous
bound of what rounding may do there; an output by its distance from the reference, against the noise envelope.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conformance.bounds.worst_element import absolute_error, largest_in, worst_of
from conformance.candidates.arrays import attempted
from conformance.candidates.candidate import Candidate
from conformance.judge.alignment import CandidateTensors, Match
from conformance.judge.conditioning import explain_large_errors
from conformance.judge.decisions import NEEDED_OUTPUTS, compare_decisions
from conformance.judge.detail import Spotlight
from conformance.judge.diagnosis import diagnose
from conformance.judge.envelope_cache import cached_envelope
from conformance.judge.recording_cache import cached_recording
from conformance.judge.replay import Replay, Structure
from conformance.judge.track_identity import TrackIdentity, frames_of_one_video
from conformance.reports.report import Comparison, Decision, Diagnosis, Fault, InputReport, Report
from refimpl import MobileInst, MobileInstConfig, Recording, Step
from refimpl.errors import CandidateError, MobileInstError
from refimpl.ops.operation import Array
from refimpl.recording import RecordableModel

if TYPE_CHECKING:
    pass

MOST_FAULTS = 3
"""How many wrong tensors are taken over, one after another, so that the steps behind them are judged too."""
FUSION_REACH = 4
"""How many steps in a row a candidate may have fused: attention's scale, logits, softmax and product."""
RESEMBLANCE = 0.05
"""A tensor this near to a missing one, relative to its largest element, is a wrong version of it, not another
tensor."""


def verify(
    candidate: Candidate,
    config: MobileInstConfig,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    *,
    name: str = "candidate",
    progress: Callable[[str], None] = lambda stage: None,
    part: Callable[[MobileInst, Array], RecordableModel] = lambda network, images: network,
    cache: Path | None = None,
    frames: bool = False,
) -> Report:
    """Judge a candidate against the reference.

    Parameters
    ----------
    candidate
        The implementation under test.
    config, weights
        The network it should be.
    inputs
        Name → normalised images (B, 3, H, W). Both sides are given the same float32 numbers.
    name
        What to call the candidate in the report.
    progress
        Called with a few words before each stage.
    part
        The float64 network and the images → what the candidate should compute of it; the whole by default.
    cache
        Folder in which the reference's runs and envelopes are kept between verdicts; None: nowhere.
    frames
        Whether the inputs are consecutive keyframes of one video: then it is also judged whether the kernels
        carry each track to the query it should.

    Raises
    ------
    ShapeError, NonFiniteError, CandidateError
        An input does not fit, or the candidate cannot be run.
    """
    if frames:
        frames_of_one_video({label: np.shape(images) for label, images in inputs.items()})
    wide = {key: array.astype(np.float64) for key, array in weights.items()}
    network = MobileInst(config, wide)
    tracks = TrackIdentity() if frames else None
    reports = []
    for label, images in inputs.items():
        fed = np.array(images, np.float32)
        judged = part(network, fed)
        say = partial(_say, progress, label)
        reports.append(_verify_one(candidate, judged, label, fed, say, cache, tracks))
    model = {"config": asdict(config), "weights_sha256": weights_hash(weights)}
    return Report(reports, name, model, str(candidate.declaration))


def _say(progress: Callable[[str], None], label: str, stage: str) -> None:
    progress(f"{label}: {stage}")


def _verify_one(
    candidate: Candidate,
    network: RecordableModel,
    label: str,
    images: Array,
    progress: Callable[[str], None],
    cache: Path | None,
    tracks: TrackIdentity | None,
) -> InputReport:
    """Judge one input; what a failing candidate gave so far is kept."""
    declaration = candidate.declaration
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    rows: list[Comparison] = []
    steps: list[Comparison] = []
    nodes: list[Comparison] = []
    problems: list[str] = []
    diagnoses: list[Diagnosis] = []
    decisions: list[Decision] = []
    remarks: list[str] = []
    fault = None
    try:
        progress("candidate")
        call = partial(attempted, passed=MobileInstError)
        outputs, problems = run_twice(lambda feeds: call(candidate.run, feeds["images"]), {"images": images})
        progress("reference in float64")
        recording = cached_recording(network, images.astype(np.float64), cache)
        progress("noise envelope")
        declared = (declaration.arithmetic, declaration.storage, declaration.runtime)
        allowed = cached_envelope(recording, *declared, cache, progress)
        rows, pairing = compare_outputs(recording, allowed, outputs)
        problems = problems + pairing
        progress("candidate, every tensor")
        captured = call(candidate.capture, images)
        progress("its own graph, node by node")
        nodes = candidate.judge(images, captured)
        progress("comparing step by step")
        given = {row.name: row.candidate for row in rows if row.candidate is not None}
        steps, fault = compare_steps(recording, given, CandidateTensors(captured), candidate)
        every = [*rows, *nodes, *steps]
        problems = problems + _fusion_problems(candidate, images, captured, recording, allowed, every)
        decisions = _decisions(recording, rows, outputs, allowed, tracks)
        if not any(row.verdict == "fail" for row in every):
            remarks = explain_large_errors(recording, rows, steps)
        fault = fault or _output_fault(rows, recording)
        # Without the tensors around the failing step every mistake of the whole network could be the one.
        if not problems and candidate.captures_all:
            diagnoses = diagnose(recording, steps, rows, captured, outputs, declaration)
            fault = _placed(fault, diagnoses, steps, recording)
    except CandidateError as error:
        problems = [*problems, str(error)]
        if tracks:
            tracks.skip()
    fault = _graph_fault(nodes, steps) or fault
    return InputReport(
        label, images.shape, digest, rows, steps, nodes, fault, problems, diagnoses, decisions, remarks
    )


def _fusion_problems(
    candidate: Candidate,
    images: Array,
    captured: Mapping[str, Array],
    recording: Recording,
    allowed: Mapping[str, float],
    rows: Sequence[Comparison],
) -> list[str]:
    """Say what optimisation makes wrong, where nothing but the outputs of the optimised run fails."""
    failed = [row for row in rows if row.verdict == "fail"]
    if not failed or any(row.introduced_error is not None for row in failed):
        return []

    def is_right(outputs: Mapping[str, Array]) -> bool:
        return all(row.verdict != "fail" for row in compare_outputs(recording, allowed, outputs)[0])

    fusion = candidate.find_fusion(images, captured, is_right)
    return [] if fusion is None else [str(fusion)]


def _decisions(
    recording: Recording,
    rows: Sequence[Comparison],
    outputs: Mapping[str, Array],
    allowed: Mapping[str, float],
    tracks: TrackIdentity | None,
) -> list[Decision]:
    reference = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
    given = {
        row.name: outputs[row.candidate].reshape(row.shape)
        for row in rows
        if row.candidate is not None and np.isfinite(outputs[row.candidate]).all()
    }
    found = compare_decisions(reference, given, allowed)
    return found + (tracks.compare(reference, given, allowed) if tracks else [])


def run_twice(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    feeds: Mapping[str, Array],
    infinite: Collection[str] = (),
) -> tuple[dict[str, Array], list[str]]:
    """Run a candidate, and say if it rewrites its input, does not repeat itself, or is not finite, but for
    the outputs that should be ``infinite``."""
    problems = []
    given = {name: array.copy() for name, array in feeds.items()}
    outputs = {name: np.array(array) for name, array in run(given).items()}
    rewritten = [
        name for name, array in feeds.items() if not np.array_equal(given[name], array, equal_nan=True)
    ]
    if rewritten:
        problems.append(f"it rewrites its input {', '.join(map(repr, rewritten))}")
    again = run({name: array.copy() for name, array in feeds.items()})
    for name, array in outputs.items():
        if name not in again or not _same(array, again[name]):
            problems.append(f"it is not repeatable: two runs on the same input differ in output {name!r}")
        elif name not in infinite and array.dtype.kind == "f" and not np.isfinite(array).all():
            count = np.count_nonzero(~np.isfinite(array))
            problems.append(
                f"its output {name!r} has {count} of {array.size} numbers that are NaN or infinite"
            )
    return outputs, problems


def _same(first: Array, second: Array) -> bool:
    second = np.asarray(second)
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def compare_outputs(
    recording: Recording, allowed: Mapping[str, float], outputs: Mapping[str, Array]
) -> tuple[list[Comparison], list[str]]:
    """Pair the candidate's outputs with the reference's, by name, else by value, else by shape, and compare
    them.

    Returns
    -------
    comparisons, problems
        One row for each output of the reference (``absent`` if the candidate does not give it), and what is
        wrong with the pairing itself.
    """
    truth = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
    named = {name for name in outputs if name in truth and outputs[name].shape == truth[name].shape}
    free = dict(outputs)
    rows = []
    for name, reference in truth.items():
        # An output that bears its own name is not taken for another that is missing.
        others = {key: array for key, array in free.items() if key == name or key not in named}
        match = _paired(name, reference, allowed[name], others)
        if match:
            free.pop(match.name)
        rows.append(_row(name, name, reference, match, allowed[name], "absent", introduced=False))
    problems = [
        f"its output {name!r} {array.shape} is none of the reference's" for name, array in free.items()
    ]
    problems += [
        f"it gives no output {row.name!r} of shape {row.shape}"
        for row in rows
        if row.candidate is None and row.name in NEEDED_OUTPUTS
    ]
    if all(row.candidate is None for row in rows):
        problems.append("none of its outputs is one of the reference's")
    return rows, problems


def _paired(name: str, reference: Array, allowed: float, free: Mapping[str, Array]) -> Match | None:
    if name in free and free[name].shape == reference.shape:
        return Match(name, free[name], worst_of(free[name], reference, allowed))
    candidates = CandidateTensors(free)
    return candidates.find(reference, allowed) or candidates.nearest(reference, allowed, set())


@dataclass(frozen=True)
class _Prediction:
    """What a step makes of the candidate's own tensors, and the candidate's tensor that is it."""

    step: Step
    match: Match | None
    value: Array | None
    bound: Array | float
    honest: bool = True
    """Whether what is within the bound also looks like rounding."""


def compare_steps(
    recording: Recording,
    outputs: Mapping[str, str],
    tensors: CandidateTensors,
    candidate: Candidate,
) -> tuple[list[Comparison], Fault | None]:
    """Find every tensor of the reference in the candidate, and the first step that the candidate computes
    differently.

    Each step is computed on the candidate's own tensors, so an error is seen where it is made, however much
    or little the network makes of it later.

    Parameters
    ----------
    recording
        The reference's run.
    outputs
        Output → the candidate's tensor that is given for it.
    tensors, candidate
    """
    sides = _Sides(recording, Structure(recording), outputs, tensors, candidate)
    taken: dict[str, str] = {}
    while True:
        rows, known, missed = _compare_once(sides, taken)
        fresh = next((row for row in rows if row.name in missed and row.candidate is not None), None)
        if fresh is None or len(taken) == MOST_FAULTS:
            break
        taken[fresh.name] = str(fresh.candidate)
    first = next((row for row in rows if row.verdict == "fail"), None)
    if first is None:
        return rows, None
    nodes = tuple(candidate.nodes_between(first.candidate, known)) if first.candidate else ()
    return rows, Fault(first.name, first.operation, "network", nodes)


@dataclass(frozen=True)
class _Sides:
    """The reference's run, and the candidate's tensors in which it is looked for."""

    recording: Recording
    structure: Structure
    outputs: Mapping[str, str]
    tensors: CandidateTensors
    candidate: Candidate

    @cached_property
    def compared(self) -> set[str]:
        """What the candidate should hold."""
        return self.structure.compared(self.outputs)

    @cached_property
    def sought(self) -> set[str]:
        """What it should hold, and what it may."""
        return self.compared | self.structure.folded(self.outputs)

    @cached_property
    def given(self) -> dict[str, str]:
        """Tensor of the reference that is an output → the candidate's that is given for it."""
        return {self.recording.outputs[name]: own for name, own in self.outputs.items()}

    def wrong_output(self, name: str, value: Array, bound: Array | float) -> Match | None:
        """Return what the candidate gives for a tensor, if that is an output and not within its bound.

        Nothing is computed of an output, so what is done to it last shows nowhere else.
        """
        own = self.tensors.tensors.get(self.given.get(name, ""))
        alike = own is not None and own.shape == value.shape
        if not alike or not self.candidate.captures_all or not np.isfinite(bound).any():
            return None
        match = self.tensors.named(self.given[name], value, bound)
        return match if match is not None and match.worst.utilisation > 1 else None

    def match(self, name: str, value: Array, bound: Array | float) -> Match | None:
        """Find a tensor within its bound; where that is so loose, or missing, that anything is, one that
        resembles it, if the candidate holds all of its tensors: else it may be the next one."""
        if np.isfinite(bound).any():
            match = self.tensors.find(value, bound, spatial=name in self.structure.maps)
            largest = float(np.abs(value).max(initial=0.0))
            if float(np.max(bound, initial=0.0)) <= RESEMBLANCE * largest:
                return match
        else:
            match = self.tensors.nearest(value, np.inf, set())
        return match if self.candidate.captures_all and _resembles(match, value) else None


def _compare_once(sides: _Sides, taken: Mapping[str, str]) -> tuple[list[Comparison], set[str], set[str]]:
    """Compare every step; where a wrong tensor is ``taken`` for a step, those after it compute on it.

    Returns
    -------
    rows, known, missed
        The comparisons, the candidate's tensors that are right, and the steps that fail and have none taken.
    """
    spotlight = Spotlight()
    recording, tensors = sides.recording, sides.tensors
    predictions = _predict(sides, spotlight, taken)
    found = {name: item.match for name, item in predictions.items() if item.match}
    known = {match.name for name, match in found.items() if name not in taken}
    output_names = {tensor: output for output, tensor in recording.outputs.items()}
    rows, missed = [], set()
    for name, item in predictions.items():
        match, missing = item.match, "fail"
        if match is None and item.value is not None and not sides.candidate.captures_all:
            match, missing = tensors.named(output_names.get(name, name), item.value, item.bound), "absent"
        elif match is None and item.value is not None:
            match = tensors.likeliest(output_names.get(name, name), item.value, item.bound, known)
            fused = sides.structure.soon_found(name, found, sides.compared, FUSION_REACH)
            if fused and not _resembles(match, item.value):
                match, missing = None, "absent"
        if match and item.value is not None:
            spotlight.show(name, match.values, item.value, item.bound, match.worst.utilisation)
        row = _row(name, item.step.operation, recording.tensors[name], match, item.bound, missing)
        if item.match is None and row.verdict == "fail":
            missed.add(name)
        within = row.verdict != "fail"
        rows.append(row if item.honest else replace(row, verdict="fail", systematic=within))
    return spotlight.placed(rows), known, missed


def _predict(sides: _Sides, spotlight: Spotlight, taken: Mapping[str, str]) -> dict[str, _Prediction]:
    declared = sides.candidate.declaration
    replay = Replay(sides.recording, declared.arithmetic, declared.storage, declared.runtime)
    predictions: dict[str, _Prediction] = {}
    for step in sides.recording.steps:
        replay.compute(step)
        for name in {*sides.sought, *sides.given}.intersection(step.outputs):
            value, bound, honest = replay.values[name], replay.bound(name), True
            match = sides.match(name, value, bound) if name in sides.sought else None
            if match is None and name in taken:
                match = sides.tensors.named(taken[name], value, bound)
            if match:
                honest = replay.looks_like_rounding(step, name, match.values)
                replay.adopt(name, match.values)
            if match or name not in sides.sought:
                match = sides.wrong_output(name, value, bound) or match
            if match:
                reached = match.worst.utilisation if honest else np.inf
                spotlight.show(name, match.values, value, bound, reached)
                predictions[name] = _Prediction(step, match, None, 0.0, honest)
            elif name in sides.compared:
                predictions[name] = _Prediction(step, None, value, bound)
        replay.forget(step)
    return predictions


def _output_fault(rows: Sequence[Comparison], recording: Recording) -> Fault | None:
    """Return the first wrong output: every step is right, but what is done to the last."""
    for row in rows:
        if row.verdict == "fail":
            tensor = recording.outputs[row.name]
            operation = next(step.operation for step, name in recording.results() if name == tensor)
            return Fault(tensor, operation, "network", ())
    return None


def _placed(
    fault: Fault | None, diagnoses: Sequence[Diagnosis], steps: Sequence[Comparison], recording: Recording
) -> Fault | None:
    """Move a fault to the absent step before it at which the likeliest mistake was made: a step that a
    candidate left out is missing from its tensors, and shows at the next."""
    call = diagnoses[0].call if fault and diagnoses else None
    made = next((step.outputs for step in recording.steps if step.name == call), ())
    absent = next((row for row in steps if row.name in made and row.verdict == "absent"), None)
    if fault is None or absent is None:
        return fault
    return replace(fault, step=absent.name, operation=absent.operation)


def _graph_fault(nodes: Sequence[Comparison], steps: Sequence[Comparison]) -> Fault | None:
    """Return the first node the runtime computes wrongly, under the reference's name if that is known."""
    first = next((row for row in nodes if row.verdict == "fail"), None)
    if first is None:
        return None
    names = [row.name for row in steps if row.candidate == first.name]
    return Fault(
        names[0] if names else first.name, first.operation, "graph", (first.candidate or first.name,)
    )


def _resembles(match: Match | None, reference: Array) -> bool:
    if match is None:
        return False
    error = float(absolute_error(match.values, reference).max(initial=0.0))
    return error <= RESEMBLANCE * float(np.abs(reference).max(initial=0.0))


def _row(
    name: str,
    operation: str,
    reference: Array,
    match: Match | None,
    bound: Array | float,
    missing: str,
    introduced: bool = True,
) -> Comparison:
    if match is None:
        return Comparison(name, operation, None, reference.shape, None, None, None, None, None, None, missing)
    error, place = largest_in(absolute_error(match.values, reference))
    # Single elements without bound may overflow; if the most utilised one has none, none has.
    bounded = match.worst.utilisation > 0 or np.isfinite(match.worst.bound)
    scale = float(np.abs(reference).max(initial=0.0))
    return Comparison(
        name=name,
        operation=operation,
        candidate=match.name,
        shape=reference.shape,
        max_abs_error=error,
        relative_error=error / scale if scale else error,
        worst_index=place,
        introduced_error=match.worst.error if introduced else None,
        tolerance=match.worst.bound if bounded else None,
        utilisation=match.worst.utilisation if bounded else None,
        verdict=("pass" if match.worst.utilisation <= 1 else "fail") if bounded else "not judged",
    )


def weights_hash(weights: Mapping[str, Array]) -> str:
    """Return a SHA-256 over names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(json.dumps([name, list(weights[name].shape), str(weights[name].dtype)]).encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
