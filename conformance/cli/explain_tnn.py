"""`mobileinst explain m.tnnproto`: the layer table of a converted model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from conformance.cli import options
from conformance.tnn.explain import LayerRow, layer_table
from conformance.tnn.graph import read_graph


def explain_tnn(path: Path, json_file: options.JsonPath) -> None:
    """Print the table, and write it as JSON (errors: those of `read_graph` and `layer_table`)."""
    graph = read_graph(path)
    rows = layer_table(graph)
    constants, products = sum(row.constants for row in rows), sum(row.products for row in rows)
    content = {
        "layers": [asdict(row) for row in rows],
        "totals": {"constants": constants, "products": products},
    }
    options.write_json(json_file, content)
    if str(json_file) == "-":
        return
    options.console.print(_table(rows))
    inputs = ", ".join(f"{item.name} {_shape(item.dims)}" for item in graph.proto.inputs)
    options.console.print(
        f"{escape(path.name)}: {len(rows)} layers, inputs {escape(inputs)}, outputs "
        f"{escape(', '.join(graph.proto.outputs))}, {constants / 1e6:.3f} M constants, "
        f"{products / 1e6:,.3f} M multiply–accumulates",
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
        table.add_row(escape(row.name), row.type, *shapes, *figures, escape(row.parameters))
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
