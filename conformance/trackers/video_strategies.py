"""Hypothesis strategies for videos of kernels; public, for tests of your own too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.trackers.candidate import VideoFrame
from conformance.trackers.kernel_strategies import orders_of, small_numbers
from conformance.trackers.protocol import video_request

Array = NDArray[Any]
INTERVALS = (1, 2, 3, 4)
ALL_INTERVALS = tuple(range(1, 13))


@dataclass(frozen=True)
class Clip:
    """A video of kernels with a keyframe interval.

    Attributes
    ----------
    frames : tuple of VideoFrame
    keyframe_interval : int
    truth : tuple of (N,) int arrays
        For each frame, the query in which each slot's track continues, were it a keyframe.
    extra : Any
        What the property needs besides.
    """

    frames: tuple[VideoFrame, ...]
    keyframe_interval: int
    truth: tuple[Array, ...] = ()
    extra: Any = None

    def request(self) -> dict[str, Any]:
        """The case as a request of the command protocol."""
        return video_request(self.frames, self.keyframe_interval, None)


@functools.cache
@st.composite
def feature_maps(draw: st.DrawFn, dimension: int, height: int, width: int) -> Array:
    """Mask features (dimension, height, width) of small integers."""
    values = draw(small_numbers(dimension * height * width))
    return np.array(values, np.float64).reshape(dimension, height, width)


@st.composite
def clips_of(
    draw: st.DrawFn,
    tracks: Sequence[Array],
    intervals: Sequence[int] = INTERVALS,
    size: tuple[int, int] = (1, 2),
) -> Clip:
    """The video in which tracks, (N, dim) for each frame, come as queries in another order in every frame."""
    orders = [np.array(draw(orders_of(len(each))), np.int64) for each in tracks]
    maps = [draw(feature_maps(each.shape[1], *size)) for each in tracks]
    frames = [VideoFrame(each[order], one) for each, order, one in zip(tracks, orders, maps, strict=True)]
    truth = [np.argsort(order)[orders[0]] for order in orders]
    return Clip(tuple(frames), draw(st.sampled_from(intervals)), tuple(truth))


@st.composite
def clips(
    draw: st.DrawFn,
    *,
    longest: int = 8,
    intervals: Sequence[int] = INTERVALS,
    smallest: int = 1,
    largest: int = 4,
    sizes: Sequence[tuple[int, int]] = ((1, 2),),
    margin: float = 0.5,
) -> Clip:
    """Videos of tracks that drift slowly and all the same way, queries shuffled in every frame.

    Parameters
    ----------
    longest : int
        Most frames.
    intervals : list of int
        Keyframe intervals to choose from.
    smallest, largest : int
        Bounds of the number N of tracks; kernels are (N, N + 1) or (0, 2), float64.
    sizes : list of (int, int)
        Heights and widths of the mask features to choose from.
    margin : float
        In 0…1: the cosine of two tracks, in one frame or in two, is at most 1 − ``margin``, so that every
        correct tracker gives the same answer.
    """
    count, length = draw(st.integers(smallest, largest)), draw(st.integers(1, longest))
    # With a drift d the cosine of two tracks is d² / (16 + d²).
    farthest = 4 * np.sqrt((1 - margin) / margin)
    channels = max(count + 1, 2)
    drift = np.eye(1, channels, channels - 1) * min(1 / 8, farthest / longest)
    tracks = [4 * np.eye(count, channels) + index * drift for index in range(length)]
    return draw(clips_of(tracks, intervals, draw(st.sampled_from(sizes))))


@st.composite
def turning_clips(
    draw: st.DrawFn,
    *,
    longest: int = 12,
    intervals: Sequence[int] = INTERVALS,
    least_turn: float = 0.26,
    largest_turn: float = 0.42,
) -> Clip:
    """Tracks evenly around a circle, all turning together from keyframe to keyframe.

    With a turn of less than half the angle between neighbours the last keyframe tells which is which; two
    keyframes ago, the first one, or an average of several does not. Between keyframes the kernels are those
    of other tracks.

    Parameters
    ----------
    longest : int
        Most keyframes.
    intervals : list of int
        Keyframe intervals to choose from.
    least_turn, largest_turn : float
        Shares of the angle between neighbours; ½ − ``largest_turn`` is the margin by which the last keyframe
        tells, ``least_turn`` − ¼ that by which the one before misleads.
    """
    count, length = draw(st.integers(2, 5)), draw(st.integers(3, longest))
    interval = draw(st.sampled_from(intervals))
    turns = st.floats(least_turn, largest_turn).map(lambda turn: round(turn, 2))
    directions = draw(st.lists(st.sampled_from([1, 1, 1, -1]), min_size=length, max_size=length))
    turned = np.cumsum([0, *(draw(turns) * side for side in directions)])
    tracks = []
    for index in range(interval * (length - 1) + 1):
        keyframe, beyond = divmod(index, interval)
        angles = 2 * np.pi * (np.arange(count) + turned[keyframe] + (0.5 if beyond else 0)) / count
        # Three digits can be read, and turn nothing by more than a thousandth.
        tracks.append(np.round(4 * np.stack([np.cos(angles), np.sin(angles)], axis=1), 3))
    return draw(clips_of(tracks, (interval,)))


@st.composite
def long_clips(draw: st.DrawFn, *, longest: int = 300, turn: float = 0.01) -> Clip:
    """Hundreds of frames, intervals 1 … 12, and in ``extra`` where the video is cut, several times.

    Three tracks turn by a share ``turn`` of the circle in every frame, which is unambiguous below 1/72.
    """
    # Every other one is nearly as long as may be, past any power of two.
    length = draw(st.sampled_from([longest * 2 // 3, longest])) - draw(st.integers(0, longest // 8))
    angles = 2 * np.pi * (np.arange(3) / 3 + turn * np.arange(length)[:, None])
    tracks = np.round(np.stack([np.cos(angles), np.sin(angles)], axis=2), 3)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    orders = [random.permutation(3) for _ in range(length)]
    maps = random.integers(-3, 4, (length, 2, 1, 1)).astype(np.float64)
    frames = [VideoFrame(tracks[index][order], maps[index]) for index, order in enumerate(orders)]
    truth = tuple(np.argsort(order)[orders[0]] for order in orders)
    cuts = draw(st.lists(st.integers(0, length), min_size=1, max_size=5))
    return Clip(tuple(frames), draw(st.sampled_from(ALL_INTERVALS)), truth, sorted(cuts))


@st.composite
def shaped_clips(draw: st.DrawFn) -> Clip:
    """Maps that are square, one row, one column or one pixel, one channel, and no kernels at all."""
    dimension, height, width = draw(
        st.one_of(
            st.sampled_from([(2, 2, 2), (3, 3, 3), (2, 3, 4), (4, 3, 2), (3, 2, 4), (3, 1, 5), (3, 5, 1)]),
            st.tuples(*[st.integers(1, 4)] * 3),
        )
    )
    count = draw(st.integers(0, 2 if dimension == 1 else dimension))
    one_channel = np.array([[3.0], [-2.0]])[:count]
    kernels = one_channel if dimension == 1 else np.eye(count, dimension) * 3
    return draw(clips_of([kernels] * draw(st.integers(1, 4)), size=(height, width)))


@st.composite
def crowded_clips(draw: st.DrawFn, largest: int = 300) -> Clip:
    """Many kernels, shuffled and otherwise the same, at two keyframes."""
    count = draw(st.integers(largest // 3, largest) | st.just(largest))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernels = np.round(random.standard_normal((count, 12)), 2)
    orders = [random.permutation(count) for _ in range(2)]
    maps = random.integers(-3, 4, (2, 12, 1, 1)).astype(np.float64)
    frames = tuple(VideoFrame(kernels[order], one) for order, one in zip(orders, maps, strict=True))
    return Clip(frames, 1, tuple(np.argsort(order)[orders[0]] for order in orders))


@st.composite
def large_clips(draw: st.DrawFn, largest: int = 160) -> Clip:
    """Maps as large as a network has them, two channels, at a keyframe and a frame that reuses it."""
    size = draw(st.tuples(st.integers(largest // 2, largest), st.integers(largest // 2, largest)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Digits that a coarser format would lose.
    maps = np.round(random.standard_normal((2, 2, *size)), 4)
    kernels = np.round(random.standard_normal((2, 2)), 4)
    return Clip(tuple(VideoFrame(kernels, one) for one in maps), 2, (np.arange(2),) * 2)


def _absent(kernels: Array) -> None:
    return None


def _garbage(kernels: Array) -> Array:
    return np.full_like(kernels, -1e9)


def _not_finite(kernels: Array) -> Array:
    return np.full_like(kernels, np.nan)


def _fewer(kernels: Array) -> Array:
    return kernels[1:]


def _more(kernels: Array) -> Array:
    return np.concatenate([kernels, kernels + 1, np.ones((1, kernels.shape[1]))])


def _longer(kernels: Array) -> Array:
    return np.concatenate([kernels, kernels], axis=1)


UNREADABLE: tuple[Callable[[Array], Array | None], ...] = (
    _absent,
    _garbage,
    _not_finite,
    _fewer,
    _more,
    _longer,
)
"""What may stand in the place of kernels between keyframes."""


@st.composite
def clips_not_to_be_read(draw: st.DrawFn) -> Clip:
    """A clip, and in ``extra`` the same whose kernels between keyframes are absent or make no sense."""
    clip = draw(clips(intervals=(2, 3, 4), longest=6))
    frames = []
    for index, frame in enumerate(clip.frames):
        spoil = draw(st.sampled_from(UNREADABLE))
        keyframe = index % clip.keyframe_interval == 0
        assert frame.kernels is not None
        frames.append(frame if keyframe else replace(frame, kernels=spoil(frame.kernels)))
    return replace(clip, extra=replace(clip, frames=tuple(frames)))


@st.composite
def cut_clips(draw: st.DrawFn) -> Clip:
    """A clip, and in ``extra`` where it is cut; a part may be empty."""
    clip = draw(st.one_of(clips(smallest=0), turning_clips(longest=5)))
    cuts = draw(st.lists(st.integers(0, len(clip.frames)), min_size=1, max_size=4))
    return replace(clip, extra=sorted(cuts))


@st.composite
def clip_pairs(draw: st.DrawFn) -> Clip:
    """A clip, and in ``extra`` another with as many queries or a different number."""
    clip = draw(clips(longest=5))
    return replace(clip, extra=draw(clips(longest=5)))


@st.composite
def poisoned_clips(draw: st.DrawFn) -> Clip:
    """A clip of two keyframes and more, and in ``extra`` the same with a keyframe that must be refused.

    Its kernels hold a value that is not finite, are of another number or of another length, or are missing.
    """
    clip = draw(
        clips(intervals=(1, 2), longest=6, smallest=0).filter(
            lambda one: len(one.frames) > one.keyframe_interval
        )
    )
    keyframes = range(clip.keyframe_interval, len(clip.frames), clip.keyframe_interval)
    index = draw(st.sampled_from(keyframes))
    frame = clip.frames[index]
    assert frame.kernels is not None
    spoiled = [_more, _absent] if not len(frame.kernels) else [_not_finite, _more, _fewer, _longer, _absent]
    spoil = draw(st.sampled_from(spoiled))
    kernels = spoil(frame.kernels)
    dimension = len(frame.mask_features) if kernels is None or not kernels.size else kernels.shape[1]
    features = np.resize(frame.mask_features, (dimension, *frame.mask_features.shape[1:]))
    frames = (*clip.frames[:index], VideoFrame(kernels, features), *clip.frames[index + 1 :])
    return replace(clip, extra=(index, replace(clip, frames=frames)))
