"""What a model of ncnn means, as an ONNX graph: each layer as the nodes that its parameters describe.

ncnn has no batch axis: blobs are (C, H, W), (H, W) or (W). The graph is given the source's inputs and outputs
under their names and with that axis, so that the two can be compared.

Source: github.com/Tencent/ncnn, ``src/layer/*.cpp`` and its wiki, *operators*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.ncnn_model import REQUANTISED, NcnnLayer
from refimpl.errors import FileError, UnsupportedOperationError
from refimpl.ops.operation import Array

LARGEST = 127.0
"""Of ncnn's integers, to either side."""
MADE_INTEGERS = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
"""Layers whose float weights become integers as they are loaded, if there are scales for them."""
ZEROS = 2.0**-100
"""What the largest of a row of zeros counts as."""
PACKED = 8
"""Channels of integers that x86 computes at once; grouped ones are scaled by the estimate of a reciprocal."""
ABSENT = -233
"""A side that Reshape leaves out."""
_ORDERS = ("whc", "hwc", "wch", "cwh", "hcw", "chw")
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")
_REVERSED = {7: "Sub", 8: "Div"}
_REDUCED = {0: "ReduceSum", 3: "ReduceMean", 4: "ReduceMax", 5: "ReduceMin", 6: "ReduceProd", 8: "ReduceL2"}


