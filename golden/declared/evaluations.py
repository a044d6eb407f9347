"""Miniature YouTube-VIS evaluations, confirmed by pycocotools on frames side by side."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.evaluation import ytvis
from conformance.evaluation.segmentations import encode
from golden.case import Case, Confirmation, Golden
from golden.sources.source import _version
from refimpl.errors import VerificationError
from refimpl.ops.operation import Array

DECIMALS = 1e-9
FRAME, LENGTH = (160, 200), 3


@dataclass(frozen=True)
class Evaluation:
    """Two seeded videos of moving rectangles, and detections of them.

    Attributes
    ----------
    name, seed, shows
        Of the golden.
    largest
        Side of a rectangle, in pixels.
    absent
        Whether instances are missing from some frames.
    """

    name: str
    seed: int
    largest: int
    absent: bool
    shows: str

    def case(self) -> Case:
        """Compute the golden."""
        truth, results = _documents(self.seed, self.largest, self.absent)
        figures = _figures(truth, results)

        def confirm() -> list[Confirmation]:
            other = _by_pycocotools(truth, results)
            difference = max(abs(figures[name] - other[name]) for name in figures)
            if difference > DECIMALS:
                raise VerificationError(f"pycocotools has {other}, not {figures}")
            return [Confirmation(f"pycocotools {_version('pycocotools')}, frames side by side", difference)]

        document = {"inputs": {"ground_truth": truth, "results": results}, "results": figures}
        return Case({}, {}, lambda form: {}, confirm, decisions=document)

    def golden(self) -> Golden:
        """Return the entry of the list."""
        arguments = {"largest": self.largest}
        function = "conformance.evaluation.ytvis.evaluate"
        return Golden(
            f"evaluation/{self.name}", "evaluation", function, arguments, self.seed, self.shows, self.case
        )


EVALUATIONS = (
    Evaluation("visible", 41, 150, False, "every instance in every frame, small and medium"),
    Evaluation("absent", 42, 90, True, "instances missing from a frame: null adds to the union"),
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of the evaluation."""
    for evaluation in EVALUATIONS:
        yield evaluation.golden()


def _boxes(rng: np.random.Generator, count: int, largest: int, jitter: int) -> list[list[Array]]:
    """Ground truth and detections of moving rectangles: for each, a mask a frame."""
    found = []
    for _ in range(count):
        height, width = (int(n) for n in rng.integers(20, largest, 2))
        top, left = int(rng.integers(0, FRAME[0] - height)), int(rng.integers(0, FRAME[1] - width))
        masks = []
        for _ in range(LENGTH):
            dy, dx = (int(n) for n in rng.integers(-jitter, jitter + 1, 2))
            mask = np.zeros(FRAME, bool)
            mask[max(0, top + dy) : top + dy + height, max(0, left + dx) : left + dx + width] = True
            masks.append(mask)
        found.append(masks)
    return found


def _documents(seed: int, largest: int, absent: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for video in (1, 2):
        for index, masks in enumerate(_boxes(rng, 4, largest, 0)):
            category = 1 + index % 2
            if absent and index % 2:
                masks[int(rng.integers(LENGTH))] = np.zeros(FRAME, bool)
            where = {"video_id": video, "category_id": category}
            identifier = len(annotations) + 1
            annotations.append({"id": identifier, **where, "iscrowd": 0, "segmentations": _encoded(masks)})
            for shift in (int(n) for n in rng.integers(0, 14, 2)):
                moved = [np.roll(mask, shift, axis=1) for mask in masks]
                score = round(float(rng.random()), 3)
                results.append({**where, "score": score, "segmentations": _encoded(moved)})
    videos = [{"id": v, "height": FRAME[0], "width": FRAME[1], "length": LENGTH} for v in (1, 2)]
    categories = [{"id": c, "name": f"category {c}"} for c in (1, 2)]
    return {"videos": videos, "categories": categories, "annotations": annotations}, results


def _encoded(masks: list[Array]) -> list[Any]:
    return list(encode(np.stack(masks)))


def _figures(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "truth.json", Path(folder) / "results.json"
        for path, document in zip(paths, (truth, results), strict=True):
            path.write_text(json.dumps(document))
        stats = ytvis.evaluate_files(*paths).stats
    return dict(zip(ytvis.STATISTICS, stats.tolist(), strict=True))


def _by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """Frames side by side are one image: sums of intersections and unions become those of the image."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def joined(record: dict[str, Any], identifier: int) -> dict[str, Any]:
        frames = [
            np.zeros(FRAME, np.uint8) if rle is None else coco_mask.decode(rle)
            for rle in record["segmentations"]
        ]
        rle = coco_mask.encode(np.asfortranarray(np.concatenate(frames, axis=1)))
        kept: dict[str, Any] = {
            key: record[key] for key in ("category_id", "score", "iscrowd") if key in record
        }
        area = float(coco_mask.area(rle))
        return {**kept, "id": identifier, "image_id": record["video_id"], "segmentation": rle, "area": area}

    ground = COCO()
    images = [{"id": v["id"], "height": FRAME[0], "width": FRAME[1] * LENGTH} for v in truth["videos"]]
    annotations = [joined(a, a["id"]) for a in truth["annotations"]]
    ground.dataset = {"images": images, "categories": truth["categories"], "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        ground.createIndex()
        found = ground.loadRes([joined(r, i + 1) for i, r in enumerate(results)])
        evaluation = COCOeval(ground, found, "segm")
        evaluation.params.areaRng = [[low * LENGTH, high * LENGTH] for low, high in ytvis.AREA_RANGES]
        evaluation.params.maxDets = list(ytvis.MAX_DETECTIONS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(ytvis.STATISTICS, (float(x) for x in evaluation.stats), strict=True))
