"""Tensors are found by value in any layout, and only those: against brute force and random permutations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from conformance.judge.alignment import RESEMBLANCE, CandidateTensors, layouts
from refimpl.ops.operation import Array

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = array_shapes(min_dims=1, max_dims=5, max_side=4)


def random(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


@settings(deadline=None)
@given(SEEDS, SHAPES, st.randoms(use_true_random=False), st.floats(0, 1e-3))
def test_a_permuted_tensor_is_found_and_laid_out_again(seed, shape, shuffler, noise) -> None:
    reference = random(seed, shape)
    axes = list(range(len(shape)))
    shuffler.shuffle(axes)
    # However loose the bound, no element may be off by more than a fiftieth of the largest.
    noise *= min(1.0, float(np.abs(reference).max()))
    given = (reference + noise * np.sign(random(seed + 1, shape))).transpose(axes)
    found = CandidateTensors({"other": random(seed + 2, shape), "it": given}).find(reference, 2e-3)
    assert found is not None
    assert found.name == "it"
    assert found.values.shape == shape
    assert np.abs(found.values - reference).max() <= 2e-3


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((0, 2, 3, 1), (2, 5, 6, 4)),  # NHWC
        ((0, 1, 2, 3), (2, 4, 30)),  # pixels merged
        ((0, 2, 3, 1), (2, 30, 4)),  # tokens
        ((0, 1, 2, 3), (8, 5, 6)),  # batch and heads merged
        ((0, 1, 2, 3), (240,)),
        ((1, 0, 2, 3), (4, 2, 5, 6)),
    ],
)
def test_layouts_of_exporters(axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    reference = random(0, (2, 4, 5, 6))
    given = np.ascontiguousarray(reference.transpose(axes)).reshape(shape)
    found = CandidateTensors({"it": given}).find(reference, 0.0)
    assert found is not None
    assert np.array_equal(found.values, reference)


@settings(deadline=None)
@given(SEEDS, SHAPES)
def test_layouts_are_all_permutations(seed: int, shape: tuple[int, ...]) -> None:
    """Against every permutation of every axis, by brute force."""
    array = random(seed, shape)
    expected = set()
    for permutation in itertools.permutations(range(len(shape))):
        permuted = array.reshape([shape[axis] for axis in permutation])
        expected.add(permuted.transpose(np.argsort(permutation)).tobytes())
    assert {np.ascontiguousarray(layout).tobytes() for layout in layouts(array, shape)} == expected


def test_no_layout_of_a_map_exchanges_rows_and_columns() -> None:
    """NCHW is kept as NHWC, by no runtime as NCWH; tokens and heads may stand in any order."""
    reference = random(0, (2, 3, 4, 5))
    channels_last = np.ascontiguousarray(reference.transpose(0, 2, 3, 1))
    turned = np.ascontiguousarray(reference.transpose(0, 1, 3, 2))
    tensors = CandidateTensors({"turned": turned})
    assert tensors.find(reference, 0.0) is not None
    assert tensors.find(reference, 0.0, spatial=True) is None
    found = CandidateTensors({"turned": turned, "it": channels_last}).find(reference, 0.0, spatial=True)
    assert found is not None
    assert (found.name, found.values.tolist()) == ("it", reference.tolist())


@settings(deadline=None)
@given(
    SEEDS,
    array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=4),
    st.integers(0, 5),
    st.floats(1e-6, 1.0),
)
def test_the_nearest_of_several_is_that_of_brute_force(
    seed: int, shape: tuple[int, ...], count: int, size: float
) -> None:
    reference = random(seed, shape)
    tensors = {f"t{i}": reference + size * random(seed + i + 1, shape) for i in range(count)}
    tolerance = min(2 * size, RESEMBLANCE * np.abs(reference).max())
    found = CandidateTensors(tensors).find(reference, tolerance)
    errors = {
        name: min(float(np.abs(layout - reference).max()) for layout in layouts(array, shape))
        for name, array in tensors.items()
    }
    within = {name: error for name, error in errors.items() if error <= tolerance}
    if not within:
        assert found is None
    else:
        assert found is not None
        assert found.name == min(within, key=lambda name: within[name])


@settings(deadline=None)
@given(SEEDS, SHAPES, st.integers(0, 10**6), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_what_is_not_finite_never_matches(
    seed: int, shape: tuple[int, ...], place: int, value: float
) -> None:
    reference = random(seed, shape)
    damaged = reference.copy()
    damaged.flat[place % damaged.size] = value
    tensors = CandidateTensors({"damaged": damaged, "nothing": np.full(shape, value)})
    assert tensors.find(reference, 1e300) is None
    nearest = tensors.nearest(reference, 1e300, set())
    assert nearest is None or nearest.worst.utilisation > 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_matches_only_in_its_place(value: float) -> None:
    """As a graph means it, by a mask of infinities or a quotient of zeros."""
    reference = np.array([[1.0, value], [2.0, 3.0]])
    same, other = reference + 1e-9, np.array([[value, 1.0], [2.0, 3.0]])
    found = CandidateTensors({"other": other, "same": same}).find(reference, 1e-6)
    assert found is not None
    assert found.name == "same"
    assert CandidateTensors({"other": other, "finite": np.ones((2, 2))}).find(reference, 1e-6) is None


@settings(deadline=None)
@given(SEEDS, array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=4), st.integers(0, 10**6))
def test_one_wrong_element_is_no_match(seed: int, shape: tuple[int, ...], place: int) -> None:
    reference = random(seed, shape)
    wrong = reference.copy()
    wrong.flat[place % wrong.size] += 0.01
    assert CandidateTensors({"wrong": wrong}).find(reference, 1e-3) is None


def test_integers_and_other_sizes_are_not_looked_at() -> None:
    reference = np.arange(6.0).reshape(2, 3)
    tensors = {"whole": np.arange(6).reshape(2, 3), "more": np.arange(8.0), "none": np.zeros((0, 3))}
    assert CandidateTensors(tensors).find(reference, 100.0) is None


def test_a_wrong_tensor_in_another_layout_is_nearer_than_another_of_the_same_shape() -> None:
    reference = random(0, (1, 6, 3, 5))
    tensors = {"other": random(1, reference.shape), "it": 1.01 * reference.transpose(0, 2, 3, 1)}
    found = CandidateTensors(tensors).nearest(reference, 1e-6, set())
    assert found is not None
    assert found.name == "it"
    np.testing.assert_array_equal(found.values, 1.01 * reference)


def test_nearest_leaves_out_what_is_known_and_its_copies() -> None:
    reference = random(0, (2, 3))
    tensors = {"known": reference + 0.1, "copy": reference + 0.1, "other": reference + 0.5}
    found = CandidateTensors(tensors).nearest(reference, 0.1, {"known"})
    assert found is not None
    assert found.name == "other"
    assert np.array_equal(found.values, tensors["other"])
    assert found.worst.utilisation == pytest.approx(5)
