"""The backbones by name, and what each network reads of them."""

from __future__ import annotations

from collections.abc import Mapping

from refimpl.errors import ConfigurationError
from refimpl.mobilenet import MOBILENETS, MobileNetSpec, mobilenet
from refimpl.ops.operation import Array
from refimpl.resnet import RESNETS, ResNetSpec, resnet
from refimpl.scope import Scope
from refimpl.seaformer import SEAFORMERS, SeaFormerSpec, seaformer
from refimpl.topformer import TOPFORMERS, Features, TopFormerSpec, token_pyramid, topformer

BackboneSpec = TopFormerSpec | SeaFormerSpec | ResNetSpec | MobileNetSpec
BACKBONE_SPECS: Mapping[str, BackboneSpec] = {**TOPFORMERS, **SEAFORMERS, **RESNETS, **MOBILENETS}
"""What the configuration's ``backbone`` names."""


def backbone(images: Array, w: Scope, spec: BackboneSpec) -> Features:
    """Images (B, 3, H, W) → X3, X4, X5 and X6, for MobileInst.

    Raises
    ------
    ConfigurationError
        The backbone is ResNet or MobileNet, which have no global features.
    """
    if isinstance(spec, TopFormerSpec):
        return topformer(images, w, spec)
    if isinstance(spec, SeaFormerSpec):
        return seaformer(images, w, spec)
    raise ConfigurationError(
        "only TopFormer and SeaFormer have the global features X6, which MobileInst reads; "
        "give a TopFormerSpec or a SeaFormerSpec"
    )


def all_maps(images: Array, w: Scope, spec: BackboneSpec) -> tuple[Array, Array, Array, Array]:
    """Images (B, 3, H, W) → the maps at 1/4, 1/8, 1/16 and 1/32; of TopFormer, the token pyramid's.

    Raises
    ------
    ConfigurationError
        The backbone is SeaFormer.
    """
    if isinstance(spec, ResNetSpec):
        return resnet(images, w, spec)
    if isinstance(spec, MobileNetSpec):
        return mobilenet(images, w, spec)
    if isinstance(spec, TopFormerSpec):
        x2, x3, x4, x5 = token_pyramid(images, w / "tpm", spec)
        return x2, x3, x4, x5
    raise ConfigurationError(
        "only MobileInst has the backbone SeaFormer; give a TopFormerSpec, a ResNetSpec or a MobileNetSpec"
    )


def local_maps(images: Array, w: Scope, spec: BackboneSpec) -> tuple[Array, Array, Array]:
    """Images (B, 3, H, W) → X3, X4 and X5, at 1/8, 1/16 and 1/32, as `all_maps`."""
    return all_maps(images, w, spec)[1:]
