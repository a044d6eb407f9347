"""What ncnn's norms mean.

Source: github.com/Tencent/ncnn, ``src/layer/*norm*.cpp``, ``mvn.cpp``, ``lrn.cpp``, ``normalize.cpp``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten
from refimpl.ops.operation import Array


def _batch_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    slope, mean, variance, bias = map(writer.constant, layer.weights)
    x = writer.in_batch(layer.bottoms[0])
    operands = [x, slope, bias, mean, variance]
    made = writer.node("BatchNormalization", operands, epsilon=float(layer.param(1, 0.0)))
    writer.like(layer, writer.out_of_batch(made))


def _affine(layer: NcnnLayer, size: int) -> list[Array]:
    """Return what a norm multiplies by and what it adds, 1 and 0 if it has none."""
    return list(layer.weights) or [np.ones(size, np.float32), np.zeros(size, np.float32)]


def _channels(writer: NcnnWriter, layer: NcnnLayer, told: int) -> int:
    """Return how long the first axis is; refuse to be told otherwise by a norm that has a number for each."""
    (own, *_) = writer.lengths(layer.bottoms[0])
    if own not in (None, told) and (layer.weights or layer.kind == "GroupNorm"):
        raise unwritten(layer, f"a {layer.kind} of {told} channels of {own}")
    return told if own is None else own


def _instance_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """A blob without channels is one channel."""
    rank = writer.rank(layer)
    ones = [0] if rank > 2 else [*range(4 - rank)]
    channels = _channels(writer, layer, int(layer.param(0))) if rank > 2 else 1
    x = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(*ones)])
    constants = [writer.constant(each[:channels]) for each in _affine(layer, channels)]
    made = writer.node("InstanceNormalization", [x, *constants], epsilon=float(layer.param(1, 1e-3)))
    writer.like(layer, writer.node("Squeeze", [made, writer.shape(*ones)]))


def _group_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), groups = layer.bottoms, int(layer.param(0, 1))
    if not groups or _channels(writer, layer, int(layer.param(1))) % groups:
        raise unwritten(layer, f"a GroupNorm of {layer.param(1)} channels in {groups} groups")
    rows = writer.reshaped(x, 1, groups, -1)
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    operands = [rows, writer.constant(ones), writer.constant(zeros)]
    made = writer.node("InstanceNormalization", operands, epsilon=float(layer.param(2, 1e-3)))
    made = writer.shaped_like(made, x)
    for operator, each in zip(("Mul", "Add"), layer.weights, strict=False):
        made = writer.node(operator, [made, writer.along_first(layer, each)])
    writer.like(layer, made)


def _normed(writer: NcnnWriter, layer: NcnnLayer) -> list[int]:
    """Return the lengths of the last axes that a norm goes over: its parameter 0 is their product."""
    rank, size = writer.rank(layer), int(layer.param(0))
    if rank < 3:
        return [writer.lengths(layer.bottoms[0])[-1] or size]
    if writer.lengths(layer.bottoms[0])[-1] == size:
        return [size]
    lengths = writer.known(layer, layer.bottoms[0])[1:]
    sizes = [*itertools.accumulate(reversed(lengths), lambda first, second: first * second)]
    if size not in sizes:
        raise unwritten(layer, f"a {layer.kind} over {size} of {lengths}")
    return lengths[-1 - sizes.index(size) :]


def _layer_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    lengths = _normed(writer, layer)
    constants = [writer.constant(each.reshape(lengths)) for each in _affine(layer, math.prod(lengths))]
    how: dict[str, Any] = {"axis": -len(lengths), "epsilon": float(layer.param(1, 1e-3))}
    writer.like(layer, writer.node("LayerNormalization", [layer.bottoms[0], *constants], **how))


def _rms_norm(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), lengths = layer.bottoms, _normed(writer, layer)
    squares = writer.node("Mul", [x, x])
    axes = writer.shape(*range(-len(lengths), 0))
    mean = writer.node("ReduceMean", [squares, axes], keepdims=1)
    mean = writer.node("Add", [mean, writer.scalar(layer.param(1, 1e-3))])
    made = writer.node("Div", [x, writer.node("Sqrt", [mean])])
    for each in layer.weights:
        made = writer.node("Mul", [made, writer.constant(each.reshape(lengths))])
    writer.like(layer, made)


def _local_response(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Divide by a mean of squares, over channels or a square of the map.

    Of an even number one more is before than behind: so ncnn's package computes it, its source takes both.
    """
    writer.rank(layer, 3)
    (x,), size = layer.bottoms, int(layer.param(1, 5))
    wide = [size, 1, 1] if layer.param(0) == 0 else [1, size, size]
    before, behind = [each // 2 for each in wide], [each - each // 2 - 1 for each in wide]
    squares = writer.node("Unsqueeze", [writer.node("Mul", [x, x]), writer.shape(0, 1)])
    how: dict[str, Any] = {"kernel_shape": wide, "pads": before + behind, "count_include_pad": 1}
    mean = writer.node("Squeeze", [writer.node("AveragePool", [squares], **how), writer.shape(0, 1)])
    base = writer.node("Mul", [mean, writer.scalar(layer.param(2, 1.0))])
    base = writer.node("Add", [base, writer.scalar(layer.param(4, 1.0))])
    power = writer.node("Pow", [base, writer.scalar(-layer.param(3, 0.75))])
    writer.like(layer, writer.node("Mul", [x, power]))


def _with_channels(writer: NcnnWriter, layer: NcnnLayer) -> tuple[str, int]:
    """Return an operand with at least three axes, the first ones of length 1, and how many it has."""
    rank = writer.rank(layer)
    if rank > 2:
        return layer.bottoms[0], rank
    return writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(*range(3 - rank))]), 3


