"""Folders of results: staged beside their place, put there by a rename, never in place of another's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conformance.files import abandoned, staged_name, unwritable
from refimpl.errors import FileError

FRESH, OLD, PLACE = "fresh", "old", "place.txt"
"""In a staged folder: what is being written, what it replaces, and the name of the folder that it is for."""


def check_new_folder(folder: Path) -> None:
    """Raise `FileError` if a folder exists and is not empty."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except (OSError, ValueError) as error:
        raise FileError(f"{folder}: cannot be a folder of results: {error}; name a new one") from error
    if taken:
        raise FileError(f"{folder} exists and is no empty folder; name a new one")


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder to fill; when the block ends well, it becomes the folder ``path``.

    Raises
    ------
    FileError
        ``path`` exists and is no empty folder, or cannot be written.
    """
    with replaced_folder(path, check_new_folder) as folder:
        yield folder


@contextmanager
def replaced_folder(path: str | os.PathLike[str], check: Callable[[Path], None]) -> Iterator[Path]:
    """Give a temporary folder to fill; when the block ends well, it takes the place of the folder ``path``.

    Whenever the block fails or is interrupted, ``path`` is what it was; if the process is killed between the
    two renames, the next call puts the old folder back.

    Parameters
    ----------
    path
    check
        Raises `FileError` if what stands at a path, which exists, must not be replaced. Called before the
        block and again before the renames.

    Raises
    ------
    FileError
        It must not be replaced, or cannot be written.
    """
    place = Path(os.path.realpath(path))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        recover(place)
        _checked(Path(path), check)
        staged = place.with_name(staged_name())
        with _removed(staged, place):
            (staged / FRESH).mkdir(parents=True)
            (staged / PLACE).write_bytes(os.fsencode(place.name))
            yield staged / FRESH
            _checked(Path(path), check)
            _take_place(staged, place)
    except FileError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def _checked(place: Path, check: Callable[[Path], None]) -> None:
    if os.path.lexists(place):
        check(place)


@contextmanager
def _removed(staged: Path, place: Path) -> Iterator[None]:
    """Remove a staged folder at the end, unless it still holds what could not be put back."""
    try:
        yield
    finally:
        if place.exists() or not (staged / OLD).exists():
            shutil.rmtree(staged, ignore_errors=True)


def _take_place(staged: Path, place: Path) -> None:
    try:
        if os.path.lexists(place):
            place.rename(staged / OLD)
        (staged / FRESH).rename(place)
    except BaseException:  # Ctrl-C, too
        _put_back(staged, place)
        raise


def _put_back(staged: Path, place: Path) -> None:
    with suppress(OSError):
        if (staged / OLD).exists() and not os.path.lexists(place):
            (staged / OLD).rename(place)


def recover(place: Path) -> None:
    """Put back what processes that were killed had moved away from a place, and remove what they left."""
    for staged in abandoned(place.parent):
        if staged.is_dir() and _is_for(staged, place):
            _put_back(staged, place)
            shutil.rmtree(staged, ignore_errors=True)


def _is_for(staged: Path, place: Path) -> bool:
    try:
        return (staged / PLACE).read_bytes() == os.fsencode(place.name)
    except OSError:
        return False
