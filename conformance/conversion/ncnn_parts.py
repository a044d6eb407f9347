"""What ncnn's layers mean that put blobs together and take parts of them.

Source: github.com/Tencent/ncnn, ``src/layer/crop.cpp``, ``slice.cpp``, ``padding.cpp`` and those beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from conformance.conversion.ncnn_expressions import listed, side_of, whole
from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import SIDES, NcnnWriter, unwritten
from refimpl.ops.operation import Array

REST = -233
"""Of a Crop, as far as the axis goes; of a Slice, what is left, shared equally."""
END = 2**31 - 1
REFLECTED = 2
"""Kind of a Padding."""
_OFFSETS: Mapping[str, int] = {"w": 0, "h": 1, "d": 13, "c": 2}
_LENGTHS: Mapping[str, int] = {"w": 3, "h": 4, "d": 14, "c": 5}
_BEHIND: Mapping[str, int] = {"w": 6, "h": 7, "d": 15, "c": 8}
"""Side → the parameters of a Crop."""


def _concat(writer: NcnnWriter, layer: NcnnLayer) -> None:
    axis = writer.axis(layer, layer.param(0))
    writer.like(layer, writer.node("Concat", layer.bottoms, axis=axis))


def _slice(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), axis, rank = layer.bottoms, writer.axis(layer, layer.param(1)), writer.rank(layer)
    lengths, places, start, count = layer.param(0, ()), layer.param(2, ()), 0, len(layer.tops)
    for at, top in enumerate(layer.tops):
        if places:
            end = places[at] if at < count - 1 else END
            end = end if end >= 0 else writer.known(layer, x)[axis] + end
        elif lengths[at] == REST:
            end = start + (writer.known(layer, x)[axis] - start) // (count - at)
        else:
            end = start + lengths[at]
        length = writer.lengths(x)[axis]
        if end <= start or (length is not None and end != END and end > length):
            raise unwritten(layer, f"a Slice of {length} from {start} to {end}")
        writer.give(top, writer.cut(x, axis, start, end), rank)
        start = end


def _crop(writer: NcnnWriter, layer: NcnnLayer) -> None:
    if 19 in layer.params or 20 in layer.params:
        starts, ends, axes = (
            whole(layer, listed(writer, layer, layer.param(number, ""))) for number in (19, 20, 21)
        )
        _crop_from_to(writer, layer, starts, ends, axes)
    elif layer.param(9, ()) and layer.param(10, ()):
        _crop_from_to(writer, layer, layer.param(9), layer.param(10), layer.param(11, ()))
    elif len(layer.bottoms) > 1:
        _crop_like(writer, layer)
    else:
        _crop_by_sides(writer, layer)


def _crop_from_to(
    writer: NcnnWriter, layer: NcnnLayer, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]
) -> None:
    """Keep what lies from one place to another, along some axes."""
    x, axes = layer.bottoms[0], axes or range(writer.rank(layer))
    for axis, start, end in zip((writer.axis(layer, each) for each in axes), starts, ends, strict=True):
        # An end of zero is that of the axis.
        x = writer.cut(x, axis, 0 if start == REST else start, END if end in (0, REST) else end)
    writer.like(layer, x)


def _crop_by_sides(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Drop something from the front and from behind, and keep at most so much."""
    x = layer.bottoms[0]
    for axis, side in enumerate(SIDES[writer.rank(layer)]):
        first, most = layer.param(_OFFSETS[side]), layer.param(_LENGTHS[side])
        behind = layer.param(_BEHIND[side])
        if most == 0 or min(first, behind) < 0:
            raise unwritten(layer, f"a Crop to {most} from {first} to {behind}")
        x = writer.cut(x, axis, first, -behind if behind else END)
        x = x if most == REST else writer.cut(x, axis, 0, most)
    writer.like(layer, x)


