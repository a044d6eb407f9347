"""Trackers with one defect each, as they occur in ports. Each must be caught by a property."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from conformance.association_properties import (
    FrameAnswer,
    ReferenceCandidate,
    catch_table,
    catch_table_markdown,
)
from refimpl.association import associate, associate_similarities, cosine_similarity
from refimpl.tracker import frame_masks


def matched(similarities):
    """The optimal association of any similarities, brought into −1…1."""
    largest = np.abs(similarities).max(initial=0)
    return associate_similarities(similarities / (largest if largest > 1 else 1)).permutation


class Bad(ReferenceCandidate):
    """The reference, with places where a defect can be put in."""

    def associate(self, previous, current):
        return matched(self.similarities(previous, current))

    def similarities(self, previous, current):
        return cosine_similarity(previous, current)

    def video(self, frames, keyframe_interval, state):
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

    def due(self, frame, interval):
        return frame % interval == 0

    def next_keyframe(self, frame, kernels, order, one):
        order = self.associate(kernels, one.kernels) if frame else np.arange(len(one.kernels))
        return one.kernels[order], order

    def masks(self, kernels, order, one):
        return frame_masks(kernels, one.mask_features)


class GreedyClaimedOptimal(Bad):
    def associate(self, previous, current):
        return associate(previous, current, "greedy").permutation


class DotProduct(Bad):
    def similarities(self, previous, current):
        return previous @ current.T


class TransposedAssignment(Bad):
    def associate(self, previous, current):
        answer = np.full(len(previous), -1)
        rows, columns = linear_sum_assignment(self.similarities(previous, current), maximize=True)
        square = len(previous) == len(current)
        answer[columns if square else rows] = rows if square else columns
        return answer


class Minimised(Bad):
    def similarities(self, previous, current):
        return -cosine_similarity(previous, current)


class EachRowAlone(Bad):
    def associate(self, previous, current):
        if not len(previous) or not len(current):
            return np.full(len(previous), -1)
        return self.similarities(previous, current).argmax(axis=1)


class LastOfTies(Bad):
    """Sorts descending by reversing a stable ascending sort, so that ties come out backwards."""

    def associate(self, previous, current):
        found = matched(self.similarities(previous, current)[:, ::-1])
        return np.where(found < 0, -1, len(current) - 1 - found)


class AbsoluteCosine(Bad):
    def similarities(self, previous, current):
        return np.abs(cosine_similarity(previous, current))


class EuclideanDistance(Bad):
    def similarities(self, previous, current):
        return -np.linalg.norm(previous[:, None] - current, axis=2)


class EpsilonInNorm(Bad):
    def similarities(self, previous, current):
        a, b = (k / (np.linalg.norm(k, axis=1, keepdims=True) + 1e-2) for k in (previous, current))
        return a @ b.T


class Float32Norm(Bad):
    """Squares overflow to infinity, so that large kernels become zero."""

    def similarities(self, previous, current):
        with np.errstate(all="ignore"):
            a, b = (k.astype(np.float32) for k in (previous, current))
            a, b = (k / np.sqrt((k * k).sum(axis=1, keepdims=True)) for k in (a, b))
            return np.clip(np.nan_to_num(a @ b.T), -1, 1).astype(np.float64)


class CentredCosine(Bad):
    def similarities(self, previous, current):
        return cosine_similarity(*(k - k.mean(axis=1, keepdims=True) for k in (previous, current)))


class NormOfTheWrongAxis(Bad):
    def similarities(self, previous, current):
        a, b = (k / np.maximum(np.linalg.norm(k, axis=0), 1e-12) for k in (previous, current))
        return a @ b.T


class NanAccepted(Bad):
    def similarities(self, previous, current):
        return cosine_similarity(*(np.nan_to_num(k, posinf=0) for k in (previous, current)))


class ZeroNormIsFarAway(Bad):
    """The cosine of a zero kernel is taken as −1."""

    def similarities(self, previous, current):
        found = cosine_similarity(previous, current)
        found[~previous.any(axis=1)] = -1
        found[:, ~current.any(axis=1)] = -1
        return found


class SquareOnly(Bad):
    def associate(self, previous, current):
        count = min(len(previous), len(current))
        return associate(previous[:count], current[:count]).permutation


class NormalisesInPlace(Bad):
    def associate(self, previous, current):
        previous /= np.maximum(np.linalg.norm(previous, axis=1, keepdims=True), 1e-300)
        return super().associate(previous, current)


class KeyframesOneLate(Bad):
    def due(self, frame, interval):
        return frame == 0 or (frame - 1) % interval == 0


class CountsKeyframesFromOne(Bad):
    def due(self, frame, interval):
        return frame == 0 or (frame + 1) % interval == 0


class StateLeaks(Bad):
    """Keeps the last kernels when a new video begins."""

    def __init__(self):
        super().__init__()
        self.last = None

    def next_keyframe(self, frame, kernels, order, one):
        if self.last is not None and self.last.shape == one.kernels.shape:
            order = self.associate(self.last, one.kernels)
        else:
            order = np.arange(len(one.kernels))
        self.last = one.kernels[order]
        return self.last, order


class CounterLostOnResume(Bad):
    def video(self, frames, keyframe_interval, state):
        return super().video(frames, keyframe_interval, state and [0, *state[1:]])


class OrderNotComposed(Bad):
    """Keeps the network's order and reports each association as if it were the whole history."""

    def next_keyframe(self, frame, kernels, order, one):
        order = self.associate(kernels, one.kernels) if frame else np.arange(len(one.kernels))
        return one.kernels, order

    def masks(self, kernels, order, one):
        return frame_masks(kernels[order], one.mask_features)


class PermutationInverted(Bad):
    def next_keyframe(self, frame, kernels, order, one):
        order = self.associate(one.kernels, kernels) if frame else np.arange(len(one.kernels))
        return one.kernels[order], order


class NeverReuses(Bad):
    """Computes the masks of every frame with that frame's own kernels."""

    def masks(self, kernels, order, one):
        return frame_masks(one.kernels[order], one.mask_features)


class ComparesWithTheFirstKeyframe(Bad):
    """Associates with frame 0 for ever; only a video whose kernels drift tells."""

    def next_keyframe(self, frame, kernels, order, one):
        order = np.arange(len(one.kernels)) if frame == 0 else self.associate(kernels, one.kernels)
        return (one.kernels if frame == 0 else kernels), order

    def masks(self, kernels, order, one):
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

if __name__ == "__main__":
    print(catch_table_markdown(catch_table({name: make for name, (make, _) in KNOWN_BAD.items()}, 100)))
