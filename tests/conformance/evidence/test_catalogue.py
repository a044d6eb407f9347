"""Every candidate of the two catalogues is judged as it must be, and stands in the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.evidence.catalogue import RIGHT, WRONG

DOCUMENT = Path(__file__).parents[3] / "docs/catalogue.md"


def test_the_catalogues_are_as_large_as_promised() -> None:
    assert len(WRONG) >= 60
    assert len(RIGHT) >= 40
    assert not WRONG.keys() & RIGHT.keys()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_candidate_fails(name: str) -> None:
    assert WRONG[name]().verdict == "fail"


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_candidate_passes(name: str) -> None:
    RIGHT[name]().raise_on_failure()


def test_the_table_is_that_of_the_code() -> None:
    rows = DOCUMENT.read_text(encoding="utf-8").splitlines()
    verdicts = [row.split(" | ")[:2] for row in rows if row.startswith("| ")]
    wanted = [[f"| {name}", "fail"] for name in WRONG] + [[f"| {name}", "pass"] for name in RIGHT]
    assert [row for row in verdicts if row != ["| candidate", "verdict"]] == wanted
