"""YouTube-VIS evaluation: COCO's protocol over sequences of masks (Yang et al. 2019, Lin et al. 2014).

The IoU of two sequences is the sum of their intersections over the sum of their unions; the rest (greedy
matching in score order, ten IoU thresholds, 101 recall points) is COCO's. RLE work is done by pycocotools.
"""

from __future__ import annotations

import bisect
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.evaluation import segmentations
from conformance.json_files import read_json
from refimpl.errors import FileError

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
AreaRanges = tuple[tuple[float, float], ...]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)
MAX_DETECTIONS = (1, 10, 100)
AREA_RANGES: AreaRanges = ((0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10))
SIDES = (1, segmentations.LARGEST_SIDE)
"""Heights, widths and numbers of frames that are accepted."""
STATISTICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Names of the twelve figures, in COCO's order."""


@dataclass(frozen=True)
class Video:
    """Size and number of frames of a video."""

    height: int
    width: int
    length: int


@dataclass(frozen=True)
class MaskSequence:
    """One instance through a video: ground truth (score 1) or detection.

    Attributes
    ----------
    category : int
    score : float
    crowd : bool
    masks : dict
        Frame → compressed RLE, frames without a mask left out.
    areas : dict
        Frame → pixels.
    """

    category: int
    score: float
    crowd: bool
    masks: dict[int, segmentations.Rle]
    areas: dict[int, int]

    @property
    def area(self) -> float:
        """Mean area over the frames that have a mask; 0 without any."""
        return sum(self.areas.values()) / max(len(self.areas), 1)


@dataclass(frozen=True)
class Annotations:
    """Ground truth, or the detections for it: sequences per video in the order of the file."""

    videos: dict[int, Video]
    categories: tuple[int, ...]
    sequences: dict[int, list[MaskSequence]]


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes
    ----------
    stats : (12,) float64
        See `STATISTICS`; −1 where undefined.
    precision : (thresholds, recall points, categories, areas, max detections) float64
    recall : (thresholds, categories, areas, max detections) float64
    categories : tuple of int
    """

    stats: Array
    precision: Array
    recall: Array
    categories: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return ``stats`` as a list, the same by name, and AP per category id."""
        per_category = [_mean(self.precision[:, :, k, 0, -1]) for k in range(len(self.categories))]
        return {
            "stats": self.stats.tolist(),
            "named": dict(zip(STATISTICS, self.stats.tolist(), strict=True)),
            "category_ap": dict(zip(map(str, self.categories), per_category, strict=True)),
        }


def load_ground_truth(path: PathLike) -> Annotations:
    """Read and check a YouTube-VIS ground-truth file: ``videos``, ``categories``, ``annotations``.

    An annotation's area is measured on its masks; as in the public evaluation ``iscrowd`` alone decides what
    is ignored from the start.

    Raises
    ------
    FileError
        Anything missing, of the wrong type, twice, unknown, or not of its video's size; names file and index.
    """
    return parse_ground_truth(read_json(path), path)


def parse_ground_truth(document: Any, path: PathLike = "ground truth") -> Annotations:
    """Check a ground truth that is already in memory; see `load_ground_truth`."""
    if not isinstance(document, dict):
        raise FileError(f"{path}: expected an object with videos, categories and annotations")
    videos: dict[int, Video] = {}
    for where, record in records_of(path, document, "videos"):
        sides = (integer_of(where, record, key, SIDES) for key in ("height", "width", "length"))
        videos[fresh_id(where, record, videos)] = Video(*sides)
    categories: dict[int, None] = {}
    for where, record in records_of(path, document, "categories"):
        categories[fresh_id(where, record, categories)] = None
    truth = Annotations(videos, tuple(sorted(categories)), {video: [] for video in sorted(videos)})
    identifiers: dict[int, None] = {}
    records = list(records_of(path, document, "annotations"))
    for where, record in records:
        identifiers[fresh_id(where, record, identifiers)] = None
    _add_sequences(truth, records, scored=False)
    return truth


def load_results(path: PathLike, truth: Annotations) -> Annotations:
    """Read and check YouTube-VIS results: a list of ``video_id, category_id, score, segmentations``.

    Raises
    ------
    FileError
    """
    return parse_results(read_json(path), truth, str(path))


def parse_results(document: Any, truth: Annotations, name: str = "results") -> Annotations:
    """Check results that are already in memory; see `load_results`."""
    if not isinstance(document, list):
        raise FileError(f"{name}: expected a list of results, got {type(document).__name__}")
    results = Annotations(truth.videos, truth.categories, {video: [] for video in truth.sequences})
    _add_sequences(results, list(records_of(name, {"": document}, "")), scored=True)
    return results