def ncnn_graph(
    layers: Sequence[NcnnLayer],
    inputs: Mapping[str, Sequence[int]],
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
    writer = _Writer(as_it_runs)
    for layer, (name, shape) in zip((x for x in layers if x.kind == "Input"), inputs.items(), strict=False):
        writer.node("Squeeze", [name, writer.shape(0)], layer.tops[0])
        writer.ranks[layer.tops[0]] = len(shape) - 1
    for layer in (each for each in layers if each.kind != "Input"):
        if layer.kind not in _LAYERS:
            raise UnsupportedOperationError(
                f"layer {layer.name}: what {layer.kind} means is not written down"
            )
        writer.prefix = layer.name
        _LAYERS[layer.kind](writer, layer)
    for own, name in zip(ends_of(layers), outputs, strict=False):
        writer.node("Unsqueeze", [own, writer.shape(0)], name)
    return writer.model("ncnn", inputs, outputs)


def ends_of(layers: Sequence[NcnnLayer]) -> list[str]:
    """Return a model's outputs: what no layer takes, in the order of the numbers that ncnn's converter gives."""
    taken = {name for layer in layers for name in layer.bottoms}
    ends = [name for layer in layers for name in layer.tops if name not in taken]
    return sorted(ends, key=lambda name: (len(name), name) if name.startswith("out") else (0, ""))


@dataclass(frozen=True)
class Integers:
    """Integers on their way into a product.

    Attributes
    ----------
    name
    scale
        How many of their steps make 1.
    """

    name: str
    scale: str


Factor = str | Integers
"""A tensor of floats, or of integers."""


class _Writer(GraphWriter):
    """And how many axes each blob has, and which are integers."""

    def __init__(self, as_it_runs: bool = False) -> None:
        super().__init__()
        self.as_it_runs = as_it_runs
        self.ranks: dict[str, int] = {}
        self.integers: set[str] = set()

    def done(self, layer: NcnnLayer, name: str, rank: int) -> None:
        """Give a layer's only blob."""
        self.node("Identity", [name], layer.tops[0])
        self.ranks[layer.tops[0]] = rank

    def like(self, layer: NcnnLayer, name: str) -> None:
        """Give a layer's only blob, of as many axes as its first operand."""
        self.done(layer, name, self.ranks[layer.bottoms[0]])


    def operand(self, layer: NcnnLayer) -> Factor:
        """Return what a layer takes; of one with a scale for it, as the integers that it makes of it."""
        name = layer.bottoms[0]
        if not layer.scales:
            return name
        integers = name if name in self.integers else self._integers(name, layer, layer.scales[1])
        return self._factor(integers, layer, layer.scales[1])

    def weight(self, layer: NcnnLayer, held: Array, scales: Array | None, axis: int = 0) -> Factor:
        """Return one of a layer's weights, of integers if there are scales for the places along an axis."""
        if scales is None and held.dtype != np.int8:
            return self.constant(held)
        if scales is None or (held.dtype != np.int8 and layer.kind not in MADE_INTEGERS):
            raise UnsupportedOperationError(
                f"layer {layer.name}: weights of {held.dtype} "
                f"{'without' if scales is None else 'with'} scales of integers are not written down"
            )
        scales = scales.repeat(held.shape[axis] // len(scales))
        along = scales.reshape([-1 if place == axis else 1 for place in range(held.ndim)])
        if held.dtype != np.int8:
            held = _nearest(held.astype(np.float32) * along).clip(-LARGEST, LARGEST)
        # Whatever the integers are, a scale of zero makes nothing of them.
        held = np.where(along == 0, 0, held).astype(np.int8)
        scales, along = (np.where(each == 0, 1, each).astype(np.float32) for each in (scales, along))
        if self.as_it_runs:
            return Integers(self.constant(held), self.constant(along))
        grid = self.constant(1 / scales), self.constant(np.zeros(len(scales), np.int8))
        return self.node("DequantizeLinear", [self.constant(held), *grid], axis=axis)

    def requantised(self, layer: NcnnLayer, name: str) -> str:
        """Return a layer's result: as integers, if it is handed on so."""
        if layer.integers <= REQUANTISED:
            return name
        self.integers.add(layer.tops[0])
        return self._integers(name, layer, layer.scales[2])

    def rounded(self, layer: NcnnLayer, name: str, axes: Sequence[int]) -> Factor:
        """Return what a layer multiplies: as the integers that it makes, the largest along some axes 127."""
        if not self.as_it_runs or not layer.integers:
            return name
        largest = self.node("ReduceMax", [self.node("Abs", [name]), self.shape(*axes)], keepdims=1)
        largest = self.node("Max", [largest, self.scalar(ZEROS)])
        scale = self.node("Div", [self.scalar(LARGEST), largest])
        grid = self.scalar(1.0), self.constant(np.zeros((), np.int8))
        return Integers(self.node("QuantizeLinear", [self.node("Mul", [name, scale]), *grid]), scale)

    def turned(self, x: Factor) -> Factor:
        """Return a matrix with its axes swapped."""
        if isinstance(x, Integers):
            return Integers(*(self.node("Transpose", [name], perm=[1, 0]) for name in (x.name, x.scale)))
        return self.node("Transpose", [x], perm=[1, 0])

    def product(self, first: Factor, second: Factor) -> str:
        """Return a product of matrices."""
        if isinstance(first, Integers) and isinstance(second, Integers):
            total = self.node("MatMulInteger", [first.name, second.name])
            return self.scaled(total, first.scale, second.scale)
        assert isinstance(first, str)
        assert isinstance(second, str)
        return self.node("MatMul", [first, second])

    def scaled(self, total: str, first: str, second: str, *, estimated: bool = False) -> str:
        """Return what a sum of products of integers stands for, by the scales of both."""
        scale = self.node("Mul", [first, second])
        one = [] if estimated else [self.scalar(1.0)]
        factor = self.node("Reciprocal" if estimated else "Div", [*one, scale])
        return self.node("Mul", [self.node("Cast", [total], to=onnx.TensorProto.FLOAT), factor])

    def _integers(self, name: str, layer: NcnnLayer, scale: Array) -> str:
        step, *grid = self._grid(layer, scale)
        if self.as_it_runs:
            name = self.node("Clip", [name, self.scalar(-LARGEST * step), self.scalar(LARGEST * step)])
        return self.node("QuantizeLinear", [name, *grid])

    def _factor(self, integers: str, layer: NcnnLayer, scale: Array) -> Factor:
        if self.as_it_runs:
            return Integers(integers, self.constant(scale.reshape(())))
        return self.node("DequantizeLinear", [integers, *self._grid(layer, scale)[1:]])

    def _grid(self, layer: NcnnLayer, scale: Array) -> tuple[float, str, str]:
        """Return the step of integers, as a number and as a constant, and their zero point."""
        if scale[0] <= 0:
            raise FileError(f"layer {layer.name}: the scale of what it takes or gives is {scale[0]}")
        step = 1 / scale.reshape(())
        return float(step), self.constant(np.array(step)), self.constant(np.zeros((), np.int8))


def _nearest(numbers: Array) -> Array:
    """Return the nearest whole numbers, of two the one that is farther from zero."""
    return np.trunc(numbers + np.copysign(np.float32(0.5), numbers))


def _activated(writer: _Writer, layer: NcnnLayer, name: str) -> str:
    kind, params = layer.param(9), layer.param(10, ())
    if kind == 0:
        return name
    if kind == 1:
        return writer.node("Relu", [name])
    if kind == 2:
        return writer.node("LeakyRelu", [name], alpha=float(params[0]))
    if kind == 3:
        return writer.node("Clip", [name, *map(writer.scalar, params[:2])])
    if kind == 4:
        return writer.node("Sigmoid", [name])
    if kind == 6:
        slope = writer.node("HardSigmoid", [name], alpha=float(params[0]), beta=float(params[1]))
        return writer.node("Mul", [name, slope])
    raise UnsupportedOperationError(f"layer {layer.name}: activation {kind} is not written down")


def _convolution(writer: _Writer, layer: NcnnLayer) -> None:
    wide, high = layer.param(1), layer.param(11, layer.param(1))
    left = layer.param(4)
    top, right = layer.param(14, left), layer.param(15, left)
    pads = [top, left, layer.param(16, top), right]
    if min(pads) < 0 or layer.param(18, 0.0):
        raise UnsupportedOperationError(f"layer {layer.name}: padding {pads} is not written down")
    made, groups = int(layer.param(0)), layer.param(7, 1)
    shape = made, layer.weights[0].size // (made * high * wide), high, wide
    how: dict[str, Any] = {
        "strides": [layer.param(13, layer.param(3, 1)), layer.param(3, 1)],
        "dilations": [layer.param(12, layer.param(2, 1)), layer.param(2, 1)],
        "pads": pads,
        "group": groups,
    }
    x, taps = writer.operand(layer), writer.weight(layer, layer.weights[0].reshape(shape), _first(layer))
    biases = [writer.constant(bias.reshape(-1, 1, 1)) for bias in layer.weights[1:]]
    if isinstance(x, Integers) and isinstance(taps, Integers):
        total = writer.node("ConvInteger", [_in_batch(writer, x.name), taps.name], **how)
        scale = writer.node("Reshape", [taps.scale, writer.shape(-1, 1, 1)])
        estimated = groups == made and made % PACKED == 0
        result = writer.scaled(total, x.scale, scale, estimated=estimated)
    else:
        result = writer.node("Conv", [_in_batch(writer, x), taps], **how)
    for bias in biases:
        result = writer.node("Add", [result, bias])
    result = writer.node("Squeeze", [_activated(writer, layer, result), writer.shape(0)])
    writer.done(layer, writer.requantised(layer, result), 3)


def _first(layer: NcnnLayer) -> Array | None:
    """Return the scales of a layer's only weights, if they are integers."""
    return layer.scales[0] if layer.scales else None


def _in_batch(writer: _Writer, name: Any) -> str:
    return writer.node("Unsqueeze", [name, writer.shape(0)])


def _inner_product(writer: _Writer, layer: NcnnLayer) -> None:
    """Of a vector, of what becomes one, or of each row of a matrix."""
    made, rank = int(layer.param(0)), writer.ranks[layer.bottoms[0]]
    matrix = writer.turned(writer.weight(layer, layer.weights[0].reshape(made, -1), _first(layer)))
    x = writer.operand(layer)
    if rank > 2:
        flat = [writer.node("Reshape", [x if isinstance(x, str) else x.name, writer.shape(-1)])]
        x = flat[0] if isinstance(x, str) else Integers(flat[0], x.scale)
    result = writer.product(x, matrix)
    for bias in layer.weights[1:]:
        result = writer.node("Add", [result, writer.constant(bias)])
    writer.done(layer, _activated(writer, layer, result), 2 if rank == 2 else 1)


def _pooling(writer: _Writer, layer: NcnnLayer) -> None:
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


def _interp(writer: _Writer, layer: NcnnLayer) -> None:
    kind, sides = layer.param(0), (layer.param(3), layer.param(4))
    if kind not in (1, 2) or not all(sides) or layer.param(6):
        raise UnsupportedOperationError(f"layer {layer.name}: this way of resizing is not written down")
    x = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(0)])
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    how: dict[str, Any] = nearest if kind == 1 else {"mode": "linear"}
    made = writer.node("Resize", [x, "", "", writer.shape(*sides)], axes=[2, 3], **how)
    writer.done(layer, writer.node("Squeeze", [made, writer.shape(0)]), 3)


