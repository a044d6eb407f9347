"""What ncnn's layers mean that give blobs another shape or another order of their axes, or none.

Source: github.com/Tencent/ncnn, ``src/layer/reshape.cpp``, ``permute.cpp`` and those beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance.conversion.ncnn_expressions import listed, shape_of, side_of
from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import SIDES, NcnnWriter, unwritten

ABSENT = -233
"""A side that Reshape leaves out."""
NO_BATCH = 233
"""Where Reshape has no axis of a batch."""
OF_SIDES: Mapping[str, int] = {"w": 0, "h": 1, "d": 11, "c": 2}
"""Side → the parameter of it."""
_ORDERS: Mapping[int, tuple[str, ...]] = {
    1: ("w",) * 24,
    2: ("wh", "hw"),
    3: ("whc", "hwc", "wch", "cwh", "hcw", "chw"),
    4: (
        *("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc", "whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd"),
        *("wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh", "hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw"),
    ),
}
"""Number of axes → Permute's orders, each from the innermost side on."""


def _reshape(writer: NcnnWriter, layer: NcnnLayer) -> None:
    if {layer.param(12, NO_BATCH), layer.param(13, NO_BATCH)} != {NO_BATCH}:
        raise unwritten(layer, "a Reshape of batches")
    if 6 in layer.params:
        given = listed(writer, layer, layer.param(6))
    else:
        sides = [layer.param(number, ABSENT) for number in (0, 1, 2, 11)]
        # The fourth side is the third of four.
        given = sides[: sides.index(ABSENT)] if ABSENT in sides else [*sides[:2], sides[3], sides[2]]
    if not 0 < len(given) < len(SIDES):
        raise unwritten(layer, f"a Reshape to {given}")
    names = SIDES[len(given)][::-1]
    (x, *_) = layer.bottoms
    target = [
        side_of(writer, x, name) if side == 0 else side for name, side in zip(names, given, strict=True)
    ]
    writer.done(layer, writer.node("Reshape", [x, shape_of(writer, target[::-1])]), len(target))


def _permute(writer: NcnnWriter, layer: NcnnLayer) -> None:
    axes = SIDES[writer.rank(layer)]
    order = _ORDERS[len(axes)][layer.param(0)]
    perm = [axes.index(side) for side in reversed(order)]
    writer.like(layer, writer.node("Transpose", [layer.bottoms[0]], perm=perm))


def _squeeze(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), own = layer.bottoms, SIDES[writer.rank(layer)]
    if layer.param(3, ()):
        axes = {writer.axis(layer, axis) for axis in layer.param(3)}
    else:
        axes = {at for at, side in enumerate(own) if layer.param(OF_SIDES[side])}
    lengths = writer.known(layer, x) if axes else []
    rest = [at for at in range(len(own)) if at not in axes or lengths[at] != 1]
    if len(rest) == len(own):
        writer.like(layer, x)
    elif not rest:
        writer.done(layer, writer.reshaped(x, 1), 1)
    else:
        gone = [at for at in range(len(own)) if at not in rest]
        writer.done(layer, writer.node("Squeeze", [x, writer.shape(*gone)]), len(rest))


def _expand(writer: NcnnWriter, layer: NcnnLayer) -> None:
    axes, rank = layer.param(3, ()), writer.rank(layer)
    whole = rank + len(axes)
    if whole >= len(SIDES) or not all(-whole <= axis < whole for axis in axes):
        raise unwritten(layer, f"an ExpandDims of {rank} axes by {axes}")
    made = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(*axes)]) if axes else layer.bottoms[0]
    writer.done(layer, made, rank + len(axes))


def _flatten(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.done(layer, writer.reshaped(layer.bottoms[0], -1), 1)


def _same(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Every blob is handed on."""
    if layer.kind == "Packing" and layer.param(1):
        raise unwritten(layer, "a Packing that pads")
    bottoms = layer.bottoms if len(layer.bottoms) == len(layer.tops) else layer.bottoms * len(layer.tops)
    for bottom, top in zip(bottoms, layer.tops, strict=True):
        writer.give(top, bottom, writer.ranks[bottom])
        writer.integers |= {top} if bottom in writer.integers else set()


def _pixel_shuffle(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.rank(layer, 3)
    how: dict[str, Any] = {"blocksize": int(layer.param(0, 1)), "mode": "DCR" if layer.param(1) else "CRD"}
    made = writer.node("DepthToSpace", [writer.in_batch(layer.bottoms[0])], **how)
    writer.done(layer, writer.out_of_batch(made), 3)


def _reorg(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.rank(layer, 3)
    (x,), step = layer.bottoms, int(layer.param(0, 1))
    channels, high, wide = writer.known(layer, x)
    x = writer.cut(writer.cut(x, 1, 0, high // step * step), 2, 0, wide // step * step)
    x = writer.reshaped(x, channels, high // step, step, wide // step, step)
    x = writer.node("Transpose", [x], perm=[2, 4, 0, 1, 3] if layer.param(1) else [0, 2, 4, 1, 3])
    writer.done(layer, writer.reshaped(x, channels * step * step, high // step, wide // step), 3)


def _shuffle_channel(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), groups = layer.bottoms, int(layer.param(0, 1))
    channels = writer.known(layer, x)[0] if writer.rank(layer) > 2 else 1
    if channels % groups:
        raise unwritten(layer, f"a shuffle of {channels} channels in {groups} groups")
    groups = channels // groups if layer.param(1) else groups
    rows = writer.reshaped(x, groups, channels // groups, -1)
    writer.like(layer, writer.shaped_like(writer.node("Transpose", [rows], perm=[1, 0, 2]), x))


def _diagonal(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Lay a vector along a diagonal of zeros, or take one out of a matrix."""
    (x,), offset = layer.bottoms, int(layer.param(0))
    lengths = writer.known(layer, x)
    down, right = max(-offset, 0), max(offset, 0)
    if writer.rank(layer, 1, 2) == 1:
        rows = writer.node("Mul", [x, writer.constant(np.eye(lengths[0], dtype=np.float32))])
        writer.done(layer, writer.node("Pad", [rows, writer.shape(down, right, right, down)]), 2)
        return
    count = min(lengths[0] - down, lengths[1] - right)
    if count < 1:
        raise unwritten(layer, f"diagonal {offset} of {lengths}")
    places = (np.arange(count) + down) * lengths[1] + np.arange(count) + right
    made = writer.node("Gather", [writer.reshaped(x, -1), writer.shape(*places.tolist())], axis=0)
    writer.done(layer, made, 1)


def _memory(writer: NcnnWriter, layer: NcnnLayer) -> None:
    sides = [side for side in (layer.param(number) for number in (2, 11, 1, 0)) if side]
    if not sides:
        raise unwritten(layer, "a MemoryData without numbers")
    writer.done(layer, writer.constant(layer.weights[0].reshape(sides)), len(sides))


SHAPES: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "DeepCopy": _same,
    "Diag": _diagonal,
    "ExpandDims": _expand,
    "Flatten": _flatten,
    "MemoryData": _memory,
    "Noop": _same,
    "Packing": _same,
    "Permute": _permute,
    "PixelShuffle": _pixel_shuffle,
    "Reorg": _reorg,
    "Reshape": _reshape,
    "ShuffleChannel": _shuffle_channel,
    "Split": _same,
    "Squeeze": _squeeze,
}
"""Layers that give other shapes."""
