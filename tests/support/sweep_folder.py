"""What a sweep is tried on: the narrow network, its weights, and rendered pictures."""

from __future__ import annotations

from pathlib import Path

import onnx
from narrow_network import SIZE, exported, weights

from conformance.pictures.picture import write_picture
from refimpl.scenes import render_picture


def fill(place: Path, count: int) -> None:
    """Write n.onnx, w.npz and pictures/0.png, … into a folder."""
    weights().save(place / "w.npz")
    onnx.save(exported(), place / "n.onnx")
    (place / "pictures").mkdir()
    for seed in range(count):
        write_picture(place / "pictures" / f"{seed}.png", render_picture(*SIZE, seed))
