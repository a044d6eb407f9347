"""A verification as a few lines of Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from conformance.reports.printable import printable

if TYPE_CHECKING:
    from conformance.reports.report import Comparison, Decision, InputReport, Report

MOST_ROWS = 10


def markdown_report(report: Report) -> str:
    """Return the verdict, the outputs, the first failing steps and how to see it again."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    leading = report.leading
    mark = "✅" if report.verdict == "pass" else "❌"
    yield f"## {mark} {_plain(report.headline())}"
    yield from _problems(leading)
    yield from _table(f"Outputs on {_plain(leading.name)}", leading.outputs)
    failed = [row for row in leading.steps + leading.nodes if row.verdict == "fail"]
    yield from _table("First failing steps", failed[:MOST_ROWS])
    if len(failed) > MOST_ROWS:
        yield f"\n… and {len(failed) - MOST_ROWS} more."
    if leading.inherited:
        yield f"\n{leading.inherited} steps behind them are wrong because what they were fed is."
    yield from _decisions(report.decisions)
    yield from _worst(leading)
    yield from _inputs(report)
    yield f"\nAllowed: {_plain(report.tolerance)}."
    if report.command:
        yield f"\nShow it again:\n\n```sh\n{printable(report.command)}\n```"


def _problems(leading: InputReport) -> Iterator[str]:
    if leading.problems:
        yield ""
        yield from (f"- {_plain(problem)}" for problem in leading.problems)
    if leading.evidence:
        yield "\nWhat differs:\n"
        yield from (f"- {_plain(said)}" for said in leading.evidence)
    for diagnosis in leading.diagnoses[:1]:
        happens = _plain(diagnosis.happens.rstrip("."))
        yield f"\nLikely: **{_plain(diagnosis.named)}**: {happens} (at {_code(diagnosis.call)})."
    fault = leading.first_fault
    if fault and fault.candidate_nodes:
        yield f"\nThe candidate's nodes there: {', '.join(map(_code, fault.candidate_nodes[:MOST_ROWS]))}."


def _table(title: str, rows: Sequence[Comparison]) -> Iterator[str]:
    if not rows:
        return
    yield f"\n### {title}\n"
    yield "| tensor | operation | shape | error | allowed | error / bound | verdict |"
    yield "|---|---|---|--:|--:|--:|---|"
    for row in rows:
        error = row.max_abs_error if row.introduced_error is None else row.introduced_error
        figures = [_figure(error), _figure(row.tolerance), _figure(row.utilisation, ".3g")]
        shape = "×".join(map(str, row.shape))
        said = row.verdict + ", systematic" * row.systematic
        cells = [_code(row.name), _plain(row.operation), shape, *figures, said]
        yield f"| {' | '.join(cells)} |"


def _decisions(decisions: Sequence[Decision]) -> Iterator[str]:
    if not decisions:
        return
    yield "\n### Decisions\n"
    yield "| kind | decided | flipped | tied | smallest margin | allowed error | smallest IoU | verdict |"
    yield "|---|--:|--:|--:|--:|--:|--:|---|"
    for item in decisions:
        counts = ["–"] * 3 if item.not_judged else [str(n) for n in (item.count, item.flips, item.ties)]
        figures = [_figure(item.smallest_margin), _figure(item.allowed), _figure(item.smallest_iou, ".4f")]
        verdict = ": ".join(part for part in (item.verdict, _plain(item.not_judged or "")) if part)
        yield f"| {' | '.join([item.kind, *counts, *figures, verdict])} |"
    yield "\nFlipped: decided otherwise than the reference. Tied: flipped, but rounding explains it."


def _worst(leading: InputReport) -> Iterator[str]:
    judged = [row for row in leading.steps if row.verdict == "pass" and row.utilisation is not None]
    if judged:
        worst = max(judged, key=lambda row: row.utilisation or 0.0)
        used = f"most of its bound is used by {_code(worst.name)}: {worst.utilisation:.3g}"
        yield f"\n{len(judged)} steps pass; {used}."


def _inputs(report: Report) -> Iterator[str]:
    if len(report.inputs) > 1:
        yield "\n### Inputs\n\n| input | shape | flipped | verdict |\n|---|---|---|---|"
        for item in report.inputs:
            shape = "×".join(map(str, item.shape))
            yield f"| {_plain(item.name)} | {shape} | {item.flipped or '–'} | {item.verdict} |"


def _figure(value: float | None, style: str = ".1e") -> str:
    return "–" if value is None else format(value, style)


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would read as markup."""
    text = printable(text)
    for char in "\\`*_[]<>|&#":
        text = text.replace(char, f"\\{char}")
    # What begins a list, a heading or a fence does so at the beginning only.
    return re.sub(r"^(\d*)([-+=~.)])", r"\1\\\2", text.strip())


def _code(text: str) -> str:
    return f"`{printable(text).replace('`', '′').replace('|', '¦')}`"
