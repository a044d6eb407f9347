"""Older operator sets: every older form of a node becomes the latest one, which the vocabulary computes.

Operator sets 7 and later: since then operands broadcast as they do now. The only place that knows how ONNX
operators have changed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from conformance.graph.function_bodies import Types, inferred_types
from conformance.graph.onnx_file import attribute_value
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import Array

OLDEST, LATEST = 7, int(onnx.defs.onnx_opset_version())

_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod SumSquare"
MOVED: dict[str, tuple[int, tuple[str, ...]]] = {
    **{f"Reduce{name}": (18, ("axes",)) for name in _REDUCTIONS.split()},
    "ReduceSum": (13, ("axes",)),
    "Squeeze": (13, ("axes",)),
    "Unsqueeze": (13, ("axes",)),
    "Split": (13, ("split",)),
    "Clip": (11, ("min", "max")),
    "Pad": (11, ("pads", "value")),
    "Slice": (10, ("starts", "ends", "axes")),
    "TopK": (10, ("k",)),
    "Upsample": (9, ("scales",)),
}
"""Operator → the operator set since which these attributes are operands, in this order after the first."""

Form = Callable[[Node, "Context"], list[Node]]
FORMS: dict[str, Form] = {}
"""Operator → what turns its older forms, other than `MOVED`, into the latest."""


@dataclasses.dataclass
class Context:
    """What a rewrite may need to know, and where it leaves new constants.

    Attributes
    ----------
    opset
        The model's operator set.
    ranks
        Tensor name → number of axes, where known.
    constants
        Name → array: the operands that rewrites make.
    known
        Name → array: the initializers, and what Constant nodes hold.
    model
        The whole, for what has to be inferred.
    """

    opset: int
    ranks: dict[str, int]
    constants: dict[str, Array] = dataclasses.field(default_factory=dict)
    known: dict[str, Array] = dataclasses.field(default_factory=dict)
    model: onnx.ModelProto | None = None

    @functools.cached_property
    def types(self) -> Types:
        """Tensor name → type, where ONNX's inference finds it."""
        return {} if self.model is None else inferred_types(self.model)

    def constant(self, node: Node, role: str, value: Any) -> str:
        """Add a constant operand of ``node`` and return its name."""
        name = f"{node.name}/{role}"
        array = np.asarray(value)
        self.constants[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name


def modernised(node: Node, context: Context) -> list[Node]:
    """Return the latest form of a node, mostly one node, with the defaults of its operator set filled in.

    Raises
    ------
    UnsupportedOperationError
        The operator is not in this operator set, or in a form that only training uses.
    """
    node = _with_defaults(node, context.opset)
    since, attributes = MOVED.get(node.op_type, (0, ()))
    if context.opset < since:
        node = _moved(node, attributes, context)
    return FORMS[node.op_type](node, context) if node.op_type in FORMS else [node]


def _with_defaults(node: Node, opset: int) -> Node:
    """Fill in ONNX's defaults, which are float32 where they are floats, and differ between operator sets."""
    try:
        defaults = _defaults(node.op_type, opset)
    except onnx.defs.SchemaError as error:
        raise UnsupportedOperationError(f"{node.op_type} is no operator of opset {opset}") from error
    return dataclasses.replace(node, attributes={**defaults, **node.attributes})


@functools.cache
def _defaults(op_type: str, opset: int) -> Mapping[str, Any]:
    return {
        name: attribute_value(attribute.default_value)
        for name, attribute in onnx.defs.get_schema(op_type, opset).attributes.items()
        if attribute.default_value.type != onnx.AttributeProto.UNDEFINED
    }


def _moved(node: Node, moving: tuple[str, ...], context: Context) -> Node:
    operands = [
        context.constant(node, name, node.attributes[name]) if _bounds(node.attributes.get(name)) else ""
        for name in moving
    ]
    while operands and not operands[-1]:
        operands.pop()
    attributes = {name: value for name, value in node.attributes.items() if name not in moving}
    return dataclasses.replace(node, inputs=(*node.inputs, *operands), attributes=attributes)


def _bounds(value: Any) -> bool:
    """Tell whether an attribute is there and bounds: Clip's default bounds are the ends of float32."""
    return value is not None and not (
        isinstance(value, float) and abs(value) >= float(np.finfo(np.float32).max)
    )


def form(*names: str) -> Callable[[Form], Form]:
    """Register what rewrites the older forms of these operators."""

    def register(rewrite: Form) -> Form:
        FORMS.update(dict.fromkeys(names, rewrite))
        return rewrite

    return register


# --- rewrites -------------------------------------------------------------------------------------


@form("Constant")
def _constant(node: Node, context: Context) -> list[Node]:
    """Gather ``value_int``, ``value_floats``, … in ``value``."""
    (name, value), *others = node.attributes.items() or [("nothing", 0)]
    if others or name not in {"value", "value_int", "value_ints", "value_float", "value_floats"}:
        raise UnsupportedOperationError(
            f"Constant holds {', '.join(node.attributes) or name}; expected a numeric value"
        )
    dtype = None if name == "value" else np.int64 if "int" in name else np.float32
    array = np.asarray(value, dtype)
    context.known[node.outputs[0]] = array
    return [dataclasses.replace(node, attributes={"value": array})]


@form("ConstantOfShape")
def _constant_of_shape(node: Node, context: Context) -> list[Node]:
    """State the default value, so that a replay in a wider dtype can widen it."""
    return [dataclasses.replace(node, attributes={"value": np.zeros(1, np.float32), **node.attributes})]


@form("Dropout")
def _dropout(node: Node, context: Context) -> list[Node]:
    """Dropout does nothing at inference: its mask keeps all."""
    training_mode = context.known.get(node.inputs[2], True) if len(node.inputs) > 2 else False
    if np.any(training_mode):
        return [node]  # outside the vocabulary: it is random
    nodes = [Node(node.name, "Identity", node.inputs[:1], node.outputs[:1])] if node.outputs[0] else []
    if len(node.outputs) > 1:
        shape = f"{node.outputs[1]}/shape"
        nodes.append(Node(f"{node.name}/shape", "Shape", node.inputs[:1], (shape,)))
        kept: dict[str, Any] = {"value": np.ones(1, np.bool_ if context.opset >= 10 else np.float32)}
        nodes.append(Node(f"{node.name}/mask", "ConstantOfShape", (shape,), node.outputs[1:], kept))
    return nodes


@form("Scatter")
def _scatter(node: Node, context: Context) -> list[Node]:
    return [dataclasses.replace(node, op_type="ScatterElements")]


@form("Split")
def _split(node: Node, context: Context) -> list[Node]:
    """Without lengths, Split makes as many equal parts as the node has outputs."""
    if len(node.inputs) > 1 or "num_outputs" in node.attributes:
        return [node]
    return [dataclasses.replace(node, attributes={**node.attributes, "num_outputs": len(node.outputs)})]


@form("Upsample", "Resize")
def _resize(node: Node, context: Context) -> list[Node]:
    """Before Resize-11, and in Upsample, positions were divided by the scale, the nearest rounded down."""
    if node.op_type == "Resize" and context.opset >= 11:
        return [node]
    data, scales = node.inputs
    attributes = {
        "mode": node.attributes["mode"],
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return [Node(node.name, "Resize", (data, "", scales), node.outputs, attributes)]


@form("GridSample")
def _grid_sample(node: Node, context: Context) -> list[Node]:
    """Before opset 20 the modes were named after two axes."""
    renamed = {"bilinear": "linear", "bicubic": "cubic"}
    mode = renamed.get(node.attributes["mode"], node.attributes["mode"])
    return [dataclasses.replace(node, attributes={**node.attributes, "mode": mode})]


@form("DFT")
def _dft(node: Node, context: Context) -> list[Node]:
    """Before opset 20 the axis was an attribute, and half a spectrum of data alone."""
    if context.opset >= 20:
        return [node]
    attributes = dict(node.attributes)
    axis = context.constant(node, "axis", attributes.pop("axis"))
    inputs = (node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else "", axis)
    return [dataclasses.replace(node, inputs=inputs, attributes=attributes)]


@form("RoiAlign")
def _roi_align(node: Node, context: Context) -> list[Node]:
    """Before opset 16 nothing was shifted by half an element."""
    name = "coordinate_transformation_mode"
    return [dataclasses.replace(node, attributes={name: "output_half_pixel", **node.attributes})]


@form("BatchNormalization")
def _batch_normalization(node: Node, context: Context) -> list[Node]:
    """Before opset 9 the statistics could be of every element, where ``spatial`` was 0."""
    attributes = dict(node.attributes)
    if context.opset < 9 and not attributes.pop("spatial"):
        raise UnsupportedOperationError("spatial=0: statistics of every element, not of every channel")
    return [dataclasses.replace(node, attributes=attributes)]


SOFTMAXES = ("Softmax", "LogSoftmax", "Hardmax")
"""What is normalised, or chosen from, along an axis; in older forms along all axes from it on."""


@form(*SOFTMAXES)
def _softmax(node: Node, context: Context) -> list[Node]:
    """Before opset 13 these ran over ``axis`` and all after it together, the tensor read as a matrix."""
    axis, rank = node.attributes["axis"], context.ranks.get(node.inputs[0])
    if context.opset >= 13 or axis == -1:
        return [node]
    if rank is not None and axis == rank - 1:
        return [dataclasses.replace(node, attributes={"axis": -1})]
    shape, matrix, normalised = (f"{node.outputs[0]}/{role}" for role in ("shape", "matrix", "normalised"))
    return [
        Node(f"{node.name}/shape", "Shape", node.inputs, (shape,)),
        Node(f"{node.name}/matrix", "Flatten", node.inputs, (matrix,), {"axis": axis}),
        dataclasses.replace(node, inputs=(matrix,), outputs=(normalised,), attributes={"axis": -1}),
        Node(f"{node.name}/reshape", "Reshape", (normalised, shape), node.outputs),
    ]


@form("GroupNormalization")
def _group_normalization(node: Node, context: Context) -> list[Node]:
    """Before opset 21 scale and bias were per group: instance normalisation of the groups."""
    if context.opset >= 21:
        return [node]
    data, scale, bias = node.inputs
    shape, groups, normalised = (f"{node.outputs[0]}/{role}" for role in ("shape", "groups", "normalised"))
    grouping = context.constant(node, "grouping", (0, node.attributes["num_groups"], -1))
    return [
        Node(f"{node.name}/shape", "Shape", (data,), (shape,)),
        Node(f"{node.name}/groups", "Reshape", (data, grouping), (groups,)),
        Node(
            node.name,
            "InstanceNormalization",
            (groups, scale, bias),
            (normalised,),
            {"epsilon": node.attributes["epsilon"]},
        ),
        Node(f"{node.name}/reshape", "Reshape", (normalised, shape), node.outputs),
    ]
