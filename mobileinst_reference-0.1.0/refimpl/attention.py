"""Attention (Vaswani et al., NeurIPS 2017), as TopFormer, SeaFormer and the instance decoder share it.

Of h heads, d channels of queries and keys, and e of values.
"""

from __future__ import annotations

import math

from refimpl import ops
from refimpl.ops.operation import Array


def attend(q: Array, k: Array, v: Array, scale: float | None = None) -> Array:
    """``softmax(scale · q k) v`` of every head.

    Parameters
    ----------
    q, k, v
        Queries (B, h, N, d), keys (B, h, d, M), already transposed, and values (B, h, M, e).
    scale
        What the products are multiplied with; None to leave them as they are.

    Returns
    -------
    Array, (B, h, N, e)
        Means of the values, weighted for each query by a softmax over the M keys.
    """
    similarities = ops.mat_mul(q, k)  # (B, h, N, M)
    if scale is not None:
        similarities = ops.mul(similarities, scale)
    weights = ops.softmax(similarities, axis=-1)
    return ops.mat_mul(weights, v)  # (B, h, N, e)


def attend_positions(q: Array, k: Array, v: Array, heads: int, scale: float | None = None) -> Array:
    """Attend from every position of a map to all of them; the channels of a head lie side by side.

    Parameters
    ----------
    q, k, v
        Queries and keys (B, h·d, …), values (B, h·e, …), of the same L positions.
    heads, scale
        h, and as of `attend`.

    Returns
    -------
    Array, (B, h, e, L)
    """
    q = swap_last(split_channels(q, heads))  # (B, h, L, d)
    k = split_channels(k, heads)  # (B, h, d, L)
    v = swap_last(split_channels(v, heads))  # (B, h, L, e)
    return swap_last(attend(q, k, v, scale))  # (B, h, e, L)


def split_channels(x: Array, heads: int) -> Array:
    """Maps to heads: (B, h·d, H, W) or (B, h·d, L) → (B, h, d, L)."""
    batch, channels, *size = x.shape
    return ops.reshape(x, (batch, heads, channels // heads, math.prod(size)))


def split_heads(x: Array, heads: int) -> Array:
    """Tokens to heads: (B, N, h·d) → (B, h, N, d)."""
    batch, count, dim = x.shape
    x = ops.reshape(x, (batch, count, heads, dim // heads))  # (B, N, h, d)
    return swap_heads(x)  # (B, h, N, d)


def merge_heads(x: Array) -> Array:
    """Heads to tokens: (B, h, N, d) → (B, N, h·d)."""
    batch, heads, count, channels = x.shape
    x = swap_heads(x)  # (B, N, h, d)
    return ops.reshape(x, (batch, count, heads * channels))  # (B, N, h·d)


def swap_heads(x: Array) -> Array:
    """(B, N, h, d) ↔ (B, h, N, d)."""
    return ops.transpose(x, perm=(0, 2, 1, 3))


def swap_last(x: Array) -> Array:
    """(B, h, N, d) ↔ (B, h, d, N)."""
    return ops.transpose(x, perm=(0, 1, 3, 2))
