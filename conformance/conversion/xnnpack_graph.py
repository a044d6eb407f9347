"""What XNNPACK computes of what it is handed, as ONNX nodes: each of its own as those that it means.

Maps are (1, rows, columns, channels) there; around a convolution or a pooling they are turned.

Source: github.com/google/XNNPACK, ``include/xnnpack.h``, and github.com/pytorch/executorch,
``backends/xnnpack/runtime/XNNCompiler.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.xnnpack_model import XnnpackGraph, XnnpackNode, XnnpackValue
from refimpl.errors import FileError, UnsupportedOperationError

CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_TRANSPOSED = 1
"""Flag of a product whose matrix is (inputs, outputs), or whose second operand is turned."""
_ALIGNED, _KEEPS = 8, 64
"""Flags of a resize whose corners are aligned, and of a mean that keeps its axes."""
_FLAGS = {
    "FullyConnected": _TRANSPOSED,
    "BatchMatrixMultiply": _TRANSPOSED,
    "StaticResizeBilinear2D": _ALIGNED,
    "AvgPooling2d": _KEEPS,
    "MaxPooling2d": _KEEPS,
    "GlobalAvgPooling2d": _KEEPS,
}
"""Node → the flags whose meaning is written down."""
_MOVING = {"Concatenate", "Copy", "StaticReshape", "StaticSlice", "StaticTranspose"}
"""Nodes that compute nothing."""
_LIMITED = {"Add", "Subtract", "Multiply", "Div", "Clamp", "FullyConnected", "Conv2d", "DepthwiseConv2d"}
"""Nodes whose results are clipped as they say."""


def write_xnnpack(
    writer: GraphWriter, graph: XnnpackGraph, given: Mapping[int, str], wanted: Mapping[int, str]
) -> None:
    """Add the nodes, and what they give.

    Integers that stand for fractions are floats between where they come in and where they go out: one
    operation alone has none between.

    Parameters
    ----------
    writer
    graph
    given, wanted
        Place among what is handed over → name of a tensor: of what is taken, and of what is made.

    Raises
    ------
    UnsupportedOperationError
        A way of a node whose meaning is not written down.
    FileError
        A node takes what is not made.
    """
    if sum(node.kind not in _MOVING for node in graph.nodes) > 1 and any(
        value.grid for value in graph.values.values()
    ):
        raise _unknown(writer, "several of XNNPACK's operations on integers in one")
    names = {
        number: _widened(writer, given[value.outside], value)
        for number, value in graph.values.items()
        if value.outside is not None and not value.is_output and value.outside in given
    }
    for node in graph.nodes:
        _check(writer, node)
        operands = [_operand(writer, graph, names, number) for number in node.inputs]
        name = _NODES[node.kind](_Place(writer, graph, node), *operands)
        names[node.output] = name if node.limits is None else _clipped(writer, name, *node.limits)
    for number, value in graph.values.items():
        if value.is_output and value.outside is not None:
            made = _operand(writer, graph, names, number)
            kind = "Identity" if value.grid is None else "QuantizeLinear"
            writer.node(kind, [made, *_grid(writer, value)], wanted[value.outside])


def _grid(writer: GraphWriter, value: XnnpackValue) -> list[str]:
    """Add scale and zero point of a value, if it is of integers."""
    if value.grid is None:
        return []
    if not -128 <= value.grid[1] <= 127:
        raise FileError(f"{writer.prefix}: XNNPACK's zero point is {value.grid[1]}")
    return [writer.scalar(value.grid[0]), writer.constant(np.array(value.grid[1], np.int8))]


def _widened(writer: GraphWriter, name: str, value: XnnpackValue) -> str:
    grid = _grid(writer, value)
    return writer.node("DequantizeLinear", [name, *grid]) if grid else name


def _check(writer: GraphWriter, node: XnnpackNode) -> None:
    if node.how["flags"] & ~_FLAGS.get(node.kind, 0):
        raise _unknown(writer, f"XNNPACK's {node.kind} of flags {node.how['flags']}")
    if node.limits is not None and node.kind not in _LIMITED:
        raise _unknown(writer, f"a limit of XNNPACK's {node.kind}")


def _unknown(writer: GraphWriter, what: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(f"{writer.prefix}: {what} is not written down")


def _operand(writer: GraphWriter, graph: XnnpackGraph, names: dict[int, str], number: int) -> str:
    """Return the name of a value; a constant is written first."""
    if number not in names:
        value = graph.values.get(number)
        if value is None or value.constant is None:
            raise FileError(f"{writer.prefix}: XNNPACK's value {number} is used before it is made")
        names[number] = writer.constant(value.constant)
    return names[number]


def _clipped(writer: GraphWriter, name: str, low: float, high: float) -> str:
    ends = [writer.scalar(end) if np.isfinite(end) else "" for end in (low, high)]
    return writer.node("Clip", [name, *ends]) if any(ends) else name


class _Place:
    """A node of a graph, as it is written."""

    def __init__(self, writer: GraphWriter, graph: XnnpackGraph, node: XnnpackNode) -> None:
        self.writer, self.graph, self.node, self.how = writer, graph, node, node.how

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of ONNX."""
        return self.writer.node(kind, inputs, **attributes)

    def shape_of(self, place: int) -> tuple[int, ...]:
        """Return the shape of an operand."""
        return self.graph.values[self.node.inputs[place]].shape

    def on_channels_first(self, kind: str, name: str, *others: str, **attributes: Any) -> str:
        """Add a node that takes and gives maps of channels first."""
        turned = self.add("Transpose", name, perm=CHANNELS_FIRST)
        made = self.add(kind, turned, *others, **attributes)
        return self.add("Transpose", made, perm=CHANNELS_LAST)

    def pads(self) -> list[int]:
        """Return what is added before rows and columns, then behind."""
        return [self.how[side] for side in ("top", "left", "bottom", "right")]

    def pair(self, what: str) -> list[int]:
        """Return rows and columns."""
        return [self.how[f"{what}_height"], self.how[f"{what}_width"]]


