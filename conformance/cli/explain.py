"""`mobileinst explain`: the layer table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.table import Table

from conformance.cli import options
from conformance.cli.explain_model import ModelTable
from conformance.cli.job import Beside, Job
from conformance.cli.options import JsonFile
from conformance.cli.report_files import Html
from conformance.files import write_text
from conformance.pictures.inputs import rendered_input
from conformance.teaching.graph_layers import plain_step
from conformance.teaching.layers import Stage, layers_page, stages, window
from refimpl import MobileInstConfig, Network, Recording, Weights, record
from refimpl.config import PRESETS, TABLE_1
from refimpl.costs import StepCost, step_costs


class Explain:
    """Print the layer table: shapes, kernel, stride, groups, costs, and what each stage is for.

    [bold]Examples[/bold]

      mobileinst explain --model topformer-tiny

      mobileinst explain --size 640x640 --all-steps --json layers.json

      mobileinst explain --model topformer-tiny --html layers.html

      mobileinst explain --list

      mobileinst explain mine.onnx --html graph.html

      mobileinst explain mine.tnnproto
    """


@dataclass(frozen=True, kw_only=True)
class NetworkTable(Job):
    """The layers of a network."""

    doing = "a network's layers"

    model: options.Model = None
    overrides: options.Set = None
    size: options.Size = None
    all_steps: Annotated[
        bool,
        typer.Option("--all-steps", help="List every step, not only those with parameters or products."),
    ] = False
    deviations: Annotated[
        bool,
        typer.Option(
            "--deviations",
            help="Show each output's standard deviation with seeded weights on a rendered scene.",
        ),
    ] = False
    seed: Annotated[options.Seed, Beside("deviations")] = None
    html_file: Html = None
    files: JsonFile

    def check(self) -> None:
        """Refuse options about a table that is not printed."""
        self.files.check_printed("--all-steps", self.all_steps)

    def run(self) -> int:
        """Record the network, and print its steps."""
        config = options.configuration(self.model, self.overrides)
        height, width = options.parse_size(self.size, step=1) or options.DEFAULT_SIZE
        with options.working("recording"):
            recording = _record(config, height, width, self.seed or 0)
        costs = step_costs(recording)
        spread = _deviations(recording, costs) if self.deviations else {}
        name = f"{self.model or options.DEFAULT_MODEL} at {height}×{width}"
        if self.html_file is not None:
            write_text(self.html_file, layers_page(name, costs))
        if self.files.write(_plain(costs, spread)):
            shown = [cost for cost in costs if self.all_steps or cost.parameters or cost.macs]
            options.console.print(_table(shown, spread))
            options.console.print(_stage_table(stages(costs)))
            total, parameters = sum(cost.macs for cost in costs), sum(cost.parameters for cost in costs)
            options.console.print(
                f"{name}: {len(costs)} operations, "
                f"{parameters / 1e6:.3f} M parameters, {total / 1e9:.3f} G multiply–accumulates",
                highlight=False,
            )
        return 0


def _deviations(recording: Recording, costs: list[StepCost]) -> dict[str, float]:
    return {cost.step.name: float(recording.tensors[cost.step.outputs[0]].std()) for cost in costs}


def _record(config: MobileInstConfig, height: int, width: int, seed: int) -> Recording:
    (images,) = rendered_input((height, width), seed=seed).values()
    return record(Network(config, Weights.seeded(config, seed)), images)


@dataclass(frozen=True, kw_only=True)
class PresetList(Job):
    """The named configurations."""

    doing = "the list of configurations (--list)"
    chosen_by = ("list_presets",)

    list_presets: Annotated[bool, typer.Option("--list", help="List the named configurations.")] = False
    files: JsonFile

    def run(self) -> int:
        """Print what each differs in from the default."""
        if self.files.write({name: asdict(MobileInstConfig.preset(name)) for name in PRESETS}):
            table = Table("preset", "row of Table 1", "differs from the default in", box=None)
            for name, fields in PRESETS.items():
                differing = ", ".join(f"{key}={value}" for key, value in fields.items())
                table.add_row(name, TABLE_1.get(name, ""), differing)
            options.console.print(table)
        return 0


MODES = (ModelTable, PresetList, NetworkTable)


def _plain(costs: list[StepCost], spread: dict[str, float]) -> dict[str, Any]:
    parts = stages(costs)
    names = {cost.step.name: part.name for part in parts for cost in part.costs}
    steps = [
        {
            **plain_step(cost),
            "stage": names[cost.step.name],
            **({"standard_deviation": spread[cost.step.name]} if spread else {}),
        }
        for cost in costs
    ]
    totals = {"parameters": sum(cost.parameters for cost in costs), "macs": sum(cost.macs for cost in costs)}
    shown = [
        {"stage": part.name, "purpose": part.purpose, "parameters": part.parameters, "macs": part.macs}
        for part in parts
    ]
    return {"steps": steps, "stages": shown, "totals": totals}


def _stage_table(parts: list[Stage]) -> Table:
    table = Table(title="Stages", title_justify="left", box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("makes", "parameters", "M MACs", "share"):
        table.add_column(name, justify="right")
    table.add_column("what it is for")
    total = sum(part.macs for part in parts) or 1
    for part in parts:
        numbers = f"{part.parameters:,}", f"{part.macs / 1e6:,.3f}", f"{part.macs / total:.1%}"
        table.add_row(part.name, _shape(part.shape), *numbers, part.purpose)
    return table


def _table(costs: list[StepCost], spread: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("operation")
    for name in (
        "input",
        "output",
        "kernel",
        "stride",
        "groups",
        "parameters",
        "M MACs",
        *(["std"] if spread else []),
    ):
        table.add_column(name, justify="right")
    for cost in costs:
        shapes = [_shape(cost.input_shapes[0] or ()), _shape(cost.output_shape), *window(cost.step)]
        deviation = [f"{spread[cost.step.name]:.2f}"] if spread else []
        name = cost.step.name.rpartition("/")[0]
        table.add_row(
            name, cost.step.operation, *shapes, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.3f}", *deviation
        )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
