"""Hypothesis strategies for online videos: kernels with scores, and rules of birth and death."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit

from conformance.trackers.candidate import OnlineFrame, OnlineRules
from conformance.trackers.online_definition import MASK_THRESHOLD
from conformance.trackers.protocol import online_request
from conformance.trackers.video_strategies import Clip, clips, crowded_clips, long_clips

Array = NDArray[Any]
THRESHOLDS = [(0.4, 0.2), (0.5, 0.5), (0.5, 0.3), (0.5, 0.5), (0.7, 0.5), (0.3, 0.0), (0.0, 0.0)]
"""Birth and death. A score of exactly 0.5 comes of logits 0, in every precision."""
SIZES = ((1, 2), (2, 2), (2, 3), (3, 1))
LOGITS, OBJECTNESS = [0.0, 0.0, 4.0, -4.0, 1.0, -1.0, -2.0], [0.0, 0.0, 4.0, -2.0]
"""Scores on either side of every threshold, and between."""


@dataclass(frozen=True)
class OnlineClip:
    """An online video, its rules, and for each frame the query of each slot, were it a keyframe."""

    frames: tuple[OnlineFrame, ...]
    rules: OnlineRules
    truth: tuple[Array, ...]
    extra: Any = None

    def request(self) -> dict[str, Any]:
        """The case as a request of the command protocol."""
        return online_request(self.frames, self.rules, None)


@st.composite
def online_clips(
    draw: st.DrawFn, *, rescore: bool = False, longest: int = 8, margin: float = 1e-3
) -> OnlineClip:
    """Videos whose queries have scores on either side of the thresholds, and between them.

    Frames between keyframes have no scores, or others.

    Parameters
    ----------
    rescore : bool
        Whether masks weigh scores.
    longest : int
        Most frames.
    margin : float
        Scores are at least that far from a threshold or equal to it, mask logits at least that far from
        theirs.
    """
    clip = draw(clips(longest=longest, smallest=0, largest=3, sizes=SIZES))
    birth, death = draw(st.sampled_from(THRESHOLDS))
    rules = OnlineRules(clip.keyframe_interval, birth, death, rescore)
    classes = draw(st.integers(1, 3))
    frames = [draw(_scored(clip, index, classes, draw(st.booleans()))) for index in range(len(clip.frames))]
    found = OnlineClip(tuple(frames), rules, clip.truth)
    hypothesis.assume(_clear(found, margin))
    return found


@st.composite
def cut_online_clips(draw: st.DrawFn, *, margin: float = 1e-3) -> OnlineClip:
    """An online clip, as `online_clips` has them, and in ``extra`` where it is cut."""
    clip = draw(online_clips(margin=margin))
    cuts = draw(st.lists(st.integers(0, len(clip.frames)), min_size=1, max_size=3))
    return replace(clip, extra=sorted(cuts))


@st.composite
def online_clip_pairs(draw: st.DrawFn, *, margin: float = 1e-3) -> OnlineClip:
    """An online clip, and in ``extra`` another."""
    clip = draw(online_clips(longest=5, margin=margin))
    return replace(clip, extra=draw(online_clips(longest=5, margin=margin)))


def _one_not_finite(scores: Array) -> Array:
    spoiled = scores.copy()
    spoiled[-1, -1] = np.nan
    return spoiled


def _one_fewer(scores: Array) -> Array:
    return scores[1:]


def _one_more(scores: Array) -> Array:
    return np.concatenate([scores, scores[:1]])


@st.composite
def poisoned_online_clips(draw: st.DrawFn, *, margin: float = 1e-3) -> OnlineClip:
    """An online clip, and in ``extra`` a keyframe and the clip with scores in it that must be refused.

    One of them is not finite, or there are fewer or more of them than kernels.
    """
    clip = draw(online_clips(longest=5, margin=margin).filter(lambda one: len(one.truth[0]) > 0))
    index = draw(st.sampled_from(range(0, len(clip.frames), clip.rules.keyframe_interval)))
    name = draw(st.sampled_from(["class_logits", "objectness"]))
    spoil = draw(st.sampled_from([_one_not_finite, _one_fewer, _one_more]))
    frame = clip.frames[index]
    spoiled = replace(frame, **{name: spoil(getattr(frame, name))})
    frames = (*clip.frames[:index], spoiled, *clip.frames[index + 1 :])
    return replace(clip, extra=(index, replace(clip, frames=frames)))


@st.composite
def long_online_clips(draw: st.DrawFn, *, longest: int = 200) -> OnlineClip:
    """Hundreds of frames with scores, intervals 1 … 12, and in ``extra`` where the video is cut."""
    clip = draw(long_clips(longest=longest))
    return replace(draw(_scored_at_random(clip)), extra=clip.extra)


@st.composite
def crowded_online_clips(draw: st.DrawFn, largest: int = 300) -> OnlineClip:
    """Many queries with scores at two keyframes, and in ``extra`` a cut between them."""
    return replace(draw(_scored_at_random(draw(crowded_clips(largest)))), extra=[1])


@st.composite
def _scored_at_random(draw: st.DrawFn, clip: Clip) -> OnlineClip:
    """A clip of many queries or frames, whose scores would take Hypothesis long to draw."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames = []
    for frame in clip.frames:
        assert frame.kernels is not None
        count = len(frame.kernels)
        scores = random.choice(LOGITS, (count, 3)), random.choice(OBJECTNESS, (count, 1))
        frames.append(OnlineFrame(frame.kernels, frame.mask_features, *scores))
    # No score of these comes within 0.03 of a threshold.
    return OnlineClip(tuple(frames), OnlineRules(clip.keyframe_interval, 0.55, 0.21), clip.truth)


