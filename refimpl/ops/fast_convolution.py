"""Convolution fast: as few and as large matrix products as memory allows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from refimpl.errors import ShapeError
from refimpl.ops.operation import Array
from refimpl.ops.windows import Windows, copied
from refimpl.ops.winograd import winograd, winograd_pays

BLOCK_BYTES = 1 << 19
"""Size of the blocks in which depthwise convolution proceeds, so that its intermediates stay in the cache."""


def correlate(x: Array, w: Array, windows: Windows, group: int) -> Array:
    """Return `refimpl.ops.convolution.convolve` of the operands, by products that BLAS is good at.

    Banded products if every channel has its own weights, Winograd's where they pay, else products per group.

    Raises
    ------
    ShapeError
        Weights and data disagree on the channels of a group.
    """
    if w.shape[1] * group != x.shape[1]:
        raise ShapeError(
            f"x has {x.shape[1]} channels in {group} groups, w {w.shape} takes {w.shape[1]} per group"
        )
    fast = _depthwise if w.shape[:2] == (group, 1) and x.ndim == 4 else None
    if group == 1 and winograd_pays(x, w, windows):
        fast = winograd
    if fast:
        # Bands have zeros for what a window does not read, and Winograd subtracts: of infinity both are NaN.
        with np.errstate(invalid="ignore", over="ignore"):
            result = fast(x, w, windows)
        if np.isfinite(result).all():
            return result
    return _grouped(x, w, windows, group)


def _phases(x: Array, windows: Windows) -> Array:
    """Return the padded ``x`` with its last axis dealt out by stride: (stride, N, C, *rows, columns).

    Column j of phase p is padded column j * stride + p, so what a tap reads of the last axis is contiguous.
    """
    stride, begin, reach = windows.strides[-1], windows.begin[-1], windows.reach()
    if (
        stride == 1
        and not any(windows.begin)
        and all(r <= n for r, n in zip(reach, x.shape[2:], strict=True))
    ):
        return x[None]
    width = -(-reach[-1] // stride)
    result = np.zeros((stride, *x.shape[:2], *reach[:-1], width), dtype=x.dtype)
    rows, placed = copied(x.shape[2:-1], reach[:-1], windows.begin[:-1])
    for phase in range(stride):
        first = (phase - begin) % stride
        column = (first + begin) // stride
        source = x[(*rows, slice(first, None, stride))][..., : width - column]
        result[phase][(*placed, slice(column, column + source.shape[-1]))] = source
    return result


def _depthwise(x: Array, w: Array, windows: Windows) -> Array:
    """Convolve each channel with its own kernel, by banded matrices: BLAS outruns adding tap after tap.

    A block of output rows is the sum over kernel columns j of B_j X_j: X_j the input rows under the block,
    shifted by j, and B_j the banded matrix that applies kernel column j to each output row. All B_j X are one
    product.
    """
    # Few rows waste few products on the zeros beside the band; a divisor leaves no block half empty.
    rows = next((r for r in (4, 5, 3, 2) if windows.output[0] % r == 0), 4)
    count = -(-windows.output[0] // rows)
    whole = windows._replace(output=(count * rows, windows.output[1]))
    bands = _bands(w, rows, windows)
    result = np.empty((*x.shape[:2], *whole.output), dtype=x.dtype)
    block = max(1, BLOCK_BYTES // result[0, 0].nbytes)
    for image in range(x.shape[0]):
        for start in range(0, x.shape[1], block):
            channels = slice(start, start + block)
            _banded(x[image, None, channels], bands[channels], whole, result[image, channels])
    return np.ascontiguousarray(result[:, :, : windows.output[0]])


def _bands(w: Array, rows: int, windows: Windows) -> Array:
    """Return a depthwise kernel as banded matrices (C, kernel columns, rows, input rows under them)."""
    span = windows._replace(output=(rows, 1)).reach()[0]
    row = np.arange(rows)
    bands = np.zeros((w.shape[0], windows.kernel[1], rows, span), dtype=w.dtype)
    for tap in range(windows.kernel[0]):
        bands[:, :, row, row * windows.strides[0] + tap * windows.dilations[0]] = w[:, 0, tap, :, None]
    return bands


def _banded(x: Array, bands: Array, windows: Windows, result: Array) -> None:
    """Write the depthwise convolution of ``x`` (1, C, H, W) into ``result`` (C, rows, columns)."""
    channels, _, rows, span = bands.shape
    data = _phases(x, windows)[:, 0]
    width, stride = data.shape[-1], windows.strides[1]
    step = data.strides
    under = np.lib.stride_tricks.as_strided(
        data,
        (stride, channels, windows.output[0] // rows, span, width),
        (step[0], step[1], rows * windows.strides[0] * step[2], step[2], step[3]),
        writeable=False,
    )
    total = result.reshape(channels, windows.output[0] // rows, rows, windows.output[1])
    offset = [tap * windows.dilations[1] for tap in range(windows.kernel[1])]
    partial = []
    for phase in range(stride):
        taps = [tap for tap in range(len(offset)) if offset[tap] % stride == phase]
        matrix = bands[:, taps].reshape(channels, 1, len(taps) * rows, span)
        product = np.matmul(matrix, under[phase]).reshape(channels, total.shape[1], len(taps), rows, width)
        for position, tap in enumerate(taps):
            start = offset[tap] // stride
            partial.append(product[:, :, position, :, start : start + windows.output[1]])
    _sum(partial, out=total)


def _sum(terms: list[Array], out: Array) -> None:
    """Write the sum of ``terms`` into ``out``."""
    if len(terms) == 1:
        out[:] = terms[0]
        return
    np.add(terms[0], terms[1], out=out)
    for term in terms[2:]:
        np.add(out, term, out=out)


def _grouped(x: Array, w: Array, windows: Windows, group: int) -> Array:
    """Multiply each group's weights by its gathered taps.

    Where the taps outweigh the weights, only those of a kernel row are gathered, and a product per row is
    accumulated: that moves less memory.
    """
    shape = (x.shape[0], group, w.shape[0] // group, math.prod(windows.output))
    accumulated = len(windows.kernel) > 1 and w[0, :, 0].size >= 64 and shape[3] > 4 * shape[2]
    columns = _gather(_phases(x, windows), windows, group, first=int(accumulated))
    if not accumulated:
        product = np.matmul(w.reshape(*shape[1:3], -1), columns.reshape(*shape[:2], -1, shape[3]))
        return product.reshape(x.shape[0], w.shape[0], *windows.output)
    weight = w.reshape(*shape[1:3], w.shape[1], windows.kernel[0], -1).transpose(3, 0, 1, 4, 2)
    matrices = np.ascontiguousarray(weight).reshape(windows.kernel[0], *shape[1:3], -1)
    total, scratch = np.empty(shape, dtype=x.dtype), np.empty(shape, dtype=x.dtype)
    for tap, matrix in enumerate(matrices):
        rows = columns[:, :, :, :, windows.tap(0, tap)].reshape(*shape[:2], -1, shape[3])
        np.matmul(matrix, rows, out=scratch if tap else total)
        if tap:
            total += scratch
    return total.reshape(x.shape[0], w.shape[0], *windows.output)


def _gather(data: Array, windows: Windows, group: int, first: int) -> Array:
    """Return what the taps of the spatial axes from ``first`` on read.

    If ``first`` is 0 the result is (N, group, C / group, taps, *output), in the order of the weights; else
    taps stand before channels, and the axes before ``first`` are kept whole.
    """
    taps = list(itertools.product(*map(range, windows.kernel[first:])))
    data = data.reshape(*data.shape[:2], group, -1, *data.shape[3:])
    extent = data.shape[4 : 4 + first] + windows.output[first:]
    if len(taps) == 1 and data.shape[4:] == extent:
        return data[0][:, :, None]
    batch, channels = data.shape[1], data.shape[3]
    if first:
        result = np.empty((batch, group, len(taps), channels, *extent), dtype=data.dtype)
    else:
        result = np.empty((batch, group, channels, len(taps), *extent), dtype=data.dtype).swapaxes(2, 3)
    for position, tap in enumerate(taps):
        middle = [windows.tap(first + axis, index) for axis, index in enumerate(tap[:-1])]
        start, phase = divmod(tap[-1] * windows.dilations[-1], windows.strides[-1])
        where: tuple[Any, ...] = (..., *middle, slice(start, start + windows.output[-1]))
        result[:, :, position] = data[phase][where]
    return result if first else result.swapaxes(2, 3)
