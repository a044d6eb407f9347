"""What ncnn's layers mean that combine operands place by place, and that reduce one along its axes.

Source: github.com/Tencent/ncnn, ``src/layer/binaryop.cpp``, ``reduction.cpp`` and those beside them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np

from conformance.conversion.ncnn_model import SCALE_IS_GIVEN, NcnnLayer
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten

Binary = Callable[[NcnnWriter, str, str], str]


def _plain(operator: str) -> Binary:
    return lambda writer, x, y: writer.node(operator, [x, y])


def _arc_tangent(writer: NcnnWriter, y: str, x: str) -> str:
    """Return the angle of (x, y), by the arc tangent of a quotient that is at most 1."""
    zero, half = writer.scalar(0.0), writer.scalar(np.pi / 2)
    steep = writer.node("Less", [writer.node("Abs", [x]), writer.node("Abs", [y])])
    over = writer.node("Where", [steep, writer.node("Neg", [x]), y])
    under = writer.node("Where", [steep, y, x])
    nothing = writer.node("Equal", [under, zero])
    under = writer.node("Where", [nothing, writer.scalar(1.0), under])
    angle = writer.node("Atan", [writer.node("Div", [over, under])])
    upwards = writer.node("GreaterOrEqual", [y, zero])
    turn = writer.node("Where", [upwards, writer.scalar(np.pi), writer.scalar(-np.pi)])
    turn = writer.node("Where", [writer.node("Less", [x, zero]), turn, zero])
    quarter = writer.node("Where", [upwards, half, writer.node("Neg", [half])])
    return writer.node("Add", [angle, writer.node("Where", [steep, quarter, turn])])


def _modulo(writer: NcnnWriter, x: str, y: str) -> str:
    return writer.node("Mod", [x, y], fmod=1)


def _log_add_exp(writer: NcnnWriter, x: str, y: str) -> str:
    larger, smaller = writer.node("Max", [x, y]), writer.node("Min", [x, y])
    rest = writer.node("Exp", [writer.node("Sub", [smaller, larger])])
    return writer.node("Add", [larger, writer.node("Log", [writer.node("Add", [rest, writer.scalar(1.0)])])])


def _floor_divide(writer: NcnnWriter, x: str, y: str) -> str:
    return writer.node("Floor", [writer.node("Div", [x, y])])


def _remainder(writer: NcnnWriter, x: str, y: str) -> str:
    """Return what is left of the division to the nearest whole number, of two the even one."""
    whole = writer.node("Round", [writer.node("Div", [x, y])])
    return writer.node("Sub", [x, writer.node("Mul", [whole, y])])


_BINARY: Mapping[int, Binary] = {
    0: _plain("Add"),
    1: _plain("Sub"),
    2: _plain("Mul"),
    3: _plain("Div"),
    4: _plain("Max"),
    5: _plain("Min"),
    6: _plain("Pow"),
    10: _arc_tangent,
    12: _modulo,
    14: _log_add_exp,
    15: _floor_divide,
    17: _remainder,
}
_REVERSED = {7: 1, 8: 3, 9: 6, 11: 10, 13: 12, 16: 15, 18: 17}
"""BinaryOp's types of swapped operands → their types in order. Source: ``src/layer/binaryop.h``."""


