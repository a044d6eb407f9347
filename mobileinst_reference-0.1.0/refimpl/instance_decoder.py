"""The dual transformer instance decoder (paper 3.2, Eq. 1).

Object queries read global features X_G, become Q_G, read local features X_L, and become mask kernels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from refimpl import ops
from refimpl.attention import attend, merge_heads, split_heads, swap_last
from refimpl.config import MobileInstConfig
from refimpl.errors import ConfigurationError
from refimpl.layers import conv, layer_norm, linear, to_tokens
from refimpl.ops.operation import Array
from refimpl.position import sine_position_embedding
from refimpl.scope import Scope, block


class Instances(NamedTuple):
    """What the decoder predicts for each query, as logits."""

    class_logits: Array  # (B, N, classes)
    objectness: Array  # (B, N, 1)
    kernels: Array  # (B, N, dim)
    global_queries: Array  # (B, N, dim), Q_G, the queries after the global decoder


def instance_decoder(x6: Array, x_mask: Array, w: Scope, config: MobileInstConfig) -> Instances:
    """Predict from global features X6 (B, C, H/64, W/64) and mask features X_mask (B, dim, H/8, W/8)."""
    q_g = global_queries(x6, w, config)  # (B, N, dim)
    queries = local_queries(q_g, x_mask, w, config)  # (B, N, dim)
    return Instances(*heads(queries, w, config), q_g)


def global_queries(x6: Array, w: Scope, config: MobileInstConfig) -> Array:
    """The first half of Eq. 1: the learned queries read X_G and become Q_G, (B, N, dim)."""
    learned = w["queries", config.num_queries, config.dim]
    queries = repeat_queries(learned, x6.shape[0], w / "initial_queries")  # (B, N, dim)
    if not config.global_layers:
        return queries
    x_g = conv(x6, w / "global_proj", config.dim)  # (B, dim, H/64, W/64)
    return decode(queries, x_g, w / "global_decoder", config.global_layers, config.num_heads)


def local_queries(q_g: Array, x_mask: Array, w: Scope, config: MobileInstConfig) -> Array:
    """The second half of Eq. 1: Q_G reads X_L, the pooled X_mask; (B, N, dim) → the same."""
    if not config.local_layers:
        return q_g
    x_l = local_features(x_mask, w / "local_features", config.local_pooling)  # (B, dim, H/64, W/64)
    return decode(q_g, x_l, w / "local_decoder", config.local_layers, config.num_heads)


@block
def repeat_queries(queries: Array, batch: int, w: Scope) -> Array:
    """The learned object queries, once for each picture: (N, dim) → (B, N, dim)."""
    one = ops.unsqueeze(queries, (0,))  # (1, N, dim)
    return ops.expand(one, (batch, *queries.shape))  # (B, N, dim)


@block
def local_features(x_mask: Array, w: Scope, pooling: str) -> Array:
    """X_L = f_pool(X_mask): (B, dim, h, w) → (B, dim, ⌊h/k⌋, ⌊w/k⌋) (Table 4)."""
    if pooling == "none":
        return x_mask
    pool = ops.max_pool if pooling.startswith("max") else ops.average_pool
    size = int(pooling[3:])
    height, width = x_mask.shape[2:]
    if size > min(height, width):
        raise ConfigurationError(
            f"local_pooling {pooling!r} needs mask features of at least {size}×{size}, "
            f"but this input gives {height}×{width}; "
            f"use a picture of at least {8 * size}×{8 * size} or a smaller pooling"
        )
    return pool(x_mask, kernel_shape=(size, size), strides=(size, size))


@block
def decode(queries: Array, features: Array, w: Scope, layers: int, num_heads: int) -> Array:
    """Update the queries (B, N, dim) from a map (B, dim, h, w), once per decoder layer."""
    dim, height, width = features.shape[1:]
    tokens = to_tokens(features)  # (B, hw, dim)
    keys = ops.add(tokens, sine_position_embedding(height, width, dim, like=tokens))
    for i in range(layers):
        queries = decoder_layer(queries, keys, tokens, w / i, num_heads)
    return queries


@block
def decoder_layer(queries: Array, keys: Array, values: Array, w: Scope, num_heads: int) -> Array:
    """One layer of Eq. 1: cross-attention to the features, then self-attention.

    Post-norm and without a feed-forward network; all (B, tokens, dim).
    """
    attended = multi_head_attention(queries, keys, values, w / "cross_attn", num_heads)
    queries = layer_norm(ops.add(queries, attended), w / "cross_norm")
    attended = multi_head_attention(queries, queries, queries, w / "self_attn", num_heads)
    return layer_norm(ops.add(queries, attended), w / "self_norm")


@block
def multi_head_attention(queries: Array, keys: Array, values: Array, w: Scope, num_heads: int) -> Array:
    """``softmax(q kᵀ / √d) v`` per head, with PyTorch's packed weights.

    Queries (B, N, dim), keys and values (B, M, dim) → (B, N, dim).
    """
    dim = queries.shape[-1]
    weights = ops.split(w["in_proj_weight", 3 * dim, dim], (dim, dim, dim), axis=0)  # (dim, dim) each
    biases = ops.split(w["in_proj_bias", 3 * dim], (dim, dim, dim), axis=0)  # (dim,) each
    q, k, v = (
        split_heads(ops.linear(x, weight, bias), num_heads)  # (B, h, N, d) or (B, h, M, d)
        for x, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
    )
    q = ops.mul(q, 1 / math.sqrt(dim // num_heads))
    y = attend(q, swap_last(k), v)  # (B, h, N, d)
    return linear(merge_heads(y), w / "out_proj", dim)  # (B, N, dim)


def heads(queries: Array, w: Scope, config: MobileInstConfig) -> tuple[Array, Array, Array]:
    """Class logits (B, N, classes), objectness (B, N, 1), mask kernels (B, N, dim) of the final queries."""
    class_logits = linear(queries, w / "class_head", config.num_classes)  # (B, N, classes)
    objectness = linear(queries, w / "objectness_head", 1)  # (B, N, 1)
    kernels = kernel_head(queries, w / "kernel_head")  # (B, N, dim)
    return class_logits, objectness, kernels


@block
def kernel_head(queries: Array, w: Scope) -> Array:
    """A three-layer ReLU perceptron, dim → dim → dim → dim."""
    dim = queries.shape[-1]
    x = ops.relu(linear(queries, w / 0, dim))
    x = ops.relu(linear(x, w / 1, dim))
    return linear(x, w / 2, dim)
