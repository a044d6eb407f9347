"""The traps of `onnx2tnn` and TNN: which ONNX constructs break or silently change, and what to do instead.

One catalogue serves the lint of an ONNX file before conversion and the diagnosis of a converted one after it.
A trap that changes the meaning also says what TNN computes instead, so it can be confirmed by replay. Source:
conversions with the public converter and runs of the real runtime.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from conformance.graph.onnx_file import array_of, node_of
from conformance.tnn.meaning import same_pads
from refimpl.graph import Graph, Node
from refimpl.ops.operation import OPERATIONS

Array = NDArray[Any]
Shape = tuple[int, ...]
Meaning = Callable[["Source", Node, list[Array]], Array]

FAILS = "fails"
CHANGES = "changes the meaning"
OLDEST_OPSET, LATEST_OPSET = 9, 24
_ROOT_2 = math.sqrt(2)


@dataclass(frozen=True, eq=False, kw_only=True)
class Source(Graph):
    """An ONNX graph as the converter sees it: as written, in its own opset, nothing filled in.

    An attribute that the file leaves out is absent; values of Constant nodes are initializers too.

    Attributes
    ----------
    shapes
        What shape inference finds, by tensor; a dynamic length is None.
    opset
        Version of the ONNX operator set, 0 if none is imported.
    """

    shapes: Mapping[str, tuple[int | None, ...]]
    opset: int

    def static_shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor if every length is known."""
        shape = self.shapes.get(name)
        if shape is None or any(length is None for length in shape):
            return None
        return tuple(length for length in shape if length is not None)


def source_of(model: onnx.ModelProto) -> Source:
    """Return the view of a model that the traps are judged on."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # whatever inference cannot do leaves shapes unknown, which the traps expect
        inferred = model.graph
    infos = (*inferred.input, *inferred.value_info, *inferred.output)
    constants = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
    nodes = [_node(proto, index) for index, proto in enumerate(model.graph.node)]
    constants |= {
        node.outputs[0]: _value(node) for node in nodes if node.op_type == "Constant" and node.outputs
    }
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return Source(
        nodes,
        constants,
        {info.name: info.name for info in model.graph.input if info.name not in constants},
        {info.name: info.name for info in model.graph.output},
        shapes={info.name: _shape(info) for info in infos if info.type.tensor_type.HasField("shape")},
        opset=versions[0] if versions else 0,
    )


def _value(node: Node) -> Array:
    """Return the value of a Constant node: its one attribute, whatever its name."""
    return np.asarray(next(iter(node.attributes.values()), ()))


def _node(proto: onnx.NodeProto, index: int) -> Node:
    name = proto.name or f"{next(iter(proto.output), f'node {index}')}/{proto.op_type}"
    return node_of(proto, name)


def _shape(info: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else None for dim in info.type.tensor_type.shape.dim
    )


@dataclass(frozen=True)
class Trap:
    """A construct that does not survive conversion.

    Attributes
    ----------
    rule
        Its name.
    operators
        The ONNX operators it concerns; empty for traps of the whole graph, which see every node.
    applies
        Whether a node falls into it.
    severity
        `FAILS` or `CHANGES`.
    happens, instead
        What happens, and what to do.
    meaning
        What TNN computes in place of the node, where that is known.
    """

    rule: str
    operators: tuple[str, ...]
    applies: Callable[[Source, Node], bool]
    severity: str
    happens: str
    instead: str
    meaning: Meaning | None = None

    def catches(self, source: Source, node: Node) -> bool:
        """Tell whether ``node`` falls into the trap."""
        return (not self.operators or node.op_type in self.operators) and self.applies(source, node)


# --- Resize ---------------------------------------------------------------------------------------


def _coordinates(node: Node) -> str:
    # Opset 10 has no attribute; its only rule is the asymmetric one.
    default = "asymmetric" if len(node.inputs) == 2 else "half_pixel"
    return str(node.attributes.get("coordinate_transformation_mode", default))


def _mode(node: Node) -> str:
    return str(node.attributes.get("mode", "nearest"))


def _scales(source: Source, node: Node) -> Array | None:
    name = node.inputs[1] if len(node.inputs) == 2 else (node.inputs[2] if len(node.inputs) > 2 else "")
    scales = source.initializers.get(name)
    return None if scales is None or scales.size == 0 else scales


def _sizes(source: Source, node: Node) -> Shape | None:
    return source.static_shape(node.outputs[0])


def _tnn_resize(source: Source, node: Node, operands: list[Array]) -> Array:
    """Resize by TNN's one rule: the ratio of the sizes."""
    sizes = _sizes(source, node)
    if sizes is None:
        scales = _scales(source, node)
        factors = np.ones(operands[0].ndim) if scales is None else scales
        sizes = tuple(int(n * s) for n, s in zip(operands[0].shape, factors, strict=True))
    if _mode(node) == "nearest":
        rule = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        corners = _coordinates(node) == "align_corners"
        rule = {
            "mode": "linear",
            "coordinate_transformation_mode": "align_corners" if corners else "half_pixel",
        }
    result: Array = OPERATIONS["Resize"](operands[0], None, None, sizes, **rule)
    return result


