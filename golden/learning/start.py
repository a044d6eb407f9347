"""Where a run starts: from nothing, or from weights, of which another instance decoder takes only a part."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from golden.learning.network import Student
from refimpl import MobileInstConfig
from refimpl.errors import WeightsError

Array = NDArray[Any]
DECODER = "instance_decoder."


def digest(weights: Mapping[str, Array]) -> str:
    """Return one SHA-256 over names and numbers."""
    total = sha256()
    for name in sorted(weights):
        total.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return total.hexdigest()


def starting_weights(given: Mapping[str, Array], config: MobileInstConfig, seed: int) -> dict[str, Array]:
    """Return weights for a network from another's.

    If the instance decoders differ, the whole decoder begins anew from the seed.

    Raises
    ------
    WeightsError
        Backbone or mask decoder differ.
    """
    torch.manual_seed(seed)
    state = Student(config).network.state_dict()
    fresh = {name: tensor.numpy() for name, tensor in state.items() if tensor.is_floating_point()}
    differing = [name for name in fresh.keys() | given.keys() if _shape(fresh, name) != _shape(given, name)]
    elsewhere = sorted(name for name in differing if not name.startswith(DECODER))
    if elsewhere:
        raise WeightsError(
            f"the weights to start from are of another network: {', '.join(elsewhere[:5])} differ; give the "
            "same --model and --set"
        )
    kept = {name for name in fresh if not (differing and name.startswith(DECODER))}
    return {name: np.asarray(given[name] if name in kept else fresh[name], np.float32) for name in fresh}


def _shape(arrays: Mapping[str, Array], name: str) -> tuple[int, ...] | None:
    return arrays[name].shape if name in arrays else None
