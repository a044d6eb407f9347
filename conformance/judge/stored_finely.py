"""What a candidate of several formats stores finely: so that one cast to float16 loosens no other bound."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from conformance.candidates.candidate import OwnGraph
from conformance.graph.narrow import narrow_tensors
from conformance.graph.onnx_graph import OnnxGraph
from conformance.reports.report import Comparison
from refimpl import Recording


def stored_finely(recording: Recording, rows: Sequence[Comparison], own: OwnGraph | None) -> set[str]:
    """Return the first results of the steps of which nothing narrow is stored since what they are given.

    Parameters
    ----------
    recording
        The reference's run.
    rows
        Its steps, and the candidate's tensors that they were found as.
    own
        What the candidate says it computes; nothing is known of it without a graph.
    """
    if own is None or own.graph is None:
        return set()
    held = {row.name: row.candidate for row in rows if row.candidate}
    narrow, graph = narrow_tensors(own.graph), recording.graph
    given = {name for name in held if _is_fine(recording, name, held, own.graph, narrow)}
    fine = set[str]()
    for step in reversed(recording.steps):
        users = {name: graph.consumers.get(name, []) for name in step.outputs if name}
        if all(
            name in given if name in held else after and all(user.outputs[0] in fine for user in after)
            for name, after in users.items()
        ):
            fine.add(step.outputs[0])
    return fine


def _is_fine(
    recording: Recording, name: str, held: Mapping[str, str], graph: OnnxGraph, narrow: Collection[str]
) -> bool:
    """Tell whether a tensor was made of those that its step was given without storing one that is narrow."""
    steps = recording.graph.between(held.keys() - {name}, [name])
    known = {held[each] for step in steps for each in step.uses if each in held} | {*graph.inputs}
    nodes = graph.between(known, [held[name]])
    stored = {each for node in nodes for each in (*node.outputs, *node.uses) if each not in known}
    return stored.isdisjoint(narrow)