def evaluate(truth: Annotations, results: Annotations, area_ranges: AreaRanges = AREA_RANGES) -> Evaluation:
    """Compute the twelve figures.

    Parameters
    ----------
    truth, results : Annotations
        From `load_ground_truth` and `load_results`.
    area_ranges : four (smallest, largest) in pixels, inclusive
        all, small, medium, large.

    Returns
    -------
    Evaluation
    """
    return _pooled(truth.categories, _match_videos(truth, results, area_ranges), len(area_ranges))


def resampled_precision(truth: Annotations, results: Annotations, draws: Sequence[Array]) -> list[float]:
    """Compute AP once for each draw, an array of indices into the videos by ascending id."""
    videos = _match_videos(truth, results, AREA_RANGES[:1])
    return [float(_pooled(truth.categories, [videos[i] for i in draw], 1).stats[0]) for draw in draws]


_Matchings = dict[tuple[int, int], "_Matching"]


def _match_videos(truth: Annotations, results: Annotations, area_ranges: AreaRanges) -> list[_Matchings]:
    """The matchings of each video, by ascending id, for each category and area range."""
    videos = []
    for video in sorted(truth.videos):
        objects, detections = _by_category(truth.sequences[video]), _by_category(results.sequences[video])
        matched: _Matchings = {}
        for category in sorted(set(objects) | set(detections)):
            pair = objects[category], _ranked(detections[category])
            overlaps = sequence_iou(pair[1], pair[0])
            for area, limits in enumerate(area_ranges):
                matched[category, area] = _match(*pair, overlaps, limits)
        videos.append(matched)
    return videos


def _pooled(categories: tuple[int, ...], videos: Sequence[_Matchings], areas: int) -> Evaluation:
    """Evaluate videos that have been matched."""
    together: dict[tuple[int, int], list[_Matching]] = defaultdict(list)
    for matched in videos:
        for key, matching in matched.items():
            together[key].append(matching)
    return _accumulate(categories, together, areas)


@segmentations.without_collector()
def evaluate_files(truth_path: PathLike, results_path: PathLike) -> Evaluation:
    """Evaluate a result file against a ground-truth file; see `evaluate`."""
    truth = load_ground_truth(truth_path)
    return evaluate(truth, load_results(results_path, truth))


def sequence_iou(detections: Sequence[MaskSequence], objects: Sequence[MaskSequence]) -> Array:
    """IoU of sequences, (detections, objects) float64: Σ intersection / Σ union over frames; 0 if empty."""
    both = np.zeros((len(detections), len(objects)), np.int64)
    for frame in sorted({frame for one in objects for frame in one.masks}) if detections else ():
        rows = [i for i, one in enumerate(detections) if frame in one.masks]
        columns = [i for i, one in enumerate(objects) if frame in one.masks]
        areas = [
            np.array([sequences[i].areas[frame] for i in chosen], np.int64)
            for sequences, chosen in ((detections, rows), (objects, columns))
        ]
        both[np.ix_(rows, columns)] += segmentations.intersections(
            [detections[i].masks[frame] for i in rows],
            [objects[i].masks[frame] for i in columns],
            (areas[0], areas[1]),
        )
    sums = [np.array([sum(one.areas.values()) for one in s], np.int64) for s in (detections, objects)]
    union = sums[0][:, None] + sums[1] - both
    iou: Array = both / np.maximum(union, 1)
    return iou


@dataclass(frozen=True)
class _Matching:
    """One video, category and area range: detections in score order against the ten thresholds."""

    scores: Array  # (D,)
    hit: Array  # (T, D) bool
    ignored: Array  # (T, D) bool
    positives: int


