"""Drawings for the chapters: what was measured here beside what the paper says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conformance.teaching.clip import SPEAKING, ages, output, query_scores
from conformance.teaching.lesson import clip, iou, speaking
from conformance.teaching.results import leading, rows
from conformance.teaching.without import without_enhancer

WIDTH, LEFT = 640, 230
OURS, PAPER = "#0072B2", "#E69F00"
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
    'font-size="13"><rect width="{width}" height="{height}" fill="#fff"/>'
)
TABLES = (
    ("max 8×8", "| 20 queries, max 8×8 |", 29.8),
    ("average 8×8", "| average 8×8 |", 29.4),
    ("no pooling", "| no pooling |", 30.7),
    ("global-local, video", "| global-local, short, without |", 28.8),
    ("local-local, video", "| local-local, short, without |", 28.1),
)
"""What is compared, its row of the results page, and the paper's AP (Tables 4 and 7, T = 1)."""


def decoders() -> str:
    """Return bars of our AP, read from the results page, beside the paper's."""
    bars = []
    for place, (name, begin, paper) in enumerate(TABLES):
        ours, y = leading(rows(begin)[0]), 34 + 46 * place
        bars.append(f'<text x="{LEFT - 8}" y="{y + 20}" text-anchor="end">{name}</text>')
        bars += [
            _bar(value, y + 18 * i, colour)
            for i, (value, colour) in enumerate([(ours, OURS), (paper, PAPER)])
        ]
    said = f'<text x="8" y="18">AP: <tspan fill="{OURS}">ours, rendered scenes</tspan>, '
    said += '<tspan fill="#8a5a00">the paper’s, COCO and YouTube-VIS</tspan></text>'
    return _drawing(34 + 46 * len(TABLES), [said, *bars])


def _bar(value: float, y: float, colour: str) -> str:
    length = (WIDTH - LEFT - 60) * value / 40
    number = f'<text x="{LEFT + length + 6:.1f}" y="{y + 13}">{value}</text>'
    return f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="16" fill="{colour}"/>{number}'


def reuse() -> str:
    """Return the curve of IoU against the age of a kernel, measured on the chapters' clip."""
    measured = ages(clip())
    last = measured[-1][0]
    points = [(60 + 540 * age / last, 30 + 200 * (1 - iou) / 0.2) for age, iou, _ in measured]
    marks = [
        f'<line x1="60" x2="600" y1="{30 + 50 * i}" y2="{30 + 50 * i}" stroke="#ddd"/>'
        f'<text x="12" y="{34 + 50 * i}">{1 - 0.05 * i:.2f}</text>'
        for i in range(5)
    ]
    ends = [f'<text x="60" y="254">age 0</text><text x="560" y="254">age {last}</text>']
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    curve = f'<polyline points="{line}" fill="none" stroke="{OURS}" stroke-width="2.5"/>'
    return _drawing(270, ['<text x="12" y="16">IoU with the fresh mask</text>', *marks, *ends, curve])


def one_to_one() -> str:
    """Return the queries' scores, greatest first, and where drawing begins."""
    scores = np.sort(query_scores(clip().keyframe.recording))[::-1]
    bars = [
        f'<rect x="{46 + 29 * place}" y="{230 - 200 * score:.1f}" width="23" height="{200 * score:.1f}" '
        f'fill="{OURS if score > SPEAKING else "#999"}"/>'
        for place, score in enumerate(scores)
    ]
    height = 230 - 200 * SPEAKING
    line = f'<line x1="40" x2="630" y1="{height}" y2="{height}" stroke="#B35000" stroke-dasharray="5 4"/>'
    said = '<text x="46" y="18">score of every query, greatest first; the line: drawn above it</text>'
    return _drawing(250, [said, *bars, line, '<text x="8" y="34">1</text>', '<text x="8" y="234">0</text>'])


def enhancer() -> str:
    """Return how much the masks keep without parts of the enhancer, beside the paper's AP of Table 5."""
    recording = clip().keyframe.recording
    kept, right = speaking(recording), output(recording, "masks")
    parts = [f'<text x="8" y="18">mean IoU with the whole network’s masks ({len(kept)} instances)</text>']
    for place, (name, masks) in enumerate(without_enhancer(clip().keyframe)):
        y, mean = 34 + 30 * place, float(iou(masks[kept], right[kept]).mean())
        length = (WIDTH - LEFT - 60) * mean
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="18" fill="{OURS}"/>')
        parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 14}">{mean:.3f}</text>')
    parts.append(
        '<text x="8" y="146" fill="#8a5a00">the paper, trained without and with: 29.8 and 30.1 AP</text>'
    )
    return _drawing(160, parts)


def _drawing(height: int, parts: Sequence[str]) -> str:
    return HEAD.format(width=WIDTH, height=height) + "".join(parts) + "</svg>\n"
