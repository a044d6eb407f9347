"""Fourier transforms: sums of as many products as they are long, whose factors are functions of angles."""

from __future__ import annotations

import math

import numpy as np

from conformance.bounds.formats import FLOAT32
from conformance.bounds.step import Bound, Step, rule
from refimpl.ops.fourier import frames
from refimpl.ops.operation import Array


def _transformed(step: Step, size: Array, axis: int, length: int, roundings: int = 0) -> Array:
    """Return γ of the length, and of angles up to 2π · length, times the sum of the data's sizes.

    Whatever the algorithm: plain sums have as many roundings, and angles as large, as any.
    """
    # Angles are never computed in half precision.
    of_angles = 2 * math.pi * length * FLOAT32.unit_roundoff
    total = size.sum(axis=axis, keepdims=True)[..., None]
    own = step.gamma(length + 8 + roundings) + of_angles
    return own * total + length * step.floor


def _sizes(x: Array) -> Array:
    return np.asarray(np.sqrt(np.square(x).sum(-1)))


@rule("DFT")
def dft(step: Step) -> Bound:
    """γ of the length and the angles, times Σ|x|; over the length of an inverse."""
    x, given, along = step.required(0), step.operand(1), step.operand(2)
    axis = (-2 if along is None else int(along.reshape(-1)[0])) % x.ndim
    inverse, onesided = step.attributes.get("inverse", 0), step.attributes.get("onesided", 0)
    own = 2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis]
    length = own if given is None else int(given.reshape(-1)[0])
    sizes = np.take(_sizes(x), np.arange(min(length, x.shape[axis])), axis)
    bound = _transformed(step, sizes, axis, length)
    if inverse:
        bound = bound * (2 if onesided else 1) / max(length, 1)
    return np.broadcast_to(bound, step.y.shape)


@rule("STFT")
def stft(step: Step) -> Bound:
    """As DFT, of each frame times the window."""
    window, length = step.operand(2), step.operand(3)
    count = len(window) if window is not None else int(np.asarray(length).reshape(-1)[0])
    hop = int(step.required(1).reshape(-1)[0])
    cut = frames(step.required(0), hop, window, count)
    return np.broadcast_to(_transformed(step, _sizes(cut), 2, count, 1), step.y.shape)
