"""What a model of LiteRT means, as an ONNX graph: each operator as the nodes that its options describe.

Maps are (1, rows, columns, channels) there; around a convolution they are turned. The graph is given the
source's inputs and outputs under their names.

Source: github.com/google-ai-edge/LiteRT, ``tflite/kernels/internal/reference/*.h`` and ``schema.fbs``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.litert_model import LitertModel, LitertOperator
from refimpl.errors import ShapeError, UnsupportedOperationError

CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_SAME = 0
"""``Padding``: SAME is 0, VALID is 1."""
_ACTIVATIONS = {0: (), 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""``ActivationFunctionType`` → what results are clipped to."""


def litert_graph(
    model: LitertModel, inputs: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return the graph that a model computes.

    Parameters
    ----------
    model
    inputs
        Of the source: name → shape, in the order of the model's own; the model may have channels last.
    outputs
        Of the source; those of other names in the model are taken in order.

    Raises
    ------
    UnsupportedOperationError
        An operator, or a way of it, whose meaning is not written down here.
    ShapeError
        The model takes other inputs.
    """
    writer = _Writer(model)
    if len(inputs) != len(model.inputs):
        raise ShapeError(f"the model has {len(model.inputs)} inputs, its source {len(inputs)}")
    for place, (name, shape) in zip(model.inputs.values(), inputs.items(), strict=True):
        writer.enter(place, name, tuple(shape))
    for each in model.operators:
        if each.kind not in _OPERATORS:
            raise UnsupportedOperationError(
                f"{model.names[each.outputs[0]]}: what {each.kind} means is not written down"
            )
        writer.prefix = f"{each.kind} of {model.names[each.outputs[0]]}"
        _OPERATORS[each.kind](writer, each)
    named = {*outputs} == {*model.outputs}
    for name, own in zip(outputs, model.outputs, strict=False):
        writer.node("Identity", [writer.tensor(model.outputs[name if named else own])], name)
    return writer.model("litert", inputs, outputs)


class _Writer(GraphWriter):
    """And the tensors of the file."""

    def __init__(self, model: LitertModel) -> None:
        super().__init__()
        self.held = model
        self._known: dict[int, str] = {}

    def tensor(self, place: int) -> str:
        """Return the name of a tensor, its constant written first."""
        if place not in self._known:
            array = self.held.constants.get(place)
            if array is None:
                raise UnsupportedOperationError(f"{self.held.names[place]} is used before it is computed")
            self._known[place] = self.constant(_real(self.held, place))
        return self._known[place]

    def enter(self, place: int, name: str, shape: tuple[int, ...]) -> None:
        """Take an input, channels last where the model has it so."""
        wanted = self.held.shapes[place]
        if wanted != shape and len(shape) == 4 and wanted == tuple(shape[axis] for axis in CHANNELS_LAST):
            name = self.node("Transpose", [name], perm=CHANNELS_LAST)
        elif wanted != shape:
            raise ShapeError(f"the model takes {wanted}, its source {shape}")
        self._known[place] = self._stored(place, name) if place in self.held.integers else name

    def shape_of(self, place: int) -> tuple[int, ...]:
        """Return what the file says of a tensor's shape."""
        return self.held.shapes[place]

    def whole(self, place: int) -> list[int]:
        """Return whole numbers that are constant: axes, sides, paddings."""
        array = self.held.constants.get(place)
        if array is None:
            raise UnsupportedOperationError(f"{self.held.names[place]} is computed; expected a constant")
        return [int(number) for number in np.asarray(array).ravel()]

    def turned(self, name: str, order: Sequence[int]) -> str:
        """Permute axes."""
        return self.node("Transpose", [name], perm=list(order))

    def done(self, each: LitertOperator, name: str) -> None:
        """Give an operator's only result, what it is activated by included."""
        limits = _ACTIVATIONS.get(each.options.get("fusedActivationFunction", 0))
        if limits is None:
            raise UnsupportedOperationError(f"{self.prefix}: its activation is not written down")
        if limits:
            name = self.clipped(name, *limits)
        (place, *_) = each.outputs
        if place in self.held.integers:
            self._known[place] = self._stored(place, name)
        else:
            self._known[place] = self.node("Identity", [name], self.held.names[place])

    def _stored(self, place: int, name: str) -> str:
        """Make a tensor integers, under its own name, and return what they stand for."""
        scales, points, axis = self.held.scales[place]
        points = points.astype(self.held.integers[place])
        grid = [self.constant(each if len(scales) > 1 else each[0]) for each in (scales, points)]
        return self.quantized(name, grid, self.held.names[place], axis=axis)

    def clipped(self, name: str, low: float, high: float) -> str:
        """Clip to limits, of which the upper may be infinite."""
        if high == np.inf:
            return self.node("Relu", [name])
        return self.node("Clip", [name, self.scalar(low), self.scalar(high)])


def _real(model: LitertModel, place: int) -> Any:
    """Return a constant; what is quantised as the numbers that it stands for."""
    array = model.constants[place]
    if place not in model.scales or array.dtype.kind == "f":
        return array
    scales, points, axis = model.scales[place]
    shape = [-1 if other == axis else 1 for other in range(array.ndim)] if len(scales) > 1 else []
    whole = array.astype(np.float64) - points.reshape(shape)
    return (whole * scales.reshape(shape)).astype(np.float32)


def _convolution(writer: _Writer, each: LitertOperator) -> None:
    source, kernel = each.inputs[:2]
    options, shape = each.options, writer.shape_of(kernel)
    deep = each.kind == "DEPTHWISE_CONV_2D"
    strides, dilations = (
        [options["strideH"], options["strideW"]],
        [
            options["dilationHFactor"],
            options["dilationWFactor"],
        ],
    )
    channels = writer.shape_of(source)[3]
    pads = _pads(writer, each, shape[1:3], strides, dilations)
    # (1, rows, columns, made) of a depthwise one, else (made, rows, columns, taken).
    order = (3, 0, 1, 2) if deep else CHANNELS_FIRST
    operands = [
        writer.turned(writer.tensor(source), CHANNELS_FIRST),
        writer.turned(writer.tensor(kernel), order),
        *(writer.tensor(place) for place in each.inputs[2:] if place >= 0),
    ]
    groups = channels if deep else channels // shape[3]
    made = writer.node("Conv", operands, strides=strides, dilations=dilations, pads=pads, group=groups)
    writer.done(each, writer.turned(made, CHANNELS_LAST))


def _pads(
    writer: _Writer,
    each: LitertOperator,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
) -> list[int]:
    """Return rows above, columns left, rows below, columns right."""
    if each.options["padding"] != _SAME:
        return [0, 0, 0, 0]
    sides = writer.shape_of(each.inputs[0])[1:3]
    totals = [
        max((-(-side // stride) - 1) * stride + (length - 1) * dilation + 1 - side, 0)
        for side, length, stride, dilation in zip(sides, kernel, strides, dilations, strict=True)
    ]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _pooling(writer: _Writer, each: LitertOperator) -> None:
    options = each.options
    kernel = [options["filterHeight"], options["filterWidth"]]
    strides = [options["strideH"], options["strideW"]]
    how: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    kind = "MaxPool" if each.kind == "MAX_POOL_2D" else "AveragePool"
    x = writer.turned(writer.tensor(each.inputs[0]), CHANNELS_FIRST)
    made = writer.node(kind, [x], pads=_pads(writer, each, kernel, strides), **how)
    writer.done(each, writer.turned(made, CHANNELS_LAST))


def _resize(writer: _Writer, each: LitertOperator) -> None:
    options, nearest = each.options, each.kind == "RESIZE_NEAREST_NEIGHBOR"
    where = "half_pixel" if options["halfPixelCenters"] else "asymmetric"
    where = "align_corners" if options["alignCorners"] else where
    how: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor"} if nearest else {"mode": "linear"}
    if nearest and where != "asymmetric":
        raise UnsupportedOperationError(
            f"{writer.prefix}: nearest neighbours by {where} are not written down"
        )
    x = writer.turned(writer.tensor(each.inputs[0]), CHANNELS_FIRST)
    sizes = writer.shape(*writer.whole(each.inputs[1]))
    how["coordinate_transformation_mode"] = where
    made = writer.node("Resize", [x, "", "", sizes], axes=[2, 3], **how)
    writer.done(each, writer.turned(made, CHANNELS_LAST))


def _fully_connected(writer: _Writer, each: LitertOperator) -> None:
    """As a Gemm: a product without its bias is nowhere there."""
    source, matrix = each.inputs[:2]
    rows = writer.node("Reshape", [writer.tensor(source), writer.shape(-1, writer.shape_of(matrix)[1])])
    operands = [rows, *(writer.tensor(place) for place in each.inputs[1:] if place >= 0)]
    made = writer.node("Gemm", operands, transB=1)
    writer.done(each, writer.node("Reshape", [made, writer.shape(*writer.shape_of(each.outputs[0]))]))


def _batch_matmul(writer: _Writer, each: LitertOperator) -> None:
    operands = []
    for place, swapped in zip(each.inputs, (each.options["adjX"], each.options["adjY"]), strict=True):
        axes = [*range(len(writer.shape_of(place)))]
        name = writer.tensor(place)
        operands.append(writer.turned(name, [*axes[:-2], axes[-1], axes[-2]]) if swapped else name)
    writer.done(each, writer.node("MatMul", operands))


def _named(kind: str) -> Callable[[_Writer, LitertOperator], None]:
    """Return what writes an operator that ONNX has under another name."""
    return lambda writer, each: writer.done(each, writer.node(kind, [*map(writer.tensor, each.inputs)]))


def _limited(low: float, high: float) -> Callable[[_Writer, LitertOperator], None]:
    return lambda writer, each: writer.done(each, writer.clipped(writer.tensor(each.inputs[0]), low, high))


def _reshape(writer: _Writer, each: LitertOperator) -> None:
    sides = writer.shape(*writer.shape_of(each.outputs[0]))
    writer.done(each, writer.node("Reshape", [writer.tensor(each.inputs[0]), sides]))


def _transpose(writer: _Writer, each: LitertOperator) -> None:
    writer.done(each, writer.turned(writer.tensor(each.inputs[0]), writer.whole(each.inputs[1])))


def _reduced(kind: str) -> Callable[[_Writer, LitertOperator], None]:
    def write(writer: _Writer, each: LitertOperator) -> None:
        axes = writer.shape(*writer.whole(each.inputs[1]))
        keeps = int(each.options["keepDims"])
        writer.done(each, writer.node(kind, [writer.tensor(each.inputs[0]), axes], keepdims=keeps))

    return write


def _pad(writer: _Writer, each: LitertOperator) -> None:
    ends = np.array(writer.whole(each.inputs[1])).reshape(-1, 2)
    value = [writer.tensor(place) for place in each.inputs[2:]]
    pads = writer.shape(*map(int, ends.T.ravel()))
    writer.done(each, writer.node("Pad", [writer.tensor(each.inputs[0]), pads, *value]))


def _softmax(writer: _Writer, each: LitertOperator) -> None:
    if each.options["beta"] != 1.0:
        raise UnsupportedOperationError(f"{writer.prefix}: beta {each.options['beta']} is not written down")
    writer.done(each, writer.node("Softmax", [writer.tensor(each.inputs[0])], axis=-1))


def _concat(writer: _Writer, each: LitertOperator) -> None:
    operands = [*map(writer.tensor, each.inputs)]
    writer.done(each, writer.node("Concat", operands, axis=each.options["axis"]))


def _squared_difference(writer: _Writer, each: LitertOperator) -> None:
    apart = writer.node("Sub", [*map(writer.tensor, each.inputs)])
    writer.done(each, writer.node("Mul", [apart, apart]))


def _rsqrt(writer: _Writer, each: LitertOperator) -> None:
    root = writer.node("Sqrt", [writer.tensor(each.inputs[0])])
    writer.done(each, writer.node("Div", [writer.scalar(1.0), root]))


def _hard_swish(writer: _Writer, each: LitertOperator) -> None:
    writer.done(each, writer.node("HardSwish", [writer.tensor(each.inputs[0])]))


def _gelu(writer: _Writer, each: LitertOperator) -> None:
    if each.options["approximate"]:
        raise UnsupportedOperationError(f"{writer.prefix}: Gelu by tanh is not written down")
    x = writer.tensor(each.inputs[0])
    error = writer.node("Erf", [writer.node("Div", [x, writer.scalar(np.sqrt(2))])])
    halved = writer.node("Mul", [x, writer.scalar(0.5)])
    writer.done(each, writer.node("Mul", [halved, writer.node("Add", [error, writer.scalar(1.0)])]))


def _slice(writer: _Writer, each: LitertOperator) -> None:
    begins, sizes = (writer.whole(place) for place in each.inputs[1:3])
    shape = writer.shape_of(each.inputs[0])
    ends = [
        side if size < 0 else begin + size for begin, size, side in zip(begins, sizes, shape, strict=True)
    ]
    writer.done(
        each,
        writer.node("Slice", [writer.tensor(each.inputs[0]), writer.shape(*begins), writer.shape(*ends)]),
    )


_OPERATORS: dict[str, Callable[[_Writer, LitertOperator], None]] = {
    "ADD": _named("Add"),
    "AVERAGE_POOL_2D": _pooling,
    "BATCH_MATMUL": _batch_matmul,
    "CONCATENATION": _concat,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DEQUANTIZE": _named("Identity"),
    "DIV": _named("Div"),
    "EXP": _named("Exp"),
    "FULLY_CONNECTED": _fully_connected,
    "GELU": _gelu,
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _named("Sigmoid"),
    "MAXIMUM": _named("Max"),
    "MAX_POOL_2D": _pooling,
    "MEAN": _reduced("ReduceMean"),
    "MINIMUM": _named("Min"),
    "MUL": _named("Mul"),
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _named("Identity"),
    "RELU": _limited(0.0, np.inf),
    "RELU6": _limited(0.0, 6.0),
    "RELU_0_TO_1": _limited(0.0, 1.0),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "RSQRT": _rsqrt,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SQRT": _named("Sqrt"),
    "SQUARED_DIFFERENCE": _squared_difference,
    "SUB": _named("Sub"),
    "SUM": _reduced("ReduceSum"),
    "TANH": _named("Tanh"),
    "TRANSPOSE": _transpose,
}
