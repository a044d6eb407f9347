"""What follows Mask R-CNN's first stage: proposals, classes and boxes of them, masks of what remains.

Thresholds and order are those of torchvision, https://github.com/pytorch/vision: ``rpn.py``,
``roi_heads.py``, ``anchor_utils.py``, ``poolers.py`` and the defaults of ``mask_rcnn.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from refimpl.assembly import Assembled, picture_of
from refimpl.box_nms import suppressed
from refimpl.errors import ShapeError
from refimpl.inference import Placement, Size, resize_plane
from refimpl.maskrcnn import (
    CANONICAL_LEVEL,
    CANONICAL_SIDE,
    LEVELS,
    NUDGE,
    ProposalOutputs,
    classified_regions,
    masked_regions,
)
from refimpl.model import Network
from refimpl.scope import Scope

Array = NDArray[Any]

SIDES, RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
MOST_OF_A_LEVEL, MOST_PROPOSALS, MOST = 1000, 1000, 100
PROPOSAL_OVERLAP, OVERLAP = 0.7, 0.5
SCORE_THRESHOLD, MASK_THRESHOLD = 0.05, 0.5
SMALLEST_PROPOSAL, SMALLEST = 1e-3, 1e-2
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LARGEST_GROWTH = math.log(1000 / 16)


def maskrcnn_instances(
    network: Network, outputs: ProposalOutputs, placement: Placement, index: int = 0
) -> Assembled:
    """Run the second stage.

    Parameters
    ----------
    network
        Whose heads run.
    outputs
        What it gave.
    placement
        What `refimpl.inference.preprocess` returned with the input.
    index
        Which picture of the batch.

    Raises
    ------
    ShapeError, NonFiniteError
        The outputs are not those of such an input, or have NaN or infinity.
    """
    found = picture_of(outputs, index)
    levels = [found[f"level{number}"][None] for number in LEVELS]
    regions = proposals(found, placement)
    w, config = Scope(network.weights), network.config
    if not len(regions):
        return Assembled(*(np.zeros(0, np.int64),) * 2, np.zeros(0), np.zeros((0, *placement.original), bool))
    logits, changes = _by_level(lambda each: classified_regions(levels, each, w, config), regions)
    scores = softmax(logits, axis=1)
    boxes = decoded(changes.reshape(len(regions), -1, 4), regions[:, None], BOX_WEIGHTS)
    rows, labels = np.nonzero(scores > SCORE_THRESHOLD)
    rows, labels = rows[labels > 0], labels[labels > 0]
    chosen, likely = clipped(boxes[rows, labels], placement.resized), scores[rows, labels]
    large = (chosen[:, 2:] - chosen[:, :2] >= SMALLEST).all(axis=1)
    rows, labels, chosen, likely = rows[large], labels[large], chosen[large], likely[large]
    kept = suppressed(chosen, likely, labels, OVERLAP)[:MOST]
    masks = np.zeros((0, 28, 28))
    if len(kept):
        (all_masks,) = _by_level(lambda each: (masked_regions(levels, each, w, config),), chosen[kept])
        masks = expit(all_masks[np.arange(len(kept)), labels[kept]])
    height, width = placement.original
    scale = np.array([width / placement.resized[1], height / placement.resized[0]] * 2)
    pasted = [
        paste(mask, box, (height, width)) for mask, box in zip(masks, chosen[kept] * scale, strict=True)
    ]
    pictures = np.array(pasted, bool).reshape(len(kept), height, width)
    return Assembled(rows[kept], labels[kept] - 1, likely[kept], pictures)


def anchors(padded: Size, sizes: Sequence[Size]) -> list[Array]:
    """Return the anchors (n, 4) of each level, three at every position's first pixel, rounded to pixels."""
    found = []
    ratios = np.sqrt(RATIOS)
    for side, (height, width) in zip(SIDES, sizes, strict=True):
        half = np.stack([side / ratios, side * ratios], axis=1) / 2
        base = np.round(np.concatenate([-half, half], axis=1))
        strides = padded[1] // width, padded[0] // height
        y, x = np.meshgrid(np.arange(height) * strides[1], np.arange(width) * strides[0], indexing="ij")
        shifts = np.stack([x.ravel(), y.ravel()] * 2, axis=1)
        found.append((shifts[:, None] + base).reshape(-1, 4))
    return found


