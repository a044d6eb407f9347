"""What a sweep found, over all pictures: plain records, their JSON and their page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from conformance.json_files import finite
from conformance.reports.matrix_report import STYLE
from conformance.reports.printable import printable
from conformance.reports.report import Decision

SHOWN = 20
"""Failures that tables list; JSON and the rows hold all."""


@dataclass(frozen=True)
class Worst:
    """Where a step, output or node uses most of its bound, over all pictures.

    Attributes
    ----------
    step, operation, part
        ``part`` is ``output``, ``step`` or ``node``.
    judged, failed
        On how many pictures.
    utilisation, picture, element
        The largest share of the bound, and where; None without a bound.
    """

    step: str
    operation: str
    part: str
    judged: int
    failed: int
    utilisation: float | None
    picture: str
    element: str


@dataclass(frozen=True)
class Failure:
    """A picture that fails or could not be judged, and the command that shows it."""

    picture: str
    verdict: str
    says: str
    command: str


@dataclass(frozen=True)
class Precision:
    """Average precision of the reference and the candidate on the pictures judged."""

    figures: tuple[str, ...]
    reference: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True)
class SweepReport:
    """The verdict on a candidate over thousands of pictures.

    Attributes
    ----------
    candidate, pictures, folder
        What was judged, on what, and where the rows are.
    total
        How many pictures there are.
    judged
        ``screened``, ``full``, ``broken`` → how many.
    verdicts
        ``pass``, ``fail``, ``not judged`` → how many.
    worst
        Of each step, the worst utilisation first.
    edges, utilisation
        How many rows use what share of their bound: between two edges, the last bin all beyond.
    decisions
        Of each kind, over all pictures.
    failures
    precision
        None without ground truth.
    costs
        Means and sums of what the pictures cost, by name.
    command
        The command line that shows it again.
    """

    candidate: str
    pictures: str
    folder: str
    total: int
    judged: dict[str, int]
    verdicts: dict[str, int]
    worst: list[Worst]
    edges: list[float]
    utilisation: list[int]
    decisions: list[Decision]
    failures: list[Failure]
    precision: Precision | None = None
    costs: dict[str, float] = field(default_factory=dict)
    command: str = ""

    @property
    def verdict(self) -> str:
        """``fail`` if any picture's is, else ``not judged`` if any is, or is missing, else ``pass``."""
        if self.verdicts.get("fail"):
            return "fail"
        return "pass" if self.verdicts.get("pass") == self.total else "not judged"

    @property
    def exit_code(self) -> int:
        """0, 1 if it does not conform, 2 if that could not be judged on every picture."""
        return {"pass": 0, "fail": 1}.get(self.verdict, 2)

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        done = ", ".join(f"{count} {name}" for name, count in self.judged.items() if count)
        counts = ", ".join(f"{count} {name}" for name, count in self.verdicts.items() if count)
        missing = self.total - sum(self.judged.values())
        left = f"; {missing} are left" if missing else ""
        return f"{self.verdict.upper()}  {self.candidate} on {self.total} pictures: {counts} ({done}){left}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        plain = asdict(self)
        plain["decisions"] = [item.to_json() for item in self.decisions]
        told: dict[str, Any] = finite({"verdict": self.verdict, "headline": self.headline, **plain})
        return told


def sweep_page(report: SweepReport) -> str:
    """Return the report as a page that needs nothing else."""
    sections = "\n".join(
        f"<h2>{html.escape(title)}</h2>\n{_table(heads, rows)}" for title, heads, rows in tables(report)
    )
    title = html.escape(printable(f"{report.candidate} on {report.total} pictures"))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body><main><h1>{title}</h1>\n"
        f"<p>{html.escape(printable(report.headline))}</p>\n{sections}\n"
        f"<p>Show it again: <code>{html.escape(printable(report.command))}</code></p></main></body></html>\n"
    )


Rows = list[list[str]]


def tables(report: SweepReport, shown: int | None = None) -> list[tuple[str, list[str], Rows]]:
    """Return title, heads and cells of each table that has rows; of the long ones the first ``shown``."""
    found = [
        _failures(report, shown or SHOWN),
        _worst(report, shown),
        _utilisation(report),
        _decisions(report),
        _precision(report),
        _costs(report),
    ]
    return [(title, heads, rows) for title, heads, rows in found if rows]


def _failures(report: SweepReport, shown: int) -> tuple[str, list[str], Rows]:
    rows = [[each.picture, each.verdict, each.says, each.command] for each in report.failures[:shown]]
    left = len(report.failures) - len(rows)
    title = "Not passed" + (f", the first {shown} of {len(report.failures)}" if left else "")
    return title, ["picture", "verdict", "what", "command"], rows


def _worst(report: SweepReport, shown: int | None) -> tuple[str, list[str], Rows]:
    chosen = report.worst[:shown]
    heads = ["step", "operator", "part", "pictures", "failed", "error / bound", "picture", "element"]
    rows = [
        [
            each.step,
            each.operation,
            each.part,
            str(each.judged),
            str(each.failed),
            "-" if each.utilisation is None else f"{each.utilisation:.3g}",
            each.picture,
            each.element,
        ]
        for each in chosen
    ]
    left = len(report.worst) - len(rows)
    return (
        "Worst picture and element" + (f", {len(rows)} of {len(report.worst)}" if left else ""),
        heads,
        rows,
    )


def _utilisation(report: SweepReport) -> tuple[str, list[str], Rows]:
    edges = report.edges
    names = [f"{low:g}–{high:g}" for low, high in pairwise(edges)] + [f"> {edges[-1]:g}"]
    total = max(sum(report.utilisation), 1)
    rows = [
        [name, str(count), f"{count / total:.1%}", "█" * round(30 * count / total)]
        for name, count in zip(names, report.utilisation, strict=True)
    ]
    return "Error / bound, all rows", ["share of bound", "rows", "", ""], rows


def _decisions(report: SweepReport) -> tuple[str, list[str], Rows]:
    heads = [
        "decision",
        "count",
        "flips",
        "ties",
        "near",
        "smallest margin",
        "largest flipped",
        "smallest IoU",
    ]
    rows = [
        [
            item.kind,
            *map(str, (item.count, item.flips, item.ties, item.near)),
            *map(_number, (item.smallest_margin, item.largest_flipped_margin, item.smallest_iou)),
        ]
        for item in report.decisions
    ]
    return "Decisions", heads, rows


def _precision(report: SweepReport) -> tuple[str, list[str], Rows]:
    if report.precision is None:
        return "", [], []
    figures = zip(
        report.precision.figures, report.precision.reference, report.precision.candidate, strict=True
    )
    rows = [[name, f"{ours:.4f}", f"{theirs:.4f}", f"{theirs - ours:+.4f}"] for name, ours, theirs in figures]
    return "Average precision", ["figure", "reference", "candidate", "difference"], rows


def _costs(report: SweepReport) -> tuple[str, list[str], Rows]:
    return "Costs", ["what", "figure"], [[name, f"{value:.4g}"] for name, value in report.costs.items()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    kind = f' class="{text}"' if text in ("pass", "fail") else ""
    return f"<td{kind}>{html.escape(printable(text))}</td>"
