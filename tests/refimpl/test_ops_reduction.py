"""Reductions and selections against `math.fsum`, SciPy, sorting and PyTorch's conventions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from refimpl import ops

X = np.random.default_rng(1).normal(size=(3, 4, 5))

SCALAR = {
    "reduce_sum": math.fsum,
    "reduce_mean": lambda v: math.fsum(v) / len(v),
    "reduce_prod": math.prod,
    "reduce_max": max,
    "reduce_min": min,
    "reduce_l1": lambda v: math.fsum(map(abs, v)),
    "reduce_l2": lambda v: math.hypot(*v),
    "reduce_sum_square": lambda v: math.fsum(x * x for x in v),
    "reduce_log_sum": lambda v: math.log(math.fsum(v)),
    "reduce_log_sum_exp": lambda v: math.log(math.fsum(map(math.exp, v))),
}


@pytest.mark.parametrize("axes", [None, (1,), (0, -1), (0, 1, 2)])
@pytest.mark.parametrize("name", SCALAR)
def test_against_exact_sums(name: str, axes: tuple[int, ...] | None) -> None:
    x = np.abs(X) + 0.5
    y = getattr(ops, name)(x, axes, keepdims=0)
    reduced = tuple(a % 3 for a in (axes or (0, 1, 2)))
    rows = np.moveaxis(x, reduced, range(-len(reduced), 0)).reshape(
        -1, math.prod(x.shape[a] for a in reduced)
    )
    np.testing.assert_allclose(y.reshape(-1), [SCALAR[name](row.tolist()) for row in rows], rtol=1e-14)
    kept = getattr(ops, name)(x, axes)
    assert kept.shape == tuple(1 if a in reduced else n for a, n in enumerate(x.shape))
    np.testing.assert_array_equal(kept.reshape(y.shape), y)


@pytest.mark.parametrize("name", SCALAR)
def test_no_axes(name: str) -> None:
    x = (np.abs(X) + 0.5).astype(np.float32)
    assert getattr(ops, name)(x).shape == (1, 1, 1)
    assert getattr(ops, name)(x, (), noop_with_empty_axes=1).shape == x.shape
    assert getattr(ops, name)(x, (1,)).dtype == np.float32


def test_log_sum_exp_neither_overflows_nor_loses_infinity() -> None:
    x = np.array([[1000.0, 1000.0], [-1000.0, -1001.0], [-np.inf, 3.0], [np.inf, 0.0]])
    np.testing.assert_allclose(
        ops.reduce_log_sum_exp(x, (1,), keepdims=0), special.logsumexp(x, axis=1), rtol=1e-15
    )


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.0, np.inf]), min_size=6, max_size=6),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 6),
    st.booleans(),
)
def test_top_k_is_sorting_with_lower_index_first(rows: list[list[float]], k: int, largest: bool) -> None:
    values, indices = ops.top_k(np.array(rows), (k,), largest=int(largest))
    for row, chosen, places in zip(rows, values, indices, strict=True):
        expected = sorted(range(6), key=lambda i: (-row[i] if largest else row[i], i))[:k]
        assert places.tolist() == expected
        assert chosen.tolist() == [row[i] for i in expected]
    assert indices.dtype == np.int64


def test_top_k_of_unsigned_integers_along_the_first_axis() -> None:
    x = np.array([[3, 0], [255, 1], [3, 7]], np.uint8)
    values, indices = ops.top_k(x, 2, axis=0)
    np.testing.assert_array_equal(values, [[255, 7], [3, 1]])
    np.testing.assert_array_equal(indices, [[1, 2], [0, 1]])


@pytest.mark.parametrize(("select", "best"), [(ops.arg_max, max), (ops.arg_min, min)])
def test_arg_of_equals(select: Any, best: Any) -> None:
    row = [1, 3, 0, 3, 0, 1]
    places = [i for i, v in enumerate(row) if v == best(row)]
    x = np.array([row])
    assert select(x, axis=1).tolist() == [[places[0]]]
    assert select(x, axis=-1, keepdims=0, select_last_index=1).tolist() == [places[-1]]


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cum_sum(axis: int, exclusive: int, reverse: int) -> None:
    n = X.shape[axis]
    later, earlier = np.meshgrid(range(n), range(n), indexing="ij")
    included = earlier >= later if reverse else earlier <= later
    if exclusive:
        included &= earlier != later
    expected = np.moveaxis(np.tensordot(included.astype(float), X, axes=(1, axis)), 0, axis)
    np.testing.assert_allclose(
        ops.cum_sum(X, axis, exclusive=exclusive, reverse=reverse), expected, atol=1e-14
    )
