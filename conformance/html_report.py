"""A verification as one self-contained HTML page, which opens offline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from conformance.architecture_figure import Box, architecture_figure
from conformance.charts import depth_chart, heat_map, histogram
from conformance.report import Report
from refimpl import __version__

TEMPLATE = "report_template.html"
Row = Mapping[str, Any]

SECTIONS = {
    "decisions": "Decisions and margins",
    "explanation": "Explanation",
    "envelope": "Noise envelope",
}
"""Parts of an input's report that are shown as they are, where it has them."""


def html_report(report: Report) -> str:
    """Return the page: verdict, the network as Figure 3, charts, tables, how to reproduce.

    Everything is inside the page, so that it can be mailed or kept as an artefact of CI.
    """
    content = report.to_json()
    leading = report.leading.to_json()
    figure = architecture_figure(leading["steps"], leading["shape"])
    # A graph judged on its own is compared with no other run: its errors are all introduced.
    rows = leading["steps"] or [{**row, "max_abs_error": None} for row in leading["nodes"]]
    fault = (leading["first_fault"] or {}).get("step")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, shape=shape, subscript=subscript, shade=shade, kind=_kind, label=_label
    )
    return environment.get_template(TEMPLATE).render(
        report=content,
        leading=leading,
        figure=figure,
        faulty=_faulty(figure.boxes if figure else [], fault),
        box_of=_box_numbers(figure.boxes if figure else []),
        depth=depth_chart(rows, fault),
        focus=_focus(leading, fault),
        heat_map=heat_map,
        histogram=histogram,
        sections={title: leading[key] for key, title in SECTIONS.items() if leading.get(key)},
        version=__version__,
    )


def _focus(leading: Mapping[str, Any], fault: str | None) -> Row | None:
    """Return the row looked at closely: the first fault's, else a failing one, else the most utilised."""
    detailed = [row for row in leading["steps"] + leading["nodes"] if row.get("detail")]
    nodes = (leading["first_fault"] or {}).get("candidate_nodes") or ()
    failing = [row for row in detailed if row["verdict"] == "fail"]
    named = [row for row in failing if row["name"] == fault or row["candidate"] in nodes]
    if named or failing:
        return (named or failing)[0]
    return max(detailed, key=lambda row: float(row["utilisation"] or 0.0), default=None)


def _faulty(boxes: Sequence[Box], fault: str | None) -> int | None:
    holding = (place for place, box in enumerate(boxes) if any(row["name"] == fault for row in box.steps))
    return next(holding, None)


def _box_numbers(boxes: Sequence[Box]) -> dict[str, int]:
    return {row["name"]: place for place, box in enumerate(boxes) for row in box.steps}


def number(value: Any, style: str = ".2e") -> str:
    """Return a figure as a reader wants it: ``–`` for none, ``∞`` for what JSON holds as text."""
    if value is None:
        return "–"
    figure = float(value)
    if not math.isfinite(figure):
        return "∞" if figure > 0 else str(figure)
    return "0" if figure == 0 else format(figure, style)


def shape(sizes: Sequence[int]) -> str:
    """Return ``1×256×40×80``."""
    return "×".join(map(str, sizes)) or "scalar"


def subscript(text: str) -> Markup:
    """Write the end of a word after an underscore smaller and lower, in SVG."""
    words = []
    for word in text.split(" "):
        base, line, index = word.partition("_")
        words.append(
            escape(base) + (Markup('<tspan class="index" dy="3">{}</tspan>').format(index) if line else "")
        )
    return Markup(" ").join(words)


def shade(utilisation: float | None, failed: bool) -> str:
    """Return the class a box is coloured by."""
    if failed:
        return "fail"
    if utilisation is None:
        return "none"
    steps = ((0.01, "u0"), (0.1, "u1"), (0.5, "u2"))
    return next((name for limit, name in steps if utilisation <= limit), "u3")


def _kind(value: Any) -> str:
    """Tell the template how to show a section: ``table``, ``pairs``, ``list`` or ``text``."""
    if isinstance(value, Mapping):
        return "pairs"
    if isinstance(value, list | tuple):
        return "table" if value and all(isinstance(item, Mapping) for item in value) else "list"
    return "text"


def _label(value: Any) -> str:
    """Return a cell's text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return number(value, ".3g")
    if isinstance(value, list | tuple):
        return ", ".join(map(_label, value))
    return str(value)
