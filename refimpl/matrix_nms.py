"""Matrix NMS, which follows SOLOv2: scores decay by overlap, all at once, and none is removed for it.

Thresholds and order are those of https://github.com/WXinlong/SOLO: ``solov2_head.py``, ``matrix_nms.py`` and
the configurations' ``test_cfg``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from refimpl.assembly import Assembled, masks_of_picture, picture_of
from refimpl.errors import ShapeError
from refimpl.inference import Placement
from refimpl.solov2 import SoloOutputs

Array = NDArray[Any]

STRIDES = (8, 8, 16, 32, 32)
"""Of each grid: a mask of no more cells than this is no instance."""
SCORE_THRESHOLD, MASK_THRESHOLD, DECAYED_THRESHOLD = 0.1, 0.5, 0.05
MOST_DECAYED, MOST = 500, 100
SIGMA = 2.0


def solo_instances(
    outputs: SoloOutputs, placement: Placement, grids: Sequence[int], index: int = 0
) -> Assembled:
    """Turn SOLOv2's outputs into instances.

    Parameters
    ----------
    outputs
        Logits, kernels (B, cells, ·) and mask features (B, kernel_dim, h, w).
    placement
        What `refimpl.inference.preprocess` returned with the input.
    grids
        Cells along a side of each grid, as in the configuration.
    index
        Which picture of the batch.

    Raises
    ------
    ShapeError, NonFiniteError
        The outputs are not those of these grids, or have NaN or infinity.
    """
    found = picture_of(outputs, index)
    if sum(grid * grid for grid in grids) != len(found["class_logits"]):
        raise ShapeError(f"class_logits {found['class_logits'].shape} are not those of grids {tuple(grids)}")
    scores = best_of_neighbours(expit(found["class_logits"]), grids)  # (cells, classes)
    cells, labels = np.nonzero(scores > SCORE_THRESHOLD)
    scores = scores[cells, labels]
    probabilities = expit(np.einsum("kd,dhw->khw", found["kernels"][cells], found["mask_features"]))
    inside = probabilities > MASK_THRESHOLD
    areas = inside.sum(axis=(1, 2))
    strides = np.repeat(STRIDES, [grid * grid for grid in grids])
    scores = scores * (probabilities * inside).sum(axis=(1, 2)) / np.maximum(areas, 1)
    order = [i for i in np.argsort(-scores, kind="stable") if areas[i] > strides[cells[i]]][:MOST_DECAYED]
    decayed = scores[order] * matrix_decay(inside[order], labels[order])
    kept = [i for i in np.argsort(-decayed, kind="stable") if decayed[i] >= DECAYED_THRESHOLD][:MOST]
    chosen = np.asarray(order, np.int64)[kept]
    masks = masks_of_picture(probabilities[chosen], placement, MASK_THRESHOLD)
    return Assembled(cells[chosen], labels[chosen], decayed[kept], masks)


def best_of_neighbours(scores: Array, grids: Sequence[int]) -> Array:
    """Scores (cells, classes), zero where the cell above, left, or above left scores more in that class."""
    kept = []
    for grid, part in zip(
        grids, np.split(scores, np.cumsum([grid * grid for grid in grids])[:-1]), strict=True
    ):
        cells = part.reshape(grid, grid, -1)
        padded = np.pad(cells, ((1, 0), (1, 0), (0, 0)), constant_values=-np.inf)
        around = (padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1])
        best = np.maximum.reduce([cells, *around])
        kept.append(np.where(best == cells, cells, 0).reshape(part.shape))
    return np.concatenate(kept)


def matrix_decay(masks: Array, labels: Array) -> Array:
    """Factors (K,) by which scores decay, for masks (K, h, w) bool of some class, the best first.

    A mask decays by its overlap with each better one of its class, less as that one is itself overlapped:
    ``minᵢ exp(−σ·IoUᵢⱼ²) / exp(−σ·(maxₖ IoUₖᵢ)²)``.
    """
    if not len(masks):
        return np.ones(0)
    flat = masks.reshape(len(masks), -1).astype(np.float64)
    common = flat @ flat.T
    areas = np.diag(common)
    overlap = common / np.maximum(areas[:, None] + areas - common, 1)
    overlap = np.triu(overlap * (labels[:, None] == labels), 1)  # of each with the better ones
    covered = overlap.max(axis=0)
    decay: Array = np.exp(-SIGMA * (overlap**2 - covered[:, None] ** 2)).min(axis=0)
    return decay
