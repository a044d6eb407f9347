"""What `mobileinst verify` prints of a verdict on the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from conformance.cli.options import console
from conformance.cli.terminal import coloured
from conformance.cli.verdict import COLOURS, comparison_table, print_headline, print_verdict
from conformance.reports.report import Comparison, Decision, InputReport, Report


def print_report(report: Report, all_steps: bool) -> None:
    """Print the verdict, outputs, stages (or all steps), and where the candidate leaves the reference."""
    print_verdict(report)
    leading = report.leading
    if all_steps:
        console.print(comparison_table("Steps", leading.steps))
    else:
        found = stages(leading.steps)
        console.print(
            comparison_table("Stages", [row for row, _ in found], {row.name: step for row, step in found})
        )
    console.print(comparison_table("Outputs", leading.outputs))
    if report.decisions:
        console.print(_decisions(report.decisions))
    console.print(f"Tolerance, {report.tolerance}.", style="dim", highlight=False)
    for item in report.inputs:
        flipped = f", flipped: {item.flipped}" if item.flipped else ""
        console.print(f"{item.verdict.upper():5} {item.name} {item.shape}{flipped}", highlight=False)
    _print_fault(leading)
    print_headline(report)


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


def stages(steps: list[Comparison]) -> list[tuple[Comparison, str]]:
    """Return for each stage a row, with the worst of what its steps introduced, and the name of that step."""
    groups: dict[str, list[Comparison]] = {}
    for row in steps:
        parts = row.name.partition("/")[0].split(".")
        depth = 2 if parts[0] == "instance_decoder" else 4 if "transformer_blocks" in parts else 3
        groups.setdefault(".".join(parts[:depth]), []).append(row)
    return [_stage(name, rows) for name, rows in groups.items()]


def _stage(name: str, rows: list[Comparison]) -> tuple[Comparison, str]:
    failed = [row for row in rows if row.verdict == "fail"]
    worst = failed[0] if failed else max(rows, key=lambda row: row.utilisation or 0.0)
    step = worst.name.removeprefix(name).lstrip("./") or worst.operation
    return replace(worst, name=name), step


def _decisions(decisions: Sequence[Decision]) -> Table:
    table = Table(title="Decisions", title_justify="left", box=None, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    for name in ("decided", "flipped", "tied", "margin", "allowed", "near", "IoU"):
        table.add_column(name, justify="right", no_wrap=True)
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
