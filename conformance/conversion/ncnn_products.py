"""What ncnn's layers of products mean: convolutions, matrices, attention, of floats or integers.

Source: github.com/Tencent/ncnn, ``src/layer/*.cpp`` and its wiki, *operators*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from conformance.conversion.ncnn_activations import activated
from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_windows import axes_of, padded, resolved, taps_of_blobs, window
from conformance.conversion.ncnn_writer import Factor, Integers, NcnnWriter, unwritten
from refimpl.ops.operation import Array

PACKED = 8
"""Channels of integers that x86 computes at once; grouped ones are scaled by the estimate of a reciprocal."""


def _convolution(writer: NcnnWriter, layer: NcnnLayer) -> None:
    rank = axes_of(layer) + 1
    writer.rank(layer, rank)
    x, groups = writer.operand(layer), int(layer.param(7, 1)) if "DepthWise" in layer.kind else 1
    taps, biases, kernel = _taps(writer, layer, groups)
    found = resolved(writer, layer, window(layer, kernel))
    if isinstance(x, Integers) and isinstance(taps, Integers):
        total = writer.node(
            "ConvInteger", [writer.in_batch(x.name), taps.name], group=groups, **found.attributes
        )
        scale = writer.node("Reshape", [taps.scale, writer.shape(-1, 1, 1)])
        made = int(layer.param(0))
        result = writer.scaled(total, x.scale, scale, estimated=groups == made and made % PACKED == 0)
    else:
        batch, how = padded(writer, layer, str(x), found)
        result = writer.node("Conv", [batch, str(taps)], group=groups, **how)
    for bias in biases:
        result = writer.node("Add", [result, bias])
    result = writer.out_of_batch(activated(writer, layer, result))
    writer.done(layer, writer.requantised(layer, result), rank)


def _taps(writer: NcnnWriter, layer: NcnnLayer, groups: int) -> tuple[Factor, list[str], list[int]]:
    """Return a convolution's weights, its biases, as it adds them, and the lengths of its kernels."""
    axes = axes_of(layer)
    along = [-1, *[1] * axes]
    if layer.param(19):
        return taps_of_blobs(writer, layer)
    kernel, made = window(layer).kernel, int(layer.param(0))
    if layer.scales and layer.param(18, 0.0):
        raise unwritten(layer, "a padding that integers are made of")
    held = layer.weights[0].reshape(made, -1, *kernel)
    biases = [writer.constant(bias.reshape(along)) for bias in layer.weights[1:]]
    return writer.weight(layer, held, _first(layer)), biases, kernel


def _first(layer: NcnnLayer) -> Array | None:
    """Return the scales of a layer's only weights, if they are integers."""
    return layer.scales[0] if layer.scales else None


