"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from conformance.files import atomic_write
from refimpl.errors import ConfigurationError, FileError


def write(path, text):
    with atomic_write(path) as temporary:
        assert temporary.parent == path.resolve().parent
        assert temporary.suffix == path.resolve().suffix
        temporary.write_text(text)


def test_file_is_written_and_nothing_else_left(tmp_path):
    write(tmp_path / "report.json", "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.json", "new")]


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    write(tmp_path / "written", "")
    (tmp_path / "ordinary").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("written", "ordinary")]
    assert modes[0] == modes[1]


def test_a_failed_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ConfigurationError), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ConfigurationError("stopped")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.json", "old")]


def test_the_old_file_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_symbolic_link_stays_one(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match=r"there is no folder .*missing; create it first"):
        write(tmp_path / "missing" / "report.json", "")


def test_a_file_as_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="there is no folder"):
        write(tmp_path / "file" / "report.json", "")


@pytest.mark.parametrize("name", ["x" * 300, "loop/report.json"])
def test_impossible_names_are_named(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileError, match="cannot write"), atomic_write(tmp_path / name) as temporary:
        temporary.write_text("")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_not_a_regular_file_is_not_replaced(tmp_path, make):
    path = tmp_path / "report.json"
    make(path)
    with pytest.raises(FileError, match="not a regular file"):
        write(path, "")
    assert not path.is_file()


def test_a_writer_that_fails_is_named(tmp_path):
    """A full disk, a name too long: whatever the system says, in one line."""
    with pytest.raises(FileError, match=r"cannot write .*: File name too long; choose") as caught:
        write(tmp_path / ("x" * 200 + "." + "y" * 245), "")
    assert "\n" not in str(caught.value)