def _match(
    objects: Sequence[MaskSequence],
    detections: Sequence[MaskSequence],
    overlaps: Array,
    limits: tuple[float, float],
) -> _Matching:
    """Match greedily in score order (COCOeval.evaluateImg)."""
    outside = np.array([not limits[0] <= one.area <= limits[1] for one in detections], bool)
    ignored = np.array([one.crowd or not limits[0] <= one.area <= limits[1] for one in objects], bool)
    order = np.argsort(ignored, kind="stable")
    crowd = [objects[i].crowd for i in order]
    ignored, overlaps = ignored[order], overlaps[:, order]
    hit = np.zeros((len(IOU_THRESHOLDS), len(detections)), bool)
    dismissed = np.repeat(outside[None], len(IOU_THRESHOLDS), axis=0)
    largest = overlaps.max(axis=1, initial=0)
    possible = np.flatnonzero(largest >= IOU_THRESHOLDS[0])
    for row, threshold in enumerate(IOU_THRESHOLDS if possible.size else ()):
        taken: set[int] = set()
        for column in possible[largest[possible] >= threshold]:
            free = [g for g in range(len(objects)) if crowd[g] or g not in taken]
            found = _best(overlaps[column], ignored, free, threshold)
            if found is not None:
                taken.add(found)
                hit[row, column], dismissed[row, column] = True, ignored[found]
    return _Matching(np.array([one.score for one in detections]), hit, dismissed, int((~ignored).sum()))


def _best(overlap: Array, ignored: Array, free: list[int], threshold: float) -> int | None:
    """The free object of largest overlap ≥ threshold, the last of equals; ignored ones only if no other."""
    best, found = min(threshold, 1 - 1e-10), None
    for candidate in free:
        if found is not None and ignored[candidate] and not ignored[found]:
            break
        if overlap[candidate] >= best:
            best, found = overlap[candidate], candidate
    return found


def _accumulate(
    categories: tuple[int, ...], matched: dict[tuple[int, int], list[_Matching]], areas: int
) -> Evaluation:
    """Precision and recall over all videos (COCOeval.accumulate), and their summary."""
    shape = (len(categories), areas, len(MAX_DETECTIONS))
    precision = np.full((len(IOU_THRESHOLDS), len(RECALL_POINTS), *shape), -1.0)
    recall = np.full((len(IOU_THRESHOLDS), *shape), -1.0)
    for k, category in enumerate(categories):
        for area in range(areas):
            parts = matched.get((category, area), [])
            positives = sum(part.positives for part in parts)
            for m, most in enumerate(MAX_DETECTIONS if positives else ()):
                curve = _precision_recall(parts, most, positives)
                precision[:, :, k, area, m], recall[:, k, area, m] = curve
    return Evaluation(_summary(precision, recall), precision, recall, categories)


