"""A verdict in ten lines of 80 columns: what, where, why, and how much was judged."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from conformance.reports.printable import printable

if TYPE_CHECKING:
    from conformance.reports.report import Comparison, InputReport, Report

WIDTH = 80
MOST_LINES = 10
LONGEST_ITEM = 2
"""Lines of one item."""
INDENT = 10


def summary(report: Report) -> list[str]:
    """Return the verdict in at most `MOST_LINES` lines, none longer than `WIDTH`."""
    verdict = report.verdict.upper()
    lines = [f"{verdict}  {_title(report, WIDTH - len(verdict) - 2)}"]
    for label, text in _items(report):
        lines += _folded(label, text)
    return lines[:MOST_LINES]


def within(text: str, width: int) -> str:
    """Return text, cut in the middle if it is longer than a width.

    Examples
    --------
    >>> within("backbone.layer4.2.conv2.weight", 20)
    'backbone.l…v2.weight'
    """
    shown, kept = printable(text), width - 1
    return shown if len(shown) <= width else f"{shown[: kept - kept // 2]}…{shown[-(kept // 2) :]}"


def _folded(label: str, text: str) -> list[str]:
    """Return an item as lines behind its label; what is longer than a line is cut, not broken."""
    room = WIDTH - INDENT
    words = " ".join(within(word, room) for word in text.split())
    lines = textwrap.wrap(words, room, max_lines=LONGEST_ITEM, placeholder=" …", break_on_hyphens=False)
    return [f"{label if place == 0 else '':{INDENT}}{line}" for place, line in enumerate(lines)]


def _title(report: Report, room: int) -> str:
    if report.verdict == "not judged":
        return within(report.candidate, room)
    passes = report.verdict == "pass"
    if report.reference is None:
        said = " conforms" if passes else " does not conform"
        return within(report.candidate, room - len(said)) + said
    before, after = (" means what ", " does") if passes else (" does not mean what ", " does")
    each = (room - len(before) - len(after)) // 2
    return within(report.candidate, each) + before + within(report.reference, each) + after


def _items(report: Report) -> Iterator[tuple[str, str]]:
    leading = report.leading
    yield from (("problem", problem) for problem in leading.problems[:1])
    yield from _place(leading)
    if leading.verdict == "fail" and leading.likely:
        yield "likely", leading.likely
    yield "coverage", "; ".join([leading.coverage, *_failing(leading.steps or leading.nodes)])
    if leading.outputs:
        yield "outputs", ", ".join(_counted(leading.outputs))
    if leading.flipped:
        yield "flipped", leading.flipped
    more = f", the first of {len(report.inputs)}" if len(report.inputs) > 1 else ""
    yield "input", leading.name + more
    yield from (("remark", remark) for remark in leading.remarks[:2])


def _place(leading: InputReport) -> Iterator[tuple[str, str]]:
    """Say where it is wrong, in the nodes of both sides, and by how much."""
    fault = leading.first_fault
    if fault is None:
        return
    yield "at", f"{fault.step} ({fault.operation})"
    sides = (("expected", fault.reference_nodes), ("found", fault.candidate_nodes))
    yield from ((label, ", ".join(nodes)) for label, nodes in sides if nodes)
    rows = (*leading.steps, *leading.nodes, *leading.outputs)
    wrong = next((row for row in rows if row.verdict == "fail" and row.name == fault.step), None)
    if wrong is not None:
        yield "error", _error(wrong)


def _error(row: Comparison) -> str:
    error = row.max_abs_error if row.introduced_error is None else row.introduced_error
    if error is None:
        return "there is no such tensor"
    place = f" at {list(row.worst_index)}" if row.worst_index is not None else ""
    if row.tolerance is None or row.utilisation is None:
        return f"{error:.1e}{place}"
    said = f"{error:.1e}{place}, allowed {row.tolerance:.1e}: {row.utilisation:.3g} times that"
    return f"{said}; {row.reason}" if row.reason else said


def _failing(rows: Sequence[Comparison]) -> list[str]:
    """Say how many rows fail, if any does."""
    return [said for said in _counted(rows) if said.endswith(" fail")]


def _counted(rows: Sequence[Comparison]) -> list[str]:
    counts = Counter(row.verdict for row in rows)
    return [f"{count} {verdict}" for verdict, count in counts.items()]
