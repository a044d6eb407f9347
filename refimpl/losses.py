"""The losses of training (paper 3.5 and 3.6; details of public SparseInst), each with its analytic gradient.

One function per term. A term is its value and its gradient with respect to the logits it was given. Sums are
over logits, never over probabilities, so that no logit is too large: ``-log σ(x) = softplus(-x)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are loaded at their first use
from numpy.typing import NDArray

from refimpl.errors import ShapeError, TargetError
from refimpl.matching import (
    DICE_EPSILON,
    Matching,
    Target,
    check_target,
    masks_at,
    match_predictions,
    squared_norm,
)
from refimpl.predictions import Predictions, check_predictions, require_finite

Array = NDArray[Any]

CLASS_WEIGHT = 2.0
MASK_WEIGHT = 2.0
OBJECTNESS_WEIGHT = 1.0
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
IOU_EPSILON = 1e-6


class Term(NamedTuple):
    """A loss and its gradient with respect to the logits it is a function of, of their shape."""

    value: np.floating[Any]
    gradient: Array


class Gradients(NamedTuple):
    """Gradient of a total loss with respect to each prediction."""

    class_logits: Array
    objectness: Array
    masks: Array


@dataclass(frozen=True)
class Losses:
    """The terms of Eq. 3 for a batch, unweighted, and the matching they rest on.

    Attributes
    ----------
    classification : Term
        Gradient (B, N, classes).
    dice, pixel : Term
        Gradient (B, N, h, w).
    objectness : Term
        Gradient (B, N, 1).
    matchings : list of Matching
        One per picture.
    """

    classification: Term
    dice: Term
    pixel: Term
    objectness: Term
    matchings: list[Matching]

    @property
    def total(self) -> np.floating[Any]:
        """L = 2·L_cls + 2·(L_dice + L_bce) + 1·L_obj (Eq. 3)."""
        mask = self.dice.value + self.pixel.value
        weighted = CLASS_WEIGHT * self.classification.value + MASK_WEIGHT * mask
        return weighted + OBJECTNESS_WEIGHT * self.objectness.value

    def gradients(self) -> Gradients:
        """Gradient of the total with respect to the predictions."""
        return Gradients(
            CLASS_WEIGHT * self.classification.gradient,
            OBJECTNESS_WEIGHT * self.objectness.gradient,
            MASK_WEIGHT * (self.dice.gradient + self.pixel.gradient),
        )


@dataclass(frozen=True)
class TemporalLosses:
    """The losses of frames t and t+δ, and the mask losses of the queries passed from t to t+δ (paper 3.5).

    Attributes
    ----------
    first, second : Losses
        Of frame t and of frame t+δ, each as for a picture.
    passed_dice, passed_pixel : Term
        Gradient (B, N, h, w) with respect to the passed masks.
    """

    first: Losses
    second: Losses
    passed_dice: Term
    passed_pixel: Term

    @property
    def total(self) -> np.floating[Any]:
        """Both frames' totals plus twice the passed masks' losses."""
        passed = self.passed_dice.value + self.passed_pixel.value
        return self.first.total + self.second.total + MASK_WEIGHT * passed

    def passed_gradient(self) -> Array:
        """Gradient of the total with respect to the passed masks' logits: (B, N, h, w)."""
        return MASK_WEIGHT * (self.passed_dice.gradient + self.passed_pixel.gradient)


