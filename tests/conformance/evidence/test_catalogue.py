"""Every candidate of the two catalogues is judged as it must be, and stands in the table."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conformance.cli import app
from conformance.evidence.catalogue import RIGHT, WRONG
from conformance.evidence.catalogue_files import write_candidate
from refimpl.errors import ConfigurationError

DOCUMENT = Path(__file__).parents[3] / "docs/catalogue.md"


def test_the_catalogues_are_as_large_as_promised() -> None:
    assert len(WRONG) >= 60
    assert len(RIGHT) >= 40
    assert not WRONG.keys() & RIGHT.keys()


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_candidate_passes(name: str) -> None:
    RIGHT[name]().raise_on_failure()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("weights/channels reordered", 1),
        ("black box, one NaN", 1),
        ("dump, outputs of zero", 1),
        ("ONNX, two pictures at once", 0),
        ("ONNX Runtime: sparseinst-topformer-tiny", 0),
        ("dump of outputs", 0),
    ],
)
def test_a_written_candidate_is_judged_alike(name: str, code: int, tmp_path: Path) -> None:
    program, *words = shlex.split(write_candidate(name, tmp_path / "written"))
    assert program == "mobileinst"
    assert CliRunner().invoke(app, words).exit_code == code


@pytest.mark.parametrize("name", ["no such candidate", "black box, captures another run", "NumPy: folded"])
def test_what_no_file_can_tell_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=name):
        write_candidate(name, tmp_path / "written")
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_that_of_the_code() -> None:
    rows = DOCUMENT.read_text(encoding="utf-8").splitlines()
    verdicts = [row.split(" | ")[:2] for row in rows if row.startswith("| ")]
    wanted = [[f"| {name}", "fail"] for name in WRONG] + [[f"| {name}", "pass"] for name in RIGHT]
    assert [row for row in verdicts if row != ["| candidate", "verdict"]] == wanted
