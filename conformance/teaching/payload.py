"""What a page computes with: named arrays as text, each with a check sum that the page compares."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from refimpl.ops.operation import Array

KINDS = {"f4": np.float32, "f2": np.float16, "u1": np.uint8}
"""Kind → how the numbers are stored; "bits" holds eight to a byte."""


class Payload:
    """Arrays for a page, in the order they are added."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.size = 0

    def add(self, name: str, array: Array, kind: str) -> None:
        """Add an array, rounded to its kind."""
        stored = np.packbits(array.astype(bool)) if kind == "bits" else array.astype(KINDS[kind])
        self._append(name, stored, {"kind": kind, "shape": list(array.shape)})

    def add_map(self, name: str, array: Array) -> None:
        """Add a map (channels, height, width) for looking at: 256 steps between each channel's extremes."""
        low, high = array.min(axis=(1, 2)), array.max(axis=(1, 2))
        step = np.where(high > low, high - low, 1.0) / 255
        stored = np.rint((array - low[:, None, None]) / step[:, None, None]).astype(np.uint8)
        ranges = {"low": [float(f"{x:.6g}") for x in low], "step": [float(f"{x:.6g}") for x in step]}
        self._append(name, stored, {"kind": "u1", "shape": list(array.shape), **ranges})

    def _append(self, name: str, stored: Array, entry: dict[str, Any]) -> None:
        raw = np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("<")).tobytes()
        entry |= {"crc": zlib.crc32(raw), "data": base64.b64encode(raw).decode()}
        self.entries[name] = entry
        self.size += len(entry["data"]) + 120

    def remove(self, names: Iterable[str]) -> None:
        """Take arrays out again."""
        for name in names:
            self.size -= len(self.entries.pop(name)["data"]) + 120
