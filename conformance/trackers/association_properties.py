"""Properties of the association of two keyframes, whatever the method."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.trackers import kernel_strategies as kernels
from conformance.trackers.candidate import Candidate, NotOffered
from conformance.trackers.kernel_strategies import Pair
from conformance.trackers.line_process import CommandFailure
from conformance.trackers.precision import Precision
from conformance.trackers.property import Property
from conformance.trackers.protocol import AnswerError
from refimpl.association import associate, cosine_similarity

Array = NDArray[Any]


def asked(candidate: Candidate, previous: Array, current: Array) -> Array:
    """Return the candidate's permutation, checked to be one-to-one, and complete where it must be."""
    kept = previous.copy(), current.copy()
    answer = np.asarray(candidate.associate(previous, current))
    n, m = len(previous), len(current)
    assert np.array_equal(kept[0], previous, equal_nan=True), "the candidate changed the previous kernels"
    assert np.array_equal(kept[1], current, equal_nan=True), "the candidate changed the current kernels"
    assert answer.shape == (n,), f"{n} previous kernels need {n} answers, got shape {answer.shape}"
    assert n == 0 or np.issubdtype(answer.dtype, np.integer), f"answers must be integers, got {answer.dtype}"
    matched = answer[answer != -1]
    assert ((matched >= 0) & (matched < m)).all(), f"{answer.tolist()}: answers must be −1 or 0…{m - 1}"
    assert len(set(matched.tolist())) == len(matched), f"{answer.tolist()}: a query continues two tracks"
    if not candidate.leaves_unmatched:
        _require_complete(answer, m)
    return answer.astype(np.int64)


def _require_complete(answer: Array, queries: int) -> None:
    possible = min(len(answer), queries)
    assert np.count_nonzero(answer != -1) == possible, f"{answer.tolist()}: {possible} pairs were possible"


def match_one_to_one(candidate: Candidate, case: Pair) -> None:
    """min(n, m) pairs, none twice."""
    _require_complete(asked(candidate, case.previous, case.current), len(case.current))


def answer_the_same_twice(candidate: Candidate, case: Pair) -> None:
    """Asked again, at once and after another question."""
    first = asked(candidate, case.previous, case.current)
    candidate.associate(case.current, case.previous)
    for _ in range(2):
        again = asked(candidate, case.previous, case.current)
        assert np.array_equal(first, again), f"{first.tolist()}, then {again.tolist()} for the same input"


def permute_with_the_queries(candidate: Candidate, case: Pair) -> None:
    """Permuted queries give the permuted answer."""
    rows, columns = case.extra
    plain = asked(candidate, case.previous, case.current)
    shuffled = asked(candidate, case.previous[rows], case.current[columns])
    expected = np.append(np.argsort(columns), -1)[plain][rows]
    assert np.array_equal(shuffled, expected), (
        f"previous in the order {rows.tolist()}, current in the order {columns.tolist()}: "
        f"expected {expected.tolist()}, got {shuffled.tolist()}"
    )


def ignore_the_scale(candidate: Candidate, case: Pair) -> None:
    """Positive factors change nothing."""
    plain = asked(candidate, case.previous, case.current)
    scaled = [k * f[:, None] for k, f in zip((case.previous, case.current), case.extra, strict=True)]
    answer = asked(candidate, *scaled)
    assert np.array_equal(plain, answer), (
        f"{plain.tolist()} becomes {answer.tolist()} when the previous kernels are scaled by "
        f"{case.extra[0].tolist()} and the current ones by {case.extra[1].tolist()}"
    )


def keep_equal_frames(precision: Precision) -> Any:
    """Return the check that equal frames give the identity, where their kernels can be told apart."""

    def check(candidate: Candidate, case: Pair) -> None:
        kernel_set = case.previous
        cosine = cosine_similarity(kernel_set, kernel_set) - 2 * np.eye(len(kernel_set))
        hypothesis.assume((cosine < 1 - precision.deciding_margin(*kernel_set.shape)).all())
        answer = asked(candidate, kernel_set, kernel_set.copy())
        assert np.array_equal(answer, np.arange(len(kernel_set))), f"equal frames: got {answer.tolist()}"

    return check


def refuse(candidate: Candidate, case: Pair) -> None:
    """The question is an error, and the next one is answered."""
    require_refusal(candidate.associate, case.previous, case.current)
    sound = np.eye(2)
    answer = asked(candidate, sound, sound[::-1].copy())
    assert answer.tolist() == [1, 0], f"after an error, a sound question was answered {answer.tolist()}"


