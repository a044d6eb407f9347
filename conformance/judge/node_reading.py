"""What the candidate's own nodes do in a stretch that is wrong, beside the reference's: no run, no catalogue.

Both sides are brought to one way of writing first (batch norms folded or not, Gemm or MatMul with a sum, a
hard swish or its parts); what only moves data is passed over, unless it reverses.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.faults import ShapedGraph
from conformance.judge.replay import DATA_MOVEMENT
from conformance.reports.report import BOTH_LISTED
from refimpl.graph import Node
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

MOST = 6
"""Nodes without a counterpart beyond which the two sides are only listed."""
SILENT = DATA_MOVEMENT | {"Constant", "Shape", "Size", "ConstantOfShape", "Range", "Cast", "Identity"}
"""What only makes or moves numbers, and is not told of a side."""
_UNREAD = ("kernel_shape", "num_outputs", "stash_type", "momentum", "roi", "to", "keepdims", "allowzero")
"""Attributes that the operands' shapes tell, or that change nothing."""
_PER_AXIS = {"pads": 0, "strides": 1, "dilations": 1}
"""Attributes with a number for each axis → what holds where they are absent."""


@dataclass(frozen=True)
class Side:
    """One side's nodes of the stretch, with the tensors that are known of it.

    Attributes
    ----------
    nodes
        In order.
    graph
        The whole of which they are, with shapes and constants.
    origins
        Constant → the weight of which it is another arrangement.
    """

    nodes: Sequence[Node]
    graph: ShapedGraph
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def constants(self) -> Mapping[str, Array]:
        """Name → what does not depend on the picture."""
        return self.graph.constants


@dataclass(frozen=True)
class _Told:
    """A node as it is compared: its operator, and its attributes and scalars with defaults filled in."""

    op_type: str
    name: str
    attributes: dict[str, Any]

    def __str__(self) -> str:
        """Return it as a sentence has it."""
        given = {key: value for key, value in self.attributes.items() if value is not None}
        said = ", ".join(f"{key} {_shown(value)}" for key, value in given.items())
        return f"{self.op_type} ({said}) at {self.name}" if said else f"{self.op_type} at {self.name}"


def read_nodes(reference: Side, candidate: Side) -> list[str]:
    """Say what the candidate's nodes do otherwise than the reference's.

    Returns
    -------
    sentences
        Attributes that differ, nodes that one side has alone; both sides listed where they are written too
        differently; none where they agree.
    """
    ours, theirs = list(_told(reference)), list(_told(candidate))
    if not theirs:
        return []
    ours, theirs = _alike_in_norms(ours, theirs)
    counts = Counter(told.op_type for told in ours), Counter(told.op_type for told in theirs)
    missing, extra = counts[0] - counts[1], counts[1] - counts[0]
    if missing.total() + extra.total() > MOST:
        return [f"the candidate computes {_listed(theirs)}{BOTH_LISTED}{_listed(ours)}"]
    return [*_alone(theirs, extra, missing), *_differences(ours, theirs, missing, extra)]


def _listed(side: Iterable[_Told]) -> str:
    counts = Counter(told.op_type for told in side)
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in counts.items()) or "nothing"


def _alone(theirs: Sequence[_Told], extra: Counter[str], missing: Counter[str]) -> Iterator[str]:
    """Say which operators one side has more of."""
    named = ", ".join(str(told) for told in theirs if told.op_type in extra)
    if extra and missing:
        yield f"the candidate computes {named} where the reference computes {_counted(missing)}"
    elif extra:
        yield f"the candidate has {_counted(extra)} more than the reference there: {named}"
    elif missing:
        yield f"the candidate lacks {_counted(missing)}, which the reference has there"


def _counted(operators: Counter[str]) -> str:
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in operators.items())


