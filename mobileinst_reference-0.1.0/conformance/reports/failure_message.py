"""What a failed verification says to whoever reads a test's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.reports.report import Comparison, Report

MOST_ROWS = 8
HEADINGS = ("first failing tensors", "error", "allowed", "error/bound", "worst element")


def failure_message(report: Report) -> str:
    """Return the headline, what is wrong, a table of the first failing tensors and how to see it again."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    leading = report.leading
    yield report.headline()
    yield from (f"  {problem}" for problem in leading.problems)
    for diagnosis in leading.diagnoses[:1]:
        yield f"  likely mistake: {diagnosis.happens}"
    yield from (f"  {decision}" for decision in leading.decisions if decision.flips)
    failed = [row for row in leading.steps + leading.nodes + leading.outputs if row.verdict == "fail"]
    if failed:
        yield ""
        yield from _table([HEADINGS, *(_cells(row) for row in failed[:MOST_ROWS])])
    if len(failed) > MOST_ROWS:
        yield f"  … and {len(failed) - MOST_ROWS} more"
    if leading.inherited:
        yield f"  {leading.inherited} steps behind them are wrong because what they were fed is"
    yield ""
    yield f"  input      {leading.name} {leading.shape}, sha256 {leading.sha256[:16]}…"
    command = report.command or "save the model, weights and input, and call mobileinst verify on them"
    yield f"  reproduce  {command}"


def _cells(row: Comparison) -> tuple[str, ...]:
    error = row.max_abs_error if row.introduced_error is None else row.introduced_error
    place = "–" if row.worst_index is None else str(list(row.worst_index))
    used = _figure(row.utilisation, ".3g") + " systematic" * row.systematic
    return (row.name, _figure(error), _figure(row.tolerance), used, place)


def _figure(value: float | None, style: str = ".1e") -> str:
    return "–" if value is None else format(value, style)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        name, *figures, place = row
        numbers = "  ".join(text.rjust(width) for text, width in zip(figures, widths[1:-1], strict=True))
        yield f"  {name.ljust(widths[0])}  {numbers}  {place}".rstrip()
