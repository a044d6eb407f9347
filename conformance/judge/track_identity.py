"""Track identity: whether a candidate's kernels carry every track to the next keyframe as they should."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy  # scipy.optimize is loaded at its first use

from conformance.judge.decisions import decision_of
from conformance.reports.report import Decision
from refimpl.association import RESOLUTION, associate
from refimpl.errors import ShapeError
from refimpl.ops.operation import Array

KIND = "track identity"
KERNELS = "kernels"


class TrackIdentity:
    """Compares the association of each frame's kernels with those of the frame before."""

    def __init__(self) -> None:
        self._last: tuple[Array, Array, float] | None = None
        self._first = True

    def compare(
        self, reference: Mapping[str, Array], given: Mapping[str, Array], allowed: Mapping[str, float]
    ) -> list[Decision]:
        """Take the next frame; return the decision on its tracks, none on the first frame.

        Parameters
        ----------
        reference, given
            Output → array; of them ``kernels`` (B, N, dim) is used.
        allowed
            Output → by how much a correct candidate's elements may be off.
        """
        last, first, self._first, self._last = self._last, self._first, False, None
        reason = "the candidate's kernels are missing, or not finite"
        if KERNELS not in reference:
            reason = "the reference gives no kernels"
        elif KERNELS in given:
            self._last = (reference[KERNELS], given[KERNELS], allowed[KERNELS])
            reason = "the frame before has no kernels"
        if first:
            return []
        if last is None or self._last is None:
            return [not_judged(reason)]
        return [compare_tracks(last, self._last)]

    def skip(self) -> None:
        """Take note of a frame on which the candidate gave nothing."""
        self._last, self._first = None, False


def not_judged(reason: str) -> Decision:
    """Return that nothing is said of tracks, and why."""
    return Decision(KIND, 0, 0, 0, None, None, not_judged=reason)


def compare_tracks(previous: tuple[Array, Array, float], current: tuple[Array, Array, float]) -> Decision:
    """Compare where the tracks of one frame continue in the next.

    Parameters
    ----------
    previous, current
        The reference's kernels (B, N, dim), the candidate's, and by how much its elements may be off.

    Returns
    -------
    Decision
        One for each of the B · N tracks. The margin of a track is the reference's best total of cosines minus
        the best total of an assignment in which it continues elsewhere.

    Raises
    ------
    ShapeError
        The frames have not the same number of pictures.
    """
    if len(previous[0]) != len(current[0]):
        raise ShapeError(
            f"frames of one video have batches of one size; got {len(previous[0])} and {len(current[0])}"
        )
    parts = [
        _compare_one((*arrays[:2], previous[2]), (*arrays[2:], current[2]))
        for arrays in zip(*previous[:2], *current[:2], strict=True)
    ]
    flipped, tied, margin, allowed = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return decision_of(KIND, flipped, tied, margin, allowed, "sums of cosines")


def _compare_one(
    previous: tuple[Array, Array, float], current: tuple[Array, Array, float]
) -> tuple[Array, Array, Array, Array]:
    """Return of each track (N,) whether it flipped, whether that is a tie, its margin and what is allowed."""
    right = associate(previous[0], current[0])
    chosen = associate(previous[1], current[1]).permutation
    fall, rise = similarity_errors(right.similarities, *_sizes(previous), *_sizes(current))
    exchange = _Exchange(right.similarities, right.permutation, fall, rise)
    tied = np.zeros(len(chosen), bool)
    for cycle in cycles(right.permutation, chosen):
        gap, explained = exchange.cost(cycle, chosen)
        tied[cycle] = gap <= explained
    margin, allowed = exchange.runners_up()
    return chosen != right.permutation, tied, margin, allowed


def _sizes(frame: tuple[Array, Array, float]) -> tuple[Array, Array]:
    """Return the reference's norms (N,), and how far the candidate's kernels may be off as vectors (N,)."""
    kernels = frame[0].astype(np.float64)
    return np.linalg.norm(kernels, axis=1), np.full(len(kernels), frame[2] * np.sqrt(kernels.shape[1]))


