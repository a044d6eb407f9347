"""The tracker of this project, as a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from conformance.trackers.candidate import (
    CallableCandidate,
    FrameAnswer,
    LivingTrack,
    OnlineFrame,
    OnlineRules,
    VideoFrame,
)
from refimpl import association, tracker
from refimpl.errors import ShapeError

Array = NDArray[Any]
MASK_THRESHOLD = 0.45


class ReferenceCandidate(CallableCandidate):
    """The tracker of this project, as a candidate."""

    def __init__(self, method: str = "optimal") -> None:
        super().__init__(self._associate_kernels, self._follow, self._follow_online)
        self.method = method
        # Looked up here, so that a mutant of a module can stand in its place.
        self.modules: tuple[Any, Any] = (association, tracker)

    def _associate_kernels(self, previous: Array, current: Array) -> Array:
        permutation: Array = self.modules[0].associate(previous, current, self.method).permutation
        return permutation

    def _follow(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Run `refimpl.tracker.Tracker`; the state is its arrays as lists."""
        running = self._tracker(OnlineRules(keyframe_interval), state)
        answers = []
        for frame in frames:
            tracked = self._advance(running, frame, None, None)
            answers.append(FrameAnswer(tracked.keyframe, running.state.queries, tracked.mask_logits))
        return answers, _state_lists(running)

    def _follow_online(
        self, frames: Sequence[OnlineFrame], rules: OnlineRules, state: Any
    ) -> tuple[list[list[LivingTrack]], Any]:
        running = self._tracker(rules, state)
        answers = [
            _living(self._advance(running, frame, frame.class_logits, frame.objectness)) for frame in frames
        ]
        return answers, _state_lists(running)

    def _tracker(self, rules: OnlineRules, state: Any) -> tracker.Tracker:
        module = self.modules[1]
        running: tracker.Tracker = module.Tracker(
            rules.keyframe_interval,
            method=self.method,
            birth=rules.birth,
            death=rules.death,
            rescore=rules.rescore,
            state=None if state is None else module.TrackerState.from_arrays(state),
        )
        return running

    def _advance(
        self,
        running: tracker.Tracker,
        frame: VideoFrame | OnlineFrame,
        class_logits: Array | None,
        objectness: Array | None,
    ) -> tracker.TrackedFrame:
        if not running.keyframe_due:
            return running.reuse(frame.mask_features)
        if frame.kernels is None:
            raise ShapeError(
                f"frame {running.state.frame} is a keyframe and needs kernels (N, dim); got none"
            )
        none = np.zeros((len(frame.kernels), 1))
        tensors = self.modules[1].KeyframeTensors(
            none if class_logits is None else class_logits,
            none if objectness is None else objectness,
            frame.kernels,
            frame.mask_features,
        )
        return running.keyframe(tensors)


def _living(tracked: tracker.TrackedFrame) -> list[LivingTrack]:
    masks = expit(tracked.mask_logits) > MASK_THRESHOLD
    return [
        LivingTrack(
            int(tracked.identities[slot]),
            int(tracked.labels[slot]),
            float(tracked.mean_scores[slot].max()),
            masks[slot] if masks[slot].any() else None,
        )
        for slot in tracked.living
    ]


def _state_lists(running: tracker.Tracker) -> dict[str, Any]:
    return {name: array.tolist() for name, array in running.state.to_arrays().items()}
