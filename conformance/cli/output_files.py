"""Nothing lost: what a command writes is checked, before any work, against what it reads and what is there.

An output never takes the place of an input or of another output, by whatever path, link or hard link it is
named; and a file that is there is replaced only if it is of the kind that is written, or with ``--force``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.files import check_writable
from conformance.graph.onnx_file import external_files
from refimpl.errors import FileError

ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"
"""Tags of what may follow the version at the head of an ONNX model."""
HEAD = 512


@dataclass(frozen=True)
class Kind:
    """A kind of file, told by its first bytes; an empty file is of every kind."""

    name: str
    begins: Callable[[bytes], bool]

    def holds(self, path: Path) -> bool:
        """Tell whether a file is of this kind."""
        with path.open("rb") as file:
            head = file.read(HEAD)
        return not head or self.begins(head)


def _starts(*words: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.lstrip().lower().startswith(words)


def _is_text(head: bytes) -> bool:
    return b"\0" not in head


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


JSON = Kind("JSON", _starts(b"{", b"["))
HTML = Kind("HTML", _starts(b"<!doctype html", b"<html"))
XML = Kind("JUnit XML", _starts(b"<?xml", b"<testsuite"))
MARKDOWN = Kind("Markdown", lambda head: head.lstrip().startswith(b"#") and _is_text(head))
PNG = Kind("PNG", lambda head: head.startswith(b"\x89PNG"))
GIF = Kind("GIF", lambda head: head.startswith(b"GIF8"))
SVG = Kind("SVG", _starts(b"<?xml", b"<svg"))
ONNX = Kind("ONNX", lambda head: head[:1] == b"\x08" and head[2:3] in ONNX_FIELDS)
WEIGHTS = Kind("weights", lambda head: head.startswith(b"PK") or head[6:9] == b"\0\0{")
NUMBERS = Kind("TNN text", lambda head: _is_number(head.split()[0]) if head.split() else False)


@dataclass(frozen=True)
class Output:
    """A file that will be written.

    Attributes
    ----------
    flag
        Which option names it, or leads to it.
    path
        Where.
    kind
        What it will be; None for a folder that is filled, whose files are outputs of their own.
    ours
        Whether what is there is an earlier result of the same command; None: its kind tells.
    """

    flag: str
    path: Path
    kind: Kind | None
    ours: bool | None = None


@dataclass(frozen=True)
class Input:
    """A file or folder that is read."""

    flag: str
    path: Path


class Reads:
    """Marks an option whose values are files or folders that are read, in whatever way it names them."""

    def __init__(self, paths: Callable[[str], Iterable[str]] = lambda text: (text,)) -> None:
        self.paths = paths

    def files(self, flag: str, value: Any) -> list[Input]:
        """Return what a value names, as far as it is there."""
        paths = (Path(text) for text in self.paths(str(value)))
        return [Input(flag, path) for path in paths if os.path.lexists(path)]


@dataclass(frozen=True)
class Writes:
    """Marks an option whose value is a file, or a folder (``kind`` None), that is written."""

    kind: Kind | None

    def files(self, flag: str, value: Any) -> list[Output]:
        """Return the file a value names; ``-`` is standard output.

        Raises
        ------
        FileError
            What is no JSON does not go there, and nobody wants a file of that name.
        """
        if str(value) != "-":
            return [Output(flag, Path(value), self.kind)]
        if self.kind is JSON:
            return []
        raise FileError(f"{flag} -: only JSON is written to standard output; name a file, or a folder")


def check_outputs(outputs: Sequence[Output], inputs: Sequence[Input], force: bool = False) -> None:
    """Refuse outputs that would destroy something, and those that cannot be written.

    Parameters
    ----------
    outputs, inputs
    force
        Whether a file of another kind may be replaced.

    Raises
    ------
    FileError
        An output is an input, or lies in a folder that is read and is there already, or is another output; is
        there and of another kind; or cannot be written.
    """
    for first, second in itertools.combinations(outputs, 2):
        if _same(first.path, second.path) or _nested(first, second) or _nested(second, first):
            raise FileError(
                f"{first.flag} and {second.flag} would both write {second.path}; give each a place of its own"
            )
    for output in outputs:
        for read in _all_read(inputs, output):
            if _destroys(output, read):
                raise FileError(
                    f"{output.flag} {output.path} would overwrite {read.path}, which {read.flag} reads; "
                    "name another place"
                )
        if output.kind is not None and not _to_be_made(output, outputs):
            check_writable(output.path)
            _check_kind(output, output.kind, force)


def _same(first: Path, second: Path) -> bool:
    """Tell whether two paths are one place, through links of any kind."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _nested(folder: Output, other: Output) -> bool:
    """Tell whether one output lies in a folder that is another output, and is none of its own files."""
    return folder.kind is None and other.flag != folder.flag and _inside(other.path, folder.path)


def _destroys(output: Output, read: Input) -> bool:
    if _same(output.path, read.path):
        return True
    if not read.path.is_dir():
        return False
    # A new file in a folder that is read destroys nothing; a folder of results there would be read again.
    return _inside(output.path, read.path) and (output.kind is None or output.path.exists())


def _all_read(inputs: Sequence[Input], output: Output) -> Iterator[Input]:
    """Yield the inputs, and the files beside a model that hold its weights if there is something to lose."""
    yield from inputs
    if output.path.exists() and output.kind is not None:
        for read in inputs:
            yield from (Input(read.flag, path) for path in external_files(read.path))


def _to_be_made(output: Output, outputs: Sequence[Output]) -> bool:
    """Tell whether an output lies in a folder that is an output too, and is not there yet."""
    folders = [other.path for other in outputs if other.kind is None and other.flag == output.flag]
    return any(_inside(output.path, folder) and not folder.exists() for folder in folders)


def _check_kind(output: Output, kind: Kind, force: bool) -> None:
    if force or not output.path.exists():
        return
    if kind.holds(output.path) if output.ours is None else output.ours:
        return
    what = f"is no {kind.name} file" if output.ours is None else "is no earlier result of this command"
    raise FileError(
        f"{output.flag} {output.path} is there and {what}; name another place, or give --force to replace it"
    )