def _simple(kind: str, **attributes: Any) -> Callable[..., str]:
    return lambda at, *operands: at.add(kind, *operands, **attributes)


def _convolution(at: _Place, x: str, kernel: str, bias: str = "") -> str:
    """Kernels are (outputs, rows, columns, inputs), of a depthwise one (1, rows, columns, outputs)."""
    depthwise = at.node.kind == "DepthwiseConv2d"
    turned = at.add("Transpose", kernel, perm=(3, 0, 1, 2) if depthwise else CHANNELS_FIRST)
    how = {"strides": at.pair("stride"), "dilations": at.pair("dilation"), "pads": at.pads()}
    others = [turned, *([bias] if bias else [])]
    return at.on_channels_first("Conv", x, *others, group=at.how["groups"], **how)


def _product(at: _Place, x: str, matrix: str, bias: str = "") -> str:
    """Multiply by a matrix of (outputs, inputs), or turned as its flag says."""
    turned = at.how["flags"] & _TRANSPOSED
    matrix = matrix if turned else at.add("Transpose", matrix, perm=(1, 0))
    made = at.add("MatMul", x, matrix)
    return at.add("Add", made, bias) if bias else made


def _batch_product(at: _Place, x: str, y: str) -> str:
    if at.how["flags"] & _TRANSPOSED:
        *batch, rows, columns = range(len(at.shape_of(1)))
        y = at.add("Transpose", y, perm=[*batch, columns, rows])
    return at.add("MatMul", x, y)


def _pooled(kind: str, dilated: bool) -> Callable[..., str]:
    def write(at: _Place, x: str) -> str:
        how = {"kernel_shape": at.pair("kernel"), "strides": at.pair("stride"), "pads": at.pads()}
        # Both leave padding out of means.
        return at.on_channels_first(kind, x, **how, **({"dilations": at.pair("dilation")} if dilated else {}))

    return write


def _mean(at: _Place, x: str) -> str:
    keeps = int(bool(at.how["flags"] & _KEEPS))
    return at.add("ReduceMean", x, at.writer.shape(1, 2), keepdims=keeps)


