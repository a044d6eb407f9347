"""The pictures of decisions in a report: margins beside the allowed error, and masks with their flips."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.reports.charts import data_uri

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 10, 290, 30, 112
SERIES = ("agreed", "tied", "flipped")

OUTSIDE, INSIDE, DIMMED = (24, 28, 34), (214, 222, 232), (92, 102, 114)
TIED, FLIPPED = (255, 190, 60), (255, 72, 56)
REFERENCE = {"#": INSIDE, "-": INSIDE, "<": INSIDE}
CANDIDATE = {"#": INSIDE, "+": INSIDE, ">": INSIDE}
FLIPS = {"#": DIMMED, "-": FLIPPED, "+": FLIPPED, "<": TIED, ">": TIED}


@dataclass(frozen=True)
class MarginChart:
    """Bars, the axis's labels, and where margin and allowed error are equal.

    A bar is (x, y, width, height, series, tooltip).
    """

    bars: list[tuple[float, float, float, float, str, str]]
    ticks: list[tuple[float, str]]
    allowed: float
    highest: int


def margin_chart(histogram: Mapping[str, Any] | None) -> MarginChart | None:
    """Lay out how many decisions have what margin; flips stand on ties, ties on what agrees."""
    if histogram is None:
        return None
    edges = histogram["edges"]
    totals = [sum(counts) for counts in zip(*(histogram[name] for name in SERIES), strict=True)]
    used = [place for place, count in enumerate(totals) if count]
    first, last = min(used[0], edges.index(-1.0)), max(used[-1] + 1, edges.index(1.0))
    axis = _Axis(edges[first], edges[last], max(totals))
    bars = [bar for place in range(first, last) for bar in _stack(histogram, place, axis)]
    decades = range(math.ceil(edges[first]), math.floor(edges[last]) + 1)
    step = 1 if len(decades) < 5 else 2
    ticks = [
        (axis.x(power), "1" if power == 0 else f"1e{power:+d}") for power in decades if power % step == 0
    ]
    return MarginChart(bars, ticks, axis.x(0.0), max(totals))


@dataclass(frozen=True)
class _Axis:
    """Powers of ten from ``low`` to ``high``, and the count the tallest bar stands for."""

    low: float
    high: float
    most: int

    def x(self, power: float) -> float:
        return LEFT + (power - self.low) / (self.high - self.low) * (RIGHT - LEFT)

    def height(self, count: int) -> float:
        # A single decision of thousands must still be seen.
        return max(2.5, (BOTTOM - TOP) * count / self.most)


def _stack(
    histogram: Mapping[str, Any], place: int, axis: _Axis
) -> list[tuple[float, float, float, float, str, str]]:
    left, right = histogram["edges"][place : place + 2]
    bars, bottom = [], float(BOTTOM)
    for name in SERIES:
        count = histogram[name][place]
        if count:
            height = axis.height(count)
            bottom -= height
            said = f"{count:,} {name}: margin 10^{left:g} … 10^{right:g} × the allowed error"
            bars.append((axis.x(left) + 0.5, bottom, axis.x(right) - axis.x(left) - 1, height, name, said))
    return bars


@dataclass(frozen=True)
class MaskPictures:
    """The reference's mask, the candidate's, and what differs, as data URIs; their size in pixels."""

    reference: str
    candidate: str
    flips: str
    width: int
    height: int
    tied: int
    flipped: int


def mask_pictures(picture: Mapping[str, Any] | None) -> MaskPictures | None:
    """Draw one instance's mask beside the candidate's; None without one."""
    if picture is None or not picture["rows"]:
        return None
    rows = picture["rows"]
    text = "".join(rows)
    reference, candidate, flips = (_drawn(rows, colours) for colours in (REFERENCE, CANDIDATE, FLIPS))
    tied, flipped = (sum(map(text.count, marks)) for marks in ("<>", "-+"))
    return MaskPictures(reference, candidate, flips, len(rows[0]), len(rows), tied, flipped)


def _drawn(rows: list[str], colours: Mapping[str, tuple[int, int, int]]) -> str:
    return data_uri(np.array([[colours.get(mark, OUTSIDE) for mark in row] for row in rows]))
