"""Trackers that associate kernels wrongly, with one defect each, as they occur in ports."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from conformance.trackers.bad_tracker import Bad, matched
from refimpl.association import associate, cosine_similarity, unit_kernels

Array = NDArray[Any]


class GreedyClaimedOptimal(Bad):
    """Takes the most similar pair left, again and again."""

    def associate(self, previous: Array, current: Array) -> Array:
        return associate(previous.astype(float), current.astype(float), "greedy").permutation


class DotProduct(Bad):
    """Leaves the kernels unnormalised."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return previous @ current.T


class TransposedAssignment(Bad):
    """Returns the slot of each query in place of the query of each slot."""

    def associate(self, previous: Array, current: Array) -> Array:
        answer = np.full(len(previous), -1)
        rows, columns = linear_sum_assignment(self.similarities(previous, current), maximize=True)
        square = len(previous) == len(current)
        answer[columns if square else rows] = rows if square else columns
        return answer


class Minimised(Bad):
    """Forgets that SciPy minimises."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return -cosine_similarity(previous, current)


class EachRowAlone(Bad):
    """Lets every slot choose for itself."""

    def associate(self, previous: Array, current: Array) -> Array:
        if not len(previous) or not len(current):
            return np.full(len(previous), -1)
        return self.similarities(previous, current).argmax(axis=1)


class LastOfTies(Bad):
    """Sorts descending by reversing a stable ascending sort, so that ties come out backwards."""

    def associate(self, previous: Array, current: Array) -> Array:
        found = matched(self.similarities(previous, current)[:, ::-1])
        return np.where(found < 0, -1, len(current) - 1 - found)


class AbsoluteCosine(Bad):
    """Takes opposite kernels for equal ones."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return np.abs(cosine_similarity(previous, current))


class EuclideanDistance(Bad):
    """Compares kernels by their distance."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return -np.linalg.norm(previous[:, None] - current, axis=2)


class EpsilonInNorm(Bad):
    """Guards the division with an epsilon that small kernels feel."""

    def similarities(self, previous: Array, current: Array) -> Array:
        a, b = (k / (np.linalg.norm(k, axis=1, keepdims=True) + 1e-2) for k in (previous, current))
        return a @ b.T


class Float32Norm(Bad):
    """Squares overflow to infinity, so that large kernels become zero."""

    def similarities(self, previous: Array, current: Array) -> Array:
        with np.errstate(all="ignore"):
            a, b = (k.astype(np.float32) for k in (previous, current))
            a, b = (k / np.sqrt((k * k).sum(axis=1, keepdims=True)) for k in (a, b))
            return np.clip(np.nan_to_num(a @ b.T), -1, 1).astype(np.float64)


class CentredCosine(Bad):
    """Takes the mean off every kernel: correlation in place of cosine."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return cosine_similarity(*(k - k.mean(axis=1, keepdims=True) for k in (previous, current)))


class NormOfTheWrongAxis(Bad):
    """Normalises each channel over the queries."""

    def similarities(self, previous: Array, current: Array) -> Array:
        a, b = (k / np.maximum(np.linalg.norm(k, axis=0), 1e-12) for k in (previous, current))
        return a @ b.T


class NanAccepted(Bad):
    """Replaces what is not finite by zero."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return cosine_similarity(*(np.nan_to_num(k, posinf=0) for k in (previous, current)))


class ZeroNormIsFarAway(Bad):
    """The cosine of a zero kernel is taken as −1."""

    def similarities(self, previous: Array, current: Array) -> Array:
        found = cosine_similarity(previous, current)
        found[~previous.any(axis=1)] = -1
        found[:, ~current.any(axis=1)] = -1
        return found


class SquareOnly(Bad):
    """Matches only as many kernels as both sides have, from the front."""

    def associate(self, previous: Array, current: Array) -> Array:
        count = min(len(previous), len(current))
        return associate(previous[:count], current[:count]).permutation


class NormalisesInPlace(Bad):
    """Writes into its input."""

    def associate(self, previous: Array, current: Array) -> Array:
        previous /= np.maximum(np.linalg.norm(previous, axis=1, keepdims=True), 1e-300)
        return super().associate(previous, current)


class HalfPrecision(Bad):
    """Computes cosines in float16, and claims float64."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return super().similarities(previous, current).astype(np.float16).astype(np.float64)


