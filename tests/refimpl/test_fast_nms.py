"""What YOLACT's predictions become, beside loops over single priors, pairs of boxes and cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.errors import NonFiniteError, ShapeError
from refimpl.fast_nms import MOST, cropped, decoded, fast_nms, prior_boxes, yolact_instances
from refimpl.inference import Placement, preprocess
from refimpl.ops.operation import Array
from refimpl.rival_pictures import PREPARATIONS
from refimpl.yolact import YolactOutputs

SIZE = (64, 96)
WHOLE = Placement.unscaled(*SIZE)
COUNT = 3 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1)


def test_priors_are_those_of_loops() -> None:
    expected = []
    for (height, width), size in zip(
        [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)], [24, 48, 96, 192, 384], strict=True
    ):
        for j in range(height):
            for i in range(width):
                for ratio in (1, 1 / 2, 2):
                    side = size * math.sqrt(ratio) / 550
                    expected.append([(i + 0.5) / width, (j + 0.5) / height, side, side])
    np.testing.assert_allclose(prior_boxes(SIZE), expected, rtol=1e-14)


def test_boxes_by_hand() -> None:
    prior = np.array([[0.5, 0.25, 0.2, 0.1]])
    np.testing.assert_allclose(decoded(np.zeros((1, 4)), prior), [[0.4, 0.2, 0.6, 0.3]])
    moved = decoded(np.array([[5.0, -10, math.log(2) / 0.2, 0]]), prior)  # half a width right, a height up
    np.testing.assert_allclose(moved, [[0.4, 0.1, 0.8, 0.2]])


def overlap(a: Array, b: Array) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return float(width * height / (area - width * height))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 15))
def test_what_remains_is_that_of_loops(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 6, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 5, (count, 2))], axis=1).astype(float)
    scores = rng.permutation(2 * count).reshape(count, 2) / (2 * count)
    rows, labels = fast_nms(boxes, scores)
    expected = [
        (i, label)
        for label in (0, 1)
        for i in range(count)
        if not any(
            overlap(boxes[i], boxes[j]) > 0.5 for j in range(count) if scores[j, label] > scores[i, label]
        )
    ]
    expected.sort(key=lambda row: -scores[row])
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == expected


def test_what_is_suppressed_suppresses_too() -> None:
    """That is what makes it fast: a chain of three loses its end, which greedy suppression would keep."""
    boxes = np.array([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])
    rows, _ = fast_nms(boxes, np.array([[0.9], [0.8], [0.7]]))
    assert rows.tolist() == [0]


def test_no_more_than_the_best() -> None:
    corners = np.arange(150.0)[:, None] * 3 + np.zeros(2)
    boxes = np.concatenate([corners, corners + 1], axis=1)
    scores = np.random.default_rng(0).permutation(300).reshape(150, 2) / 300
    rows, labels = fast_nms(boxes, scores)
    np.testing.assert_array_equal(scores[rows, labels], np.sort(scores.ravel())[::-1][:MOST])


def test_masks_are_cropped_cell_by_cell() -> None:
    rng = np.random.default_rng(1)
    masks, boxes = rng.random((4, 6, 9)) + 0.1, rng.uniform(-0.2, 1.2, (4, 4))  # some are inside out
    found = cropped(masks, boxes)
    for mask, cut, (x0, y0, x1, y1) in zip(masks, found, boxes, strict=True):
        left, right = max(min(x0 * 9, x1 * 9) - 1, 0), min(max(x0 * 9, x1 * 9) + 1, 9)
        top, bottom = max(min(y0 * 6, y1 * 6) - 1, 0), min(max(y0 * 6, y1 * 6) + 1, 6)
        for y in range(6):
            for x in range(9):
                inside = left <= x < right and top <= y < bottom
                assert cut[y, x] == (mask[y, x] if inside else 0)


def predictions(found: dict[int, tuple[int, float, float]]) -> YolactOutputs:
    """Outputs with, at some priors, a class, its probability, and the factor of the prior's size."""
    logits = np.zeros((1, COUNT, 4))
    logits[0, :, 0] = 20
    boxes = np.zeros((1, COUNT, 4))
    coefficients = np.zeros((1, COUNT, 2))
    for place, (label, likely, factor) in found.items():
        logits[0, place] = [math.log(1 - likely), -16, -16, -16]
        logits[0, place, 1 + label] = math.log(likely)
        boxes[0, place, 2:] = math.log(factor) / 0.2
        coefficients[0, place] = [1, 0]
    prototypes = np.stack([np.full((16, 24), 5.0), np.full((16, 24), 7.0)])[None]
    return YolactOutputs(logits, boxes, coefficients, prototypes)


def test_instances_of_drawn_predictions() -> None:
    first, second = 3 * (3 * 12 + 3), 3 * (6 * 12 + 9)
    found = {
        first: (1, 0.9, 5.0),
        first + 1: (1, 0.8, 5.0 * math.sqrt(2)),  # the same box at the same place: suppressed
        second: (2, 0.7, 3.0),
        7: (0, 0.04, 1.0),  # not likely enough
    }
    instances = yolact_instances(predictions(found), WHOLE)
    best = [place for place, score in zip(instances.places, instances.scores, strict=True) if score > 0.5]
    assert best == [first, second]
    assert instances.labels[:2].tolist() == [1, 2]
    np.testing.assert_allclose(instances.scores[:2], [0.9, 0.7], rtol=1e-5)
    # The other classes of the kept priors follow, with the little that is left for them.
    assert (instances.scores[2:] < 1e-6).all()
    for mask, (x, y, factor) in zip(
        instances.masks[:2], [(3.5 / 12, 3.5 / 8, 5), (9.5 / 12, 6.5 / 8, 3)], strict=True
    ):
        side = 24 / 550 * factor
        rows, columns = ((np.arange(n) + 0.5) / n for n in SIZE)
        inside = (abs(rows - y) < side / 2)[:, None] & (abs(columns - x) < side / 2)
        around = (abs(rows - y) < side / 2 + 2.6 / 16)[:, None] & (abs(columns - x) < side / 2 + 2.6 / 24)
        assert mask[inside].all()
        assert not mask[~around].any()


def test_outputs_that_do_not_fit() -> None:
    outputs = predictions({})
    with pytest.raises(ShapeError, match="not those of"):
        yolact_instances(outputs, Placement.unscaled(96, 96))
    with pytest.raises(ShapeError, match="take its own preparation"):
        yolact_instances(outputs, Placement((64, 90), (64, 90), SIZE))
    outputs.prototypes[0, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="prototypes"):
        yolact_instances(outputs, WHOLE)


def test_a_picture_of_nothing() -> None:
    instances = yolact_instances(predictions({}), WHOLE)
    assert len(instances) == 0
    assert instances.masks.shape == (0, *SIZE)


def test_a_picture_that_is_not_padded() -> None:
    images, placement = preprocess(
        np.zeros((20, 30, 3), np.uint8), (55, 55), preparation=PREPARATIONS["yolact"]
    )
    assert images.shape == (1, 3, 55, 55)
    assert placement == Placement((20, 30), (55, 55), (55, 55))
