"""What ncnn's layers of products mean: convolutions, matrices, attention, of floats or integers.

Source: github.com/Tencent/ncnn, ``src/layer/*.cpp`` and its wiki, *operators*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import Integers, NcnnWriter
from refimpl.errors import UnsupportedOperationError
from refimpl.ops.operation import Array

PACKED = 8
"""Channels of integers that x86 computes at once; grouped ones are scaled by the estimate of a reciprocal."""


def _activated(writer: NcnnWriter, layer: NcnnLayer, name: str) -> str:
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


def _convolution(writer: NcnnWriter, layer: NcnnLayer) -> None:
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
        result = writer.node("Conv", [_in_batch(writer, x), str(taps)], **how)
    for bias in biases:
        result = writer.node("Add", [result, bias])
    result = writer.node("Squeeze", [_activated(writer, layer, result), writer.shape(0)])
    writer.done(layer, writer.requantised(layer, result), 3)


def _first(layer: NcnnLayer) -> Array | None:
    """Return the scales of a layer's only weights, if they are integers."""
    return layer.scales[0] if layer.scales else None


def _in_batch(writer: NcnnWriter, name: Any) -> str:
    return writer.node("Unsqueeze", [name, writer.shape(0)])


def _inner_product(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Of a vector, of what becomes one, or of each row of a matrix."""
    made, rank = int(layer.param(0)), writer.ranks[layer.bottoms[0]]
    matrix = writer.turned(writer.weight(layer, layer.weights[0].reshape(made, -1), _first(layer)))
    x = writer.operand(layer)
    if rank != 2:
        name = writer.node("Reshape", [x.name if isinstance(x, Integers) else x, writer.shape(1, -1)])
        x = Integers(name, x.scale) if isinstance(x, Integers) else name
    result = writer.product(x, matrix)
    result = result if rank == 2 else writer.node("Reshape", [result, writer.shape(-1)])
    for bias in layer.weights[1:]:
        result = writer.node("Add", [result, writer.constant(bias)])
    writer.done(layer, _activated(writer, layer, result), 2 if rank == 2 else 1)


def _mat_mul(writer: NcnnWriter, layer: NcnnLayer) -> None:
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


def _gemm(writer: NcnnWriter, layer: NcnnLayer) -> None:
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


def _attention(writer: NcnnWriter, layer: NcnnLayer) -> None:
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


PRODUCTS: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "Gemm": _gemm,
    "InnerProduct": _inner_product,
    "MatMul": _mat_mul,
    "MultiHeadAttention": _attention,
}
"""Layers of products."""
