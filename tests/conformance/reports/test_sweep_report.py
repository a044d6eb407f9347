"""The report of a sweep: its verdict, its page and its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from conformance.reports.sweep_report import Failure, Precision, SweepReport, Worst, sweep_page, tables

REPORT = SweepReport(
    candidate="<b>it</b>",
    pictures="pictures",
    folder="pictures.sweep",
    total=3,
    judged={"screened": 2, "full": 1},
    verdicts={"pass": 3},
    worst=[Worst("masks", "Clip", "output", 3, 0, 0.25, "1.png", "0,1,2,3")],
    edges=[0.0, 0.5, 1.0],
    utilisation=[2, 1, 0],
    decisions=[],
    failures=[],
)


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code"),
    [
        ({"pass": 3}, "pass", 0),
        ({"pass": 2, "fail": 1}, "fail", 1),
        ({"pass": 1, "not judged": 1, "fail": 1}, "fail", 1),
        ({"pass": 2, "not judged": 1}, "not judged", 2),
        ({"pass": 2}, "not judged", 2),
    ],
)
def test_the_verdict_is_the_worst_and_missing_pictures_are_not_judged(
    verdicts: dict[str, int], verdict: str, code: int
) -> None:
    report = replace(REPORT, verdicts=verdicts)
    assert (report.verdict, report.exit_code) == (verdict, code)


def test_numbers_that_are_not_finite_are_words_in_json() -> None:
    worst = replace(REPORT.worst[0], utilisation=math.inf)
    report = replace(REPORT, worst=[worst], costs={"seconds": math.nan})
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["worst"][0]["utilisation"] == "inf"
    assert told["costs"]["seconds"] == "nan"


def test_the_page_escapes_names_and_shows_each_table() -> None:
    failure = Failure("<i>.png", "fail", "masks", "mobileinst verify '<i>.png'")
    precision = Precision(("AP",), (0.5,), (0.25,))
    page = sweep_page(replace(REPORT, failures=[failure], precision=precision))
    assert "<b>it" not in page
    assert "<i>.png" not in page
    assert "&lt;i&gt;.png" in page
    for shown in ("Not passed", "Worst picture and element", "0,1,2,3", "0.2500", "-0.2500"):
        assert shown in page


def test_long_tables_say_what_they_leave_out() -> None:
    worst = [replace(REPORT.worst[0], step=str(number)) for number in range(30)]
    titles = [title for title, *_ in tables(replace(REPORT, worst=worst), 15)]
    assert "Worst picture and element, 15 of 30" in titles