def _inner_product(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Of a vector, of what becomes one, or of each row of a matrix as long as the weights' rows."""
    made, rank = int(layer.param(0)), writer.ranks[layer.bottoms[0]]
    columns = layer.weights[0].size // made
    if rank == 2 and writer.lengths(layer.bottoms[0])[1] not in (None, columns):
        rank = 3
    matrix = writer.turned(writer.weight(layer, layer.weights[0].reshape(made, -1), _first(layer)))
    x = writer.operand(layer)
    if rank != 2:
        name = writer.node("Reshape", [x.name if isinstance(x, Integers) else x, writer.shape(1, -1)])
        x = Integers(name, x.scale) if isinstance(x, Integers) else name
    result = writer.product(x, matrix)
    result = result if rank == 2 else writer.node("Reshape", [result, writer.shape(-1)])
    for bias in layer.weights[1:]:
        result = writer.node("Add", [result, writer.constant(bias)])
    writer.done(layer, activated(writer, layer, result), 2 if rank == 2 else 1)


def _mat_mul(writer: NcnnWriter, layer: NcnnLayer) -> None:
    first, second = layer.bottoms
    ranks = [writer.ranks[name] for name in layer.bottoms]
    if layer.param(0) and ranks[1] > 1:
        swapped = [*range(ranks[1] - 2), ranks[1] - 1, ranks[1] - 2]
        second = writer.node("Transpose", [second], perm=swapped)
    made = writer.node("MatMul", [first, second])
    if min(ranks) > 1:
        writer.done(layer, made, max(ranks))
    elif max(ranks) > 1:
        writer.done(layer, made, max(ranks) - 1)
    else:
        writer.done(layer, writer.reshaped(made, 1), 1)


def _gemm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    m, n, k = (layer.param(number) for number in (7, 8, 9))
    weights, taken, scales = iter(layer.weights), iter(layer.bottoms), iter(layer.scales)
    swapped = [bool(layer.param(2)), bool(layer.param(3))]
    shapes = [(k, m) if swapped[0] else (m, k), (n, k) if swapped[1] else (k, n)]
    moved, sides = [], []
    for constant, shape, swap, axes in zip((4, 5), shapes, swapped, ((-1,), (-2, -1)), strict=True):
        if layer.param(constant):
            rows = int(swap) if constant == 4 else 0
            x = writer.weight(layer, next(weights).reshape(shape), next(scales, None), rows)
            moved.append(writer.turned(x) if swap else x)
            sides.append(list(shape[::-1] if swap else shape))
        else:
            name = _matrix(writer, layer, next(taken))
            name = writer.node("Transpose", [name], perm=[1, 0]) if swap else name
            moved.append(writer.rounded(layer, name, axes))
            sides.append(writer.lengths(name) if writer.lengths(name) else [None, None])
    made = writer.product(*moved)
    added = _addend(writer, layer, [*weights], [*taken], (sides[0][0], sides[1][1]))
    if added:
        added = writer.node("Mul", [added, writer.scalar(layer.param(1, 1.0))])
        made = writer.node("Add", [made, added])
    if layer.param(0, 1.0) != 1.0:
        made = writer.node("Mul", [made, writer.scalar(layer.param(0))])
    made = writer.node("Transpose", [made], perm=[1, 0]) if layer.param(14) else made
    if layer.param(11):
        writer.done(layer, writer.node("Unsqueeze", [made, writer.shape(1)]), 3)
    else:
        writer.done(layer, made, 2)


def _matrix(writer: NcnnWriter, layer: NcnnLayer, name: str) -> str:
    """Return an operand as a matrix: of three axes, the middle one is of length 1."""
    if writer.ranks[name] == 3:
        if writer.known(layer, name)[1] != 1:
            raise unwritten(layer, f"a Gemm of {writer.known(layer, name)}")
        return writer.node("Squeeze", [name, writer.shape(1)])
    if writer.ranks[name] != 2:
        raise unwritten(layer, f"a Gemm of {writer.ranks[name]} axes")
    return name


def _addend(
    writer: NcnnWriter,
    layer: NcnnLayer,
    weights: Sequence[Array],
    taken: Sequence[str],
    sides: tuple[int | None, int | None],
) -> str:
    """Return what a Gemm adds, to be broadcast; "": it adds nothing."""
    m, n = sides
    if layer.param(6):
        if not weights:
            return ""
        spread = {0: (1, 1), 1: (-1, 1), 2: (-1, 1), 3: (-1, layer.param(8)), 4: (1, -1)}
        return writer.constant(weights[0].reshape(spread[layer.param(10)]))
    if not taken:
        return ""
    lengths = writer.known(layer, taken[0])
    if m is None or n is None or lengths not in ([1], [m], [n], [m, 1], [m, n], [1, n]):
        raise unwritten(layer, f"a Gemm that adds {lengths} to {[m, n]}")
    # A vector that fits both is a row.
    return writer.reshaped(taken[0], -1, 1) if lengths == [m] != [n] else taken[0]


def _attention(writer: NcnnWriter, layer: NcnnLayer) -> None:
    if layer.param(7):
        raise unwritten(layer, "an attention that keeps its keys")
    embedding, heads = layer.param(0), layer.param(1, 1)
    given = len(layer.bottoms) - bool(layer.param(5))
    masks = layer.bottoms[given:]
    bottoms = [*layer.bottoms[:given], *[layer.bottoms[given - 1]] * 2][:3]
    scale = layer.param(6, 1 / np.sqrt(embedding // heads))
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
    for mask in masks:
        logits = writer.node("Add", [logits, mask])
    chances = writer.node("Softmax", [logits], axis=-1)
    weighted = writer.product(
        *(writer.rounded(layer, *each) for each in ((chances, (-1,)), (value, (-2, -1))))
    )
    merged = writer.node("Transpose", [weighted], perm=[1, 0, 2])
    merged = writer.node("Reshape", [merged, writer.shape(-1, embedding)])
    writer.done(layer, projected(merged, 3, (-1,)), 2)


PRODUCTS: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    **{
        f"Convolution{groups}{axes}": _convolution
        for groups in ("", "DepthWise")
        for axes in ("", "1D", "3D")
    },
    "Gemm": _gemm,
    "InnerProduct": _inner_product,
    "MatMul": _mat_mul,
    "MultiHeadAttention": _attention,
}
"""Layers of products."""
