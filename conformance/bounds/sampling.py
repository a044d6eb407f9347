"""Sampling at places that are data: products with the weights, and places computed in floating point.

What a rounded place does is found by sampling at the places around: between elements the samples are
polynomials of the place, so the ends of so small an interval are its worst, but for a bend inside it, which
a factor of two covers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from conformance.bounds.formats import FLOAT32
from conformance.bounds.step import Bound, Step, rule
from refimpl.ops.operation import Array
from refimpl.ops.sampling import roi_samples

ROUNDINGS_OF_A_PLACE = 6
"""Two sums, two products, and the reflection's remainder and difference."""


def _place_roundoff() -> float:
    # Places are never computed in half precision where that is only the storage or the products' format.
    return ROUNDINGS_OF_A_PLACE * FLOAT32.unit_roundoff


def directions(axes: int) -> Iterator[Array]:
    """Yield −1, 0 or 1 for each axis, not all zero."""
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=axes):
        if any(signs):
            yield np.array(signs)


def furthest(truth: Array, others: Iterator[Array] | Sequence[Array]) -> Array:
    """Return the largest difference of the others to the truth, element by element."""
    largest = np.zeros(truth.shape)
    for other in others:
        np.maximum(largest, np.abs(other - truth), out=largest)
    return largest


@rule("GridSample")
def grid_sample(step: Step) -> Bound:
    """γ of the weights' products · |x|, and what moving the grid's places by their rounding does."""
    x, grid = step.required(0), step.required(1)
    rank = grid.shape[-1]
    shift = _place_roundoff() * (np.abs(grid) + 1)
    moved = furthest(step.y, (step.run(x, grid + signs * shift) for signs in directions(rank)))
    cubic = step.attributes.get("mode", "linear") == "cubic"
    taps = (4 if cubic else 2) ** rank
    # Keys' weights are of both signs: at most 1.4 in size together on an axis, of cubes that cancel.
    size = _largest_near(step, x) * (1.4**rank if cubic else 1.0)
    return step.gamma(taps + 8 * rank) * size + 2 * moved + taps * step.floor


def _largest_near(step: Step, x: Array) -> Array:
    """Return the largest size of each channel."""
    largest = np.abs(x).max(axis=tuple(range(2, x.ndim)), initial=0)
    return np.broadcast_to(largest.reshape(*largest.shape, *(1,) * (x.ndim - 2)), step.y.shape)


@rule("RoiAlign")
def roi_align(step: Step) -> Bound:
    """γ of the samples' sum · |x|, and what moving every sample by its rounding does.

    The corners are moved alone, too: the number of samples may come out another.
    """
    x, rois = step.required(0), step.required(1)
    scale = step.attributes.get("spatial_scale", 1.0)
    shift = _place_roundoff() * (2 * np.abs(rois).max(axis=1, keepdims=True, initial=0) + 2 / scale)
    ends = furthest(step.y, (step.run(x, rois + shift * way, *step.inputs[2:]) for way in _CORNERS))
    mean = step.attributes.get("mode", "avg") == "avg"
    samples = _moved_samples(step, x, rois, shift, mean)
    terms = 4 * max((n for n, _, _ in samples), default=1)
    size = np.stack([size for _, size, _ in samples]) if samples else np.zeros(step.y.shape)
    moved = np.stack([moved for _, _, moved in samples]) if samples else size
    return step.gamma(terms + 8) * size + 2 * np.maximum(moved, ends) + terms * step.floor


_CORNERS = [np.array(way) for way in itertools.product((0.0, 1.0), repeat=4)]
_CORNERS += [-way for way in _CORNERS]


def _moved_samples(
    step: Step, x: Array, rois: Array, shift: Array, mean: bool
) -> list[tuple[int, Array, Array]]:
    """Per region: samples of a cell, the mean (or largest) of their sizes, and of how far they move."""
    reduced = np.mean if mean else np.max
    found = []
    for roi, away, batch in zip(rois, shift, step.required(2), strict=True):
        at = roi_samples(x[batch], roi, **step.attributes)
        moved = np.zeros(at.shape[1:])
        for down, across in directions(2):
            other = roi_samples(x[batch], roi, away=np.array([across, down]) * away, **step.attributes)
            change = np.abs(other - at)
            np.maximum(moved, change.sum(0) if mean else change.max(0), out=moved)
        sizes = np.abs(at).sum(0)
        found.append((sizes.shape[2] * sizes.shape[4], reduced(sizes, (2, 4)), reduced(moved, (2, 4))))
    return found
