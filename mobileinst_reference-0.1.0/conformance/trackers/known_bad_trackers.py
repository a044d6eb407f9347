"""Trackers with one defect each, as they occur in ports. Each must be caught by a property."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from conformance.trackers.association_properties import FrameAnswer, ReferenceCandidate, VideoFrame
from refimpl.association import associate, associate_similarities, cosine_similarity
from refimpl.tracker import frame_masks

Array = NDArray[Any]


def matched(similarities: Array) -> Array:
    """The optimal association of any similarities, brought into −1…1."""
    largest = np.abs(similarities).max(initial=0)
    return associate_similarities(similarities / (largest if largest > 1 else 1)).permutation


class Bad(ReferenceCandidate):
    """The reference, with places where a defect can be put in."""

    def associate(self, previous: Array, current: Array) -> Array:
        """The optimal association of `similarities`."""
        return matched(self.similarities(previous, current))

    def similarities(self, previous: Array, current: Array) -> Array:
        """Cosines."""
        return cosine_similarity(previous, current)

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Follow the queries; the state is the frame, the order and the kernels."""
        frame, order, kernels = state or (0, [], [])
        order, kernels = np.array(order, np.int64), np.array(kernels)
        answers = []
        for one in frames:
            keyframe = self.due(frame, keyframe_interval)
            if keyframe or not len(kernels):
                kernels, order = self.next_keyframe(frame, kernels, order, one)
            answers.append(FrameAnswer(keyframe, order, self.masks(kernels, order, one)))
            frame += 1
        return answers, [frame, order.tolist(), kernels.tolist()]

    def due(self, frame: int, interval: int) -> bool:
        """Whether a frame is a keyframe."""
        return frame % interval == 0

    def next_keyframe(self, frame: int, kernels: Array, order: Array, one: VideoFrame) -> tuple[Array, Array]:
        """Kernels and queries in the order of the slots."""
        order = self.associate(kernels, one.kernels) if frame else np.arange(len(one.kernels))
        return one.kernels[order], order

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        """Masks of a frame in the order of the slots."""
        return frame_masks(kernels, one.mask_features)


class GreedyClaimedOptimal(Bad):
    """Takes the most similar pair left, again and again."""

    def associate(self, previous: Array, current: Array) -> Array:
        return associate(previous, current, "greedy").permutation


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


class KeyframesOneLate(Bad):
    """Takes frames 0, 1, T + 1, … for keyframes."""

    def due(self, frame: int, interval: int) -> bool:
        return frame == 0 or (frame - 1) % interval == 0


class CountsKeyframesFromOne(Bad):
    """Takes frames 0, T − 1, 2T − 1, … for keyframes."""

    def due(self, frame: int, interval: int) -> bool:
        return frame == 0 or (frame + 1) % interval == 0


class StateLeaks(Bad):
    """Keeps the last kernels when a new video begins."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Array | None = None

    def next_keyframe(self, frame: int, kernels: Array, order: Array, one: VideoFrame) -> tuple[Array, Array]:
        if self.last is not None and self.last.shape == one.kernels.shape:
            order = self.associate(self.last, one.kernels)
        else:
            order = np.arange(len(one.kernels))
        self.last = one.kernels[order]
        return one.kernels[order], order


class CounterLostOnResume(Bad):
    """Begins to count at 0 with every part of a video."""

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        return super().video(frames, keyframe_interval, state and [0, *state[1:]])


class OrderNotComposed(Bad):
    """Keeps the network's order and reports each association as if it were the whole history."""

    def next_keyframe(self, frame: int, kernels: Array, order: Array, one: VideoFrame) -> tuple[Array, Array]:
        order = self.associate(kernels, one.kernels) if frame else np.arange(len(one.kernels))
        return one.kernels, order

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        return frame_masks(kernels[order], one.mask_features)


class PermutationInverted(Bad):
    """Associates the current kernels with the previous ones and uses the answer as it is."""

    def next_keyframe(self, frame: int, kernels: Array, order: Array, one: VideoFrame) -> tuple[Array, Array]:
        order = self.associate(one.kernels, kernels) if frame else np.arange(len(one.kernels))
        return one.kernels[order], order


class NeverReuses(Bad):
    """Computes the masks of every frame with that frame's own kernels."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        return frame_masks(one.kernels[order], one.mask_features)


class ComparesWithTheFirstKeyframe(Bad):
    """Associates with frame 0 for ever; only a video whose kernels drift tells."""

    def next_keyframe(self, frame: int, kernels: Array, order: Array, one: VideoFrame) -> tuple[Array, Array]:
        order = np.arange(len(one.kernels)) if frame == 0 else self.associate(kernels, one.kernels)
        return (one.kernels if frame == 0 else kernels), order

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        return frame_masks(kernels, one.mask_features)


KNOWN_BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "greedy claimed optimal": (GreedyClaimedOptimal, "optimal_brute_force"),
    "dot product for cosine": (DotProduct, "scale_invariance"),
    "transposed assignment": (TransposedAssignment, "equivariance"),
    "minimised instead of maximised": (Minimised, "identity"),
    "best query of each slot alone": (EachRowAlone, "one_to_one"),
    "ties in reverse order": (LastOfTies, "tie_rule"),
    "absolute cosine": (AbsoluteCosine, "optimal_brute_force"),
    "Euclidean distance": (EuclideanDistance, "scale_invariance"),
    "epsilon added to the norm": (EpsilonInNorm, "extreme_norms"),
    "norm overflows in float32": (Float32Norm, "extreme_norms"),
    "centred cosine": (CentredCosine, "optimal_brute_force"),
    "norm over the wrong axis": (NormOfTheWrongAxis, "optimal_brute_force"),
    "NaN taken as zero": (NanAccepted, "refuses_non_finite"),
    "zero kernel taken as opposite": (ZeroNormIsFarAway, "zero_norm"),
    "surplus kernels cut off": (SquareOnly, "one_to_one"),
    "input normalised in place": (NormalisesInPlace, "one_to_one"),
    "keyframes one frame late": (KeyframesOneLate, "keyframe_schedule"),
    "keyframes counted from one": (CountsKeyframesFromOne, "keyframe_schedule"),
    "state kept between videos": (StateLeaks, "independent_videos"),
    "frame counter lost on resume": (CounterLostOnResume, "streaming"),
    "association not composed": (OrderNotComposed, "tracks_followed"),
    "permutation inverted": (PermutationInverted, "tracks_followed"),
    "kernels never reused": (NeverReuses, "kernel_reuse"),
    "compared with the first keyframe": (ComparesWithTheFirstKeyframe, "kernel_reuse"),
}
"""Name → the tracker and the property that must catch it (others may too)."""
