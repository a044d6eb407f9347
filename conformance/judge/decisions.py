"""Decisions, what users ship of the logits: a flip within the allowed error is a tie, else a fault."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy  # its parts are loaded at their first use

from conformance.candidates.candidate import NEEDED_OUTPUTS
from conformance.reports.report import Decision, MarginHistogram, MaskPicture
from refimpl.ops.operation import Array

KEEP_THRESHOLD, MASK_THRESHOLD = 0.005, 0.45
"""Those of `refimpl.inference.postprocess`."""
EDGES = tuple(half / 2 for half in range(-6, 15))
"""log₁₀(margin / allowed error), in halves of a decade."""
PICTURE = str.maketrans("012345", ".#-+<>")


def compare_decisions(
    reference: Mapping[str, Array], given: Mapping[str, Array], allowed: Mapping[str, float]
) -> list[Decision]:
    """Compare kept instances, labels and mask pixels, of the last those at the masks' boundaries apart too.

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
        *_pixels(reference["masks"][kept], given["masks"][kept], allowed["masks"], np.argwhere(kept)),
    ]


def _scores(outputs: Mapping[str, Array], shift: Mapping[str, float] | None = None) -> Array:
    """Return the class scores (B, N), all logits moved by ``shift``."""
    moved = shift or {}
    best = outputs["class_logits"].astype(np.float64).max(axis=-1) + moved.get("class_logits", 0.0)
    present = outputs["objectness"][..., 0].astype(np.float64) + moved.get("objectness", 0.0)
    return np.asarray(np.sqrt(scipy.special.expit(best) * scipy.special.expit(present)))


def _kept(
    reference: Mapping[str, Array], given: Mapping[str, Array], allowed: Mapping[str, float]
) -> Decision:
    """Whether a query's score is above the threshold; the score rises with either logit."""
    scores = _scores(reference)
    low, high = (
        _scores(reference, {name: sign * allowed[name] for name in NEEDED_OUTPUTS}) for sign in (-1, 1)
    )
    tied = (low <= KEEP_THRESHOLD) & (high >= KEEP_THRESHOLD)
    kept = scores > KEEP_THRESHOLD
    flipped = kept != (_scores(given) > KEEP_THRESHOLD)
    reach = np.where(kept, scores - low, high - scores)
    return decision_of("kept instances", flipped, tied, np.abs(scores - KEEP_THRESHOLD), reach, "score")


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
    flipped = reference.argmax(axis=-1) != given.argmax(axis=-1)
    return decision_of("labels", flipped, tied, margin, 2 * allowed, "logits")


def _pixels(reference: Array, given: Array, allowed: float, places: Array) -> list[Decision]:
    """Whether a pixel belongs to the mask, at the masks' own resolution; then the same at the boundaries."""
    threshold = float(scipy.special.logit(MASK_THRESHOLD))
    margin = np.abs(reference - threshold)
    inside, other = reference > threshold, given > threshold
    union = (inside | other).sum(axis=(-2, -1))
    overlap = np.where(union > 0, (inside & other).sum(axis=(-2, -1)) / np.maximum(union, 1), 1.0)
    flipped, tied = inside != other, margin <= allowed
    picture = _picture(inside, flipped, tied, overlap, places)
    at = boundary(inside)
    return [
        decision_of("mask pixels", flipped, tied, margin, allowed, "logits", overlap, picture),
        decision_of("boundary pixels", flipped[at], tied[at], margin[at], allowed, "logits"),
    ]


def boundary(inside: Array) -> Array:
    """Return which pixels of masks (…, h, w) have a 4-neighbour on the other side."""
    edge = np.zeros_like(inside)
    for axis in (-2, -1):
        ahead, behind = (np.moveaxis(edge, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        along = np.moveaxis(inside, axis, 0)
        differs = along[:-1] != along[1:]
        ahead |= differs
        behind |= differs
    return edge


def _picture(inside: Array, flipped: Array, tied: Array, overlap: Array, places: Array) -> MaskPicture | None:
    """Return the instance with the smallest IoU; of equals the first that has a mask."""
    if not len(overlap):
        return None
    worst = int(np.lexsort((~inside.any(axis=(-2, -1)), overlap))[0])
    left, out = inside[worst], flipped[worst]
    digits = np.where(out, np.where(left, 2, 3) + 2 * tied[worst], left.astype(int))
    rows = ["".join(map(str, row)).translate(PICTURE) for row in digits.tolist()]
    image, query = places[worst].tolist()
    return MaskPicture(image, query, float(overlap[worst]), rows)


def decision_of(
    kind: str,
    flipped: Array,
    tied: Array,
    margin: Array,
    allowed: Array | float,
    unit: str,
    overlap: Array | None = None,
    picture: MaskPicture | None = None,
) -> Decision:
    """Return one kind of decision, counted.

    Parameters
    ----------
    kind, unit, picture
        As of `Decision`.
    flipped, tied, margin
        Of each decision whether it comes out otherwise, whether the allowed error explains that, and its
        margin; arrays of one shape.
    allowed
        By how much rounding may move what the margin is measured of; broadcasts to their shape.
    overlap
        IoU of each mask.
    """
    finite = margin[np.isfinite(margin)]
    wrong = flipped & ~tied
    reach = np.broadcast_to(np.asarray(allowed, np.float64), margin.shape)
    return Decision(
        kind=kind,
        count=int(flipped.size),
        ties=int(np.count_nonzero(flipped & tied)),
        flips=int(np.count_nonzero(wrong)),
        smallest_margin=float(finite.min()) if finite.size else None,
        largest_flipped_margin=float(margin[wrong].max()) if wrong.any() else None,
        smallest_iou=None if overlap is None else float(overlap.min(initial=1.0)),
        unit=unit,
        allowed=float(reach.max()) if reach.size else None,
        near=int(np.count_nonzero(margin <= reach)),
        histogram=_histogram(margin, reach, flipped & tied, wrong) if margin.size else None,
        picture=picture,
    )


def _histogram(margin: Array, allowed: Array, tied: Array, wrong: Array) -> MarginHistogram:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.isinf(margin), np.inf, np.where(margin > 0, margin / allowed, 0.0))
        decades = np.log10(ratio).clip(EDGES[0], EDGES[-1])
    groups = (~(tied | wrong), tied, wrong)
    counts = (np.histogram(decades[group], EDGES)[0].tolist() for group in groups)
    return MarginHistogram(list(EDGES), *counts)
