"""Hypothesis strategies for the kernels of two keyframes.

All are public: use them in tests of your own. ``margin`` is always the difference of totals, or of cosines
for ``method="greedy"``, that a case must at least have for every correct tracker to give the same answer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.trackers.precision import PRECISIONS, Precision
from conformance.trackers.protocol import associate_request
from refimpl.association import associate, associate_similarities, cosine_similarity

Array = NDArray[Any]
ATTEMPTS = 8
"""Draws in which a pair with a margin of one's own is looked for."""
FLOAT64 = PRECISIONS["float64"]


@dataclass(frozen=True)
class Pair:
    """Kernels of two keyframes, (n, dim) and (m, dim); ``extra`` is what the property needs besides."""

    previous: Array
    current: Array
    extra: Any = None

    def request(self) -> dict[str, Any]:
        """The case as a request of the command protocol."""
        return associate_request(self.previous, self.current)


# Hypothesis looks through every new strategy before it draws: what others draw of is made once.


@functools.cache
def small_numbers(count: int) -> st.SearchStrategy[list[int]]:
    """Lists of so many small, readable integers."""
    return st.lists(st.integers(-3, 3), min_size=count, max_size=count)


@functools.cache
def _rows(count: int, dimension: int, zero: bool) -> st.SearchStrategy[list[list[int]]]:
    entries = small_numbers(dimension)
    return st.lists(entries if zero else entries.filter(any), min_size=count, max_size=count)


@functools.cache
def orders_of(count: int) -> st.SearchStrategy[list[int]]:
    """Orders of so many."""
    return st.permutations(range(count))


@functools.cache
@st.composite
def kernel_sets(draw: st.DrawFn, count: int, dimension: int, *, zero: bool = False) -> Array:
    """Kernels (count, dimension) of small, readable integers; none zero unless asked."""
    return np.array(draw(_rows(count, dimension, zero)), np.float64).reshape(count, dimension)


@functools.cache
@st.composite
def pairs(
    draw: st.DrawFn, *, smallest: int = 1, largest: int = 6, square: bool = False, zero: bool = False
) -> Pair:
    """Two independent kernel sets, ties included: (n, dim) and (m, dim), float64, dim 1 … 5.

    Parameters
    ----------
    smallest, largest : int
        Bounds of n and m.
    square : bool
        Whether m = n.
    zero : bool
        Whether kernels may be zero.
    """
    dimension = draw(st.integers(1, 5))
    # Half of the cases are small: what they find needs no shrinking.
    most = draw(st.sampled_from([max(smallest, min(3, largest)), largest]))
    n = draw(st.integers(smallest, most))
    m = n if square else draw(st.integers(smallest, most))
    sets = [draw(kernel_sets(count, dimension, zero=zero)) for count in (n, m)]
    return Pair(sets[0], sets[1])


@st.composite
def opposite_pairs(draw: st.DrawFn) -> Pair:
    """A kernel and its opposite, of any length: rounding may put their cosine beyond −1."""
    kernel = draw(kernel_sets(1, draw(st.integers(2, 5))))
    return Pair(kernel, kernel * draw(st.sampled_from([-1.0, -3.0, -0.7])))


@st.composite
def pairs_with_zeros(draw: st.DrawFn) -> Pair:
    """Pairs with a zero kernel on one side or on both."""
    case = draw(pairs(largest=4))
    for kernels in draw(st.sampled_from([[case.previous], [case.current], [case.previous, case.current]])):
        kernels[draw(st.integers(0, len(kernels) - 1))] = 0
    return case


@functools.cache
@st.composite
def unambiguous_pairs(
    draw: st.DrawFn, method: str = "optimal", margin: float | None = None, precision: Precision = FLOAT64
) -> Pair:
    """Pairs whose association every correct tracker shares; the margin is in ``extra``.

    Parameters
    ----------
    method : str
        "optimal" or "greedy".
    margin : float or None
        Least difference of totals, or of cosines if greedy; None is the smallest that ``precision`` must
        decide.
    precision : Precision
    """
    # A wide margin is rare: without another attempt Hypothesis would find that too much is filtered out.
    for _ in range(1 if margin is None else ATTEMPTS):
        case = draw(pairs(largest=5 if precision.largest_count > 12 else 3))
        similarities = cosine_similarity(case.previous, case.current)
        lead = (
            associate_similarities(similarities).margin if method == "optimal" else smallest_gap(similarities)
        )
        needed = precision.deciding_margin(max(similarities.shape), case.previous.shape[1])
        if lead > (needed if margin is None else margin):
            return Pair(case.previous, case.current, lead)
    return hypothesis.reject()


