"""Trackers that live wrongly online, with one defect each, as they occur in ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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


class MeanOfTheLast32(BadOnline):
    """Averages over the last 32 keyframes only."""

    def online_keyframe(self, memory: dict[str, Any], one: OnlineFrame, rules: OnlineRules) -> None:
        before = np.array(memory["sums"]) if memory["keyframes"] else 0
        super().online_keyframe(memory, one, rules)
        recent = [*memory.get("recent", []), (np.array(memory["sums"]) - before).tolist()]
        memory["recent"] = recent[-32:]

    def living(self, memory: dict[str, Any], one: OnlineFrame) -> list[LivingTrack]:
        recent = memory["recent"]
        return super().living({**memory, "sums": np.sum(recent, axis=0), "keyframes": len(recent)}, one)


class IdentitiesInMemory(BadOnline):
    """Counts identities in the process, from 0 with every new video, whatever state it is given."""

    count = 0

    def online(
        self, frames: Sequence[OnlineFrame], rules: OnlineRules, state: Any
    ) -> tuple[list[list[LivingTrack]], Any]:
        self.count = 0 if state is None else self.count
        return super().online(frames, rules, state)

    def new_identity(self, memory: dict[str, Any], slot: int) -> int:
        self.count += 1
        return self.count - 1


class NobodyUnexpected(BadOnline):
    """Fails where a keyframe has no queries."""

    def scores(self, one: OnlineFrame, order: Array, rules: OnlineRules) -> Array:
        order[0]
        return super().scores(one, order, rules)


class ScoresUnchecked(BadOnline):
    """Takes scores that are not finite for none."""

    def scores(self, one: OnlineFrame, order: Array, rules: OnlineRules) -> Array:
        assert one.class_logits is not None
        assert one.objectness is not None
        logits, objectness = (np.nan_to_num(each, nan=-50.0) for each in (one.class_logits, one.objectness))
        return super().scores(replace(one, class_logits=logits, objectness=objectness), order, rules)
