"""Trackers that live wrongly online, with one defect each, as they occur in ports."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers.bad_tracker import BadOnline
from conformance.trackers.candidate import LivingTrack, OnlineFrame, OnlineRules

Array = NDArray[Any]


class BirthAboveOnly(BadOnline):
    """Begins no track at exactly the threshold."""

    def is_born(self, best: float, rules: OnlineRules) -> bool:
        return best > rules.birth


class DeathAtBirth(BadOnline):
    """Ends tracks below the threshold of birth."""

    def dies(self, best: float, rules: OnlineRules) -> bool:
        return best < rules.birth


class DeathAtThreshold(BadOnline):
    """Ends tracks at exactly the threshold."""

    def dies(self, best: float, rules: OnlineRules) -> bool:
        return best <= rules.death


class OldIdentityAgain(BadOnline):
    """Gives a slot the identity it had."""

    def new_identity(self, memory: dict[str, Any], slot: int) -> int:
        known = memory.setdefault("known", {})
        if str(slot) not in known:
            known[str(slot)] = super().new_identity(memory, slot)
        return int(known[str(slot)])


class IdentityIsTheSlot(BadOnline):
    """Numbers tracks by their slots."""

    def new_identity(self, memory: dict[str, Any], slot: int) -> int:
        return slot


class LastScores(BadOnline):
    """Reports the last keyframe's scores."""

    def sums(self, before: Array, scores: Array) -> Array:
        return scores


class MeanOverFrames(BadOnline):
    """Divides by the number of frames."""

    def living(self, memory: dict[str, Any], one: OnlineFrame) -> list[LivingTrack]:
        return super().living({**memory, "keyframes": memory["frame"] + 1}, one)


class LastOfEqualClasses(BadOnline):
    """Of equal classes takes the last."""

    def label(self, means: Array) -> int:
        return len(means) - 1 - int(means[::-1].argmax())


class MaskAtHalf(BadOnline):
    """Puts a pixel into the mask where its logit is above 0."""

    def segmentation(self, logits: Array) -> Array | None:
        mask = logits > 0
        return mask if mask.any() else None


class EmptyMaskKept(BadOnline):
    """Reports an empty mask as a mask."""

    def segmentation(self, logits: Array) -> Array | None:
        found = super().segmentation(logits)
        return np.zeros(logits.shape, bool) if found is None else found


class MasknessOfAllPixels(BadOnline):
    """Averages over all pixels."""

    def weight(self, probabilities: Array) -> Array:
        mean: Array = probabilities.mean(axis=(1, 2))
        return mean


class MasknessForgotten(BadOnline):
    """Never weighs scores by masks."""

    def weight(self, probabilities: Array) -> Array:
        return np.ones(len(probabilities))