def _precision_recall(parts: list[_Matching], most: int, positives: int) -> tuple[Array, Array]:
    """Precision at the recall points (T, 101), and the final recall (T,)."""
    scores = np.concatenate([part.scores[:most] for part in parts])
    order = np.argsort(-scores, kind="stable")
    hit = np.concatenate([part.hit[:, :most] for part in parts], axis=1)[:, order]
    counted = ~np.concatenate([part.ignored[:, :most] for part in parts], axis=1)[:, order]
    true = np.cumsum(hit & counted, axis=1, dtype=np.float64)
    false = np.cumsum(~hit & counted, axis=1, dtype=np.float64)
    if not len(scores):
        return np.zeros((len(true), len(RECALL_POINTS))), np.zeros(len(true))
    recall = true / positives
    precision = true / (false + true + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    sampled = np.zeros((len(true), len(RECALL_POINTS)))
    for row in range(len(true)):
        at = np.searchsorted(recall[row], RECALL_POINTS, side="left")
        reached = at < len(scores)
        sampled[row, reached] = envelope[row, at[reached]]
    return sampled, recall[:, -1]


def _summary(precision: Array, recall: Array) -> Array:
    """The twelve figures."""
    figures = [precision[rows, ..., 0, -1] for rows in (slice(None), 0, 5)]  # .50:.95, .50, .75
    sizes = range(1, precision.shape[3])
    figures += [precision[..., area, -1] for area in sizes]
    figures += [recall[..., 0, most] for most in range(3)] + [recall[..., area, -1] for area in sizes]
    return np.array([_mean(figure) for figure in figures])


def _mean(values: Array) -> float:
    """Mean of the defined values, −1 if there are none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _by_category(sequences: Iterable[MaskSequence]) -> defaultdict[int, list[MaskSequence]]:
    grouped: defaultdict[int, list[MaskSequence]] = defaultdict(list)
    for one in sequences:
        grouped[one.category].append(one)
    return grouped


def _ranked(detections: list[MaskSequence]) -> list[MaskSequence]:
    """The 100 best by score, in the file's order where equal."""
    return sorted(detections, key=lambda one: -one.score)[: MAX_DETECTIONS[-1]]


def records_of(path: PathLike, document: dict[str, Any], key: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield each object of the list ``key``, with where it stands; raises `FileError` for another type."""
    entries = document.get(key)
    if not isinstance(entries, list):
        raise FileError(f"{path}: {key} must be a list, got {type(entries).__name__}")
    for index, record in enumerate(entries):
        if not isinstance(record, dict):
            raise FileError(f"{path}: {key}[{index}] must be an object, got {type(record).__name__}")
        yield f"{path}: {key}[{index}]", record


def integer_of(where: str, record: dict[str, Any], key: str, limits: tuple[int, int] | None = None) -> int:
    """Return an integer field, within the limits if there are any, or raise `FileError`."""
    value = record.get(key)
    if type(value) is not int or (limits is not None and not limits[0] <= value <= limits[1]):
        expected = "an integer" if limits is None else f"an integer from {limits[0]} to {limits[1]}"
        raise FileError(f"{where}: {key} must be {expected}, got {value!r:.60}")
    return value


def fresh_id(where: str, record: dict[str, Any], known: dict[int, Any]) -> int:
    """Return the record's id, which none before it has, or raise `FileError`."""
    identifier = integer_of(where, record, "id")
    if identifier in known:
        raise FileError(f"{where}: id {identifier} is used twice; give every entry its own")
    return identifier


def known_id(where: str, record: dict[str, Any], key: str, known: Any) -> int:
    """Return an id that the ground truth has, or raise `FileError`."""
    identifier = integer_of(where, record, key)
    if identifier not in known:
        raise FileError(f"{where}: {key} {identifier} is not in the ground truth")
    return identifier


def score_of(where: str, record: dict[str, Any]) -> float:
    """Return the finite score of a result, or raise `FileError`."""
    score = record.get("score")
    number = isinstance(score, int | float) and not isinstance(score, bool)
    if score is None or not number or not abs(score) <= sys.float_info.max:
        raise FileError(f"{where}: score must be a finite number, got {score!r}")
    return float(score)


def _add_sequences(annotations: Annotations, records: list[tuple[str, dict[str, Any]]], scored: bool) -> None:
    """Check the records and add a `MaskSequence` for each."""
    headers = [_header(where, record, annotations, scored) for where, record in records]
    listed = [
        _listed(where, record, annotations.videos[header[0]].length)
        for (where, record), header in zip(records, headers, strict=True)
    ]
    ends = np.cumsum([len(one) for one in listed]).tolist()
    rles = _read_all(annotations.videos, headers, listed, [where for where, _ in records], ends)
    areas = segmentations.areas_of(rles).tolist()
    for (video_id, category, score, crowd), one, end in zip(headers, listed, ends, strict=True):
        start = end - len(one)
        masks = {frame: rle for frame, rle in enumerate(rles[start:end]) if rle is not None}
        measured = {frame: areas[start + frame] for frame in masks}
        annotations.sequences[video_id].append(MaskSequence(category, score, crowd, masks, measured))


def _header(
    where: str, record: dict[str, Any], annotations: Annotations, scored: bool
) -> tuple[int, int, float, bool]:
    """Video id, category id, score and crowd flag of one record."""
    video_id = known_id(where, record, "video_id", annotations.videos)
    category = known_id(where, record, "category_id", annotations.categories)
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise FileError(f"{where}: iscrowd must be 0 or 1, got {crowd!r}")
    return video_id, category, score_of(where, record) if scored else 1.0, bool(crowd) and not scored


def _listed(where: str, record: dict[str, Any], length: int) -> list[Any]:
    """The segmentations of one record, one per frame."""
    listed = record.get("segmentations")
    if not isinstance(listed, list) or len(listed) != length:
        got = f"{len(listed)} entries" if isinstance(listed, list) else type(listed).__name__
        raise FileError(
            f"{where}: segmentations must be a list of {length}, one per frame of the video, "
            f"null where absent; got {got}"
        )
    return listed


def _read_all(
    videos: dict[int, Video],
    headers: list[tuple[int, int, float, bool]],
    listed: list[list[Any]],
    wheres: list[str],
    ends: list[int],
) -> list[segmentations.Rle | None]:
    """Read the segmentations of all records at once, which is several times faster than one by one."""

    def describe(index: int) -> str:
        record = bisect.bisect_right(ends, index)
        return f"{wheres[record]}: segmentations[{index - ends[record] + len(listed[record])}]"

    sizes = [
        (videos[header[0]].height, videos[header[0]].width)
        for header, one in zip(headers, listed, strict=True)
        for _ in one
    ]
    return segmentations.read([rle for one in listed for rle in one], sizes, describe)
