"""What CondInst's predictions become, beside loops over single locations, boxes and pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from refimpl.box_nms import suppressed
from refimpl.condinst import WIDTH, CondInstOutputs, aligned_bilinear, kernel_size
from refimpl.dynamic_masks import (
    MOST,
    MOST_OF_A_LEVEL,
    REACHES,
    candidates,
    condinst_instances,
    dynamic_masks,
    locations,
)
from refimpl.errors import NonFiniteError, ShapeError
from refimpl.inference import Placement, resize_plane
from refimpl.ops.operation import Array

PADDED = (64, 96)
WHOLE = Placement.unscaled(*PADDED)
COUNT = 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1


def overlap(a: Array, b: Array) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return float(width * height / (area - width * height))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_what_remains_is_what_a_search_finds(seed: int, count: int) -> None:
    """The one set in which no box overlaps a better one of its class, and whatever is not in it does."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 6, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 5, (count, 2))], axis=1).astype(float)
    scores, labels = rng.permutation(count) / count, rng.integers(0, 2, count)
    kept = suppressed(boxes, scores, labels, 0.4).tolist()
    assert [scores[i] for i in kept] == sorted((scores[i] for i in kept), reverse=True)
    for i in range(count):
        better = [j for j in kept if scores[j] > scores[i] and labels[j] == labels[i]]
        assert (i in kept) != any(overlap(boxes[i], boxes[j]) > 0.4 for j in better)


def test_of_equal_boxes_and_scores_the_first_remains() -> None:
    boxes = np.array([[0.0, 0, 2, 2]] * 3)
    assert suppressed(boxes, np.ones(3), np.array([0, 0, 1]), 0.5).tolist() == [0, 2]
    assert suppressed(boxes[:0], np.ones(0), np.zeros(0, int), 0.5).tolist() == []


def test_locations_are_the_middles_of_strides() -> None:
    levels, points = locations(PADDED)
    assert len(levels) == len(points) == COUNT
    assert points[:13].tolist() == [[8 * x + 4, 4] for x in range(12)] + [[4, 12]]
    assert points[levels == 1][:2].tolist() == [[8, 8], [24, 8]]
    assert points[levels == 4].tolist() == [[64, 64]]


def predictions(found: dict[int, tuple[int, float, tuple[int, ...], Array]]) -> CondInstOutputs:
    """Outputs with, at some locations, a class, what its score is the root of, distances, and a kernel."""
    logits, centerness = np.full((1, COUNT, 3), -30.0), np.full((1, COUNT, 1), 30.0)
    boxes, kernels = np.zeros((1, COUNT, 4)), np.zeros((1, COUNT, kernel_size(2)))
    for place, (label, likely, distances, kernel) in found.items():
        logits[0, place, label] = math.log(likely / (1 - likely))
        boxes[0, place], kernels[0, place] = distances, kernel
    features = np.random.default_rng(0).normal(size=(1, 2, 8, 12))
    return CondInstOutputs(logits, boxes, centerness, kernels, features)


def disc(radius: float) -> Array:
    """A kernel whose mask is a diamond around the location: |x| + |y| < radius, in reaches of its level."""
    first = np.zeros((WIDTH, 4))
    first[:4, :2] = [[1, 0], [-1, 0], [0, 1], [0, -1]]
    second = np.eye(WIDTH)
    last = np.where(np.arange(WIDTH) < 4, -100.0, 0)
    return np.concatenate([first.ravel(), second.ravel(), last, np.zeros(2 * WIDTH), [100 * radius]])


def test_instances_of_drawn_predictions() -> None:
    reach = REACHES[0]
    found = {
        2 * 12 + 3: (1, 0.81, (2, 1, 2, 1), disc(16 / reach)),
        2 * 12 + 4: (1, 0.64, (3, 1, 1, 1), disc(16 / reach)),  # nearly the same box: suppressed
        3 * 12 + 3: (0, 0.49, (2, 2, 2, 1), disc(16 / reach)),  # of another class
        6 * 12 + 9: (1, 0.25, (1, 1, 1, 1), disc(8 / reach)),
        7: (2, 0.04, (1, 1, 1, 1), disc(8 / reach)),  # not likely enough
        8: (2, 0.9, (0, 0, 0, 0), disc(8 / reach)),  # an empty box
    }
    instances = condinst_instances(predictions(found), WHOLE)
    assert instances.places.tolist() == [27, 39, 81]
    assert instances.labels.tolist() == [1, 0, 1]
    np.testing.assert_allclose(instances.scores, [0.9, 0.7, 0.5], rtol=1e-9)
    y, x = np.meshgrid(np.arange(64) + 0.5, np.arange(96) + 0.5, indexing="ij")
    for mask, (px, py), radius in zip(
        instances.masks, [(28, 20), (28, 28), (76, 52)], [16, 16, 8], strict=True
    ):
        distance = np.abs(x - px) + np.abs(y - py)
        assert mask[distance < radius - 8].all()
        assert not mask[distance > radius + 8].any()