def smallest_gap(similarities: Array) -> float:
    """The smallest difference between two cosines."""
    return float(np.diff(np.sort(similarities, axis=None)).min(initial=np.inf))


@st.composite
def near_ties(draw: st.DrawFn) -> Pair:
    """Duplicated kernels, one of each pair turned a little: many assignments are almost the best."""
    base = draw(kernel_sets(draw(st.integers(1, 3)), 4))
    copies = np.repeat(base, 2, axis=0)
    tilt = np.zeros_like(copies)
    tilt[1::2, 0] = draw(st.sampled_from([0, 1e-12, 1e-6, 1e-2]))
    return Pair(copies + tilt, copies[draw(orders_of(len(copies)))])


@st.composite
def narrow_pairs(draw: st.DrawFn, precision: Precision = FLOAT64, margin: float | None = None) -> Pair:
    """Two kernels each, that differ so little that the totals differ by little more than ``margin``.

    ``extra`` is the margin. None is the smallest that ``precision`` must decide; kernels are numbers of that
    precision.
    """
    dimension = draw(st.integers(2, 4))
    needed = precision.deciding_margin(2, dimension) if margin is None else margin
    previous, base = draw(kernel_sets(2, dimension)), draw(kernel_sets(1, dimension))
    turn = draw(kernel_sets(1, dimension))
    exponent = draw(st.integers(0, int(-np.log2(needed))))
    current = np.concatenate([base, base + turn * 2.0**-exponent])[draw(st.permutations([0, 1]))]
    lead = associate(previous, current).margin
    # Bits that the format lacks would be lost in the asking.
    hypothesis.assume(needed < lead and 2.0**-exponent > 8 * precision.unit_roundoff)
    return Pair(previous, current, lead)