def _resize_asymmetric(source: Source, node: Node) -> bool:
    return _mode(node) == "linear" and _coordinates(node) in ("asymmetric", "tf_half_pixel_for_nn")


def _resize_nearest(source: Source, node: Node) -> bool:
    if _mode(node) != "nearest":
        return False
    rule = str(node.attributes.get("nearest_mode", "round_prefer_floor"))
    if _coordinates(node) == "asymmetric" and rule == "floor":
        return False
    before, after = source.static_shape(node.inputs[0]), _sizes(source, node)
    if before is None or after is None:
        return True
    return any(not _same_picks(n, m, _coordinates(node), rule) for n, m in zip(before, after, strict=True))


def _same_picks(size: int, new_size: int, coordinates: str, rule: str) -> bool:
    """Tell whether ONNX's rule picks the same elements of an axis as ⌊i · size / new_size⌋ does."""
    if size == new_size:
        return True
    given: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": coordinates,
        "nearest_mode": rule,
    }
    picked = OPERATIONS["Resize"](np.arange(size, dtype=np.float64), None, None, (new_size,), **given)
    return np.array_equal(picked, np.arange(new_size) * size // new_size)


def _resize_floored(source: Source, node: Node) -> bool:
    scales, before = _scales(source, node), source.static_shape(node.inputs[0])
    if scales is None or _coordinates(node) == "align_corners":
        return False
    if before is None or len(before) != scales.size:
        return bool(np.any(scales != np.rint(scales)))
    exact = np.asarray(before, np.float32) * scales.astype(np.float32)
    return bool(np.any(np.abs(exact - np.rint(exact)) > 1e-4 * np.abs(exact)))


def _resize_cubic(source: Source, node: Node) -> bool:
    return _mode(node) == "cubic"


def _resize_dynamic(source: Source, node: Node) -> bool:
    if source.opset <= 11:
        # There the converter follows the Shape/Slice chain that the TorchScript exporter writes.
        return False
    operands = [name for name in node.inputs[1:] if name]
    return any(name not in source.initializers for name in operands)


# --- pooling, convolution, softmax ----------------------------------------------------------------


def _pads(node: Node) -> Shape:
    return tuple(int(pad) for pad in node.attributes.get("pads", ()))


def _counts_padding(source: Source, node: Node) -> bool:
    return bool(node.attributes.get("count_include_pad", 0)) and any(_pads(node))


def _pool_without_padding(source: Source, node: Node, operands: list[Array]) -> Array:
    attributes = {**node.attributes, "count_include_pad": 0}
    result: Array = OPERATIONS["AveragePool"](operands[0], **attributes)
    return result


def _halves(node: Node) -> tuple[Shape, Shape]:
    pads = _pads(node)
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]


