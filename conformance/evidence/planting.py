"""Small mistakes drawn by a seed and planted in an ONNX model: a weight, a constant, an attribute, a scale.

They know nothing of the catalogue: a slice of a weight is 5 % too large, a node's attribute is another. In
quantised models a scale is 5 % too large or a zero point some steps off, for all nodes that share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conformance.graph.quantized import DEQUANTIZE, QUANTIZE
from refimpl.ops.operation import Array

FACTOR = 1.05
SHIFT = 4
"""Steps that a zero point is off."""
SLICES = 4
"""A slice is so small a part of a weight."""
WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
"""Operator → the axis of its weight that is cut in slices."""
QUANTIZING = (QUANTIZE, DEQUANTIZE)


@dataclass(frozen=True)
class Planted:
    """A model with one mistake.

    Attributes
    ----------
    kind
        One of `KINDS`.
    detail
        What is otherwise, for people.
    nodes
        The nodes that have it, by name.
    model
    """

    kind: str
    detail: str
    nodes: tuple[str, ...]
    model: onnx.ModelProto


def plant(model: onnx.ModelProto, kind: str, rng: np.random.Generator) -> Planted | None:
    """Return a copy of a model with one mistake of a kind, where chosen at random.

    Parameters
    ----------
    model
        Its nodes named, its constants initializers.
    kind
        One of `KINDS`.
    rng

    Returns
    -------
    Planted or None
        None where the place that was drawn cannot have it: all zeros, or integers that round to themselves.
    """
    other = onnx.ModelProto()
    other.CopyFrom(model)
    found = KINDS[kind](_Model(other), rng)
    return None if found is None else Planted(kind, *found, other)


Found = tuple[str, tuple[str, ...]] | None
"""What is otherwise, and the nodes that have it."""


class _Model:
    """A model that is being altered."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}

    def array(self, name: str) -> Array:
        """Return an initializer."""
        return np.array(numpy_helper.to_array(self.tensors[name]))

    def store(self, name: str, array: Array) -> bool:
        """Put another array in an initializer's place; tell whether it is another."""
        before = self.array(name)
        array = np.ascontiguousarray(array.astype(before.dtype)).reshape(before.shape)
        self.tensors[name].CopyFrom(numpy_helper.from_array(array, name))
        return not np.array_equal(array, before)

    def users(self, name: str) -> tuple[str, ...]:
        """Return the nodes that take a tensor, by name."""
        return tuple(node.name for node in self.nodes if name in node.input)

    def stored_as(self, name: str) -> tuple[str, Any] | None:
        """Return the initializer behind an operand, and what dequantises it; None: it is computed."""
        if name in self.tensors:
            return name, None
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == DEQUANTIZE and maker.input[0] in self.tensors:
            return maker.input[0], maker
        return None

    def scaled(self, name: str, dequantize: Any, places: Any) -> bool:
        """Make what an initializer stands for 5 % larger at some places; tell whether that changes it."""
        array = self.array(name)
        if dequantize is None:
            array[places] = array[places] * FACTOR
            return self.store(name, array)
        point = (
            self.array(dequantize.input[2]).astype(np.int64) if len(dequantize.input) > 2 else np.zeros(())
        )
        point = point if point.size == 1 else point.reshape(-1, *(1,) * (array.ndim - 1))
        real = np.asarray(array.astype(np.float64) - point)
        real[places] *= FACTOR
        ends = np.iinfo(array.dtype)
        return self.store(name, np.clip(np.rint(real + point), ends.min, ends.max))


def _drawn(items: Iterable[Any], rng: np.random.Generator) -> Any:
    listed = list(items)
    return listed[int(rng.integers(len(listed)))] if listed else None