def proposals(found: dict[str, Array], placement: Placement) -> Array:
    """Return the regions (n, 4) worth looking at, the likeliest first.

    Of each level the best 1000 are cut off at the picture's edges and suppressed above IoU 0.7 within their
    level; of all levels the best 1000.
    """
    sizes = [found[f"level{number}"].shape[1:] for number in LEVELS]
    sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    by_level = anchors(placement.padded, sizes)
    if sum(map(len, by_level)) != len(found["objectness"]):
        raise ShapeError(f"objectness {found['objectness'].shape} is not that of {placement.padded}")
    level = np.repeat(np.arange(len(by_level)), [len(each) for each in by_level])
    objectness = found["objectness"][:, 0]
    order = np.argsort(-objectness, kind="stable")
    best = np.concatenate([order[level[order] == i][:MOST_OF_A_LEVEL] for i in range(len(by_level))])
    boxes = decoded(found["boxes"][best], np.concatenate(by_level)[best], (1.0, 1.0, 1.0, 1.0))
    boxes = clipped(boxes, placement.resized)
    large = (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_PROPOSAL).all(axis=1)
    boxes, best = boxes[large], best[large]
    kept = suppressed(boxes, expit(objectness[best]), level[best], PROPOSAL_OVERLAP)[:MOST_PROPOSALS]
    return boxes[kept]


def decoded(changes: Array, boxes: Array, weights: Sequence[float]) -> Array:
    """Boxes (…, 4) changed: centres by shares of the size, sizes by powers, each divided by its weight."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    moves = changes / np.asarray(weights)
    centres = boxes[..., :2] + 0.5 * sizes + moves[..., :2] * sizes
    halves = 0.5 * np.exp(np.minimum(moves[..., 2:], LARGEST_GROWTH)) * sizes
    return np.concatenate([centres - halves, centres + halves], axis=-1)


def clipped(boxes: Array, size: Size) -> Array:
    """Boxes (n, 4) cut off at the edges of a picture."""
    height, width = size
    return np.clip(boxes, 0, [width, height, width, height])


def level_of(regions: Array) -> Array:
    """Return which level (0…3) each region is sampled on: one coarser for every doubling of its side."""
    sides = np.sqrt((regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1]))
    number = np.floor(CANONICAL_LEVEL + np.log2(sides / CANONICAL_SIDE) + NUDGE)
    return np.clip(number, LEVELS[0], LEVELS[-1]).astype(np.int64) - LEVELS[0]


def _by_level(heads: Callable[[list[Array]], tuple[Array, ...]], regions: Array) -> tuple[Array, ...]:
    """Run heads on the regions of each level, and put their results back in order."""
    level = level_of(regions)
    order = np.argsort(level, kind="stable")
    results = heads([regions[level == i] for i in range(len(LEVELS))])
    return tuple(result[np.argsort(order)] for result in results)


def paste(mask: Array, box: Array, size: Size) -> Array:
    """Put a mask's probabilities (28, 28) in its box of a picture: bool (H, W).

    A cell of zeros is put around mask and box; the box is cut to whole pixels, and includes its last.
    """
    padded = np.pad(mask, 1)
    scale = len(padded) / len(mask)
    centre, half = (box[:2] + box[2:]) * 0.5, (box[2:] - box[:2]) * 0.5 * scale
    x0, y0, x1, y1 = np.concatenate([centre - half, centre + half]).astype(np.int64)
    resized = resize_plane(padded, (max(int(y1 - y0) + 1, 1), max(int(x1 - x0) + 1, 1)))
    picture = np.zeros(size, bool)
    top, bottom, left, right = max(y0, 0), min(y1 + 1, size[0]), max(x0, 0), min(x1 + 1, size[1])
    inside = resized[top - y0 : bottom - y0, left - x0 : right - x0]
    picture[top:bottom, left:right] = inside > MASK_THRESHOLD
    return picture
