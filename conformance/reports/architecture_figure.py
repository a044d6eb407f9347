"""The network drawn as the paper's Figure 3, each box holding the steps that compute it.

Only geometry: which boxes, where, and what each stands for. The page's template draws them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]
Point = tuple[float, float]

WIDTH = 1200
BOX_HEIGHT = 38
ROW_HEIGHT = 64
LEVELS = {8: "X_3", 16: "X_4", 32: "X_5", 64: "X_6"}
"""How many times smaller than the input → the backbone's output at that size."""
COLUMNS = {
    "lateral": 420,
    "enhancer.0": 530,
    "top_down": 640,
    "bottom_up": 750,
    "enhancer.1": 860,
    "output": 970,
}
FUSION_LABELS = {"lateral": "1×1", "top_down": "C", "bottom_up": "C", "output": "C"}
UNIT_WIDTH = 78
DECODERS = 396
"""Where the decoders begin, right of the backbone."""


@dataclass
class Box:
    """A part of the network.

    Attributes
    ----------
    label
        What the paper calls it.
    prefix
        Of the names of its steps.
    x, y, width
        Its place.
    steps
        The comparisons of its steps, in order.
    """

    label: str
    prefix: str
    x: float
    y: float
    width: float = UNIT_WIDTH
    height: float = BOX_HEIGHT
    steps: list[Row] = field(default_factory=list)

    @property
    def left(self) -> Point:
        """Middle of the left side."""
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> Point:
        """Middle of the right side."""
        return self.x + self.width, self.y + self.height / 2

    @property
    def top(self) -> Point:
        """Middle of the upper side."""
        return self.x + self.width / 2, self.y

    @property
    def bottom(self) -> Point:
        """Middle of the lower side."""
        return self.x + self.width / 2, self.y + self.height

    @property
    def utilisation(self) -> float | None:
        """The largest error / bound of its steps; None if none was judged on operands of its own."""
        judged = (row for row in self.steps if row["verdict"] != "inherited")
        return max(
            (float(row["utilisation"]) for row in judged if row["utilisation"] is not None), default=None
        )

    @property
    def failed(self) -> bool:
        """Whether any of its steps fails."""
        return self.count("fail") > 0

    def count(self, verdict: str) -> int:
        """Return how many of its steps have a verdict."""
        return sum(row["verdict"] == verdict for row in self.steps)


@dataclass
class Figure:
    """Boxes, the panels around them, arrows (a polyline each, dashed or not) and labels between them."""

    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    panels: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    arrows: list[tuple[list[Point], bool]] = field(default_factory=list)
    labels: list[tuple[str, float, float]] = field(default_factory=list)

    def add(
        self, label: str, prefix: str, steps: Sequence[Row], x: float, y: float, width: float = UNIT_WIDTH
    ) -> Box:
        """Add a box."""
        box = Box(label, prefix, x, y, width, steps=list(steps))
        self.boxes.append(box)
        return box

    def connect(self, *points: Point, dashed: bool = False) -> None:
        """Draw an arrow through the points."""
        self.arrows.append((list(points), dashed))


def architecture_figure(steps: Sequence[Row], input_shape: Sequence[int]) -> Figure | None:
    """Lay out the network whose steps these are, or return None if there are none.

    Parameters
    ----------
    steps
        Comparisons as in the JSON of a report, in order of computation.
    input_shape
        (B, 3, H, W).
    """
    if not steps:
        return None
    figure, parts = Figure(), _Parts(steps)
    levels = _backbone(figure, parts.take_stages("backbone"), input_shape[2])
    mask_features = _mask_decoder(figure, parts, levels)
    _instance_decoder(figure, parts, levels, mask_features)
    _remainder(figure, parts)
    figure.height += 16
    return figure


class _Parts:
    """Steps not yet in a box."""

    def __init__(self, steps: Sequence[Row]) -> None:
        self.steps = list(steps)

    def take(self, *prefixes: str) -> list[Row]:
        taken = [row for row in self.steps if any(_belongs(row["name"], prefix) for prefix in prefixes)]
        self.steps = [row for row in self.steps if not any(row is other for other in taken)]
        return taken

    def take_stages(self, prefix: str) -> dict[str, list[Row]]:
        return stages_of(self.take(prefix) if prefix else self.take(*{row["name"] for row in self.steps}))


