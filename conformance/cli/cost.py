"""`mobileinst cost`: multiply–accumulates, parameters, memory and roofline time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Beside, Job
from conformance.cli.options import JsonFile
from conformance.evidence.paper_costs import (
    PAPER_GFLOPS,
    PaperRow,
    PrintedRow,
    disagreements,
    paper_rows,
    printed_disagreements,
    printed_rows,
)
from refimpl.costs import (
    PeakMemory,
    Roofline,
    StageCost,
    StepCost,
    peak_activation_memory,
    record_shapes,
    stage_costs,
    step_costs,
)


class Cost:
    """Count what a network costs, for one picture in float32.

    Multiply–accumulates are those of convolutions, linear layers and matrix products.
    With --gflops and --gbps, also the least time of every layer on that machine.
    --paper exits 0 if every MobileInst row is within 1 % of the paper, every difference between two
    of a table within 0.01 G, and every baseline within 5 %; else 1.

    [bold]Examples[/bold]

      mobileinst cost --paper

      mobileinst cost --model seaformer-base --gflops 60 --gbps 12

      mobileinst cost --model table4/none --size 640x640 --json cost.json
    """


@dataclass(frozen=True, kw_only=True)
class NetworkCost(Job):
    """Count one network."""

    doing = "one network's cost"

    model: options.Model = None
    overrides: options.Set = None
    size: options.Size = None
    gflops: Annotated[
        float | None,
        typer.Option("--gflops", help="A machine's 10⁹ floating-point operations per second."),
        Beside("gbps"),
    ] = None
    gbps: Annotated[
        float | None, typer.Option("--gbps", help="Its memory's 10⁹ bytes per second."), Beside("gflops")
    ] = None
    files: JsonFile

    def run(self) -> int:
        """Record the network on shapes alone, and print its stages, and its layers on a machine."""
        roofline = None if self.gflops is None or self.gbps is None else Roofline(self.gflops, self.gbps)
        name, config = self.model or options.DEFAULT_MODEL, options.configuration(self.model, self.overrides)
        height, width = options.parse_size(self.size, step=1) or options.DEFAULT_SIZE
        with options.working("recording"):
            recording = record_shapes(config, height, width)
        costs, peak = step_costs(recording), peak_activation_memory(recording)
        content = {"model": name, "size": [height, width], **_totals(costs, peak)}
        if roofline:
            content["roofline"] = asdict(roofline)
            content["layers"] = [_layer(item, roofline) for item in costs]
        if self.files.write(content):
            if roofline:
                options.console.print(_layer_table(costs, roofline))
            options.console.print(_stage_table(stage_costs(costs), costs, roofline))
            options.console.print(
                f"{name} at {height}×{width}: {content['parameters'] / 1e6:.3f} M parameters, "
                f"{content['macs'] / 1e9:.3f} G multiply–accumulates, "
                f"peak activation memory {peak.bytes / 1e6:.2f} MB in {peak.step}",
                highlight=False,
            )
        return 0


@dataclass(frozen=True, kw_only=True)
class PaperCost(Job):
    """Count the paper's own networks at 320×640."""

    doing = "the paper's tables (--paper)"
    chosen_by = ("paper",)

    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Every row of the paper's Tables 3 to 6 beside its FLOPs, rivals beside what others print.",
        ),
    ] = False
    files: JsonFile

    def run(self) -> int:
        """Print every row beside the paper's; 1 if one disagrees."""
        with Progress(console=options.progress_console, transient=True) as progress:
            task = progress.add_task("recording", total=len(PAPER_GFLOPS))
            rows = paper_rows(lambda preset: progress.advance(task))
        rivals = printed_rows()
        problems = [*disagreements(rows), *printed_disagreements(rivals)]
        content = {
            "rows": [_plain(row) for row in rows],
            "rivals": [{**asdict(row.printed), "gmacs": row.counted} for row in rivals],
            "disagreements": problems,
        }
        if self.files.write(content):
            options.console.print(_paper_table(rows))
            options.console.print(_printed_table(rivals))
            for source in dict.fromkeys(row.printed.source for row in rivals):
                options.console.print(source, soft_wrap=True, highlight=False)
            for problem in problems:
                options.console.print(problem, style="bold red", highlight=False)
            if not problems:
                options.console.print(AGREED, style="bold green", highlight=False)
        return 1 if problems else 0


MODES = (PaperCost, NetworkCost)
AGREED = (
    "Every MobileInst row within 1 % of the paper, every difference between two of a table "
    "within 0.01 G, every baseline within 5 %; every rival within 1 % of what others print of it."
)