def _binary(writer: _Writer, layer: NcnnLayer) -> None:
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


def _reshape(writer: _Writer, layer: NcnnLayer) -> None:
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


def _side(writer: _Writer, layer: NcnnLayer, word: str) -> str:
    """Return a side of an expression: a number, or the side of a blob, as in ``1h``."""
    if word.removeprefix("-").isdecimal():
        return writer.shape(int(word))
    blob, side = word[:-1], word[-1:]
    if not blob.isdecimal() or int(blob) >= len(layer.bottoms) or side not in "whc" or not side:
        raise UnsupportedOperationError(f"layer {layer.name}: the side {word!r} is not written down")
    name = layer.bottoms[int(blob)]
    place = writer.ranks[name] - 1 - "whc".index(side)
    return writer.node("Gather", [writer.node("Shape", [name]), writer.shape(place)], axis=0)


def _permute(writer: _Writer, layer: NcnnLayer) -> None:
    rank, order = writer.ranks[layer.bottoms[0]], layer.param(0)
    axes = "chw"[3 - rank :]
    # ncnn lists sides from the innermost on.
    wanted = [side for side in reversed(_ORDERS[order]) if side in axes]
    writer.like(
        layer, writer.node("Transpose", [layer.bottoms[0]], perm=[axes.index(side) for side in wanted])
    )


