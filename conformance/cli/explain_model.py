"""`mobileinst explain m.onnx`, or `m.tnnproto`: the layer table of somebody's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.cli import options
from conformance.cli.explain_tnn import layer_rows, print_layers
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Reads
from conformance.cli.report_files import Html
from conformance.cli.verify_graph import Shapes, feeds_of
from conformance.files import write_text
from conformance.graph.onnx_graph import OnnxGraph
from conformance.reports.summary import within
from conformance.teaching.graph_layers import Part, attributes_text, graph_costs, parts, plain_step
from conformance.teaching.graph_page import graph_page
from refimpl.costs import StepCost
from refimpl.errors import ConfigurationError

NAME = 28
"""Characters of a name that a table shows."""


@dataclass(frozen=True, kw_only=True)
class ModelTable(Job):
    """The layers of a model of anybody's."""

    doing = "a model's layers (MODEL.onnx or MODEL.tnnproto)"
    chosen_by = ("model_file",)

    model_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL.onnx]", help="Any graph, or a .tnnproto of TNN's. Default: the network."
        ),
        Reads(),
    ] = None
    shapes: Shapes = None
    all_steps: Annotated[
        bool,
        typer.Option("--all-steps", help="List every step, not only those with parameters or products."),
    ] = False
    html_file: Html = None
    files: JsonFile

    def check(self) -> None:
        """Refuse options about a table that is not printed, and what a converted model has not."""
        self.files.check_printed("--all-steps", self.all_steps)
        given = {"--shape": self.shapes, "--all-steps": self.all_steps, "--html": self.html_file}
        wrong = [flag for flag, value in given.items() if value]
        if self.is_converted and wrong:
            raise ConfigurationError(f"{', '.join(wrong)} has no effect on a converted model; leave it out")

    @property
    def is_converted(self) -> bool:
        """Whether it is TNN's file."""
        return self.model_file is not None and self.model_file.suffix == ".tnnproto"

    def run(self) -> int:
        """Print the table, write JSON and the page."""
        assert self.model_file is not None
        if self.is_converted:
            graph, rows, content = layer_rows(self.model_file)
            if self.files.write(content):
                print_layers(self.model_file.name, graph, rows)
            return 0
        with options.working("running it once"):
            model, costs = _costs(self.model_file, self.shapes or ())
        shown = parts(costs)
        if self.html_file is not None:
            page = graph_page(self.model_file.name, model, costs, shown)
            write_text(self.html_file, page)
        if self.files.write(_plain(model, costs, shown)):
            _print(self.model_file.name, model, costs, shown, self.all_steps)
        return 0


def _costs(path: Path, shapes: Sequence[str]) -> tuple[OnnxGraph, list[StepCost]]:
    """Read a graph and run it once; what unknown operators make is ONNX Runtime's."""
    graph = OnnxGraph.load(path, partly=True)
    feeds = feeds_of(graph, (), shapes, 0)
    wanted = {name for node in graph.nodes if node.name in graph.unknown for name in node.outputs}
    made = OnnxRuntimeGraph(graph).capture(feeds) if wanted else {}
    taken = {name: array for name, array in made.items() if name in wanted}
    return graph, graph_costs(graph, feeds, taken)


def _plain(graph: OnnxGraph, costs: Sequence[StepCost], shown: Sequence[Part]) -> dict[str, Any]:
    names = {cost.step.name: part.name for part in shown for cost in part.costs}
    steps = [{**plain_step(cost), "part": names[cost.step.name]} for cost in costs]
    sums = [{"part": part.name, "parameters": part.parameters, "macs": part.macs} for part in shown]
    totals = {"parameters": sum(cost.parameters for cost in costs), "macs": sum(cost.macs for cost in costs)}
    return {"steps": steps, "parts": sums, "unknown": sorted(graph.unknown), "totals": totals}


def _print(
    name: str, graph: OnnxGraph, costs: Sequence[StepCost], shown: Sequence[Part], all_steps: bool
) -> None:
    listed = [cost for cost in costs if all_steps or cost.parameters or cost.macs]
    if listed:
        options.console.print(_table(listed))
    options.console.print(_part_table(shown))
    macs, parameters = sum(part.macs for part in shown), sum(part.parameters for part in shown)
    unknown = f", {len(graph.unknown)} of unknown operators" if graph.unknown else ""
    options.console.print(
        f"{name}: {len(graph.nodes)} nodes of opset {graph.opset}{unknown}, "
        f"{parameters / 1e6:.3f} M parameters, {macs / 1e9:.3f} G multiply–accumulates",
        highlight=False,
    )


def _table(costs: Sequence[StepCost]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("operation", no_wrap=True)
    for name in ("input", "output", "parameters", "M MACs"):
        table.add_column(name, justify="right")
    table.add_column("attributes", overflow="ellipsis", no_wrap=True)
    for cost in costs:
        shapes = [_shape((*cost.input_shapes, ())[0] or ()), _shape(cost.output_shape)]
        figures = [f"{cost.parameters:,}", f"{cost.macs / 1e6:,.3f}"]
        said = attributes_text(cost.step.attributes)
        table.add_row(within(cost.step.name, NAME), cost.step.operation, *shapes, *figures, said)
    return table


def _part_table(shown: Sequence[Part]) -> Table:
    table = Table(title="Parts", title_justify="left", box=None, pad_edge=False)
    table.add_column("part", no_wrap=True)
    for name in ("nodes", "parameters", "M MACs", "share"):
        table.add_column(name, justify="right")
    total = sum(part.macs for part in shown) or 1
    for part in shown:
        figures = f"{part.parameters:,}", f"{part.macs / 1e6:,.3f}", f"{part.macs / total:.1%}"
        table.add_row(within(part.name, NAME), str(len(part.costs)), *figures)
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