def _binary(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kind, scalar = layer.param(0), bool(layer.param(1))
    if _REVERSED.get(kind, kind) not in _BINARY:
        raise unwritten(layer, f"BinaryOp {kind}")
    rank = max(writer.ranks[name] for name in layer.bottoms[: 1 if scalar else 2])
    operands = [writer.scalar(layer.param(2, 0.0))] if scalar else [_spread(writer, layer, 1, rank)]
    operands = [_spread(writer, layer, 0, rank), *operands]
    if kind in _REVERSED:
        operands.reverse()
    writer.done(layer, _BINARY[_REVERSED.get(kind, kind)](writer, *operands), rank)


def _spread(writer: NcnnWriter, layer: NcnnLayer, blob: int, rank: int) -> str:
    """Return an operand with as many axes as the other: ncnn adds them behind.

    A vector lies along the first axis if it is as long, else along the last.
    """
    name, other = layer.bottoms[blob], layer.bottoms[1 - blob] if len(layer.bottoms) > 1 else ""
    own = writer.ranks[name]
    if own == rank:
        return name
    if own == 1 and writer.known(layer, name)[0] != writer.known(layer, other)[0]:
        return name
    return writer.node("Unsqueeze", [name, writer.shape(*range(own, rank))])


def _eltwise(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kind, coefficients, operands = layer.param(0), layer.param(1, ()), list(layer.bottoms)
    operators = {0: "Mul", 1: "Add", 2: "Max"}
    if kind not in operators or len({tuple(writer.lengths(name)) for name in operands}) > 1:
        raise unwritten(layer, f"this Eltwise of {len(operands)} blobs")
    if kind == 1 and coefficients:
        operands = [
            writer.node("Mul", [name, writer.scalar(factor)])
            for name, factor in zip(operands, coefficients, strict=True)
        ]
    combine = functools.partial(writer.node, operators[kind])
    writer.like(layer, functools.reduce(lambda first, second: combine([first, second]), operands))


def _scale(writer: NcnnWriter, layer: NcnnLayer) -> None:
    if layer.param(0) == SCALE_IS_GIVEN:
        if layer.param(1):
            # ncnn reads no biases then, and ends the process.
            raise unwritten(layer, "a Scale by a blob that adds something")
        along = [-1, *[1] * (writer.ranks[layer.bottoms[0]] - 1)]
        writer.like(layer, writer.node("Mul", [layer.bottoms[0], writer.reshaped(layer.bottoms[1], *along)]))
        return
    factors, *biases = (writer.along_first(layer, each) for each in layer.weights)
    made = writer.node("Mul", [layer.bottoms[0], factors])
    for bias in biases:
        made = writer.node("Add", [made, bias])
    writer.like(layer, made)


def _bias(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """A blob without channels is given the first number only."""
    (bias,) = layer.weights
    bias = bias if writer.rank(layer) > 2 else bias[:1]
    writer.like(layer, writer.node("Add", [layer.bottoms[0], writer.along_first(layer, bias)]))


_REDUCED = {
    0: "ReduceSum",
    1: "ReduceL1",
    2: "ReduceSumSquare",
    3: "ReduceMean",
    4: "ReduceMax",
    5: "ReduceMin",
    6: "ReduceProd",
    7: "ReduceL1",
    8: "ReduceL2",
    9: "ReduceLogSum",
    10: "ReduceLogSumExp",
}
"""Reduction's operation → operator. Source: ``src/layer/reduction.h``."""


MOST_AXES = 4


def _reduction(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kind, axes, rank = layer.param(0), layer.param(3, ()), writer.rank(layer)
    if kind not in _REDUCED:
        raise unwritten(layer, f"Reduction {kind}")
    if axes and not layer.param(5):
        raise unwritten(layer, "a Reduction whose axes count the batch")
    if layer.param(1, 1) or rank == 1:
        axes = range(rank)
    # Of the four that there may be, axes that a blob lacks are passed over.
    axes = sorted({writer.axis(layer, axis) for axis in axes if not rank <= axis < MOST_AXES})
    (x,), keeps = layer.bottoms, bool(layer.param(4))
    if axes:
        made = writer.node(_REDUCED[kind], [x, writer.shape(*axes)], keepdims=int(keeps))
    else:
        # None of the axes are reduced: every number is by itself.
        lone = writer.node("Unsqueeze", [x, writer.shape(-1)])
        made = writer.node(_REDUCED[kind], [lone, writer.shape(-1)], keepdims=0)
    if layer.param(2, 1.0) != 1.0:
        made = writer.node("Mul", [made, writer.scalar(layer.param(2))])
    if not keeps and len(axes) == rank:
        made = writer.reshaped(made, 1)
    writer.done(layer, made, rank if keeps else max(rank - len(axes), 1))


def _softmax(writer: NcnnWriter, layer: NcnnLayer) -> None:
    axis = layer.param(0)
    if axis and not layer.param(1):
        raise unwritten(layer, "a Softmax whose axis counts the batch")
    writer.like(layer, writer.node("Softmax", layer.bottoms, axis=writer.axis(layer, axis)))


def _cumulative_sum(writer: NcnnWriter, layer: NcnnLayer) -> None:
    axis = writer.constant(np.array(writer.axis(layer, layer.param(0)), np.int64))
    writer.like(layer, writer.node("CumSum", [layer.bottoms[0], axis]))


def _glu(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), axis = layer.bottoms, writer.axis(layer, layer.param(0))
    length = writer.known(layer, x)[axis]
    if length % 2:
        raise unwritten(layer, f"a GLU of {length}")
    first, second = (writer.cut(x, axis, start, start + length // 2) for start in (0, length // 2))
    writer.like(layer, writer.node("Mul", [first, writer.node("Sigmoid", [second])]))


def _einsum(writer: NcnnWriter, layer: NcnnLayer) -> None:
    equation = "".join(map(chr, layer.param(0)))
    if equation == "ii":
        made = writer.node("Einsum", layer.bottoms, equation="ii->")
        writer.done(layer, writer.reshaped(made, 1), 1)
        return
    left, _, right = equation.partition("->")
    if not right or right != "ijkl"[: len(right)]:
        # ncnn takes the letters of the result for i, j, k and l in this order, whatever they are.
        raise unwritten(layer, f"the equation {equation}")
    writer.done(layer, writer.node("Einsum", layer.bottoms, equation=f"{left}->{right}"), len(right))


ARITHMETIC: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "Bias": _bias,
    "BinaryOp": _binary,
    "CumulativeSum": _cumulative_sum,
    "Einsum": _einsum,
    "Eltwise": _eltwise,
    "GLU": _glu,
    "Reduction": _reduction,
    "Scale": _scale,
    "Softmax": _softmax,
}
"""Layers that combine places, or reduce axes."""
