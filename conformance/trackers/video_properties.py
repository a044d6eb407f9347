"""Properties of a tracker that follows videos: keyframes, tracks, reuse, and what it may keep."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers import video_strategies as videos
from conformance.trackers.association_properties import require_refusal
from conformance.trackers.candidate import Candidate, FrameAnswer
from conformance.trackers.precision import Precision
from conformance.trackers.property import Property
from conformance.trackers.video_strategies import Clip
from refimpl.tracker import frame_masks

Array = NDArray[Any]


class VideoChecks:
    """The checks, for a tracker of one precision; each raises where the candidate is wrong."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision

    def take_keyframes(self, candidate: Candidate, clip: Clip) -> None:
        """Frames 0, T, 2T, … are keyframes."""
        for index, answer in enumerate(watched(candidate, clip)[0]):
            due = index % clip.keyframe_interval == 0
            assert answer.keyframe == due, (
                f"frame {index} at interval {clip.keyframe_interval}: keyframe {answer.keyframe}"
            )

    def follow(self, candidate: Candidate, clip: Clip) -> None:
        """Slots follow their kernels."""
        require_truth(clip, watched(candidate, clip)[0])

    def reuse(self, candidate: Candidate, clip: Clip) -> None:
        """Masks are the last keyframe's kernels times the frame's features, on the right tracks."""
        self._require_reuse(clip, watched(candidate, clip)[0])

    def recompute(self, candidate: Candidate, clip: Clip) -> None:
        """T = 1 is no reuse."""
        every = replace(clip, keyframe_interval=1)
        answers = watched(candidate, every)[0]
        assert all(answer.keyframe for answer in answers), "at interval 1 every frame is a keyframe"
        self._require_reuse(every, answers)

    def freeze(self, candidate: Candidate, clip: Clip) -> None:
        """On a frozen video reuse equals recomputation."""
        still = replace(clip, frames=(clip.frames[0],) * len(clip.frames))
        reused = watched(candidate, still)[0]
        computed = watched(candidate, replace(still, keyframe_interval=1))[0]
        for index, (answer, expected) in enumerate(zip(reused, computed, strict=True)):
            self._require_masks(index, answer.masks, expected.masks, self._allowed(still, index, expected))

    def stream(self, candidate: Candidate, clip: Clip) -> None:
        """A video in parts gives what the whole gives, the state having been text, after a new start too."""
        whole = watched(candidate, clip)[0]
        self._require_same(clip, whole, streamed(candidate, clip), f"cut before frames {clip.extra}")

    def stream_anew(self, candidate: Candidate, clip: Clip) -> None:
        """So if the tracker is started anew before each part."""
        whole = watched(candidate, clip)[0]
        answers = streamed(candidate, clip, candidate.restart)
        self._require_same(clip, whole, answers, f"started anew before frames {clip.extra}")

    def interleave(self, candidate: Candidate, clip: Clip) -> None:
        """Two videos, a frame of each in turn, give what each gives alone."""
        other = replace(clip.extra, extra=None)
        alone = [watched(candidate, one)[0] for one in (clip, other)]
        answers: list[list[FrameAnswer]] = [[], []]
        states: list[Any] = [None, None]
        for index in range(max(len(clip.frames), len(other.frames))):
            for which, one in enumerate((clip, other)):
                part = replace(one, frames=one.frames[index : index + 1])
                given, states[which] = watched(candidate, part, states[which])
                answers[which] += given
        for one, expected, given in zip((clip, other), alone, answers, strict=True):
            self._require_same(one, expected, given, "a frame at a time, another video between")

    def forget(self, candidate: Candidate, clip: Clip) -> None:
        """The same video again, at once and after another."""
        first = watched(candidate, clip)[0]
        self._require_same(clip, first, watched(candidate, clip)[0], "the same video again")
        watched(candidate, clip.extra)
        self._require_same(clip, first, watched(candidate, clip)[0], "the same video again, after another")

    def go_on_twice(self, candidate: Candidate, clip: Clip) -> None:
        """A state can be gone on from more than once."""
        cut = clip.extra[0]
        _, state = watched(candidate, replace(clip, frames=clip.frames[:cut]))
        rest = replace(clip, frames=clip.frames[cut:])
        text = json.dumps(state)
        first, second = (watched(candidate, rest, json.loads(text))[0] for _ in range(2))
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            same = one.keyframe == other.keyframe and np.array_equal(one.order, other.order)
            same = same and np.array_equal(one.masks, other.masks)
            assert same, f"gone on from one state twice: frame {cut + index} differs"

    def leave_unread(self, candidate: Candidate, clip: Clip) -> None:
        """Kernels between keyframes are not read."""
        self._require_reuse(clip.extra, watched(candidate, clip.extra)[0])
        require_truth(clip, watched(candidate, clip.extra)[0])

    def refuse_and_recover(self, candidate: Candidate, clip: Clip) -> None:
        """A keyframe that does not fit is an error, after which the state before it still serves."""
        index, poisoned = clip.extra
        whole = watched(candidate, clip)[0]
        first, state = watched(candidate, replace(clip, frames=clip.frames[:index]))
        rest = poisoned.frames[index:]
        require_refusal(candidate.video, rest, clip.keyframe_interval, state)
        second, _ = watched(candidate, replace(clip, frames=clip.frames[index:]), state)
        self._require_same(clip, whole, first + second, f"after an error in frame {index}")

    def _require_reuse(self, clip: Clip, answers: Sequence[FrameAnswer]) -> None:
        for index, answer in enumerate(answers):
            keyframe = clip.frames[index - index % clip.keyframe_interval]
            assert keyframe.kernels is not None
            order = checked_order(index, answer, len(keyframe.kernels))
            expected = frame_masks(keyframe.kernels[order], clip.frames[index].mask_features)
            self._require_masks(index, answer.masks, expected, self._allowed(clip, index, answer))

    def _allowed(self, clip: Clip, index: int, answer: FrameAnswer) -> Array:
        """How far masks may differ at this precision."""
        kernels = clip.frames[index - index % clip.keyframe_interval].kernels
        assert kernels is not None
        order = np.asarray(answer.order)
        return self.precision.mask_error(kernels[order], clip.frames[index].mask_features)

    def _require_masks(self, index: int, masks: Array, expected: Array, allowed: Array) -> None:
        # Without kernels a list cannot tell the size of its masks.
        fits = masks.shape == expected.shape or (expected.size == 0 and len(masks) == len(expected))
        assert fits, f"frame {index}: masks {masks.shape}, not {expected.shape}"
        if expected.size:
            worst = float(np.abs(masks - expected).max())
            assert (np.abs(masks - expected) <= allowed).all(), (
                f"frame {index}: mask logits differ by up to {worst} from "
                "the keyframe's kernels times this frame's features"
            )

    def _require_same(
        self, clip: Clip, expected: Sequence[FrameAnswer], answers: Sequence[FrameAnswer], when: str
    ) -> None:
        for index, (one, other) in enumerate(zip(expected, answers, strict=True)):
            same = one.keyframe == other.keyframe and np.array_equal(one.order, other.order)
            assert same, (
                f"{when}: frame {index} had keyframe {one.keyframe} and "
                f"slots {np.asarray(one.order).tolist()}, now {other.keyframe} and "
                f"{np.asarray(other.order).tolist()}"
            )
            self._require_masks(index, other.masks, one.masks, self._allowed(clip, index, one))


