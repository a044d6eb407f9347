"""A candidate's folder: tensors under the names of the goldens, in any of three formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from conformance.json_files import read_json
from conformance.pictures.graph_inputs import read_array
from golden.store import Entry, read_tensors
from refimpl.errors import FileError
from refimpl.ops.operation import Array

RAW = {
    "f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "i1",
    "u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "u1", "bool": "?",
}  # fmt: skip
"""Suffix of a raw file → its dtype, little-endian."""


class Folder:
    """The files of a candidate; hidden ones are passed over.

    Raises
    ------
    FileError
        There is no such folder, or nothing in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileError(f"{path}: no such folder; give the folder with the candidate's outputs")
        self.path = path
        files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        self.files = {file.relative_to(path).as_posix() for file in files}
        if not self.files:
            raise FileError(f"{path}: empty; write each output as its golden is named, see golden/README.md")

    def files_of(self, entry: Entry) -> list[str]:
        """Return the names of the files that answer a golden."""
        stems = [f"{entry.name}.{output}" for output in entry.outputs]
        raw = [f"{stem}.{suffix}" for stem in stems for suffix in ("npy", *RAW)]
        own = [f"{entry.name}{suffix}" for suffix in (".safetensors", ".json")]
        return [name for name in (*own, *raw) if name in self.files]

    def strangers(self, entries: tuple[Entry, ...]) -> list[str]:
        """Return what answers none of all goldens, those not asked for included."""
        known = {name for entry in entries for name in self.files_of(entry)}
        return [f"{self.path / name}: answers no golden" for name in sorted(self.files - known)]

    def tensors(self, entry: Entry) -> tuple[dict[str, Array], list[str]]:
        """Read a candidate's outputs of one golden, and name what is wrong with them as input."""
        found: dict[str, Array] = {}
        problems: list[str] = []
        for name in self.files_of(entry):
            try:
                for output, array in self._read(name, entry):
                    if output in found:
                        problems.append(f"{self.path / name}: {output} is there twice")
                    found[output] = array
            except FileError as error:
                problems.append(str(error))
        return found, problems

    def _read(self, name: str, entry: Entry) -> Iterator[tuple[str, Array]]:
        path, suffix = self.path / name, name.rpartition(".")[2]
        if suffix == "json":
            return
        if suffix == "safetensors":
            yield from read_tensors(path)
            return
        output = name[len(entry.name) + 1 : -len(suffix) - 1]
        shape = tuple(entry.record["tensors"][f"truth.{output}"]["shape"])
        yield output, read_array(path) if suffix == "npy" else _raw(path, RAW[suffix], shape)

    def decisions(self, entry: Entry) -> Any:
        """Read the candidate's discrete results; None if there are none."""
        name = f"{entry.name}.json"
        return read_json(self.path / name) if name in self.files else None


def _raw(path: Path, dtype: str, shape: tuple[int, ...]) -> Array:
    """Read a file of nothing but numbers, in C order."""
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if path.stat().st_size != expected:
        raise FileError(
            f"{path}: {path.stat().st_size} bytes, expected {expected} for {list(shape)} of {dtype}"
        )
    return np.fromfile(path, dtype).reshape(shape)