@st.composite
def _scored(draw: st.DrawFn, clip: Clip, index: int, classes: int, bare: bool) -> OnlineFrame:
    """A frame of a clip with scores, which a frame between keyframes may lack."""
    frame = clip.frames[index]
    if bare and index % clip.keyframe_interval:
        return OnlineFrame(None, frame.mask_features, None, None)
    assert frame.kernels is not None
    count = len(frame.kernels)
    objectness = draw(st.lists(st.sampled_from(OBJECTNESS), min_size=count, max_size=count))
    listed = draw(st.lists(st.sampled_from(LOGITS), min_size=count * classes, max_size=count * classes))
    return OnlineFrame(
        frame.kernels,
        frame.mask_features,
        np.array(listed).reshape(count, classes),
        np.array(objectness).reshape(count, 1),
    )


def _clear(clip: OnlineClip, margin: float) -> bool:
    """Whether every correct tracker decides alike: no score or pixel lies close to its threshold."""
    kernels = np.zeros((0, 0))
    for index, frame in enumerate(clip.frames):
        keyframe = index % clip.rules.keyframe_interval == 0
        if keyframe:
            assert frame.kernels is not None
            kernels = frame.kernels
        masks = np.tensordot(kernels, frame.mask_features, 1)
        if np.abs(masks - logit(MASK_THRESHOLD)).min(initial=np.inf) < margin:
            return False
        if keyframe and not _scores_clear(frame, clip.rules, expit(masks), margin):
            return False
    return True


def _scores_clear(frame: OnlineFrame, rules: OnlineRules, probabilities: Array, margin: float) -> bool:
    assert frame.class_logits is not None
    assert frame.objectness is not None
    best = np.sqrt(expit(frame.class_logits) * expit(frame.objectness)).max(axis=1)
    if rules.rescore:
        above = probabilities > MASK_THRESHOLD
        best = best * (probabilities * above).sum(axis=(1, 2)) / (above.sum(axis=(1, 2)) + 1e-6)
    distance = np.abs(best[:, None] - [rules.birth, rules.death])
    # Equality is decided alike only where it is exact: 0.5 of logits 0, and nothing is below 0.
    exact = (distance == 0) & (not rules.rescore) | (best[:, None] == 0)
    return bool(((distance > margin) | exact).all())
