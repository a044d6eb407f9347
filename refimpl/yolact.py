"""YOLACT (Bolya et al., ICCV 2019): prototype masks, and for every prior box the weights of their sum.

Layout, names and constants are those of https://github.com/dbolya/yolact. `refimpl.fast_nms` follows the
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refimpl import ops
from refimpl.backbone import BackboneSpec, local_maps
from refimpl.config import MobileInstConfig
from refimpl.layers import conv, resize
from refimpl.ops.operation import Array
from refimpl.predictions import NamedOutputs
from refimpl.scope import Scope, block

RATIOS = (1.0, 0.5, 2.0)
"""Of the priors at every position."""


@dataclass(frozen=True)
class YolactOutputs(NamedOutputs):
    """Predictions of the priors of all levels, the finest level first, row by row."""

    class_logits: Array  # (B, priors, 1 + classes), the background's first
    boxes: Array  # (B, priors, 4), how the prior's centre and size change
    coefficients: Array  # (B, priors, kernel_dim), −1…1
    prototypes: Array  # (B, kernel_dim, H/4, W/4), not negative


def yolact(images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec) -> YolactOutputs:
    """Images (B, 3, H, W) → predictions of every prior; any size is computed, the paper's is 550×550."""
    maps = local_maps(images, w / "backbone", spec)  # 1/8 to 1/32
    levels = bilinear_pyramid(maps, w / "fpn", config.dim)  # (B, dim, …), 1/8 to 1/128
    prototypes = prototype_masks(levels[0], w / "proto_net", config)
    class_logits, boxes, coefficients = prior_heads(levels, w / "prediction_layers", config)
    return YolactOutputs(class_logits, boxes, coefficients, prototypes)


@block
def bilinear_pyramid(maps: Sequence[Array], w: Scope, dim: int) -> list[Array]:
    """Maps at 1/8 to 1/32 → five levels; sums are resized bilinearly, weights count from the deepest."""
    total = conv(maps[-1], w / "lat_layers" / 0, dim)
    sums = [total]
    for i, x in enumerate(reversed(maps[:-1]), start=1):
        total = ops.add(resize(total, *x.shape[2:]), conv(x, w / "lat_layers" / i, dim))
        sums.append(total)
    levels = [ops.relu(conv(x, w / "pred_layers" / i, dim, kernel=3)) for i, x in enumerate(sums)][::-1]
    for i in range(2):
        levels.append(conv(levels[-1], w / "downsample_layers" / i, dim, kernel=3, stride=2))
    return levels


@block
def prototype_masks(x: Array, w: Scope, config: MobileInstConfig) -> Array:
    """The level at 1/8 (B, dim, h, w) → prototypes (B, kernel_dim, 2h, 2w), numbered as a sequence."""
    for i in (0, 2, 4):
        x = ops.relu(conv(x, w / i, config.mask_dim, kernel=3))
    x = ops.relu(resize(x, 2 * x.shape[2], 2 * x.shape[3]))
    x = ops.relu(conv(x, w / 8, config.mask_dim, kernel=3))
    return ops.relu(conv(x, w / 10, config.kernel_dim))


@block
def prior_heads(levels: Sequence[Array], w: Scope, config: MobileInstConfig) -> list[Array]:
    """Levels → class logits, boxes and coefficients of all priors; all levels share the first's weights."""
    found = [prior_head(x, w / 0, config) for x in levels]
    return [ops.concat(*parts, axis=1) for parts in zip(*found, strict=True)]


@block
def prior_head(x: Array, w: Scope, config: MobileInstConfig) -> tuple[Array, Array, Array]:
    """One level (B, dim, h, w) → predictions (B, 3·hw, ·)."""
    x = ops.relu(conv(x, w / "upfeature" / 0, config.head_dim, kernel=3))
    boxes = of_priors(conv(x, w / "bbox_layer", len(RATIOS) * 4, kernel=3))
    classes = of_priors(conv(x, w / "conf_layer", len(RATIOS) * (1 + config.num_classes), kernel=3))
    weights = of_priors(conv(x, w / "mask_layer", len(RATIOS) * config.kernel_dim, kernel=3))
    return classes, boxes, ops.tanh(weights)


def of_priors(x: Array) -> Array:
    """Predictions of the priors at every position, row by row: (B, 3·C, h, w) → (B, 3·hw, C)."""
    batch, channels, height, width = x.shape
    moved = ops.transpose(x, perm=(0, 2, 3, 1))  # (B, h, w, 3·C)
    return ops.reshape(moved, (batch, height * width * len(RATIOS), channels // len(RATIOS)))