def losses(predictions: Predictions, targets: Sequence[Target]) -> Losses:
    """Match the predictions to the ground truth and compute every term of Eq. 3.

    Parameters
    ----------
    predictions : Predictions
        Logits: ``class_logits`` (B, N, classes), ``objectness`` (B, N, 1), ``masks`` (B, N, h, w).
    targets : B Targets
        An empty one adds only its queries' classification loss. If none has an instance, the mask and
        objectness losses are 0 and so are their gradients, and the classification loss is divided by 1.

    Raises
    ------
    ShapeError, NonFiniteError, TargetError
        The predictions do not fit together or have NaN or infinity; a target does not suit them.
    """
    masks = _checked_masks(predictions, targets)
    matchings = [
        match_predictions(class_logits, mask_logits, target.labels, mask)
        for class_logits, mask_logits, target, mask in zip(
            predictions.class_logits, predictions.masks, targets, masks, strict=True
        )
    ]
    instances = _instances(targets)
    classes = one_hot(predictions.class_logits, targets, matchings)
    matched, truth = _matched(predictions.masks, masks, matchings)
    dice, pixel = _mask_terms(predictions.masks, matched, truth, matchings, instances)
    queries = _queries(matchings)
    objectness = objectness_loss(predictions.objectness[queries][:, 0], mask_iou(matched, truth))
    return Losses(
        focal_loss(predictions.class_logits, classes, instances),
        dice,
        pixel,
        _scattered(objectness, predictions.objectness, queries),
        matchings,
    )


def temporal_losses(
    first: Predictions,
    second: Predictions,
    passed_masks: Array,
    first_targets: Sequence[Target],
    second_targets: Sequence[Target],
) -> TemporalLosses:
    """Compute the losses of training on frames t and t+δ by temporal query passing (paper 3.5).

    Parameters
    ----------
    first, second : Predictions
        Of frames t and t+δ.
    passed_masks : (B, N, h, w)
        Mask logits of frame t+δ when frame t's global queries replace its own as input of the local decoder.
    first_targets, second_targets : B Targets each

    Raises
    ------
    ShapeError, NonFiniteError, TargetError
        As `losses`; or the passed masks are not of the shape of the second frame's.
    """
    if passed_masks.shape != second.masks.shape:
        raise ShapeError(
            f"the passed masks have shape {passed_masks.shape}, the second frame's {second.masks.shape}; "
            "they are masks of the same frame, give them the same shape"
        )
    require_finite(passed_masks, "the passed masks")
    first_losses, second_losses = losses(first, first_targets), losses(second, second_targets)
    # The passed masks share the targets that frame t+δ's own masks were matched to.
    matchings = second_losses.matchings
    masks = _checked_masks(second, second_targets)
    matched, truth = _matched(passed_masks, masks, matchings)
    passed = _mask_terms(passed_masks, matched, truth, matchings, _instances(second_targets))
    return TemporalLosses(first_losses, second_losses, *passed)


def focal_loss(logits: Array, targets: Array, instances: int) -> Term:
    """Sigmoid focal loss, summed and divided by the number of instances (Lin et al. 2017; α = 0.25, γ = 2).

    ``α_t (1 - p_t)^γ · -log p_t`` of arrays of one shape, ``targets`` 0 or 1.
    """
    side = 2 * targets - 1
    true_logit = side * logits
    wrong = scipy.special.expit(-true_logit)  # 1 - p_t
    loss = softplus(-true_logit)  # -log p_t
    alpha = np.where(targets > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA).astype(logits.dtype)
    factor = alpha * wrong**FOCAL_GAMMA
    slope = FOCAL_GAMMA * (1 - wrong) * loss + wrong
    return Term((factor * loss).sum() / instances, -side * factor * slope / instances)


def dice_loss(logits: Array, targets: Array, instances: int) -> Term:
    """``1 - dice``, summed over the matched pairs and divided by the number of instances.

    ``logits`` and ``targets`` (M, pixels); dice = 2·Σpg / (Σp² + Σg² + 1e-4) with p = sigmoid(logits).
    """
    p = scipy.special.expit(logits)
    denominator = squared_norm(p) + squared_norm(targets) + DICE_EPSILON
    dice = 2 * np.einsum("ij,ij->i", p, targets) / denominator
    slope = 2 * (dice[:, None] * p - targets) / denominator[:, None]
    return Term((1 - dice).sum() / instances, slope * p * (1 - p) / instances)


def pixel_loss(logits: Array, targets: Array) -> Term:
    """Binary cross-entropy of the mask's pixels, the mean over all matched masks: (M, pixels) each."""
    return _binary_cross_entropy(logits, targets)


