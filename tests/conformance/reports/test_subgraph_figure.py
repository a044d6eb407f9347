"""Both sides at the first fault, drawn: nothing overlaps, wires go down, what is alone is outlined."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from conformance.reports.subgraph_figure import HEIGHT, MOST, WIDTH, subgraph_figures


@st.composite
def sides(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return nodes in order, each fed by some before it."""
    nodes = []
    for place in range(draw(st.integers(1, 12))):
        fed = draw(st.sets(st.integers(0, place - 1))) if place else set()
        operation = draw(st.sampled_from(["Add", "Mul", "Relu"]))
        nodes.append(
            {
                "name": f"n{place}",
                "operation": operation,
                "inputs": [f"t{number}" for number in fed] or ["x"],
                "outputs": [f"t{place}"],
            }
        )
    return nodes


@given(sides(), sides())
def test_boxes_keep_apart_and_wires_go_down(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    figures = subgraph_figures({"reference": ours, "candidate": theirs})
    for figure, nodes in zip(figures, (ours, theirs), strict=True):
        assert [box.name for box in figure.boxes] == [node["name"] for node in nodes]
        corners = sorted((box.y, box.x) for box in figure.boxes)
        for (y, x), (other_y, other_x) in pairwise(corners):
            assert other_y - y >= HEIGHT or other_x - x >= WIDTH
        assert all(0 <= box.x <= figure.width - WIDTH and box.y >= 0 for box in figure.boxes)
        assert len(figure.lines) == sum(name != "x" for node in nodes for name in node["inputs"])
        assert all(y1 < y2 for _, y1, _, y2 in figure.lines)


@given(sides(), st.data())
def test_what_only_one_side_has_is_outlined(nodes: list[dict[str, Any]], data: st.DataObject) -> None:
    assert not any(
        box.differs
        for figure in subgraph_figures({"reference": nodes, "candidate": nodes})
        for box in figure.boxes
    )
    place = data.draw(st.integers(0, len(nodes)))
    clip = {"name": "extra", "operation": "Clip", "inputs": ["x"], "outputs": ["y"]}
    longer = [*nodes[:place], clip, *nodes[place:]]
    _, candidate = subgraph_figures({"reference": nodes, "candidate": longer})
    assert [box.name for box in candidate.boxes if box.differs] == ["extra"]


def test_what_could_not_be_read_is_not_drawn() -> None:
    node = {"name": "n", "operation": "Add", "inputs": [], "outputs": []}
    assert subgraph_figures({}) == []
    assert subgraph_figures({"reference": [node], "candidate": []}) == []
    assert subgraph_figures({"reference": [node], "candidate": [node] * (MOST + 1)}) == []
