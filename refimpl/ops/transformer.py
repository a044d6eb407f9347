"""What transformers are made of: attention over heads, with a cache and masks, and rotated positions."""

from __future__ import annotations

import math

import numpy as np

from refimpl.errors import ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array, Trait, operation
from refimpl.ops.shape import ONNX_DTYPES


@operation("Attention", Trait.ROUNDS)
def attention(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Return, for each query, the mean of the values, weighted by softmax of its products with the keys.

    Parameters
    ----------
    q, k, v : arrays (B, heads, tokens, size), or (B, tokens, heads · size)
        Several heads of ``q`` in a row may share one of ``k`` and ``v``.
    attn_mask : array that broadcasts to (B, heads, queries, keys), optional
        True where a query may see a key, or what is added to their product; keys beyond it are not seen.
    past_key, past_value : arrays (B, heads, past, size), optional
        Stand before ``k`` and ``v``.
    nonpad_kv_seqlen : integers (B,), optional
        How many keys of each there are; the others are filling.
    is_causal, left_window_size, right_window_size : int
        Whether a query sees only what is not behind it, and how many keys on either side; −1: all.
    q_num_heads, kv_num_heads : int
        Of operands of three axes.
    qk_matmul_output_mode : int
        What the fourth result is: 0 the scaled products, 1 those after ``softcap``, 2 with the mask, 3 the
        weights.
    scale : float, optional
        Of the products; None is ``1 / √size``.
    softcap : float
        Products are ``softcap · tanh(product / softcap)``; 0: as they are.
    softmax_precision : int, optional
        The `onnx.TensorProto.DataType` of the softmax; None is that of ``q``.

    Returns
    -------
    the means, of the layout of ``q``; keys and values with what stood before them; see
    ``qk_matmul_output_mode``. A query that sees nothing is given zeros.

    Source: Vaswani et al. 2017; ONNX Attention.
    """
    queries = _heads(q, q_num_heads)
    keys, values = _after(past_key, _heads(k, kv_num_heads)), _after(past_value, _heads(v, kv_num_heads))
    shared = _sharing(queries, keys)
    # Half of the scale on either side, so that float16 does not overflow.
    root = q.dtype.type(math.sqrt(1 / math.sqrt(queries.shape[-1]) if scale is None else scale))
    products = (queries * root) @ (np.repeat(keys, shared, axis=1).swapaxes(-1, -2) * root)
    capped = softcap * np.tanh(products / softcap) if softcap else products
    offset = _offset(nonpad_kv_seqlen, past_key, queries.shape[2])
    window = left_window_size, 0 if is_causal else right_window_size
    hidden = _hidden(products.shape[2:], offset, window, nonpad_kv_seqlen)
    bias = _added(attn_mask, keys.shape[2], q.dtype) + hidden.astype(q.dtype)
    logits = np.asarray(capped + bias).astype(q.dtype)
    weights = _weights(logits, bias, softmax_precision)
    means = weights @ np.repeat(values, shared, axis=1)
    shown = (products, capped, logits, weights)[qk_matmul_output_mode]
    if q.ndim == 3:
        means = means.swapaxes(1, 2).reshape(*q.shape[:2], -1)
    return means, keys, values, np.asarray(shown).astype(q.dtype, copy=False)


def _heads(x: Array, count: int | None) -> Array:
    """Return (B, heads, tokens, size)."""
    if x.ndim == 4:
        return x
    if not count:
        raise ShapeError(f"Attention of shape {x.shape} needs the number of heads")
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def _after(past: Array | None, x: Array) -> Array:
    return x if past is None else np.concatenate([past, x], axis=2)


def _sharing(queries: Array, keys: Array) -> int:
    """Return how many heads of queries share one of keys."""
    if queries.shape[1] % keys.shape[1]:
        raise ShapeError(f"{queries.shape[1]} heads of queries do not divide among {keys.shape[1]} of keys")
    return queries.shape[1] // keys.shape[1]


def _offset(valid: Array | None, past: Array | None, queries: int) -> Array:
    """Return how many keys stand before the first query, of each of a batch."""
    before = 0 if past is None else past.shape[2]
    return np.reshape(before if valid is None else np.asarray(valid) - queries, (-1, 1, 1, 1))


def _added(mask: Array | None, keys: int, dtype: np.dtype) -> Array:
    """Return what a mask adds to the products: −∞ where a key is not seen."""
    if mask is None:
        return np.zeros((1, 1), dtype)
    added = np.where(mask, 0, -np.inf) if mask.dtype == np.bool_ else mask
    widths = [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])]
    return np.pad(added, widths, constant_values=-np.inf).astype(dtype)


def _hidden(shape: tuple[int, ...], offset: Array, window: tuple[int, int], valid: Array | None) -> Array:
    """Return 0 where a query's window holds a key that is no filling, else −∞."""
    queries, keys = np.arange(shape[0])[:, None] + offset, np.arange(shape[1])
    seen = np.ones((1, 1, *shape), bool)
    for reach, distance in zip(window, (queries - keys, keys - queries), strict=True):
        if reach >= 0:
            seen = seen & (distance <= reach)
    if valid is not None:
        seen = seen & (keys < np.reshape(valid, (-1, 1, 1, 1)))
    return np.where(seen, 0.0, -np.inf)


def _weights(logits: Array, bias: Array, precision: int | None) -> Array:
    """Return the softmax along the keys, zeros where none is seen."""
    if precision is not None and precision not in ONNX_DTYPES:
        raise UnsupportedOperationError(f"Attention with softmax in ONNX type {precision}")
    wide = logits if precision is None else logits.astype(ONNX_DTYPES[precision])
    peak = wide.max(axis=-1, keepdims=True)
    exponentials = np.exp(wide - np.where(np.isneginf(peak), 0, peak))
    total = exponentials.sum(axis=-1, keepdims=True)
    blind = np.isneginf(bias.max(axis=-1, keepdims=True))
    weights = np.where(blind, 0, exponentials / np.where(total == 0, 1, total))
    return weights.astype(logits.dtype)


@operation("RotaryEmbedding", Trait.ROUNDS)
def rotary_embedding(
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Array:
    """Return the pairs of each head's numbers, turned by the angle of their position.

    Parameters
    ----------
    x : array (B, heads, tokens, size), or (B, tokens, heads · size)
    cos_cache, sin_cache : arrays (positions, pairs), or, without ``position_ids``, (B, tokens, pairs)
    position_ids : integers (B, tokens), optional
    interleaved : int
        1: neighbours are a pair; 0: one number of the first half, one of the second.
    num_heads : int
        Of an operand of three axes.
    rotary_embedding_dim : int
        How many of a head's numbers are turned; 0: all.

    Returns
    -------
    array of the shape and dtype of ``x``

    Source: Su et al. 2021; ONNX RotaryEmbedding.
    """
    heads = x if x.ndim == 4 else _heads(x, num_heads)
    turned, kept = np.split(heads, [rotary_embedding_dim or heads.shape[-1]], axis=-1)
    places = slice(None) if position_ids is None else position_ids
    cosine, sine = (cache[places][:, None] for cache in (cos_cache, sin_cache))
    first, second = (turned[..., 0::2], turned[..., 1::2]) if interleaved else np.split(turned, 2, axis=-1)
    pairs = cosine * first - sine * second, sine * first + cosine * second
    joined = np.stack(pairs, -1).reshape(turned.shape) if interleaved else np.concatenate(pairs, -1)
    result = np.concatenate([joined, kept], axis=-1)
    return result if x.ndim == 4 else result.swapaxes(1, 2).reshape(x.shape)
