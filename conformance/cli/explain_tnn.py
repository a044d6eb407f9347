"""`mobileinst explain m.tnnproto`: the layer table of a converted model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from conformance.cli import options
from conformance.tnn.explain import LayerRow, layer_table
from conformance.tnn.graph import TnnGraph, read_graph


def layer_rows(path: Path) -> tuple[TnnGraph, list[LayerRow], dict[str, Any]]:
    """Read a converted model and return it, its layers, and both as JSON.

    Raises
    ------
    MobileInstError
        Those of `read_graph` and `layer_table`.
    """
    graph = read_graph(path)
    rows = layer_table(graph)
    constants, products = sum(row.constants for row in rows), sum(row.products for row in rows)
    totals = {"constants": constants, "products": products}
    return graph, rows, {"layers": [asdict(row) for row in rows], "totals": totals}


def print_layers(name: str, graph: TnnGraph, rows: list[LayerRow]) -> None:
    """Print the table, and a line of the whole."""
    constants, products = sum(row.constants for row in rows), sum(row.products for row in rows)
    options.console.print(_table(rows))
    inputs = ", ".join(f"{item.name} {_shape(item.dims)}" for item in graph.proto.inputs)
    options.console.print(
        f"{name}: {len(rows)} layers, inputs {inputs}, outputs {', '.join(graph.proto.outputs)}, "
        f"{constants / 1e6:.3f} M constants, {products / 1e6:,.3f} M multiply–accumulates",
        highlight=False,
    )


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