@st.composite
def narrow_crowds(draw: st.DrawFn, precision: Precision = FLOAT64) -> Pair:
    """As `narrow_pairs`, in channels of their own among many kernels that are easily told; shuffled."""
    narrow = draw(narrow_pairs(precision))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(precision.largest_count // 3, precision.largest_count // 2))
    crowd = np.round(random.standard_normal((count, 8)), 1 if precision.name == "float16" else 3)
    sides = [
        np.block([[kernels, np.zeros((2, 8))], [np.zeros((count, kernels.shape[1])), crowd]])
        for kernels in (narrow.previous, narrow.current)
    ]
    previous, current = (side[random.permutation(count + 2)] for side in sides)
    lead = associate(previous, current).margin
    hypothesis.assume(lead > precision.deciding_margin(*previous.shape))
    return Pair(previous, current, lead)


@st.composite
def large_numbers(draw: st.DrawFn, method: str = "optimal", precision: Precision = FLOAT64) -> Pair:
    """Unambiguous pairs, their integers made so large that not every kind of integer holds them."""
    case = draw(unambiguous_pairs(method, precision=precision))
    largest = int(precision.largest_exponent * np.log2(10))
    factor = 2.0 ** draw(st.sampled_from([0, *(power for power in (8, 20, 33, 66) if power < largest)]))
    return Pair(case.previous * factor, case.current * factor, case.extra)


@st.composite
def exact_ties(draw: st.DrawFn) -> Pair:
    """Kernels along axes: cosines are exactly −1, 0 or 1 in any arithmetic, so ties are exact."""
    dimension = draw(st.integers(1, 3))
    axes = [list(row) for row in np.concatenate([np.eye(dimension), -np.eye(dimension)])]
    counts = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    sets = [draw(st.lists(st.sampled_from(axes), min_size=n, max_size=n)) for n in counts]
    return Pair(np.array(sets[0]), np.array(sets[1]))


@st.composite
def cyclic_ties(draw: st.DrawFn) -> Pair:
    """Every slot between two queries around a circle: two assignments tie, and differ everywhere.

    Any arithmetic has them equal. Some sets have a kernel besides, orthogonal to all of the circle.
    """
    count = draw(st.integers(2, 5))
    axes = np.eye(count, count + 1)
    sets = [axes, axes + np.roll(axes, 1, axis=0)]
    for side in range(2):
        if draw(st.booleans()):
            sets[side] = np.concatenate([sets[side], np.eye(1, count + 1, count)])
        sets[side] = sets[side][draw(orders_of(len(sets[side])))]
    return Pair(sets[0], sets[1])


@st.composite
def rounding_ties(draw: st.DrawFn) -> Pair:
    """Multiples of a few kernels: cosines that are equal but for rounding."""
    dimension, kinds = draw(st.integers(2, 5)), draw(st.integers(1, 2))
    base = draw(kernel_sets(kinds, dimension))
    sets = []
    for count in draw(st.tuples(st.integers(1, 5), st.integers(1, 5))):
        chosen = draw(st.lists(st.integers(0, kinds - 1), min_size=count, max_size=count))
        lengths = draw(st.lists(st.sampled_from([1.0, 3.0, 0.7, 1.1]), min_size=count, max_size=count))
        sets.append(base[chosen] * np.array(lengths)[:, None])
    return Pair(sets[0], sets[1])


@st.composite
def large_pairs(draw: st.DrawFn, largest: int = 300) -> Pair:
    """Up to 300 random kernels, the current ones a noisy shuffle of the previous; a side may be empty.

    Every other pair has the most on both sides: an index of eight bits serves as far as 256.
    """
    n, m = draw(st.tuples(st.integers(0, largest), st.integers(0, largest)) | st.just((largest, largest)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few digits: they are written and read many times.
    previous = np.round(random.standard_normal((n, 8)), 3)
    chosen = random.permutation(np.arange(m) % max(n, 1)) if n else np.zeros(0, int)
    noise = np.round(random.standard_normal((m, 8)), 3)
    return Pair(previous, noise + previous[chosen] if n else noise)


@st.composite
def scaled_pairs(
    draw: st.DrawFn, exponent: int, method: str = "optimal", precision: Precision = FLOAT64
) -> Pair:
    """Unambiguous pairs, and in ``extra`` a positive factor for every kernel."""
    case = draw(unambiguous_pairs(method, precision=precision))
    powers = st.integers(-exponent, exponent)
    sizes = len(case.previous), len(case.current)
    return Pair(
        case.previous,
        case.current,
        [10.0 ** np.array(draw(st.lists(powers, min_size=n, max_size=n)), float) for n in sizes],
    )


@st.composite
def subnormal_pairs(draw: st.DrawFn, method: str = "optimal") -> Pair:
    """Unambiguous pairs, and in ``extra`` factors that make kernels subnormal, or as large as may be."""
    case = draw(unambiguous_pairs(method))
    factors = st.sampled_from([float(np.finfo(np.float64).smallest_subnormal), 1.0, 2.0**1022])
    sides = (len(case.previous), len(case.current))
    drawn = [draw(st.lists(factors, min_size=n, max_size=n)) for n in sides]
    return Pair(case.previous, case.current, [np.array(side) for side in drawn])


@st.composite
def shuffled_pairs(draw: st.DrawFn, method: str = "optimal", precision: Precision = FLOAT64) -> Pair:
    """Unambiguous pairs, and in ``extra`` a permutation of either side."""
    case = draw(unambiguous_pairs(method, precision=precision))
    orders = [draw(orders_of(len(kernels))) for kernels in (case.previous, case.current)]
    return Pair(case.previous, case.current, [np.array(order) for order in orders])


@st.composite
def perturbed_pairs(draw: st.DrawFn, precision: Precision = FLOAT64) -> Pair:
    """A pair and a perturbed one (``extra``) whose totals all move by less than half the margin."""
    case = draw(unambiguous_pairs(precision=precision))
    before = associate(case.previous, case.current)
    directions = draw(kernel_sets(len(case.current), case.current.shape[1], zero=True))
    lead = min(before.margin, 1.0)
    moved = case.current + directions * lead / (40 * len(case.previous))
    change = np.abs(cosine_similarity(case.previous, moved) - before.similarities)
    needed = precision.deciding_margin(max(before.similarities.shape), case.previous.shape[1])
    # What is left of the margin must still be one that the precision decides.
    hypothesis.assume(lead - 2 * change.max(axis=1).sum() > max(0.1 * lead, needed))
    return Pair(case.previous, case.current, moved)


@st.composite
def poisoned_pairs(draw: st.DrawFn) -> Pair:
    """A pair with one value that is not finite."""
    case = draw(pairs(largest=3))
    kernels = draw(st.sampled_from([case.previous, case.current]))
    row, column = (draw(st.integers(0, size - 1)) for size in kernels.shape)
    kernels[row, column] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return case


@st.composite
def pairs_of_two_lengths(draw: st.DrawFn) -> Pair:
    """Kernels that are longer on one side than on the other."""
    case = draw(pairs(largest=3))
    longer = np.concatenate([case.current, case.current], axis=1)
    return draw(st.sampled_from([Pair(case.previous, longer), Pair(longer, case.previous)]))


@st.composite
def empty_pairs(draw: st.DrawFn) -> Pair:
    """No kernels on one side or on both."""
    n, m = draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (0, 3), (3, 0)]))
    return Pair(np.ones((n, 2)), np.ones((m, 2)))
