"""A network on the held-out split: figures by the benchmarks' own code, intervals over scenes.

Instances of which too little is seen are marked as crowds, which the benchmarks ignore: finding them is
neither right nor wrong.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from conformance.evaluation import coco, segmentations, ytvis
from conformance.pictures.picture import coco_results
from conformance.video.results import scene_ground_truth
from refimpl import held_out
from refimpl.inference import postprocess, preprocess
from refimpl.predictions import Predictions
from refimpl.scenes import LABELS

Array = NDArray[Any]
Record = dict[str, Any]
Network = Callable[[Array], Predictions]

LEAST_FRAMES = 4
"""Frames in which an instance of a video is seen enough; with fewer it is a crowd."""

RESAMPLES = 200
CATEGORIES = tuple(label + 1 for label in range(len(LABELS)))


@dataclass(frozen=True)
class Figure:
    """A figure and the 2.5th and 97.5th percentile of it over resampled scenes."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


# Ground truth.


def picture_truth(count: int = held_out.PICTURES) -> Record:
    """Return the truth of the first pictures of the split in COCO's form; ids from 1, category label + 1."""
    annotations: list[Record] = []
    for image_id, frame in enumerate(map(held_out.held_out_picture, range(count)), 1):
        enough = held_out.seen_enough(frame.masks)
        encoded = segmentations.encode(frame.masks)
        for rle, label, seen in zip(encoded, frame.labels.tolist(), enough.tolist(), strict=True):
            if rle is not None:
                entry = {"image_id": image_id, "category_id": label + 1, "iscrowd": int(not seen)}
                area = int(segmentations.areas_of([rle])[0])
                annotations.append({**entry, "segmentation": rle, "area": area, "bbox": [0, 0, 0, 0]})
    height, width = held_out.SIZE
    images = [{"id": i, "height": height, "width": width} for i in range(1, count + 1)]
    return {"images": images, "categories": _categories(), "annotations": _numbered(annotations)}


def video_truth(count: int = held_out.VIDEOS, frames: int = held_out.FRAMES) -> Record:
    """Return the truth of the first videos of the split in YouTube-VIS form; ids from 1."""
    truth = scene_ground_truth([held_out.held_out_video(index) for index in range(count)], frames)
    for annotation in truth["annotations"]:
        areas = segmentations.areas_of(annotation["segmentations"])
        clear = np.count_nonzero(held_out.area_enough(areas, held_out.SIZE))
        annotation["iscrowd"] = int(clear < LEAST_FRAMES)
    return truth


def _categories() -> list[Record]:
    return [{"id": label + 1, "name": name} for label, name in enumerate(LABELS)]


def _numbered(annotations: Iterable[Record]) -> list[Record]:
    return [{"id": index, **annotation} for index, annotation in enumerate(annotations, 1)]


def without_labels(document: Any) -> Any:
    """Return truth or results with every instance of category 1: what is left is finding and segmenting."""
    if isinstance(document, list):
        return [{**record, "category_id": 1} for record in document]
    annotations = without_labels(document["annotations"])
    return {**document, "categories": document["categories"][:1], "annotations": annotations}


# Pictures.


def picture_results(network: Network, count: int = held_out.PICTURES) -> list[Record]:
    """Segment the first pictures of the split; COCO's results."""
    results: list[Record] = []
    for index in range(count):
        images, placement = preprocess(held_out.held_out_picture(index).picture, "native", np.float32)
        results += coco_results(postprocess(network(images), placement), index + 1, CATEGORIES)
    return results


def picture_figures(truth: Record, results: list[Record]) -> Record:
    """COCO's twelve figures by pycocotools, as `Evaluation.to_json` gives them."""
    return coco.evaluate(truth, results).to_json()


def picture_precision(truth: Record, results: list[Record], seed: int = 0) -> Figure:
    """AP of pictures by pycocotools, with its interval over resampled pictures."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(*coco.tables(truth, results), "segm")
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.params.maxDets = [1, 10, 100]
        evaluator.evaluate()
        count = len(evaluator.params.imgIds)
        whole = [evaluator.evalImgs[i : i + count] for i in range(0, len(evaluator.evalImgs), count)]
        found = [_accumulated(evaluator, whole, draw) for draw in (np.arange(count), *_draws(count, seed))]
    return _figure(found)


def _accumulated(evaluator: COCOeval, whole: list[list[Any]], draw: Array) -> float:
    """AP over the drawn pictures; ``whole`` has a list of pictures for each category."""
    evaluator.evalImgs = [pictures[i] for pictures in whole for i in draw]
    evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0, -1]
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else -1.0


def _draws(count: int, seed: int) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.integers(0, count, count) for _ in range(RESAMPLES)]


def _figure(found: Sequence[float]) -> Figure:
    low, high = np.percentile(found[1:], [2.5, 97.5])
    return Figure(found[0], float(low), float(high))


# Videos.


def video_precision(truth: Record, results: list[Record], seed: int = 0) -> tuple[Record, Figure]:
    """YouTube-VIS's twelve figures, and AP with its interval over resampled videos."""
    annotations = ytvis.parse_ground_truth(truth)
    detections = ytvis.parse_results(results, annotations)
    figures = ytvis.evaluate(annotations, detections).to_json()
    draws = _draws(len(annotations.videos), seed)
    resampled = ytvis.resampled_precision(annotations, detections, draws)
    return figures, _figure([figures["stats"][0], *resampled])