def similarity_errors(
    cosines: Array, norms: Array, radii: Array, other_norms: Array, other_radii: Array
) -> tuple[Array, Array]:
    """Return by how much cosines may fall and rise if each vector moves by at most its radius.

    A vector that moves by r turns by at most arcsin(r / norm), by any angle if r reaches the norm. Angles
    obey the triangle inequality (Schubert, *A Triangle Inequality for Cosine Similarity*, SISAP 2021), so the
    angle between two vectors changes by at most the sum of both turns. A vector of norm 0 has the cosine 0
    with all.

    Parameters
    ----------
    cosines
        (n, m), of the vectors as they are, in multiples of 2⁻⁴⁰.
    norms, radii, other_norms, other_radii
        (n,) and (m,).

    Returns
    -------
    fall, rise
        (n, m), with the rounding to 2⁻⁴⁰ that `refimpl.association` does before and after.
    """
    turn = _turns(norms, radii)[:, None] + _turns(other_norms, other_radii)[None, :]
    widest = np.arccos(np.maximum(cosines - RESOLUTION, -1.0))
    narrowest = np.arccos(np.minimum(cosines + RESOLUTION, 1.0))
    fall = cosines - np.cos(np.minimum(widest + turn, np.pi))
    rise = np.cos(np.maximum(narrowest - turn, 0.0)) - cosines
    return fall + RESOLUTION, rise + RESOLUTION


def _turns(norms: Array, radii: Array) -> Array:
    share = np.divide(radii, norms, out=np.full(norms.shape, np.inf), where=norms > 0)
    return np.where(share < 1, np.arcsin(np.minimum(share, 1.0)), np.pi)


class _Exchange:
    """What the best total loses by another assignment, and how much of that rounding may make good."""

    def __init__(self, similarities: Array, permutation: Array, fall: Array, rise: Array) -> None:
        self._similarities, self._permutation = similarities, permutation
        self._fall, self._rise = fall, rise

    def cost(self, tracks: Array, other: Array) -> tuple[float, float]:
        """Return the loss when ``tracks`` continue as in ``other``, and what rounding may make of it."""
        right, wrong = (tracks, self._permutation[tracks]), (tracks, other[tracks])
        loss = self._similarities[right].sum() - self._similarities[wrong].sum()
        return float(loss), float(self._fall[right].sum() + self._rise[wrong].sum())

    def runners_up(self) -> tuple[Array, Array]:
        """Return for each track the loss by the best assignment in which it continues elsewhere.

        And what rounding may make of it; infinite and 0 if there is no other.
        """
        count = len(self._permutation)
        losses, allowed = np.full(count, np.inf), np.zeros(count)
        for track in range(count if count > 1 else 0):
            other = self._without(track)
            tracks = np.flatnonzero(other != self._permutation)
            losses[track], allowed[track] = self.cost(tracks, other)
        return losses, allowed

    def _without(self, track: int) -> Array:
        """Return the best assignment that does not continue a track as it should."""
        barred = self._similarities.copy()
        barred[track, self._permutation[track]] = -4.0 * len(barred)
        return np.asarray(scipy.optimize.linear_sum_assignment(barred, maximize=True)[1])


def cycles(permutation: Array, other: Array) -> list[Array]:
    """Return the cycles of tracks that exchange their continuations between two permutations of one length.

    Of an optimal assignment each cycle is optimal by itself, so each is judged by itself.
    """
    owner = np.argsort(permutation)
    left, found = set(np.flatnonzero(permutation != other).tolist()), []
    while left:
        track = min(left)
        cycle = []
        while track in left:
            left.remove(track)
            cycle.append(track)
            track = int(owner[other[track]])
        found.append(np.array(cycle))
    return found


def frames_of_one_video(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `ShapeError` unless there are two or more inputs, all with as many pictures each."""
    if len(shapes) < 2:
        raise ShapeError(f"frames of a video are two inputs or more, in order; got {len(shapes)}")
    counts = {shape[0] for shape in shapes.values()}
    if len(counts) > 1:
        listed = ", ".join(f"{name} {shape[0]}" for name, shape in shapes.items())
        raise ShapeError(f"frames of one video have batches of one size; got {listed}")
