"""Tensors that a candidate shows and that are like none of the network's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refimpl.ops.operation import Array

MOST = 5
"""How many are named."""


def not_finite(tensors: Mapping[str, Array]) -> list[str]:
    """Say which tensors hold NaN or infinity: no step of the network does."""
    counts = {name: _not_finite(array) for name, array in tensors.items()}
    return [
        f"its tensor {name!r} has {count} of {tensors[name].size} numbers that are NaN or infinite"
        for name, count in counts.items()
        if count
    ][:MOST]


def like_nothing(tensors: Mapping[str, Array], shown: int) -> str:
    """Say in one line which of the tensors ``shown`` are like none of the network's, and what is in them."""
    named = [f"{name} ({_content(array)})" for name, array in list(tensors.items())[:MOST]]
    more = f" and {len(tensors) - MOST} more" if len(tensors) > MOST else ""
    return (
        f"{len(tensors)} of {shown} tensors that it shows are like none of the network's, and not judged: "
        f"{', '.join(named)}{more}"
    )


def _not_finite(array: Array) -> int:
    return int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind == "f" else 0


def _content(array: Array) -> str:
    shape = "×".join(map(str, array.shape)) or "scalar"
    if array.size and (array == array.flat[0]).all():
        return f"{shape}, all {array.flat[0]:g}"
    return shape
