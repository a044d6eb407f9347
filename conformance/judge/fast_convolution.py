"""Is it a fast algorithm that loses too much? Winograd's convolutions leave their tile in the error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conformance.bounds import TILES, Declaration, winograd_applies, with_winograd
from conformance.judge.alignment import aligned
from conformance.judge.diagnosis import steps_behind
from conformance.reports.report import Comparison, Fault
from refimpl import Recording
from refimpl.ops.operation import Array

Compared = Callable[[Declaration], tuple[list[Comparison], Fault | None]]
"""The rows of all steps under another declaration, and the first fault."""


@dataclass(frozen=True)
class FastConvolution:
    """A fast algorithm that loses more than a direct convolution may.

    Attributes
    ----------
    said
        What explains which step.
    steps
        The rows of all steps where that is allowed for.
    fault
        What is wrong besides; None: nothing.
    """

    said: str
    steps: list[Comparison]
    fault: Fault | None


def winograd_explains(
    recording: Recording,
    rows: Sequence[Comparison],
    captured: Mapping[str, Array],
    declaration: Declaration,
    compared: Compared,
    cure: str,
) -> FastConvolution | None:
    """Say which of Winograd's convolutions explains the first that fails, and what it loses; None: none does.

    Parameters
    ----------
    recording, rows, captured
        The reference's run, what was found of its steps, the candidate's tensors.
    declaration
        What was declared, Winograd's convolutions not.
    compared
        Compares the steps anew.
    cure
        How the candidate is told to do without; empty if it cannot be.
    """
    failing = [row for row in rows if row.verdict == "fail"]
    first = failing[0] if failing else None
    if declaration.runtime.winograd_tile or first is None or first.candidate is None:
        return None
    calls, _ = steps_behind(recording, rows, captured, first.name)
    kernels = ((call, recording.tensors.get(call.inputs[1])) for call in calls if call.op_type == "Conv")
    if not any(w is not None and winograd_applies(call.attributes, w) for call, w in kernels):
        return None
    truth = recording.tensors[first.name]
    error = np.abs(aligned(captured[first.candidate], truth) - truth)
    tile = max(TILES, key=lambda each: unevenness(error, each))
    declared = replace(declaration, runtime=with_winograd(declaration.runtime, tile))
    allowed, fault = compared(declared)
    still = {row.name for row in allowed if row.verdict == "fail"}
    order = [name for _, name in recording.results()]
    if fault is not None and (first.name in still or order.index(fault.step) < order.index(first.name)):
        return None
    times = max(row.utilisation or 0.0 for row in failing if row.name not in still)
    what = first.name if still else "it"
    said = (
        f"Winograd's F({tile}×{tile}, 3×3) explains {what}: {times:.1f} × the bound of a direct convolution, "
        f"within its own; the error repeats every {tile} rows and columns"
    )
    return FastConvolution(f"{said}; {cure} cures it" if cure else said, allowed, fault)


def unevenness(error: Array, period: int) -> float:
    """Return how much larger an error is at its worst place within a period of rows and columns than in all.

    ``error`` is of maps, (…, rows, columns).
    """
    places = [error[..., row::period, column::period] for row in range(period) for column in range(period)]
    largest = max((float(each.mean()) for each in places if each.size), default=0.0)
    return largest / max(float(error.mean()), np.finfo(float).tiny) if error.size else 0.0
