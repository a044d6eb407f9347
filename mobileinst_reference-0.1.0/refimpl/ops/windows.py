"""The geometry of sliding windows, which convolution and pooling share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refimpl.errors import ConfigurationError, ShapeError
from refimpl.ops.operation import Array


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
    begin, end = padding(auto_pad, pads, size, extent, strides)
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


def padding(
    auto_pad: str,
    pads: Sequence[int] | None,
    size: Sequence[int],
    extent: Sequence[int],
    strides: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding before and after each spatial axis of ``size``; see `sliding_windows`.

    ``extent`` is what a kernel spans of each axis, from its first tap to its last.

    Raises
    ------
    ConfigurationError, ShapeError
        An unknown ``auto_pad``; as `per_axis`.
    """
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
    source, placed = copied(size, reach, windows.begin)
    result[placed] = x[source]
    return result


def copied(
    size: Sequence[int], reach: Sequence[int], begin: Sequence[int]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return two indices: of what the windows read of an input of ``size``, and of its place once padded."""
    kept = [min(n, r - p) for n, r, p in zip(size, reach, begin, strict=True)]
    placed = [slice(p, p + n) for p, n in zip(begin, kept, strict=True)]
    return (..., *map(slice, kept)), (..., *placed)
