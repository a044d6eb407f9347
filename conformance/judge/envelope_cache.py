"""Envelopes kept between runs, by the content they were computed from: eight of a verdict's ten forwards."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import conformance.bounds
import conformance.graph.onnx_graph
import refimpl
from conformance.bounds import Declaration
from conformance.bounds import envelope as envelopes
from conformance.files import atomic_write
from conformance.json_files import read_json
from refimpl import Recording
from refimpl.errors import FileError
from refimpl.ops.operation import Array

MOST_FILES = 1000
"""Envelopes that are kept; of more, the oldest are removed. Each is a file of a few hundred bytes."""


def cached_envelope(
    recording: Recording,
    declaration: Declaration,
    folder: Path | None,
    progress: Callable[[str], None] = lambda stage: None,
) -> dict[str, float]:
    """Return the envelope, read from ``folder`` if it was computed before; parameters as of `envelope`.

    A file that cannot be read or written costs the time to compute it, nothing else. None: no cache.
    ``progress`` is told in words how many runs are done.
    """

    def say(done: int, total: int) -> None:
        progress(f"noise envelope, {done} of {total} runs")

    if folder is None:
        return envelopes.envelope(recording, declaration, progress=say)
    key = _key(recording, declaration)
    path = folder / f"{key}.json"
    with suppress(FileError):
        return _read(path, key, recording.outputs)
    computed = envelopes.envelope(recording, declaration, progress=say)
    with suppress(OSError, FileError):
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, key, computed)
        _shrink(folder)
    return computed


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "envelope": {"type": "object", "additionalProperties": {"type": ["number", "null"], "minimum": 0}},
        "sha256": {"type": "string"},
    },
    "required": ["envelope", "sha256"],
    "additionalProperties": False,
}
"""Of a file: output → its envelope, null where there is none; and the hash of these under the file's name."""


def _write(path: Path, key: str, computed: Mapping[str, float]) -> None:
    kept = {name: value if math.isfinite(value) else None for name, value in computed.items()}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"envelope": kept, "sha256": _digest(key, kept)}), encoding="utf-8")


def _read(path: Path, key: str, outputs: Collection[str]) -> dict[str, float]:
    """Return the envelope of a file.

    Raises
    ------
    FileError
        It is missing, or in any bit not what was written there.
    """
    found = read_json(path, SCHEMA)
    kept = found["envelope"]
    if kept.keys() != set(outputs) or _digest(key, kept) != found["sha256"]:
        raise FileError(f"{path} is damaged")
    return {name: math.inf if value is None else float(value) for name, value in kept.items()}


def _digest(key: str, kept: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([key, kept], sort_keys=True).encode()).hexdigest()


def _shrink(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[: max(len(files) - MOST_FILES, 0)]:
        path.unlink(missing_ok=True)


def _key(recording: Recording, declaration: Declaration) -> str:
    """Return a hash of all that the envelope depends on: the run, the declaration, the code."""
    declared = (np.__version__, declaration, declaration.runtime.allowances)
    digest = hashlib.sha256(repr(declared).encode() + _code())
    for step in recording.steps:
        digest.update(repr((step.operation, step.inputs, step.outputs)).encode())
        for name, value in sorted(step.attributes.items()):
            digest.update(name.encode())
            if isinstance(value, np.ndarray):
                _take_in(digest, value)
            else:
                digest.update(repr(value).encode())
    digest.update(repr(recording.outputs).encode())
    for name in [*recording.inputs.values(), *recording.weights, *recording.constants]:
        digest.update(name.encode())
        _take_in(digest, recording.tensors[name])
    return digest.hexdigest()


@functools.cache
def _code() -> bytes:
    """Return a hash of the code that an envelope is computed by."""
    folders = [Path(module.__path__[0]) for module in (conformance.bounds, refimpl)]
    files = [Path(module.__file__ or "") for module in (envelopes, conformance.graph.evaluation)]
    digest = hashlib.sha256()
    for source in [*files, *(path for each in folders for path in sorted(each.rglob("*.py")))]:
        digest.update(source.read_bytes())
    return digest.digest()


def _take_in(digest: Any, array: Array) -> None:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