def _differences(
    ours: Sequence[_Told], theirs: Sequence[_Told], missing: Counter[str], extra: Counter[str]
) -> Iterator[str]:
    """Compare attributes of operators that both sides have equally often, in order."""
    for op_type in dict.fromkeys(told.op_type for told in ours):
        if op_type in missing or op_type in extra:
            continue
        pairs = zip(
            (told for told in ours if told.op_type == op_type),
            (told for told in theirs if told.op_type == op_type),
            strict=True,
        )
        for our, their in pairs:
            for key in sorted(our.attributes.keys() | their.attributes.keys()):
                mine, other = our.attributes.get(key), their.attributes.get(key)
                if not _same(mine, other):
                    yield (
                        f"{op_type} {their.name}: {key} is {_shown(other)}; "
                        f"the reference has {_shown(mine)} at {our.name}"
                    )


def _told(side: Side) -> Iterator[_Told]:
    """Yield the nodes that compute, in one way of writing."""
    for node in side.nodes:
        if _reverses(node, side.constants):
            yield _Told("reversal (Slice)", node.name, {})
        elif node.op_type not in SILENT and not _is_constant(node, side):
            yield from _canonical(node, side)


def _is_constant(node: Node, side: Side) -> bool:
    return all(name in side.constants for name in node.uses)


def _reverses(node: Node, constants: Mapping[str, Array]) -> bool:
    steps = constants.get(node.inputs[4]) if node.op_type == "Slice" and len(node.inputs) > 4 else None
    return steps is not None and bool((np.asarray(steps) < 0).any())


def _canonical(node: Node, side: Side) -> Iterator[_Told]:
    """Yield a node as one or more that any exporter's amounts to."""
    attributes = _filled(node, side)
    match node.op_type:
        case "HardSwish":
            yield _Told("HardSigmoid", node.name, {"alpha": 1 / 6, "beta": 0.5})
            yield _Told("Mul", node.name, {})
        case "Gemm":
            factors = {key: x for key, x in attributes.items() if key in ("alpha", "beta") and x != 1}
            yield _Told("MatMul", node.name, factors)
        case "Clip":
            low, high = (_scalar(node, place, side.constants) for place in (1, 2))
            yield _Told("Relu" if low == 0 and high is None else "Clip", node.name, {"min": low, "max": high})
        case "Relu":
            yield _Told("Relu", node.name, {"min": 0.0, "max": None})
        case "Add" | "Sub" | "Mul" | "Div":
            yield from _arithmetic(node, side)
        case "ReduceMean" | "GlobalAveragePool":
            yield _Told("mean", node.name, {})
        case _:
            yield _Told(node.op_type, node.name, attributes)


def _arithmetic(node: Node, side: Side) -> Iterator[_Told]:
    """Yield a sum or product; the addend of a bias belongs to the product before it."""
    arrays = [side.constants.get(name) for name in node.inputs[:2]]
    constant = next((array for array in arrays if array is not None), None)
    if constant is None:
        yield _Told(node.op_type, node.name, {})
    elif constant.size == 1:
        value = float(np.asarray(constant).ravel()[0])
        divided = node.op_type == "Div" and arrays[1] is not None and value != 0
        name, number = ("Mul", 1 / value) if divided else (node.op_type, value)
        yield _Told(f"{name} of a number", node.name, {"number": number})
    elif node.op_type == "Mul" or (np.asarray(constant).ndim > 1 and _varies(constant)):
        yield _Told(f"{node.op_type} of a table", node.name, {})


def _varies(constant: Array) -> bool:
    """Tell whether a constant has more than one axis of length above one: it is no bias."""
    return sum(length > 1 for length in constant.shape) > 1


def _scalar(node: Node, place: int, constants: Mapping[str, Array]) -> float | None:
    name = node.inputs[place] if place < len(node.inputs) else ""
    value = constants.get(name) if name else None
    number = None if value is None else float(np.asarray(value).ravel()[0])
    return None if number is None or abs(number) > 1e30 else number


def with_defaults(node: Node) -> dict[str, Any]:
    """Return a node's attributes, and the defaults of those that are not given."""
    given = {name: value for name, value in node.attributes.items() if value is not None}
    return {**_defaults(node.op_type), **given}


