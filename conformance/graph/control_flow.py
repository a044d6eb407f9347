"""If, Loop and Scan: what they do on given operands, written out as plain nodes.

Which branch is taken and how often a body runs is seen when it runs; from then on there is no control flow,
only a longer list of nodes. So whatever runs, bounds or perturbs nodes does the same with these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from conformance.graph.evaluation import evaluate_node, widened
from conformance.graph.sequences import ACTS, MAKING
from refimpl.errors import ShapeError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import Array

MOST_NODES = 100_000
"""Of a graph written out."""


@dataclass(frozen=True)
class Body:
    """A subgraph.

    Attributes
    ----------
    nodes
        In order.
    initializers
        Name → value.
    inputs, outputs
        Names of its own tensors; what else its nodes use is outside.
    """

    nodes: Sequence[Node]
    initializers: Mapping[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


Names = Mapping[str, str]
"""Tensor within a body → its name when written out."""


def is_written_out(node: Node) -> bool:
    """Tell whether a node is no operation of its own: it has bodies, or deals with sequences."""
    return node.op_type in _CONTROL or node.op_type in ACTS


def makes_sequences(node: Node) -> bool:
    """Tell whether results of a node are, or may be, sequences or optionals."""
    bodies = [body for body in node.attributes.values() if isinstance(body, Body)]
    return node.op_type in MAKING or any(makes_sequences(each) for body in bodies for each in body.nodes)


def check_bodies(node: Node) -> None:
    """Raise `UnsupportedOperationError` unless a node's bodies take and make as many tensors as it does."""
    own, made = len(_outer(node)[0]), len(node.outputs)
    for name, body in node.attributes.items():
        if not isinstance(body, Body):
            continue
        taken, given = len(body.inputs), len(body.outputs)
        fits = {
            "If": taken == 0 and made <= given,
            "Loop": taken == own and own >= 2 and own - 2 <= given - 1 and made <= given - 1,
            "Scan": taken == own and made <= given,
        }
        if not fits[node.op_type]:
            raise UnsupportedOperationError(
                f"its {name} takes {taken} tensors and makes {given}, the node takes {own} and makes {made}"
            )


@dataclass
class Written:
    """Nodes written out, and all tensors so far.

    Attributes
    ----------
    values
        Name → array of whatever is known or was made.
    dtype
        As of `conformance.graph.evaluation.evaluate_node`.
    nodes
        What was run, in order; no control flow among them.
    constants
        Names of tensors that no node makes.
    sequences
        Name of a sequence or optional → names of the tensors it holds.
    check
        Called before a node runs, with its operands.
    """

    values: dict[str, Array]
    dtype: DTypeLike | None = None
    nodes: list[Node] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    sequences: dict[str, list[str]] = field(default_factory=dict)
    check: Callable[[Node, Sequence[Array | None]], None] = lambda node, operands: None

    def run(self, node: Node) -> None:
        """Run a node whose operands are known, and write down what it comes to.

        Raises
        ------
        MobileInstError
            The operands do not fit the operation, or the bodies run too often.
        """
        if len(self.nodes) >= MOST_NODES:
            raise UnsupportedOperationError(f"written out, the graph has more than {MOST_NODES} nodes")
        if node.op_type == "Identity" and node.inputs[0] in self.sequences:
            self.sequences[node.outputs[0]] = self.sequences[node.inputs[0]]
            return
        if is_written_out(node):
            (_CONTROL.get(node.op_type) or ACTS[node.op_type])(self, node)
            return
        operands = node.operands(self.values)
        self.check(node, operands)
        made = evaluate_node(node, operands, self.dtype)
        self.values.update((name, x) for name, x in zip(node.outputs, made, strict=False) if name)
        self.nodes.append(node)

    def constant(self, name: str, value: Any) -> str:
        """Add a tensor that no node makes."""
        self.values[name] = widened(np.asarray(value), self.dtype)
        self.constants.append(name)
        return name

    def same(self, made: str, name: str) -> None:
        """Give a tensor another name; "" is none."""
        if name:
            self.run(Node(f"{name}/Identity", "Identity", (made,), (name,)))

    def body(self, body: Body, prefix: str, names: Names) -> list[str]:
        """Run a body whose inputs and outer tensors have names; return the names of its outputs."""
        inner = dict(names)
        for name, value in body.initializers.items():
            inner[name] = self.constant(f"{prefix}/{name}", value)
        for node in body.nodes:
            inner.update((name, f"{prefix}/{name}") for name in node.outputs if name)
            renamed = [tuple(inner[n] if n else "" for n in each) for each in (node.inputs, node.outputs)]
            self.run(replace(node, name=f"{prefix}/{node.name}", inputs=renamed[0], outputs=renamed[1]))
        return [inner[name] for name in body.outputs]