def _concat(writer: _Writer, layer: NcnnLayer) -> None:
    writer.like(layer, writer.node("Concat", layer.bottoms, axis=layer.param(0)))


def _mat_mul(writer: _Writer, layer: NcnnLayer) -> None:
    first, second = layer.bottoms
    ranks = [writer.ranks[name] for name in layer.bottoms]
    if min(ranks) < 2:
        raise UnsupportedOperationError(
            f"layer {layer.name}: {first} has {ranks[0]} axes and {second} {ranks[1]}; ncnn takes a matrix "
            "of one row for a vector"
        )
    if layer.param(0):
        swapped = [*range(ranks[1] - 2), ranks[1] - 1, ranks[1] - 2]
        second = writer.node("Transpose", [second], perm=swapped)
    writer.done(layer, writer.node("MatMul", [first, second]), max(ranks))


def _gemm(writer: _Writer, layer: NcnnLayer) -> None:
    m, n, k = (layer.param(number) for number in (7, 8, 9))
    weights, taken, scales = iter(layer.weights), iter(layer.bottoms), iter(layer.scales)
    swapped = [bool(layer.param(2)), bool(layer.param(3))]
    shapes = [(k, m) if swapped[0] else (m, k), (n, k) if swapped[1] else (k, n)]
    moved = []
    for constant, shape, swap, axes in zip((4, 5), shapes, swapped, ((-1,), (-2, -1)), strict=True):
        if layer.param(constant):
            rows = int(swap) if constant == 4 else 0
            x = writer.weight(layer, next(weights).reshape(shape), next(scales, None), rows)
            moved.append(writer.turned(x) if swap else x)
        else:
            name = next(taken)
            name = writer.node("Transpose", [name], perm=[1, 0]) if swap else name
            moved.append(writer.rounded(layer, name, axes))
    made = writer.product(*moved)
    added = {0: (1, 1), 1: (m, 1), 2: (m, 1), 3: (m, n), 4: (1, n)}.get(layer.param(10, -1))
    if layer.param(6) and added:
        made = writer.node("Add", [made, writer.constant(next(weights).reshape(added))])
    if layer.param(0, 1.0) != 1.0 or layer.param(1, 1.0) != 1.0 or [*taken]:
        raise UnsupportedOperationError(f"layer {layer.name}: this Gemm is not written down")
    writer.done(layer, made, 2)