def objectness_loss(logits: Array, iou: Array) -> Term:
    """Binary cross-entropy of the objectness against the mask's IoU, a constant: mean over (M,) matches."""
    return _binary_cross_entropy(logits, iou)


def mask_iou(logits: Array, targets: Array) -> Array:
    """IoU of ``sigmoid ≥ 0.4`` with the ground truth ``> 0.5``, eps 1e-6: (M, pixels) → (M,)."""
    predicted, truth = scipy.special.expit(logits) >= 0.4, targets > 0.5
    intersection = np.count_nonzero(predicted & truth, axis=1)
    union = np.count_nonzero(predicted | truth, axis=1)
    return (intersection / (union + IOU_EPSILON)).astype(logits.dtype)


def softplus(x: Array) -> Array:
    """log(1 + eˣ), without overflow."""
    result: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


def one_hot(class_logits: Array, targets: Sequence[Target], matchings: Sequence[Matching]) -> Array:
    """Return 1 at the label of each matched query and 0 elsewhere, like ``class_logits``."""
    classes = np.zeros_like(class_logits)
    for picture, target, matching in zip(classes, targets, matchings, strict=True):
        picture[matching.queries, target.labels[matching.instances].astype(np.intp)] = 1
    return classes


def _binary_cross_entropy(logits: Array, targets: Array) -> Term:
    """Mean of ``softplus(x) - x·g``; 0 if there is nothing to average."""
    count = max(logits.size, 1)
    return Term(
        (softplus(logits) - logits * targets).sum() / count, (scipy.special.expit(logits) - targets) / count
    )


def _mask_terms(
    logits: Array, matched: Array, truth: Array, matchings: Sequence[Matching], instances: int
) -> tuple[Term, Term]:
    """L_dice and L_bce of the matched masks, with gradients (B, N, h, w)."""
    queries = _queries(matchings)
    dice, pixel = dice_loss(matched, truth, instances), pixel_loss(matched, truth)
    return _scattered(dice, logits, queries), _scattered(pixel, logits, queries)


def _scattered(term: Term, logits: Array, queries: tuple[Array, Array]) -> Term:
    """Put the gradient of the matched queries at their places in that of all, which is 0 elsewhere."""
    gradient = np.zeros_like(logits)
    gradient[queries] = term.gradient.reshape(-1, *logits.shape[2:])
    return Term(term.value, gradient)


def _matched(
    mask_logits: Array, masks: Sequence[Array], matchings: Sequence[Matching]
) -> tuple[Array, Array]:
    """Return the matched queries' mask logits and their ground truth, (M, pixels) each, M over the batch."""
    logits = mask_logits[_queries(matchings)]
    truth = np.concatenate([mask[m.instances] for mask, m in zip(masks, matchings, strict=True)])
    pixels = mask_logits.shape[2] * mask_logits.shape[3]
    return logits.reshape(-1, pixels), truth.reshape(-1, pixels)


def _queries(matchings: Sequence[Matching]) -> tuple[Array, Array]:
    """Return the batch index and the query index of every match: (M,) each."""
    pictures = np.repeat(np.arange(len(matchings)), [len(m.queries) for m in matchings])
    return pictures, np.concatenate([m.queries for m in matchings])


def _instances(targets: Sequence[Target]) -> int:
    """Return the number of instances that losses are divided by, at least 1."""
    return max(1, sum(len(target.labels) for target in targets))


def _checked_masks(predictions: Predictions, targets: Sequence[Target]) -> list[Array]:
    """Check everything that was given and return each target's masks at mask resolution."""
    check_predictions(predictions)
    batch, _, height, width = predictions.masks.shape
    if len(targets) != batch:
        raise TargetError(f"{len(targets)} targets for a batch of {batch}; give one per picture")
    for target in targets:
        check_target(target, predictions.class_logits.shape[2], (height, width))
    return [masks_at(target.masks, (height, width), predictions.masks.dtype) for target in targets]
