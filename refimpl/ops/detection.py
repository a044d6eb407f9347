"""What detectors end with: of boxes that overlap, the one of the highest score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from refimpl.ops.operation import Array, Trait, operation


@operation("NonMaxSuppression", Trait.ROUNDS)
def non_max_suppression(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: ArrayLike | None = None,
    iou_threshold: ArrayLike | None = None,
    score_threshold: ArrayLike | None = None,
    *,
    center_point_box: int = 0,
) -> Array:
    """Return which boxes are left once those that overlap one of a higher score are taken away.

    Parameters
    ----------
    boxes : array (N, boxes, 4)
        Two opposite corners, (y, x, y, x); with ``center_point_box`` centre, width and height.
    scores : array (N, classes, boxes)
    max_output_boxes_per_class : integer, optional
        None is 0: no boxes.
    iou_threshold : number, optional
        What overlaps more is taken away; None is 0.
    score_threshold : number, optional
        Only boxes of a higher score are considered; None: all.

    Returns
    -------
    array (left, 3), int64
        Image, class and box, by image and class, and then from the highest score down.

    Source: ONNX NonMaxSuppression.
    """
    most = _scalar(max_output_boxes_per_class, 0)
    chosen = [
        (image, kind, box)
        for image, of_image in enumerate(scores)
        for kind, score in enumerate(of_image)
        for box in _left(
            _corners(boxes[image], center_point_box),
            _candidates(score, score_threshold),
            int(most),
            _scalar(iou_threshold, 0),
        )
    ]
    return np.asarray(chosen, np.int64).reshape(-1, 3)


def _scalar(value: ArrayLike | None, default: float) -> float:
    return default if value is None or not np.size(value) else np.asarray(value).reshape(-1)[0]


def _candidates(score: Array, threshold: ArrayLike | None) -> Array:
    """Return the boxes in order of their score, the first of equals first."""
    order = np.argsort(-score, kind="stable")
    return order if threshold is None else order[score[order] > _scalar(threshold, 0)]


def _corners(boxes: Array, centred: int) -> tuple[Array, Array]:
    """Return the lesser and the greater corners of boxes."""
    if centred:
        half = boxes[:, 2:] / 2
        return boxes[:, :2] - half, boxes[:, :2] + half
    return np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])


def _left(corners: tuple[Array, Array], waiting: Array, most: int, threshold: float) -> list[int]:
    low, high = corners
    area = np.prod(high - low, axis=1)
    chosen: list[int] = []
    while len(waiting) and len(chosen) < most:
        best, waiting = int(waiting[0]), waiting[1:]
        chosen.append(best)
        sides = np.minimum(high[best], high[waiting]) - np.maximum(low[best], low[waiting])
        common = np.prod(np.maximum(sides, 0), axis=1)
        union = area[best] + area[waiting] - common
        overlap = np.divide(common, union, out=np.zeros_like(common), where=(common > 0) & (union > 0))
        waiting = waiting[~((overlap > threshold) & (common > 0))]
    return chosen
