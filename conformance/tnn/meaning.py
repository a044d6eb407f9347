"""What each layer type of TNN computes, in operations of `refimpl`.

TNN's own rules where they differ from ONNX's: resizing always follows the ratio of the sizes (half-pixel
centres for bilinear, ⌊i · in / out⌋ for nearest), average pooling never counts padding, SAME and VALID
override the pads, LRN's window is odd, and scalars of the proto are float32 numbers of 6 digits. Source:
https://github.com/Tencent/TNN/tree/f0cb081/source/tnn/layer and device/cpu/acc; checked against outputs of
the real runtime.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from conformance.graph.evaluation import as_tuple
from conformance.graph.output_sizes import MOST_ELEMENTS, elements
from conformance.tnn import parameters as of
from conformance.tnn.proto import Layer
from refimpl.errors import FileError, ShapeError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import OPERATIONS, active_interceptor
from refimpl.ops.pooling import adaptive_average_pool

Array = NDArray[Any]
Constants = Mapping[str, Array]
Operands = tuple[Array, ...]
Meaning = Callable[[Layer, Operands, Constants], Array | Operands]


def call(name: str, *operands: Any, **attributes: Any) -> Array:
    """Compute one operation; like the network's, the calls can be intercepted."""
    (result,) = call_all(name, *operands, **attributes)
    return result


def call_all(name: str, *operands: Any, **attributes: Any) -> Operands:
    """Compute an operation of several results, unless they are too large to be honest."""
    if name in GROWING:
        _check_size(name, operands, attributes)
    interceptor = active_interceptor()
    if interceptor is None:
        return as_tuple(OPERATIONS[name](*operands, **attributes))
    return as_tuple(interceptor.call(name, operands, attributes))


GROWING = (
    *("AveragePool", "ConstantOfShape", "Conv", "ConvTranspose", "Expand", "Gather", "GridSample"),
    *("MaxPool", "OneHot", "Pad", "Range", "Resize", "RoiAlign", "Tile"),
)
"""Operations whose results may be larger than their operands."""


def _check_size(name: str, operands: Sequence[Any], attributes: Mapping[str, Any]) -> None:
    given = [None if x is None else _plain(x) for x in operands]
    inputs = tuple("" if x is None else f"x{place}" for place, x in enumerate(given))
    count = elements(Node("", name, inputs, ("y",), dict(attributes)), given)
    if count > MOST_ELEMENTS:
        raise ShapeError(f"{name} asks for {count} elements; at most {MOST_ELEMENTS} are computed")


def scalar(value: float) -> float:
    """Return the float32 number TNN parses from the text."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _indices(x: Array) -> Array:
    """Return numbers that count."""
    return _plain(x).astype(np.int64)


def _plain(x: Any) -> Array:
    """Return an array whose use is not recorded."""
    return np.asarray(x.view(np.ndarray) if hasattr(x, "view") else x)


def _integers(x: Array) -> tuple[int, ...]:
    return tuple(_indices(x).ravel().tolist())


def _along_channels(values: Array, x: Array) -> Array:
    """Return one number per channel so that it broadcasts over maps."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))


# --- windows --------------------------------------------------------------------------------------


