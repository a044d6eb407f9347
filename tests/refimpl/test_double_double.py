"""Double-double arithmetic against exact fractions, and the normal distribution's tail against mpmath."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from refimpl.ops import double_double as dd
from refimpl.ops.normal_distribution import upper_tail

RNG = np.random.default_rng(0)
A, B, C, D = (RNG.normal(size=300) * 10.0 ** RNG.integers(-20, 20, 300) for _ in range(4))
LEFT, RIGHT = dd.product(A, B), dd.product(C, D)


def exact(pair: dd.Pair) -> list[Fraction]:
    return [Fraction(float(high)) + Fraction(float(low)) for high, low in zip(*pair, strict=True)]


def test_a_product_of_two_numbers_is_exact() -> None:
    assert exact(LEFT) == [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(A, B, strict=True)]


@pytest.mark.parametrize(
    ("function", "definition"),
    [(dd.multiplied, lambda a, b: a * b), (dd.added, lambda a, b: a + b)],
    ids=["multiplied", "added"],
)
def test_pairs_have_twice_the_digits(function: Callable[..., Any], definition: Callable[..., Any]) -> None:
    found = exact(function(LEFT, RIGHT))
    for a, b, result in zip(exact(LEFT), exact(RIGHT), found, strict=True):
        size = max(abs(a), abs(b)) if function is dd.added else abs(a * b)
        assert abs(result - definition(a, b)) <= size / 2**100


def test_a_quotient_is_rounded_once() -> None:
    found = dd.quotient(LEFT, RIGHT)
    for a, b, result in zip(exact(LEFT), exact(RIGHT), found, strict=True):
        assert abs(Fraction(float(result)) - a / b) <= Fraction(float(np.spacing(abs(result)))) * 51 / 100


def test_chosen_takes_both_parts() -> None:
    condition = A > 0
    found = dd.chosen(condition, LEFT, RIGHT)
    for part, left, right in zip(found, LEFT, RIGHT, strict=True):
        np.testing.assert_array_equal(part[condition], left[condition])
        np.testing.assert_array_equal(part[~condition], right[~condition])


def test_the_tail_is_mpmaths() -> None:
    size = np.concatenate([np.linspace(0, 37, 371), RNG.uniform(0, 37, 300)])
    high, low = upper_tail(size)
    with mpmath.workdps(40):
        for s, tail in zip(size, high + low, strict=True):
            expected = mpmath.erfc(mpmath.mpf(float(s)) / mpmath.sqrt(2)) / 2
            assert abs(float(tail) - expected) <= 1.5 * np.spacing(float(expected))
