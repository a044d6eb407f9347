"""`make arm`: what it does where something cannot be fetched, and MNN's exponential as it is declared."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from conformance.bounds.allowances import MNN_ARM
from conformance.evidence import arm
from conformance.evidence.arm_python import PROGRAM, arm_python
from conformance.evidence.program import end_with
from refimpl.errors import FileError, MissingDependencyError


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **said: str) -> None:
    """Put shell scripts in the place of every program."""
    place = folder / "bin"
    place.mkdir()
    for name, script in said.items():
        path = place / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}/usr/bin{os.pathsep}/bin" if said else str(place))


def test_without_apt_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch)
    with pytest.raises(MissingDependencyError, match="apt-get is not there"):
        arm_python(tmp_path / "arm")
    assert not (tmp_path / "arm").exists()


@pytest.mark.parametrize(
    ("apt", "said"),
    [
        ("echo 'E: no such host' >&2; exit 100", "apt-get fails with status 100: E: no such host"),
        ("exit 3", "apt-get fails with status 3: it says nothing"),
    ],
)
def test_what_cannot_be_fetched_is_named_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apt: str, said: str
) -> None:
    programs(tmp_path, monkeypatch, apt_get=apt, dpkg="echo amd64", dpkg_deb="exit 1")
    seen: list[str] = []
    with pytest.raises(FileError, match=said):
        arm_python(tmp_path / "arm", seen.append)
    assert seen == ["lists of packages"]
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}


def test_another_folder_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileError, match="holds something else"):
        arm_python(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_is_there_is_used_again(tmp_path: Path) -> None:
    (tmp_path / PROGRAM).touch()
    words = arm_python(tmp_path)
    assert words[:3] == (str(tmp_path / PROGRAM), "-cpu", "cortex-a76")
    assert words[-1].endswith("bin/python3.11")


def test_the_command_ends_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.setattr("sys.argv", ["arm", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        end_with(arm.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("holds something else") == 1


def test_mnns_exponential_errs_by_what_taylors_polynomial_leaves_out() -> None:
    """At the ends of the interval to which it reduces its argument."""
    ends = [math.log(2) / 2, -math.log(2) / 2]
    taylor = [sum(x**k / math.factorial(k) for k in range(5)) for x in ends]
    worst = max(abs(given / math.exp(x) - 1) for given, x in zip(taylor, ends, strict=True))
    assert worst == pytest.approx(MNN_ARM.allowances["Exp"].relative, rel=1e-3)
    assert worst / 4 < MNN_ARM.allowances["Sigmoid"].absolute < 1.01 * worst / 4 + 1e-7
