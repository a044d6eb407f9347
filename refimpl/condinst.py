"""CondInst (Tian et al., ECCV 2020): each location predicts a class, a box, and a network for its mask.

Layout, names and constants are those of https://github.com/aim-uofa/AdelaiDet. `refimpl.dynamic_masks`
follows the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refimpl import ops
from refimpl.backbone import BackboneSpec, local_maps
from refimpl.config import MobileInstConfig
from refimpl.errors import ShapeError
from refimpl.layers import conv, conv_bn
from refimpl.ops.operation import Array
from refimpl.predictions import NamedOutputs
from refimpl.pyramid import conv_group_norm, positions_last, pyramid
from refimpl.scope import Scope, block

COARSEST = 32
BRANCH_CONVS = 4
WIDTH = 8
"""Channels inside the networks that the kernels are."""


@dataclass(frozen=True)
class CondInstOutputs(NamedOutputs):
    """Predictions of the locations of all levels, the finest level first, row by row."""

    class_logits: Array  # (B, locations, classes)
    boxes: Array  # (B, locations, 4), distances to left, top, right and bottom, in strides of the level
    centerness: Array  # (B, locations, 1), logits
    kernels: Array  # (B, locations, kernel_size)
    mask_features: Array  # (B, kernel_dim, H/8, W/8)


def kernel_size(features: int) -> int:
    """Return how many numbers the three layers of a mask's network have: weights, then biases."""
    return (features + 2) * WIDTH + WIDTH * WIDTH + WIDTH + 2 * WIDTH + 1


def condinst(images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec) -> CondInstOutputs:
    """Images (B, 3, H, W) → predictions of every location.

    Raises
    ------
    ShapeError
        A side is no multiple of 32, to which the public code pads.
    """
    if images.shape[2] % COARSEST or images.shape[3] % COARSEST:
        raise ShapeError(f"images have shape {images.shape}; CondInst needs sides that are multiples of 32")
    maps = local_maps(images, w / "backbone" / "bottom_up", spec)  # 1/8 to 1/32
    levels = pyramid(maps, w / "backbone", "fpn_lateral{}", "fpn_output{}", config.dim, first=3)
    further = coarser_levels(levels[-1], w / "backbone" / "top_block", config.dim)  # 1/64, 1/128
    generator, controller = w / "proposal_generator", w / "controller"
    found = location_heads([*levels, *further], generator, controller, config)
    classes, boxes, centerness, kernels = found
    features = mask_branch(levels, w / "mask_branch", config)
    return CondInstOutputs(classes, boxes, centerness, kernels, features)


@block
def coarser_levels(x: Array, w: Scope, dim: int) -> list[Array]:
    """The level at 1/32 → levels at 1/64 and 1/128, by convolutions of stride 2."""
    p6 = conv(x, w / "p6", dim, kernel=3, stride=2)
    return [p6, conv(ops.relu(p6), w / "p7", dim, kernel=3, stride=2)]


@block
def location_heads(
    levels: Sequence[Array], w: Scope, controller: Scope, config: MobileInstConfig
) -> list[Array]:
    """Levels (B, dim, h, w) → classes, boxes, centerness and kernels of all locations."""
    head = w / "fcos_head"
    found = [location_head(x, head, controller, i, config) for i, x in enumerate(levels)]
    return [ops.concat(*parts, axis=1) for parts in zip(*found, strict=True)]


@block
def location_head(
    x: Array, w: Scope, controller: Scope, level: int, config: MobileInstConfig
) -> tuple[Array, Array, Array, Array]:
    """One level (B, dim, h, w) → predictions (B, hw, ·); all share weights but for a scale of the boxes."""
    classes, boxes = (tower(x, w / name, config) for name in ("cls_tower", "bbox_tower"))
    distances = ops.mul(
        conv(boxes, w / "bbox_pred", 4, kernel=3), (w / "scales" / level)["scale", 1]
    )  # (B, 4, h, w)
    parts = (
        conv(classes, w / "cls_logits", config.num_classes, kernel=3),
        ops.relu(distances),
        conv(boxes, w / "ctrness", 1, kernel=3),
        conv(boxes, controller, kernel_size(config.kernel_dim), kernel=3),
    )
    classes, boxes, centerness, kernels = (positions_last(part) for part in parts)
    return classes, boxes, centerness, kernels


def tower(x: Array, w: Scope, config: MobileInstConfig) -> Array:
    """``head_convs`` × (3×3 convolution, group norm, ReLU), numbered as a sequence of the three."""
    for i in range(config.head_convs):
        x = conv_group_norm(x, w, config.dim, 3, config.norm_groups, (str(3 * i), str(3 * i + 1)))
    return x


@block
def mask_branch(levels: Sequence[Array], w: Scope, config: MobileInstConfig) -> Array:
    """Levels at 1/8 to 1/32 → their sum at 1/8, convolved: mask features (B, kernel_dim, H/8, W/8)."""
    refined = [conv_norm_relu(x, w / "refine" / i, config.mask_dim) for i, x in enumerate(levels)]
    total = refined[0]
    for i, x in enumerate(refined[1:], start=1):
        total = ops.add(total, aligned_bilinear(x, 2**i))  # (B, mask_dim, H/8, W/8)
    for i in range(BRANCH_CONVS):
        total = conv_norm_relu(total, w / "tower" / i, config.mask_dim)
    return conv(total, w / "tower" / BRANCH_CONVS, config.kernel_dim)


@block
def conv_norm_relu(x: Array, w: Scope, out: int) -> Array:
    """A 3×3 convolution, batch norm and ReLU, numbered as a sequence."""
    return ops.relu(conv_bn(x, w, out, kernel=3, names=("0", "1")))


def aligned_bilinear(x: Array, factor: int) -> Array:
    """Magnify (B, C, h, w) by a whole factor so that element 0 of the result stays at element 0.

    Bilinear between elements ``factor`` apart, the last repeated once; then moved down and right by half a
    factor, the first row and column repeated.
    """
    height, width = x.shape[2:]
    x = ops.pad(x, (0, 0, 0, 0, 0, 0, 1, 1), mode="edge")  # (B, C, h + 1, w + 1)
    sizes = (*x.shape[:2], factor * height + 1, factor * width + 1)
    x = ops.resize(x, None, None, sizes, mode="linear", coordinate_transformation_mode="align_corners")
    x = ops.pad(x, (0, 0, factor // 2, factor // 2, 0, 0, 0, 0), mode="edge")
    return ops.slice_(x, (0, 0), (factor * height, factor * width), (2, 3))
