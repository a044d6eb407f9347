"""The reference with places where a defect can be put in; each known-bad tracker overrides one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers.candidate import (
    CallableCandidate,
    FrameAnswer,
    LivingTrack,
    OnlineFrame,
    OnlineRules,
    VideoFrame,
)
from conformance.trackers.online_definition import MASK_THRESHOLD
from refimpl.association import associate_similarities, cosine_similarity, require_kernels
from refimpl.errors import ShapeError
from refimpl.inference import maskness
from refimpl.tracker import KeyframeTensors, class_scores, frame_masks

Array = NDArray[Any]


def matched(similarities: Array) -> Array:
    """The optimal association of any similarities, brought into −1…1."""
    largest = np.abs(similarities).max(initial=0)
    return associate_similarities(similarities / (largest if largest > 1 else 1)).permutation


class Bad(CallableCandidate):
    """A sound tracker, with places where a defect can be put in."""

    def associate(self, previous: Array, current: Array) -> Array:
        """The optimal association of `similarities`."""
        return matched(self.similarities(self._form(previous), self._form(current)))

    def similarities(self, previous: Array, current: Array) -> Array:
        """Cosines."""
        return cosine_similarity(previous.astype(np.float64), current.astype(np.float64))

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Follow the queries; the state is the frame, the order, the kernels and their length."""
        frame, order, kernels = self.begin(state)
        answers = []
        for one in frames:
            keyframe = self.due(frame, keyframe_interval)
            if keyframe:
                now = self.fitting(one.kernels, frame, kernels, one)
                kernels, order = self.next_keyframe(frame, kernels, order, now)
            answers.append(FrameAnswer(keyframe, order, self.masks(kernels, order, one)))
            frame += 1
        return answers, [frame, order.tolist(), kernels.tolist(), kernels.shape[1]]

    def begin(self, state: Any) -> tuple[int, Array, Array]:
        """The frame, the order and the kernels of a state; None is a new video's."""
        frame, order, kernels, length = state or (0, [], [], 1)
        return frame, np.array(order, np.int64), np.array(kernels, np.float64).reshape(len(order), length)

    def due(self, frame: int, interval: int) -> bool:
        """Whether a frame is a keyframe."""
        return frame % interval == 0

    def fitting(self, now: Array | None, frame: int, kernels: Array, one: VideoFrame) -> Array:
        """A keyframe's kernels, if they are finite and fit those before and the features."""
        if now is None:
            raise ShapeError("a keyframe needs kernels")
        require_kernels(now, "kernels")
        if frame and now.shape != kernels.shape:
            raise ShapeError(f"kernels {now.shape} follow kernels {kernels.shape}; a video has one shape")
        return now

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        """Kernels and queries in the order of the slots."""
        order = self.associate(kernels, now) if frame else np.arange(len(now))
        return now[order], order

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        """Masks of a frame in the order of the slots."""
        return frame_masks(kernels, one.mask_features)


class BadOnline(Bad):
    """A sound online tracker, with places where a defect can be put in. The state is a dict of lists."""

    def online(
        self, frames: Sequence[OnlineFrame], rules: OnlineRules, state: Any
    ) -> tuple[list[list[LivingTrack]], Any]:
        """Follow the slots; let tracks be born and die at keyframes."""
        memory: dict[str, Any] = {"frame": 0, "keyframes": 0, "born": 0}
        memory |= {"kernels": [], "identities": [], "sums": []}
        memory |= state or {}
        answers = []
        for one in frames:
            if memory["frame"] % rules.keyframe_interval == 0:
                self.online_keyframe(memory, one, rules)
            answers.append(self.living(memory, one))
            memory["frame"] += 1
        return answers, memory

    def online_keyframe(self, memory: dict[str, Any], one: OnlineFrame, rules: OnlineRules) -> None:
        """Associate, score, end and begin tracks."""
        assert one.kernels is not None
        first = memory["keyframes"] == 0
        kernels = one.kernels
        before = np.array(memory["kernels"]).reshape(-1, kernels.shape[1])
        order = np.arange(len(kernels)) if first else self.associate(before, kernels)
        scores = self.scores(one, order, rules)
        identities = [None] * len(order) if first else memory["identities"]
        memory["kernels"] = kernels[order].tolist()
        sums = scores if first else self.sums(np.array(memory["sums"]).reshape(scores.shape), scores)
        memory["sums"] = sums.tolist()
        memory["keyframes"] += 1
        memory["identities"] = self.lives(memory, list(identities), scores, rules)

    def scores(self, one: OnlineFrame, order: Array, rules: OnlineRules) -> Array:
        """Scores in the order of the slots."""
        assert one.kernels is not None
        assert one.class_logits is not None
        assert one.objectness is not None
        for each in (one.class_logits, one.objectness):
            if len(each) != len(order) or not np.isfinite(each).all():
                raise ShapeError("each kernel needs its scores, finite numbers")
        tensors = KeyframeTensors(
            one.class_logits[order], one.objectness[order], one.kernels[order], one.mask_features
        )
        plain = class_scores(tensors)
        if not rules.rescore:
            return plain
        logits = frame_masks(one.kernels[order], one.mask_features)
        rescored: Array = plain * self.weight(1 / (1 + np.exp(-logits)))[:, None]
        return rescored

    def weight(self, probabilities: Array) -> Array:
        """How much masks weigh scores."""
        return maskness(probabilities)

    def sums(self, before: Array, scores: Array) -> Array:
        """Sums of scores."""
        return before + scores

    def lives(
        self, memory: dict[str, Any], identities: list[Any], scores: Array, rules: OnlineRules
    ) -> list[Any]:
        """The identities after births and deaths."""
        for slot, best in enumerate(scores.max(axis=1)):
            if identities[slot] is None and self.is_born(best, rules):
                identities[slot] = self.new_identity(memory, slot)
            elif identities[slot] is not None and self.dies(best, rules):
                identities[slot] = None
        return identities

    def is_born(self, best: float, rules: OnlineRules) -> bool:
        """Whether a track begins."""
        return best >= rules.birth

    def dies(self, best: float, rules: OnlineRules) -> bool:
        """Whether a track ends."""
        return best < rules.death

    def new_identity(self, memory: dict[str, Any], slot: int) -> int:
        """The next identity."""
        memory["born"] += 1
        return int(memory["born"]) - 1

    def living(self, memory: dict[str, Any], one: OnlineFrame) -> list[LivingTrack]:
        """The living tracks, by identity."""
        kernels = np.array(memory["kernels"]).reshape(-1, len(one.mask_features))
        logits = frame_masks(kernels, one.mask_features)
        means = np.array(memory["sums"]) / memory["keyframes"]
        tracks = [
            LivingTrack(
                identity, self.label(means[slot]), float(means[slot].max()), self.segmentation(logits[slot])
            )
            for slot, identity in enumerate(memory["identities"])
            if identity is not None
        ]
        return sorted(tracks, key=lambda track: track.identity)

    def label(self, means: Array) -> int:
        """The most probable class."""
        return int(means.argmax())

    def segmentation(self, logits: Array) -> Array | None:
        """The mask, None if it is empty."""
        mask = 1 / (1 + np.exp(-logits)) > MASK_THRESHOLD
        return mask if mask.any() else None
