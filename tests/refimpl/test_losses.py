"""The losses against SciPy, pycocotools and published formulas; gradients against finite differences."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle
from scipy.optimize import check_grad
from scipy.spatial.distance import dice
from scipy.special import expit, log_expit, logit

from refimpl.errors import NonFiniteError, ShapeError, TargetError
from refimpl.losses import (
    dice_loss,
    focal_loss,
    losses,
    mask_iou,
    objectness_loss,
    pixel_loss,
    softplus,
    temporal_losses,
)
from refimpl.matching import Target

SEEDS = st.integers(0, 2**32 - 1)
EXTREME = np.array([-800.0, -100, -30, -1, -1e-9, 0, 1e-9, 1, 30, 100, 800])


def predictions(seed, batch=2, queries=5, classes=4, size=(3, 4), dtype=np.float64):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (2 * rng.normal(size=shape)).astype(dtype)  # noqa: E731
    return SimpleNamespace(
        class_logits=draw(batch, queries, classes),
        objectness=draw(batch, queries, 1),
        masks=draw(batch, queries, *size),
    )


def targets(seed, counts=(3, 2), classes=4, size=(24, 32)):
    rng = np.random.default_rng(seed)
    return [Target(rng.integers(0, classes, count), rng.random((count, *size)) < 0.5) for count in counts]


def replaced(given, **fields):
    return SimpleNamespace(**{**vars(given), **fields})


def assert_gradient(value, gradient, at, step=1e-6):
    """Forward differences err by about the step times the curvature, which is below 1 for every term."""
    flat = lambda function: lambda x: np.ravel(function(x.reshape(at.shape)))  # noqa: E731
    error = check_grad(lambda x: value(x.reshape(at.shape)), flat(gradient), at.ravel(), epsilon=step)
    assert error < step * max(1.0, np.linalg.norm(gradient(at)))


def test_softplus_is_scipys_at_every_size():
    np.testing.assert_allclose(softplus(EXTREME), -log_expit(-EXTREME), rtol=1e-15, atol=0)


@given(SEEDS)
def test_focal_loss_is_the_published_formula(seed):
    """FL = -α_t (1 - p_t)^γ log p_t (Lin et al. 2017, Eq. 5)."""
    rng = np.random.default_rng(seed)
    logits, truth = 3 * rng.normal(size=(7, 5)), rng.integers(0, 2, (7, 5)).astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    p_t = np.where(truth == 1, p, 1 - p)
    alpha_t = np.where(truth == 1, 0.25, 0.75)
    expected = -(alpha_t * (1 - p_t) ** 2 * np.log(p_t)).sum() / 3
    assert focal_loss(logits, truth, 3).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_logit_is_too_large(truth, dtype):
    """Far on the wrong side the focal loss tends to α|x|, its slope to ±α; on the right side both vanish."""
    logits = np.array([-800, 800], dtype)
    classes = np.full(2, truth, dtype)
    alpha = 0.25 if truth else 0.75
    focal, pixel = focal_loss(logits, classes, 1), pixel_loss(logits, classes)
    assert focal.value == pytest.approx(800 * alpha)
    assert pixel.value == pytest.approx(400)
    wrong = 0 if truth else 1
    assert abs(focal.gradient[wrong]) == pytest.approx(alpha)
    assert focal.gradient[1 - wrong] == 0


@given(SEEDS)
def test_dice_loss_of_sure_masks_is_scipys(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = rng.random((4, 50)) < 0.5, rng.random((4, 50)) < 0.5
    areas = predicted.sum(1) + truth.sum(1)
    expected = sum(
        1 - (1 - dice(p, g)) * area / (area + 1e-4)
        for p, g, area in zip(predicted, truth, areas, strict=True)
    )
    term = dice_loss(np.where(predicted, 60.0, -60.0), truth.astype(np.float64), 3)
    assert term.value == pytest.approx(expected / 3, abs=1e-12)


@given(SEEDS)
def test_cross_entropies_are_means_of_log_likelihoods(seed):
    rng = np.random.default_rng(seed)
    logits, truth = 3 * rng.normal(size=(4, 9)), rng.integers(0, 5, (4, 9)) / 4
    expected = -(truth * log_expit(logits) + (1 - truth) * log_expit(-logits)).mean()
    assert pixel_loss(logits, truth).value == pytest.approx(expected, rel=1e-12)
    assert objectness_loss(logits[0], truth[0]).value == pytest.approx(
        pixel_loss(logits[:1], truth[:1]).value
    )


@given(SEEDS)
def test_mask_iou_is_pycocotools(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = rng.random((2, 6, 8, 7)) < 0.5
    logits = np.where(predicted, logit(0.41), logit(0.39)).reshape(6, -1)
    encoded = [[rle.encode(np.asfortranarray(m, np.uint8)) for m in masks] for masks in (predicted, truth)]
    expected = np.diag(rle.iou(encoded[0], encoded[1], [0] * 6))
    np.testing.assert_allclose(mask_iou(logits, truth.reshape(6, -1) * 1.0), expected, rtol=0, atol=1e-6)


def test_mask_iou_takes_both_thresholds_as_specified():
    """The prediction counts from 0.4 on (inclusive), the ground truth above 0.5 (exclusive)."""
    logits = np.array([[logit(0.400001), logit(0.399999), 50.0, 50.0]])
    assert mask_iou(logits, np.array([[1.0, 1.0, 0.5, 0.75]]))[0] == pytest.approx(2 / 4, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [lambda x, g: focal_loss(x, g, 3), lambda x, g: dice_loss(x, g, 3), pixel_loss],
    ids=["focal", "dice", "pixel"],
)
def test_gradient_of_each_term(loss):
    rng = np.random.default_rng(5)
    logits, truth = 2 * rng.normal(size=(4, 12)), (rng.random((4, 12)) < 0.5).astype(np.float64)
    assert_gradient(lambda x: loss(x, truth).value, lambda x: loss(x, truth).gradient, logits)


@pytest.mark.parametrize("field", ["class_logits", "objectness", "masks"])
@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0), (7, 1)])
def test_gradient_of_the_total(field, counts):
    given, truth = predictions(1), targets(2, counts)
    value = lambda x: losses(replaced(given, **{field: x}), truth).total  # noqa: E731
    gradient = lambda x: getattr(losses(replaced(given, **{field: x}), truth).gradients(), field)  # noqa: E731
    assert_gradient(value, gradient, getattr(given, field))


def test_gradient_of_passed_masks():
    first, second, passed = predictions(1), predictions(2), predictions(3).masks
    run = lambda x: temporal_losses(first, second, x, targets(4), targets(5))  # noqa: E731
    assert_gradient(lambda x: run(x).total, lambda x: run(x).passed_gradient(), passed)


def test_total_is_equation_3():
    result = losses(predictions(1), targets(2))
    mask = result.dice.value + result.pixel.value
    assert result.total == pytest.approx(2 * result.classification.value + 2 * mask + result.objectness.value)


def test_perfect_predictions_lose_nothing():
    """Mask logits of ±60 at the truth, the right class and an objectness of the IoU, which is 1."""
    truth = targets(3, counts=(3,), size=(3, 4))
    order = np.array([4, 0, 2])
    masks, classes = np.full((1, 5, 3, 4), -60.0), np.full((1, 5, 4), -60.0)
    masks[0, order] = np.where(truth[0].masks, 60.0, -60.0)
    classes[0, order, truth[0].labels] = 60
    given = SimpleNamespace(class_logits=classes, objectness=np.full((1, 5, 1), 60.0), masks=masks)
    result = losses(given, truth)
    pairs = dict(zip(result.matchings[0].queries, result.matchings[0].instances, strict=True))
    assert [pairs[query] for query in order] == [0, 1, 2]
    assert max(result.dice.value, result.objectness.value) < 1e-4
    assert max(result.pixel.value, result.classification.value) < 1e-12


def test_batch_is_the_sum_of_its_pictures():
    """Sums are shared out over all instances of the batch; means are over all matches."""
    given, truth = predictions(1), targets(2, (3, 2))
    both = losses(given, truth)
    one = [
        losses(SimpleNamespace(**{name: array[b : b + 1] for name, array in vars(given).items()}), [truth[b]])
        for b in (0, 1)
    ]
    for term in ("classification", "dice", "pixel", "objectness"):
        expected = (3 * getattr(one[0], term).value + 2 * getattr(one[1], term).value) / 5
        assert getattr(both, term).value == pytest.approx(expected, rel=1e-12)


def test_an_empty_picture_has_only_a_classification_loss():
    given = predictions(1)
    result = losses(given, targets(2, (0, 0)))
    p = expit(given.class_logits)
    assert result.classification.value == pytest.approx(-(0.75 * p**2 * np.log1p(-p)).sum(), rel=1e-12)
    assert result.dice.value == result.pixel.value == result.objectness.value == 0
    assert not result.gradients().masks.any()
    assert not result.gradients().objectness.any()
    assert result.total == 2 * result.classification.value


@given(SEEDS)
def test_permuting_queries_permutes_gradients(seed):
    given, truth = predictions(seed), targets(seed + 1)
    order = np.random.default_rng(seed).permutation(5)
    plain = losses(given, truth)
    permuted = losses(SimpleNamespace(**{k: v[:, order] for k, v in vars(given).items()}), truth)
    assert permuted.total == pytest.approx(plain.total, rel=1e-12)
    for expected, result in zip(plain.gradients(), permuted.gradients(), strict=True):
        np.testing.assert_allclose(result, expected[:, order], rtol=1e-12, atol=1e-15)


def test_passing_a_frames_own_masks_counts_its_mask_losses_twice():
    first, second = predictions(1), predictions(2)
    result = temporal_losses(first, second, second.masks, targets(4), targets(5))
    alone = losses(first, targets(4)).total, losses(second, targets(5))
    assert result.passed_dice.value == alone[1].dice.value
    assert result.passed_pixel.value == alone[1].pixel.value
    extra = 2 * (alone[1].dice.value + alone[1].pixel.value)
    assert result.total == pytest.approx(alone[0] + alone[1].total + extra, rel=1e-12)


def test_passed_masks_keep_the_second_frames_targets():
    """A passed mask is held to the instance its query was matched to, even if another fits it better."""
    first, second, truth = predictions(1), predictions(2), targets(5)
    matchings = losses(second, truth).matchings
    passed = second.masks[:, ::-1]
    result = temporal_losses(first, second, passed, targets(4), truth)
    assert [m.queries.tolist() for m in result.second.matchings] == [m.queries.tolist() for m in matchings]
    touched = result.passed_gradient().any(axis=(2, 3))
    for picture, matching in enumerate(matchings):
        assert np.flatnonzero(touched[picture]).tolist() == sorted(matching.queries.tolist())


def test_dtype_follows_the_predictions():
    result = losses(predictions(1, dtype=np.float32), targets(2))
    assert result.total.dtype == np.float32
    assert {gradient.dtype for gradient in result.gradients()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("field", ["class_logits", "objectness", "masks"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_named(field, value):
    given = predictions(1)
    getattr(given, field)[1, 2, 0] = value
    with pytest.raises(NonFiniteError, match=rf"{field} has \d+ elements .* the first at \(1, 2, 0"):
        losses(given, targets(2))


@pytest.mark.parametrize(
    ("field", "shape"),
    [("class_logits", (2, 5)), ("objectness", (2, 5)), ("masks", (2, 4, 3, 4)), ("masks", (2, 5, 0, 4))],
)
def test_predictions_that_do_not_fit_are_named(field, shape):
    with pytest.raises(ShapeError, match="do not fit"):
        losses(replaced(predictions(1), **{field: np.zeros(shape)}), targets(2))


def test_targets_that_do_not_fit_are_named():
    with pytest.raises(TargetError, match="1 targets for a batch of 2"):
        losses(predictions(1), targets(2)[:1])
    with pytest.raises(TargetError, match="out of range"):
        losses(predictions(1, classes=2), targets(2, counts=(30, 30)))
    with pytest.raises(ShapeError, match="the same shape"):
        temporal_losses(predictions(1), predictions(2), np.zeros((2, 5, 6, 8)), targets(4), targets(5))
