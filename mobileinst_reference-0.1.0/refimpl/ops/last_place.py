"""Swish, Mish and Gelu within one unit in the last place of float64, where their formulas lose more.

The exponential of a rounded argument z is off by |z| units in the last place, and a normal distribution
function of two roundings by hundreds in its tail. So arguments and quotients are double-double.
"""

from __future__ import annotations

import numpy as np
import scipy

from refimpl.ops import double_double as dd
from refimpl.ops.normal_distribution import FARTHEST, upper_tail
from refimpl.ops.operation import Array

_CUBIC = (0.044715, 2.1960211427085595e-18)
_ROOT_OF_8_BY_PI = (1.5957691216057308, -9.96930880911092e-17)


def swish(x: Array, alpha: float) -> Array:
    """Return ``x · sigmoid(alpha · x)`` of a float64 array."""
    near = np.clip(x, -1e290, 1e290)  # products of larger numbers overflow
    return _gated(x, dd.product(near, np.float64(alpha)))


def mish(x: Array) -> Array:
    """Return ``x · tanh(log(1 + exp(x)))`` of a float64 array."""
    # tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2); above zero divided by e², in powers of exp(−x).
    ordinary = (np.abs(x) > 0) & (np.abs(x) < 700)
    near = np.where(ordinary, x, 1.0)
    decay = np.exp(-np.abs(near))
    square = dd.product(decay, decay)
    above = dd.added((2 * decay, 0.0), dd.chosen(near < 0, square, (1.0, 0.0)))
    below = dd.added(above, dd.chosen(near < 0, (2.0, 0.0), (2 * square[0], 2 * square[1])))
    result = dd.quotient(dd.multiplied((near, 0.0), above), below)
    return np.where(ordinary, result, x * (x > 0))


def gelu(x: Array) -> Array:
    """Return ``x · Φ(x)`` of a float64 array: ``x · tail`` below zero, ``x · (1 − tail)`` above."""
    # Beyond, nothing changes but that products overflow.
    tail = upper_tail(np.abs(np.clip(x, -FARTHEST, FARTHEST)))
    ordinary = (np.abs(x) > 0) & (np.abs(x) < FARTHEST)
    near = np.where(ordinary, x, 1.0)
    part = dd.multiplied((near, 0.0), tail)
    rest = dd.added((near, 0.0), (-part[0], -part[1]))
    high, low = dd.chosen(near < 0, part, rest)
    return np.where(ordinary, high + low, x * np.where(x < 0, tail[0], 1 - tail[0]))


def gelu_tanh(x: Array) -> Array:
    """Return Gelu's approximation by tanh of a float64 array; (1 + tanh(z)) / 2 = sigmoid(2z)."""
    near = np.clip(x, -FARTHEST, FARTHEST)
    cubic = dd.multiplied(dd.product(near, near), _CUBIC)
    return _gated(x, dd.multiplied(dd.multiplied(dd.added((1.0, 0.0), cubic), (near, 0.0)), _ROOT_OF_8_BY_PI))


def _gated(x: Array, argument: dd.Pair) -> Array:
    """Return ``x · sigmoid(argument)``."""
    ordinary = (np.abs(x) > 0) & (np.abs(x) < 1e290) & (np.abs(argument[0]) < 745)
    near, (size, rest) = np.where(ordinary, x, 1.0), dd.chosen(ordinary, argument, (0.0, 0.0))
    decay = np.exp(-np.abs(size))
    pair = decay, decay * np.where(size < 0, rest, -rest)
    above = dd.chosen(size < 0, dd.multiplied((near, 0.0), pair), (near, 0.0))
    result = dd.quotient(above, dd.added((1.0, 0.0), pair))
    # Of zeros, huge and infinite numbers the parts of a pair are lost.
    return np.where(ordinary, result, x * scipy.special.expit(argument[0]))
