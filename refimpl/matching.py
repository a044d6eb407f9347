"""Label assignment for training (paper 3.6; details of public SparseInst): each instance finds its query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are loaded at their first use
from numpy.typing import DTypeLike, NDArray

from refimpl.errors import TargetError
from refimpl.predictions import require_finite

Array = NDArray[Any]

DICE_POWER = 0.8
CLASS_POWER = 0.2
DICE_EPSILON = 1e-4


@dataclass(frozen=True)
class Target:
    """The ground truth of one picture; it may be empty.

    Attributes
    ----------
    labels : (G,) int
        Class index of each instance, from 0.
    masks : (G, H, W) bool, or any dtype with values 0 and 1 only
        At the size of the network's input, padding included, or any whole multiple of the predicted masks'.
    """

    labels: Array
    masks: Array


class Matching(NamedTuple):
    """Pairs of a query and the instance it must predict: two (M,) arrays of indices, M = min(N, G)."""

    queries: Array
    instances: Array


def match_predictions(class_logits: Array, mask_logits: Array, labels: Array, masks: Array) -> Matching:
    """Assign queries to instances one-to-one so that the sum of matching scores is greatest.

    ``class_logits`` (N, classes), ``mask_logits`` (N, h, w), ``labels`` (G,) and ``masks`` (G, h, w), the
    ground truth at mask resolution, from `masks_at`.
    """
    return match(matching_score(class_logits, mask_logits, labels, masks))


def match(score: Array) -> Matching:
    """Hungarian assignment of a score matrix (N, G), maximised."""
    return Matching(*scipy.optimize.linear_sum_assignment(score, maximize=True))


def matching_score(class_logits: Array, mask_logits: Array, labels: Array, masks: Array) -> Array:
    """C = dice(mask, instance)^0.8 · sigmoid(class)[label]^0.2: (N, G)."""
    pixels = mask_logits[0].size
    similarity = dice_matrix(scipy.special.expit(mask_logits.reshape(-1, pixels)), masks.reshape(-1, pixels))
    score: Array = (
        similarity**DICE_POWER * scipy.special.expit(class_logits[:, labels.astype(np.intp)]) ** CLASS_POWER
    )
    return score


def dice_matrix(probabilities: Array, masks: Array) -> Array:
    """2·Σpg / (Σp² + Σg² + 1e-4) of every pair: (N, pixels), (G, pixels) → (N, G)."""
    squares = squared_norm(probabilities)[:, None] + squared_norm(masks)
    dice: Array = 2 * (probabilities @ masks.T) / (squares + DICE_EPSILON)
    return dice


def squared_norm(rows: Array) -> Array:
    """Sum of squares of each row: (M, pixels) → (M,)."""
    squares: Array = np.einsum("ij,ij->i", rows, rows)
    return squares


def masks_at(masks: Array, size: tuple[int, int], dtype: DTypeLike) -> Array:
    """Resize binary masks (G, H, W) bilinearly to ``size`` (h, w), H = k·h and W = k·w.

    With half-pixel centres and a whole factor k, every sample lies midway between the pixels ⌊(k-1)/2⌋
    and ⌊k/2⌋ of its cell along both axes, so the result is the mean of four strided views, exactly.
    """
    if not len(masks):
        return np.zeros((0, *size), dtype=dtype)
    factor = masks.shape[1] // size[0]
    low, high = (factor - 1) // 2, factor // 2
    rows = masks[:, low::factor].astype(np.uint8) + masks[:, high::factor].astype(np.uint8)
    return (rows[:, :, low::factor] + rows[:, :, high::factor]).astype(dtype) / 4


def check_target(target: Target, classes: int, size: tuple[int, int]) -> None:
    """Raise `TargetError` unless ``target`` suits predictions of so many classes and masks of ``size``."""
    labels, masks = target.labels, target.masks
    if masks.ndim != 3 or labels.shape != masks.shape[:1]:
        raise TargetError(
            f"labels {labels.shape} and masks {masks.shape} do not fit; expected (G,) and (G, H, W)"
        )
    if not len(labels):
        return
    _check_labels(labels, classes)
    _check_size(masks.shape[1:], size)
    _check_binary(masks)


def _check_labels(labels: Array, classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise TargetError(f"labels are {labels.dtype}; give whole numbers")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise TargetError(
            f"label {labels[wrong[0]]} of instance {wrong[0]} is out of range; expected 0 to {classes - 1}"
        )


def _check_size(given: tuple[int, ...], size: tuple[int, int]) -> None:
    factor = given[0] // size[0]
    if factor == 0 or given != (factor * size[0], factor * size[1]):
        raise TargetError(
            f"masks of {given[0]}×{given[1]} do not fit predicted masks of {size[0]}×{size[1]}; give them at "
            "the size of the network's input, padded with zeros at the bottom and at the right"
        )


def _check_binary(masks: Array) -> None:
    if masks.dtype == bool:
        return
    if masks.dtype.kind == "f":
        require_finite(masks, "the target's masks")
    # Least and greatest first: for integers they decide, and they cost no temporary.
    binary = masks.dtype.kind in "iuf" and masks.min() >= 0 and masks.max() <= 1
    if not binary or (masks.dtype.kind == "f" and not np.isin(masks, (0, 1)).all()):
        raise TargetError(f"masks of {masks.dtype} have values other than 0 and 1; threshold them first")