def _mean_variance(writer: NcnnWriter, layer: NcnnLayer) -> None:
    x, rank = _with_channels(writer, layer)
    axes = writer.shape(*range(0 if layer.param(1) else 1, rank))
    made = writer.node("Sub", [x, writer.node("ReduceMean", [x, axes], keepdims=1)])
    if layer.param(0):
        mean = writer.node("ReduceMean", [writer.node("Mul", [made, made]), axes], keepdims=1)
        deviation = writer.node("Add", [writer.node("Sqrt", [mean]), writer.scalar(layer.param(2, 1e-4))])
        made = writer.node("Div", [made, deviation])
    # Even a vector becomes a blob of three axes.
    writer.done(layer, made, rank)


def _normalize(writer: NcnnWriter, layer: NcnnLayer) -> None:
    x, rank = _with_channels(writer, layer)
    axes = [0] * bool(layer.param(4, 1)) + [*range(1, rank)] * bool(layer.param(0))
    if not axes:
        writer.like(layer, layer.bottoms[0])
        return
    squares = writer.node("ReduceSum", [writer.node("Mul", [x, x]), writer.shape(*axes)], keepdims=1)
    length = _length(writer, squares, layer.param(9), writer.scalar(layer.param(2, 1e-4)))
    (factors,) = layer.weights
    factors = factors[:1] if layer.param(1) else factors
    made = writer.node("Div", [x, length])
    made = writer.node("Mul", [made, writer.constant(factors.reshape(-1, *[1] * (rank - 1)))])
    writer.like(layer, writer.shaped_like(made, layer.bottoms[0]))


def _length(writer: NcnnWriter, squares: str, mode: int, epsilon: str) -> str:
    """Return a length by a sum of squares, kept from zero as Caffe (0), PyTorch (1) or TensorFlow (2) do."""
    if mode == 0:
        return writer.node("Sqrt", [writer.node("Add", [squares, epsilon])])
    if mode == 1:
        return writer.node("Max", [writer.node("Sqrt", [squares]), epsilon])
    return writer.node("Sqrt", [writer.node("Max", [squares, epsilon])])


def _statistics(writer: NcnnWriter, layer: NcnnLayer) -> None:
    x, rank = _with_channels(writer, layer)
    axes = writer.shape(*range(1, rank))
    mean = writer.node("ReduceMean", [x, axes], keepdims=1)
    made = [mean]
    if layer.param(0):
        apart = writer.node("Sub", [x, mean])
        variance = writer.node("ReduceMean", [writer.node("Mul", [apart, apart]), axes], keepdims=1)
        made.append(writer.node("Sqrt", [variance]))
    writer.done(layer, writer.reshaped(_joined(writer, made), -1), 1)


def _joined(writer: NcnnWriter, names: Sequence[str]) -> str:
    return writer.node("Concat", names, axis=0)


NORMS: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "BatchNorm": _batch_norm,
    "GroupNorm": _group_norm,
    "InstanceNorm": _instance_norm,
    "LRN": _local_response,
    "LayerNorm": _layer_norm,
    "MVN": _mean_variance,
    "Normalize": _normalize,
    "RMSNorm": _rms_norm,
    "StatisticsPooling": _statistics,
}
"""Layers that norm."""
