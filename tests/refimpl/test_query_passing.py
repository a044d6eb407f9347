"""Temporal query passing on two frames of a rendered video."""

from __future__ import annotations

import numpy as np
import pytest

from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import ShapeError
from refimpl.losses import losses, temporal_losses
from refimpl.matching import Target
from refimpl.query_passing import passed_masks

DIM, QUERIES = 32, 6


def network(**fields):
    config = MobileInstConfig.preset(
        "topformer-tiny", dim=DIM, num_queries=QUERIES, num_heads=4, num_classes=5, **fields
    )
    return MobileInst(config, Weights.seeded(config, seed=0).astype(np.float64))


def frames(seed):
    return np.random.default_rng(seed).normal(size=(2, 1, 3, 64, 96))


@pytest.mark.parametrize(("global_layers", "local_layers"), [(1, 1), (0, 2), (2, 0)])
def test_a_frame_passing_to_itself_finds_its_own_masks(global_layers, local_layers):
    model = network(global_layers=global_layers, local_layers=local_layers)
    outputs = model(frames(0)[0])
    np.testing.assert_array_equal(
        passed_masks(model, outputs.global_queries, outputs.mask_features), outputs.masks
    )


def test_permuting_passed_queries_permutes_masks():
    model = network()
    first, second = (model(frame) for frame in frames(1))
    order = np.random.default_rng(0).permutation(QUERIES)
    plain = passed_masks(model, first.global_queries, second.mask_features)
    permuted = passed_masks(model, first.global_queries[:, order], second.mask_features)
    np.testing.assert_allclose(permuted, plain[:, order], rtol=0, atol=1e-12 * np.abs(plain).max())


def test_both_frames_and_the_passed_masks_are_supervised():
    """With frame t passing to itself, the total is two equal frames' and their mask losses once more."""
    model, rng = network(), np.random.default_rng(2)
    outputs = model(frames(2)[0])
    truth = [Target(rng.integers(0, 5, 3), rng.random((3, 64, 96)) < 0.5)]
    passed = passed_masks(model, outputs.global_queries, outputs.mask_features)
    alone = losses(outputs, truth)
    result = temporal_losses(outputs, outputs, passed, truth, truth)
    expected = 2 * alone.total + 2 * (alone.dice.value + alone.pixel.value)
    assert result.total == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("queries", "features"),
    [
        ((1, QUERIES, DIM + 1), (1, DIM, 8, 12)),
        ((1, QUERIES, DIM), (1, DIM + 1, 8, 12)),
        ((2, QUERIES, DIM), (1, DIM, 8, 12)),
        ((QUERIES, DIM), (1, DIM, 8, 12)),
        ((1, QUERIES, DIM), (DIM, 8, 12)),
    ],
)
def test_tensors_that_do_not_fit_are_named(queries, features):
    with pytest.raises(ShapeError, match=r"do not fit; expected \(B, N, 32\) and \(B, 32, h, w\)"):
        passed_masks(network(), np.zeros(queries), np.zeros(features))
