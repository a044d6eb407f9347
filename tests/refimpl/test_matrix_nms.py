"""What SOLOv2's predictions become, beside loops over single cells, pairs and pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.assembly import masks_of_picture, picture_of
from refimpl.errors import NonFiniteError, ShapeError
from refimpl.inference import Placement, postprocess
from refimpl.matrix_nms import SIGMA, best_of_neighbours, matrix_decay, solo_instances
from refimpl.model import Outputs
from refimpl.ops.operation import Array
from refimpl.solov2 import SoloOutputs

GRIDS = (3, 2, 2, 1, 1)


def drawn_masks(seed: int, count: int) -> Array:
    """Rectangles, some of which overlap, one of them twice."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 12, 14), bool)
    for mask in masks:
        top, left = rng.integers(0, 8, 2)
        mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
    masks[-1] = masks[0]
    return masks


def overlap(first: Array, second: Array) -> float:
    return float((first & second).sum() / (first | second).sum())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_decay_is_that_of_pairs_one_by_one(seed: int, count: int) -> None:
    masks = drawn_masks(seed, count)
    labels = np.random.default_rng(seed).integers(0, 2, count)

    def common(i: int, j: int) -> float:
        return overlap(masks[i], masks[j]) if labels[i] == labels[j] else 0.0

    for j, factor in enumerate(matrix_decay(masks, labels)):
        factors = [1.0]
        for i in range(j):
            covered = max((common(k, i) for k in range(i)), default=0.0)
            factors.append(math.exp(-SIGMA * common(i, j) ** 2) / math.exp(-SIGMA * covered**2))
        assert factor == pytest.approx(min(factors), rel=1e-12)


def test_a_copy_decays_and_another_class_does_not() -> None:
    masks = np.ones((3, 4, 4), bool)
    np.testing.assert_allclose(matrix_decay(masks, np.array([0, 0, 1])), [1, math.exp(-SIGMA), 1])


def test_nothing_decays_by_nothing() -> None:
    assert matrix_decay(np.zeros((0, 4, 4), bool), np.zeros(0, int)).shape == (0,)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_the_best_of_neighbours_is_found_cell_by_cell(seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, (19, 2)) / 5  # with ties
    found, first = best_of_neighbours(scores, GRIDS), 0
    for grid in GRIDS:
        for y in range(grid):
            for x in range(grid):
                around = [first + (y - i) * grid + x - j for i in (0, 1) for j in (0, 1) if y >= i and x >= j]
                for label in (0, 1):
                    own = scores[first + y * grid + x, label]
                    expected = own if own >= max(scores[cell, label] for cell in around) else 0
                    assert found[first + y * grid + x, label] == expected
        first += grid * grid


SIZE = (12, 14)
WHOLE = Placement.unscaled(48, 56)


def predictions(masks: Array, cells: list[int], scores: list[float], labels: list[int]) -> SoloOutputs:
    """Outputs with these masks at these cells; a mask feature for each mask."""
    count = len(masks)
    logits = np.full((1, 19, 2), -20.0)
    kernels = np.zeros((1, 19, count))
    for place, (cell, score, label) in enumerate(zip(cells, scores, labels, strict=True)):
        logits[0, cell, label] = math.log(score / (1 - score))
        kernels[0, cell, place] = 40
    return SoloOutputs(logits, kernels, np.where(masks, 1.0, -1.0)[None])


def rectangle(*sides: int) -> Array:
    mask = np.zeros(SIZE, bool)
    mask[sides[0] : sides[1], sides[2] : sides[3]] = True
    return mask


def test_instances_of_drawn_predictions() -> None:
    masks = np.stack(
        [
            rectangle(0, 6, 0, 6),
            rectangle(0, 6, 0, 6),  # a copy: its score decays
            rectangle(0, 6, 0, 6),  # of another class
            rectangle(7, 9, 0, 4),  # as many cells as its grid's stride: too small
            rectangle(7, 12, 7, 14),  # not likely enough
        ]
    )
    outputs = predictions(masks, [0, 2, 9, 8, 11], [0.9, 0.8, 0.7, 0.95, 0.09], [0, 0, 1, 0, 0])
    found = solo_instances(outputs, WHOLE, GRIDS)
    assert found.places.tolist() == [0, 9, 2]
    assert found.labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.8 * math.exp(-SIGMA)], rtol=1e-12)
    for mask, drawn in zip(found.masks, masks[[0, 2, 1]], strict=True):
        assert np.array_equal(mask[2::4, 2::4], drawn)  # the middles of what the resizing magnified


def test_one_cell_more_than_the_stride_is_enough() -> None:
    masks = np.stack([rectangle(0, 3, 0, 3), rectangle(6, 8, 0, 4)])
    outputs = predictions(masks, [0, 8], [0.9, 0.8], [0, 0])
    assert solo_instances(outputs, WHOLE, GRIDS).places.tolist() == [0]


def test_a_picture_of_nothing() -> None:
    outputs = predictions(np.zeros((1, *SIZE), bool), [0], [0.01], [0])
    found = solo_instances(outputs, WHOLE, GRIDS)
    assert len(found) == 0
    assert found.masks.shape == (0, 48, 56)


def test_outputs_that_do_not_fit() -> None:
    outputs = predictions(drawn_masks(0, 2), [0, 1], [0.9, 0.9], [0, 0])
    with pytest.raises(ShapeError, match="not those of grids"):
        solo_instances(outputs, WHOLE, (3, 2))
    with pytest.raises(ShapeError, match="index 1 is outside"):
        picture_of(outputs, 1)
    outputs.kernels[0, 3, 1] = np.nan
    with pytest.raises(NonFiniteError, match="kernels has 1 elements"):
        solo_instances(outputs, WHOLE, GRIDS)


def test_masks_are_those_of_the_queries() -> None:
    """As MobileInst's are resized, cropped and compared, which is confirmed by PyTorch elsewhere."""
    logits = np.random.default_rng(0).normal(size=(1, 3, 8, 12))
    placement = Placement((41, 70), (29, 45), (32, 48))
    queries = Outputs(np.full((1, 3, 1), 9.0), np.full((1, 3, 1), 9.0), logits, logits, logits)
    expected = postprocess(queries, placement, mask_threshold=0.5).masks
    np.testing.assert_array_equal(masks_of_picture(1 / (1 + np.exp(-logits[0])), placement, 0.5), expected)
