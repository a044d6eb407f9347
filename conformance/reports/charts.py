"""The geometry of a report's charts: error against depth, histogram of error / bound, map of the error."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

Row = Mapping[str, Any]

WIDTH, HEIGHT = 1100, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 18, 52
DECADES = 13
INFERNO = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
"""Matplotlib's inferno at six places: its lightness rises evenly, so it reads with any colour vision."""
NOT_FINITE = (0, 200, 255)


@dataclass(frozen=True)
class Mark:
    """One step in the depth chart: where it stands, and the height of each error, None without one."""

    x: float
    introduced: float | None
    propagated: float | None
    failed: bool
    inherited: bool
    row: Row


@dataclass(frozen=True)
class DepthChart:
    """Introduced and propagated error over the steps, on a logarithmic axis; zeros stand on the floor."""

    marks: list[Mark]
    ticks: list[tuple[float, str]]
    sections: list[tuple[str, float, float]]
    propagated_line: str
    column: float
    fault: float | None


def depth_chart(rows: Sequence[Row], fault: str | None) -> DepthChart | None:
    """Lay out the chart of a run's rows, in order; None if nothing was compared."""
    errors = [error for row in rows for error in (row["introduced_error"], row["max_abs_error"])]
    positive = [float(error) for error in errors if error is not None and 0 < float(error) < math.inf]
    if not rows or not positive:
        return None
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 0.01)
    low = max(low, high - DECADES)
    axis = _Axis(low - 1, high)
    column = (WIDTH - LEFT - RIGHT) / len(rows)
    marks = [_mark(row, LEFT + (place + 0.5) * column, axis) for place, row in enumerate(rows)]
    ticks = [
        (axis.height(10.0**power), f"1e{power:+d}")
        for power in range(low, high + 1, max(1, (high - low) // 6))
    ]
    line = " ".join(f"{mark.x:.1f},{mark.propagated:.1f}" for mark in marks if mark.propagated is not None)
    place = next((mark.x for mark in marks if mark.row["name"] == fault), None)
    return DepthChart(marks, [(axis.height(0.0), "0"), *ticks], _sections(rows, column), line, column, place)


@dataclass(frozen=True)
class _Axis:
    """Powers of ten from ``low`` (drawn for 0) to ``high``."""

    low: int
    high: int

    def height(self, error: float) -> float:
        power = math.log10(error) if 0 < error < math.inf else self.high
        # However small, an error does not stand where 0 does.
        share = (
            (min(max(power, self.low + 1), self.high) - self.low) / (self.high - self.low) if error else 0.0
        )
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _mark(row: Row, x: float, axis: _Axis) -> Mark:
    heights = [
        None if error is None else axis.height(float(error))
        for error in (row["introduced_error"], row["max_abs_error"])
    ]
    return Mark(x, heights[0], heights[1], row["verdict"] == "fail", row["verdict"] == "inherited", row)


def _sections(rows: Sequence[Row], column: float) -> list[tuple[str, float, float]]:
    """Return the parts of the network along the axis: name, start and end."""
    sections, start = [], 0
    for name, members in groupby(rows, key=lambda row: _section(row["name"])):
        count = len(list(members))
        sections.append((name, LEFT + start * column, LEFT + (start + count) * column))
        start += count
    # Names only some networks have: with many small parts, labels would cover each other.
    return sections if len(sections) <= 12 else []


def _section(name: str) -> str:
    return name.partition("/")[0].partition(".")[0].replace("_", " ")


@dataclass(frozen=True)
class Histogram:
    """Bars, the axis's labels, the bound's place, the count of the tallest.

    A bar is (x, y, width, height, whether beyond the bound, tooltip).
    """

    bars: list[tuple[float, float, float, float, bool, str]]
    ticks: list[tuple[float, str]]
    bound: float
    highest: int
    width: int = 460
    height: int = 260


def histogram(detail: Mapping[str, Any]) -> Histogram | None:
    """Lay out how many elements use how much of their bound; the bar ∞ errs where no error is allowed."""
    counts, edges = detail["histogram"], detail["edges"]
    total = sum(counts) + detail["unbounded"]
    if not total:
        return None
    used = [place for place, count in enumerate(counts) if count] or [edges.index(0.0)]
    first = min(used[0], edges.index(-1.0))
    last = max(used[-1] + 1, edges.index(1.0))
    bins = [
        (counts[place], edges[place], f"10^{edges[place]:g} … 10^{edges[place + 1]:g}")
        for place in range(first, last)
    ]
    if detail["unbounded"]:
        bins += [(0, edges[last], "-"), (detail["unbounded"], math.inf, "an error where none is allowed")]
    return _bars(bins, edges[first], edges[last])


def _bars(bins: Sequence[tuple[int, float, str]], start: float, end: float) -> Histogram:
    left, bottom, room, tall = 16, 222, 428, 196
    width = room / len(bins)
    highest = max(count for count, _, _ in bins)
    bars = []
    for place, (count, edge, between) in enumerate(bins):
        # A single element of a million must still be seen.
        height = max(2.0, tall * count / highest) if count else 0.0
        bars.append(
            (
                left + place * width + 0.5,
                bottom - height,
                width - 1,
                height,
                edge >= 0,
                f"{count:,} elements: {between}",
            )
        )
    step = max(1, math.ceil((end - start) / 8))
    ticks = [
        (left + (power - start) * 4 * width, f"1e{power:+d}")
        for power in range(math.ceil(start), math.floor(end) + 1, step)
    ]
    if bins[-1][1] == math.inf:
        ticks = [tick for tick in ticks if tick[0] < left + room - 3 * width] + [
            (left + room - width / 2, "∞")
        ]
    return Histogram(bars, ticks, left - start * 4 * width, highest)


@dataclass(frozen=True)
class HeatMap:
    """A picture as a data URI, its size in blocks, and the error its brightest colour stands for."""

    uri: str
    width: int
    height: int
    largest: float
    gradient: str
    not_finite: int


def heat_map(error_map: Sequence[Sequence[float | None]]) -> HeatMap | None:
    """Draw a map of absolute errors, dark for none, bright for the largest, another colour if not finite."""
    if not error_map or not error_map[0]:
        return None
    errors = np.array([[math.nan if error is None else error for error in row] for row in error_map])
    finite = np.isfinite(errors)
    largest = float(errors[finite].max(initial=0.0))
    share = np.where(finite, errors, 0.0) / (largest or 1.0)
    stops = np.linspace(0, 1, len(INFERNO))
    pixels = np.stack([np.interp(share, stops, [colour[c] for colour in INFERNO]) for c in range(3)], axis=-1)
    pixels[~finite] = NOT_FINITE
    height, width = errors.shape
    return HeatMap(data_uri(pixels), width, height, largest, _gradient(), int((~finite).sum()))


def data_uri(pixels: Any) -> str:
    """Return colours (h, w, 3), 0 to 255, as a PNG that a page can hold."""
    stream = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _gradient() -> str:
    colours: Iterable[str] = (f"rgb{colour}" for colour in INFERNO)
    return f"linear-gradient(to right, {', '.join(colours)})"