def _crop_like(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Keep as much as another blob is long."""
    (x, other), rank = layer.bottoms, writer.rank(layer)
    if layer.param(0) == REST:
        raise unwritten(layer, "a Crop by the numbers of a blob")
    for axis, side in enumerate(SIDES[rank]):
        first = layer.param(_OFFSETS[side])
        if side == "c" and writer.ranks[other] != rank:
            if first:
                raise unwritten(layer, "a Crop of channels by a blob of fewer axes")
            continue
        (length,) = whole(layer, [side_of(writer, other, side)])
        x = writer.cut(x, axis, first, first + length)
    writer.like(layer, x)


def _copy_to(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Lay the second blob over the first."""
    (below, above), rank = layer.bottoms, writer.rank(layer)
    whole_of, part = writer.known(layer, below), writer.known(layer, above)
    if len(whole_of) != len(part):
        raise unwritten(layer, f"a CopyTo of {part} over {whole_of}")
    starts = [int(layer.param(_OFFSETS[side])) for side in SIDES[rank]]
    if layer.param(9, ()):
        starts, axes = [0] * rank, layer.param(11, ()) or range(rank)
        for axis, start in zip((writer.axis(layer, each) for each in axes), layer.param(9), strict=True):
            starts[axis] = 0 if start == REST else start if start >= 0 else whole_of[axis] + start
    if whole_of == part:
        starts = [0] * rank
    rest = [size - first - own for size, first, own in zip(whole_of, starts, part, strict=True)]
    if min(*starts, *rest) < 0:
        raise unwritten(layer, f"a CopyTo of {part} at {starts} of {whole_of}")
    covered = np.zeros(whole_of, bool)
    covered[tuple(slice(first, first + own) for first, own in zip(starts, part, strict=True))] = True
    laid = writer.node("Pad", [above, writer.shape(*starts, *rest)])
    writer.like(layer, writer.node("Where", [writer.constant(covered), laid, below]))


def _flip(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,) = layer.bottoms
    for axis in sorted({writer.axis(layer, each) for each in layer.param(0, ())}):
        x = writer.cut(x, axis, -1, -END, -1)
    writer.like(layer, x)


def _tile(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), rank = layer.bottoms, writer.rank(layer)
    counts = [*layer.param(2, ())]
    if not counts:
        axis = layer.param(0)
        if not 0 <= axis < rank:
            raise unwritten(layer, f"a Tile along axis {axis} of {rank}")
        counts = [layer.param(1, 1) if at == axis else 1 for at in range(rank)]
    counts = [1] * (rank - len(counts)) + counts
    more = len(counts) - rank
    if more:
        # The depth is what a blob of three axes lacks, not the channels.
        new = [1] if rank == 3 else [*range(more)]
        x = writer.node("Unsqueeze", [x, writer.shape(*new)])
    writer.done(layer, writer.node("Tile", [x, writer.shape(*counts)]), len(counts))


def _padding(writer: NcnnWriter, layer: NcnnLayer) -> None:
    (x,), rank, kind = layer.bottoms, writer.rank(layer), layer.param(4)
    top, bottom, left, right, front, behind = (int(layer.param(number)) for number in (0, 1, 2, 3, 7, 8))
    # What is in front is of depth, or of channels where there is no depth.
    around = [(left, right), (top, bottom), (front, behind), (0, 0)][:rank][::-1]
    starts, ends = [each for each, _ in around], [each for _, each in around]
    if kind not in (0, 1, 2) or min(starts + ends) < 0:
        raise unwritten(layer, f"a Padding {kind} by {around}")
    if not any(starts + ends):
        writer.like(layer, x)
        return
    if kind == REFLECTED:
        _check_reflection(writer, layer, starts, ends)
    pads = writer.shape(*starts, *ends)
    if kind:
        writer.like(layer, writer.node("Pad", [x, pads], mode=("constant", "edge", "reflect")[kind]))
    elif layer.weights and rank > 2:
        _pad_channels(writer, layer, starts, ends, layer.weights[0])
    else:
        writer.like(layer, writer.node("Pad", [x, pads, writer.scalar(layer.param(5, 0.0))]))


def _check_reflection(
    writer: NcnnWriter, layer: NcnnLayer, starts: Sequence[int], ends: Sequence[int]
) -> None:
    """Refuse a padding that reaches past the far end of what it reflects: ncnn reads beside the blob."""
    for length, start, end in zip(writer.lengths(layer.bottoms[0]), starts, ends, strict=True):
        if length is not None and max(start, end) >= length:
            raise unwritten(layer, f"a reflection of {length} by {start} and {end}")


def _pad_channels(
    writer: NcnnWriter, layer: NcnnLayer, starts: Sequence[int], ends: Sequence[int], values: Array
) -> None:
    """Put another number around every channel."""
    (x,) = layer.bottoms
    inside = np.ones(writer.known(layer, x), bool)
    covered = np.pad(inside, [*zip(starts, ends, strict=True)])
    laid = writer.node("Pad", [x, writer.shape(*starts, *ends)])
    writer.like(
        layer, writer.node("Where", [writer.constant(covered), laid, writer.along_first(layer, values)])
    )


def _embed(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """ncnn reads the bits of what it is given as whole numbers: only what is fed can be such."""
    writer.rank(layer, 1)
    (words,), made = layer.bottoms, int(layer.param(0))
    if words not in writer.as_given:
        raise unwritten(layer, f"an Embed of {words}, which is computed,")
    places = writer.node("Cast", [words], to=7)
    last = np.array(layer.param(1) - 1, np.int64)
    places = writer.node("Clip", [places, writer.constant(np.array(0, np.int64)), writer.constant(last)])
    rows = layer.weights[0].reshape(-1, made)
    result = writer.node("Gather", [writer.constant(rows), places], axis=0)
    if rows.dtype == np.int8:
        if not layer.scales:
            raise unwritten(layer, "an Embed of integers without a scale")
        result = writer.node("Cast", [result], to=1)
        result = writer.node("Div", [result, writer.scalar(layer.scales[0][0])])
    for bias in layer.weights[1:]:
        result = writer.node("Add", [result, writer.constant(bias)])
    writer.done(layer, result, 2)


PARTS: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "Concat": _concat,
    "CopyTo": _copy_to,
    "Crop": _crop,
    "Embed": _embed,
    "Flip": _flip,
    "Padding": _padding,
    "Slice": _slice,
    "Tile": _tile,
}
"""Layers that put together and take parts."""
