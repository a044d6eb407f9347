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
CANONICAL_SIDE, CANONICAL_LEVEL, NUDGE = 224, 4, 1e-6
"""Of that side a region is sampled on that level, less what rounding may cost it, in levels."""


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
    found = [
        sampled(level, number, region, cells)
        for number, level, region in zip(LEVELS, levels, regions, strict=True)
        if len(region)
    ]
    return ops.concat(*found, axis=0)


def sampled(level: Array, number: int, regions: Array, cells: int) -> Array:
    """One level (1, dim, h, w) in regions (K, 4): (K, dim, cells, cells); see `region_features`."""
    return ops.roi_align(
        level,
        regions,
        ops.constant(value=np.zeros(len(regions), np.int64)),
        coordinate_transformation_mode="output_half_pixel",
        output_height=cells,
        output_width=cells,
        sampling_ratio=SAMPLES,
        spatial_scale=2.0**-number,
    )


def assigned_features(levels: Sequence[Array], regions: Array, cells: int) -> Array:
    """Sample regions (K, 4) in one graph, whatever their sizes: (K, dim, cells, cells).

    Each is sampled on every level, and the level that its area stands for is taken, so that how many are on a
    level is no shape. See `region_features`.
    """
    first, last = (ops.slice_(regions, (i,), (i + 2,), (1,)) for i in (0, 2))
    sides = ops.sub(last, first)  # (K, 2)
    width, height = (ops.slice_(sides, (i,), (i + 1,), (1,)) for i in (0, 1))
    areas = ops.reshape(ops.mul(width, height), (regions.shape[0], 1, 1, 1))
    finest, *coarser = (
        sampled(level, number, regions, cells) for number, level in zip(LEVELS, levels, strict=True)
    )
    for place, each in enumerate(coarser, start=1):
        finest = ops.where(ops.greater_or_equal(areas, least_area(place)), each, finest)
    return finest


def least_area(place: int) -> float:
    """Return the area from which a region is sampled on that level (0…3) or a coarser one."""
    side: float = CANONICAL_SIDE * 2.0 ** (LEVELS[place] - CANONICAL_LEVEL - NUDGE)
    return side * side


def classified(features: Array, w: Scope, config: MobileInstConfig) -> tuple[Array, Array]:
    """Regions' features → class logits and boxes, as in `RegionOutputs`.

    Parameters
    ----------
    features
        (K, dim, 7, 7).
    """
    heads = w / "roi_heads"
    x = ops.reshape(features, (features.shape[0], config.dim * BOX_CELLS * BOX_CELLS))
    x = ops.relu(linear(x, heads / "box_head" / "fc6", config.head_dim))
    x = ops.relu(linear(x, heads / "box_head" / "fc7", config.head_dim))
    classes, predictor = 1 + config.num_classes, heads / "box_predictor"
    return linear(x, predictor / "cls_score", classes), linear(x, predictor / "bbox_pred", 4 * classes)


def masked(features: Array, w: Scope, config: MobileInstConfig) -> Array:
    """Regions' features (K, dim, 14, 14) → mask logits (K, 1 + classes, 28, 28) within them."""
    heads, x = w / "roi_heads", features
    for i in range(MASK_CONVS):
        x = ops.relu(conv(x, heads / "mask_head" / i / 0, config.mask_dim, kernel=3))
    x = ops.relu(doubled(x, heads / "mask_predictor" / "conv5_mask", config.mask_dim))
    return conv(x, heads / "mask_predictor" / "mask_fcn_logits", 1 + config.num_classes)


def classified_regions(
    levels: Sequence[Array], regions: Sequence[Array], w: Scope, config: MobileInstConfig
) -> tuple[Array, Array]:
    """Regions of each level → `classified`; see `region_features`."""
    return classified(region_features(levels, regions, BOX_CELLS), w, config)


def masked_regions(
    levels: Sequence[Array], regions: Sequence[Array], w: Scope, config: MobileInstConfig
) -> Array:
    """Regions of each level → `masked`; see `region_features`."""
    return masked(region_features(levels, regions, MASK_CELLS), w, config)


@dataclass(frozen=True)
class RegionOutputs(NamedOutputs):
    """What the second stage predicts of regions."""

    class_logits: Array  # (K, 1 + classes), the background's first
    boxes: Array  # (K, 4·(1 + classes)), how a region's centre and size change
    masks: Array  # (K, 1 + classes, 28, 28), logits


def region_heads(
    levels: Sequence[Array], regions: Array, w: Scope, config: MobileInstConfig
) -> RegionOutputs:
    """The second stage as one graph, for export: levels (1, dim, …) and regions (K, 4) → predictions.

    Without what depends on the picture: that masks are asked only of what the classes and boxes leave.
    """
    class_logits, boxes = classified(assigned_features(levels, regions, BOX_CELLS), w, config)
    return RegionOutputs(
        class_logits, boxes, masked(assigned_features(levels, regions, MASK_CELLS), w, config)
    )


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