def _outer(node: Node) -> tuple[tuple[str, ...], Names]:
    """Return a node's own inputs, and what its bodies call the tensors from outside → their names."""
    called = node.attributes["outer"]
    own = len(node.inputs) - len(called)
    return node.inputs[:own], dict(zip(called, node.inputs[own:], strict=True))


def _if(written: Written, node: Node) -> None:
    (condition,), outer = _outer(node)
    branch = "then_branch" if np.asarray(written.values[condition]).reshape(-1)[0] else "else_branch"
    made = written.body(node.attributes[branch], f"{node.name}/{branch}", outer)
    for name, output in zip(made, node.outputs, strict=False):
        written.same(name, output)


def _loop(written: Written, node: Node) -> None:
    (trips, condition, *states), outer = _outer(node)
    body: Body = node.attributes["body"]
    most = int(written.values[trips].reshape(-1)[0]) if trips else MOST_NODES
    going = bool(written.values[condition].reshape(-1)[0]) if condition else True
    columns: list[list[str]] = [[] for _ in body.outputs[1 + len(states) :]]
    count = 0
    while going and count < most:
        prefix = f"{node.name}/{count}"
        given = [written.constant(f"{prefix}/iteration", np.int64(count))]
        given.append(written.constant(f"{prefix}/condition", np.bool_(True)))
        inner = {**outer, **dict(zip(body.inputs, (*given, *states), strict=True))}
        again, *made = written.body(body, prefix, inner)
        going, states = bool(written.values[again].reshape(-1)[0]), made[: len(states)]
        for column, name in zip(columns, made[len(states) :], strict=True):
            column.append(name)
        count += 1
    _finish(written, node, states, columns, [0] * len(columns), [0] * len(columns))


def _scan(written: Written, node: Node) -> None:
    inputs, outer = _outer(node)
    body: Body = node.attributes["body"]
    scanned = node.attributes["num_scan_inputs"]
    states, data = list(inputs[: len(inputs) - scanned]), inputs[len(inputs) - scanned :]
    axes = node.attributes.get("scan_input_axes") or (0,) * scanned
    backward = node.attributes.get("scan_input_directions") or (0,) * scanned
    lengths = {written.values[name].shape[axis] for name, axis in zip(data, axes, strict=True)}
    if len(lengths) != 1:
        raise ShapeError(f"node {node.name!r} (Scan): its inputs are of lengths {sorted(lengths)}")
    (length,) = lengths
    columns: list[list[str]] = [[] for _ in body.outputs[len(states) :]]
    for count in range(length):
        prefix = f"{node.name}/{count}"
        slices = []
        for place, (name, axis, back) in enumerate(zip(data, axes, backward, strict=True)):
            index = written.constant(
                f"{prefix}/index_{place}", np.int64(length - 1 - count if back else count)
            )
            slices.append(f"{prefix}/slice_{place}")
            written.run(Node(slices[-1], "Gather", (name, index), (slices[-1],), {"axis": axis}))
        inner = {**outer, **dict(zip(body.inputs, (*states, *slices), strict=True))}
        made = written.body(body, prefix, inner)
        states = made[: len(states)]
        for column, name in zip(columns, made[len(states) :], strict=True):
            column.append(name)
    axes = node.attributes.get("scan_output_axes") or (0,) * len(columns)
    backward = node.attributes.get("scan_output_directions") or (0,) * len(columns)
    _finish(written, node, states, columns, axes, backward)


def _finish(
    written: Written,
    node: Node,
    states: Sequence[str],
    columns: Sequence[Sequence[str]],
    axes: Sequence[int],
    backward: Sequence[int],
) -> None:
    """Name the last states, and what every run made as one tensor along a new axis."""
    for name, output in zip(states, node.outputs, strict=False):
        written.same(name, output)
    wanted = node.outputs[len(states) :]
    for output, column, axis, back in zip(wanted, columns, axes, backward, strict=False):
        if output:
            _stack(written, output, list(reversed(column)) if back else list(column), axis)


def _stack(written: Written, output: str, column: Sequence[str], axis: int) -> None:
    if not column:
        raise UnsupportedOperationError(f"{output!r} is of a body that never ran: its shape is not known")
    along = written.constant(f"{output}/axis", np.array([axis]))
    rows = [f"{output}/{place}" for place in range(len(column))]
    for row, name in zip(rows, column, strict=True):
        written.run(Node(row, "Unsqueeze", (name, along), (row,)))
    written.run(Node(f"{output}/Concat", "Concat", tuple(rows), (output,), {"axis": axis}))


_CONTROL: dict[str, Callable[[Written, Node], None]] = {"If": _if, "Loop": _loop, "Scan": _scan}