def _more_at_the_end(source: Source, node: Node) -> bool:
    begin, end = _halves(node)
    return begin != end and not _more_at_the_beginning(source, node)


def _more_at_the_beginning(source: Source, node: Node) -> bool:
    return any(first > last for first, last in zip(*_halves(node), strict=True))


def _with_same_pads(source: Source, node: Node, operands: list[Array]) -> Array:
    spatial = operands[0].shape[2:]
    kernel = operands[1].shape[2:] if node.op_type == "Conv" else tuple(node.attributes["kernel_shape"])
    ones = (1,) * len(spatial)
    dilations, strides = node.attributes.get("dilations", ones), node.attributes.get("strides", ones)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    attributes = {**node.attributes, "pads": same_pads(spatial, extent, tuple(strides))}
    result: Array = OPERATIONS[node.op_type](*operands, **attributes)
    return result


def _implicit(source: Source, node: Node) -> bool:
    padding_given = "pads" in node.attributes or node.attributes.get("auto_pad", "NOTSET") != "NOTSET"
    return "strides" not in node.attributes or not padding_given


def _softmax_without_axis(source: Source, node: Node) -> bool:
    shape = source.shapes.get(node.inputs[0])
    # Of a matrix the last axis is axis 1.
    return source.opset >= 13 and "axis" not in node.attributes and (shape is None or len(shape) != 2)


def _softmax_over_1(source: Source, node: Node, operands: list[Array]) -> Array:
    result: Array = OPERATIONS["Softmax"](operands[0], axis=1)
    return result


# --- the graph ------------------------------------------------------------------------------------


def _copies_an_input(source: Source, node: Node) -> bool:
    return node.inputs[0] in source.inputs and node.outputs[0] in source.outputs


def _output_before_fusion(source: Source, node: Node) -> bool:
    users = [user.op_type for user in source.consumers.get(node.outputs[0], [])]
    return node.outputs[0] in source.outputs and any(user in ("Relu", "BatchNormalization") for user in users)


def _always(source: Source, node: Node) -> bool:
    return True


def _unfused_erf(source: Source, node: Node) -> bool:
    return not _is_gelu(source, node)


def _is_gelu(source: Source, erf: Node) -> bool:
    """Tell whether an Erf stands in x / √2 → Erf → + 1 → · x → · ½, which the converter makes a GELU."""
    divide = source.producer(erf.inputs[0])
    if divide is None or divide.op_type != "Div" or not _is_constant(source, divide, 1, _ROOT_2):
        return False
    plus = _only_user(source, erf, "Add")
    product = plus and _only_user(source, plus, "Mul")
    half = product and _only_user(source, product, "Mul")
    if plus is None or product is None or half is None:
        return False
    return (
        any(_is_constant(source, plus, side, 1.0) for side in (0, 1))
        and divide.inputs[0] in product.inputs
        and any(_is_constant(source, half, side, 0.5) for side in (0, 1))
    )


def _only_user(source: Source, node: Node, op_type: str) -> Node | None:
    users = source.consumers.get(node.outputs[0], [])
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def _is_constant(source: Source, node: Node, side: int, value: float) -> bool:
    found = source.initializers.get(node.inputs[side]) if side < len(node.inputs) else None
    return found is not None and found.size == 1 and abs(found.item() - value) < 1e-3


def _breaks_the_line(source: Source, node: Node) -> bool:
    return any(re.search(r'[\s,"]', name) for name in (*node.inputs, *node.outputs))


_RESIZE, _PADDED = ("Resize", "Upsample"), ("Conv", "MaxPool", "AveragePool")

