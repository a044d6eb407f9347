"""The rivals of the paper's Table 1 with few channels, and weights for them that need no calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl import MobileInstConfig
from refimpl.backbone import BackboneSpec
from refimpl.config import PRESETS
from refimpl.model import WITH_QUERIES, parameter_shapes
from refimpl.ops.operation import Array

RIVALS = [name for name, fields in PRESETS.items() if fields.get("architecture") not in (None, *WITH_QUERIES)]
NARROW: dict[str, dict[str, Any]] = {
    "solov2": {
        "dim": 8,
        "head_dim": 8,
        "mask_dim": 8,
        "kernel_dim": 4,
        "norm_groups": 2,
        "num_classes": 3,
        "grids": (5, 4, 3, 2, 1),
    },
    "yolact": {"dim": 8, "head_dim": 8, "mask_dim": 8, "kernel_dim": 4, "num_classes": 3},
    "maskrcnn": {"dim": 8, "head_dim": 16, "mask_dim": 8, "num_classes": 3},
    "condinst": {"dim": 8, "mask_dim": 8, "kernel_dim": 2, "norm_groups": 2, "num_classes": 3},
}


def narrow(preset: str) -> MobileInstConfig:
    """The preset with few channels behind its backbone."""
    return MobileInstConfig.preset(preset, **NARROW[PRESETS[preset]["architecture"]])


def drawn_weights(config: MobileInstConfig, spec: BackboneSpec | None = None) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in parameter_shapes(config, spec).items():
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            weights[name] = rng.uniform(0.5, 2.0, shape)
        else:
            weights[name] = rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
    return weights
