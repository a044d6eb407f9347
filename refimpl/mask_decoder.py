"""The semantic-enhanced mask decoder (paper 3.3): top-down and bottom-up, enriched by global features."""

from __future__ import annotations

from refimpl import ops
from refimpl.layers import conv_bn, hard_sigmoid, resize
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block
from refimpl.topformer import Features

CONV_BN_NAMES = ("conv", "bn")


@block
def conv_bn_relu(x: Array, w: Scope, out: int, kernel: int = 3) -> Array:
    """A unit of the decoder: convolution without bias, batch norm, ReLU."""
    return ops.relu(conv_bn(x, w, out, kernel, names=CONV_BN_NAMES))


@block
def semantic_enhancer(x: Array, x6: Array, w: Scope) -> Array:
    """SE(x, X6) = local(x) · resize(h_sigmoid(act(X6))) + resize(global(X6)); (B, dim, h, w) → the same."""
    dim, height, width = x.shape[1:]
    local = conv_bn(x, w / "local_embedding", dim, names=CONV_BN_NAMES)
    gate = hard_sigmoid(conv_bn(x6, w / "global_act", dim, names=CONV_BN_NAMES))  # (B, dim, H/64, W/64)
    shift = conv_bn(x6, w / "global_embedding", dim, names=CONV_BN_NAMES)  # (B, dim, H/64, W/64)
    gated = ops.mul(local, resize(gate, height, width))  # (B, dim, h, w)
    return ops.add(gated, resize(shift, height, width))  # (B, dim, h, w)


@block
def fuse(x: Array, neighbour: Array, w: Scope) -> Array:
    """Add the neighbouring level, resized to this one, and convolve."""
    height, width = x.shape[2:]
    return conv_bn_relu(ops.add(x, resize(neighbour, height, width)), w, x.shape[1])


def mask_decoder(features: Features, w: Scope, dim: int, enhanced: bool) -> Array:
    """Features of the backbone → mask features X_mask (B, dim, H/8, W/8).

    Parameters
    ----------
    enhanced
        Whether the semantic enhancers take part ("ours w/ SE" of Table 5) or are the identity ("ours").
    """

    def enhance(x: Array, number: int) -> Array:
        return semantic_enhancer(x, features.x6, w / "enhancer" / number) if enhanced else x

    levels = (features.x3, features.x4, features.x5)
    lateral = [conv_bn_relu(x, w / "lateral" / i, dim, kernel=1) for i, x in enumerate(levels)]
    # Top-down: 1/32 → 1/8.
    p2 = conv_bn_relu(enhance(lateral[2], 0), w / "top_down" / 2, dim)  # (B, dim, H/32, W/32)
    p1 = fuse(lateral[1], p2, w / "top_down" / 1)  # (B, dim, H/16, W/16)
    p0 = fuse(lateral[0], p1, w / "top_down" / 0)  # (B, dim, H/8, W/8)
    # Bottom-up: 1/8 → 1/32.
    n0 = conv_bn_relu(p0, w / "bottom_up" / 0, dim)  # (B, dim, H/8, W/8)
    n1 = fuse(p1, n0, w / "bottom_up" / 1)  # (B, dim, H/16, W/16)
    n2 = fuse(p2, n1, w / "bottom_up" / 2)  # (B, dim, H/32, W/32)
    # Top-down again.
    m2 = conv_bn_relu(enhance(n2, 1), w / "output" / 2, dim)  # (B, dim, H/32, W/32)
    m1 = fuse(n1, m2, w / "output" / 1)  # (B, dim, H/16, W/16)
    return fuse(n0, m1, w / "output" / 0)  # (B, dim, H/8, W/8)
