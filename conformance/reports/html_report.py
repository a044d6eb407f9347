"""A verification as one self-contained HTML page, which opens offline."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from conformance.reports.architecture_figure import Box, architecture_figure
from conformance.reports.charts import depth_chart, heat_map, histogram
from conformance.reports.decision_charts import margin_chart, mask_pictures
from conformance.reports.subgraph_figure import subgraph_figures
from refimpl import __version__

if TYPE_CHECKING:
    from conformance.reports.report import Report

TEMPLATE = "report_template.html"
Row = Mapping[str, Any]

DECISIONS = {
    "kept instances": "whether a query’s score is above 0.005, so that it becomes an instance",
    "labels": "which class of an instance has the largest logit",
    "mask pixels": "whether a pixel’s probability is above 0.45, at the masks’ own resolution",
    "boundary pixels": "those of the mask pixels with a neighbour on the other side",
    "track identity": "which query of the next keyframe continues a track",
}
"""Kind of decision → what is decided."""
QUESTIONS = {
    "network": "The candidate does not compute what MobileInst does there. On the tensors it fed that step "
    "itself, the result is further from float64 than rounding explains.",
    "graph": "The runtime does not compute what the candidate’s own graph says there. The model file may be "
    "right.",
    "meaning": "It does not compute what the other graph does there, on the same operands.",
}
"""Question of a fault → what its answer means."""


def html_report(report: Report) -> str:
    """Return the page: verdict, the network as Figure 3, charts, tables, how to reproduce.

    Everything is inside the page, so that it can be mailed or kept as an artefact of CI.
    """
    content = report.to_json()
    leading = report.leading.to_json()
    of_network = report.reference is None
    figure = architecture_figure(leading["steps"], leading["shape"]) if of_network else None
    # A graph judged on its own is compared with no other run: its errors are all introduced.
    rows = leading["steps"] or [{**row, "max_abs_error": None} for row in leading["nodes"]]
    fault = (leading["first_fault"] or {}).get("step")
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            report=content,
            leading=leading,
            figure=figure,
            faulty=_faulty(figure.boxes if figure else [], fault),
            box_of=_box_numbers(figure.boxes if figure else []),
            depth=depth_chart(rows, fault),
            focus=_focus(leading, fault),
            subgraphs=subgraph_figures(leading["subgraphs"]),
            heat_map=heat_map,
            map_is_whole=_map_is_whole,
            histogram=histogram,
            decided=DECISIONS,
            flipped=[item.flipped for item in report.inputs],
            questions=QUESTIONS,
            margin_chart=margin_chart,
            masks=mask_pictures(_first_picture(content["decisions"])),
            version=__version__,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """Return what makes pages, once: it keeps the template that it has compiled."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        shape=shape,
        subscript=subscript,
        shade=shade,
        used=used,
        marked=marked,
        linked=linked,
        label=_label,
    )
    return environment


def _first_picture(decisions: Sequence[Row]) -> Any:
    return next((item["picture"] for item in decisions if item["picture"]), None)


def _focus(leading: Mapping[str, Any], fault: str | None) -> Row | None:
    """Return the row looked at closely: the first fault's, else a failing one, else the most utilised."""
    detailed = [row for row in leading["steps"] + leading["nodes"] if row.get("detail")]
    nodes = (leading["first_fault"] or {}).get("candidate_nodes") or ()
    failing = [row for row in detailed if row["verdict"] == "fail"]
    named = [row for row in failing if row["name"] == fault or row["candidate"] in nodes]
    if named or failing:
        return (named or failing)[0]
    return max(detailed, key=lambda row: float(row["utilisation"] or 0.0), default=None)


def _map_is_whole(row: Row) -> bool:
    """Tell whether the map of a tensor's error has a block for each element of its last two axes."""
    error_map, sizes = row["detail"]["error_map"], (1, 1, *row["shape"])
    return bool(error_map) and (len(error_map), len(error_map[0])) == tuple(sizes[-2:])


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


def used(utilisation: float | None) -> str:
    """Return error / bound in two digits; near 1 rounded away from it, so that it shows which side it is."""
    if utilisation is not None and 0.985 < float(utilisation) < 1.05:
        figure = float(utilisation)
        return "1.0" if figure == 1 else "0.99" if figure < 1 else "1.1"
    return number(utilisation, ".2g")


def marked(text: str) -> Markup:
    """Return a text of the catalogue with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def linked(text: str) -> Markup:
    """Return the source of a fault with the address that ends it as a link."""
    named, scheme, rest = text.partition("https://")
    link = Markup('<a href="{0}">{0}</a>').format(scheme + rest) if rest else Markup("")
    return escape(named) + link


def subscript(text: str) -> Markup:
    """Write the end of a word after an underscore smaller and lower, in SVG."""
    words = []
    for word in text.split(" "):
        base, line, index = word.partition("_")
        words.append(
            escape(base) + (Markup('<tspan class="index" dy="3">{}</tspan>').format(index) if line else "")
        )
    return Markup(" ").join(words)


def shade(utilisation: float | None, failed: bool, inherited: bool = False) -> str:
    """Return the class a box is coloured by."""
    if failed or inherited:
        return "fail" if failed else "inherited"
    if utilisation is None:
        return "none"
    steps = ((0.01, "u0"), (0.1, "u1"), (0.5, "u2"))
    return next((name for limit, name in steps if utilisation <= limit), "u3")


def _label(value: Any) -> str:
    """Return a cell's text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return number(value, ".3g")
    if isinstance(value, list | tuple):
        return ", ".join(map(_label, value))
    return str(value)
