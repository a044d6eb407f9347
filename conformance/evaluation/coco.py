"""COCO evaluation of image results, by pycocotools, behind checks that name the file and the entry."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conformance.evaluation import segmentations
from conformance.evaluation.ytvis import (
    MAX_DETECTIONS,
    SIDES,
    Evaluation,
    PathLike,
    fresh_id,
    integer_of,
    known_id,
    records_of,
    score_of,
)
from conformance.json_files import read_json
from refimpl.errors import FileError

Array = NDArray[Any]
Sizes = dict[int, segmentations.Size]


@segmentations.without_collector()
def evaluate_files(truth_path: PathLike, results_path: PathLike) -> Evaluation:
    """Evaluate segmentation results against COCO ground truth.

    Parameters
    ----------
    truth_path, results_path : path
        COCO's instance annotations, and a list of ``image_id, category_id, score, segmentation``.

    Returns
    -------
    Evaluation
        The twelve figures of COCOeval, −1 where undefined.

    Raises
    ------
    FileError
        Anything missing, of the wrong type, twice, unknown, or not of its image's size.
    """
    document = read_json(truth_path)
    sizes = check_truth(truth_path, document)
    categories = {category["id"] for category in document["categories"]}
    results = _checked_results(results_path, read_json(results_path), sizes, categories)
    return evaluate(document, results)


def tables(document: dict[str, Any], results: list[dict[str, Any]]) -> tuple[COCO, COCO]:
    """Return truth and results as pycocotools' tables."""
    truth = COCO()
    # pycocotools writes into what it is given.
    truth.dataset = {**document, "annotations": [dict(record) for record in document["annotations"]]}
    truth.createIndex()
    # loadRes cannot take an empty list; a detection set without annotations is one.
    detections = truth.loadRes([dict(record) for record in results]) if results else _no_detections(document)
    return truth, detections


def evaluate(document: dict[str, Any], results: list[dict[str, Any]]) -> Evaluation:
    """Evaluate results already checked, or made here, against ground truth; see `evaluate_files`."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _evaluate(document, results)


def _evaluate(document: dict[str, Any], results: list[dict[str, Any]]) -> Evaluation:
    evaluation = COCOeval(*tables(document, results), "segm")
    evaluation.params.maxDets = list(MAX_DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return Evaluation(
        np.asarray(evaluation.stats, np.float64),
        evaluation.eval["precision"],
        evaluation.eval["recall"],
        tuple(evaluation.params.catIds),
    )


def _no_detections(document: dict[str, Any]) -> COCO:
    empty = COCO()
    empty.dataset = {**document, "annotations": []}
    empty.createIndex()
    return empty


def check_truth(path: PathLike, document: Any) -> Sizes:
    """Check a ground truth, and normalise its masks; return the size of every image (errors: `FileError`)."""
    if not isinstance(document, dict):
        raise FileError(f"{path}: expected an object with images, categories and annotations")
    sizes: Sizes = {}
    for where, record in records_of(path, document, "images"):
        size = integer_of(where, record, "height", SIDES), integer_of(where, record, "width", SIDES)
        sizes[fresh_id(where, record, sizes)] = size
    categories: dict[int, None] = {}
    for where, record in records_of(path, document, "categories"):
        categories[fresh_id(where, record, categories)] = None
    known: dict[int, None] = {}
    records = list(records_of(path, document, "annotations"))
    for where, record in records:
        known[fresh_id(where, record, known)] = None
        known_id(where, record, "category_id", categories)
    document["annotations"] = [
        _annotation(where, record, rle)
        for (where, record), rle in zip(records, _masks(records, sizes), strict=True)
    ]
    return sizes


def _annotation(where: str, record: dict[str, Any], rle: segmentations.Rle) -> dict[str, Any]:
    """The annotation with what pycocotools reads, checked, and nothing else."""
    area = record.get("area", int(segmentations.areas_of([rle])[0]))
    if type(area) not in (int, float) or not 0 <= area < np.inf:
        raise FileError(f"{where}: area must be a number of pixels, got {area!r:.60}")
    crowd = integer_of(where, {"iscrowd": 0, **record}, "iscrowd", (0, 1))
    ids = {key: record[key] for key in ("id", "image_id", "category_id")}
    return {**ids, "iscrowd": crowd, "area": area, "bbox": [0, 0, 0, 0], "segmentation": rle}


def _checked_results(
    path: PathLike, document: Any, sizes: Sizes, categories: set[int]
) -> list[dict[str, Any]]:
    """The results with checked, compressed masks and nothing else that pycocotools might misread."""
    if not isinstance(document, list):
        raise FileError(f"{path}: expected a list of results, got {type(document).__name__}")
    entries = records_of(path, {"": document}, "")
    records = [(where, record) for where, record in entries]
    return [
        {
            "image_id": record["image_id"],
            "category_id": known_id(where, record, "category_id", categories),
            "score": score_of(where, record),
            "segmentation": rle,
        }
        for (where, record), rle in zip(records, _masks(records, sizes), strict=True)
    ]


def _masks(records: list[tuple[str, dict[str, Any]]], sizes: Sizes) -> list[segmentations.Rle]:
    """Compressed RLE of each record's segmentation; an empty one stays an RLE, of nothing."""
    frames = [sizes[known_id(where, record, "image_id", sizes)] for where, record in records]
    for where, record in records:
        if record.get("segmentation") is None:
            raise FileError(f"{where}: segmentation is missing; give an RLE or polygons")
    listed = [record["segmentation"] for _, record in records]
    rles = segmentations.read(listed, frames, lambda index: f"{records[index][0]}: segmentation")
    return [segmentations.empty(size) if rle is None else rle for rle, size in zip(rles, frames, strict=True)]