def _resized(at: _Place, x: str) -> str:
    where = "align_corners" if at.how["flags"] & _ALIGNED else "half_pixel"
    to = ["", "", at.writer.shape(at.how["height"], at.how["width"])]
    how: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": where, "axes": [2, 3]}
    return at.on_channels_first("Resize", x, *to, **how)


def _padded(at: _Place, x: str) -> str:
    return at.add(
        "Pad", x, at.writer.shape(*at.how["before"], *at.how["after"]), at.writer.scalar(at.how["value"])
    )


def _reshaped(at: _Place, x: str) -> str:
    """An axis of 0 is what is left; ONNX says −1."""
    sides: Sequence[int] = at.how["shape"]
    if sides.count(0) > 1:
        raise _unknown(at.writer, f"XNNPACK's StaticReshape to {sides}")
    return at.add("Reshape", x, at.writer.shape(*(side or -1 for side in sides)))


def _sliced(at: _Place, x: str) -> str:
    begins, sizes = at.how["offsets"], at.how["sizes"]
    if 0 in sizes:
        raise _unknown(at.writer, f"XNNPACK's StaticSlice of {sizes}")
    ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    axes = range(len(begins))
    return at.add("Slice", x, *(at.writer.shape(*each) for each in (begins, ends, axes)))


def _turned(at: _Place, x: str) -> str:
    return at.add("Transpose", x, perm=at.how["perm"])


def _joined(at: _Place, *parts: str) -> str:
    return at.add("Concat", *parts, axis=at.how["axis"])


def _same(at: _Place, x: str) -> str:
    return x


def _gelu(at: _Place, x: str) -> str:
    error = at.add("Erf", at.add("Mul", x, at.writer.scalar(np.sqrt(0.5))))
    return at.add("Mul", at.add("Mul", x, at.writer.scalar(0.5)), at.add("Add", error, at.writer.scalar(1.0)))


_NODES: Mapping[str, Callable[..., str]] = {
    "Abs": _simple("Abs"),
    "Add": _simple("Add"),
    "AvgPooling2d": _pooled("AveragePool", dilated=False),
    "BatchMatrixMultiply": _batch_product,
    "Ceiling": _simple("Ceil"),
    "Clamp": _same,
    "Concatenate": _joined,
    "Conv2d": _convolution,
    "Convert": _same,
    "Copy": _same,
    "Cos": _simple("Cos"),
    "DepthwiseConv2d": _convolution,
    "Div": _simple("Div"),
    "ELU": lambda at, x: at.add("Elu", x, alpha=at.how["alpha"]),
    "Exp": _simple("Exp"),
    "Floor": _simple("Floor"),
    "FullyConnected": _product,
    "Gelu": _gelu,
    "GlobalAvgPooling2d": _mean,
    "Hardswish": _simple("HardSwish"),
    "LeakyReLU": lambda at, x: at.add("LeakyRelu", x, alpha=at.how["slope"]),
    "Log": _simple("Log"),
    "Maximum": _simple("Max"),
    "MaxPooling2d": _pooled("MaxPool", dilated=True),
    "Minimum": _simple("Min"),
    "Multiply": _simple("Mul"),
    "Negate": _simple("Neg"),
    "PReLU": _simple("PRelu"),
    "ReciprocalSquareRoot": lambda at, x: at.add("Reciprocal", at.add("Sqrt", x)),
    "Sigmoid": _simple("Sigmoid"),
    "Sin": _simple("Sin"),
    "Softmax": _simple("Softmax", axis=-1),
    "Square": lambda at, x: at.add("Mul", x, x),
    "SquareRoot": _simple("Sqrt"),
    "StaticConstantPad": _padded,
    "StaticReshape": _reshaped,
    "StaticResizeBilinear2D": _resized,
    "StaticSlice": _sliced,
    "StaticTranspose": _turned,
    "Subtract": _simple("Sub"),
    "Tanh": _simple("Tanh"),
}