def _layer_norm(writer: _Writer, layer: NcnnLayer) -> None:
    scale, shift = layer.weights or [
        np.ones(layer.param(0), np.float32),
        np.zeros(layer.param(0), np.float32),
    ]
    operands = [layer.bottoms[0], writer.constant(scale), writer.constant(shift)]
    writer.like(layer, writer.node("LayerNormalization", operands, axis=-1, epsilon=layer.param(1, 1e-5)))


def _batch_norm(writer: _Writer, layer: NcnnLayer) -> None:
    slope, mean, variance, bias = map(writer.constant, layer.weights)
    _of_maps(writer, layer, "BatchNormalization", [slope, bias, mean, variance], layer.param(1, 0.0))


def _instance_norm(writer: _Writer, layer: NcnnLayer) -> None:
    channels = layer.param(0)
    scale, shift = layer.weights or [np.ones(channels, np.float32), np.zeros(channels, np.float32)]
    constants = [writer.constant(scale), writer.constant(shift)]
    _of_maps(writer, layer, "InstanceNormalization", constants, layer.param(1, 1e-3))


def _of_maps(writer: _Writer, layer: NcnnLayer, operator: str, constants: list[str], epsilon: float) -> None:
    """Write a norm whose operand has a batch axis."""
    x = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(0)])
    made = writer.node(operator, [x, *constants], epsilon=epsilon)
    writer.like(layer, writer.node("Squeeze", [made, writer.shape(0)]))


def _p_relu(writer: _Writer, layer: NcnnLayer) -> None:
    (slope,) = layer.weights
    sides = [-1, *[1] * (writer.ranks[layer.bottoms[0]] - 1)]
    writer.like(layer, writer.node("PRelu", [layer.bottoms[0], writer.constant(slope.reshape(sides))]))


def _memory(writer: _Writer, layer: NcnnLayer) -> None:
    sides = [side for side in (layer.param(number) for number in (2, 11, 1, 0)) if side]
    writer.done(layer, writer.constant(layer.weights[0].reshape(sides)), len(sides))


def _reduction(writer: _Writer, layer: NcnnLayer) -> None:
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


