"""The set on disk: writing it whole, reading it strictly. ``golden/README.md`` documents the format."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.files import atomic_write
from conformance.foreign_names import plain_name, shown
from conformance.json_files import check_schema, read_json
from golden import DATA, FORMAT, FORMAT_VERSION, SCHEMA
from refimpl.errors import FileError
from refimpl.ops.operation import Array

MANIFEST = "manifest.json"
INPUT, TRUTH, BOUND = "input.", "truth.", "bound."
LARGEST_FILE = 3_000_000
LARGEST_SET = 20_000_000
TRAINED = "trained"
"""Folder of the set that holds no goldens: trained weights, which have a manifest of their own."""

DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
"""Name of a dtype in safetensors → NumPy's."""


# --- writing --------------------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, Array], name: str) -> None:
    """Write a safetensors file, the same bytes for the same tensors."""
    from safetensors.numpy import save

    # One entry of metadata: of several the writer does not keep the order.
    content = save({key: np.array(x, order="C") for key, x in tensors.items()}, {"golden": name})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is readable, what holds no further container in one line, and ends with a new line."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    for innermost in (r"\[\n[^][{}]*\]", r"\{\n[^{}]*\}"):
        # A new line never stands inside a string, so what is joined are items.
        text = re.sub(
            innermost, lambda found: re.sub(r",\n *", ", ", re.sub(r"(?<!,)\n *", "", found[0])), text
        )
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def rounded_up(bound: Array) -> Array:
    """Return a bound in float32, never smaller; one number if all are the same."""
    if bound.size and bound.min() == bound.max():
        bound = bound.reshape(-1)[:1].reshape(())
    with np.errstate(over="ignore"):
        narrow = bound.astype(np.float32)
    return np.asarray(np.where(narrow < bound, np.nextafter(narrow, np.float32(np.inf)), narrow), np.float32)


def sha256(path: Path) -> str:
    """Return the hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One golden of a manifest.

    Attributes
    ----------
    folder
        Where the set stands.
    record
        As in the manifest.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """The stem of its files."""
        return str(self.record["name"])

    @property
    def kind(self) -> str:
        """Operation, probe, block, …"""
        return str(self.record["kind"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the order they are computed."""
        return tuple(self.record["outputs"])

    def path(self, suffix: str) -> Path:
        """Return the path of one of its files, ``.safetensors``, ``.onnx`` or ``.json``."""
        return self.folder / f"{self.name}{suffix}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of its files."""
        return tuple(Path(file["path"]).suffix for file in self.record["files"])

    def tensors(self, prefix: str = "") -> dict[str, Array]:
        """Read the tensors whose name begins so; the names without it.

        Raises
        ------
        FileError
        """
        if ".safetensors" not in self.suffixes:
            return {}
        return dict(read_tensors(self.path(".safetensors"), prefix))

    def decisions(self) -> Any:
        """Read the discrete results, None if it has none."""
        return read_json(self.path(".json")) if ".json" in self.suffixes else None


def read_tensors(path: Path, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """Yield the tensors of a safetensors file one by one.

    Raises
    ------
    FileError
        Missing, truncated, or the header does not describe the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                if name.startswith(prefix):
                    yield name[len(prefix) :], file.get_tensor(name)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: no safetensors file: {error}; copy it again") from error


def read_manifest(folder: Path = DATA) -> tuple[Entry, ...]:
    """Read the list of goldens.

    Raises
    ------
    FileError
        Missing, not JSON, not a manifest of goldens, or of a newer version than this code reads.
    """
    path = folder / MANIFEST
    document = read_json(path)
    if not is_manifest(document):
        raise FileError(f"{path}: expected a manifest with format {FORMAT!r}; this is none")
    version = document.get("version")
    if version != FORMAT_VERSION:
        raise FileError(
            f"{path}: of version {shown(version)}, this program reads version {FORMAT_VERSION}; "
            "update mobileinst-reference, or use the set that came with it"
        )
    check_schema(document, str(path), json.loads(SCHEMA.read_bytes()))
    entries = tuple(Entry(folder, record) for record in document["goldens"])
    _check_names(entries, path)
    return entries


def is_manifest(document: Any) -> bool:
    """Whether parsed JSON says that it lists goldens, of whatever version."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def _check_names(entries: Sequence[Entry], path: Path) -> None:
    """Raise unless every name is one of its own, stays in the folder, and belongs to its golden."""
    twice = [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]
    if twice:
        raise FileError(f"{path}: {shown(twice[0])} is there twice; copy the set again")
    for entry in entries:
        plain_name(entry.name, "path", str(path))
        files = [file["path"] for file in entry.record["files"]]
        if {str(Path(file).with_suffix("")) for file in files} != {entry.name} or len({*files}) != len(files):
            raise FileError(f"{path}: the files of {entry.name} are not all its own; copy the set again")
        tensors = entry.record["tensors"]
        lost = [name for name in entry.outputs if TRUTH + name not in tensors]
        if lost:
            raise FileError(
                f"{path}: output {shown(lost[0])} of {entry.name} has no tensor; copy the set again"
            )


def integrity_problems(entry: Entry) -> list[str]:
    """Return what is wrong with the files of a golden: missing, altered, or not as the manifest says."""
    problems = [problem for file in entry.record["files"] if (problem := _file_problem(entry.folder, file))]
    if problems or ".safetensors" not in entry.suffixes:
        return problems
    try:
        found = {name: described(x) for name, x in read_tensors(entry.path(".safetensors"))}
    except FileError as error:
        return [str(error)]
    stated = {
        name: (value["dtype"], tuple(value["shape"])) for name, value in entry.record["tensors"].items()
    }
    return [
        f"{entry.name}: tensor {name} is {found.get(name, 'absent')}, "
        f"the manifest says {stated.get(name, 'nothing')}"
        for name in sorted({*found, *stated})
        if found.get(name) != stated.get(name)
    ]


def described(array: Array) -> tuple[str, tuple[int, ...]]:
    """Return the name of the dtype in safetensors, and the shape."""
    names = {np.dtype(code): name for name, code in DTYPES.items()}
    return names[array.dtype], array.shape


def _file_problem(folder: Path, file: dict[str, Any]) -> str | None:
    path = folder / file["path"]
    if not path.is_file():
        return f"{path}: missing"
    if path.stat().st_size != file["bytes"]:
        return f"{path}: {path.stat().st_size} bytes, the manifest says {file['bytes']}; cut off or altered"
    if sha256(path) != file["sha256"]:
        return f"{path}: altered, its SHA-256 is not the manifest's"
    return None


def strangers(folder: Path, entries: tuple[Entry, ...]) -> list[str]:
    """Return the files of a set that its manifest does not know; trained weights are known to their own."""
    known = {folder / file["path"] for entry in entries for file in entry.record["files"]} | {
        folder / MANIFEST
    }
    found = {path for path in folder.rglob("*") if path.is_file() and TRAINED not in path.parts}
    return [f"{path}: not in the manifest" for path in sorted(found - known)]
