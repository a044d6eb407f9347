"""Convolution, and the geometry of sliding windows that pooling shares with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refimpl.errors import ConfigurationError, ShapeError
from refimpl.ops.operation import Array, Trait, operation

BLOCK_BYTES = 1 << 19
"""Size of the blocks in which depthwise convolution proceeds, so that its intermediates stay in the cache."""


class Windows(NamedTuple):
    """Windows of ``kernel`` taps sliding over spatial axes; every field has one entry per axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    """Padding before the first element."""
    end: tuple[int, ...]
    """Padding after the last element."""
    output: tuple[int, ...]
    """Number of windows."""

    def reach(self) -> tuple[int, ...]:
        """Return the padded extent that the windows read, from the first tap to the last."""
        spans = zip(self.output, self.strides, self.kernel, self.dilations, strict=True)
        return tuple((o - 1) * s + (k - 1) * d + 1 for o, s, k, d in spans)

    def taps(self) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
        """Yield each tap's place in the kernel, and the index of what it reads of the padded array."""
        for index in itertools.product(*map(range, self.kernel)):
            yield index, (..., *(self.tap(axis, i) for axis, i in enumerate(index)))

    def tap(self, axis: int, index: int) -> slice:
        """Return the slice of the padded axis that tap ``index`` reads."""
        start = index * self.dilations[axis]
        return slice(start, start + (self.output[axis] - 1) * self.strides[axis] + 1, self.strides[axis])


def sliding_windows(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    ceil_mode: int = 0,
) -> Windows:
    """Place the windows of a convolution or pooling over an input of spatial ``size``.

    Parameters are ONNX's: ``pads`` lists all beginnings, then all ends. With ``ceil_mode`` a last, partial
    window is kept only if it starts inside the input or its left padding.

    Raises
    ------
    ShapeError
        If an attribute has the wrong number of entries, or no window fits the padded input.
    """
    rank = len(size)
    kernel = per_axis("kernel_shape", kernel, rank)
    strides = per_axis("strides", strides or (1,) * rank, rank)
    dilations = per_axis("dilations", dilations or (1,) * rank, rank)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    begin, end = _padding(auto_pad, pads, size, extent, strides)
    output = []
    for n, e, s, p, q in zip(size, extent, strides, begin, end, strict=True):
        if n + p + q < e:
            raise ShapeError(
                f"a kernel that spans {e} elements does not fit an axis of {n} padded by {p} and {q}; "
                f"kernel {kernel}, dilations {dilations}, input {tuple(size)}"
            )
        count = (n + p + q - e + (s - 1 if ceil_mode else 0)) // s + 1
        output.append(count - 1 if ceil_mode and (count - 1) * s >= n + p else count)
    return Windows(kernel, strides, dilations, begin, end, tuple(output))


def per_axis(name: str, values: Sequence[int], rank: int, least: int = 1) -> tuple[int, ...]:
    """Return ``values`` as ``rank`` integers of at least ``least``, or raise `ShapeError`."""
    result = tuple(int(value) for value in values)
    if len(result) != rank or any(value < least for value in result):
        raise ShapeError(f"{name} is {result}; expected {rank} integers of at least {least}")
    return result


