"""Video: kernel reuse between keyframes, kernel association from keyframe to keyframe (paper section 3.4).

A track is a slot: at each keyframe the queries are put into the order of the tracks they continue. Between
keyframes the masks are the keyframe's kernels times the frame's own mask features (Eq. 2). The tracker is
driven frame by frame and keeps nothing of past frames but its `TrackerState`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import scipy  # its parts are loaded at their first use
from numpy.typing import NDArray

from refimpl.association import METHODS, Association, associate, cosine_similarity, require_kernels
from refimpl.errors import ConfigurationError, ShapeError
from refimpl.inference import maskness, require_finite

__all__ = [
    "Association",
    "KeyframeTensors",
    "TrackedFrame",
    "Tracker",
    "TrackerState",
    "associate",
    "class_scores",
    "cosine_similarity",
    "frame_masks",
    "is_keyframe",
    "track_video",
]

Array = NDArray[Any]
FrameInput = TypeVar("FrameInput", contravariant=True)
DEAD = -1
"""Online identity of a slot that holds no living track."""


@dataclass(frozen=True)
class KeyframeTensors:
    """What the network gives for one keyframe, all raw: (N, classes), (N, 1), (N, dim), (dim, h, w)."""

    class_logits: Array
    objectness: Array
    kernels: Array
    mask_features: Array


class Network(Protocol[FrameInput]):
    """What a tracker needs of a network."""

    def keyframe(self, frame: FrameInput) -> KeyframeTensors:
        """Run everything."""

    def mask_features(self, frame: FrameInput) -> Array:
        """Run the backbone and the mask decoder only: (dim, h, w)."""


@dataclass(frozen=True)
class TrackerState:
    """Everything a tracker remembers, in the order of the slots. A few arrays, whatever the video's length.

    Attributes
    ----------
    frame : int
        Index of the next frame.
    keyframes : int
        Keyframes seen.
    queries : (N,) int64
        The last keyframe's query of each slot.
    kernels : (N, dim)
        The last keyframe's kernels.
    scores : (N, classes)
        The last keyframe's scores.
    score_sums : (N, classes)
        Sum of the scores over all keyframes.
    identities : (N,) int64
        Online identity of each slot, −1 for none.
    born : (N,) int64
        Frame in which the slot's living track was born, −1 for none.
    next_identity : int
    """

    frame: int = 0
    keyframes: int = 0
    next_identity: int = 0
    queries: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    kernels: Array = field(default_factory=lambda: np.zeros((0, 0)))
    scores: Array = field(default_factory=lambda: np.zeros((0, 0)))
    score_sums: Array = field(default_factory=lambda: np.zeros((0, 0)))
    identities: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    born: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def to_arrays(self) -> dict[str, Array]:
        """Return the state as named arrays, the integers 0-dimensional."""
        return {entry.name: np.asarray(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> TrackerState:
        """Rebuild a state from `to_arrays`, or from the same as nested lists out of JSON.

        Raises
        ------
        ShapeError
            Missing or unknown names, or arrays of differing numbers of slots.
        NonFiniteError
        """
        names = {entry.name for entry in fields(cls)}
        if set(arrays) != names:
            raise ShapeError(
                f"tracker state: expected {sorted(names)}, missing {sorted(names - set(arrays))}, "
                f"unknown {sorted(set(arrays) - names)}"
            )
        values = {name: np.array(arrays[name]) for name in names}
        frame, keyframes, next_identity = (
            int(values.pop(name)) for name in ("frame", "keyframes", "next_identity")
        )
        slots = {name: len(value) for name, value in values.items()}
        if len(set(slots.values())) > 1:
            raise ShapeError(f"tracker state: the arrays must have one number of slots, got {slots}")
        for name in ("queries", "identities", "born"):
            values[name] = values[name].astype(np.int64)
        for name in ("kernels", "scores", "score_sums"):
            values[name] = values[name].reshape(slots[name], -1) if slots[name] else np.zeros((0, 0))
            require_finite(values[name], f"tracker state: {name}")
        return cls(frame, keyframes, next_identity, **values)


@dataclass(frozen=True)
class TrackedFrame:
    """What the tracker says about one frame; N slots, in the order of the tracks.

    Attributes
    ----------
    frame : int
    keyframe : bool
        False: the kernels of the last keyframe were reused.
    mask_logits : (N, h, w)
        At mask resolution.
    scores : (N, classes)
        The last keyframe's.
    mean_scores : (N, classes)
        Mean over the keyframes so far; after the last frame, the video's.
    identities : (N,) int64
        Online identity, −1 for a slot without a living track.
    association : Association or None
        With the previous keyframe; None for the first keyframe and for reused frames.
    """

    frame: int
    keyframe: bool
    mask_logits: Array
    scores: Array
    mean_scores: Array
    identities: Array
    association: Association | None

    @property
    def labels(self) -> Array:
        """(N,) most probable class of each track so far; of equals the lowest."""
        labels: Array = self.mean_scores.argmax(axis=1)
        return labels

    @property
    def living(self) -> Array:
        """Slots of the living tracks, by ascending identity."""
        slots = np.flatnonzero(self.identities != DEAD)
        return slots[np.argsort(self.identities[slots])]


def is_keyframe(frame: int, keyframe_interval: int) -> bool:
    """Return whether frame 0, T, 2T, … it is."""
    return frame % keyframe_interval == 0


def frame_masks(kernels: Array, mask_features: Array) -> Array:
    """Mask logits M = K · X_mask (Eq. 2): (N, dim), (dim, h, w) → (N, h, w)."""
    if mask_features.ndim != 3 or kernels.shape[1] != mask_features.shape[0]:
        raise ShapeError(
            f"mask features {mask_features.shape} do not fit kernels {kernels.shape}; "
            f"expected ({kernels.shape[1]}, h, w)"
        )
    require_finite(mask_features, "mask features")
    dimension, height, width = mask_features.shape
    masks: Array = (kernels @ mask_features.reshape(dimension, -1)).reshape(-1, height, width)
    return masks


def class_scores(tensors: KeyframeTensors, mask_logits: Array | None = None) -> Array:
    """Scores √(sigmoid(class) · sigmoid(objectness)), times maskness if mask logits are given (section 4.2).

    Returns
    -------
    Array, (N, classes)
    """
    scores: Array = np.sqrt(
        scipy.special.expit(tensors.class_logits) * scipy.special.expit(tensors.objectness)
    )
    return scores if mask_logits is None else scores * maskness(scipy.special.expit(mask_logits))[:, None]


class Tracker:
    """Follow instances through a video, frame by frame.

    Parameters
    ----------
    keyframe_interval : int
        T ≥ 1: frames 0, T, 2T, … are keyframes.
    method : "optimal" or "greedy"
        See `associate`.
    birth, death : float
        Online use: a slot without a track starts a new identity when its best score at a keyframe is at least
        ``birth``; a track ends at the keyframe where it is below ``death`` ≤ ``birth``.
    rescore : bool
        Multiply scores by maskness, as for images.
    state : TrackerState or None
        Where to go on; None starts a new video.

    Raises
    ------
    ConfigurationError
    """

    def __init__(
        self,
        keyframe_interval: int = 1,
        *,
        method: str = "optimal",
        birth: float = 0.4,
        death: float = 0.2,
        rescore: bool = True,
        state: TrackerState | None = None,
    ) -> None:
        if isinstance(keyframe_interval, bool) or int(keyframe_interval) != keyframe_interval:
            raise ConfigurationError(
                f"keyframe interval {keyframe_interval!r} is not a whole number of frames"
            )
        if keyframe_interval < 1:
            raise ConfigurationError(f"keyframe interval {keyframe_interval} is below 1; 1 means no reuse")
        if method not in METHODS:
            raise ConfigurationError(f"association method {method!r} is unknown; choose one of {METHODS}")
        if not 0 <= death <= birth:
            raise ConfigurationError(f"birth {birth} and death {death}: expected 0 ≤ death ≤ birth")
        self.keyframe_interval, self.method = int(keyframe_interval), method
        self.birth, self.death, self.rescore = birth, death, rescore
        self.state = state or TrackerState()

    @property
    def keyframe_due(self) -> bool:
        """Whether the next frame needs the whole network."""
        return is_keyframe(self.state.frame, self.keyframe_interval)

    def keyframe(self, tensors: KeyframeTensors) -> TrackedFrame:
        """Take the next frame, a keyframe: associate its queries with the tracks.

        Raises
        ------
        ConfigurationError
            The next frame is one whose kernels are reused.
        ShapeError, NonFiniteError
            The tensors do not fit each other, or those of the last keyframe, or are not finite.
        """
        if not self.keyframe_due:
            raise ConfigurationError(
                f"frame {self.state.frame} is no keyframe at interval {self.keyframe_interval}; "
                "pass its mask features to reuse()"
            )
        self.state = _fitting(self.state, tensors)
        association, order = self._associate(tensors.kernels)
        kernels = tensors.kernels[order]
        mask_logits = frame_masks(kernels, tensors.mask_features)
        ordered = replace(
            tensors,
            class_logits=tensors.class_logits[order],
            objectness=tensors.objectness[order],
            kernels=kernels,
        )
        scores = class_scores(ordered, mask_logits if self.rescore else None)
        self.state = self._advanced(order, kernels, scores)
        return self._tracked(mask_logits, True, association)

    def reuse(self, mask_features: Array) -> TrackedFrame:
        """Take the next frame, between keyframes: only its mask features (dim, h, w) are needed.

        Raises
        ------
        ConfigurationError
            The next frame is a keyframe.
        ShapeError, NonFiniteError
        """
        if self.keyframe_due:
            raise ConfigurationError(
                f"frame {self.state.frame} is a keyframe at interval {self.keyframe_interval}; "
                "pass all its tensors to keyframe()"
            )
        kernels = self.state.kernels
        if kernels.shape == (0, 0):  # A state of no slots that was a list.
            kernels = np.zeros((0, len(mask_features)))
        mask_logits = frame_masks(kernels, mask_features)
        self.state = replace(self.state, frame=self.state.frame + 1)
        return self._tracked(mask_logits, False, None)

    def _associate(self, kernels: Array) -> tuple[Association | None, Array]:
        """The association with the last keyframe, None for the first, and the queries in slot order."""
        if self.state.keyframes == 0:
            return None, np.arange(len(kernels))
        association = associate(self.state.kernels, kernels, self.method)
        return association, association.permutation

    def _advanced(self, order: Array, kernels: Array, scores: Array) -> TrackerState:
        """The state after a keyframe."""
        old = self.state
        first = old.keyframes == 0
        none = np.full(len(order), DEAD, np.int64)
        best = scores.max(axis=1, initial=0)
        identities, born = (none, none) if first else (old.identities, old.born)
        lives = (identities != DEAD) & (best >= self.death)
        births = (identities == DEAD) & (best >= self.birth)
        fresh = old.next_identity + np.cumsum(births) - 1
        return TrackerState(
            frame=old.frame + 1,
            keyframes=old.keyframes + 1,
            next_identity=old.next_identity + int(births.sum()),
            queries=order,
            kernels=kernels,
            scores=scores,
            score_sums=scores if first else old.score_sums + scores,
            identities=np.where(births, fresh, np.where(lives, identities, DEAD)),
            born=np.where(births, old.frame, np.where(lives, born, DEAD)),
        )

    def _tracked(self, mask_logits: Array, keyframe: bool, association: Association | None) -> TrackedFrame:
        state = self.state
        mean = state.score_sums / np.asarray(state.keyframes, state.score_sums.dtype)
        return TrackedFrame(
            state.frame - 1, keyframe, mask_logits, state.scores, mean, state.identities, association
        )


def _fitting(state: TrackerState, tensors: KeyframeTensors) -> TrackerState:
    """Return the state; raise unless the tensors fit each other and the tracks so far."""
    require_kernels(tensors.kernels, f"kernels of frame {state.frame}")
    queries = len(tensors.kernels)
    for name, array in (("class logits", tensors.class_logits), ("objectness", tensors.objectness)):
        if array.ndim != 2 or len(array) != queries or array.shape[1] < 1:
            raise ShapeError(
                f"{name} of frame {state.frame}: got {array.shape} for {queries} queries, expected (N, …)"
            )
        require_finite(array, f"{name} of frame {state.frame}")
    if state.keyframes and queries == 0 and state.kernels.shape == (0, 0):
        # Lists of no slots cannot tell how long those would be.
        none = np.zeros_like(tensors.class_logits)
        state = replace(state, kernels=tensors.kernels, scores=none, score_sums=none)
    now = (queries, tensors.kernels.shape[1], tensors.class_logits.shape[1])
    before = (*state.kernels.shape, state.scores.shape[1])
    if state.keyframes and now != before:
        raise ShapeError(
            f"frame {state.frame} has (queries, kernel length, classes) {now}, the video so far {before}; "
            "one network must process the whole video"
        )
    return state


def track_video(
    frames: Iterable[FrameInput], network: Network[FrameInput], tracker: Tracker
) -> Iterator[TrackedFrame]:
    """Drive a tracker over a stream of frames, running the whole network at keyframes only.

    ``frames`` begins at frame ``tracker.state.frame``; nothing of a frame is kept once the next is asked for.
    """
    for frame in frames:
        if tracker.keyframe_due:
            yield tracker.keyframe(network.keyframe(frame))
        else:
            yield tracker.reuse(network.mask_features(frame))
