"""The place of the first fault as both sides compute it, drawn beside each other.

Only geometry: which boxes, where, and the lines between them. The page's template draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

Node = Mapping[str, Any]
Line = tuple[float, float, float, float]

WIDTH, HEIGHT = 176, 34
ACROSS, DOWN = 188, 62
"""From one box to the next."""
MOST = 40
"""Nodes of a side that a picture shows; more would not be read."""
LONGEST = 26
"""Characters of a name; it is cut in the middle."""


@dataclass(frozen=True)
class NodeBox:
    """One node: what it computes, its name, where it is drawn, and whether the other side has none such."""

    operation: str
    name: str
    x: float
    y: float
    differs: bool


@dataclass(frozen=True)
class Subgraph:
    """One side: its boxes, all of one size, the lines between them, and the size of the drawing."""

    title: str
    boxes: list[NodeBox]
    lines: list[Line]
    width: float
    height: float
    box_width: float = WIDTH
    box_height: float = HEIGHT


def subgraph_figures(subgraphs: Mapping[str, Sequence[Node]]) -> list[Subgraph]:
    """Return the reference's and the candidate's drawing; none where one side is empty or too large.

    Parameters
    ----------
    subgraphs
        ``reference`` and ``candidate`` → the nodes, in order, each with ``name``, ``operation``, ``inputs``
        and ``outputs``.
    """
    sides = {title: list(nodes) for title, nodes in subgraphs.items()}
    if len(sides) != 2 or not all(0 < len(nodes) <= MOST for nodes in sides.values()):
        return []
    ours, theirs = ([str(node["operation"]) for node in nodes] for nodes in sides.values())
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    alike = [{block[which] + i for block in blocks for i in range(block.size)} for which in (0, 1)]
    # Another order of the same nodes is no difference.
    for same, own, other in ((alike[0], ours, theirs), (alike[1], theirs, ours)):
        same |= {
            place for place, operation in enumerate(own) if own.count(operation) <= other.count(operation)
        }
    return [_drawn(title, nodes, same) for (title, nodes), same in zip(sides.items(), alike, strict=True)]


def _drawn(title: str, nodes: Sequence[Node], alike: set[int]) -> Subgraph:
    maker = {name: place for place, node in enumerate(nodes) for name in node["outputs"]}
    feeding = [
        sorted({maker[name] for name in node["inputs"] if maker.get(name, place) < place})
        for place, node in enumerate(nodes)
    ]
    rows: list[int] = []
    for makers in feeding:
        rows.append(1 + max((rows[place] for place in makers), default=-1))
    # What is fed by none of them stands just above what it feeds.
    for place, makers in enumerate(feeding):
        fed = [rows[user] for user, theirs in enumerate(feeding) if place in theirs]
        rows[place] = rows[place] if makers or not fed else min(fed) - 1
    columns = [rows[:place].count(row) for place, row in enumerate(rows)]
    corners = [(column * ACROSS, row * DOWN) for column, row in zip(columns, rows, strict=True)]
    boxes = [
        NodeBox(node["operation"], _cut(node["name"]), *corner, place not in alike)
        for place, (node, corner) in enumerate(zip(nodes, corners, strict=True))
    ]
    lines = [
        (boxes[start].x + WIDTH / 2, boxes[start].y + HEIGHT, boxes[end].x + WIDTH / 2, boxes[end].y)
        for end, makers in enumerate(feeding)
        for start in makers
    ]
    return Subgraph(title, boxes, lines, (max(columns) + 1) * ACROSS, (max(rows) + 1) * DOWN)


def _cut(name: str) -> str:
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"
