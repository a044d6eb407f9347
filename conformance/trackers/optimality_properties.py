"""Properties of what is chosen: the largest total, the tie rule, stability, and the precision declared."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from conformance.trackers import kernel_strategies as kernels
from conformance.trackers.association_properties import asked
from conformance.trackers.candidate import Candidate
from conformance.trackers.kernel_strategies import Pair
from conformance.trackers.precision import Precision
from conformance.trackers.property import Property
from refimpl.association import RESOLUTION, Association, associate, cosine_similarity

Array = NDArray[Any]


def assignments(slots: int, queries: int) -> list[Array]:
    """Every complete one-to-one assignment, as permutations with −1 for unmatched slots."""
    filled = list(range(queries)) + [-1] * max(slots - queries, 0)
    chosen = set(itertools.permutations(filled, slots))
    return [np.array(c, np.int64) for c in chosen if sum(q >= 0 for q in c) == min(slots, queries)]


def total(similarities: Array, permutation: Array) -> float:
    """Sum of the similarities of the matched pairs."""
    return Association(permutation, similarities).total


def be_optimal_by_brute_force(precision: Precision) -> Any:
    """Return the check that no assignment has a larger total, all of them tried."""

    def check(candidate: Candidate, case: Pair) -> None:
        similarities = cosine_similarity(case.previous, case.current)
        best = max(total(similarities, choice) for choice in assignments(*similarities.shape))
        _require_total(candidate, case, similarities, best, precision)

    return check


def be_optimal_by_scipy(precision: Precision) -> Any:
    """Return the check that SciPy finds no larger total."""

    def check(candidate: Candidate, case: Pair) -> None:
        similarities = cosine_similarity(case.previous, case.current)
        rows, columns = linear_sum_assignment(similarities, maximize=True)
        _require_total(candidate, case, similarities, float(similarities[rows, columns].sum()), precision)

    return check


def _require_total(
    candidate: Candidate, case: Pair, similarities: Array, best: float, precision: Precision
) -> None:
    answer = asked(candidate, case.previous, case.current)
    reached = total(similarities, answer)
    allowed = precision.deciding_margin(max(similarities.shape), case.previous.shape[1])
    assert reached >= best - allowed, f"{answer.tolist()} has total {reached!r}, the best is {best!r}"


def take_the_most_similar_first(candidate: Candidate, case: Pair) -> None:
    """The most similar pair left is matched, again and again."""
    left = cosine_similarity(case.previous, case.current)
    answer = asked(candidate, case.previous, case.current)
    for _ in range(min(left.shape)):
        slot, query = np.unravel_index(left.argmax(), left.shape)
        assert answer[slot] == query, (
            f"{answer.tolist()}: slot {slot} and query {query} are the most similar left"
        )
        left[slot] = left[:, query] = -np.inf


def be_stable(candidate: Candidate, case: Pair) -> None:
    """What moves every total by less than half the margin changes nothing."""
    plain = asked(candidate, case.previous, case.current)
    moved = asked(candidate, case.previous, case.extra)
    assert np.array_equal(plain, moved), (
        f"{plain.tolist()} becomes {moved.tolist()} with current kernels {case.extra.tolist()}, "
        "which move every total by less than half the margin"
    )


def follow_the_tie_rule(candidate: Candidate, case: Pair) -> None:
    """Of equal totals the first permutation, equal up to what may count as equal."""
    similarities = np.round(cosine_similarity(case.previous, case.current) / RESOLUTION) * RESOLUTION
    choices = assignments(*similarities.shape)
    best = max(total(similarities, choice) for choice in choices)
    tied = [choice for choice in choices if total(similarities, choice) == best]
    expected = min(
        tied, key=lambda choice: [q if q >= 0 else len(choice) + len(case.current) for q in choice]
    )
    answer = asked(candidate, case.previous, case.current)
    assert np.array_equal(answer, expected), (
        f"{len(tied)} assignments have the total {best}; the first is {expected.tolist()}, "
        f"got {answer.tolist()}"
    )


def decide_narrow_margins(precision: Precision) -> Any:
    """Return the check that a margin the precision can tell is decided rightly."""

    def check(candidate: Candidate, case: Pair) -> None:
        expected = associate(case.previous, case.current).permutation
        answer = asked(candidate, case.previous, case.current)
        assert np.array_equal(answer, expected), (
            f"{answer.tolist()}, not {expected.tolist()}, which is better by {case.extra:.3g}; "
            f"{precision.name} decides margins above "
            f"{precision.deciding_margin(2, case.previous.shape[1]):.3g}"
        )

    return check


SWEEP_CASES = 8


def smallest_decided_margin(candidate: Candidate, precision: Precision, seed: int = 0) -> float:
    """Return the smallest margin, a power of two, from which on every decision tried is right.

    Margins of 1, ½, ¼ … down to what ``precision`` must decide, some pairs of each.
    """
    random = np.random.default_rng(seed)
    smallest = 1.0
    for exponent in range(1, int(-np.log2(precision.deciding_margin(2, 3))) + 1):
        pairs = [_pair_with_margin(random, 2.0**-exponent) for _ in range(SWEEP_CASES)]
        if not all(
            np.array_equal(candidate.associate(*pair), associate(*pair).permutation) for pair in pairs
        ):
            break
        smallest = 2.0**-exponent
    return smallest


def _pair_with_margin(random: np.random.Generator, margin: float) -> tuple[Array, Array]:
    """Two kernels each whose best total leads by ``margin``, to the first order."""
    while True:
        previous = random.standard_normal((2, 3))
        base, turn = random.standard_normal((2, 3))
        units = previous / np.linalg.norm(previous, axis=1, keepdims=True)
        normal = base / np.linalg.norm(base)
        across = turn - normal * (turn @ normal)
        slope = (units[0] - units[1]) @ across
        if abs(slope) > 0.3:
            return previous, np.stack([normal, normal + across * margin / slope])


def optimality_properties(precision: Precision) -> list[Property]:
    """Properties of the optimal method: of the total, then of what decides between totals that are close."""
    return [*_of_totals(precision), *_of_margins(precision), *_of_ties(precision)]


def _of_totals(precision: Precision) -> list[Property]:
    return [
        Property(
            "optimal_brute_force",
            "no assignment has a larger Σ cos (≤ 6)",
            kernels.pairs(largest=6 if precision.largest_count > 12 else 3),
            be_optimal_by_brute_force(precision),
        ),
        Property(
            "optimal_scipy",
            f"SciPy finds no larger Σ cos (≤ {precision.largest_count})",
            kernels.large_pairs(precision.largest_count),
            be_optimal_by_scipy(precision),
            share=0.12,
        ),
    ]


def _of_margins(precision: Precision) -> list[Property]:
    return [
        Property(
            "precision",
            f"margins that {precision.name} can tell are decided rightly",
            kernels.narrow_pairs(precision),
            decide_narrow_margins(precision),
        ),
        Property(
            "precision_of_many",
            "so among hundreds of kernels",
            kernels.narrow_crowds(precision),
            decide_narrow_margins(precision),
            share=0.08,
        ),
        Property(
            "stability",
            "moving less than half the margin changes nothing",
            kernels.perturbed_pairs(precision),
            be_stable,
        ),
    ]


def _of_ties(precision: Precision) -> list[Property]:
    return [
        Property(
            "tie_rule",
            "of equal totals the first permutation",
            st.one_of(kernels.exact_ties(), kernels.cyclic_ties()),
            follow_the_tie_rule,
        ),
        *_rounding_ties(precision),
        Property(
            "zero_norm",
            "the cosine of a zero kernel is 0",
            kernels.pairs_with_zeros(),
            be_optimal_by_brute_force(precision),
        ),
    ]


def _rounding_ties(precision: Precision) -> list[Property]:
    """A coarser format has rounding of its own, by which it may decide."""
    if precision.resolution == 0:
        return []
    statement = "totals that differ by rounding only are tied"
    return [Property("rounding_ties", statement, kernels.rounding_ties(), follow_the_tie_rule)]


def greedy_properties(precision: Precision) -> list[Property]:
    """Properties of the greedy method."""
    return [
        Property(
            "most_similar_first",
            "the most similar pair left is matched",
            kernels.unambiguous_pairs("greedy", precision=precision),
            take_the_most_similar_first,
        )
    ]
