"""Pictures to learn from: rendered from seeds without end, none of them held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.hard_scenes import make_hard_scene
from refimpl.held_out import FRAMES, HELD_OUT_FIRST, seen_enough
from refimpl.inference import PIXEL_DEVIATION, PIXEL_MEAN
from refimpl.matching import Target
from refimpl.scenes import Frame, Scene, choose, make_scene, render_frame

Array = NDArray[Any]
Size = tuple[int, int]

LARGEST_DISTANCE = 6
"""Frames between the two of a pair, at most."""

# The split's size six times in ten, the largest once; which part of the batch keeps a step's time the same.
SMALL: Size = (128, 192)
_LARGER: tuple[tuple[Size, int], ...] = (((192, 320), 2), ((256, 384), 4))
_SEEDS_APART = 1_700_003
_FLIPS = (np.s_[:, :], np.s_[:, ::-1], np.s_[::-1, :], np.s_[::-1, ::-1])


@dataclass(frozen=True)
class Batch:
    """Normalised pictures (B, 3, H, W) float32 and what is seen in each; of pairs, first frames first."""

    images: Array
    targets: list[Target]
    identities: list[Array]


def scene_seed(seed: int, index: int) -> int:
    """Return the seed of scene ``index`` of a run."""
    return (seed * _SEEDS_APART + index) % HELD_OUT_FIRST


def training_scene(size: Size, seed: int, index: int) -> Scene:
    """Draw up scene ``index`` of a run: three in four are hard."""
    chosen = scene_seed(seed, index)
    if index % 4 == 0:
        return make_scene(*size, chosen, shapes=choose(2, 7, chosen, 70))
    return make_hard_scene(*size, chosen)


def size_of_step(step: int, larger: bool) -> tuple[Size, int]:
    """Return the size of a step's pictures and what the batch is divided by; some steps are ``larger``."""
    turn = choose(0, 9, step, 71)
    if not larger or turn > 6:
        return SMALL, 1
    return _LARGER[turn == 6]


def picture_batch(step: int, batch: int, seed: int, larger: bool = False) -> Batch:
    """Render the pictures of a step."""
    size, share = size_of_step(step, larger)
    frames = []
    for index in range(step * batch, step * batch + max(batch // share, 2)):
        scene = training_scene(size, seed, index)
        frames.append(flipped(render_frame(scene, choose(0, FRAMES - 1, index, 72)), choose(0, 3, index, 73)))
    return as_batch(frames)


def pair_batch(step: int, batch: int, seed: int, larger: bool = False) -> Batch:
    """Render the pairs of a step, ``batch`` pictures in all: frames t and t + δ of a scene."""
    size, share = size_of_step(step, larger)
    first, second = [], []
    for index in range(step * batch // 2, step * batch // 2 + max(batch // share // 2, 1)):
        scene = training_scene(size, seed, index)
        start, flip = choose(0, FRAMES - 1, index, 72), choose(0, 3, index, 73)
        later = start + choose(1, LARGEST_DISTANCE, index, 74)
        first.append(flipped(render_frame(scene, start), flip))
        second.append(flipped(render_frame(scene, later), flip))
    return as_batch([*first, *second])


def flipped(frame: Frame, flip: int) -> Frame:
    """Mirror a frame: 0 not at all, 1 left and right, 2 top and bottom, 3 both."""
    where = _FLIPS[flip]
    return Frame(frame.picture[where], frame.masks[:, *where], frame.labels, frame.identities)


def as_batch(frames: Sequence[Frame]) -> Batch:
    """Normalise pictures, and keep of the truth what can be seen."""
    pictures = np.stack([frame.picture for frame in frames]).astype(np.float32)
    images = (pictures - np.array(PIXEL_MEAN, np.float32)) / np.array(PIXEL_DEVIATION, np.float32)
    seen = [seen_enough(frame.masks) for frame in frames]
    return Batch(
        np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        [Target(frame.labels[s], frame.masks[s]) for frame, s in zip(frames, seen, strict=True)],
        [frame.identities[s] for frame, s in zip(frames, seen, strict=True)],
    )
