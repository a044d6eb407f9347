"""Error against bound: utilisation, and the statistics of rounding that a systematic fault does not have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # scipy.special is loaded at its first use: half of the import time

from refimpl.ops.operation import Array

FALSE_ALARM = 1e-9
"""Of one test under its model; a run has hundreds of steps, a suite hundreds of runs."""

COMMON_ROUNDINGS = 4
"""Roundings that all elements of a step may share."""

BLOCKS = 64
"""Neighbouring errors share operands, so it is the means of so many blocks that count as independent."""

MIXER = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio (Knuth's multiplicative hash): a number's bits reach many of the product's."""

ROUNDING_VARIANCE = 0.4
"""Largest mean square of error / (√n·u·size) by rounding to nearest: 1/3, with TOSA's allowance."""


def utilisation(candidate: Array, truth: Array, bound: Array) -> Array:
    """Return error / bound per element: at most 1 is rounding, above is not.

    0 where the two are equal, infinities and NaN included; infinite where a bound of 0 is missed, or the
    candidate is NaN and the truth is not.
    """
    given, wanted = np.asarray(candidate, np.float64), np.asarray(truth, np.float64)
    same = (given == wanted) | (np.isnan(given) & np.isnan(wanted))
    with np.errstate(all="ignore"):
        ratio = np.abs(given - wanted) / bound
    ratio = np.where(np.isinf(bound) & ~np.isnan(given), 0.0, np.where(np.isnan(ratio), np.inf, ratio))
    return np.where(same, 0.0, ratio)


@dataclass(frozen=True)
class BiasTest:
    """What `bias_test` found.

    Attributes
    ----------
    samples
        Distinct errors that were used.
    mean
        Mean of error / scale.
    mean_square
        Mean square of error / scale.
    bias_probability
        Of a mean so far from 0, if rounding has mean zero.
    variance_probability
        Of a mean square so large, if it is rounding of this scale.
    """

    samples: int
    mean: float
    mean_square: float
    bias_probability: float
    variance_probability: float

    def __str__(self) -> str:
        """Say what is not as rounding has it."""
        if self.bias_probability <= self.variance_probability:
            figure, expected = f"mean {self.mean:.2g}", "0"
        else:
            figure, expected = f"mean square {self.mean_square:.2g}", f"at most {ROUNDING_VARIANCE}"
        probability = min(self.bias_probability, self.variance_probability)
        return (
            f"error / probable rounding has {figure} over {self.samples} elements, where rounding has "
            f"{expected} (probability {probability:.0e})"
        )

    @property
    def suspicious(self) -> bool:
        """Whether rounding does not explain the errors, though each may be within its bound."""
        return min(self.bias_probability, self.variance_probability) < FALSE_ALARM


def bias_test(error: Array, bound: Array, scale: Array, rounding: Array | float = 0.0) -> BiasTest:
    """Test whether signed errors look like rounding: of mean zero, and no larger than √n roundings.

    A worst-case bound of K = 2304 products is some 50 times what rounding does, which leaves room for a small
    wrong weight. Rounding errors however have either sign, and grow with √K only.

    Parameters
    ----------
    error
        Candidate − truth of one step.
    bound
        The step's `introduced_bound`.
    scale
        The same with ``probable=True``: what √n independent roundings make.
    rounding
        What one rounding of each result makes, where bound and scale are of several steps: carried through
        a softmax, say, they may part by any factor, and their quotient says no more how many roundings met.

    Notes
    -----
    With r = error / scale, over the distinct pairs of error and scale (a flat picture makes one error many
    times):

    * *bias*: Student's t of the means of 64 blocks of neighbours, (|mean| − allowed) / (deviation / √64). Its
      two-sided tail is the probability of a false alarm if blocks are independent; correlation inside a block
      only costs power. Allowed are `COMMON_ROUNDINGS` roundings that all elements share: of a constant such
      as 1/n, of a factor per channel, of an exponential that errs to one side. bound / scale is √n, so they
      are 4/√n in units of the scale, and the test is silent where few roundings make the bound tight anyway.
      Of one step that is 4 roundings of the terms' sizes, which are no less than those of the result.
    * *variance*: rounding to nearest has E[r²] ≤ 0.4 (a rounding is uniform within ±u: 1/3). The sum of r² /
    0.4
      is held against χ², of 64 degrees of freedom where there are more elements, as neighbours are not
      independent.

    Either is an alarm below 1e-9: a thousand runs of two hundred steps raise a false one with probability
    4e-4.

    Source: TOSA's dot-product conformance test, which bounds the same two sums by 2·√(K·N) and 0.4·K·N;
    Higham & Mary 2019.
    """
    ratio, allowed = _distinct_ratios(error, bound, scale, rounding)
    return BiasTest(
        ratio.size, *_moments(ratio), _bias_probability(ratio, allowed), _variance_probability(ratio)
    )


def _distinct_ratios(
    error: Array, bound: Array, scale: Array, rounding: Array | float
) -> tuple[Array, float]:
    """Return error / scale of each distinct pair, in the tensor's order, and the mean that is allowed."""
    flat = np.ravel(error)
    most, size, own = (np.ravel(np.broadcast_to(x, np.shape(error))) for x in (bound, scale, rounding))
    usable = np.isfinite(flat) & np.isfinite(size) & np.isfinite(most) & (size > 0)
    flat, most, size, own = flat[usable], most[usable], size[usable], own[usable]
    first = _distinct(flat, size)
    shared = max(float(np.mean(size / most)), float(np.mean(own / size))) if most.size else 0.0
    return flat[first] / size[first], COMMON_ROUNDINGS * shared


def _distinct(first: Array, second: Array) -> Array:
    """Return, in order, a place of each distinct pair of float64 numbers.

    Pairs are told apart by a 64-bit mixture of their bits: sorting whole numbers is much quicker than
    sorting pairs, and two of some thousand pairs share a mixture once in 10¹¹ times.
    """
    mixture = (first + 0.0).view(np.uint64) * MIXER ^ (second + 0.0).view(np.uint64)
    order = np.argsort(mixture)
    ranked = mixture[order]
    first_of_its_kind = np.ones(order.size, bool)
    first_of_its_kind[order[1:]] = ranked[1:] != ranked[:-1]
    return np.flatnonzero(first_of_its_kind)


def _moments(ratio: Array) -> tuple[float, float]:
    return (float(ratio.mean()), float(np.mean(ratio**2))) if ratio.size else (0.0, 0.0)


def _bias_probability(ratio: Array, allowed: float) -> float:
    """Return the tail of Student's t; too few elements say nothing."""
    if ratio.size < 2 * BLOCKS:
        return 1.0
    starts = np.arange(BLOCKS) * ratio.size // BLOCKS
    means = np.add.reduceat(ratio, starts) / np.diff([*starts, ratio.size])
    excess, deviation = abs(means.mean()) - allowed, means.std(ddof=1)
    if excess <= 0:
        return 1.0
    return (
        float(2 * scipy.special.stdtr(BLOCKS - 1, -excess / (deviation / np.sqrt(BLOCKS))))
        if deviation
        else 0.0
    )


def _variance_probability(ratio: Array) -> float:
    """Return the tail of χ²; correlated errors count as ``BLOCKS`` independent ones."""
    if not ratio.size:
        return 1.0
    freedom = min(ratio.size, BLOCKS)
    return float(scipy.special.chdtrc(freedom, freedom * float(np.mean(ratio**2)) / ROUNDING_VARIANCE))
