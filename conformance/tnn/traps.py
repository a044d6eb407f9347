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

from conformance.graph.findings import CHANGES, FAILS, REMARK
from conformance.graph.onnx_file import array_of, node_of
from conformance.tnn.meaning import same_pads
from conformance.tnn.registry import CONVERTED
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import OPERATIONS

Array = NDArray[Any]
Shape = tuple[int, ...]
Meaning = Callable[["Source", Node, list[Array]], Array]

OLDEST_OPSET, LATEST_OPSET = 9, 24
_ROOT_2 = math.sqrt(2)
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


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
    plain = onnx.NodeProto()
    plain.CopyFrom(proto)
    # What holds graphs (If, Loop) is reported by its name alone.
    del plain.attribute[:]
    plain.attribute.extend(each for each in proto.attribute if each.type not in _GRAPHS)
    return node_of(plain, name)


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
        `FAILS`, `CHANGES`, or `REMARK`: it converts, and one device cannot run it.
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


def _resize_without_mode(source: Source, node: Node) -> bool:
    return "mode" not in node.attributes


def _resize_of_other_axes(source: Source, node: Node) -> bool:
    scales, shape = _scales(source, node), source.shapes.get(node.inputs[0])
    return (shape is not None and len(shape) != 4) or bool(
        scales is not None and len(scales) == 4 and scales[1] != 1
    )


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


def _become_same(source: Source, node: Node) -> bool:
    begin, end = _halves(node)
    return (
        begin != end and len(begin) <= 3 and not _end_conversion(source, node) and not _swapped(source, node)
    )


def _end_conversion(source: Source, node: Node) -> bool:
    """Tell whether the converter refuses the pads: of two axes a convolution needs only one to grow."""
    begin, end = _halves(node)
    grow = [first < last for first, last in zip(begin, end, strict=True)]
    convolution = node.op_type in ("Conv", "ConvTranspose")
    enough = any(grow) if convolution and len(begin) == 2 else all(grow)
    return begin != end and not enough and not _swapped(source, node)


def _swapped(source: Source, node: Node) -> bool:
    begin, end = _halves(node)
    return node.op_type == "Conv" and len(begin) == 1 and begin != end


def _with_swapped_pads(source: Source, node: Node, operands: list[Array]) -> Array:
    result: Array = OPERATIONS["Conv"](*operands, **{**node.attributes, "pads": _pads(node)[::-1]})
    return result


def _with_same_pads(source: Source, node: Node, operands: list[Array]) -> Array:
    if node.op_type == "ConvTranspose":
        raise UnsupportedOperationError("what becomes of its pads is seen in the layer")
    spatial = operands[0].shape[2:]
    kernel = operands[1].shape[2:] if node.op_type == "Conv" else tuple(node.attributes["kernel_shape"])
    ones = (1,) * len(spatial)
    dilations, strides = node.attributes.get("dilations", ones), node.attributes.get("strides", ones)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    attributes = {**node.attributes, "pads": same_pads(spatial, extent, tuple(strides))}
    result: Array = OPERATIONS[node.op_type](*operands, **attributes)
    return result


def _implicit(source: Source, node: Node) -> bool:
    return "strides" not in node.attributes or "kernel_shape" not in node.attributes


def _lower_padded(source: Source, node: Node) -> bool:
    return node.attributes.get("auto_pad") == "SAME_LOWER"


def _of_three_axes(source: Source, node: Node) -> bool:
    return len(node.attributes.get("kernel_shape", ())) == 3


def _lost_output_padding(source: Source, node: Node) -> bool:
    padding = tuple(node.attributes.get("output_padding", ()))
    return any(padding) and not _is_same_padding(source, node, padding)


def _is_same_padding(source: Source, node: Node, padding: Shape) -> bool:
    """Tell whether pads and output padding are those that TNN derives: an output of stride · length."""
    shape, weight = source.static_shape(node.outputs[0]), source.static_shape(node.inputs[0])
    strides = tuple(node.attributes.get("strides", ()))
    if not padding[0] or shape is None or weight is None or len(strides) != len(shape) - 2:
        return False
    return all(n == s * m for n, s, m in zip(shape[2:], strides, weight[2:], strict=True))


