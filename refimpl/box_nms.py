"""Non-maximum suppression of boxes, class by class, as the detectors among the rivals use it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.detections import box_overlaps

Array = NDArray[Any]


def suppressed(boxes: Array, scores: Array, labels: Array, threshold: float) -> Array:
    """Return which boxes remain, the best first: none overlaps a better one of its class by more.

    Parameters
    ----------
    boxes : (n, 4)
        x0, y0, x1, y1.
    scores : (n,)
        Of equal scores the first counts as better.
    labels : (n,) int
    threshold : float
        An overlap above it suppresses.
    """
    remaining: list[int] = []
    alive = np.ones(len(boxes), bool)
    for i in np.argsort(-scores, kind="stable"):
        if alive[i]:
            remaining.append(int(i))
            alive &= (box_overlaps(boxes[i : i + 1], boxes)[0] <= threshold) | (labels != labels[i])
    return np.asarray(remaining, np.int64)