# One network.


def _totals(costs: list[StepCost], peak: PeakMemory) -> dict[str, Any]:
    stages = stage_costs(costs)
    return {
        "parameters": sum(stage.parameters for stage in stages),
        "macs": sum(stage.macs for stage in stages),
        "peak_activation_bytes": peak.bytes,
        "peak_step": peak.step,
        "stages": [asdict(stage) for stage in stages],
    }


def _layer(item: StepCost, roofline: Roofline) -> dict[str, Any]:
    return {
        "name": item.step.name,
        "operation": item.step.operation,
        "parameters": item.parameters,
        "macs": item.macs,
        "bytes_moved": item.bytes_moved,
        "seconds": roofline.seconds(item),
        "bound": _bound(item, roofline),
    }


def _bound(item: StepCost, roofline: Roofline) -> str:
    return "arithmetic" if roofline.arithmetic_seconds(item) > roofline.memory_seconds(item) else "memory"


def _layer_table(costs: list[StepCost], roofline: Roofline) -> Table:
    table = Table(
        title=f"Layers at {roofline.gflops:g} GFLOP/s and {roofline.gbps:g} GB/s",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("layer", overflow="fold")
    for name in ("M MACs", "MB moved", "µs"):
        table.add_column(name, justify="right")
    table.add_column("bound by")
    for item in costs:
        if item.bytes_moved:
            numbers = (item.macs / 1e6, item.bytes_moved / 1e6, 1e6 * roofline.seconds(item))
            table.add_row(item.step.name, *(f"{number:,.3f}" for number in numbers), _bound(item, roofline))
    return table


def _stage_table(stages: list[StageCost], costs: list[StepCost], roofline: Roofline | None) -> Table:
    table = Table(title="Stages", title_justify="left", box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("parameters", "G MACs", "share", "MB moved", *(["ms at least"] if roofline else [])):
        table.add_column(name, justify="right")
    total = sum(stage.macs for stage in stages)
    for stage in stages:
        cells = [f"{stage.parameters:,}", f"{stage.macs / 1e9:.3f}", f"{stage.macs / total:.1%}"]
        cells.append(f"{stage.bytes_moved / 1e6:.2f}")
        if roofline:
            seconds = sum(roofline.seconds(item) for item in costs if item.stage == stage.stage)
            cells.append(f"{1e3 * seconds:.2f}")
        table.add_row(stage.stage, *cells)
    return table


# The paper's tables.


def _plain(row: PaperRow) -> dict[str, Any]:
    return {
        "preset": row.preset,
        "paper_gflops": row.paper,
        "gmacs": row.counted,
        "difference": row.difference,
        "parameters": row.cost.parameters,
        "peak_activation_bytes": row.cost.peak_bytes,
        "stages": [asdict(stage) for stage in row.cost.stages],
    }


def _printed_table(rows: list[PrintedRow]) -> Table:
    table = Table(title="Rivals, G multiply–accumulates", title_justify="left", box=None, pad_edge=False)
    table.add_column("network", no_wrap=True)
    for name in ("input", "printed", "counted", "%"):
        table.add_column(name, justify="right")
    table.add_column("counts")
    for row in rows:
        printed = row.printed
        name = " ".join([printed.preset, *(f"{key}={value}" for key, value in printed.fields.items())])
        numbers = [f"{printed.macs:.2f}", f"{row.counted:.3f}", f"{100 * row.difference:+.2f}"]
        size = "×".join(map(str, printed.size))
        table.add_row(name, size, *numbers, printed.counts)
    return table


def _paper_table(rows: list[PaperRow]) -> Table:
    table = Table(title="G multiply–accumulates at 320×640", title_justify="left", box=None, pad_edge=False)
    table.add_column("row", no_wrap=True)
    stages = [stage.stage for stage in rows[0].cost.stages]
    columns = ("paper", "counted", "difference", "%", *stages, "M parameters", "peak MB")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for i, row in enumerate(rows):
        numbers = [
            f"{row.paper:.2f}",
            f"{row.counted:.3f}",
            f"{row.difference:+.3f}",
            f"{100 * row.difference / row.paper:+.2f}",
        ]
        parts = {stage.stage: stage.macs for stage in row.cost.stages}
        numbers += [f"{parts.get(stage, 0) / 1e9:.3f}" for stage in stages]
        numbers += [f"{row.cost.parameters / 1e6:.2f}", f"{row.cost.peak_bytes / 1e6:.1f}"]
        ends = i + 1 == len(rows) or rows[i + 1].table != row.table
        table.add_row(row.preset, *numbers, end_section=ends)
    return table
