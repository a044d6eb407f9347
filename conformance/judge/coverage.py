"""How much of the work was judged: of the multiply–accumulates, those of steps that were, alone or fused."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.reports.report import Comparison
from refimpl import Recording
from refimpl.costs import multiply_accumulates
from refimpl.graph import Graph, Node


def covered(recording: Recording, rows: Sequence[Comparison], reach: int) -> float | None:
    """Return the share of the multiply–accumulates that was judged.

    Parameters
    ----------
    recording
        What should be computed.
    rows
        What was compared, by the recording's names.
    reach
        How many steps a runtime may fuse: a step that is absent was judged with one so few steps behind it.

    Returns
    -------
    float or None
        None where there are no multiply–accumulates, or nothing was compared.
    """
    judged = {row.name for row in rows if row.verdict in ("pass", "fail")}
    shapes = {name: array.shape for name, array in recording.tensors.items()}
    work = {
        step.name: (step, multiply_accumulates(step, step.operands(shapes), shapes[step.outputs[0]]))
        for step in recording.steps
    }
    total = sum(macs for _, macs in work.values())
    if not rows or not total:
        return None
    graph = recording.graph
    return sum(macs for step, macs in work.values() if macs and _is_seen(graph, step, judged, reach)) / total


def _is_seen(graph: Graph, node: Node, judged: set[str], reach: int) -> bool:
    """Tell whether a node's result, or one that is soon made of it, was judged."""
    front = set(node.outputs)
    for _ in range(reach + 1):
        if not front.isdisjoint(judged):
            return True
        front = {name for made in front for user in graph.consumers.get(made, []) for name in user.outputs}
    return False
