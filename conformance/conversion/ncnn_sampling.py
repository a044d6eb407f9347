"""What ncnn's layers mean that read between the places of a picture.

Source: github.com/Tencent/ncnn, ``src/layer/interp.cpp``, ``gridsample.cpp``, ``roialign.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from conformance.conversion.ncnn_expressions import listed, side_of
from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten

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
    by_factor = _by_factor(layer) and not aligned
    if aligned and 1 in wanted:
        raise unwritten(layer, f"an Interp to {wanted} with its corners in place")
    if kind == CUBIC and any(each is not None and each < LEAST_FOR_CUBIC for each in own):
        raise unwritten(layer, f"a cubic Interp of {own}")
    how: dict[str, Any] = {"mode": "linear" if kind == LINEAR else "cubic"}
    how["coordinate_transformation_mode"] = "align_corners" if aligned else "half_pixel"
    factors = _factors(layer)[3 - rank :] if by_factor else []
    writer.like(layer, _resized(writer, layer, wanted, how, factors))


def _by_factor(layer: NcnnLayer) -> bool:
    """Tell whether an Interp is given factors, and no lengths: it computes its places by them."""
    if layer.param(5) or len(layer.bottoms) > 1 or 9 in layer.params:
        return False
    if bool(layer.param(3)) != bool(layer.param(4)):
        raise unwritten(layer, "an Interp to one length and by the factor of the other")
    return not layer.param(3)


def _factors(layer: NcnnLayer) -> list[np.float32]:
    """Return how much higher and wider an Interp's result is."""
    return [np.float32(layer.param(number, 1.0)) for number in (1, 2)]


def _resized(
    writer: NcnnWriter,
    layer: NcnnLayer,
    wanted: list[int],
    how: dict[str, Any],
    factors: Sequence[np.float32] = (),
) -> str:
    x = writer.in_batch(layer.bottoms[0])
    axes = [*range(2, 2 + len(wanted))]
    if factors:
        lengths = writer.known(layer, layer.bottoms[0])[1:]
        if [int(length * float(factor)) for length, factor in zip(lengths, factors, strict=True)] != wanted:
            raise unwritten(layer, f"an Interp to {wanted} by {factors}")
        to = ["", writer.constant(np.array(factors, np.float32))]
    else:
        to = ["", "", writer.shape(*wanted)]
    return writer.out_of_batch(writer.node("Resize", [x, *to], axes=axes, **how))


def _wanted(writer: NcnnWriter, layer: NcnnLayer) -> list[int]:
    """Return the height and the width that are wanted."""
    if 9 in layer.params:
        sides = listed(writer, layer, layer.param(9))
        sides = [*sides, side_of(writer, layer.bottoms[0], "h")][:2][::-1]
    elif len(layer.bottoms) > 1:
        sides = [side_of(writer, layer.bottoms[1], side) for side in "hw"]
    elif _by_factor(layer):
        sides = [
            _scaled(writer, layer, side, factor) for side, factor in zip("hw", _factors(layer), strict=True)
        ]
    else:
        sides = [layer.param(3), layer.param(4)]
    known = [each for each in sides if not isinstance(each, str)]
    if len(known) < len(sides) or min(known) < 1:
        raise unwritten(layer, f"an Interp to {sides}")
    return known


def _scaled(writer: NcnnWriter, layer: NcnnLayer, side: str, factor: np.float32) -> int | str:
    own = 1 if writer.rank(layer) == 1 else side_of(writer, layer.bottoms[0], side)
    return own if isinstance(own, str) else int(np.float32(own) * factor)


def _nearest(writer: NcnnWriter, layer: NcnnLayer, own: list[int | None], wanted: list[int]) -> str:
    """Return every element's nearest to the left.

    ncnn computes the places in float32, and by the factor where it is given no size; where that leads to
    others than the quotient of the sizes, they are listed.
    """
    found, exact, by_factor = [], True, _by_factor(layer)
    for length, size, factor in zip(own, wanted, _factors(layer)[-len(own) :], strict=True):
        if length is None:
            # Only a picture of an unknown size is taken to the wanted one by the quotient itself.
            continue
        step = np.float32(1) / factor if by_factor else np.float32(length) / np.float32(size)
        places = np.minimum((np.arange(size, dtype=np.float32) * step).astype(np.int64), length - 1)
        exact = exact and bool((places == np.arange(size) * length // size).all())
        found.append(places)
    if exact or len(found) < len(own):
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
