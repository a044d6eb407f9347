"""Winograd's convolutions F(t×t, 3×3): what they may lose, by the same algorithm on absolute values.

A tile of t + 2 inputs on either axis is transformed by Bᵀ, the kernel by G, their products summed over the
channels and transformed back by Aᵀ. Each is exact but for its roundings, so that the error of an output is at
most γ times |Aᵀ| [Σ (|G| |g| |Gᵀ|) ⊙ (|Bᵀ| |d| |B|)] |A|, with a rounding for each term that meets in it.
How far that lies above Σ |w| |x| depends on the points at which the polynomials are evaluated, and on those
alone: scaling a row of one matrix is undone in another.

Source: Barabasz, Anderson, Soodhalter & Gregg, *Error analysis and improving the accuracy of Winograd
convolution for deep neural networks*, ACM TOMS 2020.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.polynomial import polynomial

from conformance.bounds.step import Step
from refimpl.ops.operation import Array

KERNEL = 3


def winograd_applies(attributes: Mapping[str, Any], w: Array) -> bool:
    """Tell whether a convolution is of 3×3, of stride 1, not dilated, and of one group."""
    ones = all(set(attributes.get(name) or (1,)) == {1} for name in ("strides", "dilations"))
    return ones and w.shape[2:] == (KERNEL, KERNEL) and attributes.get("group", 1) == 1


@functools.cache
def transforms(tile: int, points: Sequence[float]) -> tuple[Array, Array, Array]:
    """Return Aᵀ (t, t + 2), G (t + 2, 3) and Bᵀ (t + 2, t + 2) of Toom and Cook's algorithm.

    The points are the first t + 1 given, and infinity.
    """
    finite = np.array(points[: tile + 1])
    size = tile + KERNEL - 1
    powers = np.zeros((size, size))
    powers[:-1] = finite[:, None] ** np.arange(size)
    data = np.zeros((size, size))
    for place, point in enumerate(finite):
        others = np.delete(finite, place)
        data[place, : size - 1] = polynomial.polyfromroots(others)
        powers[place, tile:] = 0
        data[place] /= np.prod(point - others)
    data[-1] = polynomial.polyfromroots(finite)
    back = powers[:, :tile].T.copy()
    back[-1, -1] = 1
    kernel = np.zeros((size, KERNEL))
    kernel[:-1] = finite[:, None] ** np.arange(KERNEL)
    kernel[-1, -1] = 1
    return back, kernel, data


def winograd_magnitude(step: Step, w: Array) -> tuple[int, Array]:
    """Return how many roundings meet in a result, and the algorithm on absolute values.

    Tiles begin at the first output, as they do in ncnn and MNN.
    """
    tile = step.runtime.winograd_tile
    back, kernel, data = (np.abs(m) for m in transforms(tile, step.runtime.winograd_points))
    tiles = _tiles(np.abs(step.required(0)), step, tile)
    transformed = data @ tiles @ data.T
    kernels = kernel @ np.abs(w) @ kernel.T
    summed = np.einsum("ocab,ncijab->noijab", kernels, transformed, optimize=True)
    made = (back @ summed @ back.T).transpose(0, 1, 2, 4, 3, 5)
    rows, columns = step.y.shape[2:]
    batch, channels, high, _, wide, _ = made.shape
    size = made.reshape(batch, channels, high * tile, wide * tile)[:, :, :rows, :columns]
    bias = step.operand(2)
    shift = 0.0 if bias is None else np.abs(bias).reshape(1, -1, 1, 1)
    # Either axis of the three transforms, and the roundings of their entries.
    return w.shape[1] + 2 * (2 * (tile + 2) + KERNEL) + 6 + 1, np.asarray(size + shift)


def _tiles(x: Array, step: Step, tile: int) -> Array:
    """Return the tiles of an input, (batch, channels, rows, columns, t + 2, t + 2)."""
    padded = [(0, 0), (0, 0)]
    for axis in (2, 3):
        before = _padding(step, axis, x.shape[axis])
        needed = -(-step.y.shape[axis] // tile) * tile + KERNEL - 1
        padded.append((before, max(needed - before - x.shape[axis], 0)))
    wide = np.pad(x, padded)
    return sliding_window_view(wide, (tile + 2, tile + 2), axis=(2, 3))[:, :, ::tile, ::tile]


def _padding(step: Step, axis: int, size: int) -> int:
    """Return how many rows or columns stand before an input."""
    total = step.y.shape[axis] + KERNEL - 1 - size
    automatic = step.attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        return total // 2 if automatic == "SAME_UPPER" else total - total // 2
    return int((step.attributes.get("pads") or (0, 0, 0, 0))[axis - 2])
