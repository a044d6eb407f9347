"""How two result files differ: which decisions, and by what margin."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy  # its parts are loaded at their first use
from numpy.typing import NDArray

from conformance.evaluation import segmentations
from conformance.evaluation.ytvis import (
    MaskSequence,
    PathLike,
    integer_of,
    records_of,
    score_of,
    sequence_iou,
)
from conformance.json_files import read_json
from refimpl.errors import FileError

Array = NDArray[Any]
SAME_INSTANCE = 0.5
"""IoU from which two sequences of the two files are the same instance."""


@dataclass(frozen=True)
class Comparison:
    """Differences between results A and B, matched one-to-one by IoU within each image or video.

    Attributes
    ----------
    matched, only_a, only_b : int
        Instances in both files, and in one only.
    labels_differ, masks_differ, order_differs : int
        Matched instances with another category; with a pixel that differs; with another rank by score.
    pixels_differ : int
        In the matched masks.
    largest_score_difference, smallest_iou : float
        Over the matched instances; 0 and 1 without any.
    highest_unmatched_score : float
        The most confident decision that one file lacks: the margin of the whole difference; 0 if none.
    worst : str
        Where the smallest IoU is.
    """

    matched: int = 0
    only_a: int = 0
    only_b: int = 0
    labels_differ: int = 0
    masks_differ: int = 0
    order_differs: int = 0
    pixels_differ: int = 0
    largest_score_difference: float = 0.0
    smallest_iou: float = 1.0
    highest_unmatched_score: float = 0.0
    worst: str = ""

    @property
    def decisions_differ(self) -> int:
        """Instances that are missing on one side or have another label."""
        return self.only_a + self.only_b + self.labels_differ

    def to_json(self) -> dict[str, Any]:
        """Return the fields and ``decisions_differ`` for a JSON report."""
        return {**asdict(self), "decisions_differ": self.decisions_differ}


def compare_files(first: PathLike, second: PathLike) -> Comparison:
    """Compare two result files; both list RLE masks, of images or of videos.

    Raises
    ------
    FileError
    """
    a, b = _load(first), _load(second)
    total = Comparison()
    for key in sorted(set(a) | set(b)):
        total = _added(total, _compare(f"{key[0]} {key[1]}", a[key], b[key]))
    return total


def _load(path: PathLike) -> defaultdict[tuple[str, int], list[MaskSequence]]:
    """Sequences by ("image_id" or "video_id", id)."""
    document = read_json(path)
    if not isinstance(document, list):
        raise FileError(f"{path}: expected a list of results, got {type(document).__name__}")
    found: defaultdict[tuple[str, int], list[MaskSequence]] = defaultdict(list)
    for where, record in records_of(path, {"": document}, ""):
        key = "video_id" if "video_id" in record else "image_id"
        found[key, integer_of(where, record, key)].append(_sequence(where, record))
    return found


def _sequence(where: str, record: dict[str, Any]) -> MaskSequence:
    listed = record["segmentations"] if "segmentations" in record else [record.get("segmentation")]
    if not isinstance(listed, list):
        raise FileError(f"{where}: segmentations must be a list, got {type(listed).__name__}")
    rles = segmentations.read(listed, [None] * len(listed), lambda frame: f"{where}: segmentations[{frame}]")
    masks = {frame: rle for frame, rle in enumerate(rles) if rle is not None}
    areas = dict(zip(masks, segmentations.areas_of(list(masks.values())).tolist(), strict=True))
    category = integer_of(where, record, "category_id")
    return MaskSequence(category, score_of(where, record), False, masks, areas)


def _compare(where: str, a: list[MaskSequence], b: list[MaskSequence]) -> Comparison:
    """Compare the instances of one image or video."""
    iou = sequence_iou(a, b)
    # Of equal overlaps the one with the same label is the same instance.
    same = np.array([[one.category == other.category for other in b] for one in a]).reshape(iou.shape)
    rows, columns = scipy.optimize.linear_sum_assignment(iou + 1e-6 * same, maximize=True)
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if iou[i, j] >= SAME_INSTANCE]
    differing = [_differing_pixels(a[i], b[j], iou[i, j]) for i, j in pairs]
    left = [a[i].score for i in set(range(len(a))) - {i for i, _ in pairs}]
    right = [b[j].score for j in set(range(len(b))) - {j for _, j in pairs}]
    smallest = min((float(iou[pair]) for pair in pairs), default=1.0)
    return Comparison(
        matched=len(pairs),
        only_a=len(left),
        only_b=len(right),
        labels_differ=sum(a[i].category != b[j].category for i, j in pairs),
        masks_differ=sum(pixels > 0 for pixels in differing),
        order_differs=_order_differs(np.array([[a[i].score, b[j].score] for i, j in pairs])),
        pixels_differ=sum(differing),
        largest_score_difference=max((abs(a[i].score - b[j].score) for i, j in pairs), default=0.0),
        smallest_iou=smallest,
        highest_unmatched_score=max([*left, *right], default=0.0),
        worst=where if smallest < 1 else "",
    )


def _differing_pixels(a: MaskSequence, b: MaskSequence, iou: float) -> int:
    """Union minus intersection; with both areas it follows from the IoU."""
    areas = sum(a.areas.values()) + sum(b.areas.values())
    return round(areas * (1 - iou) / (1 + iou))


def _order_differs(scores: Array) -> int:
    """Pairs whose rank by score differs between the files, (pairs, 2)."""
    if not len(scores):
        return 0
    ranks = [np.argsort(np.argsort(-column, kind="stable")) for column in scores.T]
    return int((ranks[0] != ranks[1]).sum())


def _added(total: Comparison, part: Comparison) -> Comparison:
    """Counts added, extremes taken."""
    worse = part if part.smallest_iou < total.smallest_iou else total
    added = {
        name: value + getattr(part, name) for name, value in asdict(total).items() if isinstance(value, int)
    }
    return Comparison(
        **added,
        largest_score_difference=max(total.largest_score_difference, part.largest_score_difference),
        smallest_iou=worse.smallest_iou,
        highest_unmatched_score=max(total.highest_unmatched_score, part.highest_unmatched_score),
        worst=worse.worst,
    )
