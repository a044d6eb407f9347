"""What follows YOLACT: Fast NMS, masks as sums of prototypes, cut off at their boxes.

Thresholds and order are those of https://github.com/dbolya/yolact: ``detection.py``, ``output_utils.py``,
``box_utils.py`` and ``yolact_base_config``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from refimpl.assembly import Assembled, picture_of
from refimpl.detections import box_overlaps
from refimpl.errors import ShapeError
from refimpl.inference import Placement, Size, resize_plane
from refimpl.yolact import RATIOS, YolactOutputs

Array = NDArray[Any]

SIDE = 550
"""Of the input, in pixels: what the priors' sizes are divided by."""
SIZES = (24, 48, 96, 192, 384)
"""Of the priors of each level, in pixels."""
VARIANCES = (0.1, 0.2)
SCORE_THRESHOLD, OVERLAP_THRESHOLD, MASK_THRESHOLD = 0.05, 0.5, 0.5
MOST_OF_A_CLASS, MOST = 200, 100
PADDING = 1
FINEST = 8


def yolact_instances(outputs: YolactOutputs, placement: Placement, index: int = 0) -> Assembled:
    """Turn YOLACT's outputs into instances.

    Parameters
    ----------
    outputs
        What the network gives.
    placement
        What `refimpl.inference.preprocess` returned with the input, which the public code does not pad
        (`refimpl.rival_pictures.preparation_of`).
    index
        Which picture of the batch.

    Raises
    ------
    ShapeError, NonFiniteError
        The input is padded; the outputs are not those of such an input, or have NaN or infinity.
    """
    if placement.padded != placement.resized:
        raise ShapeError(
            f"the input is padded to {placement.padded}; YOLACT's is all picture: take its own preparation"
        )
    found = picture_of(outputs, index)
    priors = prior_boxes(placement.padded)
    if len(priors) != len(found["class_logits"]):
        raise ShapeError(f"class_logits {found['class_logits'].shape} are not those of {placement.padded}")
    scores = softmax(found["class_logits"], axis=1)[:, 1:]
    likely = np.flatnonzero(scores.max(axis=1) > SCORE_THRESHOLD)
    boxes = decoded(found["boxes"][likely], priors[likely])
    rows, labels = fast_nms(boxes, scores[likely])
    masks = cropped(
        expit(np.einsum("kc,chw->khw", found["coefficients"][likely[rows]], found["prototypes"])), boxes[rows]
    )
    places = likely[rows]
    resized = [resize_plane(mask, placement.original) > MASK_THRESHOLD for mask in masks]
    pictures = np.array(resized, bool).reshape(len(masks), *placement.original)
    return Assembled(places, labels, scores[places, labels], pictures)


def prior_boxes(padded: Size, side: int = SIDE) -> Array:
    """Return the priors (n, 4) as x, y of the centre, width, height, all as shares of the input.

    They are square, whatever their ratio, as the public code's are for its checkpoints' sake.

    Parameters
    ----------
    padded
        Height and width of the input.
    side
        The configuration's input size, which the sizes of the priors are meant for.
    """
    height, width = (-(-edge // FINEST) for edge in padded)
    levels = []
    for size in SIZES:
        rows, columns = ((np.arange(count) + 0.5) / count for count in (height, width))
        y, x = np.meshgrid(rows, columns, indexing="ij")
        edges = size * np.sqrt(RATIOS) / side
        centres = np.stack([x.ravel(), y.ravel()], axis=1).repeat(len(RATIOS), axis=0)
        levels.append(np.concatenate([centres, np.tile(edges, height * width)[:, None].repeat(2, 1)], axis=1))
        height, width = -(-height // 2), -(-width // 2)
    return np.concatenate(levels)


def decoded(changes: Array, priors: Array) -> Array:
    """Boxes (n, 4), x0, y0, x1, y1, of changed priors: centres by shares of the size, sizes by powers."""
    centres = priors[:, :2] + changes[:, :2] * VARIANCES[0] * priors[:, 2:]
    sizes = priors[:, 2:] * np.exp(changes[:, 2:] * VARIANCES[1])
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def fast_nms(boxes: Array, scores: Array) -> tuple[Array, Array]:
    """Return row and class of what remains of boxes (n, 4) with scores (n, classes), the best first.

    Of each class the best 200; one goes if it overlaps any better one, even one that goes itself. No score is
    too low: the public code leaves that out.
    """
    rows, labels = [], []
    for label, column in enumerate(scores.T):
        order = np.argsort(-column, kind="stable")[:MOST_OF_A_CLASS]
        overlaps = np.triu(box_overlaps(boxes[order], boxes[order]), 1)
        kept = order[overlaps.max(axis=0, initial=0) <= OVERLAP_THRESHOLD]
        rows.append(kept)
        labels.append(np.full(len(kept), label))
    row, of_class = np.concatenate(rows), np.concatenate(labels)
    best = np.argsort(-scores[row, of_class], kind="stable")[:MOST]
    return row[best], of_class[best]


def cropped(masks: Array, boxes: Array) -> Array:
    """Masks (K, h, w), zero outside their boxes (K, 4), which are shares of them and given a cell around."""
    height, width = masks.shape[1:]
    sides = np.array([width, height])
    corners = boxes.reshape(-1, 2, 2) * sides
    first = np.maximum(corners.min(axis=1) - PADDING, 0)
    last = np.minimum(corners.max(axis=1) + PADDING, sides)
    inside = [
        (np.arange(side) >= first[:, axis, None]) & (np.arange(side) < last[:, axis, None])
        for axis, side in enumerate((width, height))
    ]
    cut: Array = masks * (inside[1][:, :, None] & inside[0][:, None, :])
    return cut
