"""What an IR of OpenVINO means, as an ONNX graph: each layer as the nodes that it stands for.

Source: https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.openvino_model import (
    OpenVinoLayer,
    integer_weight,
    is_widened,
    of_integers,
    whole_numbers,
)
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array


def openvino_graph(
    layers: Sequence[OpenVinoLayer], inputs: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return the graph that an IR computes.

    Parameters
    ----------
    layers
    inputs
        Of the source: name → shape, in the order of the model's own.
    outputs
        Of the source; those of other names in the model are taken in order.

    Raises
    ------
    UnsupportedOperationError
        A layer, or a way of it, whose meaning is not written down here.
    ShapeError
        The model takes other inputs.
    FileError
        A layer lacks what it should be told.
    """
    writer = _Writer(layers, {*inputs, *outputs})
    try:
        return _written(writer, layers, inputs, outputs)
    except MobileInstError:
        raise
    except (KeyError, IndexError, ValueError) as error:
        raise FileError(f"{writer.prefix}: it is malformed: {type(error).__name__} {error}") from error


def _written(
    writer: _Writer,
    layers: Sequence[OpenVinoLayer],
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    given = [place for place, layer in enumerate(layers) if layer.kind == "Parameter"]
    shapes = [layers[place].shapes[0] for place in given]
    if sorted(shapes) != sorted(map(tuple, inputs.values())):
        raise ShapeError(f"the model takes {shapes}, its source {[*map(tuple, inputs.values())]}")
    own = {layers[place].names[0]: place for place in given}
    for name, place in zip(inputs, given, strict=True):
        writer.known[own.get(name, place), 0] = name
    for place, layer in enumerate(layers):
        if layer.kind in ("Parameter", "Const", "Result") or is_widened(layers, layer):
            continue
        if layer.kind not in _LAYERS:
            raise UnsupportedOperationError(f"{layer.name}: what {layer.kind} means is not written down")
        writer.prefix = f"{layer.kind} {layer.name}"
        made = _LAYERS[layer.kind](writer, layer)
        for port, name in enumerate([made] if isinstance(made, str) else made):
            writer.done(place, port, name)
    results = [layer.inputs[0] for layer in layers if layer.kind == "Result"]
    called = {layers[place].names[port]: (place, port) for place, port in results}
    for name, end in zip(outputs, results, strict=False):
        writer.node("Identity", [writer.tensor(*called.get(name, end))], name)
    return writer.model("openvino", inputs, outputs)


class _Writer(GraphWriter):
    """And the results of the layers."""

    def __init__(self, layers: Sequence[OpenVinoLayer], taken: set[str]) -> None:
        super().__init__()
        self.layers, self.taken = layers, taken
        self.known: dict[tuple[int, int], str] = {}

    def tensor(self, place: int, port: int) -> str:
        """Return the name of a result; a constant is written first."""
        layer = self.layers[place]
        held = layer.constant
        if (place, port) not in self.known and held is not None:
            self.known[place, port] = self.constant(
                held.astype(np.int64) if held.dtype.kind in "iu" else held
            )
        if (place, port) not in self.known and port < len(layer.shapes):
            raise UnsupportedOperationError(f"{layer.kind} {layer.name}: result {port} is not written down")
        return self.known[place, port]

    def shape_of(self, layer: OpenVinoLayer, operand: int) -> tuple[int, ...]:
        """Return the shape of what a layer takes."""
        place, port = layer.inputs[operand]
        return self.layers[place].shapes[port]

    def is_boolean(self, layer: OpenVinoLayer, operand: int) -> bool:
        """Tell whether what a layer takes is true or false."""
        place, port = layer.inputs[operand]
        return self.layers[place].precisions[port] == "BOOL"

    def unknown(self, what: str) -> UnsupportedOperationError:
        """Return the error for a way of a layer that has no meaning here."""
        return UnsupportedOperationError(f"{self.prefix}: {what} is not written down")

    def operands(self, layer: OpenVinoLayer) -> list[str]:
        """Return the names of what a layer takes."""
        return [self.tensor(*end) for end in layer.inputs]

    def fixed(self, layer: OpenVinoLayer, operand: int) -> Array:
        """Return an operand that must be constant, also behind a conversion."""
        place, _ = layer.inputs[operand]
        while self.layers[place].kind == "Convert":
            place, _ = self.layers[place].inputs[0]
        held = self.layers[place].constant
        if held is None:
            raise UnsupportedOperationError(
                f"{self.prefix}: operand {operand} is computed; expected a constant"
            )
        return held

    def whole(self, layer: OpenVinoLayer, operand: int) -> list[int]:
        """Return the numbers of an operand that must be constant."""
        return [int(number) for number in self.fixed(layer, operand).ravel()]

    def done(self, place: int, port: int, name: str) -> None:
        """Give a layer's result, under the name that the source had for it."""
        own = self.layers[place].names[port]
        unused = own and own not in self.taken
        self.taken.add(own)
        self.known[place, port] = self.node("Identity", [name], own if unused else self.fresh("result"))


Made = str | list[str]
"""The name of a layer's first result, or of all."""
Write = Callable[[_Writer, OpenVinoLayer], Made]
"""Writes a layer."""


def _named(kind: str, **attributes: Any) -> Callable[[_Writer, OpenVinoLayer], str]:
    """Return what writes a layer that ONNX has under another name."""
    return lambda writer, layer: writer.node(kind, writer.operands(layer), **attributes)


_AUTO = {"valid": "VALID", "same_upper": "SAME_UPPER", "same_lower": "SAME_LOWER"}
"""``auto_pad``; else it is by numbers."""


def _pads(writer: _Writer, layer: OpenVinoLayer) -> dict[str, Any]:
    told = layer.data.get("auto_pad", "explicit").lower()
    if told in _AUTO:
        return {"auto_pad": _AUTO[told]}
    if told not in ("explicit", "notset"):
        raise writer.unknown(f"auto_pad {told}")
    return {"pads": whole_numbers(layer.data["pads_begin"]) + whole_numbers(layer.data["pads_end"])}


def _fake_quantize(writer: _Writer, layer: OpenVinoLayer) -> str:
    """As integers of a scale and a zero point, which ends of a range stand for."""
    low, high, *others = (writer.fixed(layer, operand).astype(np.float64) for operand in range(1, 5))
    levels = int(layer.data["levels"])
    if not all(map(np.array_equal, (low, high), others)) or levels not in (255, 256):
        raise UnsupportedOperationError(f"{writer.prefix}: this way of quantising is not written down")
    scale = (high - low) / (levels - 1)
    point, wide = np.rint(-low / scale), max(low.shape, default=1)
    if wide != low.size or np.abs(point + low / scale).max() > _OFF_GRID:
        raise UnsupportedOperationError(f"{writer.prefix}: zero is no multiple of a step; not written down")
    axis = low.shape.index(wide) if wide > 1 else 0
    held = (scale.astype(np.float32), point.astype(np.uint8))
    grid = [writer.constant(each.reshape(-1) if wide > 1 else each.reshape(())) for each in held]
    return writer.quantized(writer.operands(layer)[0], grid, integers_name(layer), axis=axis)


def integers_name(layer: OpenVinoLayer) -> str:
    """Return what the integers of a FakeQuantize are called: as OpenVINO calls its result."""
    return layer.names[0] or f"{layer.name}:0"


_OFF_GRID = 0.01
"""Steps that a zero point may be off a whole one: ends of ranges are float32."""


def _window(writer: _Writer, layer: OpenVinoLayer, *names: str) -> dict[str, Any]:
    return {**_pads(writer, layer), **{name: whole_numbers(layer.data[name]) for name in names}}


def _convolution(writer: _Writer, layer: OpenVinoLayer) -> str:
    x, kernel = writer.operands(layer)
    groups = 1
    if layer.kind == "GroupConvolution":
        place, port = layer.inputs[1]
        shape = writer.layers[place].shapes[port]
        groups = shape[0]
        kernel = writer.node("Reshape", [kernel, writer.shape(shape[0] * shape[1], *shape[2:])])
    return writer.node("Conv", [x, kernel], group=groups, **_window(writer, layer, "strides", "dilations"))


def _transposed_convolution(writer: _Writer, layer: OpenVinoLayer) -> str:
    x, kernel, *others = writer.operands(layer)
    if others:
        raise writer.unknown("the shape of a transposed convolution's result")
    groups, how = 1, _window(writer, layer, "strides", "dilations")
    if layer.kind.startswith("Group"):
        shape = writer.shape_of(layer, 1)
        groups = shape[0]
        kernel = writer.node("Reshape", [kernel, writer.shape(shape[0] * shape[1], *shape[2:])])
    if "output_padding" in layer.data:
        how["output_padding"] = whole_numbers(layer.data["output_padding"])
    return writer.node("ConvTranspose", [x, kernel], group=groups, **how)


_ROUNDED = {"floor": 0, "ceil": 1, "ceil_torch": 1}


def _pooling(writer: _Writer, layer: OpenVinoLayer) -> str:
    rounding = layer.data.get("rounding_type", "floor")
    if rounding not in _ROUNDED:
        raise writer.unknown(f"rounding_type {rounding}")
    how = {**_window(writer, layer, "strides"), "kernel_shape": whole_numbers(layer.data["kernel"])}
    how["ceil_mode"] = _ROUNDED[rounding]
    ones = ", ".join("1" for _ in how["kernel_shape"])
    dilations = whole_numbers(layer.data.get("dilations", ones))
    x = writer.operands(layer)[0]
    if layer.kind == "MaxPool":
        return writer.node("MaxPool", [x], dilations=dilations, **how)
    if any(each != 1 for each in dilations):
        raise writer.unknown("a dilated mean")
    counted = int(layer.data["exclude-pad"] != "true")
    return writer.node("AveragePool", [x], count_include_pad=counted, **how)


def _matmul(writer: _Writer, layer: OpenVinoLayer) -> str:
    operands = []
    for name, end, side in zip(writer.operands(layer), layer.inputs, "ab", strict=True):
        swapped = layer.data.get(f"transpose_{side}", "false") == "true"
        operands.append(_swapped(writer, name, end) if swapped else name)
    return writer.node("MatMul", operands)


def _swapped(writer: _Writer, name: str, end: tuple[int, int]) -> str:
    axes = [*range(len(writer.layers[end[0]].shapes[end[1]]))]
    return writer.node("Transpose", [name], perm=[*axes[:-2], axes[-1], axes[-2]])


def _attention(writer: _Writer, layer: OpenVinoLayer) -> str:
    """Softmax(q · kᵀ · scale + mask) · v."""
    if layer.data.get("causal") == "true":
        raise UnsupportedOperationError(f"{writer.prefix}: a causal one is not written down")
    query, key, value, *others = writer.operands(layer)
    width = writer.layers[layer.inputs[0][0]].shapes[layer.inputs[0][1]][-1]
    scale = others[1] if len(others) > 1 else writer.scalar(1 / np.sqrt(width))
    logits = writer.node("MatMul", [query, _swapped(writer, key, layer.inputs[1])])
    logits = writer.node("Mul", [logits, scale])
    if others and writer.is_boolean(layer, 3):
        logits = writer.node("Where", [others[0], logits, writer.scalar(-np.inf)])
        weights = writer.node("Softmax", [logits], axis=-1)
        # Of a row that sees nothing, nothing is made.
        weights = writer.node("Where", [others[0], weights, writer.scalar(0.0)])
        return writer.node("MatMul", [weights, value])
    if others:
        logits = writer.node("Add", [logits, others[0]])
    return writer.node("MatMul", [writer.node("Softmax", [logits], axis=-1), value])


def _mvn(writer: _Writer, layer: OpenVinoLayer) -> str:
    if layer.data["normalize_variance"] != "true":
        raise writer.unknown("normalising without a variance")
    x, axes = writer.operands(layer)
    apart = writer.node("Sub", [x, writer.node("ReduceMean", [x, axes], keepdims=1)])
    variance = writer.node("ReduceMean", [writer.node("Mul", [apart, apart]), axes], keepdims=1)
    epsilon = writer.scalar(float(layer.data["eps"]))
    if layer.data["eps_mode"].upper() == "INSIDE_SQRT":
        return writer.node("Div", [apart, writer.node("Sqrt", [writer.node("Add", [variance, epsilon])])])
    return writer.node("Div", [apart, writer.node("Add", [writer.node("Sqrt", [variance]), epsilon])])


def _clamp(writer: _Writer, layer: OpenVinoLayer) -> str:
    limits = (writer.scalar(float(layer.data[end])) for end in ("min", "max"))
    return writer.node("Clip", [*writer.operands(layer), *limits])


def _hard_sigmoid(writer: _Writer, layer: OpenVinoLayer) -> str:
    alpha, beta = (float(writer.fixed(layer, operand).ravel()[0]) for operand in (1, 2))
    return writer.node("HardSigmoid", writer.operands(layer)[:1], alpha=alpha, beta=beta)


def _interpolate(writer: _Writer, layer: OpenVinoLayer) -> str:
    data = layer.data
    mode = {"linear_onnx": "linear", "nearest": "nearest", "cubic": "cubic"}.get(data["mode"])
    padded = any(whole_numbers(data["pads_begin"]) + whole_numbers(data["pads_end"]))
    if mode is None or data["antialias"] == "true" or padded:
        raise UnsupportedOperationError(f"{writer.prefix}: this way of resizing is not written down")
    how: dict[str, Any] = {
        "coordinate_transformation_mode": data["coordinate_transformation_mode"],
        "mode": mode,
    }
    if mode == "cubic":
        how["cubic_coeff_a"] = float(data["cube_coeff"])
    operands = [writer.operands(layer)[0], "", "", writer.shape(*layer.shapes[0])]
    return writer.node("Resize", operands, nearest_mode=data["nearest_mode"], **how)


def _reduced(kind: str) -> Callable[[_Writer, OpenVinoLayer], str]:
    return lambda writer, layer: writer.node(
        kind, writer.operands(layer), keepdims=int(layer.data["keep_dims"] == "true")
    )


def _reshape(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Reshape", [writer.operands(layer)[0], writer.shape(*layer.shapes[0])])


def _transpose(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Transpose", writer.operands(layer)[:1], perm=writer.whole(layer, 1))


_CASTS = {
    "boolean": TensorProto.BOOL, "f32": TensorProto.FLOAT, "i32": TensorProto.INT64, "i64": TensorProto.INT64,
}  # fmt: skip


def _convert(writer: _Writer, layer: OpenVinoLayer) -> str:
    """Constants of half precision are widened as they are written."""
    target = layer.data["destination_type"]
    if target not in _CASTS:
        raise writer.unknown(f"to {target}")
    return writer.node("Cast", writer.operands(layer), to=_CASTS[target])


def _gelu(writer: _Writer, layer: OpenVinoLayer) -> str:
    by_tanh = layer.data.get("approximation_mode", "ERF").upper() == "TANH"
    return writer.gelu(writer.operands(layer)[0], by_tanh=by_tanh)


def _swish(writer: _Writer, layer: OpenVinoLayer) -> str:
    x, *factor = writer.operands(layer)
    scaled = writer.node("Mul", [x, *factor]) if factor else x
    return writer.node("Mul", [x, writer.node("Sigmoid", [scaled])])


def _selu(writer: _Writer, layer: OpenVinoLayer) -> str:
    alpha, gamma = (float(writer.fixed(layer, operand).ravel()[0]) for operand in (1, 2))
    return writer.node("Selu", writer.operands(layer)[:1], alpha=alpha, gamma=gamma)


def _elu(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Elu", writer.operands(layer), alpha=float(layer.data["alpha"]))


def _prelu(writer: _Writer, layer: OpenVinoLayer) -> str:
    """A list of slopes is one for each channel."""
    x, slope = writer.operands(layer)
    shape, own = writer.shape_of(layer, 0), writer.shape_of(layer, 1)
    if len(own) == 1 and len(shape) > 1 and own[0] == shape[1]:
        slope = writer.node("Reshape", [slope, writer.shape(-1, *(1 for _ in shape[2:]))])
    return writer.node("PRelu", [x, slope])


def _round(writer: _Writer, layer: OpenVinoLayer) -> str:
    if layer.data.get("mode", "half_to_even").lower() != "half_to_even":
        raise writer.unknown(f"rounding {layer.data['mode']}")
    return writer.node("Round", writer.operands(layer))


def _squared_difference(writer: _Writer, layer: OpenVinoLayer) -> str:
    apart = writer.node("Sub", writer.operands(layer))
    return writer.node("Mul", [apart, apart])


def _not_equal(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Not", [writer.node("Equal", writer.operands(layer))])


def _slice(writer: _Writer, layer: OpenVinoLayer) -> str:
    """Begin, end, step, and the axes if not all from the first on."""
    x, begin, end, step, *axes = writer.operands(layer)
    held = axes or [writer.shape(*range(writer.shape_of(layer, 1)[0]))]
    return writer.node("Slice", [x, begin, end, *held, step])


def _strided_slice(writer: _Writer, layer: OpenVinoLayer) -> str:
    masks = {name: _mask(layer.data, f"{name}_mask") for name in ("begin", "end", "new_axis", "ellipsis")}
    if masks["new_axis"] or masks["ellipsis"]:
        raise writer.unknown("a slice by masks")
    begins, ends = (writer.whole(layer, operand) for operand in (1, 2))
    steps = writer.whole(layer, 3) if len(layer.inputs) > 3 else [1] * len(begins)
    shrunk = _mask(layer.data, "shrink_axis_mask")
    most = np.iinfo(np.int64).max
    for axis, step in enumerate(steps):
        begins[axis] = (0 if step > 0 else most) if axis in masks["begin"] else begins[axis]
        ends[axis] = (most if step > 0 else -most) if axis in masks["end"] else ends[axis]
        if axis in shrunk:
            ends[axis] = begins[axis] + 1 or most
    lists = [writer.shape(*each) for each in (begins, ends, range(len(begins)), steps)]
    made = writer.node("Slice", [writer.operands(layer)[0], *lists])
    return writer.node("Reshape", [made, writer.shape(*layer.shapes[0])]) if shrunk else made


def _mask(data: Mapping[str, str], name: str) -> set[int]:
    """Return the axes that a mask marks."""
    return {axis for axis, marked in enumerate(whole_numbers(data.get(name, ""))) if marked}


def _gather(writer: _Writer, layer: OpenVinoLayer) -> str:
    if int(layer.data.get("batch_dims", 0)):
        raise writer.unknown("a batch of what is gathered")
    (axis,) = writer.whole(layer, 2)
    return writer.node("Gather", writer.operands(layer)[:2], axis=axis)


def _split(writer: _Writer, layer: OpenVinoLayer) -> list[str]:
    """Parts all alike, or of these lengths."""
    (axis,), x, count = writer.whole(layer, 1), writer.operands(layer)[0], len(layer.shapes)
    if layer.kind == "Split":
        return writer.several("Split", [x], count, axis=axis, num_outputs=count)
    lengths = writer.shape(*(shape[axis] for shape in layer.shapes))
    return writer.several("Split", [x, lengths], count, axis=axis)


def _top_k(writer: _Writer, layer: OpenVinoLayer) -> list[str]:
    sort = layer.data.get("sort", "value").lower()
    if sort != "value" and writer.whole(layer, 1) != [1]:
        raise writer.unknown(f"the largest sorted by {sort}")
    x, count = writer.operands(layer)
    how = {"axis": int(layer.data["axis"]), "largest": int(layer.data["mode"].lower() == "max")}
    return writer.several("TopK", [x, writer.node("Reshape", [count, writer.shape(1)])], 2, **how)


_PADDED = {"constant": "constant", "reflect": "reflect", "edge": "edge"}


def _pad(writer: _Writer, layer: OpenVinoLayer) -> str:
    mode = _PADDED.get(layer.data["pad_mode"].lower())
    if mode is None:
        raise writer.unknown(f"pad_mode {layer.data['pad_mode']}")
    x, begins, ends, *value = writer.operands(layer)
    return writer.node("Pad", [x, writer.node("Concat", [begins, ends], axis=0), *value], mode=mode)


def _broadcast(writer: _Writer, layer: OpenVinoLayer) -> str:
    if layer.data.get("mode", "numpy").lower() not in ("numpy", "bidirectional") or len(layer.inputs) > 2:
        raise writer.unknown("broadcasting by a list of axes")
    return writer.node("Expand", writer.operands(layer))


def _depth_to_space(writer: _Writer, layer: OpenVinoLayer) -> str:
    mode = {"blocks_first": "DCR", "depth_first": "CRD"}[layer.data["mode"].lower()]
    size = int(layer.data.get("block_size", 1))
    return writer.node("DepthToSpace", writer.operands(layer), mode=mode, blocksize=size)


def _space_to_depth(writer: _Writer, layer: OpenVinoLayer) -> str:
    if layer.data["mode"].lower() != "blocks_first":
        raise writer.unknown(f"mode {layer.data['mode']}")
    return writer.node("SpaceToDepth", writer.operands(layer), blocksize=int(layer.data.get("block_size", 1)))


def _group_norm(writer: _Writer, layer: OpenVinoLayer) -> str:
    x, scale, shift = writer.operands(layer)
    shape, groups = writer.shape_of(layer, 0), int(layer.data["num_groups"])
    wide = writer.node("Reshape", [x, writer.shape(shape[0], groups, -1)])
    ones, zeros = (writer.constant(np.full(groups, each, np.float32)) for each in (1, 0))
    epsilon = float(layer.data["epsilon"])
    normed = writer.node("InstanceNormalization", [wide, ones, zeros], epsilon=epsilon)
    made = writer.node("Reshape", [normed, writer.shape(*shape)])
    sides = writer.shape(-1, *(1 for _ in shape[2:]))
    scale, shift = (writer.node("Reshape", [each, sides]) for each in (scale, shift))
    return writer.node("Add", [writer.node("Mul", [made, scale]), shift])


def _unit_length(writer: _Writer, layer: OpenVinoLayer) -> str:
    """Divided by the root of the squares' sum, which is at least epsilon, or to which that is added."""
    x, axes = writer.operands(layer)
    total = writer.node("ReduceSum", [writer.node("Mul", [x, x]), axes], keepdims=1)
    kind = "Add" if layer.data["eps_mode"].lower() == "add" else "Max"
    held = writer.node(kind, [total, writer.scalar(float(layer.data["eps"]))])
    return writer.node("Div", [x, writer.node("Sqrt", [held])])


def _local_norm(writer: _Writer, layer: OpenVinoLayer) -> str:
    if writer.whole(layer, 1) != [1]:
        raise writer.unknown("normalising over other axes than channels")
    how: dict[str, Any] = {name: float(layer.data[name]) for name in ("alpha", "beta", "bias")}
    return writer.node("LRN", writer.operands(layer)[:1], size=int(layer.data["size"]), **how)


def _cumulative(writer: _Writer, layer: OpenVinoLayer) -> str:
    how: dict[str, Any] = {
        name: int(layer.data.get(name, "false") == "true") for name in ("exclusive", "reverse")
    }
    return writer.node("CumSum", writer.operands(layer), **how)


_SCATTERED = {"none": "none", "sum": "add", "prod": "mul", "max": "max", "min": "min"}


def _scatter(writer: _Writer, layer: OpenVinoLayer) -> str:
    told = layer.data.get("reduction", "none").lower()
    if told not in _SCATTERED or layer.data.get("use_init_val", "true") != "true":
        raise writer.unknown(f"reduction {told}")
    how: dict[str, Any] = {"reduction": _SCATTERED[told]}
    if layer.kind.startswith("ScatterND"):
        return writer.node("ScatterND", writer.operands(layer), **how)
    (how["axis"],) = writer.whole(layer, 3)
    return writer.node("ScatterElements", writer.operands(layer)[:3], **how)


def _one_hot(writer: _Writer, layer: OpenVinoLayer) -> str:
    indices, depth, on, off = writer.operands(layer)
    sides = [writer.node("Reshape", [each, writer.shape(1)]) for each in (off, on)]
    values = writer.node("Concat", sides, axis=0)
    return writer.node("OneHot", [indices, depth, values], axis=int(layer.data["axis"]))


def _is_infinite(writer: _Writer, layer: OpenVinoLayer) -> str:
    ends = ("detect_negative", "detect_positive")
    how: dict[str, Any] = {each: int(layer.data.get(each, "true") == "true") for each in ends}
    return writer.node("IsInf", writer.operands(layer), **how)


def _gather_elements(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("GatherElements", writer.operands(layer), axis=int(layer.data["axis"]))


def _gather_nd(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("GatherND", writer.operands(layer), batch_dims=int(layer.data.get("batch_dims", 0)))


def _along(kind: str) -> Write:
    return lambda writer, layer: writer.node(kind, writer.operands(layer), axis=int(layer.data["axis"]))


def _multiply(writer: _Writer, layer: OpenVinoLayer) -> str:
    """A product; of a weight's integers and their scale what they stand for, which float32 holds exactly."""
    weight = integer_weight(writer.layers, layer)
    if weight is not None:
        return writer.constant(weight.numbers.astype(np.float32))
    if of_integers(writer.layers, layer):
        raise UnsupportedOperationError(f"{writer.prefix}: integers of a computed scale are not written down")
    return _named("Mul")(writer, layer)


_ALIKE = (
    "Abs", "Acos", "Acosh", "Add", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Equal", "Erf", "Exp",
    "Floor", "Greater", "Identity", "IsNaN", "Less", "Log", "Mish", "Range", "Sigmoid", "Sign", "Sin", "Sinh",
    "Sqrt", "Tan", "Tanh", "Tile",
)  # fmt: skip
"""Layers that are an operator of ONNX of the same name."""
_CALLED = {
    "Ceiling": "Ceil", "Divide": "Div", "GreaterEqual": "GreaterOrEqual", "HSwish": "HardSwish",
    "LessEqual": "LessOrEqual", "LogicalAnd": "And", "LogicalNot": "Not", "LogicalOr": "Or",
    "LogicalXor": "Xor", "Maximum": "Max", "Minimum": "Min", "Negative": "Neg", "Power": "Pow",
    "ReLU": "Relu", "Select": "Where", "ShapeOf": "Shape", "SoftPlus": "Softplus", "SoftSign": "Softsign",
    "Subtract": "Sub", "ConvertLike": "CastLike",
}  # fmt: skip
"""Layers that are an operator of another name."""
_REDUCED = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
_LAYERS: dict[str, Write] = {
    **{kind: _named(kind) for kind in _ALIKE},
    **{kind: _named(other) for kind, other in _CALLED.items()},
    **{kind: _reduced(kind) for kind in _REDUCED},
    "AvgPool": _pooling,
    "Broadcast": _broadcast,
    "Clamp": _clamp,
    "Concat": _along("Concat"),
    "Convert": _convert,
    "Convolution": _convolution,
    "ConvolutionBackpropData": _transposed_convolution,
    "CumSum": _cumulative,
    "DepthToSpace": _depth_to_space,
    "Elu": _elu,
    "FakeQuantize": _fake_quantize,
    "FloorMod": _named("Mod"),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "GroupConvolution": _convolution,
    "GroupConvolutionBackpropData": _transposed_convolution,
    "GroupNormalization": _group_norm,
    "HSigmoid": _named("HardSigmoid", alpha=1 / 6, beta=0.5),
    "HardSigmoid": _hard_sigmoid,
    "Interpolate": _interpolate,
    "IsInf": _is_infinite,
    "LRN": _local_norm,
    "LogSoftmax": _along("LogSoftmax"),
    "MVN": _mvn,
    "MatMul": _matmul,
    "MaxPool": _pooling,
    "Mod": _named("Mod", fmod=1),
    "Multiply": _multiply,
    "NormalizeL2": _unit_length,
    "NotEqual": _not_equal,
    "OneHot": _one_hot,
    "PReLU": _prelu,
    "Pad": _pad,
    "Reshape": _reshape,
    "Round": _round,
    "ScaledDotProductAttention": _attention,
    "ScatterElementsUpdate": _scatter,
    "ScatterNDUpdate": _scatter,
    "Selu": _selu,
    "Slice": _slice,
    "SoftMax": _along("Softmax"),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "SquaredDifference": _squared_difference,
    "Squeeze": _reshape,
    "StridedSlice": _strided_slice,
    "Swish": _swish,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "VariadicSplit": _split,
}
