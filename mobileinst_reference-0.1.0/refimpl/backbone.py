"""The backbones by name, and what each network reads of them."""

from __future__ import annotations

from collections.abc import Mapping

from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array
from refimpl.resnet import RESNETS, ResNetSpec, resnet
from refimpl.scope import Scope
from refimpl.seaformer import SEAFORMERS, SeaFormerSpec, seaformer
from refimpl.topformer import TOPFORMERS, Features, TopFormerSpec, token_pyramid, topformer

BackboneSpec = TopFormerSpec | SeaFormerSpec | ResNetSpec
BACKBONE_SPECS: Mapping[str, BackboneSpec] = {**TOPFORMERS, **SEAFORMERS, **RESNETS}
"""What the configuration's ``backbone`` names."""


def backbone(images: Array, w: Scope, spec: BackboneSpec) -> Features:
    """Images (B, 3, H, W) → X3, X4, X5 and X6, for MobileInst.

    Raises
    ------
    ConfigurationError
        The backbone is ResNet, which has no global features.
    """
    if isinstance(spec, TopFormerSpec):
        return topformer(images, w, spec)
    if isinstance(spec, SeaFormerSpec):
        return seaformer(images, w, spec)
    raise ConfigurationError(
        "ResNet has no global features X6, which MobileInst reads; give a TopFormerSpec or a SeaFormerSpec"
    )


def local_maps(images: Array, w: Scope, spec: BackboneSpec) -> tuple[Array, Array, Array]:
    """Images (B, 3, H, W) → X3, X4 and X5, for SparseInst; of TopFormer, the token pyramid's.

    Raises
    ------
    ConfigurationError
        The backbone is SeaFormer.
    """
    if isinstance(spec, ResNetSpec):
        return resnet(images, w, spec)
    if isinstance(spec, TopFormerSpec):
        _, x3, x4, x5 = token_pyramid(images, w / "tpm", spec)
        return x3, x4, x5
    raise ConfigurationError("SparseInst has no backbone SeaFormer; give a TopFormerSpec or a ResNetSpec")
