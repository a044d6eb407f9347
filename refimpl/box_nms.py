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
    overlaps = box_overlaps(boxes, boxes) > threshold
    for i in np.argsort(-scores, kind="stable"):
        if not any(overlaps[i, j] and labels[i] == labels[j] for j in remaining):
            remaining.append(int(i))
    return np.asarray(remaining, np.int64)