TRAPS: tuple[Trap, ...] = (
    Trap(
        "resize-asymmetric-linear",
        _RESIZE,
        _resize_asymmetric,
        CHANGES,
        "TNN resizes with half-pixel centres whatever the coordinate transformation; every element is wrong",
        "export with coordinate_transformation_mode half_pixel, in PyTorch align_corners=False",
        _tnn_resize,
    ),
    Trap(
        "resize-nearest-rule",
        _RESIZE,
        _resize_nearest,
        CHANGES,
        "TNN always picks element ⌊i · in / out⌋; this rule picks others",
        "use coordinate_transformation_mode asymmetric with nearest_mode floor, in PyTorch mode='nearest'",
        _tnn_resize,
    ),
    Trap(
        "resize-floored-scale",
        _RESIZE,
        _resize_floored,
        CHANGES,
        "the scaled size is no whole number; ONNX samples by the scale, TNN by the ratio of the sizes",
        "give the output sizes in place of the scales, in PyTorch interpolate(size=…)",
        _tnn_resize,
    ),
    Trap(
        "resize-cubic",
        _RESIZE,
        _resize_cubic,
        FAILS,
        "the converter has no cubic resize",
        "use mode linear",
    ),
    Trap(
        "resize-dynamic-size",
        _RESIZE,
        _resize_dynamic,
        FAILS,
        "the size is computed in the graph (a Shape/Slice chain); conversion ends in 'invalid output shape'",
        "export with static shapes: the dynamo exporter, or TorchScript at opset 11, or fold with onnxsim",
    ),
    Trap(
        "average-pool-counts-padding",
        ("AveragePool",),
        _counts_padding,
        CHANGES,
        "TNN never counts padding, so every window at the border has another divisor",
        "set count_include_pad=0, or pad with a separate layer and pool without pads",
        _pool_without_padding,
    ),
    Trap(
        "asymmetric-pads",
        _PADDED,
        _more_at_the_end,
        CHANGES,
        "pads that differ before and after are converted to pad type SAME, whatever they are",
        "pad with a separate Pad node, or use equal pads",
        _with_same_pads,
    ),
    Trap(
        "asymmetric-pads-at-the-beginning",
        _PADDED,
        _more_at_the_beginning,
        FAILS,
        "the converter's assertion on the pads fails",
        "pad with a separate Pad node, or use equal pads",
    ),
    Trap(
        "softmax-default-axis",
        ("Softmax",),
        _softmax_without_axis,
        CHANGES,
        "without the attribute axis the converter takes axis 1; since opset 13 ONNX means the last",
        "write the axis explicitly",
        _softmax_over_1,
    ),
    Trap(
        "implicit-convolution-attributes",
        ("Conv",),
        _implicit,
        FAILS,
        "without explicit strides and pads the converter writes a broken parameter line",
        "write strides, pads and dilations explicitly",
    ),
    Trap(
        "output-copies-an-input",
        ("Identity",),
        _copies_an_input,
        FAILS,
        "an output that is an Identity of an input fails to convert",
        "drop that output",
    ),
    Trap(
        "output-before-a-fusion",
        ("Conv",),
        _output_before_fusion,
        FAILS,
        "an output taken between a convolution and its Relu or BatchNormalization crashes or disappears",
        "take the output after the activation, or fold the normalisation first",
    ),
    Trap(
        "no-arm-kernel",
        ("Einsum", "Where"),
        _always,
        FAILS,
        "ARM has no kernel for it ('empty implemented_layouts')",
        "write it with MatMul, Transpose, Mul and Add",
    ),
    Trap(
        "erf-outside-gelu",
        ("Erf",),
        _unfused_erf,
        FAILS,
        "ARM has no kernel for Erf ('empty implemented_layouts'); only x/√2 → Erf → +1 → ·x → ·½ is fused",
        "write GELU in exactly that order, or use another activation",
    ),
    Trap(
        "name-breaks-the-line",
        (),
        _breaks_the_line,
        FAILS,
        "a tensor name with a space, a comma or a quote breaks the line of the .tnnproto",
        "rename the tensors",
    ),
)
"""The catalogue."""
