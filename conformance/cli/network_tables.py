"""What `mobileinst verify` prints of a verdict on the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from conformance.cli.options import console
from conformance.cli.terminal import coloured
from conformance.cli.verdict import COLOURS
from conformance.reports.report import Comparison, Decision, InputReport, Report


def print_report(report: Report, all_steps: bool) -> None:
    """Print the verdict, outputs, stages (or all steps), and where the candidate leaves the reference."""
    leading = report.leading
    shown = leading.steps if all_steps else stages(leading.steps)
    console.print(_table("Steps" if all_steps else "Stages", shown, "introduced"))
    console.print(_table("Outputs", leading.outputs, None))
    if report.decisions:
        console.print(_decisions(report.decisions))
    console.print(f"Tolerance, {report.tolerance}.", style="dim", highlight=False)
    for item in report.inputs:
        flipped = f", flipped: {item.flipped}" if item.flipped else ""
        console.print(f"{item.verdict.upper():5} {item.name} {item.shape}{flipped}", highlight=False)
    _print_fault(leading)
    style = "bold green" if report.verdict == "pass" else "bold red"
    console.print(report.headline(), style=style, highlight=False, soft_wrap=True)


def _print_fault(leading: InputReport) -> None:
    for line in leading.remarks:
        console.print(line, highlight=False)
    if leading.inherited:
        said = f"{leading.inherited} steps are wrong only because what they were fed is: inherited."
        console.print(said, highlight=False)
    if leading.first_fault and leading.first_fault.candidate_nodes:
        nodes = ", ".join(leading.first_fault.candidate_nodes)
        console.print(f"The candidate's nodes there: {nodes}", highlight=False)
    for said in leading.evidence:
        console.print(f"What differs: {said}", highlight=False)
    for likely in leading.diagnoses[:1]:
        known = f" Known from: {likely.source}" if likely.source else ""
        said = f"{likely.happens} (at {likely.call}){known}"
        console.print(f"Likely mistake, {likely.named}: {said}", highlight=False)


def stages(steps: list[Comparison]) -> list[Comparison]:
    """Return a row for each stage: its last tensor, and the worst of what its steps introduced."""
    groups: dict[str, list[Comparison]] = {}
    for row in steps:
        parts = row.name.partition("/")[0].split(".")
        depth = 2 if parts[0] == "instance_decoder" else 4 if "transformer_blocks" in parts else 3
        groups.setdefault(".".join(parts[:depth]), []).append(row)
    return [_stage(name, rows) for name, rows in groups.items()]


def _stage(name: str, rows: list[Comparison]) -> Comparison:
    failed = [row for row in rows if row.verdict == "fail"]
    worst = max(rows, key=lambda row: row.utilisation or 0.0)
    held = [row for row in rows if row.verdict == "pass"]
    shown = failed[0] if failed else (held or rows)[-1]
    return replace(
        shown,
        name=name,
        introduced_error=worst.introduced_error,
        tolerance=worst.tolerance,
        utilisation=worst.utilisation,
    )


def _decisions(decisions: Sequence[Decision]) -> Table:
    table = Table(title="Decisions", title_justify="left", box=None, pad_edge=False)
    table.add_column("kind")
    for name in (
        "decided",
        "flipped",
        "tied",
        "smallest margin",
        "allowed error",
        "near a flip",
        "smallest IoU",
    ):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    for item in decisions:
        verdict = coloured(item.verdict, COLOURS[item.verdict])
        if item.not_judged:
            verdict.append(f", {item.not_judged}", style="default")
        counts = ["-"] * 3 if item.not_judged else [str(n) for n in (item.count, item.flips, item.ties)]
        margins = [
            "-" if figure is None else f"{figure:.1e}" for figure in (item.smallest_margin, item.allowed)
        ]
        overlap = "-" if item.smallest_iou is None else f"{item.smallest_iou:.4f}"
        near = "-" if item.not_judged else str(item.near)
        table.add_row(item.kind, *counts, *margins, near, overlap, verdict)
    return table


def _table(title: str, rows: list[Comparison], introduced: str | None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("stage", overflow="fold")
    for name in ("shape", "max abs error", "relative"):
        table.add_column(name, justify="right")
    if introduced:
        table.add_column(introduced, justify="right")
    for name in ("allowed", "worst element"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows:
        errors = [
            row.max_abs_error,
            row.relative_error,
            *([row.introduced_error] if introduced else []),
            row.tolerance,
        ]
        cells = ["-" if error is None else f"{error:.1e}" for error in errors]
        place = "-" if row.worst_index is None else str(list(row.worst_index))
        verdict = coloured(row.verdict + ", systematic" * row.systematic, COLOURS[row.verdict])
        table.add_row(row.name, "×".join(map(str, row.shape)), *cells, place, verdict)
    return table
