"""The rows of a sweep merged into one report, part after part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.evaluation import coco
from conformance.evaluation.ytvis import STATISTICS
from conformance.judge.decisions import EDGES
from conformance.reports.report import Decision, MarginHistogram, merged
from conformance.reports.sweep_report import Failure, Precision, SweepReport, Worst
from conformance.sweep.pictures import shown_names
from conformance.sweep.rows import Row, read_rows

SHARES = [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 1.0]
"""Edges of the distribution of error over bound."""


@dataclass
class _Step:
    """One step over all pictures so far."""

    operation: str
    judged: int = 0
    failed: int = 0
    worst: Row | None = None

    def add(self, row: Row) -> None:
        self.judged += row["verdict"] in ("pass", "fail")
        self.failed += row["verdict"] == "fail"
        if row["utilisation"] is not None and (
            self.worst is None or row["utilisation"] > self.worst["utilisation"]
        ):
            self.worst = row


def merge(
    parts: Path,
    *,
    candidate: str,
    pictures: str,
    total: int,
    command: Callable[[str], str],
    truth: dict[str, Any] | None = None,
) -> SweepReport:
    """Return the report of all parts that are finished.

    Parameters
    ----------
    parts
        The folder of the rows.
    candidate, pictures, total
        As of `SweepReport`.
    command
        A picture's name → the command that judges it alone.
    truth
        COCO's ground truth.
    """
    steps: dict[tuple[str, str], _Step] = {}
    counts = np.zeros(len(SHARES), np.int64)
    for rows in read_rows(parts, "steps"):
        _add_steps(rows, steps, counts)
    told = [row for rows in read_rows(parts, "pictures") for row in rows]
    failures = [
        Failure(row["picture"], row["verdict"], row["says"] or row["why"], command(row["picture"]))
        for row in told
        if row["verdict"] != "pass"
    ]
    return SweepReport(
        candidate=candidate,
        pictures=pictures,
        folder=str(parts.parent),
        total=total,
        judged=dict(Counter(row["judged"] for row in told)),
        verdicts=dict(Counter(row["verdict"] for row in told)),
        worst=_worst(steps),
        edges=SHARES,
        utilisation=counts.tolist(),
        decisions=_decisions(parts),
        failures=sorted(failures, key=lambda each: each.verdict),
        precision=_precision(parts, truth) if truth else None,
        costs=_costs(told),
    )


def _add_steps(rows: Iterable[Row], steps: dict[tuple[str, str], _Step], counts: Any) -> None:
    for row in rows:
        steps.setdefault((row["part"], row["step"]), _Step(row["operation"])).add(row)
    used = np.array([row["utilisation"] for row in rows if row["utilisation"] is not None], np.float64)
    np.add.at(counts, np.clip(np.searchsorted(SHARES, used, "left") - 1, 0, len(SHARES) - 1), 1)


def _worst(steps: dict[tuple[str, str], _Step]) -> list[Worst]:
    found = [
        Worst(
            name,
            step.operation,
            part,
            step.judged,
            step.failed,
            step.worst["utilisation"] if step.worst else None,
            step.worst["picture"] if step.worst else "",
            step.worst["element"] if step.worst else "",
        )
        for (part, name), step in steps.items()
        if step.judged
    ]
    return sorted(found, key=lambda each: (-each.failed, -(each.utilisation or 0.0)))


def _decisions(parts: Path) -> list[Decision]:
    """Return the decisions of each kind as one: added up part by part."""
    kinds: dict[str, Decision] = {}
    for rows in read_rows(parts, "decisions"):
        for row in rows:
            item = _decision(row)
            kinds[item.kind] = merged([kinds[item.kind], item]) if item.kind in kinds else item
    return list(kinds.values())


def _decision(row: Row) -> Decision:
    counts = [row[name] for name in ("agreed", "tied", "flipped")]
    names = ("count", "ties", "flips", "near", "smallest_margin", "largest_flipped_margin", "smallest_iou")
    return Decision(
        kind=row["decision"],
        **{name: row[name] for name in (*names, "unit", "allowed", "not_judged")},
        histogram=None if None in counts else MarginHistogram(list(EDGES), *counts),
    )


def _precision(parts: Path, truth: dict[str, Any]) -> Precision:
    """Return both sides' average precision on the pictures that both gave outputs for."""
    rows = [row for part in read_rows(parts, "detections") for row in part]
    judged = {row["picture"] for part in read_rows(parts, "pictures") for row in part if row["sha256"]}
    names = shown_names([image["file_name"] for image in truth["images"]])
    ids = {image["id"] for image, name in zip(truth["images"], names, strict=True) if name in judged}
    seen = {
        **truth,
        "images": [image for image in truth["images"] if image["id"] in ids],
        "annotations": [each for each in truth["annotations"] if each["image_id"] in ids],
    }
    sides = {
        side: tuple(coco.evaluate(seen, [_result(row) for row in rows if row["side"] == side]).stats.tolist())
        for side in ("reference", "candidate")
    }
    return Precision(tuple(STATISTICS), sides["reference"], sides["candidate"])


def _result(row: Row) -> Row:
    known = {name: row[name] for name in ("image_id", "category_id", "score")}
    return {**known, "segmentation": {"size": [row["height"], row["width"]], "counts": row["counts"]}}


def _costs(told: list[Row]) -> dict[str, float]:
    """Return what the pictures cost, on average and together."""
    found: dict[str, float] = {}
    for judged in ("screened", "full"):
        rows = [row for row in told if row["judged"] == judged]
        if rows:
            found[f"seconds, {judged} picture"] = float(np.mean([row["seconds"] for row in rows]))
    read = [row for row in told if row["sha256"]]
    if read:
        found["reference kept, share of pictures"] = float(np.mean([row["reference_cached"] for row in read]))
        found["bytes read, picture"] = float(np.mean([row["bytes"] for row in read]))
        found["workers"] = float(len({row["worker"] for row in read}))
    return found
