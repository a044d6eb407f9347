"""Hypothesis strategies for short videos of detections: kernels with scores, labels, boxes and masks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.trackers.kernel_strategies import orders_of, small_numbers
from conformance.trackers.protocol import finite_lists
from refimpl.detections import Detections

Array = NDArray[Any]
SIDE = 16
"""Pixels of a side of the masks."""


@dataclass(frozen=True)
class DetectionClip:
    """A video of detections; ``extra`` is what the property needs besides."""

    frames: tuple[Detections, ...]
    extra: Any = None

    def request(self) -> dict[str, Any]:
        """The case as it is printed; masks are the boxes filled."""
        return {"op": "identify", "frames": [_listed(frame) for frame in self.frames]}


def _listed(frame: Detections) -> dict[str, Any]:
    names = ("embeddings", "scores", "labels", "boxes")
    arrays = {name: getattr(frame, name) for name in names}
    return {name: finite_lists(array) for name, array in arrays.items() if array is not None}


def filled(boxes: Array) -> Array:
    """Masks (n, SIDE, SIDE) of boxes (n, 4)."""
    rows, columns = np.arange(SIDE)[:, None], np.arange(SIDE)
    x0, y0, x1, y1 = (boxes[:, side, None, None] for side in range(4))
    inside: Array = (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    return inside


def detections_of(kernels: Array, scores: Array, labels: Array, boxes: Array) -> Detections:
    """Detections whose masks are their boxes, filled."""
    return Detections(kernels, scores, labels, boxes, filled(boxes))


@functools.cache
def _rows(dimension: int, largest: int) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    kernel = small_numbers(dimension).filter(any)
    corner, score = st.tuples(*[st.integers(0, 2)] * 2), st.sampled_from([0.9, 0.7, 0.5, 0.3])
    return st.lists(st.tuples(kernel, score, st.integers(0, 1), corner), min_size=1, max_size=largest)


@functools.cache
@st.composite
def detections(draw: st.DrawFn, dimension: int, largest: int = 3) -> Detections:
    """One to ``largest`` detections of any kind, kernels of small integers: alike, or one on another."""
    rows = draw(_rows(dimension, largest))
    kernels, scores, labels, corners = (np.array(column) for column in zip(*rows, strict=True))
    boxes = np.concatenate([2.0 * corners, 2.0 * corners + 4], axis=1)
    return detections_of(kernels.astype(np.float64), scores, labels, boxes)


@st.composite
def free_clips(draw: st.DrawFn) -> DetectionClip:
    """Two frames of any detections, and in ``extra`` an order of each."""
    dimension, largest = draw(st.integers(1, 3)), draw(st.sampled_from([2, 3]))
    frames = tuple(draw(detections(dimension, largest)) for _ in range(2))
    return DetectionClip(frames, [np.array(draw(orders_of(len(one)))) for one in frames])


@st.composite
def contested_clips(draw: st.DrawFn) -> DetectionClip:
    """Two frames of one class in one place, where several want one track; kernels decide."""
    kernel = st.tuples(st.integers(1, 5), st.integers(-2, 5))
    frames = []
    for count in (2, 3):
        kernels = np.array(draw(st.lists(kernel, min_size=count, max_size=count)), np.float64)
        here = np.tile([0.0, 0.0, 4.0, 4.0], (count, 1))
        frames.append(detections_of(kernels, 1 - 0.1 * np.arange(count), np.zeros(count, np.int64), here))
    return DetectionClip(tuple(frames))


@functools.cache
@st.composite
def objects(draw: st.DrawFn, smallest: int = 1) -> Detections:
    """Objects that nobody can mistake: kernels of norm 4 or 2 at right angles, apart, of one label."""
    count, norm = draw(st.integers(smallest, 4)), draw(st.sampled_from([4, 2]))
    places = np.array([[0, 0], [8, 0], [0, 8], [8, 8]][:count], np.float64)
    boxes = np.concatenate([places, places + 6], axis=1)
    return detections_of(norm * np.eye(count, 4), np.full(count, 0.9), np.zeros(count, np.int64), boxes)


def _clip(frames: Sequence[tuple[Detections, Sequence[int]]]) -> DetectionClip:
    """The video of these frames, each with the objects that it shows, which ``extra`` lists."""
    return DetectionClip(
        tuple(found.take(shown) for found, shown in frames), [list(shown) for _, shown in frames]
    )


@st.composite
def followed_clips(draw: st.DrawFn) -> DetectionClip:
    """Objects that stay, shuffled; ``extra`` says for every frame which object each detection is."""
    found = draw(objects())
    orders = [draw(orders_of(len(found))) for _ in range(draw(st.integers(1, 3)))]
    return _clip([(found, range(len(found))), *((found, order) for order in orders)])


@st.composite
def relabelled_clips(draw: st.DrawFn) -> DetectionClip:
    """So, but in the second frame some have another label."""
    found = draw(objects())
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=len(found), max_size=len(found))))
    order = range(len(found))
    return _clip([(found, order), (replace(found, labels=labels), order)])


@st.composite
def interrupted_clips(draw: st.DrawFn, frames: int) -> DetectionClip:
    """Two objects and more, one of which is not seen for some frames."""
    found = draw(objects(smallest=2))
    everyone = list(range(len(found)))
    missing = draw(st.sampled_from(everyone))
    fewer = [one for one in everyone if one != missing]
    return _clip([(found, everyone), *[(found, fewer)] * frames, (found, everyone)])


@st.composite
def changing_clips(draw: st.DrawFn) -> DetectionClip:
    """Two frames that show different objects, some of them the same."""
    found = draw(objects(smallest=2))
    shown = st.lists(st.integers(0, len(found) - 1), min_size=1, unique=True)
    return _clip([(found, draw(shown)) for _ in range(2)])


@st.composite
def twin_clips(draw: st.DrawFn) -> DetectionClip:
    """Objects with one kernel, which only their places tell apart, shuffled."""
    found = draw(objects(smallest=2))
    twins = replace(found, embeddings=np.tile(found.embeddings[:1], (len(found), 1)))
    return _clip([(twins, range(len(found))), (twins, draw(orders_of(len(found))))])


@st.composite
def crossing_clips(draw: st.DrawFn) -> DetectionClip:
    """Objects that take each other's places, which only their kernels tell."""
    found = draw(objects(smallest=2))
    order = draw(orders_of(len(found)))
    there = found.take(order)
    moved = replace(found, boxes=there.boxes, masks=there.masks)
    return _clip([(found, range(len(found))), (moved, range(len(found)))])
