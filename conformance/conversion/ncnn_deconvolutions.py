"""What ncnn's transposed and deformable convolutions mean, and the windows laid out as columns.

Source: github.com/Tencent/ncnn, ``src/layer/deconvolution.cpp`` and those beside it,
``deformableconv2d.cpp``, ``fold.cpp``, ``unfold.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from conformance.conversion.ncnn_activations import activated
from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_windows import (
    SAME_LOWER,
    SAME_UPPER,
    Window,
    axes_of,
    padded,
    resolved,
    sides,
    split,
    taps_of_blobs,
    window,
)
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten

SINCE = 19
"""Operator set that deformable convolutions are of."""
_MORE: Mapping[int, tuple[int, ...]] = {1: (18,), 2: (18, 19), 3: (18, 19, 20)}
"""Number of axes → the parameters of what is added behind each."""
_WANTED: Mapping[int, tuple[int, ...]] = {1: (20,), 2: (20, 21), 3: (25, 26, 27)}
"""Number of axes → the parameters of how long each is to be."""


def _deconvolution(writer: NcnnWriter, layer: NcnnLayer) -> None:
    axes = axes_of(layer)
    writer.rank(layer, axes + 1)
    groups = int(layer.param(7, 1)) if "DepthWise" in layer.kind else 1
    taps, biases, kernel = _taps(writer, layer, groups)
    found = window(layer, kernel)
    more = sides(layer, _MORE[axes], 0)
    pads = _cut(writer, layer, found, more)
    how = found.attributes | {"pads": pads, "output_padding": more, "group": groups}
    made = writer.node("ConvTranspose", [writer.in_batch(layer.bottoms[0]), taps], **how)
    for bias in biases:
        made = writer.node("Add", [made, bias])
    writer.like(layer, writer.out_of_batch(activated(writer, layer, made)))


def _taps(writer: NcnnWriter, layer: NcnnLayer, groups: int) -> tuple[str, list[str], list[int]]:
    """Return the weights, those that read a channel together, the biases, the lengths of the kernels."""
    axes = axes_of(layer)
    along = [-1, *[1] * axes]
    if layer.param(28):
        return taps_of_blobs(writer, layer)
    kernel, made = window(layer).kernel, int(layer.param(0))
    held = layer.weights[0].reshape(groups, made // groups, -1, *kernel)
    held = held.swapaxes(1, 2).reshape(-1, made // groups, *kernel)
    return (
        writer.constant(held),
        [writer.constant(bias.reshape(along)) for bias in layer.weights[1:]],
        kernel,
    )


def _cut(writer: NcnnWriter, layer: NcnnLayer, found: Window, more: list[int]) -> list[int]:
    """Return what is cut off of the result before each axis, then behind each."""
    wanted = sides(layer, _WANTED[axes_of(layer)], 0)
    if max(found.pads) > 0:
        if min(found.pads) < 0:
            raise unwritten(layer, f"padding {found.pads}")
        return found.pads
    same = [each for each in (SAME_UPPER, SAME_LOWER) if each in found.pads]
    if min(wanted) <= 0:
        # ncnn cuts nothing off then, whatever else the padding is.
        return [0] * len(found.pads)
    if not same:
        raise unwritten(layer, f"a result of {wanted} without padding")
    lengths = writer.known(layer, layer.bottoms[0])[1:]
    whole = [
        (length - 1) * step + extent + extra
        for length, step, extent, extra in zip(lengths, found.strides, found.extents, more, strict=True)
    ]
    over = [size - kept for size, kept in zip(whole, wanted, strict=True)]
    if min(over) < 0:
        raise unwritten(layer, f"a result of {wanted} where there are {whole}")
    return split(over, upper=same[0] == SAME_UPPER)


def _deformable(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.rank(layer, 3)
    found, made = window(layer), int(layer.param(0))
    if min(found.pads) < 0:
        raise unwritten(layer, f"padding {found.pads}")
    x, offset, *mask = map(writer.in_batch, layer.bottoms)
    taps = writer.constant(layer.weights[0].reshape(made, -1, *found.kernel))
    writer.opset = SINCE
    result = writer.node("DeformConv", [x, taps, offset, "", *mask][: 5 if mask else 3], **found.attributes)
    for bias in layer.weights[1:]:
        result = writer.node("Add", [result, writer.constant(bias.reshape(-1, 1, 1))])
    writer.done(layer, writer.out_of_batch(activated(writer, layer, result)), 3)


def _fold(writer: NcnnWriter, layer: NcnnLayer) -> None:
    writer.rank(layer, 2)
    found = window(layer)
    sizes = writer.shape(*sides(layer, (20, 21), 0)), writer.shape(*found.kernel)
    made = writer.node("Col2Im", [writer.in_batch(layer.bottoms[0]), *sizes], **found.attributes)
    writer.done(layer, writer.out_of_batch(made), 3)


def _unfold(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Every element of a window is what a kernel of one 1 reads."""
    writer.rank(layer, 3)
    found = resolved(writer, layer, window(layer))
    channels, size = writer.known(layer, layer.bottoms[0])[0], int(np.prod(found.kernel))
    one_each = np.tile(np.eye(size, dtype=np.float32).reshape(size, 1, *found.kernel), (channels, 1, 1, 1))
    x, how = padded(writer, layer, layer.bottoms[0], found)
    made = writer.node("Conv", [x, writer.constant(one_each)], group=channels, **how)
    writer.done(layer, writer.reshaped(made, channels * size, -1), 2)


DECONVOLUTIONS: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    **{
        f"Deconvolution{groups}{axes}": _deconvolution
        for groups in ("", "DepthWise")
        for axes in ("", "1D", "3D")
    },
    "DeformableConv2D": _deformable,
    "Fold": _fold,
    "Unfold": _unfold,
}
"""Layers of windows that are written to, or lie askew."""
