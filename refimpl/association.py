"""Kernel association: which query of the next keyframe continues each track (paper section 3.4).

Cosines are rounded to multiples of 2⁻⁴⁰ before they are compared. Sums of up to 2¹² of them are then exact in
float64, so that totals, ties and margins have no rounding of their own and every tie is resolved by one rule:
of all assignments with the best total, the first in the dictionary order of their permutations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy  # its parts are loaded at their first use
from numpy.typing import NDArray

from refimpl.errors import ConfigurationError, NonFiniteError, ShapeError

Array = NDArray[Any]

METHODS = ("optimal", "greedy")
RESOLUTION = 2.0**-40
"""Cosines closer than this may count as equal."""


@dataclass(frozen=True)
class Association:
    """The outcome of `associate` for n previous and m current kernels.

    Attributes
    ----------
    permutation : (n,) int64
        Current query that continues each previous slot; −1 where n > m left none.
    similarities : (n, m) float64
        Cosines, multiples of 2⁻⁴⁰.
    """

    permutation: Array
    similarities: Array

    @property
    def pairs(self) -> tuple[Array, Array]:
        """Previous slots and current queries of the matched pairs, by ascending slot."""
        slots = np.flatnonzero(self.permutation >= 0)
        return slots, self.permutation[slots]

    @property
    def total(self) -> float:
        """Sum of the cosines of the matched pairs."""
        return float(self.similarities[self.pairs].sum())

    @cached_property
    def track_margins(self) -> Array:
        """(n,) float64: this total minus the best total in which the slot's fate differs; inf if it cannot.

        Computed on first use, as shortest alternating cycles: O(N³). Of an optimal association no margin is
        negative; of a greedy one a negative margin says how much was given away.
        """
        best = _optimal(self.similarities)
        margins = np.where(best == self.permutation, _track_margins(best, self.similarities), 0)
        optimum = Association(best, self.similarities).total
        lead: Array = margins + (self.total - optimum)
        return lead

    @property
    def margin(self) -> float:
        """This total minus the best total of any other assignment; inf if there is no other."""
        return float(min(self.track_margins, default=np.inf))


def unit_kernels(kernels: Array) -> Array:
    """Scale each kernel to norm 1; a kernel of norm 0 stays 0, so its cosine with everything is 0.

    Parameters
    ----------
    kernels : (N, dim) floating array
        Any magnitude: neither huge nor subnormal kernels overflow or vanish.

    Returns
    -------
    Array, (N, dim), dtype of ``kernels``
    """
    largest = np.maximum(kernels.max(axis=1, keepdims=True), -kernels.min(axis=1, keepdims=True))
    # By powers of two, exactly, and in two steps, as 1/largest may itself overflow.
    exponent = np.frexp(largest)[1]
    one = np.ones_like(largest)
    scaled = kernels * np.ldexp(one, -(exponent // 2))
    scaled *= np.ldexp(one, exponent // 2 - exponent)
    norm = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    scaled /= np.where(norm == 0, one, norm)
    return scaled


def cosine_similarity(previous: Array, current: Array) -> Array:
    """Cosine of every previous with every current kernel, −1…1; 0 where either norm is 0.

    Parameters
    ----------
    previous, current : (n, dim) and (m, dim) floating arrays

    Returns
    -------
    Array, (n, m), dtype of the inputs

    Raises
    ------
    ShapeError, NonFiniteError
        The arrays are not two lists of kernels of one length; NaN or infinity.
    """
    require_kernels(previous, "previous kernels")
    require_kernels(current, "current kernels")
    if previous.shape[1] != current.shape[1]:
        raise ShapeError(
            f"previous kernels {previous.shape} and current kernels {current.shape} differ in length; "
            "give both as (N, dim) with one dim"
        )
    cosine: Array = unit_kernels(previous) @ unit_kernels(current).T
    return np.clip(cosine, -1, 1, out=cosine)


def require_kernels(kernels: Array, name: str) -> None:
    """Raise unless ``kernels`` is a finite (N, dim) floating array with dim ≥ 1; N may be 0."""
    if kernels.ndim != 2 or kernels.shape[1] < 1 or not np.issubdtype(kernels.dtype, np.floating):
        raise ShapeError(f"{name}: expected a floating array (N, dim), got {kernels.dtype} {kernels.shape}")
    finite = np.isfinite(kernels)
    if not finite.all():
        query, channel = np.argwhere(~finite)[0]
        raise NonFiniteError(
            f"{name}: {kernels[query, channel]} in query {query}, channel {channel}; "
            f"{int((~finite).sum())} values are not finite; a track cannot be followed through them"
        )


def associate(previous_kernels: Array, current_kernels: Array, method: str = "optimal") -> Association:
    """Match the kernels of two consecutive keyframes one-to-one by cosine similarity.

    Parameters
    ----------
    previous_kernels, current_kernels : (n, dim) and (m, dim) floating arrays
    method : "optimal" or "greedy"
        ``optimal``: largest sum of cosines (Hungarian), as MinVIS does. ``greedy``: repeatedly the most
        similar pair left; of equal pairs the one with the lowest slot, then the lowest query.

    Returns
    -------
    Association
        min(n, m) pairs. Ties of the optimal method: the first permutation in dictionary order, an unmatched
        slot (n > m) counting as after every query.

    Raises
    ------
    ConfigurationError, ShapeError, NonFiniteError
    """
    if method not in METHODS:
        raise ConfigurationError(f"association method {method!r} is unknown; choose one of {METHODS}")
    require_kernels(previous_kernels, "previous kernels")
    require_kernels(current_kernels, "current kernels")
    # In float64 whatever the dtype, so that equal kernels tie.
    wide = [kernels.astype(np.float64, copy=False) for kernels in (previous_kernels, current_kernels)]
    return associate_similarities(cosine_similarity(*wide), method)


def associate_similarities(similarities: Array, method: str = "optimal") -> Association:
    """Match by a given (n, m) matrix of similarities in −1…1, beyond which sums would not be exact.

    See `associate`.

    Raises
    ------
    ShapeError, NonFiniteError
    """
    if not np.isfinite(similarities).all():
        raise NonFiniteError("similarities must be finite; some are NaN or infinite")
    if similarities.ndim != 2 or np.abs(similarities).max(initial=0) > 1:
        raise ShapeError(
            f"similarities are (n, m) cosines in −1…1; got shape {similarities.shape}, "
            f"largest magnitude {np.abs(similarities).max(initial=0)}"
        )
    rounded = np.round(similarities / RESOLUTION) * RESOLUTION
    permutation = _optimal(rounded) if method == "optimal" else _greedy(rounded)
    permutation.setflags(write=False)
    return Association(permutation, rounded)


def _squared(similarities: Array) -> Array:
    """Pad to a square with zeros: slots and queries that stand for "nothing"."""
    slots, queries = similarities.shape
    square = np.zeros((max(slots, queries),) * 2)
    square[:slots, :queries] = similarities
    return square


def _optimal(similarities: Array) -> Array:
    """The first, in dictionary order, of the permutations with the largest total."""
    slots, queries = similarities.shape
    square = _squared(similarities)
    assignment = scipy.optimize.linear_sum_assignment(square, maximize=True)[1]
    tied = _tied_pairs(_exchange_costs(square, assignment))
    if tied is not None:
        assignment = _first_of_ties(assignment, tied, slots)
    return np.where(assignment < queries, assignment, -1)[:slots].astype(np.int64)


def _greedy(similarities: Array) -> Array:
    """Repeatedly take the largest entry; argmax returns the first of equals, in row order."""
    left = similarities.copy()
    permutation = np.full(len(left), -1, np.int64)
    for _ in range(min(left.shape)):
        slot, query = np.unravel_index(left.argmax(), left.shape)
        permutation[slot] = query
        left[slot] = left[:, query] = -np.inf
    return permutation


def _exchange_costs(square: Array, assignment: Array) -> Array:
    """``[a, b]``: what the total loses when slot a takes the query of slot b."""
    exchanged = square[:, assignment]
    costs: Array = np.diag(exchanged)[:, None] - exchanged
    return costs


def _tied_pairs(costs: Array) -> Array | None:
    """Exchanges [a, b] that lie on a cycle of total cost 0, or None if there are none (the usual case).

    With shortest distances as potentials every cost of an optimal assignment becomes ≥ 0 (Johnson 1977), so a
    cycle of cost 0 has only edges of cost 0 and stays within a strongly connected component of them.
    """
    potential = np.zeros(len(costs))
    while True:
        relaxed = np.minimum(potential, (potential[:, None] + costs).min(axis=0, initial=np.inf))
        if np.array_equal(relaxed, potential):
            break
        potential = relaxed
    tight = costs + potential[:, None] - potential == 0
    if np.count_nonzero(tight) == len(costs):
        return None
    component = scipy.sparse.csgraph.connected_components(
        scipy.sparse.csgraph.csgraph_from_dense(tight), connection="strong"
    )[1]
    tied: Array = tight & (component[:, None] == component)
    return tied if np.count_nonzero(tied) > len(costs) else None


def _first_of_ties(assignment: Array, tied: Array, slots: int) -> Array:
    """Fix slot after slot at its lowest query from which the others can still be matched."""
    allowed = _as_bits(tied[:, np.argsort(assignment)])
    chosen: list[int] = assignment.tolist()
    owner: list[int] = np.argsort(assignment).tolist()
    free = -1
    for slot in range(slots):
        for query in _bits(allowed[slot] & free):
            path = _alternating_path(allowed, free, owner, owner[query], chosen[slot])
            if path is not None:
                for at, taken in [*path, (slot, query)]:
                    chosen[at], owner[taken] = taken, at
                break
        free &= ~(1 << chosen[slot])
    return np.array(chosen)


def _as_bits(matrix: Array) -> list[int]:
    """Each row of a boolean matrix as one integer, of which bit n is column n."""
    packed = np.packbits(matrix, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _bits(number: int) -> Iterator[int]:
    """The places of an integer's ones, ascending."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _alternating_path(
    allowed: list[int], free: int, owner: list[int], start: int, goal: int
) -> list[tuple[int, int]] | None:
    """Exchanges by which slot ``start`` gives up its query and another takes ``goal``; breadth first."""
    came: dict[int, tuple[int, int]] = {}
    frontier = [start]
    for slot in frontier:
        if allowed[slot] >> goal & 1:
            path = [(slot, goal)]
            while slot != start:
                slot, query = came[slot]
                path.append((slot, query))
            return path
        for query in _bits(allowed[slot] & free):
            free ^= 1 << query
            came[owner[query]] = (slot, query)
            frontier.append(owner[query])
    return None


