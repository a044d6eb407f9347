"""A folder of dumps, or an archive of one, read without trusting it."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refimpl.errors import FileError

MOST_BYTES = 8 << 30
MOST_FILES = 100_000


@contextmanager
def dump_folder(path: Path) -> Iterator[Path]:
    """Yield the folder that a path names, unpacked meanwhile if it is an archive (``.tar.xz``, …).

    Raises
    ------
    FileError
        Neither a folder nor an archive; an archive that is damaged, too large, or holds anything but files
        and folders inside its own place; or files in several folders.
    """
    path = Path(path)
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tnn-dump-") as name:
        _unpack(path, Path(name))
        folders = sorted({file.parent for file in Path(name).rglob("*") if file.is_file()})
        if len(folders) != 1:
            inside = [str(folder.relative_to(name)) for folder in folders][:4]
            raise FileError(f"{path}: files in {len(folders)} folders {inside}; expected one folder of dumps")
        yield folders[0]


def is_archive(path: Path) -> bool:
    """Tell whether a file is an archive."""
    try:
        return path.is_file() and tarfile.is_tarfile(path)
    except OSError:
        return False


def _unpack(path: Path, folder: Path) -> None:
    try:
        with tarfile.open(path) as archive:
            size = 0
            for count, member in enumerate(archive):
                size += member.size
                if count >= MOST_FILES or size > MOST_BYTES:
                    raise FileError(
                        f"{path}: more than {MOST_FILES} files or {MOST_BYTES >> 30} GB; unpack it yourself"
                    )
                if not (member.isfile() or member.isdir()):
                    raise FileError(f"{path}: {member.name!r} is a link or a device; expected files only")
                archive.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise FileError(
            f"{path}: no folder and no readable archive ({error}); give the folder of dumps"
        ) from error
    except Exception as error:
        # The decompressors have errors of their own (lzma.LZMAError, zlib.error).
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: damaged archive ({error}); pack it again") from error
