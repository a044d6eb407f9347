"""SeaFormer (Wan et al., ICLR 2023), the paper's second backbone: squeeze-enhanced axial attention."""

from __future__ import annotations

from dataclasses import dataclass

from refimpl import ops
from refimpl.attention import attend_positions
from refimpl.layers import conv_bn, conv_mlp, hard_sigmoid, inverted_residual, relu6
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block
from refimpl.topformer import Features, stem

POSITIONS = 16
"""Length of the learned position embeddings, resized to the axis."""


@dataclass(frozen=True)
class SeaFormerSpec:
    """The stages, and the transformers after the last of them.

    Attributes
    ----------
    stages
        Rows (kernel, expansion, channels, stride) of inverted residuals, for each of five stages.
    stem
        Channels of the first convolution.
    depths, key_channels, mlp_ratios
        Of each transformer: its blocks, the channels of a head's keys, the width of the feed-forward network.
        The last transformer follows the last stage.
    heads
        Attention heads.
    """

    stages: tuple[tuple[tuple[int, int, int, int], ...], ...]
    stem: int
    depths: tuple[int, ...]
    key_channels: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    heads: int


SEAFORMERS = {
    "seaformer-tiny": SeaFormerSpec(
        stages=(
            ((3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)),
            ((5, 3, 32, 2), (5, 3, 32, 1)),
            ((3, 3, 64, 2), (3, 3, 64, 1)),
            ((5, 3, 128, 2),),
            ((3, 6, 160, 2),),
        ),
        stem=16,
        depths=(2, 2),
        key_channels=(16, 24),
        mlp_ratios=(2, 4),
        heads=4,
    ),
    "seaformer-small": SeaFormerSpec(
        stages=(
            ((3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)),
            ((5, 3, 48, 2), (5, 3, 48, 1)),
            ((3, 3, 96, 2), (3, 3, 96, 1)),
            ((5, 4, 160, 2),),
            ((3, 6, 192, 2),),
        ),
        stem=16,
        depths=(3, 3),
        key_channels=(16, 24),
        mlp_ratios=(2, 4),
        heads=6,
    ),
    "seaformer-base": SeaFormerSpec(
        stages=(
            ((3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)),
            ((5, 3, 64, 2), (5, 3, 64, 1)),
            ((3, 3, 128, 2), (3, 3, 128, 1)),
            ((5, 4, 192, 2),),
            ((3, 6, 256, 2),),
        ),
        stem=16,
        depths=(4, 4),
        key_channels=(16, 24),
        mlp_ratios=(2, 4),
        heads=8,
    ),
    "seaformer-large": SeaFormerSpec(
        stages=(
            ((3, 3, 32, 1), (3, 4, 64, 2), (3, 4, 64, 1)),
            ((5, 4, 128, 2), (5, 4, 128, 1)),
            ((3, 4, 192, 2), (3, 4, 192, 1)),
            ((5, 4, 256, 2),),
            ((3, 6, 320, 2),),
        ),
        stem=32,
        depths=(3, 3, 3),
        key_channels=(16, 20, 24),
        mlp_ratios=(2, 4, 6),
        heads=8,
    ),
}


def seaformer(images: Array, w: Scope, spec: SeaFormerSpec) -> Features:
    """Images (B, 3, H, W) → X3, X4, X5 and X6, the results of the stages two to five, 1/8 to 1/64."""
    x = stem(images, w / "smb1" / "stem_block", spec.stem)  # (B, stem, H/2, W/2)
    without_transformer = len(spec.stages) - len(spec.depths)
    results = []
    for i, rows in enumerate(spec.stages):
        x = stage(x, w / f"smb{i + 1}", rows)  # 1/4, 1/8, 1/16, 1/32, 1/64
        j = i - without_transformer
        if j >= 0:
            x = transformer(x, w / f"trans{j + 1}", spec, j)
        results.append(x)
    return Features(*results[1:])


