"""Normalisations at inference, each as ONNX defines it, in the dtype of the data."""

from __future__ import annotations

import numpy as np

from refimpl.errors import ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array, Trait, operation


def _per_channel(values: Array, x: Array) -> Array:
    """Shape (C,) → (1, C, 1, …) in the dtype of ``x`` (N, C, …)."""
    if values.shape != x.shape[1:2]:
        raise ShapeError(
            f"per-channel values have shape {values.shape}; data of shape {x.shape} needs {x.shape[1:2]}"
        )
    return values.reshape((1, -1) + (1,) * (x.ndim - 2)).astype(x.dtype, copy=False)


@operation("BatchNormalization", Trait.ROUNDS | Trait.MAPS)
def batch_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Array:
    """Return ``scale · (x − mean) / √(var + epsilon) + bias`` per channel, with the running statistics.

    Computed as ``x · factor + shift`` with the factor and shift of each channel in the parameters' dtype.

    Parameters
    ----------
    x : array (N, C, …)
    scale, bias, mean, var : arrays (C,)
    epsilon : float
    momentum, training_mode
        Of training only.

    Returns
    -------
    array of the shape and dtype of ``x``

    Raises
    ------
    UnsupportedOperationError
        ``training_mode`` is set.
    ShapeError
        A parameter is not of shape (C,).

    Source: Ioffe & Szegedy 2015; ONNX BatchNormalization.
    """
    if training_mode:
        raise UnsupportedOperationError(
            "BatchNormalization has training_mode=1; export the model in evaluation mode"
        )
    factor = scale / np.sqrt(var + var.dtype.type(epsilon))
    y = np.asarray(x * _per_channel(factor, x))
    y += _per_channel(bias - mean * factor, x)
    return y


def _standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """Return (x − mean) / √(variance + epsilon), the mean, and 1 / √(variance + epsilon)."""
    mean = np.mean(x, axis=axes, keepdims=True)
    y = np.asarray(x - mean)
    variance = np.mean(np.square(y), axis=axes, keepdims=True)
    inverse_deviation = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    y *= inverse_deviation
    return y, mean, inverse_deviation


@operation("LayerNormalization", Trait.ROUNDS)
def layer_normalization(
    x: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    """Return ``scale · (x − mean) / √(variance + epsilon) + bias``, statistics over ``axis`` and after.

    Only the first output of ONNX's LayerNormalization: see `layer_normalization_with_statistics`.

    Parameters
    ----------
    x : array
    scale, bias : arrays that broadcast to ``x.shape[axis:]``
    axis : int
    epsilon : float
    stash_type : int
        The dtype in which ONNX asks for the statistics; here they are always in that of ``x``.

    Returns
    -------
    array of the shape and dtype of ``x``

    Source: Ba, Kiros & Hinton 2016; ONNX LayerNormalization.
    """
    return _layer_normalized(x, scale, bias, axis, epsilon)[0]


def layer_normalization_with_statistics(
    x: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Array, Array, Array]:
    """All outputs of ONNX's LayerNormalization: Y, Mean and InvStdDev, ``1 / √(variance + epsilon)``."""
    return _layer_normalized(x, scale, bias, axis, epsilon)


def _layer_normalized(
    x: Array, scale: Array, bias: Array | None, axis: int, epsilon: float
) -> tuple[Array, Array, Array]:
    y, mean, inverse_deviation = _standardized(x, tuple(range(axis % x.ndim, x.ndim)), epsilon)
    y *= scale
    if bias is not None:
        y += bias
    return y, mean, inverse_deviation


@operation("RMSNormalization", Trait.ROUNDS)
def rms_normalization(
    x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """Return ``scale · x / √(mean of x² + epsilon)``, the mean over ``axis`` and after.

    Parameters as of `layer_normalization`. Source: Zhang & Sennrich 2019; ONNX RMSNormalization.
    """
    axes = tuple(range(axis % x.ndim, x.ndim))
    square = np.mean(np.square(x), axis=axes, keepdims=True)
    return np.asarray(x / np.sqrt(square + x.dtype.type(epsilon)) * scale)


@operation("MeanVarianceNormalization", Trait.ROUNDS)
def mean_variance_normalization(x: Array, *, axes: tuple[int, ...] = (0, 2, 3)) -> Array:
    """Return ``(x − mean) / (deviation + 1e-9)`` over ``axes``. ONNX MeanVarianceNormalization."""
    y = np.asarray(x - np.mean(x, axis=tuple(axes), keepdims=True))
    deviation = np.sqrt(np.mean(np.square(y), axis=tuple(axes), keepdims=True))
    y /= deviation + x.dtype.type(1e-9)
    return y


@operation("LpNormalization", Trait.ROUNDS)
def lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    """Return ``x`` over its sum of sizes (``p`` 1) or its length (2) along ``axis``; 0 of zeros.

    Source: ONNX LpNormalization.

    Raises
    ------
    UnsupportedOperationError
        Another ``p``.
    """
    if p not in (1, 2):
        raise UnsupportedOperationError(f"LpNormalization has p {p}; ONNX knows 1 and 2")
    size = np.sum(np.abs(x) ** p, axis=axis, keepdims=True)
    length = size if p == 1 else np.sqrt(size)
    return np.asarray(x / np.where(length == 0, x.dtype.type(1), length)).astype(x.dtype, copy=False)


@operation("LRN", Trait.ROUNDS | Trait.MAPS)
def lrn(x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
    """Return ``x / (bias + alpha / size · Σ x²)^beta``, the sum over ``size`` channels about each.

    Source: Krizhevsky et al. 2012; ONNX LRN. ``x`` is (N, C, …).
    """
    total = _window_sums(np.square(x), size)
    base = x.dtype.type(bias) + x.dtype.type(alpha) / x.dtype.type(size) * total
    return np.asarray(x / np.power(base, x.dtype.type(beta)))


def _window_sums(x: Array, size: int) -> Array:
    """Return the sums over ``size`` channels about each of (N, C, …), ⌊(size − 1) / 2⌋ of them before it."""
    channels, before = x.shape[1], (size - 1) // 2
    widths = [(before, size - 1 - before) if axis == 1 else (0, 0) for axis in range(x.ndim)]
    wide = np.pad(x, widths)
    return np.asarray(sum(wide[:, tap : tap + channels] for tap in range(size)))


@operation("InstanceNormalization", Trait.ROUNDS | Trait.MAPS)
def instance_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    """Normalise each channel (N, C, …) of each sample over its positions, then scale and shift it.

    Source: Ulyanov et al. 2016; ONNX InstanceNormalization. ``scale`` and ``bias`` are (C,).
    """
    y, _, _ = _standardized(x, tuple(range(2, x.ndim)), epsilon)
    y *= _per_channel(scale, x)
    y += _per_channel(bias, x)
    return y


@operation("GroupNormalization", Trait.ROUNDS | Trait.MAPS)
def group_normalization(
    x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """Normalise each of ``num_groups`` groups of channels of (N, C, …), then scale and shift each channel.

    Source: Wu & He 2018; ONNX GroupNormalization (opset 21: ``scale`` and ``bias`` are (C,)).
    """
    if x.shape[1] % num_groups:
        raise ShapeError(f"{x.shape[1]} channels do not divide into {num_groups} groups")
    groups = x.reshape(x.shape[0], num_groups, -1)
    y = _standardized(groups, (2,), epsilon)[0].reshape(x.shape)
    y *= _per_channel(scale, x)
    y += _per_channel(bias, x)
    return y
