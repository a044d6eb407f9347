"""The reference's runs kept between verdicts, by the content they were computed from.

What is kept is the result of every operation, in order. A run is put together again by going through the
network with operations that return what is kept; names, attributes and weights are the network's own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import refimpl
from conformance.files import atomic_write
from conformance.graph.evaluation import as_tuple
from refimpl import MobileInst, Recording, record
from refimpl.errors import FileError
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array
from refimpl.recording import RecordableModel

MOST_BYTES = 2 * 2**30
"""Size of all runs that are kept; of more, the oldest are removed. TopFormer-base at 320×640 takes 0.6 GB."""
ABANDONED = 3600.0
"""Seconds after which a file that was never finished is removed."""
SUFFIX = ".recording"
ALIGNMENT = 64

Results = list[tuple[Array, ...]]
"""Of each call, in order."""


def cached_recording(network: RecordableModel, images: Array, folder: Path | None) -> Recording:
    """Return the network's run on images, read from ``folder`` if it was computed before.

    A file that is damaged, or cannot be read or written, costs the time to compute it, nothing else. None, or
    a part of a network: no cache.
    """
    if folder is None or not isinstance(network, MobileInst):
        return record(network, images)
    path = folder / f"{_key(network, images)}{SUFFIX}"
    with suppress(Exception):  # whatever is wrong with a file: the run is computed
        return _again(network, images, _read(path))
    results: Results = []
    recording = record(network, images, operations=_noting(results))
    with suppress(OSError, FileError):
        if sum(array.nbytes for arrays in results for array in arrays) <= MOST_BYTES:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, results)
            _shrink(folder)
    return recording


def _key(network: MobileInst, images: Array) -> str:
    """Return a hash of all that a run depends on: network, weights, input, and the code that computes it."""
    digest = hashlib.sha256(repr((np.__version__, dataclasses.asdict(network.config))).encode())
    for source in sorted(Path(refimpl.__path__[0]).rglob("*.py")):
        digest.update(source.read_bytes())
    for name, array in [("", images), *sorted(network.weights.items())]:
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _noting(results: Results) -> dict[str, Callable[..., Any]]:
    """Return the operations, which note what they return."""

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*operands: Any, **attributes: Any) -> Any:
            result = function(*operands, **attributes)
            results.append(tuple(map(np.asarray, as_tuple(result))))
            return result

        return call

    return {name: noting(function) for name, function in OPERATIONS.items()}


def _again(network: MobileInst, images: Array, results: Results) -> Recording:
    """Return the run whose operations return these results.

    Raises
    ------
    ValueError
        There are more results than calls.
    """
    left = iter(results)

    def kept(*_: Any, **__: Any) -> Any:
        arrays = next(left, ())
        return arrays if len(arrays) > 1 else arrays[0]

    recording = record(network, images, operations=dict.fromkeys(OPERATIONS, kept))
    if next(left, None) is not None:
        raise ValueError("another network's results")
    return recording


# --- files: the length of a description, the description, and the arrays' bytes -------------------


def _write(path: Path, results: Results) -> None:
    calls = [[[array.dtype.str, list(array.shape)] for array in arrays] for arrays in results]
    head = json.dumps({"sha256": _digest(calls, results), "calls": calls}).encode()
    head += b" " * (-(len(head) + 8) % ALIGNMENT)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in (array for arrays in results for array in arrays):
            file.write(np.ascontiguousarray(array).data)
            file.write(bytes(-array.nbytes % ALIGNMENT))


def _digest(calls: Any, results: Results) -> str:
    digest = hashlib.sha256(json.dumps(calls).encode())
    for array in (array for arrays in results for array in arrays):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path) -> Results:
    """Return what a file holds, memory-mapped.

    Raises
    ------
    OSError
        It is missing, or cannot be read.
    ValueError, or whatever its content leads to
        It is not whole, or not as it was written.
    """
    content = np.memmap(path, np.uint8, "r")
    with suppress(OSError):
        path.touch()  # the oldest go first
    length = int.from_bytes(content[:8].tobytes(), "little")
    head = json.loads(content[8 : 8 + length].tobytes())
    results = [tuple(arrays) for arrays in _arrays(content, 8 + length, head["calls"])]
    if _digest(head["calls"], results) != head["sha256"]:
        raise ValueError(f"{path} is damaged")
    return results


def _arrays(content: Array, start: int, calls: list[Any]) -> Iterator[list[Array]]:
    for described in calls:
        arrays = []
        for dtype, shape in described:
            size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
            arrays.append(content[start : start + size].view(dtype).reshape(shape).view(np.ndarray))
            start += size + -size % ALIGNMENT
        yield arrays


def _shrink(folder: Path) -> None:
    """Remove the oldest files until the rest is small enough, and those that a process left unfinished."""
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        about = path.stat()
        abandoned = path.name.startswith(".") and about.st_mtime < time.time() - ABANDONED
        total += about.st_size
        if abandoned or (total > MOST_BYTES and not path.name.startswith(".")):
            path.unlink(missing_ok=True)
