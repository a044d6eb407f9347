"""The trackers of Table 2 on the held-out videos, on the same detections: an oracle's, and a network's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.evaluation import segmentations
from conformance.evidence.held_out_videos import KEEP
from conformance.video.networks import NumpyNetwork
from conformance.video.results import picture_masks, slot_results
from refimpl import MobileInst, held_out
from refimpl.detections import Detections
from refimpl.inference import Placement, preprocess
from refimpl.rivals import NOBODY, RULES, RivalTracker
from refimpl.scenes import Oracle, Scene, identities_of, render_frame
from refimpl.tracker import KeyframeTensors, class_scores, frame_masks

Array = NDArray[Any]
Record = dict[str, Any]

NORM = 6.0
"""Norm of the oracle's embeddings, as a softmax of dot products needs a length; a network's have 4 to 8."""

NOISE, DUPLICATES = 0.5, 2
"""Of the worse oracle: noise half as long as the kernels, and objects that two queries find."""


@dataclass(frozen=True)
class Source:
    """Who finds the detections: tensors of a scene's frame, and the length of a kernel as an embedding."""

    name: str
    tensors: Callable[[Scene, int], KeyframeTensors]
    gain: float = 1.0


@dataclass(frozen=True)
class FoundFrame:
    """What a network finds in a frame: all its queries, and what is written of them as results.

    detections: of all queries; scores: (N, classes); kept: queries that a threshold leaves, by falling
    score; shown: the segmentation of each query, None where its mask is empty.
    """

    detections: Detections
    scores: Array
    kept: Array
    shown: Sequence[segmentations.Rle | None]

    def of(self, tracker: RivalTracker) -> Array:
        """The queries that a tracker is given."""
        return np.arange(len(self.scores)) if tracker.every_query else self.kept


def found_frame(tensors: KeyframeTensors, gain: float = 1.0) -> FoundFrame:
    """Make detections of a frame's tensors: embeddings are the kernels times ``gain``, boxes the masks'."""
    logits = frame_masks(tensors.kernels, tensors.mask_features)
    scores, masks = class_scores(tensors, logits), logits > 0
    best = scores.max(axis=1)
    stride = held_out.SIZE[0] / masks.shape[1]
    detections = Detections(
        gain * tensors.kernels, best, scores.argmax(axis=1), stride * boxes_of(masks), masks
    )
    sure = np.flatnonzero((best > KEEP) & masks.any(axis=(1, 2)))
    kept = sure[np.argsort(-best[sure], kind="stable")]
    shown = segmentations.encode(picture_masks(logits, Placement.unscaled(*held_out.SIZE)))
    return FoundFrame(detections, scores, kept, shown)


def boxes_of(masks: Array) -> Array:
    """The smallest box x0, y0, x1, y1 around each mask (n, h, w), x1 and y1 just outside; zeros if empty."""
    boxes = np.zeros((len(masks), 4))
    for index, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            boxes[index] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def track_results(frames: Sequence[FoundFrame], tracker: RivalTracker, video_id: int) -> list[Record]:
    """Follow one video: each track by the mean of its scores where it was seen, as YouTube-VIS results.

    Where two detections of a frame have one identity, the last is written, as in the public code.
    """
    sums: dict[int, list[Array]] = {}
    shown: dict[int, list[segmentations.Rle | None]] = {}
    for number, frame in enumerate(frames):
        queries = frame.of(tracker)
        identities = tracker.identify(frame.detections.take(queries)).tolist()
        for name, query in dict(zip(identities, queries.tolist(), strict=True)).items():
            if name != NOBODY:
                sums.setdefault(name, []).append(frame.scores[query])
                shown.setdefault(name, [None] * len(frames))[number] = frame.shown[query]
    names = list(sums)
    mean = np.array([np.mean(sums[name], axis=0) for name in names]).reshape(len(names), -1)
    by_slot = {slot: shown[name] for slot, name in enumerate(names) if mean[slot].max() > KEEP}
    return slot_results(mean, by_slot, video_id)


def network_source(model: MobileInst) -> Source:
    """Return a network as a source."""
    network = NumpyNetwork(model)

    def tensors(scene: Scene, frame: int) -> KeyframeTensors:
        picture = render_frame(scene, frame).picture
        return network.keyframe(preprocess(picture, "native", np.float32)[0])

    return Source("network", tensors)


def oracle_source(name: str = "oracle", noise: float = 0.0, duplicates: int = 0) -> Source:
    """Return the oracle as a source: each object that is there has its kernel and its mask."""

    @functools.lru_cache(maxsize=1)
    def of(scene: Scene) -> Oracle:
        needed = len(identities_of(scene, held_out.FRAMES)) + 3
        dimension = max(64, needed)
        return Oracle(scene, held_out.FRAMES, dimension=dimension, noise=noise, duplicates=duplicates)

    return Source(name, lambda scene, frame: of(scene).keyframe(frame), NORM)


def sources(model: MobileInst) -> list[Source]:
    """Return the oracle, a worse one, and the network."""
    worse = oracle_source("oracle, noisy", NOISE, DUPLICATES)
    return [oracle_source(), worse, network_source(model)]


def rival_results(
    source: Source, count: int = held_out.VIDEOS, progress: Callable[[], None] = lambda: None
) -> dict[str, list[Record]]:
    """Results of every tracker on the first videos of the split, by the names of its rule."""
    results: dict[str, list[Record]] = {names: [] for names in RULES}
    for index in range(count):
        scene = held_out.held_out_video(index)
        frames = [found_frame(source.tensors(scene, i), source.gain) for i in range(held_out.FRAMES)]
        for names, make in RULES.items():
            results[names] += track_results(frames, make(), index + 1)
        progress()
    return results
