"""Writing files whole: a reader finds the complete new file or the old one, never half of it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from refimpl.errors import FileError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends well, it takes the place of ``path``.

    The temporary file stands in the same folder and has the same suffix, because some writers add their own.
    If the block fails, ``path`` is as it was and the temporary file is gone.

    Raises
    ------
    FileError
        The folder is missing or not writable, or ``path`` is something other than a regular file.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "report.json") as temporary:
    ...     _ = temporary.write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['report.json']
    """
    target = _target(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except FileError:
        raise
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise what `atomic_write` would, before the long work whose result is to be written there.

    Raises
    ------
    FileError
        The folder is missing or not writable, or ``path`` is something other than a regular file.
    """
    target = _target(path)
    try:
        with suppress(FileNotFoundError):
            target.stat()  # a name too long for the file system
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def _target(path: str | os.PathLike[str]) -> Path:
    # A symbolic link stays one: its target is replaced.
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileError(f"cannot write {path}: it is not a regular file; name a file")
    if not os.path.isdir(target.parent):
        raise FileError(f"cannot write {path}: there is no folder {target.parent}; create it first")
    return target


def _unwritable(path: str | os.PathLike[str], error: OSError) -> FileError:
    return FileError(f"cannot write {path}: {error.strerror or error}; choose a folder you may write to")


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder to fill; when the block ends well, it becomes the folder ``path``.

    Raises
    ------
    FileError
        ``path`` exists and is no empty folder, or cannot be written.
    """
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder} exists and is no empty folder; name a new one")
    temporary = folder.with_name(f".{secrets.token_hex(8)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, folder)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