def same_pads(size: tuple[int, ...], extent: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the pads of TNN's pad type SAME: output ⌈size / stride⌉, the odd element at the end."""
    total = [
        max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(size, extent, strides, strict=True)
    ]
    return (*(amount // 2 for amount in total), *(amount - amount // 2 for amount in total))


def _extent(given: of.Windowed) -> tuple[int, ...]:
    return tuple((k - 1) * d + 1 for k, d in zip(given.kernel, given.dilations, strict=True))


def _pads(given: of.AnyConvolution | of.AnyPooling, x: Array) -> tuple[int, ...]:
    if given.pad_type == of.SAME_PADS:
        return same_pads(x.shape[2:], _extent(given), given.strides)
    return given.pads if given.pad_type == of.EXPLICIT_PADS else (0,) * len(given.pads)


def _activated(x: Array, activation: int | None) -> Array:
    if activation == of.RELU:
        return call("Relu", x)
    if activation == of.RELU6:
        return call("Clip", x, 0.0, 6.0)
    if activation == of.SILU:
        return call("Mul", x, call("Sigmoid", x))
    return x


def _convolution(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(of.AnyConvolution, layer.parameters), operands
    if given.pad_type == of.OUTPUT_PADDED:
        raise UnsupportedOperationError(f"{layer.type} {layer.name!r}: pad type 3 is of transposed ones")
    weight = constants["weight"].reshape(given.output_channels, given.channels_per_group, *given.kernel)
    attributes = {"strides": given.strides, "pads": _pads(given, x), "dilations": given.dilations}
    result = call("Conv", x, weight, constants.get("bias"), **attributes, group=given.group)
    return _activated(result, given.activation)


def _deconvolution(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(of.Convolution, layer.parameters), operands
    pads, output_padding = _transposed_pads(given, x)
    weight = constants["weight"].reshape(x.shape[1], -1, *given.kernel)
    attributes = {"strides": given.strides, "dilations": given.dilations, "pads": pads}
    padded = {"output_padding": output_padding} if any(output_padding) else {}
    bias = constants.get("bias")
    result = call("ConvTranspose", x, weight, bias, **attributes, **padded, group=given.group)
    return _activated(result, given.activation)


def _transposed_pads(given: of.Convolution, x: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the pads, and what the output is longer at its end.

    Unless they are explicit, the output has stride · length elements, or with VALID as many as are made;
    with output padding the larger half of the pads stands before.
    """
    if given.pad_type == of.EXPLICIT_PADS:
        return given.pads, (0,) * len(given.kernel)
    more = [extent - stride for extent, stride in zip(_extent(given), given.strides, strict=True)]
    total = [0 if given.pad_type == of.VALID_PADS else max(amount, 0) for amount in more]
    smaller = tuple(amount // 2 for amount in total)
    larger = tuple(amount - amount // 2 for amount in total)
    pads = (*larger, *smaller) if given.pad_type == of.OUTPUT_PADDED else (*smaller, *larger)
    return pads, tuple(max(-amount, 0) for amount in more)


def _pooling(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(of.AnyPooling, layer.parameters), operands
    average = given.type == of.AVERAGE_POOLING
    if isinstance(given, of.Pooling) and given.adaptive:
        return _adaptive_pooling(layer, given, x)
    if not any(given.kernel):
        return call("GlobalAveragePool" if average else "GlobalMaxPool", x)
    attributes = {"kernel_shape": given.kernel, "strides": given.strides, "pads": _pads(given, x)}
    return call("AveragePool" if average else "MaxPool", x, **attributes, ceil_mode=given.ceil)


def _adaptive_pooling(layer: Layer, given: of.Pooling, x: Array) -> Array:
    size = (given.output_h or 0, given.output_w or 0)
    if given.type != of.AVERAGE_POOLING or min(size) < 1:
        raise UnsupportedOperationError(
            f"Pooling {layer.name!r}: only adaptive average pooling to a given size is evaluated"
        )
    return adaptive_average_pool(x, size)


def upsampled_size(given: of.Upsample, x: Array) -> tuple[int, ...]:
    """Return height and width of an Upsample's output."""
    if given.output_h and given.output_w:
        return given.output_h, given.output_w
    # TNN rounds where ONNX floors, and the product is a float32 one.
    scales = np.asarray([given.scale_h, given.scale_w], np.float32)
    sizes = np.floor(np.asarray(x.shape[2:], np.float32) * scales + np.float32(0.5))
    return tuple(sizes.astype(int).tolist())


def _upsample(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, *sizes_given) = cast(of.Upsample, layer.parameters), operands
    sizes = _integers(sizes_given[-1]) if sizes_given else (*x.shape[:2], *upsampled_size(given, x))
    if given.mode == of.NEAREST:
        rule = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        coordinates = "align_corners" if given.align_corners else "half_pixel"
        rule = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    return call("Resize", x, None, None, sizes, **rule)


# --- products -------------------------------------------------------------------------------------


def _inner_product(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(of.InnerProduct, layer.parameters), operands
    if given.transpose:
        raise UnsupportedOperationError(
            f"InnerProduct {layer.name!r} has a transposed weight; use MatMul in the source"
        )
    axis = given.axis % x.ndim
    rows = call("Reshape", x, (math.prod(x.shape[:axis]), -1))
    weight = constants["weight"].reshape(given.outputs, -1)
    product = call("Gemm", rows, weight, constants["bias"] if given.bias else None, transB=1)
    shape = (*x.shape[:axis], given.outputs, *(1,) * (x.ndim - axis - 1))
    return call("Reshape", product, shape)


def _with_constant(layer: Layer, operands: Operands, constants: Constants) -> Operands:
    """Put the layer's own constant where the parameters say."""
    given = cast(of.Binary, layer.parameters)
    place = given.constant_operand if given.has_constant else None
    if place is not None and place <= len(operands):
        constant = _aligned_constant(constants["constant"], operands[0], layer)
        operands = (*operands[:place], constant, *operands[place:])
    if len(operands) != 2 and not (len(operands) > 2 and layer.type in ("Maximum", "Minimum")):
        raise FileError(
            f"{layer.type} {layer.name!r} has {len(layer.inputs)} inputs and its constant operand is "
            f"{given.constant_operand}"
        )
    return operands


def _aligned_constant(constant: Array, x: Array, layer: Layer) -> Array:
    """Give a constant of a version-1 file, which has no dims, the shape TNN infers."""
    if constant.ndim != 1 or layer.type == "MatMul" or x.ndim < 2 or constant.size == 1:
        return constant
    for shape in ((x.shape[1], *(1,) * (x.ndim - 2)), x.shape[1:], x.shape[2:]):
        if constant.size == math.prod(shape):
            return constant.reshape(shape)
    return constant


def _binary(operation: str) -> Meaning:
    return lambda layer, operands, constants: call(operation, *_with_constant(layer, operands, constants))


def einsum_terms(layer: Layer) -> list[str]:
    """Return the operands' terms of an Einsum's equation."""
    equation = cast(of.Einsum, layer.parameters).equation
    return equation.partition("->")[0].split(";")


def completed_operands(layer: Layer, operands: Operands, unread: Sequence[Array]) -> Operands:
    """Return an Einsum's operands, those that the converter left among the constants in their places.

    The converter leaves constant operands out of the line, so no layer reads them. Without doubt, because of
    the lengths of the letters, or the first order that fits.
    """
    terms = einsum_terms(layer)
    missing = len(terms) - len(operands)
    if missing < 1 or missing != len(unread) or len(terms) > 4:
        return operands
    orders = itertools.permutations((*operands, *unread))
    return next((order for order in orders if _fits(terms, order)), operands)


def _fits(terms: Sequence[str], operands: Operands) -> bool:
    lengths: dict[str, int] = {}
    return all(
        len(term) == operand.ndim
        and all(lengths.setdefault(letter, n) == n for letter, n in zip(term, operand.shape, strict=True))
        for term, operand in zip(terms, operands, strict=True)
    )


def _einsum(layer: Layer, operands: Operands, constants: Constants) -> Array:
    terms = len(einsum_terms(layer))
    if len(operands) != terms:
        raise FileError(f"Einsum {layer.name!r} has {len(operands)} operands, its equation {terms}")
    equation = cast(of.Einsum, layer.parameters).equation.replace(";", ",")
    return call("Einsum", *operands, equation=equation)


def _lstm(layer: Layer, operands: Operands, constants: Constants) -> Operands:
    given, (x, weight, recurrence, *rest) = cast(of.LSTM, layer.parameters), operands
    bias, states = rest[0] if rest else None, rest[1:]
    attributes: dict[str, Any] = {
        "hidden_size": given.hidden_size,
        "direction": ("forward", "reverse", "bidirectional")[given.direction],
    }
    if given.clip:
        attributes["clip"] = scalar(given.clip)
    every, *last = call_all("LSTM", x, weight, recurrence, bias, None, *states, **attributes)
    # ONNX's (time, directions, batch, hidden); TNN's is what the transposition after it makes.
    length, directions, batch, hidden = every.shape
    joined = call(
        "Reshape", call("Transpose", every, perm=(0, 2, 1, 3)), (length, batch, directions * hidden)
    )
    return (joined, *last)[: len(layer.outputs)]


# --- elements -------------------------------------------------------------------------------------


def _unary(operation: str, *arguments: float) -> Meaning:
    return lambda layer, operands, constants: call(operation, operands[0], *arguments)


def _comparison(operation: str) -> Meaning:
    """Return what compares; TNN's truth values are the numbers 0 and 1."""

    def compared(layer: Layer, operands: Operands, constants: Constants) -> Array:
        two = isinstance(layer.parameters, of.Binary)
        whole = _with_constant(layer, operands, constants) if two else operands
        return call("Cast", call(operation, *whole), to=operands[0].dtype.type)

    return compared


def _where(layer: Layer, operands: Operands, constants: Constants) -> Array:
    """TNN's condition comes last."""
    chosen, other, condition = operands
    return call("Where", condition, chosen, other)


def _power(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(of.Power, layer.parameters), operands
    scaled = call("Mul", x, scalar(given.scale)) if given.scale != 1 else x
    base = call("Add", scaled, scalar(given.shift)) if given.shift else scaled
    return call("Pow", base, scalar(given.exponent))


def _rsqrt(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Reciprocal", call("Sqrt", operands[0]))


def _log_sigmoid(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Neg", call("Softplus", call("Neg", operands[0])))


def _swish(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Mul", operands[0], call("Sigmoid", operands[-1]))


def _elu(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Elu", operands[0], alpha=scalar(cast(of.Elu, layer.parameters).alpha))


def _selu(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.Selu, layer.parameters)
    attributes = {"alpha": scalar(given.alpha), "gamma": scalar(given.gamma)}
    return call("Selu", operands[0], **attributes)


def _prelu(layer: Layer, operands: Operands, constants: Constants) -> Array:
    (x,), slope = operands, constants["slope"]
    shared = cast(of.PReLU, layer.parameters).channel_shared
    return call("PRelu", x, slope.reshape(()) if shared else _along_channels(slope, x))


def _hard_sigmoid(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.HardSigmoid, layer.parameters)
    return call("HardSigmoid", operands[-1], alpha=scalar(given.alpha), beta=scalar(given.beta))


def _hard_swish(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Mul", operands[0], _hard_sigmoid(layer, operands, constants))


def _clip(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.Clip, layer.parameters)
    low, high = (np.asarray(scalar(v), operands[0].dtype) for v in (given.minimum, given.maximum))
    return call("Min", call("Max", operands[0], low), high)


def _softmax(operation: str) -> Meaning:
    return lambda layer, operands, constants: call(
        operation, operands[0], axis=cast(of.Axis, layer.parameters).axis
    )


def _signed_mul(layer: Layer, operands: Operands, constants: Constants) -> Array:
    """(sign(x − α) + β) / γ, times that of channel 0."""
    given, (x,) = cast(of.SignedMul, layer.parameters), operands
    signs = call("Sign", call("Sub", x, scalar(given.alpha)))
    scaled = call("Mul", call("Add", signs, scalar(given.beta)), 1 / scalar(given.gamma))
    return call("Mul", scaled, call("Slice", scaled, (0,), (1,), (1,), (1,)))


def _bit_shift(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.BitShift, layer.parameters)
    bits, direction = np.asarray(given.bits, np.int64), "LEFT" if given.direction else "RIGHT"
    return call("BitShift", _indices(operands[0]), bits, direction=direction)


# --- normalisation --------------------------------------------------------------------------------


def _scaled(x: Array, scale: Array, bias: Array) -> Array:
    return call("Add", call("Mul", x, scale), bias)


def _standardised(x: Array, axis: int, epsilon: float) -> Array:
    """Return x less its mean, over its deviation, both of the axes from ``axis``."""
    ones = np.ones(x.shape[axis:], x.dtype)
    return call("LayerNormalization", x, ones, None, axis=axis, epsilon=scalar(epsilon))


def _batch_norm(layer: Layer, operands: Operands, constants: Constants) -> Array:
    (x,) = operands
    return _scaled(x, *(_along_channels(constants[role], x) for role in ("scale", "bias")))


def _layer_norm(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, scale, bias) = cast(of.LayerNorm, layer.parameters), operands
    return _scaled(_standardised(x, x.ndim - scale.ndim, given.epsilon), scale, bias)


def _in_groups(x: Array, groups: int, epsilon: float) -> Array:
    normalised = _standardised(call("Reshape", x, (x.shape[0], groups, -1)), 2, epsilon)
    return call("Reshape", normalised, x.shape)


def _instance_norm(layer: Layer, operands: Operands, constants: Constants) -> Array:
    (x,), epsilon = operands, cast(of.InstanceNorm, layer.parameters).epsilon
    scale, bias = (_along_channels(constants[role], x) for role in ("scale", "bias"))
    return _scaled(_in_groups(x, x.shape[1], epsilon), scale, bias)


def _group_norm(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, scale, bias) = cast(of.GroupNorm, layer.parameters), operands
    normalised = _in_groups(x, given.groups, given.epsilon)
    per_channel = (-1, *(1,) * (x.ndim - 2))
    return _scaled(normalised, call("Reshape", scale, per_channel), call("Reshape", bias, per_channel))


def _lrn(layer: Layer, operands: Operands, constants: Constants) -> Array:
    """As ONNX's, but that an even window has one element less: as many channels on either side."""
    given = cast(of.LRN, layer.parameters)
    size = 2 * ((given.length - 1) // 2) + 1
    alpha = scalar(given.alpha) * size / given.length
    attributes = {"alpha": alpha, "beta": scalar(given.beta), "bias": scalar(given.bias)}
    return call("LRN", operands[0], size=size, **attributes)


def _normalize(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(of.Normalize, layer.parameters), operands
    reduction = {1: "ReduceL1", 2: "ReduceL2", 2**31 - 1: "ReduceMax", -(2**31): "ReduceMin"}.get(given.p)
    if reduction is None or given.axis != 1 or given.across_spatial:
        raise UnsupportedOperationError(
            f"Normalize {layer.name!r}: TNN computes norms of order 1, 2 or infinity over axis 1 only"
        )
    size = call(reduction, x, (1,), keepdims=1)
    divisor = call("Max", size, np.asarray(scalar(given.epsilon), x.dtype)) if given.p == 2 else size
    return call("Div", x, divisor)


# --- reductions and selections --------------------------------------------------------------------


def _reduce(operation: str) -> Meaning:
    def reduced(layer: Layer, operands: Operands, constants: Constants) -> Array:
        given = cast(of.Reduce, layer.parameters)
        return call(operation, operands[0], given.axes, keepdims=given.keepdims)

    return reduced


def _arg_max_or_min(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.ArgMaxOrMin, layer.parameters)
    attributes = {
        "axis": given.axis,
        "keepdims": given.keepdims,
        "select_last_index": given.select_last_index,
    }
    return call("ArgMax" if given.mode else "ArgMin", operands[0], **attributes)


def _top_k(layer: Layer, operands: Operands, constants: Constants) -> Operands:
    given = cast(of.TopK, layer.parameters)
    attributes = {"axis": given.axis, "largest": given.largest, "sorted": given.sorted}
    return call_all("TopK", operands[0], np.asarray([given.k]), **attributes)[: len(layer.outputs)]


def _histogram(layer: Layer, operands: Operands, constants: Constants) -> Array:
    depth, ends = cast(of.Histogram, layer.parameters).depth, np.asarray([0, 1], np.int64)
    counted = call("OneHot", _indices(operands[0]).ravel(), np.asarray(depth), ends)
    return call("ReduceSum", counted, (0,), keepdims=0)


def _suppressed(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, limits = cast(of.NonMaxSuppression, layer.parameters), operands
    most = np.asarray([given.max_output_boxes_per_class])
    thresholds = (np.asarray([scalar(v)]) for v in (given.iou_threshold, given.score_threshold))
    attributes = {"center_point_box": given.center_point_box}
    return call("NonMaxSuppression", *limits, most, *thresholds, **attributes)


# --- making and arranging -------------------------------------------------------------------------

_CAST = {2: np.int8, 3: np.int32, 5: np.int64, 6: np.uint32}


def _cast(layer: Layer, operands: Operands, constants: Constants) -> Array:
    """Of its types TNN's number; a float stays of the arithmetic's own."""
    (x,), to = operands, cast(of.Cast, layer.parameters).to
    if to in _CAST:
        return call("Cast", x, to=_CAST[to])
    return x if x.dtype.kind == "f" else call("Cast", x, to=np.float64)


def _concat(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Concat", *operands, axis=cast(of.Axis, layer.parameters).axis)


def _constant_of_shape(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("ConstantOfShape", _integers(operands[0]), value=constants["value"])


def _split(layer: Layer, operands: Operands, constants: Constants) -> Operands:
    given, (x,) = cast(of.SplitV, layer.parameters), operands
    count = len(layer.outputs)
    equal = (x.shape[given.axis] // count,) * count
    return call_all("Split", x, np.asarray(given.sizes or equal), axis=given.axis)


def _permute(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Transpose", operands[0], perm=cast(of.Permute, layer.parameters).order)


def _axes(operation: str) -> Meaning:
    return lambda layer, operands, constants: call(
        operation, operands[0], cast(of.Axes, layer.parameters).axes
    )


def _flatten(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Flatten", operands[0], axis=cast(of.Axis, layer.parameters).axis)


def _reshape(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, *dims) = cast(of.Reshape, layer.parameters), operands
    if given.type or given.axis:
        raise UnsupportedOperationError(
            f"Reshape {layer.name!r} of type {given.type} from axis {given.axis}: only ONNX's row-major one, "
            "type 0 from axis 0, is evaluated"
        )
    return call("Reshape", x, _integers(dims[0]) if dims else given.dims)


def _expand(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, *dims) = cast(of.Expand, layer.parameters), operands
    return call("Expand", x, _integers(dims[0]) if dims else given.dims)


def _tile(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, *repeats) = cast(of.Tile, layer.parameters), operands
    return call("Tile", x, _integers(repeats[0]) if repeats else given.repeats)


def _slice(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, *limits) = cast(of.StridedSliceV2, layer.parameters), operands
    numbers = [_integers(limit) for limit in limits] or [given.begins, given.ends, given.axes, given.strides]
    return call("Slice", x, *numbers)


_PAD_MODES = ("constant", "reflect", "edge")


def _padded(layer: Layer, x: Array, pads: tuple[int, ...]) -> Array:
    given = cast("of.Pad | of.PadV2", layer.parameters)
    if given.type >= len(_PAD_MODES):
        raise UnsupportedOperationError(f"{layer.type} {layer.name!r}: TNN has no pad type {given.type}")
    value = np.asarray(scalar(given.value), x.dtype)
    return call("Pad", x, pads, value, mode=_PAD_MODES[given.type])


def _pad(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.Pad, layer.parameters)
    before, after = (
        (0, given.channels_before, given.top, given.left),
        (0, given.channels_after, given.bottom, given.right),
    )
    return _padded(layer, operands[0], before + after)


def _pad_v2(layer: Layer, operands: Operands, constants: Constants) -> Array:
    x, *pads = operands
    return _padded(layer, x, _integers(pads[0]) if pads else cast(of.PadV2, layer.parameters).pads)


def _reorg(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.Reorg, layer.parameters)
    operation = "DepthToSpace" if given.forward else "SpaceToDepth"
    return call(operation, operands[0], blocksize=given.stride, **({"mode": "CRD"} if given.mode else {}))


def _pixel_shuffle(layer: Layer, operands: Operands, constants: Constants) -> Array:
    factor = cast(of.PixelShuffle, layer.parameters).factor
    return call("DepthToSpace", operands[0], blocksize=factor, mode="CRD")


def _shuffle_channel(layer: Layer, operands: Operands, constants: Constants) -> Array:
    (x,), group = operands, cast(of.ShuffleChannel, layer.parameters).group
    parted = call("Reshape", x, (x.shape[0], group, x.shape[1] // group, -1))
    return call("Reshape", call("Transpose", parted, perm=(0, 2, 1, 3)), x.shape)


def _on(given: of.OneHot) -> float:
    return 1.0 if given.value_on is None else scalar(given.value_on)


def _one_hot(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (indices, *more) = cast(of.OneHot, layer.parameters), operands
    depth = more[0] if more else np.asarray(given.depth)
    ends = more[1] if len(more) > 1 else np.asarray([scalar(given.value_off or 0), _on(given)])
    return call("OneHot", _indices(indices), _indices(depth), ends, axis=given.axis)


def _range(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("Range", *(x.view(np.ndarray).reshape(()) for x in operands))


# --- indexing -------------------------------------------------------------------------------------


def _gather(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, left = cast(of.Gather, layer.parameters), list(operands)
    data = constants["data"] if given.data_constant else left.pop(0)
    indices = constants["indices"] if given.indices_constant else left.pop(0)
    return call("Gather", data, _indices(indices), axis=given.axis)


def _gather_nd(layer: Layer, operands: Operands, constants: Constants) -> Array:
    data, indices = operands
    batch = cast(of.GatherND, layer.parameters).batch_dims
    return call("GatherND", data, _indices(indices), batch_dims=batch)


def _grid_sample(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.GridSample, layer.parameters)
    attributes = {
        "mode": ("nearest", "linear", "cubic")[given.mode - 1],
        "padding_mode": ("zeros", "border", "reflection")[given.pad_type],
        "align_corners": given.align_corners,
    }
    return call("GridSample", *operands, **attributes)


def _roi_align(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x, regions, batch) = cast(of.RoiAlign, layer.parameters), operands
    attributes = {
        "mode": "avg" if given.mode else "max",
        "output_height": given.output_height,
        "output_width": given.output_width,
        "sampling_ratio": given.sampling_ratio,
        "spatial_scale": scalar(given.spatial_scale),
        # TNN subtracts no half pixel, as ONNX did before version 16.
        "coordinate_transformation_mode": "output_half_pixel",
    }
    return call("RoiAlign", x, regions, _indices(batch), **attributes)


def _with_scattered(operands: Operands, constants: Constants) -> tuple[Array, Array, Array]:
    """Return data, indices and updates, of which the layer's own constants may be some."""
    data, *left = operands
    indices = constants["indices"] if "indices" in constants else left.pop(0)
    updates = constants["updates"] if "updates" in constants else left.pop(0)
    return data, _indices(indices), updates


def _scatter(layer: Layer, operands: Operands, constants: Constants) -> Array:
    axis = cast(of.Axis, layer.parameters).axis
    return call("ScatterElements", *_with_scattered(operands, constants), axis=axis)


def _scatter_elements(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(of.ScatterElements, layer.parameters)
    reduction = {"reduction": "add"} if given.reduction else {}
    scattered = _with_scattered(operands, constants)
    return call("ScatterElements", *scattered, axis=given.axis, **reduction)


def _scatter_nd(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return call("ScatterND", *_with_scattered(operands, constants))


# --- dialects -------------------------------------------------------------------------------------


def _colour_guide(layer: Layer, operands: Operands, constants: Constants) -> Array:
    """A colour matrix, a curve of four kinks per channel, their mix, clipped to 0 … 1."""
    (x,) = operands
    mixed = call("Conv", x, constants["ccm weight"].reshape(3, 3, 1, 1), constants["ccm bias"])
    shifts, slopes = (constants[role].reshape(3, 4, 1, 1) for role in ("shifts", "slopes"))
    kinks = call("Relu", call("Sub", call("Unsqueeze", mixed, (2,)), shifts))
    curves = call("ReduceSum", call("Mul", kinks, slopes), (2,), keepdims=0)
    projection = constants["projection weight"].reshape(1, 3, 1, 1)
    return call("Clip", call("Conv", curves, projection, constants["projection bias"]), 0.0, 1.0)


def _inverse(layer: Layer, operands: Operands, constants: Constants) -> Array:
    """The inverse of matrices of 2 × 2, the only ones that TNN inverts."""
    (x,) = operands
    if x.shape[-2:] != (2, 2):
        raise UnsupportedOperationError(f"Inverse {layer.name!r}: TNN inverts matrices of 2 × 2 only")
    flat = call("Reshape", x, (*x.shape[:-2], 4))
    a, b, c, d = (call("Gather", flat, np.asarray([place]), axis=-1) for place in range(4))
    determinant = call("Sub", call("Mul", a, d), call("Mul", b, c))
    adjugate = call("Concat", d, call("Neg", b), call("Neg", c), a, axis=-1)
    return call("Reshape", call("Div", adjugate, determinant), x.shape)


def _prior_boxes(layer: Layer, operands: Operands, constants: Constants) -> Array:
    """(1, 2, 4 · boxes, 1): corners of boxes about the centre of each place, over the image; variances.

    They depend on the shapes alone. Sizes and steps are whole numbers.
    """
    given, (x, *image) = cast(of.PriorBox, layer.parameters), operands
    height, width = given.image_h, given.image_w
    if not height or not width:
        height, width = image[0].shape[2:]
    rows, columns = x.shape[2:]
    step_h, step_w = int(given.step_h), int(given.step_w)
    if not step_h or not step_w:
        step_h, step_w = height / rows, width / columns
    sizes = _box_sizes(layer, given)
    across, down = (np.arange(columns) + given.offset) * step_w, (np.arange(rows) + given.offset) * step_h
    centres = np.stack(np.broadcast_arrays(across, down[:, None]), axis=-1)[:, :, None]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    boxes = boxes / (width, height, width, height)
    if given.clip:
        boxes = np.clip(boxes, 0, 1)
    values = np.stack([boxes, np.broadcast_to(given.variances, boxes.shape)])
    return call("Identity", values.reshape(1, 2, -1, 1).astype(x.dtype))


def _box_sizes(layer: Layer, given: of.PriorBox) -> Array:
    """Return widths and heights: the smallest, its mean with the largest, and one per ratio that is not 1."""
    sizes: list[tuple[float, float]] = []
    for place, smallest in enumerate(int(size) for size in given.min_sizes):
        sizes.append((smallest, smallest))
        if given.max_sizes:
            sizes.append((math.sqrt(smallest * int(given.max_sizes[place])),) * 2)
        roots = [math.sqrt(scalar(ratio)) for ratio in given.aspect_ratios if abs(ratio - 1) >= 1e-6]
        sizes += [(smallest * root, smallest / root) for root in roots]
    if len(sizes) != len(given.aspect_ratios) * len(given.min_sizes) + len(given.max_sizes):
        raise UnsupportedOperationError(
            f"PriorBox {layer.name!r}: TNN leaves boxes undefined unless exactly one of the ratios is 1"
        )
    return np.array(sizes)


def _not_evaluated(layer: Layer, operands: Operands, constants: Constants) -> Array:
    raise UnsupportedOperationError(
        f"{layer.type} {layer.name!r} stands for no operator of ONNX; it is read and written, not evaluated"
    )


MEANINGS: dict[str, Meaning] = {
    "Convolution": _convolution,
    "Convolution1D": _convolution,
    "Convolution3D": _convolution,
    "Deconvolution": _deconvolution,
    "Pooling": _pooling,
    "Pooling1D": _pooling,
    "Pooling3D": _pooling,
    "Upsample": _upsample,
    "InnerProduct": _inner_product,
    "MatMul": _binary("MatMul"),
    "Einsum": _einsum,
    "LSTMONNX": _lstm,
    "Add": _binary("Add"),
    "Sub": _binary("Sub"),
    "Mul": _binary("Mul"),
    "Div": _binary("Div"),
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
    "And": _comparison("And"),
    "Greater": _comparison("Greater"),
    "Less": _comparison("Less"),
    "Equal": _comparison("Equal"),
    "Not": _comparison("Not"),
    "Where": _where,
    "Power": _power,
    "BitShift": _bit_shift,
    "Rsqrt": _rsqrt,
    **{
        name: _unary(name)
        for name in (
            *("Abs", "Acos", "Asin", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Neg"),
            *("Reciprocal", "Sign", "Sin", "Sqrt", "Tan", "Tanh", "Sigmoid", "Softplus", "Softsign"),
            *("NonZero", "Shape", "Size"),
        )
    },
    "Clip": _clip,
    "Elu": _elu,
    "GELU": _unary("Gelu"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LogSigmoid": _log_sigmoid,
    "LogSoftmax": _softmax("LogSoftmax"),
    "PReLU": _prelu,
    "ReLU": _unary("Relu"),
    "ReLU6": _unary("Clip", 0.0, 6.0),
    "Selu": _selu,
    "SignedMul": _signed_mul,
    "SoftmaxCaffe": _softmax("Softmax"),
    "Swish": _swish,
    "BatchNormCxx": _batch_norm,
    "GroupNorm": _group_norm,
    "InstBatchNormCxx": _instance_norm,
    "LayerNorm": _layer_norm,
    "LRN": _lrn,
    "Normalize": _normalize,
    **{
        name: _reduce(name)
        for name in (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
            *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        )
    },
    "ArgMaxOrMin": _arg_max_or_min,
    "TopK": _top_k,
    "Histogram": _histogram,
    "NonMaxSuppression": _suppressed,
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "OneHot": _one_hot,
    "Pad": _pad,
    "PadV2": _pad_v2,
    "Permute": _permute,
    "PixelShuffle": _pixel_shuffle,
    "Range": _range,
    "Reorg": _reorg,
    "Reshape": _reshape,
    "ShuffleChannel": _shuffle_channel,
    "SplitV": _split,
    "Squeeze": _axes("Squeeze"),
    "StridedSliceV2": _slice,
    "Tile": _tile,
    "Unsqueeze": _axes("Unsqueeze"),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "GridSample": _grid_sample,
    "RoiAlign": _roi_align,
    "Scatter": _scatter,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "HDRGuide": _colour_guide,
    "DetectionOutput": _not_evaluated,
    "Inverse": _inverse,
    "PriorBox": _prior_boxes,
}
"""What computes each type of `conformance.tnn.layers.LAYER_TYPES`."""

LINEAR = (
    *("Convolution", "Convolution1D", "Convolution3D", "Deconvolution", "InnerProduct", "MatMul"),
    *("Add", "Sub", "BatchNormCxx", "Einsum", "ReduceSum"),
)
"""Layers that add up products of what they are given."""
