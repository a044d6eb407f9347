"""Trackers that follow videos wrongly, with one defect each, as they occur in ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers.bad_tracker import Bad
from conformance.trackers.candidate import FrameAnswer, VideoFrame
from refimpl.association import require_kernels
from refimpl.tracker import frame_masks

Array = NDArray[Any]


class KeyframesOneLate(Bad):
    """Takes frames 0, 1, T + 1, … for keyframes."""

    def due(self, frame: int, interval: int) -> bool:
        return frame == 0 or (frame - 1) % interval == 0


class CountsKeyframesFromOne(Bad):
    """Takes frames 0, T − 1, 2T − 1, … for keyframes."""

    def due(self, frame: int, interval: int) -> bool:
        return frame == 0 or (frame + 1) % interval == 0


class StateLeaks(Bad):
    """Keeps the last kernels when a new video begins."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Array | None = None

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        if self.last is not None and self.last.shape == now.shape:
            order = self.associate(self.last, now)
        else:
            order = np.arange(len(now))
        self.last = now[order]
        return now[order], order


class CounterLostOnResume(Bad):
    """Begins to count at 0 with every part of a video."""

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        return super().video(frames, keyframe_interval, state and [0, *state[1:]])


class OrderNotComposed(Bad):
    """Keeps the network's order and reports each association as if it were the whole history."""

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        order = self.associate(kernels, now) if frame else np.arange(len(now))
        return now, order

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        return frame_masks(kernels[order], one.mask_features)


class PermutationInverted(Bad):
    """Associates the current kernels with the previous ones and uses the answer as it is."""

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        order = self.associate(now, kernels) if frame else np.arange(len(now))
        return now[order], order


class NeverReuses(Bad):
    """Computes the masks of every frame with that frame's own kernels."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        assert one.kernels is not None
        return frame_masks(one.kernels[order], one.mask_features)


class ComparesWithTheFirstKeyframe(Bad):
    """Associates with frame 0 for ever; only a video whose kernels drift tells."""

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        order = np.arange(len(now)) if frame == 0 else self.associate(kernels, now)
        return (now if frame == 0 else kernels), order

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        return frame_masks(kernels, one.mask_features)


class AveragedKernels(Bad):
    """Associates with a running mean of the kernels."""

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        order = self.associate(kernels, now) if frame else np.arange(len(now))
        return (now[order] + kernels) / 2 if frame else now, order


class ReadsEveryFrame(Bad):
    """Checks the kernels of every frame, though it uses those of keyframes only."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        assert one.kernels is not None
        require_kernels(one.kernels, "kernels")
        return super().masks(kernels, order, one)


class CounterInAByte(Bad):
    """Counts frames modulo 256."""

    def due(self, frame: int, interval: int) -> bool:
        return frame % 256 % interval == 0


class StateRounded(Bad):
    """Writes the kernels of the state with two digits."""

    def begin(self, state: Any) -> tuple[int, Array, Array]:
        frame, order, kernels = super().begin(state)
        return frame, order, np.round(kernels, 2)


class StateInMemory(Bad):
    """Goes on from what it remembers itself, whatever state it is given."""

    remembered: Any = None

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        answers, self.remembered = super().video(frames, keyframe_interval, state and self.remembered)
        return answers, True


class MapsTransposed(Bad):
    """Takes mask features for (dim, w, h)."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        height, width = one.mask_features.shape[1:]
        return super().masks(kernels, order, one).reshape(-1, width, height).swapaxes(1, 2)


class ChannelsLast(Bad):
    """Takes mask features for (h, w, dim) in memory."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        dimension, height, width = one.mask_features.shape
        moved = one.mask_features.reshape(height, width, dimension).transpose(2, 0, 1)
        return frame_masks(kernels, moved)


class OnePixelSqueezed(Bad):
    """Drops the axes of length one."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        return np.squeeze(super().masks(kernels, order, one))


class NumberOfKernelsUnchecked(Bad):
    """Goes on when a keyframe has another number of kernels."""

    def fitting(self, now: Array | None, frame: int, kernels: Array, one: VideoFrame) -> Array:
        assert now is not None
        return super().fitting(now, 0, kernels, one)


class AnchorFrames(Bad):
    """Compares every sixteenth keyframe with the last such one, as codecs do."""

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        self.seen: int = 0 if state is None else state[4]
        self.anchor: Any = None if state is None else state[5]
        answers, after = super().video(frames, keyframe_interval, state and state[:4])
        return answers, [*after, self.seen, self.anchor]

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        due = self.seen % 16 == 0
        before = np.array(self.anchor) if due and self.anchor is not None else kernels
        now, order = super().next_keyframe(frame, before, order, now)
        self.anchor = now.tolist() if due else self.anchor
        self.seen += 1
        return now, order


class RoomFor4096Pixels(Bad):
    """Leaves what is beyond the first 4096 pixels of a map empty."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        masks = super().masks(kernels, order, one)
        pixels = np.arange(masks.shape[1] * masks.shape[2]).reshape(masks.shape[1:])
        return np.where(pixels < 4096, masks, 0)


class HalfPrecisionMasks(Bad):
    """Computes masks in float16, and claims float64."""

    def masks(self, kernels: Array, order: Array, one: VideoFrame) -> Array:
        return super().masks(kernels, order, one).astype(np.float16).astype(np.float64)


class KernelsAfterNone(Bad):
    """Takes any number of kernels for a video's that had none."""

    def fitting(self, now: Array | None, frame: int, kernels: Array, one: VideoFrame) -> Array:
        return super().fitting(now, frame if len(kernels) else 0, kernels, one)

    def next_keyframe(self, frame: int, kernels: Array, order: Array, now: Array) -> tuple[Array, Array]:
        return super().next_keyframe(frame if len(kernels) else 0, kernels, order, now)