def _padding(
    auto_pad: str,
    pads: Sequence[int] | None,
    size: Sequence[int],
    extent: Sequence[int],
    strides: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding before and after each spatial axis."""
    rank = len(size)
    if auto_pad == "NOTSET":
        both = per_axis("pads", pads or (0,) * (2 * rank), 2 * rank, least=0)
        return both[:rank], both[rank:]
    if auto_pad == "VALID":
        return (0,) * rank, (0,) * rank
    total = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in zip(size, extent, strides, strict=True)]
    return split_padding(auto_pad, total)


def split_padding(auto_pad: str, total: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split the ``total`` padding of each axis in two; SAME_UPPER puts the odd element at the end."""
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise ConfigurationError(
            f"auto_pad is {auto_pad!r}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER"
        )
    smaller, larger = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (smaller, larger) if auto_pad == "SAME_UPPER" else (larger, smaller)


def padded(x: Array, windows: Windows, value: float = 0) -> Array:
    """Return ``x`` (N, C, *spatial) padded with ``value`` and cut to exactly what the windows read."""
    reach = windows.reach()
    size = x.shape[2:]
    if not any(windows.begin) and all(r <= n for r, n in zip(reach, size, strict=True)):
        return x
    result = np.full(x.shape[:2] + reach, value, dtype=x.dtype)
    source, placed = _copied(size, reach, windows.begin)
    result[placed] = x[source]
    return result


def _copied(
    size: Sequence[int], reach: Sequence[int], begin: Sequence[int]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the index of what is read of an input of ``size``, and of its place in the padded array."""
    kept = [min(n, r - p) for n, r, p in zip(size, reach, begin, strict=True)]
    placed = [slice(p, p + n) for p, n in zip(begin, kept, strict=True)]
    return (..., *map(slice, kept)), (..., *placed)


@operation("Conv", Trait.PRODUCTS | Trait.MAPS)
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Convolve (cross-correlate) ``x`` with ``w`` over any number of spatial axes.

    Parameters
    ----------
    x : array (N, C, *spatial)
    w : array (M, C / group, *kernel)
    b : array (M,), optional
    auto_pad, dilations, group, kernel_shape, pads, strides
        As in ONNX; ``pads`` lists all beginnings, then all ends.

    Returns
    -------
    array (N, M, *output), the dtype of ``x``; float16 is accumulated in float32.

    Raises
    ------
    ShapeError
        If ranks, channels and groups disagree, or the kernel is larger than the padded input.

    Notes
    -----
    ONNX operator Conv.
    """
    _check_operands(x, w, b, group, x.shape[1] if x.ndim > 1 else 0, w.shape[0], kernel_shape)
    windows = sliding_windows(
        x.shape[2:], w.shape[2:], auto_pad=auto_pad, dilations=dilations, pads=pads, strides=strides
    )
    if x.dtype == np.float16:
        wide = _correlate(x.astype(np.float32), w.astype(np.float32), windows, group)
    else:
        wide = _correlate(x, w.astype(x.dtype, copy=False), windows, group)
    if b is not None:
        wide += b.reshape(-1, *(1,) * (x.ndim - 2))
    return wide.astype(x.dtype, copy=False)


def _check_operands(
    x: Array, w: Array, b: Array | None, group: int, c_in: int, c_out: int, kernel_shape: Sequence[int] | None
) -> None:
    """Raise `ShapeError` unless data, weight and bias belong together."""
    if x.ndim < 3 or w.ndim != x.ndim:
        raise ShapeError(
            f"x has shape {x.shape} and w {w.shape}; expected two arrays of the same rank, at least 3"
        )
    if group < 1 or c_in % group or c_out % group:
        raise ShapeError(f"{group} groups do not divide {c_in} input and {c_out} output channels")
    if b is not None and b.shape != (c_out,):
        raise ShapeError(f"the bias has shape {b.shape}; expected ({c_out},)")
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
        raise ShapeError(f"kernel_shape is {tuple(kernel_shape)}, but w has shape {w.shape}")


def _correlate(x: Array, w: Array, windows: Windows, group: int) -> Array:
    """Choose the way: banded products if every channel has its own weights, else products per group."""
    if w.shape[1] * group != x.shape[1]:
        raise ShapeError(
            f"x has {x.shape[1]} channels in {group} groups, w {w.shape} takes {w.shape[1]} per group"
        )
    if w.shape[:2] == (group, 1) and x.ndim == 4:
        # The zeros beside a band times infinity are NaN, which belongs to no window: bands cannot serve then.
        with np.errstate(invalid="ignore"):
            result = _depthwise(x, w, windows)
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
    rows, placed = _copied(x.shape[2:-1], reach[:-1], windows.begin[:-1])
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


@operation("ConvTranspose", Trait.PRODUCTS | Trait.MAPS)
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Transposed convolution: every input element adds its multiple of the kernel to the output.

    Parameters
    ----------
    x : array (N, C, *spatial)
    w : array (C, M / group, *kernel)
    b : array (M,), optional
    auto_pad, dilations, group, kernel_shape, output_padding, output_shape, pads, strides
        As in ONNX; a given ``output_shape`` decides the padding.

    Returns
    -------
    array (N, M, *output), the dtype of ``x``; float16 is accumulated in float32.

    Raises
    ------
    ShapeError
        If ranks, channels and groups disagree, or the padding leaves no output.

    Notes
    -----
    ONNX operator ConvTranspose.
    """
    c_out = w.shape[1] * group if w.ndim > 1 else 0
    _check_operands(x, w, b, group, w.shape[0], c_out, kernel_shape)
    if x.shape[1] != w.shape[0]:
        raise ShapeError(f"x has {x.shape[1]} channels, but w {w.shape} takes {w.shape[0]}")
    rank = x.ndim - 2
    strides = per_axis("strides", strides or (1,) * rank, rank)
    dilations = per_axis("dilations", dilations or (1,) * rank, rank)
    extra = per_axis("output_padding", output_padding or (0,) * rank, rank, least=0)
    full = Windows(w.shape[2:], strides, dilations, (0,) * rank, (0,) * rank, x.shape[2:])
    size = tuple(r + e for r, e in zip(full.reach(), extra, strict=True))
    begin, end = _cropping(auto_pad, pads, output_shape, size, x.shape[2:], strides)
    if any(n - p - q < 1 for n, p, q in zip(size, begin, end, strict=True)):
        raise ShapeError(f"pads {begin} and {end} leave nothing of an output of {size}")
    wide = _scatter(x, w, full, size, group)
    kept = _cut(wide, begin, end)
    if b is not None:
        kept = kept + b.reshape(-1, *(1,) * rank)
    return np.ascontiguousarray(kept, dtype=x.dtype)


def _cut(wide: Array, begin: Sequence[int], end: Sequence[int]) -> Array:
    """Cut the spatial ends off; a negative cut, from an ``output_shape`` beyond the reach, adds zeros."""
    bounds = list(zip(wide.shape[2:], begin, end, strict=True))
    inside: tuple[Any, ...] = (..., *(slice(max(p, 0), n - max(q, 0)) for n, p, q in bounds))
    grown = [(max(-p, 0), max(-q, 0)) for _, p, q in bounds]
    return np.pad(wide[inside], [(0, 0), (0, 0), *grown])


def _cropping(
    auto_pad: str,
    pads: Sequence[int] | None,
    output_shape: Sequence[int] | None,
    size: Sequence[int],
    input_size: Sequence[int],
    strides: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what is cut from either end of each axis of the full output of ``size``."""
    rank = len(size)
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    if output_shape is None and not same:
        return _padding(auto_pad, pads, size, (1,) * rank, (1,) * rank)
    if output_shape is None:
        wanted = tuple(n * s for n, s in zip(input_size, strides, strict=True))
    else:
        wanted = per_axis("output_shape", tuple(output_shape)[-rank:], rank)
    total = [n - m for n, m in zip(size, wanted, strict=True)]
    # ONNX: unless SAME_UPPER is asked for, the odd element is cut from the beginning.
    return split_padding("SAME_UPPER" if auto_pad == "SAME_UPPER" else "SAME_LOWER", total)


def _scatter(x: Array, w: Array, full: Windows, size: Sequence[int], group: int) -> Array:
    """Return the full output: the products of all inputs and taps, added where the taps point."""
    accumulator = np.float32 if x.dtype == np.float16 else x.dtype
    batch, taps = x.shape[0], w.shape[2:]
    weight = w.astype(accumulator, copy=False).reshape(group, w.shape[0] // group, -1).swapaxes(1, 2)
    columns = np.matmul(
        weight, x.astype(accumulator, copy=False).reshape(batch, group, w.shape[0] // group, -1)
    )
    columns = columns.reshape(batch, w.shape[1] * group, *taps, *x.shape[2:])
    result = np.zeros((batch, w.shape[1] * group, *size), dtype=accumulator)
    for index, where in full.taps():
        result[where] += columns[(slice(None), slice(None), *index)]
    return result
