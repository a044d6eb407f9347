"""Weights by name, such as the reference's, into the modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def load(module: Module, weights: Mapping[str, np.ndarray]) -> Module:
    """Give `module` exactly these weights, in their dtype and evaluation mode; names must match both ways.

    Batch norm's counters of training batches, which change nothing, keep their values.
    """
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    counters = {
        name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")
    }
    module.to(next(iter(arrays.values())).dtype).load_state_dict({**arrays, **counters}, strict=True)
    return module.eval().requires_grad_(False)
