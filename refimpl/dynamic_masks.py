"""What follows CondInst: boxes decoded and suppressed, and for each that remains a network of its own.

Thresholds and order are those of https://github.com/aim-uofa/AdelaiDet: ``fcos_outputs.py``,
``dynamic_mask_head.py``, ``condinst.py``, and the defaults that ``configs/CondInst`` leaves as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from refimpl.assembly import Assembled, picture_of
from refimpl.box_nms import suppressed
from refimpl.condinst import WIDTH, CondInstOutputs, aligned_bilinear, kernel_size
from refimpl.errors import ShapeError
from refimpl.inference import Placement, Size, resize_plane

Array = NDArray[Any]

STRIDES = (8, 16, 32, 64, 128)
REACHES = (64, 128, 256, 512, 1024)
"""Of each level: what relative coordinates are divided by."""
SCORE_THRESHOLD, OVERLAP_THRESHOLD, MASK_THRESHOLD = 0.05, 0.6, 0.5
MOST_OF_A_LEVEL, MOST = 1000, 100
MASK_STRIDE, MASK_FACTOR = 8, 2


def condinst_instances(outputs: CondInstOutputs, placement: Placement, index: int = 0) -> Assembled:
    """Turn CondInst's outputs into instances.

    Parameters
    ----------
    outputs
        What the network gives.
    placement
        What `refimpl.inference.preprocess` returned with the input.
    index
        Which picture of the batch.

    Raises
    ------
    ShapeError, NonFiniteError
        The outputs are not those of such a picture, or have NaN or infinity.
    """
    found = picture_of(outputs, index)
    levels, points = locations(placement.padded)
    if len(levels) != len(found["class_logits"]):
        raise ShapeError(f"class_logits {found['class_logits'].shape} are not those of {placement.padded}")
    places, labels, scores = candidates(found, levels)
    distances = found["boxes"][places] * np.take(STRIDES, levels[places])[:, None]
    boxes = np.concatenate([points[places] - distances[:, :2], points[places] + distances[:, 2:]], axis=1)
    kept = suppressed(boxes, scores, labels, OVERLAP_THRESHOLD)[:MOST]
    kept = kept[_on_picture(boxes[kept], placement)]
    chosen = places[kept]
    reaches = np.take(REACHES, levels[chosen])
    logits = dynamic_masks(found["mask_features"], found["kernels"][chosen], points[chosen], reaches)
    masks = _masks_of_picture(expit(logits), placement)
    return Assembled(chosen, labels[kept], scores[kept], masks)


def locations(padded: Size) -> tuple[Array, Array]:
    """Return level (n,) and x, y (n, 2) of every location of an input: the middles of its strides."""
    levels, points = [], []
    height, width = (side // STRIDES[0] for side in padded)
    for level, stride in enumerate(STRIDES):
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        points.append(np.stack([x.ravel(), y.ravel()], axis=1) * stride + stride // 2)
        levels.append(np.full(height * width, level))
        height, width = -(-height // 2), -(-width // 2)
    return np.concatenate(levels), np.concatenate(points)


def candidates(found: dict[str, Array], levels: Array) -> tuple[Array, Array, Array]:
    """Return location, label and score of what is likely enough, of each level the best 1000.

    The score is ``√(class · centerness)``; what it is the root of must exceed 0.05.
    """
    likely = expit(found["class_logits"]) * expit(found["centerness"])
    places, labels = np.nonzero(likely > SCORE_THRESHOLD)
    squares = likely[places, labels]
    order = np.argsort(-squares, kind="stable")
    best = [order[levels[places[order]] == level][:MOST_OF_A_LEVEL] for level in range(len(STRIDES))]
    kept = np.sort(np.concatenate(best))
    return places[kept], labels[kept], np.sqrt(squares[kept])


def _on_picture(boxes: Array, placement: Placement) -> Array:
    """Whether anything of a box is left when it is scaled to the picture and cut off at its edges."""
    height, width = placement.original
    scale = np.array([width / placement.resized[1], height / placement.resized[0]] * 2)
    cut = np.clip(boxes * scale, 0, np.array([width, height] * 2))
    filled: Array = (cut[:, 2:] > cut[:, :2]).all(axis=1)
    return filled


def dynamic_masks(features: Array, kernels: Array, points: Array, reaches: Array) -> Array:
    """Mask logits (K, 2h, 2w), each by three layers whose weights are the instance's own.

    Parameters
    ----------
    features
        (C, h, w) at 1/8.
    kernels
        (K, `kernel_size`): the layers' weights, then their biases.
    points
        (K, 2), x and y of the instances' locations, in pixels of the input.
    reaches
        (K,), what the coordinates relative to it are divided by.

    Raises
    ------
    ShapeError
        The kernels have not as many numbers.
    """
    channels, height, width = features.shape
    if kernels.shape[1] != kernel_size(channels):
        raise ShapeError(f"kernels {kernels.shape} are not those of {channels} mask features")
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    cells = np.stack([x, y]) * MASK_STRIDE + MASK_STRIDE // 2  # (2, h, w)
    sizes = ((WIDTH, channels + 2), (WIDTH, WIDTH), (1, WIDTH))
    lengths = [rows * columns for rows, columns in sizes] + [rows for rows, _ in sizes]
    if not len(kernels):
        return np.empty((0, MASK_FACTOR * height, MASK_FACTOR * width), features.dtype)
    logits = np.empty((len(kernels), 1, height, width), features.dtype)
    for i, kernel in enumerate(kernels):
        parts = np.split(kernel, np.cumsum(lengths)[:-1])
        relative = (points[i][:, None, None] - cells) / reaches[i]
        layer = np.concatenate([relative, features]).reshape(channels + 2, -1)
        for place, size in enumerate(sizes):
            layer = parts[place].reshape(size) @ layer + parts[3 + place][:, None]
            layer = np.maximum(layer, 0) if place < 2 else layer
        logits[i, 0] = layer.reshape(height, width)
    return np.asarray(aligned_bilinear(logits, MASK_FACTOR)[:, 0])


def _masks_of_picture(probabilities: Array, placement: Placement) -> Array:
    """Magnify, crop, resize to the picture, compare."""
    masks = np.empty((len(probabilities), *placement.original), bool)
    factor, (height, width) = placement.padded[0] // probabilities.shape[1], placement.resized
    for i, probability in enumerate(probabilities):
        full = aligned_bilinear(probability[None, None], factor)[0, 0, :height, :width]
        np.greater(resize_plane(full, placement.original), MASK_THRESHOLD, out=masks[i])
    return masks
