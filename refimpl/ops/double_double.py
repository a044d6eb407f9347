"""Double-double arithmetic: a float64 and what it was rounded by, together 106 bits.

Dekker, Numerische Mathematik 18, 1971; Knuth, TAOCP 2, 4.2.2. For the few functions that would lose digits
otherwise.


Numbers of more than 1e290 overflow inside; below 1e-290 the second part is lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.ops.operation import Array

Pair = tuple[Any, Any]
"""A number rounded to float64, and the rest."""


def product(a: Any, b: Any) -> Pair:
    """Return the exact product of two float64."""
    rounded = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return rounded, ((a_high * b_high - rounded) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Any) -> Pair:
    """Split into two numbers of half as many bits, whose products are exact."""
    scaled = a * 134217729.0  # 2²⁷ + 1
    high = scaled - (scaled - a)
    return high, a - high


def multiplied(a: Pair, b: Pair) -> Pair:
    """Return the product of two pairs."""
    rounded, rest = product(a[0], b[0])
    return rounded, rest + (a[0] * b[1] + a[1] * b[0])


def added(a: Pair, b: Pair) -> Pair:
    """Return the sum of two pairs."""
    total = a[0] + b[0]
    part = total - a[0]
    return total, ((a[0] - (total - part)) + (b[0] - part)) + (a[1] + b[1])


def quotient(a: Pair, b: Pair) -> Array:
    """Return the quotient of two pairs, rounded to float64."""
    rounded = a[0] / b[0]
    back, rest = product(rounded, b[0])
    return np.asarray(rounded + (((a[0] - back) - rest) + a[1] - rounded * b[1]) / b[0])


def chosen(condition: Array, a: Pair, b: Pair) -> Pair:
    """Return the pairs of ``a`` where the condition holds, else those of ``b``."""
    return np.where(condition, a[0], b[0]), np.where(condition, a[1], b[1])
