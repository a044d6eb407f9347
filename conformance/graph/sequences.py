"""Sequences and optionals: lists of tensors' names while a graph is written out, so that no node has any."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from refimpl.errors import ShapeError
from refimpl.graph import Node

if TYPE_CHECKING:
    from conformance.graph.control_flow import Written

Act = Callable[["Written", Node], None]

MAKING = frozenset(
    ("SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence", "Optional")
)
"""Operators whose result is a sequence or an optional."""


def _position(written: Written, node: Node, place: int, length: int) -> int | None:
    """Return an operand as a position among ``length``; None if it is absent."""
    if len(node.inputs) <= place or not node.inputs[place]:
        return None
    position = int(written.values[node.inputs[place]].reshape(-1)[0])
    if not -length <= position < max(length, 1):
        raise ShapeError(f"node {node.name!r} ({node.op_type}): position {position} of {length}")
    return position % max(length, 1)


def _construct(written: Written, node: Node) -> None:
    written.sequences[node.outputs[0]] = list(node.inputs)


def _insert(written: Written, node: Node) -> None:
    """At the end, if no position is given."""
    items = list(written.sequences[node.inputs[0]])
    position = _position(written, node, 2, len(items) + 1)
    items.insert(len(items) if position is None else position, node.inputs[1])
    written.sequences[node.outputs[0]] = items


def _erase(written: Written, node: Node) -> None:
    """The last, if no position is given."""
    items = list(written.sequences[node.inputs[0]])
    position = _position(written, node, 1, len(items))
    del items[-1 if position is None else position]
    written.sequences[node.outputs[0]] = items


def _at(written: Written, node: Node) -> None:
    items = written.sequences[node.inputs[0]]
    position = _position(written, node, 1, len(items))
    assert position is not None
    written.same(items[position], node.outputs[0])


def _length(written: Written, node: Node) -> None:
    count = written.constant(f"{node.name}/count", np.int64(len(written.sequences[node.inputs[0]])))
    written.same(count, node.outputs[0])


def _split(written: Written, node: Node) -> None:
    """In parts of the lengths given, or of one length; without, in single entries."""
    data, output, axis = node.inputs[0], node.outputs[0], node.attributes.get("axis", 0)
    total = written.values[data].shape[axis]
    given = written.values[node.inputs[1]] if len(node.inputs) > 1 and node.inputs[1] else None
    lengths = _lengths(total, given)
    parts = [f"{output}/{place}" for place in range(len(lengths))]
    names = (data, written.constant(f"{output}/lengths", np.array(lengths, np.int64)))
    written.run(Node(node.name, "Split", names, tuple(parts), {"axis": axis}))
    if given is None and not node.attributes.get("keepdims", 1):
        along = written.constant(f"{output}/axis", np.array([axis]))
        whole, parts = parts, [f"{part}/squeezed" for part in parts]
        for part, name in zip(whole, parts, strict=True):
            written.run(Node(name, "Squeeze", (part, along), (name,)))
    written.sequences[output] = parts


def _lengths(total: int, given: Any) -> list[int]:
    if given is None or given.ndim == 0:
        length = 1 if given is None else int(given)
        return [min(length, total - begin) for begin in range(0, total, length)]
    return [int(length) for length in given]


def _concat(written: Written, node: Node) -> None:
    """Along an axis, or a new one."""
    items, output, axis = written.sequences[node.inputs[0]], node.outputs[0], node.attributes["axis"]
    if node.attributes.get("new_axis", 0):
        along = written.constant(f"{output}/axis", np.array([axis]))
        whole, items = items, [f"{output}/{place}" for place in range(len(items))]
        for item, name in zip(whole, items, strict=True):
            written.run(Node(name, "Unsqueeze", (item, along), (name,)))
    written.run(Node(node.name, "Concat", tuple(items), (output,), {"axis": axis}))


def _optional(written: Written, node: Node) -> None:
    """What it holds, or nothing: an empty name."""
    written.sequences[node.outputs[0]] = list(node.inputs[:1])


def _get_element(written: Written, node: Node) -> None:
    items = written.sequences.get(node.inputs[0], [node.inputs[0]])
    if not items:
        raise ShapeError(f"node {node.name!r} (OptionalGetElement): it holds nothing")
    written.same(items[0], node.outputs[0])


def _has_element(written: Written, node: Node) -> None:
    held = bool(node.inputs and node.inputs[0]) and bool(written.sequences.get(node.inputs[0], ["held"]))
    written.same(written.constant(f"{node.name}/held", np.bool_(held)), node.outputs[0])


ACTS: dict[str, Act] = {
    "SequenceEmpty": _construct,
    "SequenceConstruct": _construct,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceAt": _at,
    "SequenceLength": _length,
    "SplitToSequence": _split,
    "ConcatFromSequence": _concat,
    "Optional": _optional,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
}
"""Operator → what it does while a graph is written out."""
