"""What a model of ncnn means, as an ONNX graph: each layer as the nodes that its parameters describe.

ncnn has no batch axis: blobs are (C, H, W), (H, W) or (W). The graph is given the source's inputs and outputs
under their names and with that axis, so that the two can be compared.

Source: github.com/Tencent/ncnn, ``src/layer/*.cpp`` and its wiki, *operators*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_products import PRODUCTS
from conformance.conversion.ncnn_writer import NcnnWriter
from refimpl.errors import MobileInstError, UnsupportedOperationError

ABSENT = -233
"""A side that Reshape leaves out."""
_ORDERS = ("whc", "hwc", "wch", "cwh", "hcw", "chw")
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")
_REVERSED = {7: "Sub", 8: "Div"}
_REDUCED = {0: "ReduceSum", 3: "ReduceMean", 4: "ReduceMax", 5: "ReduceMin", 6: "ReduceProd", 8: "ReduceL2"}


def ncnn_graph(
    layers: Sequence[NcnnLayer],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    *,
    as_it_runs: bool = False,
) -> onnx.ModelProto:
    """Return the graph that the layers compute.

    Parameters
    ----------
    layers
        As `read_ncnn` returns them.
    inputs
        Of the source: name → shape (1, …), in the order of the model's own.
    outputs
        Of the source, in order: ncnn's converter calls the n-th ``out`` and n.
    as_it_runs
        Whether what the file leaves to the runtime is written down, too: integers end at ±127, and what is
        multiplied by integer matrices is made integers by its own largest. Else these are products with what
        the integers stand for.

    Raises
    ------
    UnsupportedOperationError
        A layer, or a way of it, whose meaning is not written down here.
    """
    writer = NcnnWriter(as_it_runs)
    for layer, (name, shape) in zip((x for x in layers if x.kind == "Input"), inputs.items(), strict=False):
        writer.node("Squeeze", [name, writer.shape(0)], layer.tops[0])
        writer.ranks[layer.tops[0]] = len(shape) - 1
    for layer in (each for each in layers if each.kind != "Input"):
        if layer.kind not in _LAYERS:
            raise UnsupportedOperationError(
                f"layer {layer.name}: what {layer.kind} means is not written down"
            )
        writer.prefix = layer.name
        try:
            _LAYERS[layer.kind](writer, layer)
        except MobileInstError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise UnsupportedOperationError(
                f"layer {layer.name}: this {layer.kind} is not written down: {error}"
            ) from error
    for own, name in zip(ends_of(layers), outputs, strict=False):
        writer.node("Unsqueeze", [own, writer.shape(0)], name)
    return writer.model("ncnn", inputs, outputs)


def ends_of(layers: Sequence[NcnnLayer]) -> list[str]:
    """Return a model's outputs: in the order of the numbers that ncnn's converter gives."""
    taken = {name for layer in layers for name in layer.bottoms}
    ends = [name for layer in layers for name in layer.tops if name not in taken]
    return sorted(ends, key=lambda name: (len(name), name) if name.startswith("out") else (0, ""))


def _pooling(writer: NcnnWriter, layer: NcnnLayer) -> None:
    if layer.param(7) or layer.param(5) not in (0, 1):
        raise UnsupportedOperationError(f"layer {layer.name}: this pooling is not written down")
    maximum, left = layer.param(0) == 0, layer.param(3)
    top = layer.param(13, left)
    x = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(0)])
    if layer.param(4):
        made = writer.node("GlobalMaxPool" if maximum else "GlobalAveragePool", [x])
        writer.done(layer, writer.node("Squeeze", [made, writer.shape(0, 2, 3)]), 1)
        return
    how: dict[str, Any] = {
        "kernel_shape": [layer.param(11, layer.param(1)), layer.param(1)],
        "strides": [layer.param(12, layer.param(2, 1)), layer.param(2, 1)],
        "pads": [top, left, layer.param(15, top), layer.param(14, left)],
        "ceil_mode": int(layer.param(5) == 0),
    }
    counted: dict[str, Any] = {} if maximum else {"count_include_pad": layer.param(6)}
    made = writer.node("MaxPool" if maximum else "AveragePool", [x], **how, **counted)
    writer.done(layer, writer.node("Squeeze", [made, writer.shape(0)]), 3)


def _interp(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kind, sides = layer.param(0), (layer.param(3), layer.param(4))
    if kind not in (1, 2) or not all(sides) or layer.param(6):
        raise UnsupportedOperationError(f"layer {layer.name}: this way of resizing is not written down")
    x = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(0)])
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    how: dict[str, Any] = nearest if kind == 1 else {"mode": "linear"}
    made = writer.node("Resize", [x, "", "", writer.shape(*sides)], axes=[2, 3], **how)
    writer.done(layer, writer.node("Squeeze", [made, writer.shape(0)]), 3)


def _binary(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kind = layer.param(0)
    operands = (
        list(layer.bottoms) if not layer.param(1) else [layer.bottoms[0], writer.scalar(layer.param(2))]
    )
    ranks = {writer.ranks[name] for name in layer.bottoms}
    if len(ranks) > 1 or not (kind < len(_BINARY) or kind in _REVERSED):
        raise UnsupportedOperationError(f"layer {layer.name}: this BinaryOp is not written down")
    if kind in _REVERSED:
        operands.reverse()
    writer.like(layer, writer.node(_REVERSED.get(kind) or _BINARY[kind], operands))


def _reshape(writer: NcnnWriter, layer: NcnnLayer) -> None:
    sides = [layer.param(number, ABSENT) for number in (2, 11, 1, 0)]
    given = [side for side in sides if side != ABSENT]
    target = [] if 6 in layer.params else [writer.shape(*given)]
    if 6 in layer.params:
        # Written from the innermost side on: "0w,-1".
        words = layer.param(6).split(",")[::-1]
        given = [0] * len(words)
        target = [writer.node("Concat", [_side(writer, layer, word) for word in words], axis=0)]
    elif not given or 0 in given:
        raise UnsupportedOperationError(f"layer {layer.name}: this Reshape is not written down")
    writer.done(layer, writer.node("Reshape", [layer.bottoms[0], *target]), len(given))


def _side(writer: NcnnWriter, layer: NcnnLayer, word: str) -> str:
    """Return a side of an expression: a number, or the side of a blob, as in ``1h``."""
    if word.removeprefix("-").isdecimal():
        return writer.shape(int(word))
    blob, side = word[:-1], word[-1:]
    if not blob.isdecimal() or int(blob) >= len(layer.bottoms) or side not in "whc" or not side:
        raise UnsupportedOperationError(f"layer {layer.name}: the side {word!r} is not written down")
    name = layer.bottoms[int(blob)]
    place = writer.ranks[name] - 1 - "whc".index(side)
    return writer.node("Gather", [writer.node("Shape", [name]), writer.shape(place)], axis=0)


def _permute(writer: NcnnWriter, layer: NcnnLayer) -> None:
    rank, order = writer.ranks[layer.bottoms[0]], layer.param(0)
    axes = "chw"[3 - rank :]
    # ncnn lists sides from the innermost on.
    wanted = [side for side in reversed(_ORDERS[order]) if side in axes]
    writer.like(
        layer, writer.node("Transpose", [layer.bottoms[0]], perm=[axes.index(side) for side in wanted])
    )


def _concat(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.like(layer, writer.node("Concat", layer.bottoms, axis=layer.param(0)))


def _layer_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    scale, shift = layer.weights or [
        np.ones(layer.param(0), np.float32),
        np.zeros(layer.param(0), np.float32),
    ]
    operands = [layer.bottoms[0], writer.constant(scale), writer.constant(shift)]
    writer.like(layer, writer.node("LayerNormalization", operands, axis=-1, epsilon=layer.param(1, 1e-5)))


def _batch_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    slope, mean, variance, bias = map(writer.constant, layer.weights)
    _of_maps(writer, layer, "BatchNormalization", [slope, bias, mean, variance], layer.param(1, 0.0))


def _instance_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    channels = layer.param(0)
    scale, shift = layer.weights or [np.ones(channels, np.float32), np.zeros(channels, np.float32)]
    constants = [writer.constant(scale), writer.constant(shift)]
    _of_maps(writer, layer, "InstanceNormalization", constants, layer.param(1, 1e-3))


def _of_maps(
    writer: NcnnWriter, layer: NcnnLayer, operator: str, constants: list[str], epsilon: float
) -> None:
    """Write a norm whose operand has a batch axis."""
    x = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(0)])
    made = writer.node(operator, [x, *constants], epsilon=epsilon)
    writer.like(layer, writer.node("Squeeze", [made, writer.shape(0)]))


def _p_relu(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (slope,) = layer.weights
    sides = [-1, *[1] * (writer.ranks[layer.bottoms[0]] - 1)]
    writer.like(layer, writer.node("PRelu", [layer.bottoms[0], writer.constant(slope.reshape(sides))]))


def _memory(writer: NcnnWriter, layer: NcnnLayer) -> None:
    sides = [side for side in (layer.param(number) for number in (2, 11, 1, 0)) if side]
    writer.done(layer, writer.constant(layer.weights[0].reshape(sides)), len(sides))


def _reduction(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kind, axes = layer.param(0), layer.param(3, ())
    rank = writer.ranks[layer.bottoms[0]]
    if layer.param(1, 1):
        axes = tuple(range(rank))
    if not axes:
        # None of the axes are reduced: nothing is.
        writer.like(layer, layer.bottoms[0])
        return
    if kind not in _REDUCED or layer.param(2, 1.0) != 1.0:
        raise UnsupportedOperationError(f"layer {layer.name}: this Reduction is not written down")
    keeps = int(layer.param(4))
    made = writer.node(_REDUCED[kind], [layer.bottoms[0], writer.shape(*axes)], keepdims=keeps)
    writer.done(layer, made, rank if keeps else rank - len(axes))


def _split(writer: NcnnWriter, layer: NcnnLayer) -> None:
    for top in layer.tops:
        writer.node("Identity", layer.bottoms, top)
        writer.ranks[top] = writer.ranks[layer.bottoms[0]]
        writer.integers |= {top} if layer.bottoms[0] in writer.integers else set()


def _softmax(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.like(layer, writer.node("Softmax", layer.bottoms, axis=layer.param(0)))


def _clip(writer: NcnnWriter, layer: NcnnLayer) -> None:
    limits = [
        writer.scalar(layer.param(0, -np.finfo(np.float32).max)),
        writer.scalar(layer.param(1, np.finfo(np.float32).max)),
    ]
    writer.like(layer, writer.node("Clip", [*layer.bottoms, *limits]))


def _hard_sigmoid(writer: NcnnWriter, layer: NcnnLayer) -> None:
    how: dict[str, Any] = {"alpha": float(layer.param(0, 0.2)), "beta": float(layer.param(1, 0.5))}
    writer.like(layer, writer.node("HardSigmoid", layer.bottoms, **how))


def _relu(writer: NcnnWriter, layer: NcnnLayer) -> None:
    slope = float(layer.param(0, 0.0))
    made = (
        writer.node("LeakyRelu", layer.bottoms, alpha=slope) if slope else writer.node("Relu", layer.bottoms)
    )
    writer.like(layer, made)


def _sigmoid(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.like(layer, writer.node("Sigmoid", layer.bottoms))


SQUARE = 4

_UNARY = {
    0: ("Abs",),
    1: ("Neg",),
    2: ("Floor",),
    3: ("Ceil",),
    5: ("Sqrt",),
    6: ("Sqrt", "Reciprocal"),
    7: ("Exp",),
    8: ("Log",),
    9: ("Sin",),
    10: ("Cos",),
    11: ("Tan",),
    12: ("Asin",),
    13: ("Acos",),
    14: ("Atan",),
    15: ("Reciprocal",),
    16: ("Tanh",),
    18: ("Round",),
}
"""UnaryOp's type → operators, one after the other. Source: ``src/layer/unaryop.h``."""


def _unary(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kind, (x,) = layer.param(0), layer.bottoms
    if kind == SQUARE:
        writer.like(layer, writer.node("Mul", [x, x]))
        return
    if kind not in _UNARY:
        raise UnsupportedOperationError(f"layer {layer.name}: operation {kind} is not written down")
    for operator in _UNARY[kind]:
        x = writer.node(operator, [x])
    writer.like(layer, x)


_LAYERS: dict[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    **PRODUCTS,
    "BatchNorm": _batch_norm,
    "BinaryOp": _binary,
    "Clip": _clip,
    "Concat": _concat,
    "HardSigmoid": _hard_sigmoid,
    "InstanceNorm": _instance_norm,
    "Interp": _interp,
    "LayerNorm": _layer_norm,
    "MemoryData": _memory,
    "PReLU": _p_relu,
    "Permute": _permute,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Split": _split,
    "UnaryOp": _unary,
}
