"""Normalisations against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refimpl import ops
from refimpl.errors import ShapeError, UnsupportedOperationError

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")

rng = np.random.default_rng(7)
X = rng.normal(size=(2, 6, 4, 5)) * 3 + 10
SCALE, BIAS, MEAN = rng.normal(size=(3, 6))
VAR = rng.uniform(0.1, 2, size=6)


def _t(x: np.ndarray) -> Any:
    return torch.from_numpy(x)


def _close(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_batch_normalization(epsilon: float) -> None:
    expected = torch.nn.functional.batch_norm(_t(X), _t(MEAN), _t(VAR), _t(SCALE), _t(BIAS), eps=epsilon)
    _close(ops.batch_normalization(X, SCALE, BIAS, MEAN, VAR, epsilon=epsilon), expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layer_normalization(axes: int) -> None:
    shape = X.shape[-axes:]
    scale, bias = rng.normal(size=(2, *shape))
    for epsilon in (1e-6, 1e-2):
        expected = torch.nn.functional.layer_norm(_t(X), shape, _t(scale), _t(bias), epsilon)
        _close(ops.layer_normalization(X, scale, bias, axis=-axes, epsilon=epsilon), expected)
        _close(
            ops.layer_normalization(X, scale, axis=4 - axes, epsilon=epsilon),
            torch.nn.functional.layer_norm(_t(X), shape, _t(scale), None, epsilon),
        )


def test_layer_normalization_with_statistics() -> None:
    y, mean, inverse = ops.layer_normalization_with_statistics(X, np.ones(5), epsilon=1e-4)
    _, torch_mean, torch_inverse = torch.native_layer_norm(_t(X), (5,), None, None, 1e-4)
    _close(mean, torch_mean)
    _close(inverse, torch_inverse)
    _close(y, torch.nn.functional.layer_norm(_t(X), (5,), eps=1e-4))


def test_instance_normalization() -> None:
    expected = torch.nn.functional.instance_norm(_t(X), weight=_t(SCALE), bias=_t(BIAS), eps=1e-4)
    _close(ops.instance_normalization(X, SCALE, BIAS, epsilon=1e-4), expected)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_normalization(groups: int) -> None:
    expected = torch.nn.functional.group_norm(_t(X), groups, _t(SCALE), _t(BIAS), 1e-4)
    _close(ops.group_normalization(X, SCALE, BIAS, num_groups=groups, epsilon=1e-4), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_is_kept(dtype: type[Any]) -> None:
    x, scale, bias, mean, var = (a.astype(dtype) for a in (X, SCALE, BIAS, MEAN, VAR))
    assert ops.batch_normalization(x, scale, bias, mean, var).dtype == dtype
    assert ops.layer_normalization(x, np.ones(5, dtype), np.ones(5, dtype)).dtype == dtype
    assert ops.instance_normalization(x, scale, bias).dtype == dtype
    assert ops.group_normalization(x, scale, bias, num_groups=2).dtype == dtype


def test_misuse_is_named() -> None:
    with pytest.raises(ShapeError, match="per-channel"):
        ops.batch_normalization(X, SCALE[:1], BIAS[:1], MEAN[:1], VAR[:1])
    with pytest.raises(UnsupportedOperationError, match="training_mode"):
        ops.batch_normalization(X, SCALE, BIAS, MEAN, VAR, training_mode=1)
    with pytest.raises(ShapeError, match="4 groups"):
        ops.group_normalization(X, SCALE, BIAS, num_groups=4)
