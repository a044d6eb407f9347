"""What the online tracker says of each frame, defined slot by slot (docs/check-tracker.md, "online").

Written for reading, apart from `refimpl.tracker`, which is judged by it too. A *slot* is followed through the
association whether a track lives in it or not; a *track* is a slot's life from birth to death.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers.candidate import LivingTrack, OnlineFrame, OnlineRules

Array = NDArray[Any]
MASK_THRESHOLD = 0.45
"""A pixel belongs to the mask where its probability is above this (paper section 4.2)."""


@dataclass
class Slot:
    """One slot: the identity of the track that lives in it, if any, and its scores at keyframes so far."""

    identity: int | None = None
    history: list[list[float]] = field(default_factory=list)
    kernel: Array | None = None


def living_tracks(
    frames: Sequence[OnlineFrame], rules: OnlineRules, truth: Sequence[Array]
) -> list[list[LivingTrack]]:
    """Return the living tracks of each frame, by ascending identity.

    ``truth`` gives each frame's query of each slot, were it a keyframe: associating is not defined here.
    """
    slots = [Slot() for _ in truth[0]] if truth else []
    born = 0
    answers = []
    for index, frame in enumerate(frames):
        if index % rules.keyframe_interval == 0:
            born = _keyframe(slots, frame, truth[index], rules, born)
        answers.append(sorted(_alive(slots, frame), key=lambda track: track.identity))
    return answers


def _keyframe(slots: list[Slot], frame: OnlineFrame, order: Array, rules: OnlineRules, born: int) -> int:
    """Score every slot, then let tracks die and be born; return how many were born so far."""
    assert frame.kernels is not None
    for slot, query in zip(slots, order, strict=True):
        slot.kernel = frame.kernels[query]
        slot.history.append(_scores(slot, frame, int(query), rules.rescore))
        best = max(slot.history[-1])
        if slot.identity is None and best >= rules.birth:
            slot.identity, born = born, born + 1
        elif slot.identity is not None and best < rules.death:
            slot.identity = None
    return born


def _alive(slots: Sequence[Slot], frame: OnlineFrame) -> list[LivingTrack]:
    """The tracks that live, with this frame's masks."""
    tracks = []
    for slot in slots:
        if slot.identity is not None:
            means = [sum(of_class) / len(slot.history) for of_class in zip(*slot.history, strict=True)]
            mask = _probabilities(slot, frame) > MASK_THRESHOLD
            tracks.append(
                LivingTrack(slot.identity, means.index(max(means)), max(means), mask if mask.any() else None)
            )
    return tracks


def _scores(slot: Slot, frame: OnlineFrame, query: int, rescore: bool) -> list[float]:
    """√(sigmoid(class) · sigmoid(objectness)) of each class, times maskness if asked."""
    assert frame.class_logits is not None
    assert frame.objectness is not None
    objectness = _sigmoid(frame.objectness[query, 0])
    weight = _maskness(_probabilities(slot, frame)) if rescore else 1.0
    return [weight * sqrt(_sigmoid(logit) * objectness) for logit in frame.class_logits[query]]


def _probabilities(slot: Slot, frame: OnlineFrame) -> Array:
    """The slot's mask: sigmoid of its kernel, of the last keyframe, times the frame's features."""
    assert slot.kernel is not None
    logits = sum(weight * plane for weight, plane in zip(slot.kernel, frame.mask_features, strict=True))
    return np.array([[_sigmoid(value) for value in row] for row in np.asarray(logits)])


def _maskness(probabilities: Array) -> float:
    """The mean of the probabilities above the threshold, 0 if there is none."""
    above = [value for value in probabilities.flat if value > MASK_THRESHOLD]
    return float(sum(above) / (len(above) + 1e-6))


def _sigmoid(value: float) -> float:
    return 1 / (1 + exp(-value))
