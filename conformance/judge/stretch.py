"""The first wrong step's place in the candidate's own graph, found by wiring: by what it is fed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.diagnosis import agreeing, steps_behind
from conformance.judge.replay import DATA_MOVEMENT
from conformance.reports.report import Comparison
from refimpl import Recording
from refimpl.graph import Node
from refimpl.ops.operation import Array

FURTHEST = 3
"""How many steps behind the wrong one are looked for, where it itself is left out."""


@dataclass(frozen=True)
class Stretch:
    """The nodes of both sides between the last tensors that agree and a wrong one.

    Attributes
    ----------
    step
        The reference's name of the wrong tensor.
    tensor
        The candidate's.
    calls
        The reference's, in order.
    nodes
        The candidate's.
    """

    step: str
    tensor: str
    calls: Sequence[Node]
    nodes: Sequence[Node]


def wrong_stretch(
    recording: Recording, steps: Sequence[Comparison], captured: Mapping[str, Array], own: OnnxGraph
) -> Stretch | None:
    """Return the stretch that makes the first wrong step, or the next where that is left out.

    A tensor is taken for a step's if it has its size and is computed from exactly the candidate's tensors
    that are the step's operands; of several, that of its name, else the first that the step's operation
    makes, else the first.
    """
    first = next((row for row in steps if row.verdict == "fail"), None)
    if first is None:
        return None
    held = {own_name: name for name, own_name in agreeing(steps).items()}
    fed = _fed(own, held)
    for name in _onwards(recording, first.name):
        calls, operands = steps_behind(recording, steps, captured, name)
        wanted = {own_name for own_name, step in held.items() if step in operands}
        wanted |= set(own.inputs.values()) if set(operands).intersection(recording.inputs.values()) else set()
        size = recording.tensors[name].size
        alike = [
            (node, made)
            for node in own.nodes
            for made in node.outputs
            if wanted and fed[made] == wanted and made not in held
            if made in captured and captured[made].size == size
        ]
        after = {user.op_type for user in recording.graph.consumers.get(name, [])}
        after -= {call.op_type for call in calls}
        kept = any(made == name for _, made in alike)
        tensor = name if kept else _made_by(calls[-1].op_type, after, alike)
        if tensor is not None:
            nodes = own.between({*held, *own.inputs.values()}, [tensor])
            return Stretch(name, tensor, calls, nodes)
    return None


def _onwards(recording: Recording, name: str) -> Iterator[str]:
    """Yield a tensor and the computed ones behind it, one after another."""
    for _ in range(FURTHEST):
        yield name
        users = recording.graph.consumers.get(name, [])
        while len(users) == 1 and users[0].op_type in DATA_MOVEMENT:
            users = recording.graph.consumers.get(users[0].outputs[0], [])
        if len(users) != 1:
            return
        name = users[0].outputs[0]


def _fed(graph: OnnxGraph, held: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Return each tensor with those of the held ones and the inputs that it is computed from directly."""
    known = {*held, *graph.inputs.values()}
    fed: dict[str, frozenset[str]] = {}
    for node in graph.nodes:
        sources = [frozenset({name}) if name in known else fed.get(name, frozenset()) for name in node.uses]
        fed.update(dict.fromkeys(node.outputs, frozenset().union(*sources)))
    return fed


def _made_by(op_type: str, after: Collection[str], alike: Sequence[tuple[Node, str]]) -> str | None:
    """Return the tensor that an operation makes, else the first that another does.

    Where that is the operation of the step behind, this step is left out, and nothing stands in its place.
    """
    computing = [(node, name) for node, name in alike if node.op_type not in DATA_MOVEMENT]
    for node, name in computing:
        if node.op_type == op_type:
            return name
        if node.op_type in after:
            return None
    return computing[0][1] if computing else None
