"""A network that magnifies rounding: not a fault of the candidate, and said to be what it is."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.reports.report import Comparison
from refimpl import Recording

NOTICED = 1e-3
"""Relative error of an output, within its envelope, that a user would ask about."""


def explain_large_errors(
    recording: Recording, outputs: Sequence[Comparison], steps: Sequence[Comparison]
) -> list[str]:
    """Say which step magnifies errors most, if outputs are far off though each step only rounds.

    Parameters
    ----------
    recording
        The reference's run.
    outputs, steps
        The comparisons, none of them failed.
    """
    far = [row for row in outputs if (row.relative_error or 0.0) > NOTICED]
    growth = max(_growths(recording, steps), default=None)
    if not far or growth is None:
        return []
    worst = max(far, key=lambda row: row.relative_error or 0.0)
    ratio, name, before, after = growth
    return [
        f"ill-conditioned network, not a fault: output {worst.name!r} is off by {worst.relative_error:.1e} "
        f"of its largest element though every step only rounds; {name} magnifies most, ×{ratio:.3g} "
        f"(relative error {before:.1e} → {after:.1e})"
    ]


def _growths(recording: Recording, steps: Sequence[Comparison]) -> list[tuple[float, str, float, float]]:
    """Return (growth, step, relative error before, after) of every step whose operands were off already."""
    errors: dict[str, float] = {}
    measured = {row.name: row.relative_error for row in steps if row.relative_error is not None}
    growths = []
    for step in recording.steps:
        before = max((errors.get(name, 0.0) for name in step.inputs), default=0.0)
        for name in step.outputs:
            errors[name] = measured.get(name, before)
            if name in measured and before > 0:
                growths.append((errors[name] / before, name, before, errors[name]))
    return growths
