"""A computation as a graph: who makes, who uses, and what lies between, against a walk by brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from refimpl.graph import Graph, Node

NAMES = st.integers(1, 12)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw nodes that use inputs, weights, absent operands and what nodes before them make."""
    known, nodes = ["input", "weight", ""], []
    for place in range(draw(NAMES)):
        used = draw(st.lists(st.sampled_from(known), max_size=3))
        made = tuple(f"{place}:{output}" for output in range(draw(st.integers(1, 2))))
        nodes.append(Node(f"node {place}", "Add", tuple(used), made))
        known += made
    return Graph(nodes, inputs={"x": "input"})


def reaches(graph: Graph, start: str, target: str, closed: set[str]) -> bool:
    """Tell whether a path leads from a tensor to another, through none of those closed."""
    return start == target or any(
        reaches(graph, made, target, closed)
        for node in graph.nodes
        if start in node.inputs and start not in closed
        for made in node.outputs
    )


@given(graphs(), st.data())
def test_between_are_the_nodes_on_a_path_from_what_is_known(graph: Graph, data: st.DataObject) -> None:
    made = [name for node in graph.nodes for name in node.outputs]
    known = data.draw(st.sets(st.sampled_from(made)))
    target = data.draw(st.sampled_from(made))
    expected = [
        node
        for node in graph.nodes
        if any(name == target or reaches(graph, name, target, known) for name in node.outputs)
    ]
    assert graph.between(known, [target]) == expected


@given(graphs())
def test_dependent_is_what_a_path_leads_to(graph: Graph) -> None:
    made = [name for node in graph.nodes for name in node.outputs]
    assert graph.dependent(["input"]) == {"input", *(n for n in made if reaches(graph, "input", n, set()))}


@given(graphs())
def test_producers_and_consumers_are_each_others(graph: Graph) -> None:
    for node in graph.nodes:
        assert all(graph.producer(name) is node for name in node.outputs)
        assert all(node in graph.consumers[name] for name in node.uses)
    assert graph.producer("input") is None
    assert sum(map(len, graph.consumers.values())) == sum(len(set(node.uses)) for node in graph.nodes)


def test_absent_operands_are_none() -> None:
    node = Node("clip", "Clip", ("x", "", "high"), ("y",))
    assert node.operands({"x": 1, "high": 6}) == (1, None, 6)
    assert node.uses == ("x", "high")