def _softmax_without_axis(source: Source, node: Node) -> bool:
    shape = source.shapes.get(node.inputs[0])
    # Of a matrix the last axis is axis 1.
    return source.opset >= 13 and "axis" not in node.attributes and (shape is None or len(shape) != 2)


def _softmax_over_1(source: Source, node: Node, operands: list[Array]) -> Array:
    result: Array = OPERATIONS[node.op_type](operands[0], axis=1)
    return result


# --- constants, reductions, arrangement -----------------------------------------------------------

_CONSTANT_OPERANDS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
    "InstanceNormalization": (1, 2),
    "PRelu": (1,),
    "TopK": (1,),
}
"""Operator → the places of the operands that the converter takes for weights without asking."""


def _computed_weight(source: Source, node: Node) -> bool:
    places = _CONSTANT_OPERANDS[node.op_type]
    given = [node.inputs[place] for place in places if place < len(node.inputs) and node.inputs[place]]
    return any(name not in source.initializers for name in given)


def _scaled_product(source: Source, node: Node) -> bool:
    given = node.attributes
    return bool(
        given.get("alpha", 1.0) != 1 or given.get("transA", 0) or given.get("beta", 1.0) not in (0, 1)
    )


def _ignored_beta(source: Source, node: Node) -> bool:
    return node.attributes.get("beta", 1.0) == 0 and len(node.inputs) > 2


def _power_of_a_tensor(source: Source, node: Node) -> bool:
    exponent = source.initializers.get(node.inputs[1])
    return exponent is None or exponent.size != 1


def _over_the_plane(node: Node) -> bool:
    """Tell whether a reduction is one that the converter makes a global pooling."""
    kept = node.op_type == "ReduceMax" or node.attributes.get("keepdims") == 1
    return kept and tuple(node.attributes.get("axes", ())) == (2, 3)


def _reduced_output(source: Source, node: Node) -> bool:
    return _over_the_plane(node) and not source.consumers.get(node.outputs[0])


def _keeps_dims(source: Source, node: Node) -> bool:
    dropped = node.op_type == "ReduceMax" and node.attributes.get("keepdims", 1) == 0
    return dropped and _over_the_plane(node) and not _reduced_output(source, node)


