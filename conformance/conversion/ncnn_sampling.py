"""What ncnn's layers mean that read between the places of a picture.

Source: github.com/Tencent/ncnn, ``src/layer/interp.cpp``, ``gridsample.cpp``, ``roialign.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance.conversion.ncnn_expressions import listed, side_of
from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import SIDES, NcnnWriter, unwritten

NEAREST, LINEAR, CUBIC = 1, 2, 3
LEAST_FOR_CUBIC = 4
"""ncnn reads beside a row that is shorter."""


def _interp(writer: NcnnWriter, layer: NcnnLayer) -> None:
    rank = writer.rank(layer, 1, 2, 3)
    kind, wanted = layer.param(0), _wanted(writer, layer)
    if kind not in (NEAREST, LINEAR, CUBIC):
        raise unwritten(layer, f"way {kind} of resizing")
    if rank == 1:
        # A vector is spread: each of its numbers becomes a map.
        (x,) = layer.bottoms[:1]
        tall = writer.node("Unsqueeze", [x, writer.shape(1, 2)])
        writer.done(layer, writer.node("Expand", [tall, writer.shape(1, *wanted)]), 3)
        return
    own, wanted = writer.lengths(layer.bottoms[0])[1:], wanted[3 - rank :]
    if own == wanted:
        writer.like(layer, layer.bottoms[0])
        return
    if kind == NEAREST:
        writer.like(layer, _nearest(writer, layer, own, wanted))
        return
    aligned = bool(layer.param(6))
    if aligned and 1 in wanted:
        raise unwritten(layer, f"an Interp to {wanted} with its corners in place")
    if kind == CUBIC and any(each is not None and each < LEAST_FOR_CUBIC for each in own):
        raise unwritten(layer, f"a cubic Interp of {own}")
    how: dict[str, Any] = {"mode": "linear" if kind == LINEAR else "cubic"}
    how["coordinate_transformation_mode"] = "align_corners" if aligned else "half_pixel"
    writer.like(layer, _resized(writer, layer, wanted, how))


def _resized(writer: NcnnWriter, layer: NcnnLayer, wanted: list[int], how: dict[str, Any]) -> str:
    x = writer.in_batch(layer.bottoms[0])
    axes = [*range(2, 2 + len(wanted))]
    return writer.out_of_batch(writer.node("Resize", [x, "", "", writer.shape(*wanted)], axes=axes, **how))


def _wanted(writer: NcnnWriter, layer: NcnnLayer) -> list[int]:
    """Return the height and the width that are wanted."""
    if 9 in layer.params:
        sides = listed(writer, layer, layer.param(9))
        sides = [*sides, side_of(writer, layer.bottoms[0], "h")][:2][::-1]
    elif len(layer.bottoms) > 1:
        sides = [side_of(writer, layer.bottoms[1], side) for side in "hw"]
    elif layer.param(3) and layer.param(4):
        sides = [layer.param(3), layer.param(4)]
    else:
        sides = [
            _scaled(writer, layer, side, factor)
            for side, factor in (("h", layer.param(1, 1.0)), ("w", layer.param(2, 1.0)))
        ]
    known = [each for each in sides if not isinstance(each, str)]
    if len(known) < len(sides) or min(known) < 1:
        raise unwritten(layer, f"an Interp to {sides}")
    return known


def _scaled(writer: NcnnWriter, layer: NcnnLayer, side: str, factor: float) -> int | str:
    own = 1 if writer.rank(layer) == 1 else side_of(writer, layer.bottoms[0], side)
    return own if isinstance(own, str) else int(np.float32(own) * np.float32(factor))


def _nearest(writer: NcnnWriter, layer: NcnnLayer, own: list[int | None], wanted: list[int]) -> str:
    """Return every element's nearest to the left.

    ncnn computes the places in float32, and by the factor where it is given no size; where that leads to
    others than the quotient of the sizes, they are listed.
    """
    sized = {"h": 9 in layer.params or layer.param(3), "w": 9 in layer.params or layer.param(4)}
    found, exact = [], True
    for side, length, size in zip(SIDES[len(own) + 1][1:], own, wanted, strict=True):
        if length is None:
            if not sized[side]:
                raise unwritten(layer, "an Interp by a factor of what is not declared")
            continue
        factor = np.float32(layer.param({"h": 1, "w": 2}[side], 1.0))
        step = np.float32(length) / np.float32(size) if sized[side] else np.float32(1) / factor
        places = np.minimum((np.arange(size, dtype=np.float32) * step).astype(np.int64), length - 1)
        exact = exact and bool((places == np.arange(size) * length // size).all())
        found.append(places)
    if exact:
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return _resized(writer, layer, wanted, how)
    x = layer.bottoms[0]
    for axis, places in enumerate(found, start=1):
        x = writer.node("Gather", [x, writer.shape(*places.tolist())], axis=axis)
    return x


def _grid_sample(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.rank(layer, 3)
    kind, outside = layer.param(0, 1), layer.param(1, 1)
    picture, grid = layer.bottoms
    if layer.param(3):
        grid = writer.node("Transpose", [grid], perm=[1, 2, 0])
    how: dict[str, Any] = {
        "mode": {1: "bilinear", 2: "nearest", 3: "bicubic"}[kind],
        "padding_mode": {1: "zeros", 2: "border", 3: "reflection"}[outside],
        "align_corners": int(bool(layer.param(2))),
    }
    made = writer.node("GridSample", [writer.in_batch(picture), writer.in_batch(grid)], **how)
    writer.done(layer, writer.out_of_batch(made), 3)


def _roi_align(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Of the first four numbers of the second blob."""
    writer.rank(layer, 3)
    if layer.param(5) != 1:
        raise unwritten(layer, "a ROIAlign that clips its windows")
    rois = writer.reshaped(writer.cut(writer.reshaped(layer.bottoms[1], -1), 0, 0, 4), 1, 4)
    how: dict[str, Any] = {
        "output_width": int(layer.param(0)),
        "output_height": int(layer.param(1)),
        "spatial_scale": float(layer.param(2, 1.0)),
        "sampling_ratio": int(layer.param(3)),
        "coordinate_transformation_mode": "half_pixel" if layer.param(4) else "output_half_pixel",
    }
    made = writer.node("RoiAlign", [writer.in_batch(layer.bottoms[0]), rois, writer.shape(0)], **how)
    writer.done(layer, writer.out_of_batch(made), 3)


SAMPLING: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "GridSample": _grid_sample,
    "Interp": _interp,
    "ROIAlign": _roi_align,
}
"""Layers that read between places."""