def test_no_more_than_the_best_hundred() -> None:
    rng = np.random.default_rng(0)
    likely = rng.uniform(0.3, 0.9, 96)
    tiny = {i: (0, likely[i], (0.4, 0.4, 0.4, 0.4), disc(0.1)) for i in range(96)}
    further = {i: (1, 0.2, (0.4, 0.4, 0.4, 0.4), disc(0.1)) for i in range(96, COUNT)}
    instances = condinst_instances(predictions({**tiny, **further}), WHOLE)
    assert len(instances) == MOST
    assert set(range(96)) <= set(instances.places.tolist())


def test_candidates_are_those_of_loops() -> None:
    rng = np.random.default_rng(1)
    levels = np.repeat([0, 1], [600, 50])
    found = {"class_logits": rng.normal(size=(650, 3)), "centerness": rng.normal(size=(650, 1))}
    places, labels, scores = candidates(found, levels)
    expected = []
    for level in (0, 1):
        own = [
            (expit(found["class_logits"][i, c]) * expit(found["centerness"][i, 0]), i, c)
            for i in np.flatnonzero(levels == level)
            for c in range(3)
        ]
        likely = sorted((row for row in own if row[0] > 0.05), reverse=True)
        expected += likely[:MOST_OF_A_LEVEL]
    assert len(expected) < 3 * 650 - 500
    assert sorted(zip(places, labels, strict=True)) == sorted((i, c) for _, i, c in expected)
    by_place = {(i, c): math.sqrt(p) for p, i, c in expected}
    for place, label, score in zip(places, labels, scores, strict=True):
        assert score == pytest.approx(by_place[place, label], rel=1e-12)


def test_a_mask_is_three_layers_pixel_by_pixel() -> None:
    rng = np.random.default_rng(2)
    features, kernel = rng.normal(size=(3, 4, 5)), rng.normal(size=(1, kernel_size(3)))
    sizes = [WIDTH * 5, WIDTH * WIDTH, WIDTH, WIDTH, WIDTH, 1]
    a, b, c, d, e, f = np.split(kernel[0], np.cumsum(sizes)[:-1])
    logits = np.empty((1, 1, 4, 5))
    for y in range(4):
        for x in range(5):
            relative = [(21 - (8 * x + 4)) / 128, (10 - (8 * y + 4)) / 128]
            given = np.array([*relative, *features[:, y, x]])
            hidden = np.maximum(a.reshape(WIDTH, 5) @ given + d, 0)
            hidden = np.maximum(b.reshape(WIDTH, WIDTH) @ hidden + e, 0)
            logits[0, 0, y, x] = c @ hidden + f[0]
    found = dynamic_masks(features, kernel, np.array([[21, 10]]), np.array([128]))
    np.testing.assert_allclose(found, aligned_bilinear(logits, 2)[:, 0], rtol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_magnifying_interpolates_between_its_own_elements(factor: int) -> None:
    x = np.random.default_rng(3).normal(size=(1, 1, 3, 4))
    found = aligned_bilinear(x, factor)[0, 0]
    places = [(np.arange(n * factor) - factor // 2) / factor for n in (3, 4)]
    rows = np.stack([np.interp(places[0], np.arange(3), column) for column in x[0, 0].T], axis=1)
    expected = np.stack([np.interp(places[1], np.arange(4), row) for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_masks_are_resized_to_the_picture() -> None:
    plane = np.random.default_rng(4).normal(size=(5, 7))
    places = [np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1) for m, n in ((9, 5), (4, 7))]
    rows = np.stack([np.interp(places[0], np.arange(5), column) for column in plane.T], axis=1)
    expected = np.stack([np.interp(places[1], np.arange(7), row) for row in rows])
    np.testing.assert_allclose(resize_plane(plane, (9, 4)), expected, atol=1e-14)


def test_outputs_that_do_not_fit() -> None:
    outputs = predictions({})
    with pytest.raises(ShapeError, match="not those of"):
        condinst_instances(outputs, Placement.unscaled(96, 96))
    with pytest.raises(ShapeError, match="3 mask features"):
        dynamic_masks(np.zeros((3, 4, 5)), np.zeros((1, 7)), np.zeros((1, 2)), np.ones(1))
    outputs.boxes[0, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="boxes"):
        condinst_instances(outputs, WHOLE)


def test_a_picture_of_nothing() -> None:
    instances = condinst_instances(predictions({}), WHOLE)
    assert len(instances) == 0
    assert instances.masks.shape == (0, *PADDED)
