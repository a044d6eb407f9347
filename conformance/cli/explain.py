"""`mobileinst explain`: the layer table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from conformance.cli import options
from conformance.cli.explain_tnn import explain_tnn
from conformance.pictures.inputs import rendered_input
from refimpl import MobileInst, MobileInstConfig, Recording, Weights, record
from refimpl.config import PRESETS
from refimpl.costs import StepCost, step_costs


def explain(
    model_file: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL.tnnproto]", help="A converted model. Default: the network."),
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    overrides: options.Set = None,
    size: options.Size = None,
    all_steps: Annotated[
        bool,
        typer.Option("--all-steps", help="List every operation, not only those with parameters or products."),
    ] = False,
    deviations: Annotated[
        bool,
        typer.Option(
            "--deviations",
            help="Show each output's standard deviation with seeded weights on a rendered scene.",
        ),
    ] = False,
    seed: options.Seed = 0,
    list_presets: Annotated[bool, typer.Option("--list", help="List the named configurations.")] = False,
    json_file: options.Json = None,
) -> None:
    """Print the layer table: name, operation, shapes, parameters, multiply–accumulates, totals.

    [bold]Examples[/bold]

      mobileinst explain --model topformer-tiny

      mobileinst explain --size 640x640 --all-steps --json layers.json

      mobileinst explain --list

      mobileinst explain mine.tnnproto
    """
    if model_file is not None:
        explain_tnn(model_file, json_file)
        return
    if list_presets:
        _print_presets(json_file)
        return
    config = options.configuration(model, overrides)
    height, width = options.parse_size(size) or options.DEFAULT_SIZE
    with options.progress_console.status("recording"):
        recording = _record(config, height, width, seed)
    costs = step_costs(recording)
    spread = (
        {cost.step.name: float(recording.tensors[cost.step.outputs[0]].std()) for cost in costs}
        if deviations
        else {}
    )
    options.write_json(json_file, _plain(costs, spread))
    if str(json_file) == "-":
        return
    shown = [cost for cost in costs if all_steps or cost.parameters or cost.macs]
    options.console.print(_table(shown, spread))
    total, parameters = sum(cost.macs for cost in costs), sum(cost.parameters for cost in costs)
    options.console.print(
        f"{model} at {height}×{width}: {len(costs)} operations, {parameters / 1e6:.3f} M parameters, "
        f"{total / 1e9:.3f} G multiply–accumulates",
        highlight=False,
    )


def _record(config: MobileInstConfig, height: int, width: int, seed: int) -> Recording:
    (images,) = rendered_input((height, width), seed=seed).values()
    return record(MobileInst(config, Weights.seeded(config, seed)), images)


def _print_presets(json_file: options.JsonPath) -> None:
    options.write_json(json_file, {name: asdict(MobileInstConfig.preset(name)) for name in PRESETS})
    if str(json_file) == "-":
        return
    table = Table("preset", "differs from the default in", box=None)
    for name, fields in PRESETS.items():
        table.add_row(name, ", ".join(f"{key}={value}" for key, value in fields.items()))
    options.console.print(table)


def _plain(costs: list[StepCost], spread: dict[str, float]) -> dict[str, Any]:
    steps = [
        {
            "name": cost.step.name,
            "operation": cost.step.operation,
            "inputs": [name or None for name in cost.step.inputs],
            "input_shapes": list(cost.input_shapes),
            "output_shape": list(cost.output_shape),
            "attributes": {
                key: value for key, value in cost.step.attributes.items() if not isinstance(value, np.ndarray)
            },
            "parameters": cost.parameters,
            "macs": cost.macs,
            **({"standard_deviation": spread[cost.step.name]} if spread else {}),
        }
        for cost in costs
    ]
    totals = {"parameters": sum(cost.parameters for cost in costs), "macs": sum(cost.macs for cost in costs)}
    return {"steps": steps, "totals": totals}


def _table(costs: list[StepCost], spread: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("operation")
    for name in ("input", "output", "parameters", "M MACs", *(["std"] if spread else [])):
        table.add_column(name, justify="right")
    for cost in costs:
        shapes = [_shape(cost.input_shapes[0] or ()), _shape(cost.output_shape)]
        deviation = [f"{spread[cost.step.name]:.2f}"] if spread else []
        name = cost.step.name.rpartition("/")[0]
        table.add_row(
            name, cost.step.operation, *shapes, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.3f}", *deviation
        )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