def watched(candidate: Candidate, clip: Clip, state: Any = None) -> tuple[list[FrameAnswer], Any]:
    """Return the answers to a clip, one for each frame, and the state."""
    answers, after = candidate.video(clip.frames, clip.keyframe_interval, state)
    assert len(answers) == len(clip.frames), f"{len(clip.frames)} frames, {len(answers)} answers"
    return list(answers), after


def checked_order(index: int, answer: FrameAnswer, count: int) -> Array:
    """Return the order of a frame, checked to be queries that there are."""
    order = np.asarray(answer.order)
    assert order.shape == (count,), f"frame {index}: {count} slots need {count} queries, got {order.tolist()}"
    assert ((order >= 0) & (order < count)).all(), f"frame {index}: no such query in {order.tolist()}"
    return order.astype(np.int64)


def require_truth(clip: Clip, answers: Sequence[FrameAnswer]) -> None:
    """Raise unless every slot holds the query of its track."""
    for index, answer in enumerate(answers):
        expected = clip.truth[index - index % clip.keyframe_interval]
        assert np.array_equal(answer.order, expected), (
            f"frame {index}: slots hold queries {np.asarray(answer.order).tolist()}, "
            f"the truth is {expected.tolist()}"
        )


def parts(clip: Clip) -> list[Clip]:
    """Return the clip cut at the frames in ``extra``."""
    bounds = [0, *clip.extra, len(clip.frames)]
    return [replace(clip, frames=clip.frames[a:b]) for a, b in itertools.pairwise(bounds)]


