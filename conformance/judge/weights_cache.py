"""Seeded weights kept between verdicts: to make them, the network is run on five pictures.

The reference's own run is not kept: to read half a gigabyte takes as long as to compute it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

import refimpl
from conformance.files import atomic_write
from refimpl import MobileInstConfig, Weights
from refimpl.errors import FileError
from refimpl.ops.operation import Array

MOST_BYTES = 2**29
"""Size of all weights that are kept; of more, the oldest are removed. TopFormer-base takes 48 MB."""
ABANDONED = 3600.0
"""Seconds after which a file that was never finished is removed."""
SUFFIX = ".weights"


def cache_folder() -> Path:
    """Return the user's cache folder: ``$XDG_CACHE_HOME/mobileinst``, or that in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mobileinst"


def seeded_weights(config: MobileInstConfig, seed: int, folder: Path | None) -> Weights:
    """Return `refimpl.Weights.seeded`, read from ``folder`` if they were made before.

    A file that is damaged, or cannot be read or written, costs the time to make them, nothing else. None: no
    cache.
    """
    if folder is None:
        return Weights.seeded(config, seed)
    path = folder / f"{_key(config, seed)}{SUFFIX}"
    with suppress(Exception):  # whatever is wrong with a file: they are made
        return Weights(_read(path))
    made = Weights.seeded(config, seed)
    with suppress(OSError, FileError):
        if sum(array.nbytes for array in made.values()) <= MOST_BYTES:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, dict(made))
            _shrink(folder)
    return made


def _key(config: MobileInstConfig, seed: int) -> str:
    """Return a hash of all that the weights depend on."""
    content = repr((np.__version__, dataclasses.asdict(config), seed, code_key()))
    return hashlib.sha256(content.encode()).hexdigest()


@functools.cache
def code_key() -> str:
    """Return a hash of the code that computes a network."""
    digest = hashlib.sha256()
    for source in sorted(Path(refimpl.__path__[0]).rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    with atomic_write(path) as temporary:
        ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        save_file(ordered, temporary, {"sha256": _digest(ordered)})


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Array]:
    """Return what a file holds.

    Raises
    ------
    OSError, SafetensorError
        It is missing, or cannot be read.
    ValueError, or whatever its content leads to
        It is not as it was written.
    """
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(arrays) != file.metadata()["sha256"]:
            raise ValueError(f"{path} is damaged")
    with suppress(OSError):
        path.touch()  # the oldest go first
    return arrays


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
