"""Is it a fast algorithm that loses too much? Winograd's convolutions leave their tile in the error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from conformance.bounds import TILES, Declaration, winograd_applies, with_winograd
from conformance.judge.alignment import aligned
from conformance.judge.diagnosis import steps_behind
from conformance.reports.report import Comparison
from refimpl import Recording
from refimpl.ops.operation import Array

Compared = Callable[[Declaration], Sequence[Comparison]]
"""The rows of all steps under another declaration."""


def winograd_explains(
    recording: Recording,
    rows: Sequence[Comparison],
    captured: Mapping[str, Array],
    declaration: Declaration,
    compared: Compared,
    cure: str,
) -> str | None:
    """Say which of Winograd's convolutions explains all that fails, and what it loses; None: none does.

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
    if any(row.verdict == "fail" for row in compared(declared)):
        return None
    times = max(row.utilisation or 0.0 for row in failing)
    cured = f"; {cure} cures it" if cure else ""
    return (
        f"Winograd's F({tile}×{tile}, 3×3) explains it: {times:.1f} × the bound of a direct convolution, "
        f"within its own; the error repeats every {tile} rows and columns{cured}"
    )


def unevenness(error: Array, period: int) -> float:
    """Return how much larger an error is at its worst place within a period of rows and columns than in all.

    ``error`` is of maps, (…, rows, columns).
    """
    places = [error[..., row::period, column::period] for row in range(period) for column in range(period)]
    largest = max((float(each.mean()) for each in places if each.size), default=0.0)
    return largest / max(float(error.mean()), np.finfo(float).tiny) if error.size else 0.0
