"""Whether objects stay in their tracks: what association is for, counted against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.evaluation.segmentations import mask_overlaps
from conformance.video.results import picture_masks
from refimpl import held_out
from refimpl.inference import Placement
from refimpl.tracker import TrackedFrame

Array = NDArray[Any]

SURE = 0.2
"""Score of a query, at a keyframe, from which it may be an object's: the tracker's ``death``."""

FOUND = 0.5
"""IoU from which a mask is an object's."""


@dataclass(frozen=True)
class Carried:
    """Counts over consecutive keyframes.

    Attributes
    ----------
    pairs, kept
        Objects found at both, and those whose slot was the same at both.
    handed, handed_kept
        Of the pairs, those found by another query than before, and those of them that kept their slot:
        only an association that is not the identity can do that.
    associations, moved
        Associations, and those that are not the identity.
    """

    pairs: int = 0
    kept: int = 0
    handed: int = 0
    handed_kept: int = 0
    associations: int = 0
    moved: int = 0

    def __add__(self, other: Carried) -> Carried:
        """Add counts."""
        return Carried(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def shares(self) -> dict[str, float]:
        """Return what is kept, handed over, kept of the handed over, and not the identity, 0…1 each."""
        return {
            "kept": self.kept / max(self.pairs, 1),
            "handed": self.handed / max(self.pairs, 1),
            "handed_kept": self.handed_kept / max(self.handed, 1),
            "moved": self.moved / max(self.associations, 1),
        }


def carried_objects(
    tracked: Iterable[TrackedFrame], queries: Iterable[Array], masks: Sequence[Array]
) -> Carried:
    """Count what became of the objects of one video from keyframe to keyframe.

    Parameters
    ----------
    tracked : TrackedFrames
    queries : (N,) each
        The query of each slot, of each tracked frame.
    masks : (shapes, H, W) bool each
        The truth of each frame, one mask for each shape of the scene.
    """
    keyframes = [
        (_owners(frame, masks[frame.frame]), order)
        for frame, order in zip(tracked, queries, strict=True)
        if frame.keyframe
    ]
    steps = (_carried(*before, *after) for before, after in itertools.pairwise(keyframes))
    return sum(steps, Carried())


def _carried(before: dict[int, int], old: Array, after: dict[int, int], new: Array) -> Carried:
    """Count from one keyframe to the next: shape → slot, and the query of each slot, of both."""
    both = [(before[shape], after[shape]) for shape in before.keys() & after.keys()]
    kept = [first == second for first, second in both]
    handed = [bool(old[first] != new[second]) for first, second in both]
    handed_kept = sum(k and h for k, h in zip(kept, handed, strict=True))
    return Carried(len(both), sum(kept), sum(handed), handed_kept, 1, int((old != new).any()))


def _owners(frame: TrackedFrame, masks: Array) -> dict[int, int]:
    """The slot of each shape that is seen enough and found: of the sure ones that which covers it best."""
    slots = np.flatnonzero(frame.scores.max(axis=1) >= SURE)
    shapes = np.flatnonzero(held_out.seen_enough(masks))
    if not len(slots) or not len(shapes):
        return {}
    found = picture_masks(frame.mask_logits[slots], Placement.unscaled(*held_out.SIZE))
    overlaps = mask_overlaps(masks[shapes], found)
    best = overlaps.argmax(axis=1)
    return {
        int(shape): int(slots[slot])
        for shape, slot, overlap in zip(shapes, best, overlaps.max(axis=1), strict=True)
        if overlap >= FOUND
    }
