"""The association and the properties' judge by brute force, SciPy, lapx and exact rational arithmetic."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import hypothesis
import lap
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from conformance.trackers import kernel_strategies as kernels
from conformance.trackers.candidate import CallableCandidate
from conformance.trackers.optimality_properties import optimality_properties
from conformance.trackers.precision import PRECISIONS
from conformance.trackers.property import check_property
from refimpl.association import associate, cosine_similarity

FLOAT64 = PRECISIONS["float64"]
FEW = hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None
)
RATIONAL = {
    "pairs": kernels.pairs(largest=5, zero=True),
    "near ties": kernels.near_ties(),
    "exact ties": kernels.exact_ties(),
    "ties but for rounding": kernels.rounding_ties(),
    "narrow margins": kernels.narrow_pairs(),
}


def exact_cosine(one: list[Fraction], other: list[Fraction]) -> int:
    """Return the cosine in units of 2⁻⁴⁰, rounded once: the root is taken of an integer, exactly."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    norms = sum(a * a for a in one) * sum(b * b for b in other)
    if norms == 0:
        return 0
    # √(dot² / norms) · 2⁴¹, cut off, and then rounded to half as much.
    twice = math.isqrt(int(dot * dot / norms * 4**41))
    return int(math.copysign((twice + 1) // 2, dot))


def exact_units(previous: np.ndarray, current: np.ndarray) -> list[list[int]]:
    """All cosines of two kernel sets, in units of 2⁻⁴⁰, without floating point."""
    sides = [
        [[Fraction(value) for value in kernel] for kernel in one.tolist()] for one in (previous, current)
    ]
    return [[exact_cosine(one, other) for other in sides[1]] for one in sides[0]]


def exact_association(previous: np.ndarray, current: np.ndarray) -> list[int]:
    """Of all assignments the best, of equals the first, an unmatched slot counting as after every query."""
    cosines, (n, m) = exact_units(previous, current), (len(previous), len(current))
    filled = [*range(m), *[m] * max(n - m, 0)]
    choices = set(itertools.permutations(filled, n))
    total = {one: sum(cosines[i][j] for i, j in enumerate(one) if j < m) for one in choices}
    best = max(total.values())
    first = min(one for one in choices if total[one] == best)
    return [-1 if query == m else query for query in first]


@pytest.mark.parametrize("name", RATIONAL)
def test_the_association_is_the_exact_one(name):
    @hypothesis.given(RATIONAL[name])
    @FEW
    def agrees(pair):
        expected = exact_association(pair.previous, pair.current)
        assert associate(pair.previous, pair.current).permutation.tolist() == expected

    agrees()


@pytest.mark.parametrize("shape", [(7, 7), (5, 7), (7, 5)])
def test_no_assignment_of_seven_is_better(shape):
    random = np.random.default_rng(7)
    for _ in range(5):
        previous, current = (random.integers(-3, 4, (count, 3)).astype(float) for count in shape)
        expected = exact_association(previous, current)
        assert associate(previous, current).permutation.tolist() == expected


@pytest.mark.parametrize("seed", range(6))
def test_two_solvers_find_no_larger_total(seed):
    random = np.random.default_rng(seed)
    n, m = random.integers(1, 301, 2)
    previous, current = random.standard_normal((n, 16)), random.standard_normal((m, 16))
    found = associate(previous, current)
    cosines = cosine_similarity(previous, current)
    by_scipy = cosines[linear_sum_assignment(cosines, maximize=True)].sum()
    by_lapx = -lap.lapjv(1 - cosines, extend_cost=True)[0] + min(n, m)
    assert found.total == pytest.approx(by_scipy, abs=1e-9)
    assert found.total == pytest.approx(by_lapx, abs=1e-9)


def by_exact_arithmetic(previous, current):
    """A tracker without floating point; many kernels, for which there is no time, are left to SciPy."""
    if max(len(previous), len(current)) > 6:
        return associate(previous, current).permutation
    return np.array(exact_association(previous, current), int)


def by_lapx(previous, current):
    """A tracker by another solver, which breaks ties as it likes."""
    cosines = cosine_similarity(previous, current)
    found = lap.lapjv(1 - cosines, extend_cost=True)[1] if cosines.size else np.full(len(previous), -1)
    return np.asarray(found, int)


@pytest.mark.parametrize("wanted", optimality_properties(FLOAT64), ids=lambda one: one.name)
def test_the_judge_finds_for_exact_arithmetic(wanted):
    assert check_property(wanted, CallableCandidate(by_exact_arithmetic), cases=40).holds


@pytest.mark.parametrize("wanted", optimality_properties(FLOAT64), ids=lambda one: one.name)
def test_the_judge_finds_for_another_solver_except_in_ties(wanted):
    outcome = check_property(wanted, CallableCandidate(by_lapx), cases=60, shrink=False)
    assert outcome.holds is (wanted.name not in ("tie_rule", "rounding_ties"))
