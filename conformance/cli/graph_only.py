"""`mobileinst verify any.onnx --graph-only`: does the runtime compute this graph, whatever it is?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions, declared_by
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.cli import options
from conformance.cli.formats import Formats
from conformance.folders import check_new_folder
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.pictures.graph_inputs import graph_inputs
from conformance.reports.report import Comparison, InputReport, Report
from conformance.reproduction.folder import reproduce_node
from refimpl.errors import ConfigurationError, MobileInstError
from refimpl.ops.operation import Array

COLOURS = {"pass": "green", "fail": "red", "absent": "yellow", "not judged": "yellow", "tie": "yellow"}


def _new_folder(folder: Path | None) -> Path | None:
    """Refuse a folder that is in use before any work."""
    if folder is not None:
        check_new_folder(folder)
    return folder


Reproduce = Annotated[
    Path | None,
    typer.Option(
        "--reproduce",
        metavar="FOLDER",
        callback=_new_folder,
        help="Write the first wrong step to a new folder: minimal model, inputs, outputs, float64, bounds, "
        "and the command that shows it again.",
    ),
]
Recorded = Annotated[
    Path | None,
    typer.Option("--recorded", metavar="FOLDER", help="Judge again the step that --reproduce wrote."),
]


@dataclass(frozen=True)
class Folders:
    """Where to write a failing step, and where envelopes are kept; None: nowhere."""

    reproduce: Path | None = None
    cache: Path | None = None


def judge_graph(
    path: Path | None,
    files: Sequence[str],
    shapes: Sequence[str],
    seed: int,
    runtime: RuntimeOptions,
    formats: Formats,
    folders: Folders,
    progress: options.Progress,
    timeout: float | None = None,
) -> Report:
    """Judge an ONNX file node by node, on inputs from files or seeded random ones."""
    if path is None:
        raise ConfigurationError("--graph-only judges a model of yours: name its .onnx file")
    progress("graph")
    graph = OnnxGraph.load(path)
    feeds = graph_inputs(graph, files, shapes, seed)
    declared = declared_by(graph, *formats)
    candidate = runtime_graph(graph, runtime, declared, timeout)
    report = verify_graph(candidate, feeds, name=path.name, progress=progress, cache=folders.cache)
    if folders.reproduce is not None:
        item, folder = report.leading, folders.reproduce
        say_reproduced(lambda: reproduce_node(folder, item, graph, _known(candidate, feeds, item), declared))
    return report


def _known(candidate: OnnxRuntimeGraph, feeds: Mapping[str, Array], item: InputReport) -> dict[str, Array]:
    return {**feeds, **(candidate.capture(feeds) if item.first_fault else {})}


def say_reproduced(write: Callable[[], str | None]) -> None:
    """Write the failing step, and say how it is shown again, or why not: the verdict stands in any case."""
    try:
        command = write()
        text = (
            f"shown again by: {command}" if command else "no step on its own is wrong: nothing to reproduce"
        )
    except MobileInstError as error:
        text = f"nothing reproduced: {error}"
    options.progress_console.print(text, highlight=False, soft_wrap=True)


def print_graph_report(report: Report, all_nodes: bool) -> None:
    """Print the nodes that fail or lead their operator, the outputs and the verdict."""
    item = report.leading
    shown = item.nodes if all_nodes else notable(item.nodes)
    options.console.print(
        _table("Nodes" if all_nodes else "Nodes, of each operator the most utilised", shown)
    )
    if item.outputs:
        options.console.print(_table("Outputs", item.outputs))
    total = report.model["nodes"]
    judged = sum(row.verdict != "not judged" for row in item.nodes)
    options.console.print(f"{judged} results of {total} nodes judged, inputs {item.name}", highlight=False)
    unjudged = sorted({row.operation for row in item.nodes if row.verdict == "not judged"})
    if unjudged:
        options.console.print(f"No bound, not judged: {', '.join(unjudged)}", highlight=False)
    options.console.print(f"[dim]Tolerance, {report.tolerance}.[/dim]")
    style = "bold green" if report.verdict == "pass" else "bold red"
    options.console.print(report.headline(), style=style, highlight=False)


def notable(rows: Sequence[Comparison]) -> list[Comparison]:
    """Return the rows that fail, and for each operator the one that uses most of its bound."""
    most: dict[str, Comparison] = {}
    for row in rows:
        if row.operation not in most or (row.utilisation or 0) > (most[row.operation].utilisation or 0):
            most[row.operation] = row
    return [row for row in rows if row.verdict == "fail" or most[row.operation] is row]


def _table(title: str, rows: Sequence[Comparison]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("tensor", "operator"):
        table.add_column(name, overflow="fold")
    for name in ("shape", "error", "allowed", "error / allowed", "worst element"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows:
        error = row.max_abs_error if row.introduced_error is None else row.introduced_error
        figures = [
            "-" if value is None else f"{value:.1e}" for value in (error, row.tolerance, row.utilisation)
        ]
        place = "-" if row.worst_index is None else str(list(row.worst_index))
        shape = "×".join(map(str, row.shape)) or "scalar"
        colour = COLOURS[row.verdict]
        table.add_row(row.name, row.operation, shape, *figures, place, f"[{colour}]{row.verdict}[/{colour}]")
    return table
