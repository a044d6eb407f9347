"""The forward pass (Figure 3): backbone, both decoders, and masks as kernels times mask features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import get_type_hints

import numpy as np

from refimpl import ops
from refimpl.backbone import BACKBONE_SPECS, BackboneSpec, backbone
from refimpl.blank import BlankInterceptor
from refimpl.condinst import condinst
from refimpl.config import MobileInstConfig
from refimpl.fpn import feature_pyramid, mask_branch
from refimpl.instance_decoder import instance_decoder
from refimpl.layers import resize
from refimpl.mask_decoder import mask_decoder
from refimpl.maskrcnn import ask_for_heads, maskrcnn
from refimpl.ops.operation import Array, intercepted
from refimpl.predictions import NamedOutputs
from refimpl.scope import DeclaringScope, Scope, block
from refimpl.solov2 import solov2
from refimpl.sparseinst import sparseinst
from refimpl.topformer import Features
from refimpl.yolact import yolact


@dataclass(frozen=True)
class Outputs(NamedOutputs):
    """What the network predicts, as logits; N queries.

    MobileInst's masks are at 1/8 of the input. SparseInst's are at 1/4, resized; its dim is the
    configuration's ``kernel_dim``, and it has no global queries.
    """

    class_logits: Array  # (B, N, classes)
    objectness: Array  # (B, N, 1)
    kernels: Array  # (B, N, dim)
    mask_features: Array  # (B, dim, H/8, W/8)
    masks: Array  # (B, N, H/8, W/8) or (B, N, H/4, W/4)
    global_queries: Array | None = None  # (B, N, dim), what temporal query passing passes on


def forward(
    images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec | None = None
) -> NamedOutputs:
    """Images (B, 3, H, W) → predictions, by the network the configuration names.

    Parameters
    ----------
    images, w, config
        The pictures, the root of the weights, and which network.
    spec
        A backbone in place of the one that ``config`` names.
    """
    return NETWORKS[config.architecture](images, w, config, spec or BACKBONE_SPECS[config.backbone])


def forward_mobileinst(images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec) -> Outputs:
    """Figure 3."""
    x_mask, features = mask_features(images, w, config, spec)  # (B, dim, H/8, W/8), and X3 to X6
    instances = instance_decoder(features.x6, x_mask, w / "instance_decoder", config)
    masks = dot_product(instances.kernels, x_mask, w / "masks")  # (B, N, H/8, W/8)
    class_logits, objectness, kernels, q_g = instances
    return Outputs(class_logits, objectness, kernels, x_mask, masks, q_g)


def mask_features(
    images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec
) -> tuple[Array, Features]:
    """Images → mask features X_mask (B, dim, H/8, W/8) and the backbone's features; each frame needs both."""
    features = backbone(images, w / "backbone", spec)
    return decode_masks(features, w / "mask_decoder", config), features


def forward_sparseinst(images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec) -> Outputs:
    """SparseInst: masks as the product of kernels and mask features, resized to twice their size."""
    instances = sparseinst(images, w, config, spec)
    masks = dot_product(instances.kernels, instances.mask_features, w / "decoder" / "masks")
    return Outputs(*instances, double(masks, w / "masks"))  # masks (B, N, H/8, W/8) → (B, N, H/4, W/4)


NETWORKS: Mapping[str, Callable[[Array, Scope, MobileInstConfig, BackboneSpec], NamedOutputs]] = {
    "mobileinst": forward_mobileinst,
    "sparseinst": forward_sparseinst,
    "solov2": solov2,
    "condinst": condinst,
    "yolact": yolact,
    "maskrcnn": maskrcnn,
}
"""Architecture → its forward pass."""


def output_names(architecture: str) -> tuple[str, ...]:
    """Return the names of what a network of that architecture gives, those that are not always there too."""
    return tuple(field.name for field in fields(get_type_hints(NETWORKS[architecture])["return"]))


@block
def double(masks: Array, w: Scope) -> Array:
    """Resize to twice the size: (B, N, h, w) → (B, N, 2h, 2w)."""
    return resize(masks, 2 * masks.shape[2], 2 * masks.shape[3])


def decode_masks(features: Features, w: Scope, config: MobileInstConfig) -> Array:
    """Features → mask features (B, dim, H/8, W/8), by the mask decoder the configuration names."""
    if config.mask_decoder in ("fpn", "sparseinst"):
        return baseline_mask_decoder(features, w, config)
    return mask_decoder(features, w, config.dim, enhanced=config.mask_decoder == "semantic_enhanced")


@block
def baseline_mask_decoder(features: Features, w: Scope, config: MobileInstConfig) -> Array:
    """What the paper compares with (Table 5): a feature pyramid, with SparseInst's pooling or without."""
    pooled = config.mask_decoder == "sparseinst"
    fused = feature_pyramid((features.x3, features.x4, features.x5), w, config.dim, pooled)
    return mask_branch(fused, w, config.mask_convs, config.dim, config.dim)  # (B, dim, H/8, W/8)


@block
def dot_product(kernels: Array, mask_features: Array, w: Scope) -> Array:
    """M = K · X_mask (paper 3.3): (B, N, dim) and (B, dim, h, w) → (B, N, h, w)."""
    batch, dim, height, width = mask_features.shape
    positions = ops.reshape(mask_features, (batch, dim, height * width))  # (B, dim, hw)
    masks = ops.mat_mul(kernels, positions)  # (B, N, hw)
    return ops.reshape(masks, (batch, kernels.shape[1], height, width))  # (B, N, h, w)


@functools.lru_cache(maxsize=64)
def parameter_shapes(
    config: MobileInstConfig, spec: BackboneSpec | None = None
) -> Mapping[str, tuple[int, ...]]:
    """Return the name and shape of every weight, in order of use, as the network itself asks for them.

    See `forward` for the arguments.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with intercepted(BlankInterceptor()):
        forward(np.zeros((1, 3, 64, 64), np.float32), DeclaringScope(shapes), config, spec)
        if config.architecture == "maskrcnn":
            ask_for_heads(DeclaringScope(shapes), config)
    return MappingProxyType(shapes)