@functools.cache
def _defaults(op_type: str) -> Mapping[str, Any]:
    operation = OPERATIONS.get(op_type)  # None: a runtime's own
    parameters = inspect.signature(operation).parameters.values() if operation else ()
    return {x.name: x.default for x in parameters if x.kind is x.KEYWORD_ONLY}


def _filled(node: Node, side: Side) -> dict[str, Any]:
    """Return the attributes with defaults filled in, and axes counted from the front."""
    told = {name: value for name, value in with_defaults(node).items() if name not in _UNREAD}
    rank = _rank(node, side.graph.shapes)
    if isinstance(told.get("axis"), int) and rank:
        told["axis"] %= rank
    if told.get("auto_pad") == "NOTSET":
        del told["auto_pad"]
    if node.op_type == "Conv" and (before := _padded_before(node, side)):
        own = told.get("pads") or [0] * len(before)
        told["pads"] = [sum(pair) for pair in zip(own, before, strict=True)]
    for name, absent in _PER_AXIS.items():
        values = told.get(name)
        if name in told and (values is None or set(values) == {absent}):
            del told[name]
    if node.op_type == "Resize":
        _drop_unread_by_resize(told)
    return told


def _rank(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many axes an attribute counts, those of the operand or the result; 0 if not known."""
    counted = node.outputs[:1] if node.op_type in ("OneHot", "Unsqueeze") else node.inputs[:1]
    return next((len(shapes[name]) for name in (*counted, *node.outputs[:1]) if name in shapes), 0)


def _padded_before(node: Node, side: Side) -> list[int]:
    """Return the zeros that a Pad before a convolution adds to its map, as ``pads``; nothing without one."""
    name = node.inputs[0]
    axes = list(range(len(side.graph.shapes.get(name, ()))))
    while (maker := side.graph.producer(name)) is not None and maker.op_type in ("Transpose", "Identity"):
        if maker.op_type == "Transpose":
            order = maker.attributes.get("perm") or range(len(axes))[::-1]
            axes = [order[axis] for axis in axes]
        name = maker.inputs[0]
    if maker is None or not _pads_zeros(maker, side.constants):
        return []
    begin, end = np.reshape(side.constants[maker.inputs[1]], (2, -1))[:, axes[2:]]
    return [*map(int, begin), *map(int, end)]


def _pads_zeros(node: Node, constants: Mapping[str, Array]) -> bool:
    """Tell whether a node adds zeros at the ends of every axis, so many as are known."""
    if node.op_type != "Pad" or node.attributes.get("mode", "constant") != "constant" or len(node.uses) > 3:
        return False
    value = constants.get(node.uses[2], np.ones(1)) if len(node.uses) > 2 else np.zeros(1)
    return node.inputs[1] in constants and not np.any(value)


def _drop_unread_by_resize(told: dict[str, Any]) -> None:
    """Forget what another mode would read."""
    if told.get("mode", "nearest") != "nearest":
        told.pop("nearest_mode", None)
    if told.get("mode") != "cubic":
        told.pop("cubic_coeff_a", None)
    for name in ("axes", "keep_aspect_ratio_policy", "extrapolation_value"):
        told.pop(name, None)


def _alike_in_norms(ours: list[_Told], theirs: list[_Told]) -> tuple[list[_Told], list[_Told]]:
    """Leave out the batch norms where one side has folded them."""
    norm = "BatchNormalization"
    counts = [sum(told.op_type == norm for told in side) for side in (ours, theirs)]
    if counts[0] == counts[1]:
        return ours, theirs
    return [x for x in ours if x.op_type != norm], [x for x in theirs if x.op_type != norm]


def _same(mine: Any, other: Any) -> bool:
    if isinstance(mine, float) or isinstance(other, float):
        return (
            mine is not None
            and other is not None
            and bool(np.isclose(float(mine), float(other), rtol=1e-5, atol=1e-30))
        )
    if isinstance(mine, (tuple, list)) or isinstance(other, (tuple, list)):
        return list(mine or ()) == list(other or ())
    return bool(mine == other)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "absent" if value is None else str(list(value) if isinstance(value, tuple) else value)
