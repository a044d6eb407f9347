"""Activations: functions of one tensor, in its own float dtype, each as ONNX defines it.

The special functions are SciPy's, accurate to a unit or two in the last place in float64; what is composed of
them is within one. Nothing here is computed in a narrower dtype than its input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # scipy.special is loaded at its first use: half of the import time
from numpy.typing import ArrayLike

from refimpl.errors import UnsupportedOperationError
from refimpl.ops import double_double as dd
from refimpl.ops.normal_distribution import FARTHEST, upper_tail
from refimpl.ops.operation import Array, operation


def _special(function: Callable[[Array], Array], x: Array) -> Array:
    """Apply a SciPy function, which widens float16, and return to the dtype of ``x``."""
    return np.asarray(function(x)).astype(x.dtype, copy=False)


# An exponential of a rounded argument z is off by |z| units in the last place, so these are double-double.
_CUBIC = (0.044715, 2.1960211427085595e-18)
_ROOT_OF_8_BY_PI = (1.5957691216057308, -9.96930880911092e-17)


def _gated(x: Array, argument: dd.Pair) -> Array:
    """Return ``x · sigmoid(argument)`` in the dtype of ``x``."""
    wide = x.astype(np.float64)
    ordinary = (np.abs(wide) > 0) & (np.abs(wide) < 1e290) & (np.abs(argument[0]) < 745)
    near, (size, rest) = np.where(ordinary, wide, 1.0), dd.chosen(ordinary, argument, (0.0, 0.0))
    decay = np.exp(-np.abs(size))
    pair = decay, decay * np.where(size < 0, rest, -rest)
    above = dd.chosen(size < 0, dd.multiplied((near, 0.0), pair), (near, 0.0))
    result = dd.quotient(above, dd.added((1.0, 0.0), pair))
    # Of zeros, huge and infinite numbers the parts of a pair are lost.
    plain = wide * scipy.special.expit(argument[0])
    return np.where(ordinary, result, plain).astype(x.dtype, copy=False)


def _weighted(x: Array, tail: dd.Pair) -> Array:
    """Return ``x · tail`` below zero and ``x · (1 − tail)`` above."""
    ordinary = (np.abs(x) > 0) & (np.abs(x) < FARTHEST)
    near = np.where(ordinary, x, 1.0)
    part = dd.multiplied((near, 0.0), tail)
    rest = dd.added((near, 0.0), (-part[0], -part[1]))
    high, low = dd.chosen(near < 0, part, rest)
    return np.where(ordinary, high + low, x * np.where(x < 0, tail[0], 1 - tail[0]))


@operation("Relu")
def relu(x: Array) -> Array:
    """Return ``max(x, 0)``. ONNX Relu."""
    return np.asarray(np.maximum(x, x.dtype.type(0)))


@operation("Clip")
def clip(x: Array, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Array:
    """Return ``min(max(x, min), max)``; an absent bound is none. ReLU6 is ``clip(x, 0, 6)``. ONNX Clip."""
    lower = None if min is None else np.asarray(min, dtype=x.dtype)
    upper = None if max is None else np.asarray(max, dtype=x.dtype)
    if lower is None:
        return x.copy() if upper is None else np.asarray(np.minimum(x, upper))
    # With min > max ONNX yields max everywhere, as NumPy does.
    return np.asarray(np.maximum(x, lower) if upper is None else np.clip(x, lower, upper))


@operation("LeakyRelu")
def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """Return ``x`` where it is not negative, ``alpha · x`` elsewhere. ONNX LeakyRelu."""
    return np.where(x < 0, x * x.dtype.type(alpha), x)


@operation("PRelu")
def prelu(x: Array, slope: Array) -> Array:
    """Return ``x`` where it is not negative, ``slope · x`` elsewhere; ``slope`` broadcasts. ONNX PRelu."""
    return np.where(x < 0, x * slope, x)


@operation("Elu")
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """Return ``x`` where it is not negative, ``alpha · (exp(x) − 1)`` elsewhere. ONNX Elu."""
    return np.where(x < 0, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)), x)


@operation("Sigmoid")
def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(−x))``. ONNX Sigmoid."""
    return _special(scipy.special.expit, x)


