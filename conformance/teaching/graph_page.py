"""The page of `mobileinst explain MODEL.onnx --html`: the graph to look at, offline.

Nodes stand in rows, each below what it is computed from. Where in its row is igraph's work,
by Sugiyama's method, with a waypoint in every row that an edge passes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from conformance.graph.onnx_graph import OnnxGraph
from conformance.teaching.graph_layers import Part, attributes_text
from conformance.teaching.pages import page_template
from refimpl import __version__
from refimpl.costs import StepCost
from refimpl.errors import MissingDependencyError
from refimpl.ops import TRAITS, Trait

HERE = Path(__file__).parent
ACROSS, DOWN, WIDTH, HEIGHT = 178, 62, 164, 40
"""From one column and row to the next, and the size of a box, in pixels."""
ROUNDS = 30
"""Of ordering the rows so that few lines cross."""

Edge = tuple[int, int]


def graph_page(title: str, graph: OnnxGraph, costs: Sequence[StepCost], shown: Sequence[Part]) -> str:
    """Return a page with the graph drawn, a table of its parts, and what each node is.

    Parameters
    ----------
    title
    graph
        Its nodes of unknown operators are drawn, too.
    costs
        Of its nodes, as far as they are known.
    shown
        The parts of the graph.

    Raises
    ------
    MissingDependencyError
        igraph is not installed.
    """
    nodes = _nodes(graph, costs)
    names = {name: place for place, node in enumerate(nodes) for name in node["outputs"]}
    edges = sorted(
        {
            (names[name], place)
            for place, node in enumerate(nodes)
            for name in node["inputs"]
            if names.get(name, place) != place
        }
    )
    places, lines = _drawn(len(nodes), edges)
    for node, (x, y) in zip(nodes, places, strict=True):
        node["x"], node["y"] = round(x), round(y)
    return page_template("graph_template.html").render(
        title=title,
        nodes=nodes,
        lines=lines,
        width=max(x for x, _ in places) + ACROSS,
        height=max(y for _, y in places) + DOWN,
        box=(WIDTH, HEIGHT),
        parts=shown,
        parameters=sum(part.parameters for part in shown),
        macs=sum(part.macs for part in shown),
        facts=Markup(_inline(nodes)),
        style=Markup((HERE / "walk.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "graph.js").read_text(encoding="utf-8")),
        version=__version__,
    )


def _inline(facts: Any) -> str:
    """Return JSON that may stand within a page's script element."""
    return json.dumps(facts, ensure_ascii=True).replace("<", "\\u003c")


def _nodes(graph: OnnxGraph, costs: Sequence[StepCost]) -> list[dict[str, Any]]:
    """Return the graph's inputs, what runs, the unknown nodes, and the outputs, each as the page needs it."""
    shapes = {cost.step.outputs[0]: cost.output_shape for cost in costs}
    inputs = [_end("Input", name, [], [name], info.shape) for name, info in graph.declared.items()]
    known = [_node(cost, graph) for cost in costs]
    unknown = [
        {**_end(node.op_type, node.name, list(node.uses), list(node.outputs), None), "kind": "unknown"}
        for node in graph.nodes
        if node.name in graph.unknown
    ]
    outputs = [_end("Output", name, [name], [], shapes.get(name)) for name in graph.outputs]
    return [*inputs, *known, *unknown, *outputs]


def _end(operation: str, name: str, inputs: list[str], outputs: list[str], shape: Any) -> dict[str, Any]:
    """Return what stands for one of the graph's ends."""
    return {
        "operation": operation,
        "name": name,
        "kind": "end",
        "attributes": "",
        "weights": [],
        "inputs": inputs,
        "outputs": outputs,
        "shape": "×".join(map(str, shape or ())),
        "window": "",
        "parameters": 0,
        "macs": 0,
    }