def _track_margins(permutation: Array, similarities: Array) -> Array:
    """Cost of the cheapest cycle of exchanges that changes each slot's fate, from an optimal permutation.

    Where one side is longer, padded slots and queries stand for "nothing"; exchanges among them change
    nothing and are free.
    """
    slots, queries = similarities.shape
    if min(slots, queries) == 0:
        return np.full(slots, np.inf)
    assignment = permutation.copy()
    free = np.setdiff1d(np.arange(max(slots, queries)), permutation)
    assignment = np.concatenate([assignment, np.full(max(queries - slots, 0), -1)])
    assignment[assignment < 0] = free
    costs = _exchange_costs(_squared(similarities), assignment)
    return _cheapest_cycles(costs, matched=assignment[:slots] < queries)


def _cheapest_cycles(costs: Array, matched: Array) -> Array:
    """Cost of the cheapest cycle that changes the fate of each of the first ``len(matched)`` nodes."""
    distances = scipy.sparse.csgraph.floyd_warshall(
        scipy.sparse.csgraph.csgraph_from_dense(costs, null_value=np.inf)
    )
    cycles = (costs + distances.T)[: len(matched)]
    np.fill_diagonal(cycles, np.inf)
    # An unmatched slot's fate changes only if it takes the query of a matched one.
    to_matched = cycles[:, : len(matched)][:, matched].min(axis=1, initial=np.inf)
    result: Array = np.where(matched, cycles.min(axis=1), to_matched)
    return result
