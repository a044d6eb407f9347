"""`mobileinst explain m.tnnproto`: the layer table of a converted model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Reads
from conformance.tnn.explain import LayerRow, layer_table
from conformance.tnn.graph import read_graph


@dataclass(frozen=True, kw_only=True)
class TnnTable(Job):
    """The layers of a converted model."""

    doing = "a converted model's layers (MODEL.tnnproto)"
    chosen_by = ("model_file",)

    model_file: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL.tnnproto]", help="A converted model. Default: the network."),
        Reads(),
    ] = None
    files: JsonFile

    def run(self) -> int:
        """Print the table, and write it as JSON (errors: those of `read_graph` and `layer_table`)."""
        assert self.model_file is not None
        graph = read_graph(self.model_file)
        rows = layer_table(graph)
        constants, products = sum(row.constants for row in rows), sum(row.products for row in rows)
        totals = {"constants": constants, "products": products}
        if self.files.write({"layers": [asdict(row) for row in rows], "totals": totals}):
            options.console.print(_table(rows))
            inputs = ", ".join(f"{item.name} {_shape(item.dims)}" for item in graph.proto.inputs)
            options.console.print(
                f"{self.model_file.name}: {len(rows)} layers, inputs {inputs}, outputs "
                f"{', '.join(graph.proto.outputs)}, {constants / 1e6:.3f} M constants, "
                f"{products / 1e6:,.3f} M multiply–accumulates",
                highlight=False,
            )
        return 0


def _table(rows: list[LayerRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "type"):
        table.add_column(name, overflow="fold")
    for name in ("input", "output", "constants", "M MACs"):
        table.add_column(name, justify="right")
    table.add_column("parameters", overflow="fold")
    for row in rows:
        shapes = [_shape(next(iter(row.inputs.values()), ())), _shape(next(iter(row.outputs.values())))]
        figures = [f"{row.constants:,}", f"{row.products / 1e6:,.3f}"]
        table.add_row(row.name, row.type, *shapes, *figures, row.parameters)
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
