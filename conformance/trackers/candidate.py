"""What is checked: a tracker that associates kernels and, if it can, follows videos and lives online."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.detections import Detections
from refimpl.errors import MobileInstError

Array = NDArray[Any]


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video of kernels.

    kernels: (N, dim), or None, as it may be between keyframes, where nobody may read them; mask_features:
    (dim, h, w).
    """

    kernels: Array | None
    mask_features: Array


@dataclass(frozen=True)
class FrameAnswer:
    """A tracker's answer for one frame: per slot the keyframe query that continues it, and the mask logits.

    keyframe: bool; order: (N,) int, of the last keyframe; masks: (N, h, w).
    """

    keyframe: bool
    order: Array
    masks: Array


@dataclass(frozen=True)
class OnlineFrame:
    """One frame of an online video: a `VideoFrame` with raw scores, which only keyframes have.

    class_logits: (N, classes) or None; objectness: (N, 1) or None.
    """

    kernels: Array | None
    mask_features: Array
    class_logits: Array | None
    objectness: Array | None


@dataclass(frozen=True)
class OnlineRules:
    """What a living track is: the keyframe interval, the two thresholds, and whether masks weigh scores."""

    keyframe_interval: int
    birth: float = 0.4
    death: float = 0.2
    rescore: bool = False


@dataclass(frozen=True)
class LivingTrack:
    """A track that lives in a frame.

    identity: int, never given twice; label: int; score: float; segmentation: (h, w) bool, or None where the
    mask is empty.
    """

    identity: int
    label: int
    score: float
    segmentation: Array | None


@dataclass(frozen=True)
class Identified:
    """What a tracker made of one frame's detections.

    identities: (n,) int, −1 for none; scores: its own scores of each detection with each track before the
    frame, (n, tracks), or None if it tells none; tracks: (tracks,) int, the identity of each column.
    """

    identities: Array
    scores: Array | None = None
    tracks: Array | None = None


class Refusal(MobileInstError):
    """The candidate reported an error instead of an answer."""


class NotOffered(MobileInstError):
    """The candidate does not offer what the property needs."""


class Candidate:
    """A tracker to be checked; offers nothing until a subclass does."""

    notations: Sequence[str] = ()
    """Ways in which the same numbers can be handed over; see `writing`."""
    leaves_unmatched = False
    """Whether pairs that could be made may be left unmade everywhere but in the ``one_to_one`` properties."""

    def associate(self, previous: Array, current: Array) -> Any:
        """For each previous kernel the index of the current one that continues it, −1 for none."""
        raise NotOffered("the tracker does not associate")

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Answer for each frame, and the state to go on from; ``state`` None begins a new video."""
        raise NotOffered("the tracker follows no video")

    def online(
        self, frames: Sequence[OnlineFrame], rules: OnlineRules, state: Any
    ) -> tuple[list[list[LivingTrack]], Any]:
        """Return the living tracks of each frame, by ascending identity, and the state to go on from."""
        raise NotOffered("the tracker is not used online")

    def identify(self, frames: Sequence[Detections]) -> list[Identified]:
        """Return the identities of the detections in each frame of one video."""
        raise NotOffered("the tracker takes kernels only, no detections")

    @contextmanager
    def writing(self, notation: str) -> Iterator[None]:
        """Hand numbers over in one of `notations` meanwhile."""
        yield

    def restart(self) -> None:
        """Forget everything, as a new process does."""

    def recover(self) -> None:
        """Make ready for questions after a failure; raise if that cannot be done."""


def float32_arrays(array: Array) -> Array:
    """Return float32 numbers; small integers are the same in it."""
    return array.astype(np.float32)


def fortran_order(array: Array) -> Array:
    """Return the columns one after the other in memory."""
    return np.asfortranarray(array)


def strided_view(array: Array) -> Array:
    """Return every second row of a larger array, backwards."""
    wide = np.full((2 * len(array), *array.shape[1:]), np.nan)
    wide[::2] = array[::-1]
    view: Array = wide[::2][::-1]
    return view


def read_only(array: Array) -> Array:
    """Return a copy that cannot be written to."""
    copy = array.copy()
    copy.setflags(write=False)
    return copy


ARRAY_FORMS: dict[str, Callable[[Array], Array]] = {
    "float32": float32_arrays,
    "Fortran order": fortran_order,
    "a strided view": strided_view,
    "read-only": read_only,
}


class CallableCandidate(Candidate):
    """Python callables as a candidate.

    Parameters
    ----------
    associate, video, online, identify : callable or None
        As the methods of `Candidate`; what is None is not offered.
    """

    notations = tuple(ARRAY_FORMS)

    def __init__(
        self,
        associate: Callable[[Array, Array], Any] | None = None,
        video: Callable[..., Any] | None = None,
        online: Callable[..., Any] | None = None,
        identify: Callable[[Sequence[Detections]], Any] | None = None,
    ) -> None:
        self._associate, self._video, self._online = associate, video, online
        self._identify = identify
        self._form: Callable[[Array], Array] = np.asarray

    def associate(self, previous: Array, current: Array) -> Any:
        """Call ``associate``."""
        if self._associate is None:
            return super().associate(previous, current)
        return self._associate(self._form(previous), self._form(current))

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Call ``video``."""
        if self._video is None:
            return super().video(frames, keyframe_interval, state)
        answers, after = self._video(frames, keyframe_interval, state)
        return list(answers), after

    def online(
        self, frames: Sequence[OnlineFrame], rules: OnlineRules, state: Any
    ) -> tuple[list[list[LivingTrack]], Any]:
        """Call ``online``."""
        if self._online is None:
            return super().online(frames, rules, state)
        answers, after = self._online(frames, rules, state)
        return list(answers), after

    def identify(self, frames: Sequence[Detections]) -> list[Identified]:
        """Call ``identify``; plain arrays of identities will do."""
        if self._identify is None:
            return super().identify(frames)
        answers = self._identify(frames)
        return [one if isinstance(one, Identified) else Identified(np.asarray(one)) for one in answers]

    @contextmanager
    def writing(self, notation: str) -> Iterator[None]:
        """Hand over arrays of another dtype, layout or right to write."""
        self._form = ARRAY_FORMS[notation]
        try:
            yield
        finally:
            self._form = np.asarray
