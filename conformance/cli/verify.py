"""`mobileinst verify`: is this model MobileInst?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance.candidates.candidate import Candidate
from conformance.candidates.kinds import Request
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate, images_input, only_input
from conformance.candidates.onnx_runtime import RuntimeOptions, declared_by
from conformance.cli import candidate as candidates
from conformance.cli import formats, options, report_files, verify_tnn
from conformance.cli import graph_only as graph_only_command
from conformance.cli.course import Course
from conformance.cli.graph_only import COLOURS, Folders, judge_graph, print_graph_report
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.envelope_cache import cache_folder
from conformance.judge.reuse_verification import KeyframeKernels, takes_kernels
from conformance.pictures.inputs import load_inputs, rendered_input
from conformance.reports.report import Comparison, Decision, Report
from conformance.reproduction.recorded_step import judge_folder
from refimpl import MobileInst
from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array


def verify(
    context: typer.Context,
    model_file: Annotated[
        Path | None, typer.Argument(metavar="[MODEL.onnx]", help="The candidate. Default: our own export.")
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    overrides: options.Set = None,
    weights: options.WeightsFile = None,
    backbone_weights: options.BackboneFile = None,
    seed: options.Seed = 0,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            help="A picture, or a .npy with the normalised input (B, 3, H, W); repeatable. "
            "Default: a rendered scene.",
        ),
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="Stack all inputs into one batch.")] = False,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames",
            help="The inputs are consecutive keyframes of one video: judge track identity too.",
        ),
    ] = False,
    size: options.Size = None,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="Threads of the runtime; 0: its own choice.")
    ] = 0,
    all_steps: Annotated[
        bool, typer.Option("--all-steps", help="List every step, not only the stages.")
    ] = False,
    graph_only: Annotated[
        bool,
        typer.Option(
            "--graph-only",
            help="Any ONNX model: only whether the runtime computes its graph. --input is NAME=FILE.npy, or "
            "FILE.npy in the graph's order; the rest is random, from --seed.",
        ),
    ] = False,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="NAME=1x3x224x224", help="Of a random input with dynamic axes; repeatable."
        ),
    ] = None,
    candidate: candidates.Kind = None,
    reproduction: graph_only_command.Reproduce = None,
    recorded: graph_only_command.Recorded = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Compute the noise envelope anew, and keep nothing.")
    ] = False,
    arithmetic: formats.Arithmetic = None,
    storage: formats.Storage = None,
    json_file: options.Json = None,
    html_file: report_files.Html = None,
    junit_file: report_files.Junit = None,
    markdown_file: report_files.Markdown = None,
    more_files: verify_tnn.MoreFiles = None,
    against: verify_tnn.Against = None,
    dump: verify_tnn.Dump = None,
    runner: verify_tnn.Command = None,
    adb: verify_tnn.Adb = False,
    serial: verify_tnn.Serial = None,
    library: verify_tnn.Library = None,
    keep: verify_tnn.Keep = None,
    timeout: verify_tnn.Timeout = 300.0,
) -> None:
    """Compare a model with the float64 reference, tensor by tensor.

    The candidate runs in ONNX Runtime, the reference in NumPy float64, on the same numbers. Tensors are found
    by value, whatever the exporter called them. With nothing given, it judges our own export of the trained
    network scenes-tiny. Exits 0 if it conforms, 1 if not, 2 on bad usage or input.

    [bold]Examples[/bold]

      mobileinst verify

      mobileinst verify mine.onnx --weights mine.safetensors --input street.jpg

      mobileinst verify it.onnx --model topformer-tiny --set dim=64 --set num_queries=20 --weights
      w.safetensors --input x.npy --json r.json

      mobileinst verify any.onnx --graph-only --shape images=1x3x224x224

      mobileinst verify it.tnnproto --against it.onnx
    """
    verify_tnn.dispatch(context)
    runtime = RuntimeOptions(threads=threads)
    declared = formats.declared_formats(arithmetic, storage)
    if graph_only and frames:
        raise ConfigurationError("--frames is about MobileInst's tracks; --graph-only asks nothing of them")
    if recorded is not None and model_file is not None:
        raise ConfigurationError(
            f"--recorded judges what is in {recorded} alone; to judge {model_file}, leave --recorded out"
        )
    kept = None if no_cache else cache_folder()
    limited = report_files.is_given(context, "timeout")
    if recorded is not None:
        report = judge_folder(recorded)
    elif graph_only:
        files = [str(path) for path in inputs or ()]
        with options.progress_console.status("graph") as status:
            report = judge_graph(
                model_file,
                files,
                shapes or (),
                seed,
                runtime,
                declared,
                Folders(reproduction, kept),
                status.update,
                timeout if limited else None,
            )
    else:
        with options.progress_console.status("weights") as status:
            if model_file is None and options.trained_by_default(context):
                weights, size = options.trained_by_default(context), size or options.TRAINED_SIZE
            config = options.configuration(model, overrides, weights)
            graph = OnnxGraph.load(model_file) if model_file else None
            arrays = options.load_weights(config, weights, backbone_weights, seed)
            status.update("inputs")
            fed = _inputs(inputs or [], graph, options.parse_size(size), batch)
            course = Course(config, arrays, fed, status.update, kept, reproduction, frames)
            if candidate or (limited and model_file):
                request = Request("", config, arrays, model_file, *declared, threads)
                kind = candidate or "onnxruntime"
                limit = candidates.Limit(timeout, limited)
                report = candidates.judge_candidate(kind, request, course, limit)
            else:
                run = partial(_in_onnx_runtime, runtime=runtime, declared=declared)
                report = _judge(course, graph, model_file, run)
            said = options.described_weights(weights, backbone_weights, seed)
            report = replace(report, model={"weights": said, **report.model})
    report = replace(report, command=report_files.command_line(context))
    options.write_json(json_file, report.to_json())
    report_files.write_reports(report, html=html_file, junit=junit_file, markdown=markdown_file)
    if str(json_file) != "-":
        (print_graph_report if graph_only or recorded else print_report)(report, all_steps)
    raise typer.Exit(0 if report.verdict == "pass" else 1)


def _in_onnx_runtime(
    graph: OnnxGraph,
    runtime: RuntimeOptions,
    declared: formats.Formats,
    others: Callable[[Array], Mapping[str, Array]] | None = None,
) -> OnnxRuntimeCandidate:
    declaration = declared_by(graph, *declared)
    return OnnxRuntimeCandidate(graph, options=runtime, declaration=declaration, others=others)


def _judge(
    course: Course, graph: OnnxGraph | None, path: Path | None, run: Callable[..., Candidate]
) -> Report:
    if graph is None or path is None:
        return _judge_own_export(course, run)
    if takes_kernels(graph):
        kernels = KeyframeKernels(course.config, course.weights)
        return course.judge(run(graph, others=kernels), path.name, kernels.reuse)
    return course.judge(run(graph), path.name)


def _judge_own_export(course: Course, run: Callable[..., Candidate]) -> Report:
    """Export for each shape of input, since our own files have static shapes."""
    network = MobileInst(course.config, course.weights)
    # Frames of a video are judged together, so they are of one shape.
    groups = [course.inputs] if course.frames else [{label: x} for label, x in course.inputs.items()]
    reports: list[Report] = []
    for group in groups:
        course.progress(f"{', '.join(group)}: export")
        graph = OnnxGraph.load(onnx_export.export(network, next(iter(group.values()))))
        first_to_fail = all(report.verdict == "pass" for report in reports)
        written = course.reproduction if first_to_fail else None
        each = replace(course, inputs=group, reproduction=written)
        reports.append(each.judge(run(graph), "our own export"))
    return replace(reports[0], inputs=[item for report in reports for item in report.inputs])


def _inputs(
    paths: list[Path], graph: OnnxGraph | None, size: tuple[int, int] | None, batch: bool
) -> dict[str, Array]:
    wanted: tuple[int | None, ...] = (None, 3, None, None)
    if graph is not None:
        wanted = (images_input if takes_kernels(graph) else only_input)(graph).shape
    height, width = size or options.DEFAULT_SIZE
    fitted = (wanted[2] or height, wanted[3] or width)
    if paths:
        return load_inputs(paths, fitted, batch)
    return rendered_input(fitted, wanted[0] or 1)


def print_report(report: Report, all_steps: bool) -> None:
    """Print the verdict, the outputs, the stages (or all steps), and where the candidate leaves the
    reference."""
    leading = report.leading
    shown = leading.steps if all_steps else stages(leading.steps)
    options.console.print(_table("Steps" if all_steps else "Stages", shown, "introduced"))
    options.console.print(_table("Outputs", leading.outputs, None))
    if report.decisions:
        options.console.print(_decisions(report.decisions))
    options.console.print(f"[dim]Tolerance, {report.tolerance}.[/dim]")
    for item in report.inputs:
        flipped = f", flipped: {item.flipped}" if item.flipped else ""
        options.console.print(f"{item.verdict.upper():5} {item.name} {item.shape}{flipped}", highlight=False)
    for line in leading.remarks:
        options.console.print(line, highlight=False)
    if leading.inherited:
        said = (
            f"{leading.inherited} steps behind the first are wrong because what they were fed is: inherited."
        )
        options.console.print(said, highlight=False)
    if leading.first_fault and leading.first_fault.candidate_nodes:
        options.console.print(
            f"The candidate's nodes there: {', '.join(leading.first_fault.candidate_nodes)}", highlight=False
        )
    for likely in leading.diagnoses[:1]:
        said = (
            f"Likely mistake, {likely.named}: {likely.happens} (at {likely.call}) Known from: {likely.source}"
        )
        options.console.print(said, highlight=False, markup=False)
    style = "bold green" if report.verdict == "pass" else "bold red"
    options.console.print(report.headline(), style=style, highlight=False, markup=False, soft_wrap=True)


def stages(steps: list[Comparison]) -> list[Comparison]:
    """Return one row for each stage of the network: its last tensor, and the worst of what its steps
    introduced."""
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
        verdict = f"[{COLOURS[item.verdict]}]{item.verdict}[/]" + (
            f", {item.not_judged}" if item.not_judged else ""
        )
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
        colour = COLOURS[row.verdict]
        table.add_row(
            row.name, "×".join(map(str, row.shape)), *cells, place, f"[{colour}]{row.verdict}[/{colour}]"
        )
    return table
