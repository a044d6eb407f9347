"""Activations: functions of one tensor, in its own float dtype, each as ONNX defines it.

The special functions are SciPy's, accurate to a unit or two in the last place in float64; what is composed of
them is within one there (`refimpl.ops.last_place`). Nothing here is computed in a narrower dtype than its
input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # scipy.special is loaded at its first use: half of the import time
from numpy.typing import ArrayLike

from refimpl.errors import UnsupportedOperationError
from refimpl.ops import last_place
from refimpl.ops.operation import Array, Trait, operation


def _special(function: Callable[[Array], Array], x: Array) -> Array:
    """Apply a SciPy function, which widens float16, and return to the dtype of ``x``."""
    return np.asarray(function(x)).astype(x.dtype, copy=False)


@operation("Relu", Trait.SELECTS | Trait.MONOTONE)
def relu(x: Array) -> Array:
    """Return ``max(x, 0)``. ONNX Relu."""
    return np.asarray(np.maximum(x, x.dtype.type(0)))


@operation("Clip", Trait.SELECTS | Trait.MONOTONE)
def clip(x: Array, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Array:
    """Return ``min(max(x, min), max)``; an absent bound is none. ReLU6 is ``clip(x, 0, 6)``. ONNX Clip."""
    lower = None if min is None else np.asarray(min, dtype=x.dtype)
    upper = None if max is None else np.asarray(max, dtype=x.dtype)
    if lower is None:
        return x.copy() if upper is None else np.asarray(np.minimum(x, upper))
    # With min > max ONNX yields max everywhere, as NumPy does.
    return np.asarray(np.maximum(x, lower) if upper is None else np.clip(x, lower, upper))


@operation("LeakyRelu", Trait.ROUNDS | Trait.ELEMENTWISE)
def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """Return ``x`` where it is not negative, ``alpha · x`` elsewhere. ONNX LeakyRelu."""
    return np.where(x < 0, x * x.dtype.type(alpha), x)


@operation("PRelu", Trait.ROUNDS | Trait.ELEMENTWISE)
def prelu(x: Array, slope: Array) -> Array:
    """Return ``x`` where it is not negative, ``slope · x`` elsewhere; ``slope`` broadcasts. ONNX PRelu."""
    return np.where(x < 0, x * slope, x)


@operation("Elu", Trait.ROUNDS | Trait.ELEMENTWISE)
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """Return ``x`` where it is not negative, ``alpha · (exp(x) − 1)`` elsewhere. ONNX Elu."""
    return np.where(x < 0, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)), x)


@operation("Selu", Trait.ROUNDS | Trait.ELEMENTWISE)
def selu(x: Array, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Array:
    """Return ``gamma · x`` where it is positive, ``gamma · alpha · (exp(x) − 1)`` elsewhere. ONNX Selu."""
    of = x.dtype.type
    return np.where(x > 0, of(gamma) * x, of(gamma) * of(alpha) * np.expm1(np.minimum(x, 0)))


@operation("Celu", Trait.ROUNDS | Trait.ELEMENTWISE)
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """Return ``max(x, 0) + min(alpha · (exp(x / alpha) − 1), 0)``. ONNX Celu."""
    slope = x.dtype.type(alpha)
    return np.asarray(np.maximum(x, 0) + np.minimum(slope * np.expm1(x / slope), 0))


@operation("Softsign", Trait.ROUNDS | Trait.MONOTONE)
def softsign(x: Array) -> Array:
    """Return ``x / (1 + |x|)``. ONNX Softsign."""
    return np.asarray(x / (1 + np.abs(x)))


@operation("Shrink", Trait.ROUNDS | Trait.ELEMENTWISE)
def shrink(x: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """Return ``x`` less ``bias`` in size where it is beyond ±``lambd``, zero elsewhere. ONNX Shrink."""
    moved = np.where(x > lambd, x - x.dtype.type(bias), x + x.dtype.type(bias))
    return np.where(np.abs(x) > lambd, moved, 0).astype(x.dtype, copy=False)


@operation("ThresholdedRelu", Trait.SELECTS | Trait.ELEMENTWISE)
def thresholded_relu(x: Array, *, alpha: float = 1.0) -> Array:
    """Return ``x`` where it is above ``alpha``, zero elsewhere. ONNX ThresholdedRelu."""
    return np.where(x > x.dtype.type(alpha), x, x.dtype.type(0))


@operation("Hardmax", Trait.EXACT)
def hardmax(x: Array, *, axis: int = -1) -> Array:
    """Return one at the first maximum along ``axis``, zero elsewhere. ONNX Hardmax."""
    y = np.zeros_like(x)
    np.put_along_axis(y, np.argmax(x, axis=axis, keepdims=True), 1, axis)
    return y


@operation("Sigmoid", Trait.ROUNDS | Trait.MONOTONE)
def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(−x))``. ONNX Sigmoid."""
    return _special(scipy.special.expit, x)


