"""SOLOv2 (Wang et al., NeurIPS 2020): each cell of a grid predicts a class, and the kernel of a mask.

Layout, names and constants are those of https://github.com/WXinlong/SOLO. `refimpl.matrix_nms` follows the
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refimpl import ops
from refimpl.backbone import BackboneSpec, all_maps
from refimpl.config import MobileInstConfig
from refimpl.errors import ShapeError
from refimpl.layers import conv, coordinates, resize
from refimpl.ops.operation import Array
from refimpl.predictions import NamedOutputs
from refimpl.pyramid import conv_group_norm, every_second, positions_last, pyramid
from refimpl.scope import Scope, block

NAMES = ("conv", "gn")
COARSEST = 32


@dataclass(frozen=True)
class SoloOutputs(NamedOutputs):
    """Predictions of the cells of all grids, the finest grid first, row by row.

    A mask's logits are its cell's kernel times the mask features.
    """

    class_logits: Array  # (B, cells, classes)
    kernels: Array  # (B, cells, kernel_dim)
    mask_features: Array  # (B, kernel_dim, H/4, W/4)


def solov2(images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec) -> SoloOutputs:
    """Images (B, 3, H, W) → predictions of every cell.

    Raises
    ------
    ShapeError
        A side is no multiple of 32, to which the public code pads.
    """
    if images.shape[2] % COARSEST or images.shape[3] % COARSEST:
        raise ShapeError(f"images have shape {images.shape}; SOLOv2 needs sides that are multiples of 32")
    maps = all_maps(images, w / "backbone", spec)  # 1/4 to 1/32
    names = "lateral_convs.{}.conv", "fpn_convs.{}.conv"
    levels = pyramid(maps, w / "neck", *names, config.dim)  # (B, dim, …), 1/4 to 1/32
    class_logits, kernels = grid_heads(levels, w / "bbox_head", config)
    return SoloOutputs(class_logits, kernels, mask_features(levels, w / "mask_feat_head", config))


@block
def grid_heads(levels: Sequence[Array], w: Scope, config: MobileInstConfig) -> tuple[Array, Array]:
    """Levels at 1/4 to 1/32 → class logits (B, cells, classes) and kernels (B, cells, kernel_dim)."""
    finest, *deeper = levels
    coarsest = resize(every_second(deeper[-1]), *deeper[-1].shape[2:])  # 1/64, at the size of 1/32
    sources = [resize(finest, *deeper[0].shape[2:]), *deeper, coarsest]  # 1/8, 1/8, 1/16, 1/32, 1/32
    found = [grid_head(x, w, config, grid) for x, grid in zip(sources, config.grids, strict=True)]
    class_logits, kernels = zip(*found, strict=True)
    return ops.concat(*class_logits, axis=1), ops.concat(*kernels, axis=1)


def grid_head(x: Array, w: Scope, config: MobileInstConfig, grid: int) -> tuple[Array, Array]:
    """One level (B, dim, h, w) → predictions (B, grid², ·) of its grid's cells; all levels share weights."""
    placed = ops.concat(x, coordinates(x), axis=1)  # (B, dim + 2, h, w)
    placed = resize(placed, grid, grid)  # (B, dim + 2, grid, grid)
    kernels = tower(placed, w / "kernel_convs", config)  # (B, head_dim, grid, grid)
    kernels = conv(kernels, w / "solo_kernel", config.kernel_dim, kernel=3)
    classes = tower(ops.slice_(placed, (0,), (config.dim,), (1,)), w / "cate_convs", config)
    classes = conv(classes, w / "solo_cate", config.num_classes, kernel=3)
    return positions_last(classes), positions_last(kernels)


def tower(x: Array, w: Scope, config: MobileInstConfig) -> Array:
    """``head_convs`` × (3×3 convolution, group norm, ReLU)."""
    for i in range(config.head_convs):
        x = conv_group_norm(x, w / i, config.head_dim, 3, config.norm_groups, NAMES)
    return x


@block
def mask_features(levels: Sequence[Array], w: Scope, config: MobileInstConfig) -> Array:
    """Levels at 1/4 to 1/32 → their sum at 1/4, as mask features (B, kernel_dim, H/4, W/4).

    Level i passes i times through a convolution and a doubling; the last is told its coordinates.
    """
    places = w / "convs_all_levels"
    total = conv_group_norm(levels[0], places / 0 / "conv0", config.mask_dim, 3, config.norm_groups, NAMES)
    for i, x in enumerate(levels[1:], start=1):
        if i == 3:
            x = ops.concat(x, coordinates(x), axis=1)
        for j in range(i):
            x = conv_group_norm(x, places / i / f"conv{j}", config.mask_dim, 3, config.norm_groups, NAMES)
            x = resize(x, 2 * x.shape[2], 2 * x.shape[3])
        total = ops.add(total, x)  # (B, mask_dim, H/4, W/4)
    return conv_group_norm(total, w / "conv_pred" / 0, config.kernel_dim, 1, config.norm_groups, NAMES)
