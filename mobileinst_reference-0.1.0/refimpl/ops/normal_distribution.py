"""The tail of the normal distribution to the last place of float64, where SciPy's erfc loses up to 500.

``Φ(−s) = exp(−s²/2) · erfcx(s/√2) / 2``. The scaled complementary error function ``y(t) = exp(t²) erfc(t)``
is summed as a Taylor series about the nearest of some nodes. At a node it is a continued fraction, or 1 at
zero, in decimal arithmetic; its derivatives follow from ``y' = 2 t y − 2/√π`` (Abramowitz & Stegun, 7.1).
"""

from __future__ import annotations

import functools
from decimal import Decimal, localcontext

import numpy as np

from refimpl.ops import double_double as dd
from refimpl.ops.operation import Array

FARTHEST = 40.0
"""Beyond so many standard deviations the tail is zero in float64."""
_SPACING = 8
_TERMS = 15
_DIGITS = 60
_SLOPE = Decimal("1.12837916709551257389615890312154517168810125865799771368817144")  # 2/√π
_ROOT_OF_HALF = (0.7071067811865476, -4.833646656726457e-17)


def upper_tail(size: Array) -> dd.Pair:
    """Return the probability of more than ``size`` standard deviations, as a pair of float64.

    Parameters
    ----------
    size : float64 array, 0 … `FARTHEST`
    """
    argument = dd.multiplied((size, np.zeros_like(size)), _ROOT_OF_HALF)
    square, rest = dd.product(size, size / 2)
    decay = np.exp(-square)
    return dd.multiplied((decay / 2, -decay * rest / 2), _scaled(argument))


def _scaled(argument: dd.Pair) -> dd.Pair:
    """Return erfcx of a pair: a node's value, and a small sum."""
    table = _table()
    nearest = np.rint(argument[0] * _SPACING)
    near = np.nan_to_num(nearest).astype(np.intp)
    distance = (argument[0] - nearest / _SPACING) + argument[1]
    total = np.zeros_like(distance)
    for coefficients in table[:1:-1]:
        total = (total + coefficients[near]) * distance
    return dd.added((table[0][near], table[1][near]), (total, 0.0))


@functools.cache
def _table() -> Array:
    """Return, for each node, its value in two parts, and the further coefficients of its Taylor series."""
    count = int(FARTHEST * _ROOT_OF_HALF[0] * _SPACING) + 2
    with localcontext() as context:
        context.prec = _DIGITS
        rows = [_series(Decimal(node) / _SPACING) for node in range(count)]
    return np.array(rows).T.copy()


def _series(t: Decimal) -> list[float]:
    previous, current = Decimal(0), _erfcx(t)
    row = [float(current), float(current - Decimal(float(current)))]
    for n in range(1, _TERMS):
        following = (2 * t * current + 2 * previous - (_SLOPE if n == 1 else 0)) / n
        previous, current = current, following
        row.append(float(current))
    return row


def _erfcx(t: Decimal) -> Decimal:
    """Return exp(t²) erfc(t): by the series of erf near zero, by the continued fraction beyond."""
    if t < 3:
        term = total = t
        n = 0
        while term > Decimal(10) ** -_DIGITS:
            n += 1
            term = term * 2 * t * t / (2 * n + 1)
            total += term
        return (t * t).exp() - _SLOPE * total
    fraction = t
    for n in range(200, 0, -1):
        fraction = t + Decimal(n) / 2 / fraction
    return _SLOPE / 2 / fraction
