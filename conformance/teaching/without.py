"""A network with a part taken away that it was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.teaching.taught import Taught
from refimpl import MobileInst
from refimpl.ops.operation import Array

LARGE = 1e3
"""A hard sigmoid of it is 1."""


def without_enhancer(frame: Taught) -> Iterator[tuple[str, Array]]:
    """Yield what is missing, and the mask logits (N, h, w): the gate always open, no shift, neither.

    X6 speaks through the last batch norms of the two branches; with scale 0 their bias alone is left.
    """
    images = frame.recording.tensors[frame.recording.inputs["images"]]
    for name, closed in (
        ("no gate", {"global_act": LARGE}),
        ("no shift", {"global_embedding": 0.0}),
        ("neither", {"global_act": LARGE, "global_embedding": 0.0}),
    ):
        network = MobileInst(frame.network.config, _closed(frame.network.weights, closed))
        yield name, network(images).masks[0]


def _closed(weights: Mapping[str, Array], closed: Mapping[str, float]) -> dict[str, Array]:
    """Return the weights with the branches' batch norms replaced by constants."""
    changed = dict(weights)
    for name, array in weights.items():
        for branch, value in closed.items():
            if f".{branch}.bn.weight" in name:
                changed[name] = np.zeros_like(array)
            elif f".{branch}.bn.bias" in name:
                changed[name] = np.full_like(array, value)
    return changed
