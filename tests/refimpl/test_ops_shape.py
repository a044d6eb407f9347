"""Arranging and indexing against NumPy's own indexing and loops over the definition."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import ops
from refimpl.errors import ShapeError, UnsupportedOperationError

X = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)

bound = st.integers(-9, 9) | st.sampled_from([-(2**63), 2**63 - 1])


@given(bound, bound, st.integers(-4, 4).filter(bool), st.integers(0, 3))
def test_slice(start: int, end: int, step: int, axis: int) -> None:
    # ONNX: going backwards, starts are clamped to the first element; otherwise as in Python.
    clamped = max(start, -X.shape[axis]) if step < 0 else start
    index = (slice(None),) * axis + (slice(clamped, end, step),)
    np.testing.assert_array_equal(ops.slice_(X, (start,), (end,), (axis,), (step,)), X[index])
    np.testing.assert_array_equal(ops.slice_(X, (start,), (end,), (axis - 4,), (step,)), X[index])


def test_slice_of_leading_axes_and_backwards_to_the_start() -> None:
    np.testing.assert_array_equal(ops.slice_(X, (0, 1), (1, 3)), X[:1, 1:3])
    np.testing.assert_array_equal(ops.slice_(X, (-1,), (-(2**63),), (3,), (-1,)), X[..., ::-1])


@given(st.data(), st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_pad(data: Any, mode: str) -> None:
    counts = data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8))
    if mode == "reflect":
        counts[0] = counts[4] = min(counts[0], 1)
    fill = {"constant_values": 7} if mode == "constant" else {}
    expected = np.pad(X, list(zip(counts[:4], counts[4:], strict=True)), mode=mode, **fill)  # type: ignore[call-overload]
    np.testing.assert_array_equal(ops.pad(X, counts, 7.0 if fill else None, mode=mode), expected)


def test_pad_crops_and_names_axes() -> None:
    np.testing.assert_array_equal(ops.pad(X, (-1, 2, 0, -2), axes=(2, -1))[..., 2:], X[:, :, 1:, :-2])
    with pytest.raises(UnsupportedOperationError, match="mirror"):
        ops.pad(X, (0,) * 8, mode="mirror")


def test_reshape() -> None:
    assert ops.reshape(X, (0, -1, 5)).shape == (2, 12, 5)
    assert ops.reshape(np.zeros((0, 3)), (3, 0), allowzero=1).shape == (3, 0)
    assert ops.reshape(X, np.array([6, 20])).shape == (6, 20)
    assert ops.flatten(X, axis=-1).shape == (24, 5)
    assert ops.flatten(X, axis=0).shape == (1, 120)
    assert ops.unsqueeze(X, (0, -1)).shape == (1, 2, 3, 4, 5, 1)
    assert ops.squeeze(ops.unsqueeze(X, (0, -1))).shape == X.shape
    assert ops.expand(X[:, :1], (3, 1, 1)).shape == (2, 3, 4, 5)


def test_split() -> None:
    parts = ops.split(X, (1, 0, 3), axis=2)
    assert [part.shape[2] for part in parts] == [1, 0, 3]
    np.testing.assert_array_equal(ops.concat(*parts, axis=2), X)
    assert [part.shape[-1] for part in ops.split(X, axis=-1, num_outputs=3)] == [2, 2, 1]
    with pytest.raises(ShapeError, match="add up"):
        ops.split(X, (1, 2), axis=2)
    with pytest.raises(ShapeError, match="num_outputs"):
        ops.split(X)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int) -> None:
    indices = np.array([[0, -1], [1, 0]])
    expected = np.stack([np.stack([np.take(X, i, axis) for i in row]) for row in indices])
    expected = np.moveaxis(expected, (0, 1), (axis % 4, axis % 4 + 1))
    np.testing.assert_array_equal(ops.gather(X, indices, axis=axis), expected)


def test_gather_and_scatter_elements_by_loop() -> None:
    indices = np.array([[[[2, 0], [1, -1]]]])
    gathered = ops.gather_elements(X, indices, axis=1)
    updates = np.array([[[[100.0, 200.0], [300.0, 400.0]]]], np.float32)
    scattered, summed = X.copy(), X.copy()
    for place in itertools.product(*map(range, indices.shape)):
        target = (place[0], indices[place], *place[2:])
        assert gathered[place] == X[target]
        scattered[target] = updates[place]
        summed[target] += updates[place]
    np.testing.assert_array_equal(ops.scatter_elements(X, indices, updates, axis=1), scattered)
    np.testing.assert_array_equal(ops.scatter_elements(X, indices, updates, axis=1, reduction="add"), summed)


def test_scatter_adds_repeated_indices() -> None:
    y = ops.scatter_nd(np.zeros(3), np.array([[1], [1], [-1]]), np.array([2.0, 3.0, 4.0]), reduction="add")
    np.testing.assert_array_equal(y, [0, 5, 4])
    with pytest.raises(UnsupportedOperationError, match="mean"):
        ops.scatter_nd(np.zeros(3), np.array([[1]]), np.ones(1), reduction="mean")


@pytest.mark.parametrize("batch_dims", [0, 1, 2])
def test_gather_nd_by_loop(batch_dims: int) -> None:
    indices = np.array([[[[1], [0]], [[-1], [1]], [[0], [0]]], [[[1], [1]], [[0], [-2]], [[1], [0]]]])
    y = ops.gather_nd(X, indices, batch_dims=batch_dims)
    for place in itertools.product(*map(range, indices.shape[:-1])):
        source = (*place[:batch_dims], *indices[place])
        np.testing.assert_array_equal(y[place], X[source])


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth_undoes_depth_to_space(mode: str) -> None:
    x = np.arange(2 * 12 * 3 * 5).reshape(2, 12, 3, 5)
    y = ops.depth_to_space(x, blocksize=2, mode=mode)
    np.testing.assert_array_equal(ops.space_to_depth(y, blocksize=2, mode=mode), x)
    for n, c, h, w in itertools.product(range(2), range(3), range(6), range(10)):
        block = h % 2 * 2 + w % 2
        channel = block * 3 + c if mode == "DCR" else c * 4 + block
        assert y[n, c, h, w] == x[n, channel, h // 2, w // 2]


def test_making_tensors() -> None:
    assert ops.arange(np.float32(1), np.float32(2), np.float32(0.25)).tolist() == [1, 1.25, 1.5, 1.75]
    assert ops.arange(5, 0, -2).tolist() == [5, 3, 1]
    assert ops.arange(5, 0).shape == (0,)
    assert ops.constant_of_shape((2, 3)).dtype == np.float32
    assert ops.constant_of_shape((2, 3), value=np.array([7], np.int8)).tolist() == [[7] * 3] * 2
    one_hot = ops.one_hot(np.array([[0, -1]]), 3, np.array([2.0, 5.0], np.float32), axis=1)
    assert one_hot.tolist() == [[[5, 2], [2, 2], [2, 5]]]
    assert ops.shape(X, start=-2).tolist() == [4, 5]
    assert ops.size(X) == 120
    assert ops.non_zero(np.array([[0, 3], [4, 0]])).tolist() == [[0, 1], [1, 0]]


def test_cast() -> None:
    assert ops.cast(np.array([-1.9, 1.9]), to=7).tolist() == [-1, 1]
    assert ops.cast(X, to=np.float64).dtype == np.float64
    assert ops.cast_like(X, np.zeros(1, np.int8)).dtype == np.int8
    with pytest.raises(UnsupportedOperationError, match="16"):
        ops.cast(X, to=16)


def test_no_operation_writes_into_its_operand() -> None:
    before = X.copy()
    ops.scatter_nd(X, np.array([[0]]), np.zeros((1, 3, 4, 5), np.float32))
    ops.cum_sum(X, 0, exclusive=1)
    ops.layer_normalization(X, np.ones(5, np.float32))
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("limit", "delta", "stash_type"),
    [(1000, 0.1, 1), (1000, 0.1, 11), (65440, 0.53857421875, 11), (2048, 1, 1)],
)
def test_a_range_of_float16_is_counted_in_the_wider_type(limit: float, delta: float, stash_type: int) -> None:
    """As many numbers as exact fractions say, where that type can tell; float16 could not."""
    first, last, step = (np.float16(value) for value in (0, limit, delta))
    exact = math.ceil(Fraction(float(last)) / Fraction(float(step)))
    found = ops.arange(first, last, step, stash_type=stash_type)
    assert (found.dtype, len(found)) == (np.float16, exact)
    np.testing.assert_array_equal(found, (np.arange(exact) * float(step)).astype(np.float16))
    if stash_type == onnx.TensorProto.FLOAT:  # ONNX's default
        np.testing.assert_array_equal(ops.arange(first, last, step), found)


@given(st.integers(-(2**62), 2**62), st.integers(0, 40), st.integers(1, 2**20))
def test_a_range_of_integers_loses_none_of_them(start: int, count: int, step: int) -> None:
    """They are not computed in a float type, whatever it is told to use for float16."""
    given_ints = (np.int64(value) for value in (start, start + count, 1))
    assert ops.arange(*given_ints).tolist() == list(range(start, start + count))
    stepped = ops.arange(np.int64(0), np.int64(count * step), np.int64(step))
    assert stepped.tolist() == list(range(0, count * step, step))
