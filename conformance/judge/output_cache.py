"""The reference's outputs kept by content, as many as fit: for pictures that are seen again and again."""

from __future__ import annotations

import dataclasses
import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from conformance.candidates.candidate import OUTPUTS
from conformance.files import atomic_write
from conformance.judge.weights_cache import code_key
from refimpl import MobileInst
from refimpl.errors import FileError
from refimpl.ops.operation import Array

MOST_BYTES = 2 * 2**30
"""Of all outputs that are kept. Beyond, other networks' are removed, and this one's no longer kept."""
SUFFIX = ".outputs"


def network_key(network: MobileInst) -> str:
    """Return a hash of a network, its weights and the code that computes it."""
    what = repr((np.__version__, dataclasses.asdict(network.config), network.spec, code_key()))
    digest = hashlib.sha256(what.encode())
    for name, array in sorted(network.weights.items()):
        digest.update(f"{name} {array_key(array)}".encode())
    return digest.hexdigest()


def array_key(array: Array) -> str:
    """Return a hash of an array: dtype, shape, bytes."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class OutputCache:
    """One network's outputs.

    Parameters
    ----------
    network
    folder
        Where they are kept; None: nowhere.
    """

    def __init__(self, network: MobileInst, folder: Path | None) -> None:
        self.network, self.folder = network, folder
        self.name = network_key(network)[:32] if folder else ""
        self.room = self._room()

    def outputs(self, images: Array) -> tuple[dict[str, Array], bool]:
        """Return the outputs on images (B, 3, H, W), float64, and whether they were kept.

        A file that cannot be read costs the time to compute them.
        """
        path = self._path(images)
        if path is not None:
            with suppress(Exception):  # whatever is wrong with a file: they are computed
                kept = load_file(path)
                return {name: kept[name] for name in OUTPUTS if name in kept}, True
        computed = dict(self.network(images).items())
        self._keep(path, computed)
        return computed, False

    def keep(self, images: Array, outputs: dict[str, Array]) -> None:
        """Keep outputs that were computed elsewhere."""
        path = self._path(images)
        if path is not None and not path.exists():
            self._keep(path, outputs)

    def _path(self, images: Array) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{self.name}-{array_key(images)[:32]}{SUFFIX}"

    def _keep(self, path: Path | None, outputs: dict[str, Array]) -> None:
        size = sum(array.nbytes for array in outputs.values())
        if path is None or size > self.room:
            return
        with suppress(OSError, FileError), atomic_write(path) as temporary:
            save_file({name: np.asarray(array, order="C") for name, array in outputs.items()}, temporary)
            self.room -= size

    def _room(self) -> int:
        """Return how many bytes are left; what other networks hold is removed, the oldest first."""
        if self.folder is None:
            return 0
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        found = [(path, path.stat()) for path in self.folder.glob(f"*{SUFFIX}")]
        room = MOST_BYTES - sum(about.st_size for _, about in found)
        for path, about in sorted(found, key=lambda pair: pair[1].st_mtime):
            if room < MOST_BYTES // 2 and not path.name.startswith(self.name):
                path.unlink(missing_ok=True)
                room += about.st_size
        return room
