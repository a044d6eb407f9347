"""What is printed of a verdict: ten lines of 80 columns first, then tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from conformance.cli.terminal import coloured, console
from conformance.reports.report import Comparison, Report
from conformance.reports.summary import WIDTH, summary, within

STYLES = {"pass": "bold green", "fail": "bold red", "not judged": "bold yellow"}
COLOURS = {"pass": "green", "fail": "red", "inherited": "magenta"} | dict.fromkeys(
    ("absent", "not judged", "tie"), "yellow"
)
NAME, OPERATOR = 26, 11
"""Columns of a tensor's name and its operator, in 80."""
STAGE, STEP = 21, 16
"""Columns of a stage's name and its worst step's."""


def print_verdict(report: Report) -> None:
    """Print the verdict, place, mistake and coverage."""
    first, *rest = summary(report)
    console.print(first, style=STYLES[report.verdict], highlight=False, soft_wrap=True)
    for line in rest:
        console.print(line, highlight=False, soft_wrap=True)


def print_headline(report: Report) -> None:
    """Print the verdict in one line, last, where a terminal ends."""
    console.print(report.headline(), style=STYLES[report.verdict], highlight=False, soft_wrap=True)


def print_beside(report: Report, all_steps: bool) -> None:
    """Print the verdict on what should mean what a graph does, and its tensors."""
    print_verdict(report)
    steps = report.leading.steps
    if any(row.noise for row in steps):
        print_noise(steps, all_steps)
    elif steps:
        title = "Tensors" if all_steps else "Tensors, of each operator the worst"
        console.print(comparison_table(title, steps if all_steps else notable(steps)))
    for remark in report.leading.remarks:
        console.print(remark, highlight=False, markup=False)
    console.print(f"Tolerance: {report.tolerance}.", style="dim", highlight=False)
    print_headline(report)


def print_noise(steps: Sequence[Comparison], all_steps: bool) -> None:
    """Print what each layer of a quantised graph loses, those with most noise of their own first."""
    rows = [row for row in steps if row.noise]
    shown = rows if all_steps else sorted(rows, key=_introduced)[:NOISIEST]
    title = "Signal to noise in dB" + ("" if all_steps else f", the {len(shown)} noisiest of {len(rows)}")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("tensor", "operator"):
        table.add_column(name, no_wrap=True)
    for name in ("total", "own", "expected", "alone", "cut off"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in shown:
        assert row.noise is not None
        figures = (row.noise.total, row.noise.introduced, row.noise.expected, row.noise.alone)
        cells = ["-" if value is None or np.isinf(value) else f"{value:.1f}" for value in figures]
        verdict = coloured(row.verdict, COLOURS[row.verdict])
        cut_off = f"{row.noise.saturated:.1%}"
        table.add_row(within(row.name, 22), within(row.operation, OPERATOR), *cells, cut_off, verdict)
    console.print(table)


def _introduced(row: Comparison) -> float:
    return row.noise.introduced if row.noise else np.inf


NOISIEST = 12
"""Layers that are printed."""


def notable(rows: Sequence[Comparison]) -> list[Comparison]:
    """Return the rows that fail, and for each operator the one that uses most of its bound."""
    most: dict[str, Comparison] = {}
    for row in rows:
        if row.operation not in most or (row.utilisation or 0) > (most[row.operation].utilisation or 0):
            most[row.operation] = row
    return [row for row in rows if row.verdict == "fail" or most[row.operation] is row]


def comparison_table(title: str, rows: Sequence[Comparison], steps: Mapping[str, str] | None = None) -> Table:
    """Return a table of comparisons, as wide as the terminal and never wrapped: names are cut in the middle.

    Parameters
    ----------
    title, rows
    steps
        Name of a row → the step of it that uses most of its bound; None: each row is one.
    """
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("tensor" if steps is None else "stage", "operator" if steps is None else "worst step"):
        table.add_column(name, no_wrap=True)
    for name in ("error", "allowed", "error / allowed"):
        table.add_column(name, justify="right", no_wrap=name != "error / allowed")
    table.add_column("verdict", no_wrap=True)
    names, seconds = (NAME, OPERATOR) if steps is None else (STAGE, STEP)
    spare = max(console.width - WIDTH, 0)
    for row in rows:
        error = row.max_abs_error if row.introduced_error is None else row.introduced_error
        figures = [
            "-" if value is None else f"{value:.1e}" for value in (error, row.tolerance, row.utilisation)
        ]
        verdict = coloured(row.verdict + ", systematic" * row.systematic, COLOURS[row.verdict])
        second = steps[row.name] if steps is not None else row.operation if row.operation != row.name else ""
        cells = within(row.name, names + spare // 2), within(second, seconds + spare // 2)
        table.add_row(*cells, *figures, verdict)
    return table
