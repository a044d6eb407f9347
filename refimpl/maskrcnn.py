"""Mask R-CNN (He et al., ICCV 2017), on a feature pyramid: proposals, and heads on regions chosen of them.

Layout, names and constants are those of torchvision, https://github.com/pytorch/vision. The network gives its
first stage; `refimpl.two_stage` chooses regions and runs the heads on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refimpl import ops
from refimpl.backbone import BackboneSpec, all_maps
from refimpl.config import MobileInstConfig
from refimpl.layers import conv, linear
from refimpl.ops.operation import Array
from refimpl.predictions import NamedOutputs
from refimpl.pyramid import every_second, pyramid
from refimpl.scope import Scope, block
from refimpl.yolact import of_priors

BOX_CELLS, MASK_CELLS = 7, 14
SAMPLES = 2
MASK_CONVS = 4
LEVELS = (2, 3, 4, 5)


@dataclass(frozen=True)
class ProposalOutputs(NamedOutputs):
    """What the first stage predicts for the anchors of all levels, the finest first; and the levels."""

    objectness: Array  # (B, anchors, 1), logits
    boxes: Array  # (B, anchors, 4), how an anchor's centre and size change
    level2: Array  # (B, dim, H/4, W/4)
    level3: Array  # (B, dim, H/8, W/8)
    level4: Array  # (B, dim, H/16, W/16)
    level5: Array  # (B, dim, H/32, W/32)


def maskrcnn(images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec) -> ProposalOutputs:
    """Images (B, 3, H, W) → the first stage."""
    maps = all_maps(images, w / "backbone" / "body", spec)  # 1/4 to 1/32
    names = "inner_blocks.{}.0", "layer_blocks.{}.0"
    levels = pyramid(maps, w / "backbone" / "fpn", *names, config.dim)
    objectness, boxes = proposal_heads(levels, w / "rpn" / "head", config.dim)
    return ProposalOutputs(objectness, boxes, *levels)


@block
def proposal_heads(levels: Sequence[Array], w: Scope, dim: int) -> list[Array]:
    """Levels at 1/4 to 1/32 → objectness and boxes of all anchors, also of every second position of 1/32."""
    found = [proposal_head(x, w, dim) for x in (*levels, every_second(levels[-1]))]
    return [ops.concat(*parts, axis=1) for parts in zip(*found, strict=True)]


def proposal_head(x: Array, w: Scope, dim: int) -> tuple[Array, Array]:
    """One level (B, dim, h, w) → (B, 3·hw, ·); all share weights."""
    x = ops.relu(conv(x, w / "conv" / 0 / 0, dim, kernel=3))
    return of_priors(conv(x, w / "cls_logits", 3)), of_priors(conv(x, w / "bbox_pred", 12))


def region_features(levels: Sequence[Array], regions: Sequence[Array], cells: int) -> Array:
    """Sample the first picture's levels in regions: (K, dim, cells, cells), level by level.

    Parameters
    ----------
    levels
        At 1/4 to 1/32.
    regions
        For each level x0, y0, x1, y1 in pixels of the input, (n, 4).
    cells
        Along a side; each is the mean of 2×2 samples.
    """
    found = []
    for number, level, region in zip(LEVELS, levels, regions, strict=True):
        if len(region):
            found.append(
                ops.roi_align(
                    level,
                    region,
                    ops.constant(value=np.zeros(len(region), np.int64)),
                    coordinate_transformation_mode="output_half_pixel",
                    output_height=cells,
                    output_width=cells,
                    sampling_ratio=SAMPLES,
                    spatial_scale=2.0**-number,
                )
            )
    return ops.concat(*found, axis=0)


def classified_regions(
    levels: Sequence[Array], regions: Sequence[Array], w: Scope, config: MobileInstConfig
) -> tuple[Array, Array]:
    """Regions → class logits (K, 1 + classes), the background's first, and boxes (K, 4·(1 + classes)).

    See `region_features` for the arguments.
    """
    heads = w / "roi_heads"
    sampled = region_features(levels, regions, BOX_CELLS)
    x = ops.reshape(sampled, (sampled.shape[0], config.dim * BOX_CELLS * BOX_CELLS))
    x = ops.relu(linear(x, heads / "box_head" / "fc6", config.head_dim))
    x = ops.relu(linear(x, heads / "box_head" / "fc7", config.head_dim))
    classes, predictor = 1 + config.num_classes, heads / "box_predictor"
    return linear(x, predictor / "cls_score", classes), linear(x, predictor / "bbox_pred", 4 * classes)


def masked_regions(
    levels: Sequence[Array], regions: Sequence[Array], w: Scope, config: MobileInstConfig
) -> Array:
    """Regions → mask logits (K, 1 + classes, 28, 28) within them; see `region_features`."""
    heads = w / "roi_heads"
    x = region_features(levels, regions, MASK_CELLS)
    for i in range(MASK_CONVS):
        x = ops.relu(conv(x, heads / "mask_head" / i / 0, config.mask_dim, kernel=3))
    x = ops.relu(doubled(x, heads / "mask_predictor" / "conv5_mask", config.mask_dim))
    return conv(x, heads / "mask_predictor" / "mask_fcn_logits", 1 + config.num_classes)


@block
def doubled(x: Array, w: Scope, out: int) -> Array:
    """A transposed 2×2 convolution of stride 2: (K, C, h, w) → (K, out, 2h, 2w)."""
    weight = w["weight", x.shape[1], out, 2, 2]
    return ops.conv_transpose(x, weight, w["bias", out], kernel_shape=(2, 2), strides=(2, 2))


def ask_for_heads(w: Scope, config: MobileInstConfig) -> None:
    """Run the heads on one blank region, so that a `refimpl.scope.DeclaringScope` learns of their weights."""
    levels = [np.zeros((1, config.dim, 2, 2), np.float32)] * len(LEVELS)
    regions = [np.ones((1, 4), np.float32)] + [np.zeros((0, 4), np.float32)] * 3
    classified_regions(levels, regions, w, config)
    masked_regions(levels, regions, w, config)