def stage(x: Array, w: Scope, rows: tuple[tuple[int, int, int, int], ...]) -> Array:
    """Inverted residuals, ``layer1`` onwards."""
    for i, (kernel, expansion, channels, stride) in enumerate(rows):
        # (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)
        x = inverted_residual(x, w / f"layer{i + 1}", kernel, expansion, channels, stride)
    return x


def transformer(x: Array, w: Scope, spec: SeaFormerSpec, j: int) -> Array:
    """The blocks of the j-th transformer."""
    for i in range(spec.depths[j]):
        x = sea_block(x, w / "transformer_blocks" / i, spec.key_channels[j], spec.heads, spec.mlp_ratios[j])
    return x


@block
def sea_block(x: Array, w: Scope, key_channels: int, heads: int, mlp_ratio: int) -> Array:
    """Attention and a convolutional feed-forward network, each with a shortcut."""
    x = ops.add(x, sea_attention(x, w / "attn", key_channels, heads))
    return ops.add(x, conv_mlp(x, w / "mlp", mlp_ratio))


@block
def sea_attention(x: Array, w: Scope, key_channels: int, heads: int) -> Array:
    """Squeeze-enhanced axial attention, gating the detail: (B, C, H, W) → the same.

    Rows attend to rows after averaging over the width, columns to columns after averaging over the height.
    """
    channels, keys = x.shape[1], key_channels * heads
    q = conv_bn(x, w / "to_q", keys)  # (B, h·d, H, W)
    k = conv_bn(x, w / "to_k", keys)  # (B, h·d, H, W)
    v = conv_bn(x, w / "to_v", 2 * keys)  # (B, h·2d, H, W)
    row = axial_attention(q, k, v, w, "row", heads)  # (B, h·2d, H, 1)
    column = axial_attention(q, k, v, w, "column", heads)  # (B, h·2d, 1, W)
    y = ops.add(ops.add(v, row), column)  # (B, h·2d, H, W)
    gate = hard_sigmoid(conv_bn(relu6(y), w / "proj" / 1, channels))  # (B, C, H, W)
    return ops.mul(gate, detail(q, k, v, w, channels))


def detail(q: Array, k: Array, v: Array, w: Scope, channels: int) -> Array:
    """The detail-enhancement kernel: a depthwise and a pointwise convolution of queries, keys and values."""
    y = ops.concat(q, k, v, axis=1)  # (B, h·4d, H, W)
    y = conv_bn(y, w / "dwconv", y.shape[1], kernel=3, groups=y.shape[1])
    return conv_bn(relu6(y), w / "pwconv", channels)  # (B, C, H, W)


def axial_attention(q: Array, k: Array, v: Array, w: Scope, axis: str, heads: int) -> Array:
    """``softmax(q kᵀ / √d) v`` along one axis ("row" or "column"), the other averaged away and kept as 1."""
    averaged = 3 if axis == "row" else 2
    q, k, v = (ops.reduce_mean(x, (averaged,), keepdims=0) for x in (q, k, v))  # (B, ·, L)
    q = embed_positions(q, w / f"pos_emb_{axis}q")
    k = embed_positions(k, w / f"pos_emb_{axis}k")
    batch, values, length = v.shape
    d = q.shape[1] // heads
    y = attend_positions(q, k, v, heads, scale=d**-0.5)  # (B, h, 2d, L)
    size = (length, 1) if axis == "row" else (1, length)
    y = ops.reshape(y, (batch, values, *size))  # (B, h·2d, L, 1) or (B, h·2d, 1, L)
    return conv_bn(relu6(y), w / f"proj_encode_{axis}" / 1, values)


@block
def embed_positions(x: Array, w: Scope) -> Array:
    """Add the learned embedding, resized linearly to the length of (B, C, L)."""
    channels, length = x.shape[1:]
    embedding = ops.resize(
        w["pos_embed", 1, channels, POSITIONS],
        None,
        None,
        (1, channels, length),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    return ops.add(x, embedding)
