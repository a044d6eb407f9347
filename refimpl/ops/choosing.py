"""Operations whose result depends on which elements there are: how many differ, which are wanted."""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.errors import ShapeError
from refimpl.ops.operation import Array, Trait, operation


@operation("Unique", Trait.EXACT)
def unique(x: Array, *, axis: int | None = None, sorted: int = 1) -> tuple[Array, Array, Array, Array]:
    """Return what occurs along ``axis``, or in the flat tensor, each once. ONNX Unique.

    Parameters
    ----------
    x : array
    axis : int, optional
        The axis whose slices are compared; None compares elements.
    sorted : int
        1: in ascending order; 0: in the order of the first occurrences.

    Returns
    -------
    the different ones; the place of the first of each; which of them each was; how often each occurs
    """
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        values, first, counts = np.take(values, order, axis=axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@operation("Compress", Trait.MOVES)
def compress(x: Array, condition: Array, *, axis: int | None = None) -> Array:
    """Return the slices along ``axis``, or the elements of the flat tensor, wanted. ONNX Compress."""
    return np.asarray(np.compress(condition, x, axis=axis))


@operation("TensorScatter", Trait.MOVES)
def tensor_scatter(
    past_cache: Array,
    update: Array,
    write_indices: Array | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Array:
    """Return a cache with an update written into it, from a place of each batch's own. ONNX TensorScatter.

    Parameters
    ----------
    past_cache, update : arrays (B, …), of equal lengths but along ``axis``
    write_indices : integers (B,), optional
        Where the update begins; None is 0.
    axis : int
    mode : "linear" or "circular"
        Whether what goes beyond the end begins again.
    """
    first = np.zeros(len(update), np.int64) if write_indices is None else np.asarray(write_indices)
    places = first[:, None] + np.arange(update.shape[axis])
    if mode == "circular":
        places = places % past_cache.shape[axis]
    present = past_cache.copy()
    moved = np.moveaxis(present, axis, 1)
    moved[np.arange(len(update))[:, None], places] = np.moveaxis(update, axis, 1)
    return present


@operation("ReverseSequence", Trait.MOVES)
def reverse_sequence(x: Array, sequence_lens: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """Return ``x`` with the first ``sequence_lens`` steps of each sequence reversed. ONNX ReverseSequence.

    Raises
    ------
    ShapeError
        The axes are not the first two.
    """
    if {batch_axis, time_axis} != {0, 1}:
        raise ShapeError(
            f"ReverseSequence has batch_axis {batch_axis} and time_axis {time_axis}; one is 0, one 1"
        )
    steps = np.arange(x.shape[time_axis])[:, None]
    lengths = np.asarray(sequence_lens)[None, :]
    places = np.where(steps < lengths, lengths - 1 - steps, steps)
    index: tuple[Any, ...] = (places, np.arange(x.shape[batch_axis])[None, :])
    timely = np.moveaxis(x, time_axis, 0)[index]
    return np.moveaxis(timely, 0, time_axis)
