"""Is this candidate MobileInst? Its tensors against the float64 reference on the same bytes, step by step.

The tolerances are interim, derived from what float32 arithmetic does to the reference itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np

from conformance.alignment import CandidateTensors, Match, largest_error
from conformance.replay import Replay, Structure
from conformance.report import Comparison, Fault, InputReport, Report
from refimpl import MobileInst, MobileInstConfig, Recording, Step, record
from refimpl.ops.operation import Array

NOISE_MULTIPLE = 16.0
UNIT_ROUNDOFF = 2.0**-24
FLOOR_ROUNDOFFS = 64.0
FUSION_REACH = 4
"""How many steps in a row a candidate may have fused: attention's scale, logits, softmax and product."""
RESEMBLANCE = 0.05
"""A tensor this near to a missing one, relative to its largest element, is a wrong version of it, not another tensor."""
TOLERANCE = (
    f"interim: {NOISE_MULTIPLE:g} × what NumPy float32 arithmetic does to the same step (to the same output, for outputs), "
    f"at least {FLOOR_ROUNDOFFS:g} unit roundoffs (2⁻²⁴) of its largest element"
)


class Candidate(Protocol):
    """What verification needs of an implementation under test."""

    def run(self, images: Array) -> Mapping[str, Array]:
        """Return the outputs by name."""

    def capture(self, images: Array) -> Mapping[str, Array]:
        """Return every tensor that can be had by name, in topological order."""

    def judge(self, images: Array, tensors: Mapping[str, Array]) -> list[Comparison]:
        """Judge the candidate's own nodes on its own tensors; empty if it has no graph."""

    def nodes_between(self, tensor: str, known: set[str]) -> Sequence[str]:
        """Return the names of the nodes that compute ``tensor`` from ``known`` tensors."""