class SinglePrecision(Bad):
    """Computes cosines in float32, and claims float64."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return super().similarities(previous, current).astype(np.float32).astype(np.float64)


class QuantisedCosines(Bad):
    """Keeps cosines as 8-bit integers."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return np.round(super().similarities(previous, current) * 127) / 127


class RoundingBreaksTies(Bad):
    """Compares totals to the last bit, so that rounding decides between equals."""

    def similarities(self, previous: Array, current: Array) -> Array:
        found = super().similarities(previous, current)
        return found + np.arange(found.size).reshape(found.shape) * 1e-11


class AtMostOneHundred(Bad):
    """Has room for 100 kernels."""

    def associate(self, previous: Array, current: Array) -> Array:
        answer = np.full(len(previous), -1)
        answer[:100] = super().associate(previous[:100], current[:100])
        return answer


class IgnoresStrides(Bad):
    """Reads the memory behind an array as if it were in row order."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return cosine_similarity(*(self.flat(one) for one in (previous, current)))

    def flat(self, kernels: Array) -> Array:
        """The numbers in the order of the memory."""
        return np.ravel(kernels, order="K").reshape(kernels.shape).astype(np.float64)


class StaysBroken(Bad):
    """Answers nothing more after an error."""

    broken = False

    def similarities(self, previous: Array, current: Array) -> Array:
        if self.broken:
            raise RuntimeError("an error before")
        self.broken = True
        found = super().similarities(previous, current)
        self.broken = False
        return found


class FlushesSubnormals(Bad):
    """Takes what is below the smallest normal number for 0."""

    def similarities(self, previous: Array, current: Array) -> Array:
        tiny = np.finfo(np.float64).tiny
        return super().similarities(*(np.where(np.abs(k) < tiny, 0, k) for k in (previous, current)))


class TiesByQuery(Bad):
    """Of tied assignments takes the first as seen from the queries, where those are fewer."""

    def associate(self, previous: Array, current: Array) -> Array:
        if len(previous) <= len(current):
            return super().associate(previous, current)
        slots = matched(self.similarities(previous, current).T)
        answer = np.full(len(previous), -1)
        answer[slots] = np.arange(len(current))
        return answer


class SinglePrecisionOfMany(Bad):
    """Computes in float32 from 64 kernels on, where it is faster."""

    def similarities(self, previous: Array, current: Array) -> Array:
        found = super().similarities(previous, current)
        return found.astype(np.float32).astype(np.float64) if max(found.shape) >= 64 else found


class IntegersOf32Bits(Bad):
    """Holds integers in 32 bits."""

    def similarities(self, previous: Array, current: Array) -> Array:
        return super().similarities(*(self.held(kernels) for kernels in (previous, current)))

    def held(self, kernels: Array) -> Array:
        """The numbers, integers at most 2³¹ − 1; what no integer holds is another kind of number."""
        whole = (kernels == np.round(kernels)) & (np.abs(kernels) < 2.0**63)
        return np.where(whole, np.clip(kernels, -(2.0**31), 2.0**31 - 1), kernels)


class CosinesBeyondMinusOne(Bad):
    """Takes the angle of a cosine that rounding has put beyond −1, which is no number."""

    def similarities(self, previous: Array, current: Array) -> Array:
        super().similarities(previous, current)
        units = [unit_kernels(kernels.astype(np.float64)) for kernels in (previous, current)]
        angles = np.arccos(np.minimum(units[0] @ units[1].T, 1))
        if np.isnan(angles).any():
            raise ValueError("an angle is not a number")
        return np.cos(angles)
