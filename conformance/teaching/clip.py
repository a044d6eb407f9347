"""A short video as one network saw it: every frame in full, as if each were a keyframe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from conformance.teaching.taught import Taught, taught
from refimpl import MobileInstConfig, Outputs, Recording, Weights
from refimpl.association import associate
from refimpl.errors import ConfigurationError
from refimpl.inference import Sizing, maskness
from refimpl.ops.operation import Array
from refimpl.scenes import Frame
from refimpl.tracker import frame_masks

MASK_THRESHOLD = 0.45
CUT = float(np.log(MASK_THRESHOLD / (1 - MASK_THRESHOLD)))
"""The threshold as a logit."""
SPEAKING = 0.4
"""Score from which an instance is drawn."""


@dataclass(frozen=True)
class Clip:
    """Frames as the network saw them.

    Attributes
    ----------
    frames
        Each with its recording.
    truth
        The frames as they were rendered; empty for anybody else's pictures.
    """

    frames: tuple[Taught, ...]
    truth: tuple[Frame, ...] = ()

    @property
    def keyframe(self) -> Taught:
        """The first frame."""
        return self.frames[0]


def record_clip(
    pictures: Iterable[Array],
    config: MobileInstConfig,
    weights: Weights,
    sizing: Sizing,
    truth: tuple[Frame, ...] = (),
) -> Clip:
    """Show frames to a network.

    Raises
    ------
    ConfigurationError
        The network has no queries to show.
    """
    if config.architecture != "mobileinst":
        raise ConfigurationError(
            f"{config.architecture} has no queries that find their objects; choose a MobileInst, such as "
            "--model topformer-tiny"
        )
    return Clip(tuple(taught(picture, config, weights, sizing) for picture in pictures), truth)


def output(recording: Recording, name: str) -> Array:
    """Return an output of the only picture, by its name in `Outputs`."""
    return recording.tensors[recording.outputs[name]][0]


def outputs(recording: Recording) -> Outputs:
    """Return all that the network predicted."""
    return Outputs(**{name: recording.tensors[tensor] for name, tensor in recording.outputs.items()})


def query_scores(recording: Recording) -> Array:
    """Return √(σ(class) · σ(objectness)) · maskness of every query, (N,) (section 4.2)."""
    classes = expit(output(recording, "class_logits")).max(axis=1)
    objectness = expit(output(recording, "objectness"))[:, 0]
    scores: Array = np.sqrt(classes * objectness) * query_maskness(recording)
    return scores


def query_maskness(recording: Recording) -> Array:
    """Return the mean probability of each mask's pixels above the threshold, (N,)."""
    return maskness(expit(output(recording, "masks")), MASK_THRESHOLD)


def ages(clip: Clip) -> list[tuple[int, float, int]]:
    """Measure how well old kernels cover what fresh ones do.

    Returns
    -------
    list of (age in frames, mean IoU, pairs)
        Of the instances that speak in both frames; a kernel's successor is the one `associate` finds.
    """
    found: dict[int, list[float]] = {}
    for start, old in enumerate(clip.frames):
        for age, new in enumerate(clip.frames[start:]):
            found.setdefault(age, []).extend(_overlaps(old.recording, new.recording))
    return [(age, float(np.mean(each)), len(each)) for age, each in found.items() if each]


def _overlaps(old: Recording, new: Recording) -> list[float]:
    """Return the IoU of each speaking instance's mask by its old kernel with that by its fresh one."""
    successor = associate(output(old, "kernels"), output(new, "kernels")).permutation
    reused = frame_masks(output(old, "kernels"), output(new, "mask_features"))
    before, after = query_scores(old), query_scores(new)[successor]
    one, other = reused > CUT, output(new, "masks")[successor] > CUT
    speaking = np.flatnonzero((before > SPEAKING) & (after > SPEAKING))
    unions = (one | other).sum(axis=(1, 2))
    both = (one & other).sum(axis=(1, 2))
    return [float(both[q] / unions[q]) for q in speaking if unions[q]]
