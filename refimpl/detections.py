"""What a network found in one frame, as trackers that use more than kernels take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.association import require_kernels
from refimpl.errors import NonFiniteError, ShapeError

Array = NDArray[Any]


@dataclass(frozen=True)
class Detections:
    """The instances found in one frame; n of them, in the order of their detector, usually by falling score.

    What is None is not known, and the terms of a tracker's score that need it are left out.

    Attributes
    ----------
    embeddings : (n, dim) floating
        What tells instances apart: a kernel, or what a tracker's own head gives.
    scores : (n,) floating or None
        0…1.
    labels : (n,) integer or None
    boxes : (n, 4) floating or None
        x0, y0, x1, y1 in pixels.
    masks : (n, h, w) bool or None

    Raises
    ------
    ShapeError, NonFiniteError
        Not one row for each instance, or not a number.
    """

    embeddings: Array
    scores: Array | None = None
    labels: Array | None = None
    boxes: Array | None = None
    masks: Array | None = None

    def __post_init__(self) -> None:
        require_kernels(self.embeddings, "embeddings")
        dimensions = {"scores": 1, "labels": 1, "boxes": 2, "masks": 3}
        for name, expected in dimensions.items():
            array = getattr(self, name)
            if array is None:
                continue
            if array.ndim != expected or len(array) != len(self):
                raise ShapeError(f"{name} {array.shape} of {len(self)} detections: expected ({len(self)}, …)")
            if not np.isfinite(array).all():
                raise NonFiniteError(f"{name} of detections must be finite")
        if self.boxes is not None and self.boxes.shape[1] != 4:
            raise ShapeError(f"boxes are (n, 4): x0, y0, x1, y1; got {self.boxes.shape}")

    def __len__(self) -> int:
        """The number of instances."""
        return len(self.embeddings)

    def take(self, rows: Array | Sequence[int]) -> Detections:
        """Some of them, or all in another order."""
        rows = np.asarray(rows, np.int64)
        taken: list[Any] = [None if array is None else array[rows] for array in self._arrays()]
        return Detections(*taken)

    def _arrays(self) -> list[Any]:
        return [getattr(self, entry.name) for entry in fields(self)]

    @staticmethod
    def join(parts: Sequence[Detections]) -> Detections:
        """Several one after the other; what one of them lacks, the whole lacks."""
        columns = zip(*(part._arrays() for part in parts), strict=True)
        joined: list[Any] = [
            None if any(one is None for one in each) else np.concatenate(each) for each in columns
        ]
        return Detections(*joined)


def box_overlaps(first: Array, second: Array, last_pixel: float = 0.0, epsilon: float = 0.0) -> Array:
    """Intersection over union of every box with every other.

    Parameters
    ----------
    first, second : (n, 4) and (m, 4)
        x0, y0, x1, y1.
    last_pixel : float
        Added to every width and height: 1 where x1 and y1 are pixels within the box.
    epsilon : float
        Added to the union.

    Returns
    -------
    Array, (n, m) float64
        0 where the union is 0.
    """
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + last_pixel
    common = np.maximum(sides, 0).prod(axis=2)
    areas = [(box[..., 2:] - box[..., :2] + last_pixel).prod(axis=2) for box in (a, b)]
    return _ratio(common, areas[0] + areas[1] - common + epsilon)


def mask_overlaps(first: Array, second: Array, epsilon: float = 0.0) -> Array:
    """Intersection over union of every mask with every other.

    Parameters
    ----------
    first, second : (n, h, w) and (m, h, w) bool
    epsilon : float
        Added to intersection and union.

    Returns
    -------
    Array, (n, m) float64
        0 where both masks are empty and ``epsilon`` is 0.
    """
    pixels = first.shape[1] * first.shape[2]
    a, b = (masks.reshape(len(masks), pixels).astype(np.float64) for masks in (first, second))
    common = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1) - common
    return _ratio(common + epsilon, union + epsilon)


def _ratio(part: Array, whole: Array) -> Array:
    ratio: Array = np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)
    return ratio
