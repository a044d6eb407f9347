"""What ncnn's poolings mean, along one, two or three axes.

Source: github.com/Tencent/ncnn, ``src/layer/pooling.cpp``, ``pooling1d.cpp``, ``pooling3d.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_windows import axes_of, paddings, same_padding, sides, split
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten

FULL, VALID, UPPER, LOWER = range(4)
"""Modes of padding: behind until every element is covered, none more, ONNX's SAME."""
KEPT = -233
"""A length of an adaptive pooling that stays as it is."""


def _pooling(writer: NcnnWriter, layer: NcnnLayer) -> None:
    axes = axes_of(layer)
    writer.rank(layer, axes + 1)
    if layer.param(4):
        x = writer.in_batch(layer.bottoms[0])
        made = writer.node("GlobalMaxPool" if layer.param(0) == 0 else "GlobalAveragePool", [x])
        writer.done(layer, writer.node("Squeeze", [made, writer.shape(0, *range(2, axes + 2))]), 1)
    elif layer.param(7):
        _adaptive(writer, layer)
    else:
        _windowed(writer, layer)


def _windowed(writer: NcnnWriter, layer: NcnnLayer) -> None:
    kernel, strides = sides(layer, (1, 11, 21), 0), sides(layer, (2, 12, 22), 1)
    pads, ceil = _pads(writer, layer, kernel, strides)
    how: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": int(ceil)}
    maximum = layer.param(0) == 0
    if not maximum:
        # In the modes SAME, ncnn looks for what is padded where the parameters say, which is nowhere.
        how["count_include_pad"] = int(bool(layer.param(6)) or layer.param(5) in (UPPER, LOWER))
    x = writer.in_batch(layer.bottoms[0])
    made = writer.node("MaxPool" if maximum else "AveragePool", [x], **how)
    writer.like(layer, writer.out_of_batch(made))


def _pads(
    writer: NcnnWriter, layer: NcnnLayer, kernel: list[int], strides: list[int]
) -> tuple[list[int], bool]:
    """Return what is padded before each axis, then behind each, and whether as much more as is needed."""
    mode, axes = layer.param(5), axes_of(layer)
    given = paddings(layer, (3, 13, 23), (14, 15, 16))
    counts_all = layer.param(0) != 0 and bool(layer.param(6))
    if mode in (FULL, VALID):
        _check_windows(writer, layer, (kernel, strides, given), ceil=mode == FULL, inside=not counts_all)
    if mode == VALID:
        return given, False
    if mode not in (FULL, UPPER, LOWER) or (mode != FULL and any(given)):
        raise unwritten(layer, f"mode {mode} of padding {given}")
    if mode == FULL and not counts_all:
        return given, True
    lengths = writer.known(layer, layer.bottoms[0])[1:]
    if mode == FULL:
        # ncnn counts what it pads to cover everything, ONNX does not.
        around = [length + given[at] + given[at + axes] for at, length in enumerate(lengths)]
        more = [-(whole - size) % step for whole, size, step in zip(around, kernel, strides, strict=True)]
        return given[:axes] + [pad + extra for pad, extra in zip(given[axes:], more, strict=True)], False
    missing = same_padding(kernel, strides, lengths)
    if min(missing) < 0 < max(missing):
        raise unwritten(layer, f"padding by {missing}")
    return split(missing, upper=mode == UPPER, flat_only=True), False


def _check_windows(
    writer: NcnnWriter,
    layer: NcnnLayer,
    windows: tuple[list[int], list[int], list[int]],
    *,
    ceil: bool,
    inside: bool,
) -> None:
    """Refuse windows that are larger than the map, or, if it matters, lie in the padding only.

    Parameters
    ----------
    writer, layer
    windows
        Their lengths, strides and padding.
    ceil
        Whether the last window may reach beyond the padding.
    inside
        Whether every window needs an element.
    """
    kernel, strides, pads = windows
    for at, length in enumerate(writer.lengths(layer.bottoms[0])[1:]):
        if length is None:
            continue
        size, step, before = kernel[at], strides[at], pads[at]
        rest = length + before + pads[at + len(kernel)] - size
        last = (-(-rest // step) if ceil else rest // step) * step
        if rest < 0 or (inside and (last >= length + before or size <= before)):
            raise unwritten(layer, f"a pooling of {length} by {size} with a window outside")


def _adaptive(writer: NcnnWriter, layer: NcnnLayer) -> None:
    wanted = sides(layer, (8, 18, 28), 0)
    lengths = writer.lengths(layer.bottoms[0])[1:]
    x = layer.bottoms[0]
    for place, (size, length) in enumerate(zip(wanted, lengths, strict=True)):
        # Of one axis, ncnn does not know it.
        if size == KEPT and axes_of(layer) > 1:
            continue
        if size < 1:
            raise unwritten(layer, f"an adaptive pooling to {size}")
        if length is None and size > 1:
            length = writer.known(layer, layer.bottoms[0])[place + 1]
        x = _adapted(writer, x, axes_of(layer) + 1, place + 1, length, size, maximum=layer.param(0) == 0)
    writer.like(layer, x)


def _adapted(
    writer: NcnnWriter, x: str, rank: int, axis: int, length: int | None, size: int, *, maximum: bool
) -> str:
    """Return a tensor pooled along one axis, to so many windows of nearly the same length."""
    if size == length:
        return x
    reduce = "ReduceMax" if maximum else "ReduceMean"
    if size == 1 or length is None:
        return writer.node(reduce, [x, writer.shape(axis)], keepdims=1)
    starts = [length * at // size for at in range(size)]
    counts = [-(-length * (at + 1) // size) - start for at, start in enumerate(starts)]
    # Shorter windows repeat their last element, which no maximum sees and a mean weighs with 0.
    steps = np.arange(max(counts))
    places = np.array(starts)[:, None] + np.minimum(steps, np.array(counts)[:, None] - 1)
    x = writer.node("Gather", [x, writer.constant(places.astype(np.int64))], axis=axis)
    if maximum:
        return writer.node("ReduceMax", [x, writer.shape(axis + 1)], keepdims=0)
    inside = (steps < np.array(counts)[:, None]).astype(np.float32)
    behind = [1] * (rank - axis - 1)
    weighed = writer.node("Mul", [x, writer.constant(inside.reshape(size, -1, *behind))])
    total = writer.node("ReduceSum", [weighed, writer.shape(axis + 1)], keepdims=0)
    return writer.node("Div", [total, writer.constant(np.array(counts, np.float32).reshape(-1, *behind))])


POOLING: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "Pooling": _pooling,
    "Pooling1D": _pooling,
    "Pooling3D": _pooling,
}
"""Layers that pool."""
