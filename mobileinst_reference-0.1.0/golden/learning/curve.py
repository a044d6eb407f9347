"""The loss curve of a training run, drawn as SVG from its log."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 720, 300, 44
SHOWN = {"total": "#1f5fa8", "classification": "#b3541e", "dice": "#2b7a4b", "cells": "#777777"}


def loss_curve(log: str, title: str) -> str:
    """Return an SVG of the terms in `SHOWN` over the steps, each from 0 to the largest total."""
    rows = list(csv.DictReader(io.StringIO(log)))
    steps = [float(row["step"]) for row in rows]
    top = max(float(row["total"]) for row in rows)
    lines = []
    for place, (name, colour) in enumerate(SHOWN.items()):
        points = _points(steps, [float(row[name]) for row in rows], top)
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        lines.append(_text(WIDTH - 130, MARGIN + 18 * place, name, colour))
    axes = [
        _text(MARGIN, 20, title, "#111"),
        _text(MARGIN, HEIGHT - 12, f"step 0 to {steps[-1]:.0f}", "#111"),
        _text(4, MARGIN, f"{top:.1f}", "#111"),
        _text(4, HEIGHT - MARGIN, "0", "#111"),
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - 10}" fill="none" stroke="#111"/>',
    ]
    body = "\n".join([f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *axes, *lines])
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">\n{body}\n</svg>\n'


def _points(steps: Sequence[float], values: Sequence[float], top: float) -> str:
    wide, high = WIDTH - 10 - MARGIN, HEIGHT - 2 * MARGIN
    return " ".join(
        f"{MARGIN + wide * step / steps[-1]:.1f},{HEIGHT - MARGIN - high * value / top:.1f}"
        for step, value in zip(steps, values, strict=True)
    )


def _text(x: int, y: int, text: str, colour: str) -> str:
    return (
        f'<text x="{x}" y="{y}" font-family="sans-serif" font-size="13" fill="{colour}">{escape(text)}</text>'
    )
