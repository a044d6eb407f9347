"""Following the held-out videos: the network runs once on each frame, then every way of tracking is tried."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from conformance.evaluation import segmentations
from conformance.video.networks import NumpyNetwork
from conformance.video.results import picture_masks
from refimpl import MobileInst, held_out
from refimpl.association import Association
from refimpl.inference import Placement, preprocess
from refimpl.scenes import Scene, render_frame
from refimpl.tracker import KeyframeTensors, TrackedFrame, Tracker, track_video

Array = NDArray[Any]
Record = dict[str, Any]

KEEP = 0.05
"""Slots whose mean score is above are results; the rest are empty."""

SURE = 0.2
"""Score of a query, at a keyframe, from which it may be an object's: the tracker's ``death``."""

FOUND = 0.5
"""IoU from which a mask is an object's."""


@dataclass(frozen=True)
class Way:
    """A way of tracking: keyframe interval, association, and whether kernels are compared unnormalised."""

    keyframe_interval: int = 1
    method: str = "optimal"
    dot_product: bool = False

    def tracker(self) -> Tracker:
        """Return a tracker that goes this way."""
        kind = _DotProductTracker if self.dot_product else Tracker
        return kind(self.keyframe_interval, method=self.method)


class _DotProductTracker(Tracker):
    """Compares kernels by their dot product, which longer kernels win; not what the paper does."""

    def _associate(self, kernels: Array) -> tuple[Association | None, Array]:
        if self.state.keyframes == 0:
            return None, np.arange(len(kernels))
        return None, linear_sum_assignment(self.state.kernels @ kernels.T, maximize=True)[1]


@dataclass
class Followed:
    """What one way of tracking gave on the videos so far.

    ``kept`` of ``pairs``: objects found at two consecutive keyframes whose slot was the same in both.
    """

    results: list[Record] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)

    @property
    def keeps(self) -> float:
        """Share of objects that kept their slot from keyframe to keyframe."""
        return sum(self.kept) / max(sum(self.pairs), 1)


class _Remembered:
    """A network's answers on the frames of one video, asked for by frame."""

    def __init__(self, frames: Sequence[KeyframeTensors]) -> None:
        self.frames = frames

    def keyframe(self, frame: int) -> KeyframeTensors:
        return self.frames[frame]

    def mask_features(self, frame: int) -> Array:
        features: Array = self.frames[frame].mask_features
        return features


def follow_videos(
    model: MobileInst,
    ways: Sequence[Way],
    count: int = held_out.VIDEOS,
    frames: int = held_out.FRAMES,
    progress: Callable[[], None] = lambda: None,
) -> dict[Way, Followed]:
    """Follow the first videos of the split in each of several ways."""
    followed = {way: Followed() for way in ways}
    for index in range(count):
        rendered = [render_frame(held_out.held_out_video(index), frame) for frame in range(frames)]
        network = _Remembered([_run(model, frame.picture) for frame in rendered])
        masks = [frame.masks for frame in rendered]
        for way, so_far in followed.items():
            tracked = list(track_video(range(frames), network, way.tracker()))
            so_far.results += _results(tracked, index + 1)
            kept, pairs = kept_slots(tracked, masks)
            so_far.kept.append(kept)
            so_far.pairs.append(pairs)
        progress()
    return followed


def _run(model: MobileInst, picture: Array) -> KeyframeTensors:
    images, _ = preprocess(picture, "native", np.float32)
    return NumpyNetwork(model).keyframe(images)


def _placement() -> Placement:
    return Placement.unscaled(*held_out.SIZE)


def _results(tracked: Sequence[TrackedFrame], video_id: int) -> list[Record]:
    """YouTube-VIS results: each slot that is kept and seen, by the mean of its scores over keyframes."""
    mean = tracked[-1].mean_scores
    slots = np.flatnonzero(mean.max(axis=1) > KEEP)
    masks = (picture_masks(frame.mask_logits[slots], _placement()) for frame in tracked)
    shown = list(zip(*(segmentations.encode(mask) for mask in masks), strict=True))
    return [
        {
            "video_id": video_id,
            "category_id": int(mean[slot].argmax()) + 1,
            "score": float(mean[slot].max()),
            "segmentations": list(mine),
        }
        for slot, mine in zip(slots, shown, strict=True)
        if any(mine)
    ]


def kept_slots(tracked: Sequence[TrackedFrame], masks: Sequence[Array]) -> tuple[int, int]:
    """Count objects found at two consecutive keyframes, and those whose slot was the same at both.

    Parameters
    ----------
    tracked : TrackedFrames
    masks : (shapes, H, W) bool each
        The truth of each frame, one mask for each shape of the scene.

    Returns
    -------
    kept, pairs : int
    """
    owners = [_owners(frame, masks[frame.frame]) for frame in tracked if frame.keyframe]
    kept = pairs = 0
    for before, after in itertools.pairwise(owners):
        both = before.keys() & after.keys()
        pairs += len(both)
        kept += sum(before[shape] == after[shape] for shape in both)
    return kept, pairs


def _owners(frame: TrackedFrame, masks: Array) -> dict[int, int]:
    """The slot of each shape that is seen enough and found: of the sure ones that which covers it best."""
    slots = np.flatnonzero(frame.scores.max(axis=1) >= SURE)
    shapes = np.flatnonzero(held_out.seen_enough(masks))
    if not len(slots) or not len(shapes):
        return {}
    found = picture_masks(frame.mask_logits[slots], _placement())
    overlaps = mask_overlaps(masks[shapes], found)
    best = overlaps.argmax(axis=1)
    return {
        int(shape): int(slots[slot])
        for shape, slot, overlap in zip(shapes, best, overlaps.max(axis=1), strict=True)
        if overlap >= FOUND
    }


def mask_overlaps(first: Array, second: Array) -> Array:
    """IoU of each pair of masks, (n, H, W) and (m, H, W) bool → (n, m)."""
    a, b = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (first, second))
    both = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1) - both
    overlaps: Array = both / np.maximum(union, 1)
    return overlaps


def seconds_per_frame(model: MobileInst, intervals: Sequence[int], repeats: int = 9) -> dict[int, float]:
    """Time the network on frames of the first video: medians, a keyframe and T − 1 reused frames mixed."""
    network, scene = NumpyNetwork(model), held_out.held_out_video(0)
    inputs = [preprocess(picture, "native", np.float32)[0] for picture in _pictures(scene, repeats)]
    whole, reused = (_median_seconds(call, inputs) for call in (network.keyframe, network.mask_features))
    return {interval: (whole + (interval - 1) * reused) / interval for interval in intervals}


def _pictures(scene: Scene, count: int) -> Iterator[Array]:
    return (render_frame(scene, frame).picture for frame in range(count))


def _median_seconds(call: Callable[[Array], Any], inputs: Sequence[Array]) -> float:
    call(inputs[0])
    taken = []
    for images in inputs:
        start = time.perf_counter()
        call(images)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
