"""Writing files whole: a reader finds the complete new file or the old one, never half of it."""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from refimpl.errors import FileError, SpaceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a disk, a user's share of it, or what a file may hold is used up."""
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_STAGED = re.compile(rf"\.mobileinst-{_HOST}-(\d+)-[0-9a-f]{{16}}(\..*)?")
_cleaned: set[Path] = set()


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends well, it takes the place of ``path``.

    The temporary file stands in the same folder and has the same suffix, because some writers add their own.
    If the block fails, ``path`` is as it was and the temporary file is gone.

    Raises
    ------
    FileError
        The folder is missing, full or not writable, or ``path`` is something other than a regular file.

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
    remove_abandoned(target.parent)
    temporary = target.with_name(staged_name(target.suffix))
    try:
        yield temporary
        os.replace(temporary, target)
    except FileError:
        raise
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text whole or not at all, as UTF-8; what is no text, as parts of file names, as its escape.

    Raises
    ------
    FileError
        As of `atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def staged_name(suffix: str = "") -> str:
    """Return a hidden name that says whose unfinished work it is: this machine's, this process's."""
    return f".mobileinst-{_HOST}-{os.getpid()}-{secrets.token_hex(8)}{suffix}"


def abandoned(folder: Path) -> list[Path]:
    """Return what stands in a folder under a `staged_name` of a process that has ended."""
    found = [(path, _STAGED.fullmatch(path.name)) for path in folder.iterdir()]
    return [path for path, name in found if name and not _is_running(int(name[1]))]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's
    return True


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in a folder; once for each folder."""
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with suppress(OSError):
        for path in abandoned(folder):
            if path.is_file():
                path.unlink(missing_ok=True)


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
        raise unwritable(path, error) from error


def _target(path: str | os.PathLike[str]) -> Path:
    # A symbolic link stays one: its target is replaced.
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileError(f"cannot write {path}: it is not a regular file; name a file")
    if not os.path.isdir(target.parent):
        raise FileError(f"cannot write {path}: there is no folder {target.parent}; create it first")
    return target


def unwritable(path: str | os.PathLike[str], error: Exception) -> FileError:
    """Return the error that says what the system said, a full disk or a missing permission, in one line."""
    return FileError(f"cannot write {path}: {_said(error)}; choose a folder you may write to")


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Say in words that the block's temporary files cannot be written, whatever writes them.

    Raises
    ------
    SpaceError
        As most often, no space is left.
    """
    try:
        yield
    except SpaceError:
        raise
    except (OSError, SafetensorError) as error:
        raise no_space(error) from error


def no_space(error: Exception) -> SpaceError:
    """Return the error that names the folder of temporary files, and what the system said."""
    return SpaceError(
        f"cannot write temporary files in {tempfile.gettempdir()}: {_said(error)}; make space there, or set "
        "TMPDIR to a folder with more"
    )