def verify(
    candidate: Candidate,
    config: MobileInstConfig,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    *,
    name: str = "candidate",
    progress: Callable[[str], None] = lambda stage: None,
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

    Raises
    ------
    ShapeError, NonFiniteError, CandidateError
        An input does not fit, or the candidate cannot be run.
    """
    reports = []
    for label, images in inputs.items():
        reports.append(_verify_one(candidate, config, weights, label, np.asarray(images, np.float32), progress))
    model = {"config": asdict(config), "weights_sha256": weights_hash(weights)}
    return Report(reports, name, model, TOLERANCE)


def _verify_one(
    candidate: Candidate,
    config: MobileInstConfig,
    weights: Mapping[str, Array],
    label: str,
    images: Array,
    progress: Callable[[str], None],
) -> InputReport:
    progress(f"{label}: candidate")
    outputs = candidate.run(images)
    progress(f"{label}: reference in float64")
    recording = _reference(config, weights, images)
    rows, problems = compare_outputs(recording, _output_tolerances(recording, config, weights, images), outputs)
    progress(f"{label}: candidate, every tensor")
    captured = candidate.capture(images)
    tensors = CandidateTensors(captured)
    progress(f"{label}: its own graph, node by node")
    nodes = candidate.judge(images, captured)
    progress(f"{label}: comparing step by step")
    given = [row.name for row in rows if row.candidate is not None]
    steps, fault = compare_steps(recording, given, tensors, candidate)
    fault = _graph_fault(nodes, steps) or fault
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
    return InputReport(label, images.shape, digest, rows, steps, nodes, fault, problems)


def _reference(config: MobileInstConfig, weights: Mapping[str, Array], images: Array) -> Recording:
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    return record(MobileInst(config, wide), images.astype(np.float64))


def _output_tolerances(
    recording: Recording, config: MobileInstConfig, weights: Mapping[str, Array], images: Array
) -> dict[str, float]:
    narrow = {name: array.astype(np.float32) for name, array in weights.items()}
    outputs = MobileInst(config, narrow)(images)
    return {
        name: _tolerance(values, recording.tensors[recording.outputs[name]]) for name, values in outputs.items()
    }


def _tolerance(narrow: Array, wide: Array) -> float:
    largest = float(np.abs(wide).max(initial=0.0))
    return max(NOISE_MULTIPLE * largest_error(narrow, wide), FLOOR_ROUNDOFFS * UNIT_ROUNDOFF * largest)


def compare_outputs(
    recording: Recording, tolerances: Mapping[str, float], outputs: Mapping[str, Array]
) -> tuple[list[Comparison], list[str]]:
    """Pair the candidate's outputs with the reference's, by name, else by value, else by shape, and compare them.

    Returns
    -------
    comparisons, problems
        One row for each output of the reference (``absent`` if the candidate does not give it), and what is wrong with the pairing itself.
    """
    free = dict(outputs)
    rows = []
    for name, tensor in recording.outputs.items():
        reference = recording.tensors[tensor]
        match = _paired(name, reference, tolerances[name], free)
        if match:
            free.pop(match.name)
        error = match.max_abs_error if match else None
        rows.append(_row(name, name, reference, match, error, None, tolerances[name], "absent"))
    problems = [f"its output {name!r} {array.shape} is none of the reference's" for name, array in free.items()]
    if all(row.candidate is None for row in rows):
        problems.append("none of its outputs is one of the reference's")
    return rows, problems


def _paired(name: str, reference: Array, tolerance: float, free: Mapping[str, Array]) -> Match | None:
    if name in free and free[name].shape == reference.shape:
        return Match(name, free[name], largest_error(free[name], reference))
    candidates = CandidateTensors(free)
    return candidates.find(reference, tolerance) or candidates.nearest(reference, set())


def compare_steps(
    recording: Recording, outputs: Sequence[str], tensors: CandidateTensors, candidate: Candidate
) -> tuple[list[Comparison], Fault | None]:
    """Find every tensor of the reference in the candidate, and the first step that the candidate computes differently.

    Each step is computed on the candidate's own tensors, so an error is seen where it is made, however much or little the
    network makes of it later.
    """
    structure = Structure(recording)
    compared = structure.compared(outputs)
    replay = Replay(recording)
    found: dict[str, Match] = {}
    predicted: dict[str, tuple[Step, float, Match | None]] = {}
    for step in recording.steps:
        replay.compute(step)
        for name in compared.intersection(step.outputs):
            tolerance = _tolerance(replay.narrow[name], replay.wide[name])
            match = tensors.find(replay.wide[name], tolerance)
            predicted[name] = (step, tolerance, match)
            if match:
                found[name] = match
                replay.adopt(name, match.values)
    known = {match.name for match in found.values()}
    rows = []
    for name, (step, tolerance, match) in predicted.items():
        missing = "fail"
        if match is None:
            match = tensors.nearest(replay.wide[name], known)
            fused = structure.soon_found(name, found, compared, FUSION_REACH)
            if fused and not _resembles(match, replay.wide[name]):
                match, missing = None, "absent"
        error = match.max_abs_error if match else None
        rows.append(_row(name, step.operation, recording.tensors[name], match, error, error, tolerance, missing))
    first = next((row for row in rows if row.verdict == "fail"), None)
    if first is None:
        return rows, None
    nodes = tuple(candidate.nodes_between(first.candidate, known)) if first.candidate else ()
    return rows, Fault(first.name, first.operation, "network", nodes)


def _graph_fault(nodes: Sequence[Comparison], steps: Sequence[Comparison]) -> Fault | None:
    """Return the first node the runtime computes wrongly, under the reference's name if that is known."""
    first = next((row for row in nodes if row.verdict == "fail"), None)
    if first is None:
        return None
    names = [row.name for row in steps if row.candidate == first.name]
    return Fault(names[0] if names else first.name, first.operation, "graph", (first.candidate or first.name,))


def _resembles(match: Match | None, reference: Array) -> bool:
    return match is not None and match.max_abs_error <= RESEMBLANCE * float(np.abs(reference).max(initial=0.0))


def _row(
    name: str,
    operation: str,
    reference: Array,
    match: Match | None,
    judged_error: float | None,
    introduced_error: float | None,
    tolerance: float,
    missing: str,
) -> Comparison:
    if match is None or judged_error is None:
        return Comparison(name, operation, None, reference.shape, None, None, None, None, tolerance, None, missing)
    difference = np.abs(match.values - reference)
    difference[np.isnan(difference)] = np.inf
    place = np.unravel_index(int(np.argmax(difference)), difference.shape)
    largest, scale = float(difference[place]), float(np.abs(reference).max(initial=0.0))
    return Comparison(
        name=name,
        operation=operation,
        candidate=match.name,
        shape=reference.shape,
        max_abs_error=largest,
        relative_error=largest / scale if scale else largest,
        worst_index=tuple(int(i) for i in place),
        introduced_error=introduced_error,
        tolerance=tolerance,
        utilisation=judged_error / tolerance if tolerance else float(judged_error > 0),
        verdict="pass" if judged_error <= tolerance else "fail",
    )


def weights_hash(weights: Mapping[str, Array]) -> str:
    """Return a SHA-256 over names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(json.dumps([name, list(weights[name].shape), str(weights[name].dtype)]).encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
