"""Properties of a tracker that is used online: births, deaths, re-entry, scores, masks as run lengths."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers import online_strategies as videos
from conformance.trackers.association_properties import require_refusal
from conformance.trackers.candidate import Candidate, LivingTrack
from conformance.trackers.online_definition import living_tracks
from conformance.trackers.online_strategies import OnlineClip
from conformance.trackers.precision import Precision
from conformance.trackers.property import Property
from conformance.trackers.video_properties import all_of

Array = NDArray[Any]


class OnlineChecks:
    """The checks, for a tracker of one precision; each raises where the candidate is wrong."""

    def __init__(self, precision: Precision) -> None:
        # An exponential, a root and a mean of a few: well within 64 roundings.
        self.unit_roundoff = precision.unit_roundoff
        self.score_error = 64 * precision.unit_roundoff

    def live(self, candidate: Candidate, clip: OnlineClip) -> None:
        """The identities that live in each frame, in order."""
        for index, (tracks, expected) in enumerate(self._compared(candidate, clip)):
            given, wanted = ([one.identity for one in each] for each in (tracks, expected))
            assert given == wanted, f"frame {index}: identities {given} live, not {wanted}"

    def score(self, candidate: Candidate, clip: OnlineClip) -> None:
        """Classes and scores are those of the mean over keyframes."""
        for index, (tracks, expected) in enumerate(self._compared(candidate, clip)):
            for one, other in zip(tracks, expected, strict=False):
                allowed = self.score_error + len(clip.frames) * self.unit_roundoff
                assert abs(one.score - other.score) <= allowed, (
                    f"frame {index}, identity {one.identity}: score {one.score!r}, not {other.score!r}"
                )
                assert one.label == other.label, (
                    f"frame {index}, identity {one.identity}: class {one.label}, not {other.label}"
                )

    def mask(self, candidate: Candidate, clip: OnlineClip) -> None:
        """Masks are where the probability is above 0.45, None where that is nowhere."""
        for index, (tracks, expected) in enumerate(self._compared(candidate, clip)):
            for one, other in zip(tracks, expected, strict=False):
                given, wanted = (_listed(each.segmentation) for each in (one, other))
                assert given == wanted, (
                    f"frame {index}, identity {one.identity}: segmentation {given}, not {wanted}"
                )

    def stream(self, candidate: Candidate, clip: OnlineClip) -> None:
        """In parts, the state as text between them."""
        bounds = [0, *clip.extra, len(clip.frames)]
        answers: list[list[LivingTrack]] = []
        state = None
        for first, last in itertools.pairwise(bounds):
            given, state = candidate.online(
                clip.frames[first:last], clip.rules, json.loads(json.dumps(state))
            )
            answers += given
        whole = self._answers(candidate, replace(clip, extra=None))
        assert [_plain(one) for one in answers] == [_plain(one) for one in whole], (
            f"cut before frames {clip.extra}: {[_plain(one) for one in answers]}, "
            f"the whole {[_plain(one) for one in whole]}"
        )

    def interleave(self, candidate: Candidate, clip: OnlineClip) -> None:
        """Two videos, a frame of each in turn, give what each gives alone."""
        both = (clip, clip.extra)
        answers: list[list[Any]] = [[], []]
        states: list[Any] = [None, None]
        for index in range(max(len(one.frames) for one in both)):
            for which, one in enumerate(both):
                part = one.frames[index : index + 1]
                given, states[which] = candidate.online(part, one.rules, states[which])
                answers[which] += [_plain(tracks) for tracks in given]
        for one, given in zip(both, answers, strict=True):
            whole = [_plain(tracks) for tracks in self._answers(candidate, one)]
            assert given == whole, f"a frame at a time, another video between: {given}, the whole {whole}"

    def refuse_and_recover(self, candidate: Candidate, clip: OnlineClip) -> None:
        """Scores that do not fit are an error, after which the state before them still serves."""
        index, poisoned = clip.extra
        first, state = candidate.online(clip.frames[:index], clip.rules, None)
        require_refusal(candidate.online, poisoned.frames[index:], clip.rules, state)
        second, _ = candidate.online(clip.frames[index:], clip.rules, state)
        given = [_plain(tracks) for tracks in (*first, *second)]
        whole = [_plain(tracks) for tracks in self._answers(candidate, clip)]
        assert given == whole, f"after an error in frame {index}: {given}, not {whole}"

    def _answers(self, candidate: Candidate, clip: OnlineClip) -> list[list[LivingTrack]]:
        answers, _ = candidate.online(clip.frames, clip.rules, None)
        assert len(answers) == len(clip.frames), f"{len(clip.frames)} frames, {len(answers)} answers"
        return list(answers)

    def _compared(
        self, candidate: Candidate, clip: OnlineClip
    ) -> list[tuple[Sequence[LivingTrack], list[LivingTrack]]]:
        expected = living_tracks(clip.frames, clip.rules, clip.truth)
        return list(zip(self._answers(candidate, clip), expected, strict=True))


def _listed(segmentation: Array | None) -> Any:
    return None if segmentation is None else np.asarray(segmentation).astype(int).tolist()


def _plain(tracks: Sequence[LivingTrack]) -> list[Any]:
    return [(one.identity, one.label, one.score, _listed(one.segmentation)) for one in tracks]


def online_properties(precision: Precision) -> list[Property]:
    """Properties of a tracker that is used online."""
    checks = OnlineChecks(precision)
    margin = max(1e-4, 64 * precision.unit_roundoff)
    clips = videos.online_clips(margin=margin)
    return [
        Property("lifecycle", "births, deaths and re-entry by the thresholds", clips, checks.live),
        Property("online_scores", "class and score of the mean over keyframes", clips, checks.score),
        Property(
            "online_masks", "run lengths where the probability is above 0.45, or null", clips, checks.mask
        ),
        Property(
            "maskness",
            "births, class and score weighed by maskness",
            videos.online_clips(rescore=True, margin=margin),
            all_of(checks.live, checks.score),
            share=0.6,
        ),
        Property(
            "online_streaming",
            "an online video in parts = the whole",
            videos.cut_online_clips(margin=margin),
            checks.stream,
            share=0.5,
            history=True,
        ),
        *_of_many(checks, precision, margin),
    ]


def _of_many(checks: OnlineChecks, precision: Precision, margin: float) -> list[Property]:
    """Two videos, many frames, many tracks."""
    return [
        Property(
            "online_interleaved",
            "two online videos at once do not disturb each other",
            videos.online_clip_pairs(margin=margin),
            checks.interleave,
            share=0.2,
            history=True,
        ),
        Property(
            "online_recovery",
            "scores that do not fit are an error; the state before serves on",
            videos.poisoned_online_clips(margin=margin),
            checks.refuse_and_recover,
            share=0.4,
            history=True,
        ),
        Property(
            "online_long",
            "so for hundreds of frames, cut anywhere",
            videos.long_online_clips(),
            all_of(checks.live, checks.score, checks.stream),
            share=0.06,
            history=True,
        ),
        Property(
            "online_crowds",
            "so for hundreds of tracks",
            videos.crowded_online_clips(precision.largest_count),
            all_of(checks.live, checks.score, checks.stream),
            share=0.02,
        ),
    ]
