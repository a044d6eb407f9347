"""The matcher against every permutation, SciPy's dice and zoom, and its own symmetries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import zoom
from scipy.spatial.distance import dice

from refimpl.errors import NonFiniteError, TargetError
from refimpl.matching import (
    Target,
    check_target,
    dice_matrix,
    masks_at,
    match,
    match_predictions,
    matching_score,
)

SEEDS = st.integers(0, 2**32 - 1)


def best_total(score):
    """The greatest sum of one-to-one pairs, by trying them all."""
    small, large = sorted(score.shape)
    tall = score if score.shape[0] == large else score.T
    columns = np.arange(small)
    return max(tall[list(rows), columns].sum() for rows in itertools.permutations(range(large), small))


@given(st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_matching_is_the_best_of_all_assignments(queries, instances, seed):
    score = np.random.default_rng(seed).random((queries, instances))
    matching = match(score)
    assert len(set(matching.queries)) == len(set(matching.instances)) == min(queries, instances)
    assert score[matching.queries, matching.instances].sum() == pytest.approx(best_total(score), abs=1e-12)


@given(st.integers(1, 5), st.integers(1, 5), SEEDS)
def test_dice_of_binary_masks_is_scipys(queries, instances, seed):
    rng = np.random.default_rng(seed)
    predicted, truth = rng.random((queries, 60)) < 0.4, rng.random((instances, 60)) < 0.4
    predicted[:, 0] = True  # SciPy's is undefined for two empty masks
    result = dice_matrix(predicted.astype(np.float64), truth.astype(np.float64))
    for n, g in itertools.product(range(queries), range(instances)):
        area = predicted[n].sum() + truth[g].sum()
        expected = (1 - dice(predicted[n], truth[g])) * area / (area + 1e-4)
        assert result[n, g] == pytest.approx(expected, abs=1e-12)


def test_score_weighs_mask_and_class():
    """A certain mask and class score 1; a class probability of ½ scores ½^0.2, half the area ⅔^0.8."""
    masks = np.zeros((1, 100, 100))
    masks[:, :50] = 1
    certain = np.where(masks > 0, 50.0, -50.0)
    half = certain.copy()
    half[:, 25:] = -50
    labels = np.array([1])
    sure, unsure = np.array([[-50.0, 50.0]]), np.array([[-50.0, 0.0]])
    assert matching_score(sure, certain, labels, masks)[0, 0] == pytest.approx(1, abs=1e-6)
    assert matching_score(unsure, certain, labels, masks)[0, 0] == pytest.approx(0.5**0.2, abs=1e-6)
    assert matching_score(sure, half, labels, masks)[0, 0] == pytest.approx((2 / 3) ** 0.8, abs=1e-6)


@given(SEEDS)
def test_permuting_queries_permutes_the_matching(seed):
    rng = np.random.default_rng(seed)
    classes, logits = rng.normal(size=(6, 3)), rng.normal(size=(6, 4, 5))
    labels, masks = rng.integers(0, 3, 4), (rng.random((4, 4, 5)) < 0.5).astype(np.float64)
    order = rng.permutation(6)
    plain = match_predictions(classes, logits, labels, masks)
    permuted = match_predictions(classes[order], logits[order], labels, masks)
    assert dict(zip(order[permuted.queries], permuted.instances, strict=True)) == dict(
        zip(*plain, strict=True)
    )


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8, 16])
def test_masks_are_resized_as_scipy_zooms(factor):
    masks = np.random.default_rng(factor).random((3, 6 * factor, 7 * factor)) < 0.5
    expected = zoom(
        masks.astype(np.float64), (1, 1 / factor, 1 / factor), order=1, grid_mode=True, mode="nearest"
    )
    np.testing.assert_allclose(masks_at(masks, (6, 7), np.float64), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_binary_masks_of_any_dtype_are_the_same(dtype):
    masks = np.random.default_rng(0).random((3, 16, 24)) < 0.5
    target = Target(np.array([0, 1, 2]), masks.astype(dtype))
    check_target(target, 3, (2, 3))
    np.testing.assert_array_equal(
        masks_at(target.masks, (2, 3), np.float64), masks_at(masks, (2, 3), np.float64)
    )


def test_no_instances_match_nothing():
    target = Target(np.array([]), np.zeros((0, 16, 16)))
    check_target(target, 3, (2, 2))
    masks = masks_at(target.masks, (2, 2), np.float64)
    matching = match_predictions(np.zeros((4, 3)), np.zeros((4, 2, 2)), target.labels, masks)
    assert len(matching.queries) == len(matching.instances) == 0


def test_more_instances_than_queries_match_each_query():
    masks = np.random.default_rng(0).random((5, 4, 4)) < 0.5
    matching = match_predictions(
        np.zeros((2, 3)), np.zeros((2, 4, 4)), np.zeros(5, int), masks.astype(np.float64)
    )
    assert sorted(matching.queries) == [0, 1]


GOOD = np.zeros((2, 16, 24), bool)


@pytest.mark.parametrize(
    ("labels", "masks", "message"),
    [
        ([0, 3], GOOD, "label 3 of instance 1 is out of range; expected 0 to 2"),
        ([-1, 0], GOOD, "label -1 of instance 0"),
        ([0.0, 1.0], GOOD, "whole numbers"),
        ([0], GOOD, r"labels \(1,\) and masks \(2, 16, 24\) do not fit"),
        ([[0, 1]], GOOD, "do not fit"),
        ([0, 1], GOOD[0], "do not fit"),
        ([0, 1], GOOD[:, :15], "masks of 15×24 do not fit predicted masks of 2×3"),
        ([0, 1], np.zeros((2, 16, 16)), "masks of 16×16"),
        ([0, 1], np.zeros((2, 1, 1)), "masks of 1×1"),
        ([0, 1], np.full((2, 16, 24), 255, np.uint8), "other than 0 and 1"),
        ([0, 1], np.full((2, 16, 24), -1), "other than 0 and 1"),
        ([0, 1], np.full((2, 16, 24), 0.5), "other than 0 and 1"),
        ([0, 1], np.full((2, 16, 24), 1j), "other than 0 and 1"),
    ],
)
def test_bad_targets_are_named(labels, masks, message):
    with pytest.raises(TargetError, match=message):
        check_target(Target(np.array(labels), masks), 3, (2, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_that_is_not_finite_is_named(value):
    masks = np.zeros((2, 16, 24))
    masks[1, 2, 3] = value
    with pytest.raises(NonFiniteError, match=r"the first at \(1, 2, 3\)"):
        check_target(Target(np.array([0, 1]), masks), 3, (2, 3))