def _belongs(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith((f"{prefix}.", f"{prefix}/"))


DEEP = ["backbone", "bottom_up"], ["backbone", "body"]
"""Where detectron2's and torchvision's names have one place more before a backbone's parts."""


def stages_of(steps: Iterable[Row]) -> dict[str, list[Row]]:
    """Group steps by stage, such as ``backbone.tpm.layer3``, ``mask_decoder.output.1``"""
    stages: dict[str, list[Row]] = {}
    for row in steps:
        parts = row["name"].partition("/")[0].split(".")
        deep = "transformer_blocks" in parts or parts[:2] in DEEP
        depth = 2 if parts[0] == "instance_decoder" else 4 if deep else 3
        stages.setdefault(".".join(parts[:depth]), []).append(row)
    return stages


def _backbone(figure: Figure, stages: Mapping[str, list[Row]], input_height: int) -> dict[int, Point]:
    """Draw a row of boxes for each resolution; return where each ends, by its reduction of the input."""
    rows: dict[int, list[tuple[str, list[Row]]]] = {}
    reduction = 1
    for name, steps in stages.items():
        heights = [row["shape"][2] for row in steps if len(row["shape"]) == 4 and "transformer" not in name]
        reduction = _power_of_two(input_height / heights[-1]) if heights else reduction
        rows.setdefault(reduction, []).append((name, steps))
    exits, y = {}, 52.0
    previous: Box | None = None
    for reduction in sorted(rows):
        for line in _lines(rows[reduction]):
            boxes = _line(figure, line, y)
            _chain(figure, boxes, previous)
            previous = boxes[-1]
            y += ROW_HEIGHT
        figure.labels.append((f"1/{reduction}", 40, y - ROW_HEIGHT + BOX_HEIGHT / 2 + 4))
        exits[reduction] = (336.0, y - ROW_HEIGHT + BOX_HEIGHT / 2)
    if rows:
        figure.panels.append(("Backbone", 16, 16, 320, y - 30))
        figure.labels += [(LEVELS[size], 358, exits[size][1] + 5) for size in exits if size in LEVELS]
        figure.height = y
    return exits


def _power_of_two(ratio: float) -> int:
    # Sizes are rounded up by strided convolutions, so the ratio is only near a power of two.
    return 1 << max(0, round(math.log2(ratio)))


def _lines(stages: list[tuple[str, list[Row]]]) -> list[list[tuple[str, list[Row]]]]:
    return [stages[start : start + 5] for start in range(0, len(stages), 5)]


def _line(figure: Figure, line: list[tuple[str, list[Row]]], y: float) -> list[Box]:
    gap, room = 7, 270
    width = min(76.0, (room - gap * (len(line) - 1)) / len(line))
    return [
        figure.add(_short(name), name, steps, 60 + (width + gap) * place, y, width)
        for place, (name, steps) in enumerate(line)
    ]


def _short(name: str) -> str:
    *before, last = name.replace("_", " ").split(".")
    return (
        f"{before[-1].removesuffix('s').removeprefix('transformer ')} {last}"
        if last.isdigit() and before
        else last
    )


def _chain(figure: Figure, boxes: list[Box], previous: Box | None) -> None:
    for one, other in pairwise(boxes):
        figure.connect(one.right, other.left)
    if previous is not None:
        start, end = previous.bottom, boxes[0].top
        middle = (start[1] + end[1]) / 2
        figure.connect(start, (start[0], middle), (end[0], middle), end)


def _mask_decoder(figure: Figure, parts: _Parts, levels: Mapping[int, Point]) -> Point | None:
    """Draw the fusion of X3, X4 and X5; return where the mask features leave."""
    rows = [levels.get(size, (0.0, 52 + ROW_HEIGHT * place)) for place, size in enumerate((8, 16, 32), 2)]
    tops = [point[1] - BOX_HEIGHT / 2 for point in rows]
    units: dict[str, Box] = {}
    for column, x in COLUMNS.items():
        for level in [2] if column.startswith("enhancer") else [0, 1, 2]:
            name = column if column.startswith("enhancer") else f"{column}.{level}"
            steps = parts.take(f"mask_decoder.{name}")
            if steps:
                label = "enhancer" if column.startswith("enhancer") else FUSION_LABELS[column]
                units[name] = figure.add(label, f"mask_decoder.{name}", steps, x, tops[level])
    if "output.0" not in units:
        return _baseline_mask_decoder(figure, parts, units)
    title = "Semantic-enhanced mask decoder" if "enhancer.0" in units else "Mask decoder"
    figure.panels.append((title, DECODERS, tops[0] - 48, 788, tops[2] - tops[0] + 126))
    _fuse(figure, units, rows)
    _enhance(figure, units, levels.get(64))
    leaves = units["output.0"].right
    figure.labels.append(("X_mask", leaves[0] + 62, leaves[1] + 5))
    figure.connect(leaves, (leaves[0] + 36, leaves[1]))
    for column, text in (
        ("lateral", "lateral"),
        ("top_down", "top-down"),
        ("bottom_up", "bottom-up"),
        ("output", "top-down"),
    ):
        figure.labels.append((text, COLUMNS[column] + UNIT_WIDTH / 2, tops[0] - 10))
    figure.height = max(figure.height, tops[2] + 90)
    return leaves[0] + 62, leaves[1]


def _baseline_mask_decoder(figure: Figure, parts: _Parts, units: Mapping[str, Box]) -> Point | None:
    """Draw another mask decoder than the paper's own as a grid."""
    figure.boxes = [box for box in figure.boxes if all(box is not unit for unit in units.values())]
    stages = {box.prefix: box.steps for box in units.values()} | parts.take_stages("mask_decoder")
    if not stages:
        return None
    _grid(figure, "Mask decoder", stages, DECODERS, 16)
    return None


def _fuse(figure: Figure, units: Mapping[str, Box], rows: Sequence[Point]) -> None:
    for level in (0, 1, 2):
        present = [units[name] for name in _order(level) if name in units]
        if present:
            figure.connect((rows[level][0] + 40, rows[level][1]), present[0].left)
        for one, other in pairwise(present):
            figure.connect(one.right, other.left)
    for column, upwards in (("top_down", True), ("bottom_up", False), ("output", True)):
        for level in (0, 1):
            upper, lower = units.get(f"{column}.{level}"), units.get(f"{column}.{level + 1}")
            if upper and lower:
                figure.connect(*((lower.top, upper.bottom) if upwards else (upper.bottom, lower.top)))


def _order(level: int) -> list[str]:
    """Return the units a level passes through."""
    names = [f"lateral.{level}", f"top_down.{level}", f"bottom_up.{level}", f"output.{level}"]
    return [names[0], "enhancer.0", names[1], names[2], "enhancer.1", names[3]] if level == 2 else names


def _enhance(figure: Figure, units: Mapping[str, Box], x6: Point | None) -> None:
    """Bring X6 to the enhancers."""
    for name in ("enhancer.0", "enhancer.1"):
        if name in units and x6:
            box = units[name]
            bus = box.y + box.height + 20
            figure.connect((380, x6[1]), (380, bus), (box.bottom[0], bus), box.bottom, dashed=True)


def _instance_decoder(
    figure: Figure, parts: _Parts, levels: Mapping[int, Point], mask_features: Point | None
) -> None:
    """Draw the dual decoder, the heads and the product with the mask features."""
    if not any(_belongs(row["name"], "instance_decoder") for row in parts.steps):
        return
    above = max((y + height for _, x, y, _, height in figure.panels if x == DECODERS), default=0.0)
    middle = max(levels.get(64, (0.0, 0.0))[1], above + 76)
    boxes = _decoder_boxes(figure, parts, middle)
    figure.panels.append(("Dual transformer instance decoder", DECODERS, middle - 58, 788, 208))
    figure.height = max(figure.height, middle + 150)
    _global_features(figure, boxes, levels.get(64))
    _queries(figure, boxes)
    _heads(figure, boxes)
    _local_features(figure, boxes)
    if "masks" in boxes and mask_features:
        figure.connect((mask_features[0], mask_features[1] + 12), (mask_features[0], boxes["masks"].y))


def _global_features(figure: Figure, boxes: Mapping[str, Box], x6: Point | None) -> None:
    if "global_proj" in boxes and x6:
        end = boxes["global_proj"].left
        figure.connect((x6[0] + 40, x6[1]), (380, x6[1]), (380, end[1]), end)


def _heads(figure: Figure, boxes: Mapping[str, Box]) -> None:
    """Connect what the queries pass through: projection, decoders, heads, masks."""
    path = [boxes[name] for name in ("global_proj", "global", "local") if name in boxes]
    for one, other in pairwise(path):
        figure.connect(one.right, other.left)
    for name in ("class", "objectness", "kernel"):
        if name in boxes and path:
            start, end = path[-1].right, boxes[name].left
            figure.connect(start, (start[0] + 18, start[1]), (start[0] + 18, end[1]), end)
    if "masks" in boxes and "kernel" in boxes:
        figure.connect(boxes["kernel"].right, boxes["masks"].left)


def _decoder_boxes(figure: Figure, parts: _Parts, middle: float) -> dict[str, Box]:
    places: dict[str, tuple[str, tuple[str, ...], float, float, float]] = {
        "global_proj": ("project", ("instance_decoder.global_proj",), 420, middle, UNIT_WIDTH),
        "initial": ("queries Q", ("instance_decoder.initial_queries",), 420, middle + 90, UNIT_WIDTH),
        "global": ("global decoder", ("instance_decoder.global_decoder",), 530, middle, 112),
        "local_features": ("pool → X_L", ("instance_decoder.local_features",), 690, middle + 90, 112),
        "local": ("local decoder", ("instance_decoder.local_decoder",), 690, middle, 112),
        "class": ("class", ("instance_decoder.class_head",), 850, middle - 26, 90),
        "objectness": ("objectness", ("instance_decoder.objectness_head",), 850, middle + 32, 90),
        "kernel": ("kernels", ("instance_decoder.kernel_head",), 850, middle + 90, 90),
        "masks": ("masks K·X_mask", ("masks",), 1040, middle + 90, 124),
    }
    boxes = {}
    for key, (label, prefixes, x, y, width) in places.items():
        steps = parts.take(*prefixes)
        if steps:
            boxes[key] = figure.add(label, prefixes[0], steps, x, y, width)
    return boxes


def _queries(figure: Figure, boxes: Mapping[str, Box]) -> None:
    """Bring the object queries to the first decoder, from below, or from the left of a local one."""
    first = boxes.get("global") or boxes.get("local")
    if first is None:
        return
    below = "global" in boxes
    start = (500.0, first.y + 109 if below else first.left[1])
    if "initial" in boxes:
        start = boxes["initial"].right
    else:
        figure.labels.append(("queries Q", 460, start[1] + 5))
    corner = (first.bottom[0], start[1]) if below else (start[0] + 20, first.left[1])
    figure.connect(start, corner, first.bottom if below else first.left)


def _local_features(figure: Figure, boxes: Mapping[str, Box]) -> None:
    if "local_features" in boxes:
        box = boxes["local_features"]
        if "local" in boxes:
            figure.connect(box.top, boxes["local"].bottom)
        figure.labels.append(("from X_mask", box.bottom[0], box.bottom[1] + 15))


def _remainder(figure: Figure, parts: _Parts) -> None:
    stages = parts.take_stages("")
    if stages:
        _grid(
            figure,
            "Other steps",
            stages,
            DECODERS if figure.height else 16,
            16 if len(figure.panels) == 1 else figure.height + 16,
        )


def _grid(figure: Figure, title: str, stages: Mapping[str, list[Row]], left: float, top: float) -> None:
    width, gap = 112, 18
    columns = int((WIDTH - 16 - left - gap) // (width + gap))
    for place, (name, steps) in enumerate(stages.items()):
        line, column = divmod(place, columns)
        figure.add(
            _short(name),
            name,
            steps,
            left + gap + column * (width + gap),
            top + 36 + line * (BOX_HEIGHT + gap),
            width,
        )
    height = 36 + -(-len(stages) // columns) * (BOX_HEIGHT + gap)
    figure.panels.append((title, left, top, WIDTH - 16 - left, height))
    figure.height = max(figure.height, top + height)