def _attention(writer: _Writer, layer: NcnnLayer) -> None:
    if layer.param(5) or len(layer.bottoms) > 3:
        raise UnsupportedOperationError(f"layer {layer.name}: a masked attention is not written down")
    embedding, heads = layer.param(0), layer.param(1)
    bottoms = [*layer.bottoms, layer.bottoms[-1], layer.bottoms[-1]][:3]
    scale = layer.param(6, 1 / np.sqrt(embedding / heads))
    split = writer.shape(-1, heads, embedding // heads)


    def projected(name: str, place: int, axes: Sequence[int] = (-2, -1)) -> str:
        held, bias = layer.weights[2 * place : 2 * place + 2]
        scales = layer.scales[place] if layer.integers else None
        matrix = writer.turned(writer.weight(layer, held.reshape(len(bias), -1), scales))
        product = writer.product(writer.rounded(layer, name, axes), matrix)
        return writer.node("Add", [product, writer.constant(bias)])

    query, key, value = (projected(name, place) for place, name in enumerate(bottoms))
    query = writer.node("Mul", [query, writer.scalar(scale)])
    query, key, value = (writer.node("Reshape", [name, split]) for name in (query, key, value))
    query, value = (writer.node("Transpose", [name], perm=[1, 0, 2]) for name in (query, value))
    key = writer.node("Transpose", [key], perm=[1, 2, 0])
    logits = writer.product(*(writer.rounded(layer, *each) for each in ((query, (-1,)), (key, (-2, -1)))))
    chances = writer.node("Softmax", [logits], axis=-1)
    weighted = writer.product(
        *(writer.rounded(layer, *each) for each in ((chances, (-1,)), (value, (-2, -1))))
    )
    merged = writer.node("Transpose", [weighted], perm=[1, 0, 2])
    merged = writer.node("Reshape", [merged, writer.shape(-1, embedding)])
    writer.done(layer, projected(merged, 3, (-1,)), 2)


def _split(writer: _Writer, layer: NcnnLayer) -> None:
    for top in layer.tops:
        writer.node("Identity", layer.bottoms, top)
        writer.ranks[top] = writer.ranks[layer.bottoms[0]]
        writer.integers |= {top} if layer.bottoms[0] in writer.integers else set()


def _softmax(writer: _Writer, layer: NcnnLayer) -> None:
    writer.like(layer, writer.node("Softmax", layer.bottoms, axis=layer.param(0)))


def _clip(writer: _Writer, layer: NcnnLayer) -> None:
    limits = [
        writer.scalar(layer.param(0, -np.finfo(np.float32).max)),
        writer.scalar(layer.param(1, np.finfo(np.float32).max)),
    ]
    writer.like(layer, writer.node("Clip", [*layer.bottoms, *limits]))


def _hard_sigmoid(writer: _Writer, layer: NcnnLayer) -> None:
    how: dict[str, Any] = {"alpha": float(layer.param(0, 0.2)), "beta": float(layer.param(1, 0.5))}
    writer.like(layer, writer.node("HardSigmoid", layer.bottoms, **how))


def _relu(writer: _Writer, layer: NcnnLayer) -> None:
    slope = float(layer.param(0, 0.0))
    made = (
        writer.node("LeakyRelu", layer.bottoms, alpha=slope) if slope else writer.node("Relu", layer.bottoms)
    )
    writer.like(layer, made)


def _sigmoid(writer: _Writer, layer: NcnnLayer) -> None:
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


def _unary(writer: _Writer, layer: NcnnLayer) -> None:
    kind, (x,) = layer.param(0), layer.bottoms
    if kind == SQUARE:
        writer.like(layer, writer.node("Mul", [x, x]))
        return
    if kind not in _UNARY:
        raise UnsupportedOperationError(f"layer {layer.name}: operation {kind} is not written down")
    for operator in _UNARY[kind]:
        x = writer.node(operator, [x])
    writer.like(layer, x)


_LAYERS: dict[str, Callable[[_Writer, NcnnLayer], None]] = {
    "BatchNorm": _batch_norm,
    "BinaryOp": _binary,
    "Clip": _clip,
    "Concat": _concat,
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "InnerProduct": _inner_product,
    "InstanceNorm": _instance_norm,
    "Interp": _interp,
    "LayerNorm": _layer_norm,
    "MatMul": _mat_mul,
    "MemoryData": _memory,
    "MultiHeadAttention": _attention,
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
