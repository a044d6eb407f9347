"""SparseInst's feature pyramid and pooling (Cheng et al., CVPR 2022): its encoder, Table 5's baselines."""

from __future__ import annotations

from refimpl import ops
from refimpl.layers import conv, resize
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block

POOLED_SIZES = (1, 2, 3, 6)


@block
def feature_pyramid(levels: tuple[Array, Array, Array], w: Scope, dim: int, pooled: bool) -> Array:
    """X3, X4 and X5 → one map (B, dim, H/8, W/8).

    Parameters
    ----------
    pooled
        Whether the deepest level passes through pyramid pooling.
    """
    x3, x4, x5 = levels
    # The weights are numbered from the deepest level.
    p5 = conv(x5, w / "fpn_laterals" / 0, dim)  # (B, dim, H/32, W/32)
    if pooled:
        p5 = pyramid_pooling(p5, w / "ppm")
    p4 = sum_top_down(conv(x4, w / "fpn_laterals" / 1, dim), p5)  # (B, dim, H/16, W/16)
    p3 = sum_top_down(conv(x3, w / "fpn_laterals" / 2, dim), p4)  # (B, dim, H/8, W/8)
    outputs = [conv(p, w / "fpn_outputs" / i, dim, kernel=3) for i, p in enumerate((p5, p4, p3))]
    height, width = p3.shape[2:]
    finest_first = (outputs[2], *(resize(x, height, width) for x in outputs[1::-1]))
    joined = ops.concat(*finest_first, axis=1)  # (B, 3·dim, H/8, W/8)
    return conv(joined, w / "fusion", dim)  # (B, dim, H/8, W/8)


def sum_top_down(lateral: Array, deeper: Array) -> Array:
    """Add the deeper level's sum, each element repeated to the size of this one."""
    sizes = (*deeper.shape[:2], *lateral.shape[2:])
    nearest = ops.resize(
        deeper,
        None,
        None,
        sizes,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return ops.add(lateral, nearest)


@block
def pyramid_pooling(x: Array, w: Scope) -> Array:
    """Averages over 1, 2, 3 and 6 cells a side, fused with the input: (B, dim, h, w) → the same."""
    dim, height, width = x.shape[1:]
    priors = []
    for i, size in enumerate(POOLED_SIZES):
        pooled = ops.adaptive_average_pool(x, (size, size))  # (B, dim, size, size)
        prior = ops.relu(conv(pooled, w / "stages" / i / 1, dim // len(POOLED_SIZES)))  # dim/4 channels
        priors.append(resize(prior, height, width))  # (B, dim/4, h, w)
    joined = ops.concat(*priors, x, axis=1)  # (B, 2·dim, h, w)
    return ops.relu(conv(joined, w / "bottleneck", dim))  # (B, dim, h, w)


@block
def conv_stack(x: Array, w: Scope, count: int, dim: int) -> Array:
    """``count`` × (3×3 convolution, ReLU), numbered 0, 2, 4, … as in a sequence that counts the ReLUs."""
    for i in range(count):
        x = ops.relu(conv(x, w / (2 * i), dim, kernel=3))
    return x


@block
def mask_branch(x: Array, w: Scope, convs: int, dim: int, out: int) -> Array:
    """A stack of 3×3 convolutions and a 1×1 projection: (B, C, h, w) → mask features (B, out, h, w)."""
    return conv(conv_stack(x, w / "mask_convs", convs, dim), w / "projection", out)
