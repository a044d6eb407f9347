"""Nodes within branches are judged one by one: the branches taken stand in their If's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.candidates.arrays import attempted
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.graph.branches import with_branches
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import MobileInstError
from refimpl.ops.operation import Array

DEEPEST = 16
"""Branches within branches."""


class BranchesShown:
    """A graph's runtime that runs it as it is, and shows what is within the branches taken.

    Parameters
    ----------
    whole
        Runs the graph.
    graph
        With branches in their If's place.
    feeds
        On which these are taken; on others nothing within is shown.
    """

    def __init__(self, whole: OnnxRuntimeGraph, graph: OnnxGraph, feeds: Mapping[str, Array]) -> None:
        self.whole, self.graph, self.feeds = whole, graph, feeds
        self.shown = whole.with_graph(graph)

    def __getattr__(self, name: str) -> Any:
        """Return what else the runtime has."""
        return getattr(self.whole, name)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph as users do."""
        return self.whole.run(feeds)

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every tensor, those within the branches too if these feeds take them."""
        return (self.shown if feeds is self.feeds else self.whole).capture(feeds)

    def own_graph(self, feeds: Mapping[str, Array]) -> Any:
        """Return the graph with its branches in place."""
        return self.shown.own_graph(feeds)


def with_branches_shown(candidate: Any, feeds: Mapping[str, Array]) -> Any:
    """Return the candidate, or one that shows what is within the branches that it takes on some inputs.

    One that cannot be run is returned as it is: whoever runs it will say so.
    """
    graph: OnnxGraph = candidate.graph
    if not isinstance(candidate, OnnxRuntimeGraph) or not any(n.op_type == "If" for n in graph.nodes):
        return candidate
    try:
        return BranchesShown(candidate, _in_place(candidate, feeds), feeds)
    except MobileInstError:
        return candidate


def _in_place(candidate: OnnxRuntimeGraph, feeds: Mapping[str, Array]) -> OnnxGraph:
    """Return the graph with branches in their If's place, those within branches too."""
    graph = candidate.graph
    for _ in range(DEEPEST):
        captured = attempted(candidate.with_graph(graph).capture, feeds, passed=MobileInstError)
        known = {**graph.initializers, **feeds, **captured}
        ifs = [node for node in graph.nodes if node.op_type == "If" and node.inputs[0] in known]
        if not ifs:
            break
        taken = {node.name: bool(known[node.inputs[0]].reshape(-1)[0]) for node in ifs}
        graph = with_branches(graph, taken)
    return graph