def _weight(model: _Model, rng: np.random.Generator) -> Found:
    """A slice of a weight is 5 % too large."""
    weighted = (node for node in model.nodes if node.op_type in WEIGHTED and model.stored_as(node.input[1]))
    node = _drawn(weighted, rng)
    name, dequantize = model.stored_as(node.input[1]) or ("", None)
    array = model.array(name)
    length = array.shape[WEIGHTED[node.op_type]]
    size = max(length // SLICES, 1)
    start = int(rng.integers(0, length - size + 1))
    places: list[Any] = [slice(None)] * array.ndim
    places[WEIGHTED[node.op_type]] = slice(start, start + size)
    changed = model.scaled(name, dequantize, tuple(places))
    return (f"{name} × {FACTOR} in {size} of {length}", model.users(node.input[1])) if changed else None


def _constant(model: _Model, rng: np.random.Generator) -> Found:
    """A bias, a factor, a limit or a table is 5 % too large."""
    operands = (
        operand
        for node in model.nodes
        if node.op_type not in QUANTIZING
        for place, operand in enumerate(node.input)
        if not (node.op_type in WEIGHTED and place == 1)
        and (stored := model.stored_as(operand)) is not None
        and (stored[1] is not None or model.array(stored[0]).dtype.kind == "f")
    )
    operand = _drawn(dict.fromkeys(operands), rng)
    name, dequantize = model.stored_as(operand) or ("", None)
    changed = model.scaled(name, dequantize, ...)
    return (f"{name} × {FACTOR}", model.users(operand)) if changed else None


def _quantising(model: _Model, place: int) -> dict[str, None]:
    """Return the initializers that are the scales, or the zero points, of nodes, each once."""
    nodes = (node for node in model.nodes if node.op_type in QUANTIZING and len(node.input) > place)
    return dict.fromkeys(node.input[place] for node in nodes if node.input[place] in model.tensors)


def _scale(model: _Model, rng: np.random.Generator) -> Found:
    """A scale is 5 % too large."""
    name = _drawn(_quantising(model, 1), rng)
    if name is None or not model.store(name, model.array(name) * FACTOR):
        return None
    return f"{name} × {FACTOR}", model.users(name)


def _zero_point(model: _Model, rng: np.random.Generator) -> Found:
    """A zero point is some steps off, towards the middle of its range."""
    narrow = (name for name in _quantising(model, 2) if model.array(name).dtype.itemsize < 4)
    name = _drawn(narrow, rng)
    if name is None:
        return None
    point = model.array(name)
    ends = np.iinfo(point.dtype)
    shift = SHIFT * 256 ** (point.dtype.itemsize - 1)
    middle = (int(ends.min) + int(ends.max)) // 2
    moved = point.astype(np.int64) + np.where(point.astype(np.int64) > middle, -shift, shift)
    return (f"{name} off by {shift}", model.users(name)) if model.store(name, moved) else None


def _other_pads(node: Any) -> list[int] | None:
    before = list(helper.get_node_attr_value(node, "pads"))
    half = len(before) // 2
    begin, end = before[:half], before[half:]
    return [*[0] * half, *(a + b for a, b in zip(begin, end, strict=True))] if any(begin) else None


def _way(*ways: str) -> Callable[[Any, bytes], str]:
    """Return what gives the next of some ways."""
    return lambda node, now: (
        ways[(ways.index(now.decode()) + 1) % len(ways)] if now.decode() in ways else ways[0]
    )


ATTRIBUTES: dict[tuple[str, str], Callable[[Any, Any], Any]] = {
    ("Conv", "pads"): lambda node, now: _other_pads(node),
    ("AveragePool", "pads"): lambda node, now: _other_pads(node),
    ("MaxPool", "pads"): lambda node, now: _other_pads(node),
    ("AveragePool", "count_include_pad"): lambda node, now: 1 - now,
    ("Resize", "mode"): _way("nearest", "linear"),
    ("Resize", "coordinate_transformation_mode"): _way("half_pixel", "asymmetric", "align_corners"),
    ("Softmax", "axis"): lambda node, now: now - 1,
    ("HardSigmoid", "alpha"): lambda node, now: now * 1.2,
    ("HardSigmoid", "beta"): lambda node, now: now * 0.8,
    ("LayerNormalization", "epsilon"): lambda node, now: 1e-2,
    ("BatchNormalization", "epsilon"): lambda node, now: 1e-1,
    ("Transpose", "perm"): lambda node, now: [*now[:-2], now[-1], now[-2]],
    ("Gelu", "approximate"): _way("none", "tanh"),
}
"""Operator, attribute → the node and its value → a wrong one; None: there is none here."""


def _attribute(model: _Model, rng: np.random.Generator) -> Found:
    """A node's attribute is another; operators take turns, so that rare ones come too."""
    held = [
        (node, each)
        for node in model.nodes
        for each in node.attribute
        if (node.op_type, each.name) in ATTRIBUTES
    ]
    kind = _drawn(sorted({(node.op_type, each.name) for node, each in held}), rng)
    chosen = _drawn([(node, each) for node, each in held if (node.op_type, each.name) == kind], rng)
    if chosen is None:
        return None
    node, old = chosen
    before = helper.get_attribute_value(old)
    other = ATTRIBUTES[kind](node, before)
    if other is None or other == before:
        return None
    node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(kind[1], other))
    return f"{node.op_type}'s {kind[1]}: {_written(other)} for {_written(before)}", (node.name,)


def _written(value: Any) -> str:
    return (
        value.decode()
        if isinstance(value, bytes)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


KINDS: dict[str, Callable[[_Model, np.random.Generator], Found]] = {
    "weight": _weight,
    "constant": _constant,
    "attribute": _attribute,
    "scale": _scale,
    "zero point": _zero_point,
}
"""Kind of mistake → what makes it."""
FLOAT_KINDS: Sequence[str] = ("weight", "constant", "attribute")
"""Those that a float model can have."""
