"""The dual transformer instance decoder (paper 3.2): object queries read global, then local features, and
become mask kernels."""

from __future__ import annotations

import math
from typing import NamedTuple

from refimpl import ops
from refimpl.config import MobileInstConfig
from refimpl.errors import ConfigurationError
from refimpl.layers import conv, layer_norm, linear
from refimpl.ops.operation import Array
from refimpl.position import sine_position_embedding
from refimpl.scope import Scope, block


class Instances(NamedTuple):
    """What the decoder predicts for each query, as logits."""

    class_logits: Array  # (B, N, classes)
    objectness: Array  # (B, N, 1)
    kernels: Array  # (B, N, dim)
    global_queries: Array  # (B, N, dim), the queries after the global decoder, Q_G


def instance_decoder(x6: Array, mask_features: Array, w: Scope, config: MobileInstConfig) -> Instances:
    """Global features X6 (B, C, H/64, W/64) and mask features (B, dim, H/8, W/8) → predictions (Eq. 1)."""
    queries = repeat_queries(w["queries", config.num_queries, config.dim], x6.shape[0], w / "initial_queries")
    if config.global_layers:
        global_features = conv(x6, w / "global_proj", config.dim)  # X_G
        queries = decode(
            queries, global_features, w / "global_decoder", config.global_layers, config.num_heads
        )
    global_queries = queries
    if config.local_layers:
        local = local_features(mask_features, w / "local_features", config.local_pooling)  # X_L
        queries = decode(queries, local, w / "local_decoder", config.local_layers, config.num_heads)
    return Instances(*heads(queries, w, config), global_queries)


@block
def repeat_queries(queries: Array, batch: int, w: Scope) -> Array:
    """The learned object queries, once for each picture: (N, dim) → (B, N, dim)."""
    return ops.expand(ops.unsqueeze(queries, (0,)), (batch, *queries.shape))


@block
def local_features(mask_features: Array, w: Scope, pooling: str) -> Array:
    """X_L = f_pool(X_mask): (B, dim, h, w) → (B, dim, ⌊h/k⌋, ⌊w/k⌋) (Table 4)."""
    if pooling == "none":
        return mask_features
    pool = ops.max_pool if pooling.startswith("max") else ops.average_pool
    size = int(pooling[3:])
    height, width = mask_features.shape[2:]
    if size > min(height, width):
        raise ConfigurationError(
            f"local_pooling {pooling!r} needs mask features of at least {size}×{size}, "
            f"but this input gives {height}×{width}; "
            f"use a picture of at least {8 * size}×{8 * size} or a smaller pooling"
        )
    return pool(mask_features, kernel_shape=(size, size), strides=(size, size))


@block
def decode(queries: Array, features: Array, w: Scope, layers: int, num_heads: int) -> Array:
    """Update the queries (B, N, dim) from a map (B, dim, h, w), once per decoder layer."""
    batch, dim, height, width = features.shape
    tokens = ops.transpose(
        ops.reshape(features, (batch, dim, height * width)), perm=(0, 2, 1)
    )  # (B, hw, dim)
    keys = ops.add(tokens, sine_position_embedding(height, width, dim, like=tokens))
    for i in range(layers):
        queries = decoder_layer(queries, keys, tokens, w / i, num_heads)
    return queries


@block
def decoder_layer(queries: Array, keys: Array, values: Array, w: Scope, num_heads: int) -> Array:
    """Eq. 1, post-norm and without a feed-forward network: cross-attention to the features, then self-
    attention."""
    attended = multi_head_attention(queries, keys, values, w / "cross_attn", num_heads)
    queries = layer_norm(ops.add(queries, attended), w / "cross_norm")
    attended = multi_head_attention(queries, queries, queries, w / "self_attn", num_heads)
    return layer_norm(ops.add(queries, attended), w / "self_norm")


@block
def multi_head_attention(queries: Array, keys: Array, values: Array, w: Scope, num_heads: int) -> Array:
    """``softmax(q kᵀ / √d) v`` per head, with PyTorch's packed weights: (B, N, dim), (B, M, dim) twice → (B,
    N, dim)."""
    batch, count, dim = queries.shape
    weights = ops.split(w["in_proj_weight", 3 * dim, dim], (dim, dim, dim), axis=0)
    biases = ops.split(w["in_proj_bias", 3 * dim], (dim, dim, dim), axis=0)
    q, k, v = (
        split_heads(ops.linear(x, weight, bias), num_heads)
        for x, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
    )
    q = ops.mul(q, 1 / math.sqrt(dim // num_heads))
    attention = ops.softmax(ops.mat_mul(q, ops.transpose(k, perm=(0, 1, 3, 2))), axis=-1)  # (B, heads, N, M)
    merged = ops.reshape(ops.transpose(ops.mat_mul(attention, v), perm=(0, 2, 1, 3)), (batch, count, dim))
    return linear(merged, w / "out_proj", dim)


def split_heads(x: Array, num_heads: int) -> Array:
    """(B, N, dim) → (B, heads, N, dim / heads)."""
    batch, count, dim = x.shape
    return ops.transpose(ops.reshape(x, (batch, count, num_heads, dim // num_heads)), perm=(0, 2, 1, 3))


def heads(queries: Array, w: Scope, config: MobileInstConfig) -> tuple[Array, Array, Array]:
    """Class logits (B, N, classes), objectness (B, N, 1), mask kernels (B, N, dim) of the final queries."""
    class_logits = linear(queries, w / "class_head", config.num_classes)
    objectness = linear(queries, w / "objectness_head", 1)
    return class_logits, objectness, kernel_head(queries, w / "kernel_head")


@block
def kernel_head(queries: Array, w: Scope) -> Array:
    """A three-layer ReLU perceptron, dim → dim → dim → dim."""
    dim = queries.shape[-1]
    x = ops.relu(linear(queries, w / 0, dim))
    x = ops.relu(linear(x, w / 1, dim))
    return linear(x, w / 2, dim)
