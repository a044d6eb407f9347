"""Whole networks of micro width, with every named tensor.

The second size is the least that the networks admit (multiples of 32) with sides that differ and are both odd
at 1/32: 3×5, and 2×3 at 1/64. No resize of global features, no adaptive pooling and no 8×8 window fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from golden.case import Golden
from golden.declared.part import Compute, Part
from golden.micro import (
    MICRO,
    MICRO_CONDINST,
    MICRO_MASKRCNN,
    MICRO_RESNET,
    MICRO_RESNET18,
    MICRO_SEAFORMER,
    MICRO_SOLOV2,
    MICRO_SPARSEINST,
    MICRO_TOPFORMER,
    MICRO_YOLACT,
)
from refimpl.backbone import BackboneSpec
from refimpl.config import MobileInstConfig
from refimpl.forward import forward


def _narrow(config: MobileInstConfig, spec: BackboneSpec) -> Compute:
    """The network of a configuration on a backbone of micro width."""
    return lambda images, w: forward(images, w, config, spec)


SIZES = ((64, 128), (96, 160))
ONLY_HEIGHT = {
    "sparseinst": 64,
    "sparseinst_resnet": 96,
    "solov2": 64,
    "condinst": 64,
    "yolact": 64,
    "maskrcnn": 64,
}

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
                _narrow(MICRO, MICRO_TOPFORMER),
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
                _narrow(replace(MICRO, backbone="seaformer-tiny"), MICRO_SEAFORMER),
                ("refimpl.seaformer.seaformer", "refimpl.seaformer.stage", "refimpl.seaformer.transformer"),
            ),
            (
                "sparseinst",
                "SparseInst with TopFormer",
                _narrow(MICRO_SPARSEINST, MICRO_TOPFORMER),
                (
                    "refimpl.sparseinst.sparseinst",
                    "refimpl.sparseinst.local_maps",
                    "refimpl.model.forward_sparseinst",
                ),
            ),
            (
                "sparseinst_resnet",
                "SparseInst with ResNet-50",
                _narrow(replace(MICRO_SPARSEINST, backbone="resnet50"), MICRO_RESNET),
                ("refimpl.resnet.resnet",),
            ),
            (
                "solov2",
                "SOLOv2 with ResNet-18",
                _narrow(MICRO_SOLOV2, MICRO_RESNET18),
                (
                    *(f"refimpl.solov2.{name}" for name in ("solov2", "grid_heads", "grid_head", "tower")),
                    "refimpl.solov2.mask_features",
                    *(f"refimpl.pyramid.{name}" for name in ("pyramid", "every_second", "conv_group_norm")),
                    "refimpl.pyramid.positions_last",
                    "refimpl.backbone.all_maps",
                    "refimpl.layers.coordinates",
                    "refimpl.layers.group_norm",
                    "refimpl.resnet.basic_block",
                ),
            ),
            (
                "maskrcnn",
                "Mask R-CNN's first stage with ResNet-50",
                _narrow(MICRO_MASKRCNN, MICRO_RESNET),
                tuple(f"refimpl.maskrcnn.{name}" for name in ("maskrcnn", "proposal_heads", "proposal_head")),
            ),
            (
                "yolact",
                "YOLACT with TopFormer",
                _narrow(MICRO_YOLACT, MICRO_TOPFORMER),
                (
                    *(f"refimpl.yolact.{name}" for name in ("yolact", "bilinear_pyramid", "prototype_masks")),
                    *(f"refimpl.yolact.{name}" for name in ("prior_heads", "prior_head", "of_priors")),
                ),
            ),
            (
                "condinst",
                "CondInst with ResNet-50, the stride first",
                _narrow(MICRO_CONDINST, replace(MICRO_RESNET, stride_first=True)),
                tuple(
                    f"refimpl.condinst.{name}"
                    for name in (
                        "condinst",
                        "coarser_levels",
                        "location_heads",
                        "location_head",
                        "tower",
                        "mask_branch",
                        "conv_norm_relu",
                        "aligned_bilinear",
                        "kernel_size",
                    )
                ),
            ),
        )
        for height, width in SIZES
        # What stands at one size only is at the other in the networks around it.
        if height == ONLY_HEIGHT.get(name, height)
    ),
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of networks."""
    for part in PARTS:
        yield part.golden()
