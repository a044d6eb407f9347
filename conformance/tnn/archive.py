"""A folder of dumps, or an archive of one, read without trusting it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from conformance.foreign_names import plain_name, shown
from conformance.limits import MOST_BYTES
from refimpl.errors import FileError

MOST_FILES = 100_000
OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
"""How a compressed file begins → what reads it."""


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
        with _opened(path) as file:
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    # A folder, no archive, or what the decompressors raise.
    except Exception:
        return False
    return True


class _Limited:
    """A file that ends with an error once more has been read than may be unpacked.

    The sizes in an archive's headers are no limit: a header itself may be of any length.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file, self.path, self.left = file, path, MOST_BYTES

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        content = self.file.read(min(size, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            raise FileError(f"{self.path}: unpacks to more than {MOST_BYTES >> 20} MiB; unpack it yourself")
        return content


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
    opened: IO[bytes] = opener(path) if opener else path.open("rb")
    return opened


def _unpack(path: Path, folder: Path) -> None:
    try:
        with _opened(path) as file, _as_stream(file, path) as archive:
            for count, member in enumerate(archive):
                if count >= MOST_FILES:
                    raise FileError(f"{path}: more than {MOST_FILES} files; unpack it yourself")
                _extract(archive, member, folder, path)
    except FileError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise FileError(
            f"{path}: no folder and no readable archive ({error}); give the folder of dumps"
        ) from error
    # The decompressors have errors of their own (lzma.LZMAError, zlib.error).
    except Exception as error:
        raise FileError(f"{path}: damaged archive ({error}); pack it again") from error


def _as_stream(file: IO[bytes], path: Path) -> tarfile.TarFile:
    limited: Any = _Limited(file, path)
    return tarfile.open(fileobj=limited, mode="r|")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: Path) -> None:
    """Write a member that is a file; only files are written, so no link leads out of the folder.

    `tarfile`'s own filters came with Python 3.11.4.
    """
    if not (member.isfile() or member.isdir()):
        raise FileError(f"{path}: {shown(member.name)} is a link or a device; expected files only")
    parts = PurePosixPath(member.name).parts
    target = folder.joinpath(*(plain_name(part, "file", f"{path}: {shown(member.name)}") for part in parts))
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None
    with target.open("xb") as file:
        shutil.copyfileobj(source, file)
