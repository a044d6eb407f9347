"""A folder of results takes its place whole or not at all, and what stood there is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.files import staged_name
from conformance.folders import new_folder, replaced_folder
from refimpl.errors import FileError


def fill(folder: Path, text: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text(text)


def content(folder: Path) -> str:
    return (folder / "sub" / "file").read_text()


def fail(folder: Path, error: type[BaseException] | BaseException) -> None:
    fill(folder, "half")
    raise error


def anything(folder: Path) -> None:
    """Every folder may be replaced."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    fill(tmp_path / "set", "old")
    return tmp_path / "set"


def test_its_name_need_not_be_text(tmp_path):
    for text in ("first", "second"):
        with replaced_folder(tmp_path / os.fsdecode(b"s\xff"), anything) as folder:
            fill(folder, text)
    assert [path.name for path in tmp_path.iterdir()] == [os.fsdecode(b"s\xff")]
    assert content(tmp_path / os.fsdecode(b"s\xff")) == "second"


def test_it_takes_the_place_and_nothing_else_is_left(old):
    with replaced_folder(old, anything) as fresh:
        fill(fresh, "new")
        assert content(old) == "old"
    assert content(old) == "new"
    assert os.listdir(old.parent) == ["set"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), SystemExit])
def test_a_block_that_fails_changes_nothing(old, error):
    with (
        pytest.raises(FileError if isinstance(error, OSError) else error),
        replaced_folder(old, anything) as f,
    ):
        fail(f, error)
    assert content(old) == "old"
    assert os.listdir(old.parent) == ["set"]


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupt_at_any_rename_leaves_one_whole_folder(old, monkeypatch, nth, moment):
    """Ctrl-C before or after each of the two renames."""
    rename, count = Path.rename, 0

    def interrupted(path, target):
        nonlocal count
        count += 1
        if count == nth and moment == "before":
            raise KeyboardInterrupt
        result = rename(path, target)
        if count == nth:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replaced_folder(old, anything) as fresh:
        fill(fresh, "new")
    assert content(old) == ("new" if (nth, moment) == (2, "after") else "old")
    assert os.listdir(old.parent) == ["set"]


KILLED = """
import os, signal, sys
from pathlib import Path
from conformance.folders import replaced_folder
rename, count = Path.rename, 0
def killed(path, target):
    global count
    count += 1
    result = rename(path, target)
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Path.rename = killed
with replaced_folder(sys.argv[1], lambda folder: None) as fresh:
    (fresh / "sub").mkdir()
    (fresh / "sub" / "file").write_text("new")
    if sys.argv[2] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("renames", "kept"), [(0, "old"), (1, "old"), (2, "new")])
def test_after_a_kill_the_next_start_finds_a_whole_folder(old, renames, kept):
    done = subprocess.run([sys.executable, "-c", KILLED, str(old), str(renames)])
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(ZeroDivisionError), replaced_folder(old, anything) as fresh:
        fail(fresh, ZeroDivisionError)
    assert content(old) == kept
    assert os.listdir(old.parent) == ["set"]


def test_what_another_living_process_is_writing_stays(old):
    with replaced_folder(old, anything) as first:
        fill(first, "first")
        with replaced_folder(old, anything) as second:
            fill(second, "second")
        assert content(old) == "second"
    assert content(old) == "first"


@pytest.mark.parametrize("make", ["file", "full"])
def test_a_new_folder_replaces_nothing(tmp_path, make):
    place = tmp_path / "place"
    if make == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "mine").write_text("mine")
    with pytest.raises(FileError, match="name a new one"), new_folder(place):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == ["place"]


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    place = tmp_path / "place"
    with pytest.raises(FileError, match="no empty folder"), new_folder(place) as fresh:  # noqa: PT012
        fill(fresh, "new")
        place.mkdir()
        (place / "mine").write_text("mine")
    assert (place / "mine").read_text() == "mine"


def test_a_strange_hidden_folder_is_left_alone(old):
    """A staged name without our note of what it is for."""
    strange = old.with_name(staged_name().replace(f"-{os.getpid()}-", "-999999999-"))
    strange.mkdir()
    (strange / "file").write_text("mine")
    with replaced_folder(old, anything) as fresh:
        fill(fresh, "new")
    assert (strange / "file").read_text() == "mine"