def _node(cost: StepCost, graph: OnnxGraph) -> dict[str, Any]:
    step = cost.step
    held = [
        f"{name}: {graph.initializers[name].dtype}[{'×'.join(map(str, graph.initializers[name].shape))}]"
        for name in step.inputs
        if name in graph.initializers
    ]
    return {
        "operation": step.operation,
        "name": step.name,
        "kind": _kind(step.op_type),
        "attributes": attributes_text(step.attributes),
        "weights": held,
        "inputs": [name for name in step.inputs if name and name not in graph.initializers],
        "outputs": [name for name in step.outputs if name],
        "shape": "×".join(map(str, cost.output_shape)),
        "window": "×".join(map(str, step.attributes.get("kernel_shape") or ())),
        "parameters": cost.parameters,
        "macs": cost.macs,
    }


def _kind(op_type: str) -> str:
    """Return the class of an operator, for its colour."""
    traits = TRAITS.get(op_type, Trait(0))
    if Trait.SUMS in traits:
        return "sums"
    if Trait.MOVES in traits:
        return "moves"
    return "elementwise" if Trait.ELEMENTWISE in traits else "other"


def _drawn(count: int, edges: Sequence[Edge]) -> tuple[list[tuple[float, float]], list[str]]:
    """Return where nodes stand, and the path of each edge in SVG."""
    try:
        import igraph
    except ImportError as error:
        raise MissingDependencyError(
            "igraph, which lays out graphs, is not installed: pip install 'mobileinst-reference[drawing]'"
        ) from error
    rows = _rows(count, edges)
    pieces: list[Edge] = []
    routes = []
    for first, last in edges:
        way = [first]
        for row in range(rows[first] + 1, rows[last]):
            rows.append(row)
            way.append(len(rows) - 1)
        way.append(last)
        pieces += pairwise(way)
        routes.append(way)
    layout = igraph.Graph(len(rows), pieces, directed=True).layout_sugiyama(layers=rows, maxiter=ROUNDS)
    left = min((x for x, _ in layout), default=0.0)
    points = [((x - left) * ACROSS, float(row * DOWN)) for (x, _), row in zip(layout, rows, strict=True)]
    return points[:count], [_line([points[place] for place in way]) for way in routes]


def _rows(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return each node's row: below all it is computed from, and close to what it feeds."""
    feeding: Mapping[int, list[int]] = {place: [] for place in range(count)}
    fed: Mapping[int, list[int]] = {place: [] for place in range(count)}
    for first, last in edges:
        feeding[last].append(first)
        fed[first].append(last)
    rows = [0] * count
    order = _in_order(count, feeding, fed)
    for place in order:
        rows[place] = 1 + max((rows[other] for other in feeding[place]), default=-1)
    for place in reversed(order):
        if fed[place] and len(feeding[place]) <= len(fed[place]):
            rows[place] = min(rows[other] for other in fed[place]) - 1
    return rows


def _in_order(count: int, feeding: Mapping[int, list[int]], fed: Mapping[int, list[int]]) -> list[int]:
    waiting = {place: len(feeding[place]) for place in range(count)}
    order = [place for place in range(count) if not waiting[place]]
    for place in order:
        for other in fed[place]:
            waiting[other] -= 1
            if not waiting[other]:
                order.append(other)
    return order


def _line(points: Sequence[tuple[float, float]]) -> str:
    """Return a line through the middle of rows, from below the first box to above the last."""
    middle = WIDTH / 2
    (x, y), *others = points
    text = f"M{x + middle:.0f} {y + HEIGHT:.0f}"
    y += HEIGHT
    for place, (to_x, to_y) in enumerate(others):
        end = to_y if place == len(others) - 1 else to_y + HEIGHT / 2
        bend = (y + end) / 2
        text += f"C{x + middle:.0f} {bend:.0f} {to_x + middle:.0f} {bend:.0f} {to_x + middle:.0f} {end:.0f}"
        x, y = to_x, end
    return text
