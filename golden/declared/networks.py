"""Whole networks of micro width, with every named tensor.

The second size is the least that the networks admit (multiples of 32) with sides that differ and are both odd
at 1/32: 3×5, and 2×3 at 1/64. No resize of global features, no adaptive pooling and no 8×8 window fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

from golden.case import Golden
from golden.declared.part import Compute, Part
from golden.micro import MICRO, MICRO_RESNET, MICRO_SEAFORMER, MICRO_SPARSEINST, MICRO_TOPFORMER
from refimpl.config import MobileInstConfig
from refimpl.model import Outputs, forward
from refimpl.ops.operation import Array
from refimpl.resnet import RESNETS
from refimpl.scope import Scope
from refimpl.seaformer import SEAFORMERS
from refimpl.topformer import (
    TOPFORMERS,
)


def _narrow(specs: dict[str, Any], spec: Any, config: MobileInstConfig) -> Compute:
    """The network of a configuration, its backbone's preset narrowed to ``spec`` while it runs."""

    def compute(images: Array, w: Scope) -> Outputs:
        with mock.patch.dict(specs, {config.backbone: spec}):
            return forward(images, w, config)

    return compute


SIZES = ((64, 128), (96, 160))

PARTS = (
    *(
        Part(
            f"models/{name}_{height}x{width}",
            "refimpl.model.forward",
            (1, 3, height, width),
            compute,
            f"{title} of micro width, every named tensor: the first wrong one names the place",
            covers,
            every_tensor=True,
        )
        for name, title, compute, covers in (
            (
                "topformer",
                "MobileInst with TopFormer",
                _narrow(TOPFORMERS, MICRO_TOPFORMER, MICRO),
                (
                    "refimpl.topformer.topformer",
                    "refimpl.model.forward_mobileinst",
                    "refimpl.model.backbone",
                    "refimpl.model.mask_features",
                ),
            ),
            (
                "seaformer",
                "MobileInst with SeaFormer",
                _narrow(SEAFORMERS, MICRO_SEAFORMER, replace(MICRO, backbone="seaformer-tiny")),
                ("refimpl.seaformer.seaformer", "refimpl.seaformer.stage", "refimpl.seaformer.transformer"),
            ),
            (
                "sparseinst",
                "SparseInst with TopFormer",
                _narrow(TOPFORMERS, MICRO_TOPFORMER, MICRO_SPARSEINST),
                (
                    "refimpl.sparseinst.sparseinst",
                    "refimpl.sparseinst.local_maps",
                    "refimpl.model.forward_sparseinst",
                ),
            ),
            (
                "sparseinst_resnet",
                "SparseInst with ResNet-50",
                _narrow(RESNETS, MICRO_RESNET, replace(MICRO_SPARSEINST, backbone="resnet50")),
                ("refimpl.resnet.resnet",),
            ),
        )
        for height, width in SIZES
        # SparseInst and the token pyramid are at the second size in the networks around this one.
        if name != "sparseinst" or height == 64
    ),
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of networks."""
    for part in PARTS:
        yield part.golden()