def streamed(candidate: Candidate, clip: Clip, between: Any = None) -> list[FrameAnswer]:
    """Return the answers to a clip given in parts, its state as text between them."""
    answers: list[FrameAnswer] = []
    state = None
    for part in parts(clip):
        given, state = watched(candidate, part, json.loads(json.dumps(state)))
        answers += given
        if between is not None:
            between()
    return answers


def video_properties(precision: Precision) -> list[Property]:
    """Properties of a tracker that follows videos: its answers, its maps, what it keeps, length."""
    checks = VideoChecks(precision)
    return [*_of_answers(checks), *_of_maps(checks), *_of_memory(checks), *_of_length(checks)]


def _of_answers(checks: VideoChecks) -> list[Property]:
    return [
        Property(
            "kernel_reuse",
            "masks = last keyframe's kernels · the frame's features",
            videos.clips(),
            checks.reuse,
        ),
        Property(
            "tracks_followed",
            "slots follow their kernels through all keyframes",
            videos.clips(),
            checks.follow,
        ),
        Property(
            "drift",
            "so where kernels turn: only the last keyframe tells",
            videos.turning_clips(),
            checks.follow,
        ),
        Property(
            "streaming",
            "a video in parts, the state as text = the whole video",
            videos.cut_clips(),
            checks.stream,
            history=True,
        ),
        Property(
            "keyframe_schedule", "frames 0, T, 2T, … are keyframes", videos.clips(), checks.take_keyframes
        ),
        Property("interval_one", "T = 1 is no reuse", videos.clips(), checks.recompute, share=0.3),
    ]


def _of_maps(checks: VideoChecks) -> list[Property]:
    return [
        Property(
            "map_shapes",
            "maps of any h and w, one channel, no kernels",
            videos.shaped_clips(),
            checks.reuse,
            share=0.6,
        ),
        Property(
            "large_maps",
            "maps as large as a network has them",
            videos.large_clips(),
            checks.reuse,
            share=0.03,
        ),
        Property(
            "frozen_video",
            "reuse on a frozen video = recomputation",
            videos.clips(),
            checks.freeze,
            share=0.3,
        ),
        Property(
            "unread_kernels",
            "kernels between keyframes are not read",
            videos.clips_not_to_be_read(),
            checks.leave_unread,
            share=0.5,
        ),
    ]


def _of_memory(checks: VideoChecks) -> list[Property]:
    return [
        Property(
            "independent_videos",
            "nothing is kept from video to video",
            videos.clip_pairs(),
            checks.forget,
            share=0.5,
            history=True,
        ),
        Property(
            "interleaved_videos",
            "two videos at once do not disturb each other",
            videos.clip_pairs(),
            checks.interleave,
            share=0.3,
            history=True,
        ),
        Property(
            "state_used_twice",
            "one state serves twice",
            videos.cut_clips(),
            checks.go_on_twice,
            share=0.3,
            history=True,
        ),
        Property(
            "recovery",
            "a keyframe that does not fit is an error; the state before serves on",
            videos.poisoned_clips(),
            checks.refuse_and_recover,
            share=0.5,
            history=True,
        ),
    ]


def _of_length(checks: VideoChecks) -> list[Property]:
    return [
        Property(
            "restart",
            "the state is all: so if started anew between parts",
            videos.cut_clips(),
            checks.stream_anew,
            share=0.05,
            history=True,
        ),
        Property(
            "long_videos",
            "hundreds of frames, intervals 1 … 12, cut anywhere",
            videos.long_clips(),
            all_of(checks.follow, checks.stream),
            share=0.12,
            history=True,
        ),
        Property(
            "crowds",
            "hundreds of kernels are followed",
            videos.crowded_clips(checks.precision.largest_count),
            checks.follow,
            share=0.03,
        ),
    ]


def all_of(*checks: Any) -> Any:
    """Return the check that makes several."""

    def check(candidate: Candidate, case: Any) -> None:
        for one in checks:
            one(candidate, case)

    return check