def require_refusal(ask: Any, *arguments: Any) -> None:
    """Raise unless the question is refused with an error, which a dead process does not do."""
    try:
        answer = ask(*arguments)
    except (NotOffered, CommandFailure, AnswerError):
        raise
    except Exception:
        return
    raise AssertionError(f"answered with {answer!r:.200}, not with an error")


def read_any_notation(method: str) -> Any:
    """Return the check that the same numbers, otherwise written or stored, are associated alike."""

    def check(candidate: Candidate, case: Pair) -> None:
        expected = associate(case.previous, case.current, method).permutation
        plain = asked(candidate, case.previous, case.current)
        assert np.array_equal(plain, expected), f"{plain.tolist()}, not {expected.tolist()}"
        for notation in candidate.notations:
            with candidate.writing(notation):
                answer = np.asarray(candidate.associate(case.previous, case.current))
            assert np.array_equal(plain, answer), (
                f"{plain.tolist()} becomes {answer.tolist()} when the numbers are given as {notation}"
            )

    return check


def association_properties(method: str, precision: Precision) -> list[Property]:
    """Properties of both methods: of the pairs, then of what may not matter."""
    return [*_of_pairs(method, precision), *_of_form(method, precision)]


def _of_pairs(method: str, precision: Precision) -> list[Property]:
    crowd = precision.largest_count
    return [
        Property(
            "equivariance",
            "permuted queries give the permuted answer",
            kernels.shuffled_pairs(method, precision),
            permute_with_the_queries,
        ),
        Property("one_to_one", "min(n, m) pairs, none twice, others −1", kernels.pairs(), match_one_to_one),
        Property(
            "one_to_one_with_duplicates",
            "so with duplicates and near-ties",
            kernels.near_ties(),
            match_one_to_one,
        ),
        Property(
            "one_to_one_of_many",
            "so for 0 … 300 kernels on either side",
            kernels.large_pairs(crowd),
            match_one_to_one,
            share=0.06,
        ),
        Property(
            "empty_sides",
            "no kernels on a side: no pairs",
            kernels.empty_pairs(),
            match_one_to_one,
            share=0.1,
        ),
        Property(
            "single_kernels",
            "one kernel each: matched whatever its cosine",
            st.one_of(kernels.opposite_pairs(), kernels.pairs(largest=1)),
            match_one_to_one,
            share=0.5,
        ),
    ]


def _of_form(method: str, precision: Precision) -> list[Property]:
    return [
        Property(
            "repeatable",
            "the same input gives the same answer",
            kernels.pairs(),
            answer_the_same_twice,
            share=0.5,
            history=True,
        ),
        Property(
            "scale_invariance",
            "positive factors change nothing",
            kernels.scaled_pairs(min(3, precision.largest_exponent), method, precision),
            ignore_the_scale,
        ),
        *_extreme_norms(method, precision),
        *_of_numbers(method, precision),
    ]


def _of_numbers(method: str, precision: Precision) -> list[Property]:
    return [
        Property(
            "identity",
            "equal frames give the identity",
            kernels.pairs(square=True),
            keep_equal_frames(precision),
            share=0.5,
        ),
        Property(
            "number_formats",
            "integers, exponents, −0, other layouts: the same numbers",
            kernels.large_numbers(method, precision),
            read_any_notation(method),
            share=0.3,
        ),
        Property(
            "refuses_non_finite",
            "NaN or infinity is an error, and only for itself",
            kernels.poisoned_pairs(),
            refuse,
            share=0.5,
            history=True,
        ),
        Property(
            "refuses_other_lengths",
            "kernels of two lengths are an error, and only for themselves",
            kernels.pairs_of_two_lengths(),
            refuse,
            share=0.2,
            history=True,
        ),
    ]


def _extreme_norms(method: str, precision: Precision) -> list[Property]:
    """Norms as large and as small as the format has."""
    exponent = precision.largest_exponent
    cases: st.SearchStrategy[Pair] = kernels.scaled_pairs(exponent, method, precision)
    if precision.name == "float64":
        cases = st.one_of(kernels.scaled_pairs(30, method, precision), cases, kernels.subnormal_pairs(method))
    return [
        Property("extreme_norms", f"so for factors 10^−{exponent} … 10^{exponent}", cases, ignore_the_scale)
    ]