@operation("HardSigmoid", Trait.ROUNDS | Trait.MONOTONE)
def hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """Return ``max(0, min(1, alpha · x + beta))``. ONNX HardSigmoid; PyTorch's has ``alpha = 1/6``."""
    y = np.asarray(x * x.dtype.type(alpha))
    y += x.dtype.type(beta)
    return np.clip(y, 0, 1, out=y)


@operation("HardSwish", Trait.ROUNDS | Trait.ELEMENTWISE)
def hard_swish(x: Array) -> Array:
    """Return ``x · max(0, min(1, x / 6 + 1/2))``. ONNX HardSwish."""
    y = np.asarray(x * x.dtype.type(1 / 6))
    y += x.dtype.type(0.5)
    np.clip(y, 0, 1, out=y)
    y *= x
    return y


@operation("Swish", Trait.ROUNDS | Trait.ELEMENTWISE)
def swish(x: Array, *, alpha: float = 1.0) -> Array:
    """Return ``x · sigmoid(alpha · x)``; with ``alpha = 1`` the SiLU. ONNX Swish."""
    slope = x.dtype.type(alpha)
    if x.dtype == np.float64:
        return last_place.swish(x, slope)
    return np.asarray(x * _special(scipy.special.expit, x * slope))


@operation("Mish", Trait.ROUNDS | Trait.ELEMENTWISE)
def mish(x: Array) -> Array:
    """Return ``x · tanh(log(1 + exp(x)))``. ONNX Mish."""
    if x.dtype == np.float64:
        return last_place.mish(x)
    return np.asarray(x * np.tanh(_softplus(x)))


@operation("Softplus", Trait.ROUNDS | Trait.MONOTONE)
def softplus(x: Array) -> Array:
    """Return ``log(1 + exp(x))`` without overflow. ONNX Softplus."""
    return _softplus(x)


def _softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


@operation("Tanh", Trait.ROUNDS | Trait.MONOTONE)
def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent. ONNX Tanh."""
    return np.asarray(np.tanh(x))


@operation("Erf", Trait.ROUNDS | Trait.MONOTONE)
def erf(x: Array) -> Array:
    """Return the error function ``2/√π ∫₀ˣ exp(−t²) dt``. ONNX Erf."""
    return _special(scipy.special.erf, x)


@operation("Gelu", Trait.ROUNDS | Trait.ELEMENTWISE)
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
    if approximate not in ("none", "tanh"):
        raise UnsupportedOperationError(f"Gelu has approximate {approximate!r}; ONNX knows 'none' and 'tanh'")
    if x.dtype == np.float64:
        return last_place.gelu(x) if approximate == "none" else last_place.gelu_tanh(x)
    if approximate == "none":
        return np.asarray(x * _special(scipy.special.ndtr, x))
    # (1 + tanh(z)) / 2 = sigmoid(2z) does not cancel for very negative x.
    inner = x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
    return np.asarray(x * _special(scipy.special.expit, 2 * inner))


@operation("Softmax", Trait.ROUNDS)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """Return ``exp(x) / Σ exp(x)`` along ``axis``, stable for logits of any size. ONNX Softmax."""
    y = np.asarray(x - np.max(x, axis=axis, keepdims=True))
    np.exp(y, out=y)
    y /= np.sum(y, axis=axis, keepdims=True)
    return y


@operation("LogSoftmax", Trait.ROUNDS)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Return ``x − log Σ exp(x)`` along ``axis``, stable for logits of any size. ONNX LogSoftmax."""
    y = np.asarray(x - np.max(x, axis=axis, keepdims=True))
    y -= np.log(np.sum(np.exp(y), axis=axis, keepdims=True))
    return y
