"""A closer look at one tensor: where its error is and how much of the bound its elements use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from conformance.bounds.worst_element import absolute_error, utilisation
from conformance.reports.report import Comparison, Detail
from refimpl.ops.operation import Array

MAP_SIZE = 64
HISTOGRAM_EDGES = tuple(-6 + quarter / 4 for quarter in range(49))
"""log₁₀(error / bound), in quarters of a decade."""


def detail_of(name: str, values: Array, truth: Array, bound: Array | float) -> Detail:
    """Return where the error of a tensor is, in at most 64×64 blocks, and the histogram of error / bound."""
    error = absolute_error(values, truth)
    ratio = utilisation(error, bound)
    exact = int((error == 0).sum())
    unbounded = int(np.isposinf(ratio).sum())
    positive = ratio[(ratio > 0) & np.isfinite(ratio)]
    edges = HISTOGRAM_EDGES
    counts, _ = np.histogram(np.log10(positive).clip(edges[0], edges[-1]), bins=edges)
    return Detail(name, _error_map(error), exact, [int(count) for count in counts], list(edges), unbounded)


def _error_map(error: Array) -> list[list[float | None]]:
    if not error.size:
        return [[0.0]]
    planes = error.reshape(-1, *_plane_shape(error.shape))
    plane = planes.max(axis=0, initial=0.0)
    for axis in (0, 1):
        plane = _shrunk(plane, axis)
    return [[_rounded(value) for value in row] for row in plane.tolist()]


def _rounded(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None


def _plane_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = (1, 1, *shape)[-2:]
    return height, width


def _shrunk(plane: Array, axis: int) -> Array:
    """Keep the largest of each block, so that a single wrong element stays visible."""
    size = plane.shape[axis]
    if size <= MAP_SIZE:
        return plane
    return np.maximum.reduceat(plane, np.arange(MAP_SIZE) * size // MAP_SIZE, axis=axis)


@dataclass
class Spotlight:
    """Keeps the detail of the tensor a reader asks about: the first to fail, else the most utilised."""

    failing: dict[str, Detail] = field(default_factory=dict)
    passing: Callable[[], Detail] | None = None
    highest: float = -1.0

    def show(self, name: str, values: Array, truth: Array, bound: Array | float, reached: float) -> None:
        """Look at a tensor whose largest error / bound is ``reached``; above 1, or infinite, it fails."""
        if reached > 1:
            self.failing[name] = detail_of(name, values, truth, bound)
        elif not self.failing and reached > self.highest:
            self.highest, self.passing = reached, partial(detail_of, name, values, truth, bound)

    def placed(self, rows: Sequence[Comparison]) -> list[Comparison]:
        """Return the rows, the one looked at with its detail."""
        first = next((row.name for row in rows if row.name in self.failing), None)
        passing = self.passing() if first is None and self.passing else None
        detail = passing if first is None else self.failing[first]
        shown = detail.tensor if detail else None
        return [replace(row, detail=detail) if row.name == shown else row for row in rows]
