"""Screening: a picture judged by what is cheap, within half of what full verdicts allow."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from conformance.candidates.arrays import attempted
from conformance.candidates.candidate import Candidate
from conformance.judge.alignment import CandidateTensors, in_layout_of
from conformance.judge.decisions import compare_decisions
from conformance.judge.outputs import compare_outputs, infinite_outputs, run_twice
from conformance.judge.steps import compare_steps
from conformance.reports.report import Comparison, Decision, Report
from refimpl import Recording
from refimpl.errors import CandidateError, MobileInstError
from refimpl.ops.operation import Array

NEAR = 0.5
"""Share of the smallest envelope beyond which a picture is judged in full."""
SAMPLED, STEPS = 1 / 16, 1 / 8
"""Share of the pictures on which steps are looked at, and of the steps that are, drawn anew for each."""


@dataclass(frozen=True)
class Limits:
    """What full verdicts on a few pictures have shown.

    Attributes
    ----------
    outputs
        Output → the smallest envelope; those that could not be judged are not among them.
    steps
        The reference's tensor → the candidate's, where every one of these verdicts found it right.
    """

    outputs: Mapping[str, float]
    steps: Mapping[str, str]

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Limits:
        """Return the limits of verdicts on the same candidate."""
        items = [item for report in reports for item in report.inputs]
        bounds: dict[str, list[float]] = {}
        for row in (row for item in items for row in item.outputs):
            bound = np.inf if row.verdict == "not judged" or row.tolerance is None else row.tolerance
            bounds.setdefault(row.name, []).append(bound)
        outputs = {name: min(found) for name, found in bounds.items() if np.isfinite(found).all()}
        pairs = [
            {(row.name, row.candidate) for row in item.steps if row.verdict == "pass" and row.candidate}
            for item in items
        ]
        held = set.intersection(*pairs) if pairs else set()
        return cls(outputs, {name: str(own) for name, own in held})


@dataclass
class Screened:
    """What screening found on one picture.

    Attributes
    ----------
    outputs, steps, decisions
    problems
        What is wrong whatever the limits are.
    near
        Why the picture is to be judged in full; empty: it need not be.
    shipped
        The candidate's outputs under the reference's names.
    """

    outputs: list[Comparison] = field(default_factory=list)
    steps: list[Comparison] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)
    shipped: dict[str, Array] = field(default_factory=dict)


def drawn(seed: int, name: str, purpose: str) -> float:
    """Return a number in [0, 1) that depends on the seed, the picture's name and the purpose alone."""
    digest = hashlib.sha256(f"{seed} {purpose} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def screen(candidate: Candidate, images: Array, reference: Mapping[str, Array], limits: Limits) -> Screened:
    """Compare outputs and decisions, and run twice.

    Parameters
    ----------
    candidate
    images
        (1, 3, H, W) float32.
    reference
        Output → the reference's, float64.
    limits
    """
    found = Screened()
    try:
        run = partial(_run, candidate)
        outputs, found.problems = run_twice(run, {"images": images})
    except CandidateError as error:
        found.problems, found.near = [str(error)], ["it gives no outputs"]
        return found
    recording = Recording(tensors=dict(reference), outputs={name: name for name in reference})
    allowed = {name: limits.outputs.get(name, np.inf) for name in reference}
    rows, problems = compare_outputs(recording, allowed, outputs)
    found.outputs = [
        row if row.name in limits.outputs or row.candidate is None else replace(row, verdict="not judged")
        for row in rows
    ]
    found.problems += problems + infinite_outputs(outputs, ())
    found.shipped = {
        row.name: in_layout_of(outputs[row.candidate], reference[row.name]) for row in rows if row.candidate
    }
    _decide(found, reference, allowed)
    found.near += found.problems + [
        f"output {row.name} at {row.utilisation:.2g} of the smallest envelope"
        for row in found.outputs
        if row.verdict != "not judged" and row.utilisation is not None and not row.utilisation <= NEAR
    ]
    return found


def _run(candidate: Candidate, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return attempted(candidate.run, feeds["images"], passed=MobileInstError)


def _decide(found: Screened, reference: Mapping[str, Array], allowed: Mapping[str, float]) -> None:
    """Compare decisions; a flip that half of the allowed error does not explain is near a limit."""
    given = {name: array for name, array in found.shipped.items() if np.isfinite(array).all()}
    half = {name: NEAR * value for name, value in allowed.items()}
    found.decisions = compare_decisions(reference, given, half)
    found.near += [f"{item.flips} {item.kind} flipped" for item in found.decisions if item.flips]


def look_at_steps(
    candidate: Candidate, images: Array, recording: Recording, limits: Limits, chosen: Collection[str]
) -> list[Comparison]:
    """Judge some steps on the candidate's own operands.

    Parameters
    ----------
    candidate, images
    recording
        The reference's run.
    limits
        Which tensors of the candidate are whose.
    chosen
        The steps' tensors.

    Returns
    -------
    list of Comparison
        One for each step; ``fail`` also where an operand is no longer the tensor that it was elsewhere.
    """
    captured = attempted(candidate.capture, images, passed=MobileInstError)
    before = set(limits.steps) - set(chosen)
    nodes = recording.graph.between(before, chosen)
    made = {name for node in nodes for name in node.outputs}
    operands = {name for node in nodes for name in node.uses if name in before and name not in made}
    tensors, missing = dict(recording.tensors), []
    for name in sorted(operands):
        own = limits.steps[name]
        match = CandidateTensors({own: captured[own]} if own in captured else {}).find(tensors[name], np.inf)
        if match is None:
            missing.append(name)
        else:
            tensors[name] = match.values.astype(np.float64)
    if missing:
        return [_lost(recording, name) for name in missing]
    names = {node.name for node in nodes}
    part = replace(
        recording,
        steps=[step for step in recording.steps if step.name in names],
        tensors=tensors,
        inputs={**recording.inputs, **{name: name for name in operands}},
        outputs={name: name for name in chosen},
    )
    own_names = {name: limits.steps[name] for name in chosen}
    held = CandidateTensors({own: captured[own] for own in own_names.values() if own in captured})
    rows, _ = compare_steps(part, own_names, held, candidate.declaration)
    return [row for row in rows if row.name in own_names]


def _lost(recording: Recording, name: str) -> Comparison:
    operation = next(step.operation for step, made in recording.results() if made == name)
    return Comparison.absent(name, operation, recording.tensors[name].shape, "fail")
