"""Activations against SciPy, mpmath and PyTorch's definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from refimpl import ops
from refimpl.errors import UnsupportedOperationError

POINTS = np.concatenate([np.linspace(-36, 36, 193), [-1e-300, 0.0, 1e-300, 1e-9, -1e-9]])

EXACT: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "sigmoid": (ops.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
    "erf": (ops.erf, mpmath.erf),
    "gelu": (ops.gelu, lambda x: x * mpmath.ncdf(x)),
    "tanh": (ops.tanh, mpmath.tanh),
    "softplus": (ops.softplus, lambda x: mpmath.log1p(mpmath.exp(x))),
    "swish": (ops.swish, lambda x: x / (1 + mpmath.exp(-x))),
    "elu": (ops.elu, lambda x: x if x >= 0 else mpmath.expm1(x)),
    "gelu_tanh": (
        lambda x: ops.gelu(x, approximate="tanh"),
        lambda x: x / (1 + mpmath.exp(-mpmath.sqrt(8 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))),
    ),
    "swish_alpha": (
        lambda x: ops.swish(x, alpha=1.702),
        lambda x: x / (1 + mpmath.exp(-mpmath.mpf(1.702) * x)),
    ),
    "mish": (ops.mish, lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x)))),
}


def _ulps(actual: np.ndarray, exact: list[Any]) -> np.ndarray:
    """Return the distance from the exact values in units in the last place."""
    # Of a subnormal result, half a unit may be lost before the last product.
    spacing = np.spacing(np.maximum(np.abs(np.array([float(value) for value in exact])), 1e-305))
    error = [abs(mpmath.mpf(float(a)) - e) for a, e in zip(actual, exact, strict=True)]
    return np.array([float(e / s) for e, s in zip(error, spacing, strict=True)])


@pytest.mark.parametrize("name", EXACT)
def test_accurate_in_float64(name: str) -> None:
    function, exact = EXACT[name]
    with mpmath.workdps(50):
        values = [exact(mpmath.mpf(x)) for x in POINTS]
        composed = name.startswith(("gelu", "swish", "mish"))
        assert np.all(_ulps(function(POINTS), values) <= (1.5 if composed else 4))


@pytest.mark.parametrize("function", [ops.gelu, lambda x: ops.gelu(x, approximate="tanh"), ops.swish])
def test_huge_arguments_neither_overflow_nor_vanish(function: Callable[..., Any]) -> None:
    largest = np.finfo(np.float64).max
    np.testing.assert_array_equal(function(np.array([largest, -largest, 0.0])), [largest, 0.0, 0.0])


def test_gelu_refuses_other_approximations() -> None:
    with pytest.raises(UnsupportedOperationError, match="sigmoid"):
        ops.gelu(POINTS, approximate="sigmoid")


ONE_TENSOR = [
    ops.relu, ops.leaky_relu, ops.elu, ops.clip, ops.sigmoid, ops.hard_sigmoid, ops.hard_swish, ops.swish,
    ops.mish, ops.softplus, ops.tanh, ops.erf, ops.gelu, ops.softmax, ops.log_softmax, ops.exp, ops.sin,
    ops.cos, ops.neg,
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("function", ONE_TENSOR, ids=lambda function: function.__name__)
def test_keeps_dtype_and_operand(function: Callable[..., Any], dtype: type[Any]) -> None:
    x = np.linspace(-4, 4, 24, dtype=dtype).reshape(2, 3, 4)
    before = x.copy()
    y = function(x)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("function", ONE_TENSOR, ids=lambda function: function.__name__)
def test_narrow_floats_round_the_float64_result(function: Callable[..., Any], dtype: type[Any]) -> None:
    x = np.linspace(-4, 4, 24, dtype=dtype).reshape(2, 3, 4)
    error = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(function(x), function(x.astype(np.float64)), rtol=error, atol=error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_huge_logits(dtype: type[Any]) -> None:
    x = np.array([[1000, -1000, 999], [-1000, -1000, -1000], [1000, 1000, -1000]], dtype=dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(ops.softmax(x), special.softmax(x.astype(np.float64), axis=-1), rtol=8 * eps)
    np.testing.assert_allclose(
        ops.log_softmax(x), special.log_softmax(x.astype(np.float64), axis=-1), rtol=8 * eps
    )


@given(st.integers(0, 2), st.integers(0, 2**32 - 1), st.floats(-1e3, 1e3))
def test_softmax_sums_to_one_and_ignores_shifts(axis: int, seed: int, shift: float) -> None:
    x = np.random.default_rng(seed).normal(size=(3, 4, 5)) * 10
    y = ops.softmax(x, axis=axis)
    np.testing.assert_allclose(y.sum(axis=axis), 1, rtol=1e-14)
    np.testing.assert_allclose(ops.softmax(x + shift, axis=axis), y, rtol=1e-11)


def test_clip_bounds() -> None:
    x = np.array([-2.0, 3.0, 9.0], dtype=np.float32)
    np.testing.assert_array_equal(ops.clip(x, 0.0, 6.0), [0, 3, 6])
    np.testing.assert_array_equal(ops.clip(x, None, 6.0), [-2, 3, 6])
    np.testing.assert_array_equal(ops.clip(x, 0), [0, 3, 9])
    assert ops.clip(x, np.float64(0.1)).dtype == np.float32


def test_nan_is_not_swallowed() -> None:
    x = np.array([np.nan, 1.0])
    for function in ONE_TENSOR:
        assert np.isnan(function(x)[0]), function.__name__
