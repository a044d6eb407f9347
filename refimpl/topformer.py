"""TopFormer (Zhang et al., CVPR 2022), the paper's first backbone.

A token pyramid, and a transformer on its pooled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from refimpl import ops
from refimpl.attention import attend_positions
from refimpl.layers import conv_bn, conv_mlp, inverted_residual, relu6
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block

KEY_CHANNELS = 16
VALUE_CHANNELS = 32
TRANSFORMER_BLOCKS = 4


class Features(NamedTuple):
    """A backbone's maps: local X3, X4, X5 at 1/8, 1/16, 1/32, and global X6 at 1/64 (Figure 3)."""

    x3: Array
    x4: Array
    x5: Array
    x6: Array


@dataclass(frozen=True)
class TopFormerSpec:
    """The token pyramid and the transformer on it.

    Attributes
    ----------
    rows
        (kernel, expansion, channels, stride) of each inverted residual.
    taps
        The rows whose results are used.
    heads
        Attention heads.
    stem
        Channels of the first convolution.
    """

    rows: tuple[tuple[int, int, int, int], ...]
    taps: tuple[int, int, int, int]
    heads: int
    stem: int = 16


# fmt: off
TOPFORMERS = {
    "topformer-base": TopFormerSpec(
        rows=(
            (3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1), (5, 3, 64, 2), (5, 3, 64, 1),
            (3, 3, 128, 2), (3, 3, 128, 1), (5, 6, 160, 2), (5, 6, 160, 1), (3, 6, 160, 1),
        ),
        taps=(2, 4, 6, 9),
        heads=8,
    ),
    "topformer-small": TopFormerSpec(
        rows=(
            (3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1), (5, 3, 48, 2), (5, 3, 48, 1),
            (3, 3, 96, 2), (3, 3, 96, 1), (5, 6, 128, 2), (5, 6, 128, 1), (3, 6, 128, 1),
        ),
        taps=(2, 4, 6, 9),
        heads=6,
    ),
    "topformer-tiny": TopFormerSpec(
        rows=(
            (3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1), (5, 3, 32, 2), (5, 3, 32, 1),
            (3, 3, 64, 2), (3, 3, 64, 1), (5, 6, 96, 2), (5, 6, 96, 1),
        ),
        taps=(2, 4, 6, 8),
        heads=4,
    ),
}
# fmt: on


def topformer(images: Array, w: Scope, spec: TopFormerSpec) -> Features:
    """Images (B, 3, H, W) → local features X3, X4, X5 and global features X6 (paper 3.1).

    The local features are the pyramid's own maps, without TopFormer's semantic injection.
    """
    pyramid = token_pyramid(images, w / "tpm", spec)  # 1/4, 1/8, 1/16, 1/32
    x6 = pool_pyramid(pyramid, w / "ppa")  # (B, C, H/64, W/64), C of all four together
    for i in range(TRANSFORMER_BLOCKS):
        x6 = transformer_block(x6, w / "trans" / "transformer_blocks" / i, spec.heads)
    _, x3, x4, x5 = pyramid
    return Features(x3, x4, x5, x6)


def token_pyramid(images: Array, w: Scope, spec: TopFormerSpec) -> list[Array]:
    """The stem and the inverted residuals; returns the four tapped maps, 1/4 to 1/32."""
    x = stem(images, w / "stem", spec.stem)  # (B, stem, H/2, W/2)
    tapped = []
    for i, (kernel, expansion, channels, stride) in enumerate(spec.rows):
        # (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)
        x = inverted_residual(x, w / f"layer{i + 1}", kernel, expansion, channels, stride)
        if i in spec.taps:
            tapped.append(x)
    return tapped


@block
def stem(images: Array, w: Scope, channels: int) -> Array:
    """The first convolution, 3×3 with stride 2."""
    return ops.relu(conv_bn(images, w / 0, channels, kernel=3, stride=2))  # (B, channels, H/2, W/2)


@block
def pool_pyramid(pyramid: list[Array], w: Scope) -> Array:
    """Average every map to half the size of the last, rounded up, and concatenate the channels."""
    height, width = pyramid[-1].shape[2:]
    size = ((height - 1) // 2 + 1, (width - 1) // 2 + 1)
    pooled = [ops.adaptive_average_pool(x, size) for x in pyramid]  # each (B, ·, H/64, W/64)
    return ops.concat(*pooled, axis=1)  # (B, C, H/64, W/64)


@block
def transformer_block(x: Array, w: Scope, heads: int) -> Array:
    """Attention and a convolutional feed-forward network, each with a shortcut."""
    x = ops.add(x, attention(x, w / "attn", heads))
    return ops.add(x, conv_mlp(x, w / "mlp", ratio=2))


@block
def attention(x: Array, w: Scope, heads: int) -> Array:
    """Self-attention over all positions: ``softmax(q kᵀ) v``, with no 1/√d scale. (B, C, H, W) → the same."""
    batch, channels, height, width = x.shape
    q = conv_bn(x, w / "to_q", KEY_CHANNELS * heads)  # (B, h·16, H, W)
    k = conv_bn(x, w / "to_k", KEY_CHANNELS * heads)  # (B, h·16, H, W)
    v = conv_bn(x, w / "to_v", VALUE_CHANNELS * heads)  # (B, h·32, H, W)
    y = attend_positions(q, k, v, heads)  # (B, h, 32, HW)
    y = ops.reshape(y, (batch, heads * VALUE_CHANNELS, height, width))  # (B, h·32, H, W)
    return conv_bn(relu6(y), w / "proj" / 1, channels)  # (B, C, H, W)
