"""The reference's runs kept between verdicts, by the content they were computed from.

What is kept is the result of every operation, in order. A run is put together again by going through the
network with operations that return what is kept; names, attributes and weights are the network's own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

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
    return hashlib.sha256(f"{network_key(network)} {array_key(images)}".encode()).hexdigest()


def network_key(network: MobileInst) -> str:
    """Return a hash of a network, its weights and the code that computes it."""
    digest = hashlib.sha256(repr((np.__version__, dataclasses.asdict(network.config), network.spec)).encode())
    for source in sorted(Path(refimpl.__path__[0]).rglob("*.py")):
        digest.update(source.read_bytes())
    for name, array in sorted(network.weights.items()):
        digest.update(f"{name} {array_key(array)}".encode())
    return digest.hexdigest()


def array_key(array: Array) -> str:
    """Return a hash of an array: dtype, shape, bytes."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
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


# --- files ----------------------------------------------------------------------------------------


def _write(path: Path, results: Results) -> None:
    """Write a safetensors file that holds each result under the numbers of its call and its place."""
    with atomic_write(path) as temporary:
        arrays = {
            f"{call}.{place}": np.asarray(array, order="C")
            for call, returned in enumerate(results)
            for place, array in enumerate(returned)
        }
        save_file(arrays, temporary, {"sha256": _digest(arrays)})


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _read(path: Path) -> Results:
    """Return what a file holds.

    Raises
    ------
    OSError, SafetensorError
        It is missing, or cannot be read.
    ValueError, or whatever its content leads to
        It is not as it was written.
    """
    with safe_open(path, framework="numpy") as file:
        places = sorted(tuple(map(int, name.split("."))) for name in file.keys())  # noqa: SIM118
        arrays = {f"{call}.{place}": file.get_tensor(f"{call}.{place}") for call, place in places}
        if _digest(arrays) != file.metadata()["sha256"]:
            raise ValueError(f"{path} is damaged")
    with suppress(OSError):
        path.touch()  # the oldest go first
    by_call = groupby(places, key=itemgetter(0))
    return [tuple(arrays[f"{call}.{place}"] for _, place in group) for call, group in by_call]


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
