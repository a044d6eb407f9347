"""What picture the candidate was fed, solved for: a factor and a shift for each channel, however arranged.

The first convolution and its norm are affine in the picture, so its result on any such picture is a sum of
known arrays, with two unknown numbers for each channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from conformance.faults.preprocessing import MEAN, STD
from refimpl.ops.operation import Array

AFFINE = ("Conv", "BatchNormalization", "Add", "Sub", "Pad", "Identity", "Reshape")
"""Operations that a stretch may have to be affine in the picture."""
SLACK = 8.0
"""Bounds within which what is left must lie."""
LEAST = 1e-5
"""Of the largest element: what may be left in any case."""
SAME = 1e-4
"""By how much a factor or a shift may be off from one or zero before it is told."""


def fed_picture(
    compute: Callable[[Array], Array],
    images: Array,
    observed: Array,
    allowed: Array | float,
    others: Iterable[tuple[str, Array]] = (),
) -> str:
    """Say which picture, made of the right one, gives what the candidate has.

    Parameters
    ----------
    compute
        Images (B, 3, H, W), normalised → the tensor; affine.
    images
        What the candidate should have been fed.
    observed
        Its tensor.
    allowed
        How far rounding may carry it.
    others
        What else it may have been fed: how it comes about, and the images.

    Returns
    -------
    str
        A sentence; empty where no such picture gives the tensor.
    """
    for said, arranged in chain(_arrangements(images), _exchanged(others)):
        solved = _solved(compute, arranged, observed, allowed)
        if solved is not None:
            return _told(said, *solved)
    return ""


VALUES: Sequence[tuple[str, Callable[[Array], Array]]] = (
    ("as they are", lambda values: values),
    ("divided by 255", lambda values: values / 255),
    ("divided by 127.5, less 1", lambda values: values / 127.5 - 1),
    ("less their mean, not divided", lambda values: values - MEAN.reshape(-1, 1, 1)),
    ("normalised", lambda values: (values - MEAN.reshape(-1, 1, 1)) / STD.reshape(-1, 1, 1)),
)
"""What a network may be fed of values from 0 to 255; normalised is right."""
ALIKE = 1e-3
"""Of an output's largest element: how far another picture's may be off, whose rounding is not known."""


def fed_otherwise(
    outputs_of: Callable[[Array], Mapping[str, Array]],
    images: Array,
    observed: Mapping[str, Array],
    allowed: Mapping[str, float],
    others: Iterable[tuple[str, Array]] = (),
) -> str:
    """Say which picture gives all that a candidate gives of which nothing but outputs is known.

    Parameters
    ----------
    outputs_of
        Images (B, 3, H, W), normalised → the reference's outputs, by name.
    images, others
        As of `fed_picture`.
    observed
        The candidate's outputs, by the reference's names.
    allowed
        How far rounding may carry each.
    """
    for said, fed in chain(list(_arrangements(images))[1:], _exchanged(others), _of_values(images)):
        truths = outputs_of(np.ascontiguousarray(fed))
        if all(_is_alike(truths[name], array, allowed[name]) for name, array in observed.items()):
            return f"the picture that was fed is the right one {said}"
    return ""


def _of_values(images: Array) -> Iterator[tuple[str, Array]]:
    values = images.astype(np.float64) * STD.reshape(-1, 1, 1) + MEAN.reshape(-1, 1, 1)
    for said, made in VALUES[:-1]:
        yield f"with its values from 0 to 255 {said}", made(values)
    for said, made in VALUES[::-1]:
        yield f"with red and blue exchanged, then its values from 0 to 255 {said}", made(values[:, ::-1])


def _is_alike(truth: Array, observed: Array, allowed: float) -> bool:
    least = SLACK * allowed + ALIKE * float(np.abs(observed).max(initial=0.0))
    return truth.shape == observed.shape and bool((np.abs(truth - observed) <= least).all())


def _arrangements(images: Array) -> Iterator[tuple[str, Array]]:
    yield "", images
    yield "with red and blue exchanged", images[:, ::-1]
    yield "mirrored", images[..., ::-1]
    yield "upside down", images[:, :, ::-1]
    yield "laid out NHWC, read as NCHW", images.transpose(0, 2, 3, 1).reshape(images.shape)
    yield "with rows and columns exchanged", images.transpose(0, 1, 3, 2).reshape(images.shape)
    yield "mirrored, with red and blue exchanged", images[:, ::-1, :, ::-1]


def _exchanged(others: Iterable[tuple[str, Array]]) -> Iterator[tuple[str, Array]]:
    for said, images in others:
        yield said, images
        yield f"{said}, with red and blue exchanged", images[:, ::-1]


def _solved(
    compute: Callable[[Array], Array], images: Array, observed: Array, allowed: Array | float
) -> tuple[Array, Array] | None:
    """Return the channels' factors and shifts by least squares, if only rounding is left."""
    nothing = compute(np.zeros_like(images))
    columns = []
    for source in (images, np.ones_like(images)):
        for channel in range(images.shape[1]):
            alone = np.zeros_like(images)
            alone[:, channel] = source[:, channel]
            columns.append((compute(alone) - nothing).ravel())
    basis = np.stack(columns, 1)
    numbers, *_ = np.linalg.lstsq(basis, (observed - nothing).ravel(), rcond=None)
    left = np.abs(basis @ numbers + nothing.ravel() - observed.ravel()).reshape(observed.shape)
    if (left > SLACK * allowed + LEAST * np.abs(observed).max(initial=0.0)).any():
        return None
    return numbers[: images.shape[1]], numbers[images.shape[1] :]


def _told(said: str, factors: Array, shifts: Array) -> str:
    plain = np.abs(factors - 1).max() < SAME and np.abs(shifts).max() < SAME
    if plain:
        return f"the picture that was fed is the right one {said}" if said else ""
    steps = factors / STD
    begin = shifts - factors * MEAN / STD
    each = ", ".join(f"{step:.5g} × v {first:+.4g}" for step, first in zip(steps, begin, strict=True))
    where = f" {said}" if said else ""
    return f"the picture that was fed is the right one{where}, its values v (0 … 255) as {each}"
