"""Which attributes of its source a converted layer has other values of: found by comparing all of them.

A layer is recorded as the operations it stands for. Where one is the source node's own operator, both are
called with the same parameters; else the layer's parameters are compared by their names.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from conformance.graph.evaluation import evaluate_node
from conformance.tnn.evaluation import evaluate_layer
from conformance.tnn.graph import TnnGraph
from conformance.tnn.proto import Layer
from refimpl.errors import MobileInstError
from refimpl.graph import Node
from refimpl.ops.operation import OPERATIONS, intercepted

Array = NDArray[Any]
R = TypeVar("R")
MOST_NUMBERS = 16
"""Operands of more numbers are weights, not settings."""


@dataclass(frozen=True)
class LostAttribute:
    """An attribute, or a small constant operand, that the layer has another value of.

    Attributes
    ----------
    operator, name
        Of the source.
    source, layer
        The value in either; the source's may be ONNX's default.
    written
        Whether the source writes it, and does not leave it at ONNX's default.
    """

    operator: str
    name: str
    source: Any
    layer: Any
    written: bool

    def __str__(self) -> str:
        """Say what became of it."""
        place = "in the source" if self.written else "by default"
        return f"{self.name} of {self.operator} is {self.source} {place}, {self.layer} in the layer"


class _Calls:
    """Keeps the calls of operations."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        self.made.append((name, inputs, attributes))
        return OPERATIONS[name](*inputs, **attributes)

    def block(self, path: str, compute: Callable[[], R]) -> R:
        return compute()


def lost_attributes(
    graph: TnnGraph,
    layer: Layer,
    operands: tuple[Array, ...],
    node: Node,
    written: Collection[str],
    given: Sequence[Array | None],
    keeps: Callable[[Array], bool],
) -> tuple[LostAttribute, ...]:
    """Return the attributes whose other values make the layer mean something else than a node.

    Parameters
    ----------
    graph, layer, operands
        The layer, and the values of its inputs.
    node, written, given
        The source's, the attributes that its file writes, and the values of its operands.
    keeps
        Tells whether a result is the layer's.

    Returns
    -------
    tuple
        Those that explain the difference: the node with the layer's values computes what the layer does.
    """
    calls = _Calls()
    try:
        with intercepted(calls):
            evaluate_layer(graph, layer, operands)
    except MobileInstError:
        return ()
    theirs = _settings(node.op_type, given, node.attributes)
    found = [
        LostAttribute(node.op_type, name, theirs[name], value, name not in node.attributes or name in written)
        for name, value in _layer_settings(layer, node, calls).items()
        if name in theirs and not _same(theirs[name], value, given)
    ]
    alone = tuple(lost for lost in found if _explains([lost], node, given, keeps))
    return alone or (tuple(found) if len(found) > 1 and _explains(found, node, given, keeps) else ())


def _layer_settings(layer: Layer, node: Node, calls: _Calls) -> dict[str, Any]:
    for name, inputs, attributes in calls.made:
        if name == node.op_type:
            return _settings(name, inputs, attributes)
    return {slot.name: getattr(layer.parameters, slot.name) for slot in dataclasses.fields(layer.parameters)}


def _settings(operator: str, operands: Sequence[Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a call but its first, and but arrays that are weights; defaults included."""
    bound = inspect.signature(OPERATIONS[operator]).bind_partial(*operands, **attributes)
    bound.apply_defaults()
    _, *rest = bound.arguments.items()
    return {name: value for name, value in rest if np.size(value) <= MOST_NUMBERS}


def _same(one: Any, other: Any, given: Sequence[Array | None]) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape:
        return False
    rank = 1 if given[0] is None else max(given[0].ndim, 1)
    # Counted from either end, it is the same axis.
    same_axis = a.dtype.kind == b.dtype.kind == "i" and np.array_equal(a % rank, b % rank)
    return bool(np.allclose(a, b, rtol=1e-5, atol=0)) or bool(same_axis and (np.minimum(a, b) < 0).any())


def _explains(
    lost: Sequence[LostAttribute],
    node: Node,
    given: Sequence[Array | None],
    keeps: Callable[[Array], bool],
) -> bool:
    names = list(inspect.signature(OPERATIONS[node.op_type]).parameters)
    operands, attributes = list(given), dict(node.attributes)
    for each in lost:
        place = names.index(each.name)
        if place < len(operands):
            operands[place] = None if each.layer is None else np.asarray(each.layer)
        else:
            attributes[each.name] = each.layer
    try:
        (result, *_) = evaluate_node(dataclasses.replace(node, attributes=attributes), operands, np.float64)
    except MobileInstError:
        return False
    return keeps(result)
