"""Arithmetic against Python's own numbers, and broadcasting against its definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from refimpl import ops
from refimpl.errors import ShapeError

BINARY: dict[str, tuple[Callable[..., Any], Callable[[float, float], Any]]] = {
    "add": (ops.add, lambda a, b: a + b),
    "sub": (ops.sub, lambda a, b: a - b),
    "mul": (ops.mul, lambda a, b: a * b),
    "div": (ops.div, lambda a, b: a / b),
    "maximum": (ops.maximum, max),
    "minimum": (ops.minimum, min),
    "less": (ops.less, lambda a, b: a < b),
    "less_or_equal": (ops.less_or_equal, lambda a, b: a <= b),
    "greater": (ops.greater, lambda a, b: a > b),
    "greater_or_equal": (ops.greater_or_equal, lambda a, b: a >= b),
    "equal": (ops.equal, lambda a, b: a == b),
    "fmod": (lambda a, b: ops.mod(a, b, fmod=1), math.fmod),
}


@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3), st.sampled_from(sorted(BINARY)))
def test_broadcasting_pairs_the_elements_it_should(shapes: Any, name: str) -> None:
    function, scalar = BINARY[name]
    rng = np.random.default_rng(0)
    a, b = (rng.integers(1, 5, size=shape).astype(np.float64) for shape in shapes.input_shapes)
    y = function(a, b)
    assert y.shape == shapes.result_shape
    for index in itertools.product(*map(range, y.shape)):
        assert y[index] == scalar(_element(a, index), _element(b, index))


def _element(x: np.ndarray, index: tuple[int, ...]) -> float:
    """Return the element that broadcasting brings to ``index``: axes of length one repeat."""
    own = index[len(index) - x.ndim :]
    return float(x[tuple(0 if length == 1 else place for place, length in zip(own, x.shape, strict=True))])


@given(st.integers(-128, 127), st.integers(-128, 127).filter(bool))
def test_integer_division_truncates(a: int, b: int) -> None:
    x, y = np.array([a], np.int64), np.array([b], np.int64)
    quotient = int(ops.div(x, y)[0])
    assert quotient == math.trunc(a / b)
    assert int(ops.mod(x, y)[0]) == a % b


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scalar", [3, 0.1, np.float64(0.1), np.sqrt(2.0), (1.0, 2.0, 3.0)])
def test_scalars_take_the_dtype_of_the_tensor(dtype: type[Any], scalar: Any) -> None:
    x = np.ones((2, 3), dtype)
    for function in (ops.add, ops.sub, ops.mul, ops.div, ops.power, ops.maximum, ops.minimum):
        assert function(x, scalar).dtype == dtype
        assert function(scalar, x).dtype == dtype
    assert ops.where(x > 0, x, scalar).dtype == dtype
    np.testing.assert_array_equal(ops.add(x, scalar), x + np.asarray(scalar, dtype))


def test_a_fraction_is_not_truncated_to_an_integer_tensor() -> None:
    with pytest.raises(ShapeError, match="cast the tensor"):
        ops.add(np.arange(3), 0.5)
    assert ops.add(np.arange(3), 2.0).dtype == np.int64


def test_results_of_rank_zero_are_arrays() -> None:
    x = np.array(4.0, np.float32)
    for y in (
        ops.add(x, 1),
        ops.sqrt(x),
        ops.neg(x),
        ops.relu(x),
        ops.sigmoid(x),
        ops.reduce_sum(x),
        ops.equal(x, x),
    ):
        assert isinstance(y, np.ndarray)
        assert y.shape == ()


@given(st.floats(-1e6, 1e6))
def test_rounding_is_pythons(x: float) -> None:
    array = np.array([x, math.floor(x) + 0.5])
    np.testing.assert_array_equal(ops.round_half_even(array), [round(float(v)) for v in array])
    np.testing.assert_array_equal(ops.floor(array), [math.floor(v) for v in array])
    np.testing.assert_array_equal(ops.ceil(array), [math.ceil(v) for v in array])


def test_mean_and_sum_of_several() -> None:
    x = np.array([1.0, 2.0], np.float32)
    y = np.array([[3.0], [7.0]], np.float32)
    np.testing.assert_array_equal(ops.sum_of(x, y, x), [[5, 7], [9, 11]])
    np.testing.assert_array_equal(ops.mean_of(x, y), [[2, 2.5], [4, 4.5]])
