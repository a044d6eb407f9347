"""What an IR of OpenVINO means, as an ONNX graph: each layer as the nodes that it stands for.

Source: https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

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
        writer.done(place, _LAYERS[layer.kind](writer, layer))
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
        held = self.layers[place].constant
        if (place, port) not in self.known and held is not None:
            self.known[place, port] = self.constant(held)
        return self.known[place, port]

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

    def done(self, place: int, name: str) -> None:
        """Give a layer's first result, under the name that the source had for it."""
        own = self.layers[place].names[0]
        unused = own and own not in self.taken
        self.taken.add(own)
        self.known[place, 0] = self.node("Identity", [name], own if unused else self.fresh("result"))


def _named(kind: str) -> Callable[[_Writer, OpenVinoLayer], str]:
    """Return what writes a layer that ONNX has under another name."""
    return lambda writer, layer: writer.node(kind, writer.operands(layer))


def _pads(writer: _Writer, layer: OpenVinoLayer) -> list[int]:
    if layer.data.get("auto_pad", "explicit") != "explicit":
        raise UnsupportedOperationError(
            f"{writer.prefix}: auto_pad {layer.data['auto_pad']} is not written down"
        )
    return whole_numbers(layer.data["pads_begin"]) + whole_numbers(layer.data["pads_end"])


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
    return {"pads": _pads(writer, layer), **{name: whole_numbers(layer.data[name]) for name in names}}


def _convolution(writer: _Writer, layer: OpenVinoLayer) -> str:
    x, kernel = writer.operands(layer)
    groups = 1
    if layer.kind == "GroupConvolution":
        place, port = layer.inputs[1]
        shape = writer.layers[place].shapes[port]
        groups = shape[0]
        kernel = writer.node("Reshape", [kernel, writer.shape(shape[0] * shape[1], *shape[2:])])
    return writer.node("Conv", [x, kernel], group=groups, **_window(writer, layer, "strides", "dilations"))


def _pooling(writer: _Writer, layer: OpenVinoLayer) -> str:
    if layer.data.get("rounding_type", "floor") != "floor":
        raise UnsupportedOperationError(f"{writer.prefix}: windows that reach beyond are not written down")
    how = {**_window(writer, layer, "strides"), "kernel_shape": whole_numbers(layer.data["kernel"])}
    if layer.kind == "MaxPool":
        dilations = whole_numbers(layer.data.get("dilations", "1, 1"))
        return writer.node("MaxPool", writer.operands(layer), dilations=dilations, **how)
    counted = int(layer.data["exclude-pad"] != "true")
    return writer.node("AveragePool", writer.operands(layer), count_include_pad=counted, **how)


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
    if others:
        logits = writer.node("Add", [logits, others[0]])
    return writer.node("MatMul", [writer.node("Softmax", [logits], axis=-1), value])


def _mvn(writer: _Writer, layer: OpenVinoLayer) -> str:
    if (layer.data["eps_mode"], layer.data["normalize_variance"]) != ("INSIDE_SQRT", "true"):
        raise UnsupportedOperationError(f"{writer.prefix}: this way of normalising is not written down")
    x, axes = writer.operands(layer)
    apart = writer.node("Sub", [x, writer.node("ReduceMean", [x, axes], keepdims=1)])
    variance = writer.node("ReduceMean", [writer.node("Mul", [apart, apart]), axes], keepdims=1)
    held = writer.node("Add", [variance, writer.scalar(float(layer.data["eps"]))])
    return writer.node("Div", [apart, writer.node("Sqrt", [held])])


def _clamp(writer: _Writer, layer: OpenVinoLayer) -> str:
    limits = (writer.scalar(float(layer.data[end])) for end in ("min", "max"))
    return writer.node("Clip", [*writer.operands(layer), *limits])


def _hard_sigmoid(writer: _Writer, layer: OpenVinoLayer) -> str:
    alpha, beta = (float(writer.fixed(layer, operand).ravel()[0]) for operand in (1, 2))
    return writer.node("HardSigmoid", writer.operands(layer)[:1], alpha=alpha, beta=beta)


def _interpolate(writer: _Writer, layer: OpenVinoLayer) -> str:
    data = layer.data
    mode = {"linear_onnx": "linear", "nearest": "nearest"}.get(data["mode"])
    padded = any(whole_numbers(data["pads_begin"]) + whole_numbers(data["pads_end"]))
    if mode is None or data["antialias"] == "true" or padded:
        raise UnsupportedOperationError(f"{writer.prefix}: this way of resizing is not written down")
    how = {"coordinate_transformation_mode": data["coordinate_transformation_mode"], "mode": mode}
    operands = [writer.operands(layer)[0], "", "", writer.shape(*layer.shapes[0])]
    return writer.node("Resize", operands, nearest_mode=data["nearest_mode"], **how)


def _reduced(kind: str) -> Callable[[_Writer, OpenVinoLayer], str]:
    return lambda writer, layer: writer.node(
        kind, writer.operands(layer), keepdims=int(layer.data["keep_dims"] == "true")
    )


def _softmax(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Softmax", writer.operands(layer), axis=int(layer.data["axis"]))


def _concat(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Concat", writer.operands(layer), axis=int(layer.data["axis"]))


def _reshape(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Reshape", [writer.operands(layer)[0], writer.shape(*layer.shapes[0])])


def _transpose(writer: _Writer, layer: OpenVinoLayer) -> str:
    return writer.node("Transpose", writer.operands(layer)[:1], perm=writer.whole(layer, 1))


def _convert(writer: _Writer, layer: OpenVinoLayer) -> str:
    """As it is: constants of half precision are widened as they are written."""
    if layer.data["destination_type"] != "f32":
        raise UnsupportedOperationError(
            f"{writer.prefix}: to {layer.data['destination_type']} is not written down"
        )
    return writer.operands(layer)[0]


def _multiply(writer: _Writer, layer: OpenVinoLayer) -> str:
    """A product; of a weight's integers and their scale what they stand for, which float32 holds exactly."""
    weight = integer_weight(writer.layers, layer)
    if weight is not None:
        return writer.constant(weight.numbers.astype(np.float32))
    if of_integers(writer.layers, layer):
        raise UnsupportedOperationError(f"{writer.prefix}: integers of a computed scale are not written down")
    return _named("Mul")(writer, layer)


_LAYERS: dict[str, Callable[[_Writer, OpenVinoLayer], str]] = {
    "Add": _named("Add"),
    "AvgPool": _pooling,
    "Clamp": _clamp,
    "Concat": _concat,
    "Convert": _convert,
    "Convolution": _convolution,
    "Divide": _named("Div"),
    "FakeQuantize": _fake_quantize,
    "GroupConvolution": _convolution,
    "HardSigmoid": _hard_sigmoid,
    "Interpolate": _interpolate,
    "MVN": _mvn,
    "MatMul": _matmul,
    "MaxPool": _pooling,
    "Multiply": _multiply,
    "ReLU": _named("Relu"),
    "ReduceMean": _reduced("ReduceMean"),
    "ReduceSum": _reduced("ReduceSum"),
    "Reshape": _reshape,
    "ScaledDotProductAttention": _attention,
    "Sigmoid": _named("Sigmoid"),
    "SoftMax": _softmax,
    "Subtract": _named("Sub"),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
