"""Following the held-out videos: the network runs once on each frame, then every way of tracking is tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from conformance.evaluation import segmentations
from conformance.evidence.carried_objects import Carried, carried_objects
from conformance.video.networks import NumpyNetwork
from conformance.video.results import picture_masks, slot_results
from refimpl import MobileInst, held_out
from refimpl.association import Association
from refimpl.inference import Placement, preprocess
from refimpl.scenes import Scene, render_frame
from refimpl.tracker import KeyframeTensors, TrackedFrame, Tracker, track_video

Array = NDArray[Any]
Record = dict[str, Any]

KEEP = 0.05
"""Slots whose mean score is above are results; the rest are empty."""


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
    """What one way of tracking gave on the videos so far: results, and what became of objects in each."""

    results: list[Record] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)


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
            tracked, queries = _tracked(network, way, frames)
            so_far.results += _results(tracked, index + 1)
            so_far.carried.append(carried_objects(tracked, queries, masks))
        progress()
    return followed


def _tracked(network: _Remembered, way: Way, frames: int) -> tuple[list[TrackedFrame], list[Array]]:
    """The tracked frames of a video, and at each the query of each slot."""
    tracker = way.tracker()
    found = [(frame, tracker.state.queries) for frame in track_video(range(frames), network, tracker)]
    return [frame for frame, _ in found], [queries for _, queries in found]


def _run(model: MobileInst, picture: Array) -> KeyframeTensors:
    images, _ = preprocess(picture, "native", np.float32)
    return NumpyNetwork(model).keyframe(images)


def _results(tracked: Sequence[TrackedFrame], video_id: int) -> list[Record]:
    """YouTube-VIS results: each slot that is kept and seen, by the mean of its scores over keyframes."""
    mean, placement = tracked[-1].mean_scores, Placement.unscaled(*held_out.SIZE)
    slots = np.flatnonzero(mean.max(axis=1) > KEEP)
    masks = (picture_masks(frame.mask_logits[slots], placement) for frame in tracked)
    shown = zip(*(segmentations.encode(mask) for mask in masks), strict=True)
    return slot_results(mean, dict(zip(slots.tolist(), shown, strict=False)), video_id)


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
