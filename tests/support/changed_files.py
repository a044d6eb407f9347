"""Converted files with some of their bytes changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refimpl.ops.operation import Array


def changed(source: Path, folder: Path, before: bytes, after: bytes) -> Path:
    """Write a file with some bytes, which are there once, in another's place."""
    content = source.read_bytes()
    assert content.count(before) == 1
    path = folder / f"m{source.suffix}"
    path.write_bytes(content.replace(before, after))
    return path


def with_a_slice_off(weight: Array, name: str, count: int = 4) -> Iterator[Array]:
    """Yield a weight with a slice of it 5 % off, drawn anew for each name and number."""
    for number in range(count):
        rng = np.random.default_rng([number, *name.encode()])
        begin = int(rng.integers(weight.size - 1))
        other = weight.ravel().copy()
        other[begin : begin + int(rng.integers(1, weight.size - begin))] *= np.float32(1.05)
        yield other
