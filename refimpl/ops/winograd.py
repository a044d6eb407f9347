"""Winograd's F(2×2, 3×3): 16 products for four outputs of a 3×3 convolution, where its sums take 36.

Along one axis, two neighbouring outputs of the taps g are sums of four products instead of six::

    y0 = d0·g0 + d1·g1 + d2·g2 = m0 + m1 + m2        m0 = (d0 − d2) · g0
    y1 = d1·g0 + d2·g1 + d3·g2 = m1 − m2 − m3        m1 = (d1 + d2) · (g0 + g1 + g2) / 2
                                                     m2 = (d2 − d1) · (g0 − g1 + g2) / 2
                                                     m3 = (d1 − d3) · g2

and the same along the other. An output is made of nothing but what its window reads (larger tiles do not keep
to that), but rounding errors follow the largest numbers there, not each product: float64, the
truth, is never computed this way.

Source: Lavin & Gray, *Fast algorithms for convolutional neural networks*, CVPR 2016.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable

import numpy as np

from refimpl.ops.operation import Array, is_fixed
from refimpl.ops.windows import Windows

BLOCK = 400
"""How many tiles are taken at a time: as few as make large products, so that they stay in the cache."""

FEWEST_CHANNELS, FEWEST_OUTPUTS = 64, 512
"""With fewer the transforms cost more than they save."""


def winograd_pays(x: Array, w: Array, windows: Windows) -> bool:
    """Tell whether `winograd` computes a convolution of one group, and in less time."""
    return (
        x.dtype == np.float32
        and windows.kernel == (3, 3)
        and {*windows.strides, *windows.dilations} == {1}
        and min(w.shape[:2]) >= FEWEST_CHANNELS
        and math.prod(windows.output) >= FEWEST_OUTPUTS
    )


def winograd(x: Array, w: Array, windows: Windows) -> Array:
    """Return the convolution of ``x`` (N, C, H, W) with ``w`` (M, C, 3, 3): (N, M, *output)."""
    filters = _kept_filters(w) if is_fixed(w) else _filters(w)  # (16, M, C)
    high, wide = (-(-count // 2) for count in windows.output)  # tiles
    result = np.empty((len(x), len(w), 2 * high, 2 * wide), x.dtype)
    rows = max(1, BLOCK // wide)
    for image, target in zip(_parities(x, windows, high, wide), result, strict=True):
        for start in range(0, high, rows):
            data = _data(image[..., start : start + rows + 1, :])  # (4, 4, C, rows, wide)
            products = np.matmul(filters, data.reshape(16, w.shape[1], -1))
            products = products.reshape(4, 4, len(w), *data.shape[3:])
            _back(products, target[:, 2 * start : 2 * (start + rows)])
    return np.ascontiguousarray(result[:, :, : windows.output[0], : windows.output[1]])


_kept: dict[int, tuple[weakref.ref[Array], Array]] = {}


def _kept_filters(w: Array) -> Array:
    """Return the filters of weights that nobody can change, transformed once, as long as these are there."""
    place = id(w)
    known, filters = _kept.get(place, (None, None))
    if known is None or filters is None or known() is not w:
        filters = _filters(w)
        _kept[place] = weakref.ref(w, lambda _: _kept.pop(place, None)), filters
    return filters


def _filters(w: Array) -> Array:
    """Return what the data are multiplied by, of the taps (M, C, 3, 3): (16, M, C)."""
    taps = np.ascontiguousarray(w.transpose(2, 3, 0, 1))
    rows = _filter(*taps)
    return np.stack([each for row in rows for each in _filter(*row)])


def _filter(first: Array, second: Array, third: Array) -> tuple[Array, ...]:
    outer, inner = 0.5 * (first + third), 0.5 * second
    return first, outer + inner, outer - inner, third


def _parities(x: Array, windows: Windows, high: int, wide: int) -> Array:
    """Return the padded ``x`` with even and odd rows and columns apart: (N, 2, 2, C, high + 1, wide + 1).

    So what is added up lies side by side.
    """
    result = np.zeros((len(x), 2, 2, x.shape[1], high + 1, wide + 1), x.dtype)
    rows, columns = (
        [_of_parity(parity, begin, size, count) for parity in (0, 1)]
        for begin, size, count in zip(windows.begin, x.shape[2:], (high + 1, wide + 1), strict=True)
    )
    for (row, (read, place)), (column, (across, to)) in itertools.product(
        enumerate(rows), enumerate(columns)
    ):
        result[:, row, column, :, place, to] = x[:, :, read, across]
    return result


def _of_parity(parity: int, begin: int, size: int, count: int) -> tuple[slice, slice]:
    """Return which elements stand at every other place of the padded axis, and where among these."""
    skipped = (parity - begin) % 2
    first = (skipped + begin) // 2
    kept = min(count - first, (size - skipped + 1) // 2)
    return slice(skipped, skipped + 2 * kept, 2), slice(first, first + kept)


def _data(parities: Array) -> Array:
    """Transform tiles, given by parities (2, 2, C, rows + 1, wide + 1): (4, 4, C, rows, wide)."""
    channels, rows, wide = (n - k for n, k in zip(parities.shape[2:], (0, 1, 1), strict=True))
    result = np.empty((4, 4, channels, rows, wide), parities.dtype)
    half = np.empty((2, channels, rows, wide + 1), parities.dtype)
    for row, (add, a, b) in enumerate(_sums(parities[..., :-1, :], parities[..., 1:, :])):
        add(a, b, out=half)
        for column, (add, a, b) in enumerate(_sums(half[..., :-1], half[..., 1:])):
            add(a, b, out=result[row, column])
    return result


def _sums(near: Array, far: Array) -> list[tuple[Callable[..., object], Array, Array]]:
    """Return what makes the four data of m0 to m3, of (even, odd) elements and the next (even, odd)."""
    (d0, d1), (d2, d3) = near, far
    return [(np.subtract, d0, d2), (np.add, d1, d2), (np.subtract, d2, d1), (np.subtract, d1, d3)]


def _back(products: Array, target: Array) -> None:
    """Write the outputs (M, 2 · rows, 2 · wide) that products (4, 4, M, rows, wide) make up."""
    for row, half in enumerate(_outputs(*products)):
        for column, values in enumerate(_outputs(*half)):
            target[:, row::2, column::2] = values


def _outputs(m0: Array, m1: Array, m2: Array, m3: Array) -> tuple[Array, Array]:
    first, second = m1 + m2, m1 - m2
    first += m0
    second -= m3
    return first, second
