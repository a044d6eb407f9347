"""Attention told head by head, by SciPy and einsum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from refimpl.attention import attend, attend_positions, merge_heads, split_channels, split_heads, swap_last
from refimpl.layers import to_tokens
from refimpl.ops.operation import Array

few = st.integers(1, 4)
scales = st.sampled_from([None, 0.25, 1.0])


def noise(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape)


def weighted_mean(q: Array, k: Array, v: Array, scale: float | None) -> Array:
    """Attention of one head: (N, d), (M, d), (M, e) → (N, e)."""
    similarities = np.einsum("nd,md->nm", q, k) * (1 if scale is None else scale)
    return np.einsum("nm,me->ne", softmax(similarities, axis=1), v)


@given(few, few, few, few, few, few, scales)
def test_attention_is_a_weighted_mean_of_the_values(batch, heads, n, m, d, e, scale) -> None:
    q, k, v = noise(batch, heads, n, d), noise(batch, heads, m, d), noise(batch, heads, m, e)
    y = attend(q, swap_last(k), v, scale)
    for b, h in np.ndindex(batch, heads):
        np.testing.assert_allclose(y[b, h], weighted_mean(q[b, h], k[b, h], v[b, h], scale), atol=1e-14)


@given(few, few, few, few, few, few, scales)
def test_the_channels_of_a_head_lie_side_by_side(batch, heads, height, width, d, e, scale) -> None:
    q, k, v = (noise(batch, heads * c, height, width) for c in (d, d, e))
    y = attend_positions(q, k, v, heads, scale)
    assert y.shape == (batch, heads, e, height * width)
    for b, h in np.ndindex(batch, heads):
        one = [x[b, h * c : (h + 1) * c].reshape(c, -1).T for x, c in ((q, d), (k, d), (v, e))]
        np.testing.assert_allclose(y[b, h].T, weighted_mean(*one, scale), atol=1e-14)


@given(few, few, few, few)
def test_heads_of_tokens(batch, heads, count, d) -> None:
    x = noise(batch, count, heads * d)
    apart = split_heads(x, heads)
    for h in range(heads):
        np.testing.assert_array_equal(apart[:, h], x[:, :, h * d : (h + 1) * d])
    np.testing.assert_array_equal(merge_heads(apart), x)


@pytest.mark.parametrize("size", [(6,), (2, 3)])
def test_heads_of_maps(size: tuple[int, ...]) -> None:
    x = noise(2, 12, *size)
    for h in range(3):
        np.testing.assert_array_equal(split_channels(x, 3)[:, h], x[:, 4 * h : 4 * h + 4].reshape(2, 4, 6))


def test_tokens_are_positions_row_by_row() -> None:
    x = noise(2, 3, 4, 5)
    np.testing.assert_array_equal(to_tokens(x), np.moveaxis(x, 1, -1).reshape(2, 20, 3))