def _paddings(source: Source, node: Node) -> Shape | None:
    """Return the pads of a Pad, before and then after; None where they are computed."""
    if "pads" in node.attributes:
        return _pads(node)
    pads = source.initializers.get(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if pads is None else tuple(int(n) for n in pads.ravel())


def _pads_batch(source: Source, node: Node) -> bool:
    pads = _paddings(source, node)
    return len(node.inputs) < 4 and pads is not None and len(pads) == 8 and bool(pads[0] or pads[4])


def _pads_some_axes(source: Source, node: Node) -> bool:
    return len(node.inputs) > 3 and bool(node.inputs[3])


def _reflects_channels(source: Source, node: Node) -> bool:
    pads, mode = _paddings(source, node), str(node.attributes.get("mode", "constant"))
    return mode in ("reflect", "edge") and pads is not None and len(pads) == 8 and bool(pads[1] or pads[5])


def _wraps(source: Source, node: Node) -> bool:
    return str(node.attributes.get("mode", "constant")) not in ("constant", "reflect", "edge")


def _without_order(source: Source, node: Node) -> bool:
    return "perm" not in node.attributes


def _without_bias(source: Source, node: Node) -> bool:
    return len([name for name in node.inputs if name]) < 3


def _last_index(source: Source, node: Node) -> bool:
    return bool(node.attributes.get("select_last_index", 0))


WITHOUT_ARM_KERNEL = (
    *("Einsum", "Where", "And", "Greater", "Less", "Equal", "Not", "BitShift", "LogSoftmax", "Softsign"),
    *("LRN", "TopK", "NonMaxSuppression", "NonZero", "OneHot", "GatherND", "Scatter", "ScatterElements"),
    *("Histogram", "HDRGuide"),
)
"""Operators whose layers have no kernel on ARM."""


def _not_registered(source: Source, node: Node) -> bool:
    return node.op_type not in CONVERTED


# --- the graph ------------------------------------------------------------------------------------


def _copies_an_input(source: Source, node: Node) -> bool:
    return node.inputs[0] in source.inputs and node.outputs[0] in source.outputs


def _output_before_fusion(source: Source, node: Node) -> bool:
    users = [user.op_type for user in source.consumers.get(node.outputs[0], [])]
    return node.outputs[0] in source.outputs and any(user in ("Relu", "BatchNormalization") for user in users)


def _repeats_edges(source: Source, node: Node) -> bool:
    return str(node.attributes.get("mode", "constant")) == "edge"


def _leaves_out_a_constant(source: Source, node: Node) -> bool:
    return any(name in source.initializers for name in node.inputs)


def _spaced_equation(source: Source, node: Node) -> bool:
    return " " in str(node.attributes.get("equation", "")).strip()


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
        "resize-without-mode",
        _RESIZE,
        _resize_without_mode,
        FAILS,
        "the converter does not know ONNX's default; TNN has no resize of type 0",
        "write mode",
    ),
    Trap(
        "resize-of-other-axes",
        _RESIZE,
        _resize_of_other_axes,
        FAILS,
        "the converter resizes the two last of four axes only",
        "reshape to four axes",
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
        (*_PADDED, "ConvTranspose"),
        _become_same,
        CHANGES,
        "pads that differ before and after are converted to pad type SAME, whatever they are",
        "pad with a separate Pad node, or use equal pads",
        _with_same_pads,
    ),
    Trap(
        "asymmetric-pads-at-the-beginning",
        (*_PADDED, "ConvTranspose"),
        _end_conversion,
        FAILS,
        "the converter's assertion on the pads fails",
        "pad with a separate Pad node, or use equal pads",
    ),
    Trap(
        "swapped-pads",
        ("Conv",),
        _swapped,
        CHANGES,
        "TNN's reader of one-axis convolutions swaps the pads before and after",
        "pad with a separate Pad node, or use equal pads",
        _with_swapped_pads,
    ),
    Trap(
        "same-lower",
        (*_PADDED, "ConvTranspose"),
        _lower_padded,
        FAILS,
        "the converter's assertion on auto_pad SAME_LOWER fails",
        "write the pads",
    ),
    Trap(
        "transposed-convolution-3d",
        ("ConvTranspose",),
        _of_three_axes,
        FAILS,
        "it becomes Deconvolution3D, a layer type that TNN's runtime does not know",
        "use two axes",
    ),
    Trap(
        "output-padding",
        ("ConvTranspose",),
        _lost_output_padding,
        CHANGES,
        "TNN knows that there is output padding, not how much: it makes stride · length elements",
        "choose pads and output_padding so that the output is stride times the input",
    ),
    Trap(
        "weight-not-constant",
        tuple(_CONSTANT_OPERANDS),
        _computed_weight,
        FAILS,
        "the converter takes the operand for a weight in the file; it is computed in the graph or given",
        "make it an initializer, such as with onnxsim, or use MatMul, Add and Mul",
    ),
    Trap(
        "gemm-scaled",
        ("Gemm",),
        _scaled_product,
        FAILS,
        "the converter's assertion on alpha, beta or transA fails",
        "use MatMul and Add, or scale the weight",
    ),
    Trap(
        "gemm-beta",
        ("Gemm",),
        _ignored_beta,
        CHANGES,
        "the bias is added though beta is 0",
        "leave the bias out",
    ),
    Trap(
        "power-of-a-tensor",
        ("Pow",),
        _power_of_a_tensor,
        CHANGES,
        "the converter keeps one number of the exponent, its first, or 0 if it is computed",
        "use a constant of one element, or Mul",
    ),
    Trap(
        "reduction-as-output",
        ("ReduceMean", "ReduceMax"),
        _reduced_output,
        FAILS,
        "over axes 2 and 3, of an output of the model, the converter crashes (segmentation fault)",
        "use GlobalAveragePool or GlobalMaxPool, or write the axes as −2 and −1",
    ),
    Trap(
        "reduce-max-keeps-axes",
        ("ReduceMax",),
        _keeps_dims,
        CHANGES,
        "over axes 2 and 3 it becomes a global pooling, which keeps them",
        "reduce with keepdims=1 and reshape",
    ),
    Trap(
        "last-index",
        ("ArgMax", "ArgMin"),
        _last_index,
        FAILS,
        "the converter's assertion on select_last_index fails",
        "take the first index",
    ),
    Trap(
        "pad-of-the-batch",
        ("Pad",),
        _pads_batch,
        CHANGES,
        "of four axes the pads of the first are dropped",
        "pad another axis",
    ),
    Trap(
        "pad-of-some-axes",
        ("Pad",),
        _pads_some_axes,
        CHANGES,
        "the converter does not read which axes the pads are of",
        "give the pads of every axis",
    ),
    Trap(
        "pad-reflects-channels",
        ("Pad",),
        _reflects_channels,
        FAILS,
        "the converter's assertion fails: only space can be reflected or its edge repeated",
        "concatenate the channels",
    ),
    Trap(
        "pad-edge",
        ("Pad",),
        _repeats_edges,
        FAILS,
        "NAIVE, X86 and ARM cannot repeat edges; TNNTest writes no output",
        "concatenate slices, or pad by a constant",
    ),
    Trap(
        "einsum-of-a-constant",
        ("Einsum",),
        _leaves_out_a_constant,
        FAILS,
        "the converter leaves the constant out of the layer's operands; no device runs it",
        "use MatMul",
    ),
    Trap(
        "einsum-with-spaces",
        ("Einsum",),
        _spaced_equation,
        FAILS,
        "a space ends the equation in the .tnnproto",
        "write the equation without spaces",
    ),
    Trap(
        "pad-wraps",
        ("Pad",),
        _wraps,
        FAILS,
        "TNN pads by a constant, by reflection or by the edge only",
        "concatenate slices",
    ),
    Trap(
        "transpose-without-order",
        ("Transpose",),
        _without_order,
        FAILS,
        "the converter writes an empty order",
        "write perm",
    ),
    Trap(
        "normalisation-without-bias",
        ("LayerNormalization", "GroupNormalization"),
        _without_bias,
        FAILS,
        "TNN's layer needs scale and bias",
        "give a bias of zeros",
    ),
    Trap(
        "no-converter",
        (),
        _not_registered,
        FAILS,
        "the converter has no such operator, and ends in an assertion",
        "write it with operators that it has (conformance.tnn.registry lists them)",
    ),
    Trap(
        "softmax-default-axis",
        ("Softmax", "LogSoftmax"),
        _softmax_without_axis,
        CHANGES,
        "without the attribute axis the converter takes axis 1; since opset 13 ONNX means the last",
        "write the axis explicitly",
        _softmax_over_1,
    ),
    Trap(
        "implicit-convolution-attributes",
        (*_PADDED, "ConvTranspose"),
        _implicit,
        FAILS,
        "without explicit strides and kernel_shape the converter writes a broken parameter line",
        "write kernel_shape, strides, pads and dilations explicitly",
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
        (*WITHOUT_ARM_KERNEL,),
        _always,
        REMARK,
        "ARM has no kernel for it ('empty implemented_layouts')",
        "write it with MatMul, Transpose, Mul and Add, or run it on another device",
    ),
    Trap(
        "erf-outside-gelu",
        ("Erf",),
        _unfused_erf,
        REMARK,
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
