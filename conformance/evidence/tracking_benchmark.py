"""What surrounds the network, each beside a named peer in one run: association, losses, video evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from conformance.evaluation import segmentations, ytvis
from conformance.evidence.benchmark import Timing
from conformance.evidence.floor import seconds_of
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.association import associate
from refimpl.losses import losses
from refimpl.matching import Target
from refimpl.ops.operation import Array

KERNELS = (100, 256)
VIDEOS, DETECTIONS, OBJECTS, FRAMES, CATEGORIES = 300, 100, 4, 20, 40
FRAME = (180, 320)
SHAPES = 200
"""Different masks that the videos share out."""
LIMITS = {"association": 0.5, "association, exact ties": 2.0, "video evaluation": 8000.0}
"""Milliseconds each is to take at most."""
PIECES = 4
"""How many are timed."""


@dataclass(frozen=True)
class Piece:
    """What is timed, the peer beside it, and how often both are run in a repeat."""

    name: str
    run: Callable[[], Any]
    peer: str
    beside: Callable[[], Any]
    times: int


@dataclass(frozen=True)
class PieceTiming:
    """A piece's time and its peer's, each one of `Timing`, interleaved."""

    own: Timing
    peer: Timing

    @property
    def ratio(self) -> float:
        """The median of the ratios of the piece's time to its peer's in the same repeat."""
        return self.own.ratio(self.peer)


def measure_tracking(
    config: MobileInstConfig,
    weights: Weights,
    images: Array,
    threads: int,
    repeats: int,
    progress: Callable[[], None] = lambda: None,
) -> list[PieceTiming]:
    """Time association, losses and evaluation beside their peers, after one warm-up of each.

    Parameters
    ----------
    config, weights, images
        Of the network whose predictions the losses are of; images (B, 3, H, W).
    threads, repeats
    progress
        Called after each repeat of each piece.

    Returns
    -------
    list of PieceTiming
    """
    with threadpool_limits(threads):
        return [
            _timed(piece, threads, repeats, progress)
            for piece in (*_associations(), _losses(config, weights, images), _evaluation())
        ]


def _timed(piece: Piece, threads: int, repeats: int, progress: Callable[[], None]) -> PieceTiming:
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for taken, run in zip(seconds, (piece.run, piece.beside), strict=True):
            each = [seconds_of(run) for _ in range(piece.times if repeat else 1)]
            if repeat:
                taken.append(float(np.median(each)))
        progress()
    own, peer = (
        Timing(name, threads, tuple(s)) for name, s in zip((piece.name, piece.peer), seconds, strict=True)
    )
    return PieceTiming(own, peer)


def _associations() -> list[Piece]:
    random = np.random.default_rng(0)
    previous = random.standard_normal(KERNELS)
    order = random.permutation(len(previous))
    moved = previous[order] + 0.1 * random.standard_normal(KERNELS)
    pairs = np.repeat(previous[: len(previous) // 2], 2, axis=0)
    return [
        _association("association", previous, moved),
        _association("association, exact ties", pairs, pairs[order]),
    ]


def _association(name: str, previous: Array, current: Array) -> Piece:
    def peer() -> Any:
        return linear_sum_assignment(cdist(previous, current, "cosine"))

    return Piece(name, lambda: associate(previous, current), "SciPy: cosines, assignment", peer, 100)


def _losses(config: MobileInstConfig, weights: Weights, images: Array) -> Piece:
    network = MobileInst(config, weights.astype(np.float64))
    images = images.astype(np.float64)
    predictions = network(images)
    random = np.random.default_rng(0)
    labels = random.integers(0, config.num_classes, 8)
    masks = random.random((8, *images.shape[2:])) < 0.2
    targets = [Target(labels, masks)] * len(images)
    return Piece(
        "losses with gradients",
        lambda: losses(predictions, targets),
        "float64 forward",
        lambda: network(images),
        1,
    )


def _evaluation() -> Piece:
    truth, results = _videos()
    documents = json.dumps(truth), json.dumps(results)

    def run() -> Any:
        with segmentations.without_collector():
            checked = ytvis.parse_ground_truth(json.loads(documents[0]))
            return ytvis.evaluate(checked, ytvis.parse_results(json.loads(documents[1]), checked))

    return Piece("video evaluation", run, "json, pycocotools' IoU", lambda: _overlaps(*documents), 1)


def _overlaps(truth: str, results: str) -> None:
    """Parse both, and compute every IoU of a result and an object of one category, frame by frame."""
    with segmentations.without_collector():
        groups: dict[tuple[int, int], tuple[list[Any], list[Any]]] = {}
        for side, records in enumerate((json.loads(results), json.loads(truth)["annotations"])):
            for record in records:
                key = record["video_id"], record["category_id"]
                groups.setdefault(key, ([], []))[side].append(record["segmentations"])
        for found, objects in groups.values():
            for frame in range(FRAMES if found and objects else 0):
                of_frame = ([one[frame] for one in side] for side in (found, objects))
                coco_mask.iou(*of_frame, [0] * len(objects))


def _videos() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A ground truth and results for it, whose masks are drawn from a few."""
    random = np.random.default_rng(0)
    shapes = segmentations.encode(np.stack([_ellipse(random) for _ in range(SHAPES)]))

    def sequence(video: int) -> dict[str, Any]:
        drawn = random.integers(0, SHAPES, FRAMES).tolist()
        category = 1 + int(random.integers(CATEGORIES))
        return {"video_id": video, "category_id": category, "segmentations": [shapes[i] for i in drawn]}

    size = {"height": FRAME[0], "width": FRAME[1], "length": FRAMES}
    videos = [{"id": i} | size for i in range(1, VIDEOS + 1)]
    annotations = [sequence(1 + i // OBJECTS) | {"id": i + 1} for i in range(VIDEOS * OBJECTS)]
    results = [
        sequence(1 + i // DETECTIONS) | {"score": float(random.random())} for i in range(VIDEOS * DETECTIONS)
    ]
    categories = [{"id": i} for i in range(1, CATEGORIES + 1)]
    return {"videos": videos, "categories": categories, "annotations": annotations}, results


def _ellipse(random: np.random.Generator) -> Array:
    rows, columns = np.mgrid[: FRAME[0], : FRAME[1]]
    centre = random.uniform(0.2, 0.8, 2) * FRAME
    radii = random.uniform(10, 60, 2)
    inside: Array = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
    return inside
