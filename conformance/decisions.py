"""Decisions: what users ship of the logits. A flip within the allowed error is a tie; any other is a
fault."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import expit, logit

from conformance.report import Decision
from refimpl.ops.operation import Array

NEEDED_OUTPUTS = ("class_logits", "objectness", "masks")
"""What inference needs of a network; the others may be left inside an export."""
KEEP_THRESHOLD, MASK_THRESHOLD = 0.005, 0.45
"""Those of `refimpl.inference.postprocess`."""


def compare_decisions(
    reference: Mapping[str, Array], given: Mapping[str, Array], allowed: Mapping[str, float]
) -> list[Decision]:
    """Compare labels, kept instances and mask pixels.

    Parameters
    ----------
    reference, given
        Output → logits of one shape: ``class_logits`` (B, N, classes), ``objectness`` (B, N, 1), ``masks``
        (B, N, h, w). Without all three nothing is compared.
    allowed
        Output → by how much a correct candidate may be off.

    Returns
    -------
    list of Decision
        Of labels and masks, those of the queries that the reference keeps.
    """
    if not all(name in given for name in NEEDED_OUTPUTS):
        return []
    kept = _scores(reference) > KEEP_THRESHOLD
    return [
        _kept(reference, given, allowed),
        _labels(reference["class_logits"][kept], given["class_logits"][kept], allowed["class_logits"]),
        _pixels(reference["masks"][kept], given["masks"][kept], allowed["masks"]),
    ]


def _scores(outputs: Mapping[str, Array], shift: Mapping[str, float] | None = None) -> Array:
    """Return the class scores (B, N), all logits moved by ``shift``."""
    moved = shift or {}
    best = outputs["class_logits"].astype(np.float64).max(axis=-1) + moved.get("class_logits", 0.0)
    present = outputs["objectness"][..., 0].astype(np.float64) + moved.get("objectness", 0.0)
    return np.asarray(np.sqrt(expit(best) * expit(present)))


def _kept(
    reference: Mapping[str, Array], given: Mapping[str, Array], allowed: Mapping[str, float]
) -> Decision:
    """Whether a query's score is above the threshold; the score rises with either logit."""
    scores = _scores(reference)
    ends = [_scores(reference, {name: sign * allowed[name] for name in NEEDED_OUTPUTS}) for sign in (-1, 1)]
    tied = (ends[0] <= KEEP_THRESHOLD) & (ends[1] >= KEEP_THRESHOLD)
    flipped = (scores > KEEP_THRESHOLD) != (_scores(given) > KEEP_THRESHOLD)
    return _decision("kept instances", flipped, tied, np.abs(scores - KEEP_THRESHOLD))


def _labels(reference: Array, given: Array, allowed: float) -> Decision:
    """The best class; both it and the second may be off."""
    if reference.shape[-1] < 2:
        margin = np.full(reference.shape[:-1], np.inf)
    else:
        second, best = np.moveaxis(np.partition(reference, -2, axis=-1)[..., -2:], -1, 0)
        margin = best - second
    chosen = np.take_along_axis(reference, given.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    # How far the class the candidate chose is behind is what its error must bridge.
    tied = reference.max(axis=-1) - chosen <= 2 * allowed
    return _decision("labels", reference.argmax(axis=-1) != given.argmax(axis=-1), tied, margin)


def _pixels(reference: Array, given: Array, allowed: float) -> Decision:
    """Whether a pixel belongs to the mask, at the masks' own resolution."""
    threshold = float(logit(MASK_THRESHOLD))
    margin = np.abs(reference - threshold)
    inside, other = reference > threshold, given > threshold
    union = (inside | other).sum(axis=(-2, -1))
    overlap = (inside & other).sum(axis=(-2, -1)) / np.maximum(union, 1)
    worst = float(np.where(union > 0, overlap, 1.0).min(initial=1.0))
    return _decision("mask pixels", inside != other, margin <= allowed, margin, worst)


def _decision(
    kind: str, flipped: Array, tied: Array, margin: Array, overlap: float | None = None
) -> Decision:
    finite = margin[np.isfinite(margin)]
    wrong = flipped & ~tied
    return Decision(
        kind=kind,
        count=int(flipped.size),
        ties=int(np.count_nonzero(flipped & tied)),
        flips=int(np.count_nonzero(wrong)),
        smallest_margin=float(finite.min()) if finite.size else None,
        largest_flipped_margin=float(margin[wrong].max()) if wrong.any() else None,
        smallest_iou=overlap,
    )
