"""The outputs of the run that is shipped: repeatable, finite, and no further off than rounding carries."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from conformance.bounds.worst_element import absolute_error, worst_output
from conformance.candidates.candidate import NEEDED_OUTPUTS
from conformance.judge.alignment import CandidateTensors, Match
from conformance.reports.report import Comparison
from refimpl import Recording
from refimpl.ops.operation import Array


def run_twice(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    feeds: Mapping[str, Array],
) -> tuple[dict[str, Array], list[str]]:
    """Run a candidate twice, and say if it rewrites its input or does not repeat itself."""
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
    return outputs, problems


def infinite_outputs(outputs: Mapping[str, Array], but: Collection[str]) -> list[str]:
    """Say which outputs hold NaN or infinity, but those that may."""
    floats = {name: x for name, x in outputs.items() if x.dtype.kind == "f" and name not in but}
    return [
        f"its output {name!r} has {count} of {array.size} numbers that are NaN or infinite"
        for name, array in floats.items()
        if (count := np.count_nonzero(~np.isfinite(array)))
    ]


def other_when_captured(
    shipped: Mapping[str, Array], captured: Mapping[str, Array], allowed: Mapping[str, float]
) -> list[str]:
    """Say which outputs are not those of the run in which every tensor was captured.

    That may round otherwise, each as far as is allowed, but must be the same computation.
    """
    return [
        f"its output {name!r} is another when its tensors are captured: nothing inside was judged"
        for name, array in shipped.items()
        if name in captured and name in allowed and _apart(array, captured[name]) > 2 * allowed[name]
    ]


def _apart(first: Array, second: Array) -> float:
    if first.shape != np.shape(second):
        return np.inf
    return float(absolute_error(first, np.asarray(second)).max(initial=0.0))


CONSTANT = 1e-3
"""Relative range of numbers that do not vary, whatever their size."""


def spread(output: Array) -> float:
    """Return how far an output's numbers are apart; their size where they are one number, or as good as."""
    if not output.size or output.dtype.kind != "f" or not np.isfinite(output).all():
        return np.inf
    largest = float(np.abs(output).max())
    extent = float(np.ptp(output))
    return extent if extent > CONSTANT * largest else largest or np.inf


def _same(first: Array, second: Array) -> bool:
    second = np.asarray(second)
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def compare_outputs(
    recording: Recording,
    allowed: Mapping[str, float],
    outputs: Mapping[str, Array],
    needed: Collection[str] = NEEDED_OUTPUTS,
) -> tuple[list[Comparison], list[str]]:
    """Pair the candidate's outputs with the reference's, by name, value or shape, and compare them.

    It must give those ``needed``.

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
        rows.append(
            match.compared(name, name, reference, introduced=False)
            if match
            else Comparison.absent(name, name, reference.shape, "absent")
        )
    further = further_outputs(rows, outputs, needed)
    problems = [
        f"its output {name!r} {array.shape} is none of the reference's"
        for name, array in free.items()
        if name not in further
    ]
    problems += [
        f"it gives no output {row.name!r} of shape {row.shape}"
        for row in rows
        if row.candidate is None and row.name in needed
    ]
    if all(row.candidate is None for row in rows):
        problems.append("none of its outputs is one of the reference's")
    return rows, problems


def further_outputs(
    rows: Sequence[Comparison], outputs: Mapping[str, Array], needed: Collection[str] = NEEDED_OUTPUTS
) -> list[str]:
    """Return the outputs that a candidate has besides the reference's: they are not judged.

    One is in place of the reference's, and no further, if one that is needed is absent, or one of its size.
    """
    taken = {row.candidate for row in rows}
    absent = [row for row in rows if row.candidate is None]
    if any(row.name in needed for row in absent) or len(absent) == len(rows):
        return []
    sizes = {math.prod(row.shape) for row in absent}
    return [name for name, array in outputs.items() if name not in taken and array.size not in sizes]


def misnamed(rows: Sequence[Comparison]) -> list[str]:
    """Say which outputs bear the name of another: whoever reads them by name is given the wrong one."""
    names = {row.name for row in rows}
    found = [row for row in rows if row.candidate in names and row.candidate != row.name]
    listed = ", ".join(f"{row.candidate!r} is {row.name}" for row in found)
    return [f"outputs bear one another's names, and were judged by their numbers: its {listed}"] * bool(found)


def _paired(name: str, reference: Array, allowed: float, free: Mapping[str, Array]) -> Match | None:
    if name in free and free[name].shape == reference.shape:
        return Match(name, free[name], worst_output(free[name], reference, allowed))
    candidates = CandidateTensors(free)
    return candidates.find(reference, allowed) or candidates.nearest(reference, allowed, set())