@operation("HardSigmoid")
def hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """Return ``max(0, min(1, alpha · x + beta))``. ONNX HardSigmoid; PyTorch's has ``alpha = 1/6``."""
    y = np.asarray(x * x.dtype.type(alpha))
    y += x.dtype.type(beta)
    return np.clip(y, 0, 1, out=y)


@operation("HardSwish")
def hard_swish(x: Array) -> Array:
    """Return ``x · max(0, min(1, x / 6 + 1/2))``. ONNX HardSwish."""
    y = np.asarray(x * x.dtype.type(1 / 6))
    y += x.dtype.type(0.5)
    np.clip(y, 0, 1, out=y)
    y *= x
    return y


@operation("Swish")
def swish(x: Array, *, alpha: float = 1.0) -> Array:
    """Return ``x · sigmoid(alpha · x)``; with ``alpha = 1`` the SiLU. ONNX Swish."""
    wide, slope = x.astype(np.float64), np.float64(x.dtype.type(alpha))
    near = np.clip(wide, -1e290, 1e290)  # products of larger numbers overflow
    return _gated(x, dd.product(near, slope))


@operation("Mish")
def mish(x: Array) -> Array:
    """Return ``x · tanh(log(1 + exp(x)))``. ONNX Mish."""
    # tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2); above zero divided by e², in powers of exp(−x).
    wide = x.astype(np.float64)
    ordinary = (np.abs(wide) > 0) & (np.abs(wide) < 700)
    near = np.where(ordinary, wide, 1.0)
    decay = np.exp(-np.abs(near))
    square = dd.product(decay, decay)
    above = dd.added((2 * decay, 0.0), dd.chosen(near < 0, square, (1.0, 0.0)))
    below = dd.added(above, dd.chosen(near < 0, (2.0, 0.0), (2 * square[0], 2 * square[1])))
    result = dd.quotient(dd.multiplied((near, 0.0), above), below)
    return np.where(ordinary, result, wide * np.tanh(_softplus(wide))).astype(x.dtype, copy=False)


@operation("Softplus")
def softplus(x: Array) -> Array:
    """Return ``log(1 + exp(x))`` without overflow. ONNX Softplus."""
    return _softplus(x)


def _softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


@operation("Tanh")
def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent. ONNX Tanh."""
    return np.asarray(np.tanh(x))


@operation("Erf")
def erf(x: Array) -> Array:
    """Return the error function ``2/√π ∫₀ˣ exp(−t²) dt``. ONNX Erf."""
    return _special(scipy.special.erf, x)


@operation("Gelu")
def gelu(x: Array, *, approximate: str = "none") -> Array:
    """Return ``x · Φ(x)``, Φ the normal distribution function. ONNX Gelu.

    Parameters
    ----------
    x : array of any shape
    approximate : "none" or "tanh"
        "tanh" is Hendrycks & Gimpel's ``x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))``.

    Raises
    ------
    UnsupportedOperationError
        Another value of ``approximate``.
    """
    wide = x.astype(np.float64)
    # Beyond, nothing changes but that products overflow.
    near = np.clip(wide, -FARTHEST, FARTHEST)
    if approximate == "none":
        return _weighted(wide, upper_tail(np.abs(near))).astype(x.dtype, copy=False)
    if approximate == "tanh":
        # (1 + tanh(z)) / 2 = sigmoid(2z) does not cancel.
        cubic = dd.multiplied(dd.product(near, near), _CUBIC)
        return _gated(
            x, dd.multiplied(dd.multiplied(dd.added((1.0, 0.0), cubic), (near, 0.0)), _ROOT_OF_8_BY_PI)
        )
    raise UnsupportedOperationError(f"Gelu has approximate {approximate!r}; ONNX knows 'none' and 'tanh'")


@operation("Softmax")
def softmax(x: Array, *, axis: int = -1) -> Array:
    """Return ``exp(x) / Σ exp(x)`` along ``axis``, stable for logits of any size. ONNX Softmax."""
    y = np.asarray(x - np.max(x, axis=axis, keepdims=True))
    np.exp(y, out=y)
    y /= np.sum(y, axis=axis, keepdims=True)
    return y


@operation("LogSoftmax")
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Return ``x − log Σ exp(x)`` along ``axis``, stable for logits of any size. ONNX LogSoftmax."""
    y = np.asarray(x - np.max(x, axis=axis, keepdims=True))
    y -= np.log(np.sum(np.exp(y), axis=axis, keepdims=True))
    return y
