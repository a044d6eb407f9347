"""The noise envelope: sizes and independence of its perturbations, and that threads do not change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import narrow_network
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from conformance.bounds import FLOAT16, FLOAT32, Declaration, introduced_bound
from conformance.bounds import envelope as envelopes
from conformance.bounds.envelope import deviations, envelope
from refimpl import Recording, ops, record
from refimpl.ops.operation import Array


class Small:
    """A model of one function of the images and the weights."""

    def __init__(self, compute: Any, weights: Mapping[str, Array]) -> None:
        self.compute = compute
        self.weights = dict(weights)

    def __call__(self, images: Array) -> Any:
        return {"y": self.compute(images, self.weights)}


def recorded(compute: Any, shape: tuple[int, ...] = (1, 4, 6, 5), **weights: Array) -> Recording:
    x = np.random.default_rng(0).normal(size=shape)
    return record(Small(compute, weights or {"none": np.ones(1)}), x)


def samples(recording: Recording, count: int = 400) -> Array:
    runs = deviations(recording, Declaration(), samples=count)
    return np.stack([run["y"] for run in runs])


def test_a_single_rounding_is_perturbed_by_its_probable_size() -> None:
    recording = recorded(lambda x, w: ops.mul(x, w["factor"]), factor=np.full(1, 1.7))
    step = recording.steps[0]
    operands = tuple(recording.tensors[name] for name in step.inputs)
    size = introduced_bound("Mul", operands, {}, recording.tensors[step.outputs[0]], probable=True)
    assert size is not None
    # Either sign, never another size; float32 holds the size.
    np.testing.assert_allclose(samples(recording, 20), np.broadcast_to(size, (20, *size.shape)), rtol=1e-6)


def conv_norm(x: Array, w: Mapping[str, Array]) -> Array:
    made = ops.conv(x, w["weight"], pads=(1, 1, 1, 1))
    return ops.batch_normalization(made, w["scale"], w["shift"], w["mean"], w["variance"])


def norm_weights() -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {
        "weight": rng.normal(size=(3, 4, 3, 3)),
        "scale": rng.uniform(0.5, 2, 3) * (-1, 1, 1),
        "shift": rng.normal(size=3),
        "mean": rng.normal(size=3),
        "variance": rng.uniform(0.5, 2, 3),
    }


def test_a_folded_batch_norm_has_the_variance_of_both_roundings() -> None:
    recording = recorded(conv_norm, **norm_weights())
    conv, norm = recording.steps
    sizes = []
    for step in (conv, norm):
        operands = tuple(recording.tensors[name] for name in step.inputs)
        output = recording.tensors[step.outputs[0]]
        size = introduced_bound(step.operation, operands, step.attributes, output, probable=True)
        assert size is not None
        sizes.append(size)
    weights = norm_weights()
    factor = (weights["scale"] / np.sqrt(weights["variance"] + 1e-5)).reshape(1, -1, 1, 1)
    expected = np.sqrt((sizes[0] * factor) ** 2 + sizes[1] ** 2)
    np.testing.assert_allclose(np.sqrt(np.mean(samples(recording, 8) ** 2, axis=0)), expected, rtol=1e-5)


def test_the_folded_run_computes_the_same() -> None:
    recording = recorded(conv_norm, **norm_weights())
    graph = envelopes._folded(recording, {})
    assert [node.op_type for node in graph.nodes] == ["Conv"]
    values = envelopes._perturbed_run(
        graph, {}, np.ones(envelopes.SIGNS, np.float32), np.random.default_rng(0)
    )
    name = recording.outputs["y"]
    np.testing.assert_allclose(values[name], recording.tensors[name], rtol=1e-13, atol=1e-14)


def test_a_convolution_that_is_used_twice_is_not_folded() -> None:
    def compute(x: Array, w: Mapping[str, Array]) -> Array:
        made = ops.conv(x, w["weight"], pads=(1, 1, 1, 1))
        normed = ops.batch_normalization(made, w["scale"], w["shift"], w["mean"], w["variance"])
        return ops.add(made, normed)

    graph = envelopes._folded(recorded(compute, **norm_weights()), {})
    assert [node.op_type for node in graph.nodes] == ["Conv", "BatchNormalization", "Add"]


def test_independent_roundings_add_up_by_their_squares() -> None:
    """A sum of two products: its deviation is that of three independent signs."""

    def compute(x: Array, w: Mapping[str, Array]) -> Array:
        return ops.add(ops.mul(x, w["a"]), ops.mul(x, w["b"]))

    recording = recorded(compute, a=np.full(1, 1.7), b=np.full(1, -0.9))
    x = np.abs(recording.tensors["images"])
    u = FLOAT32.unit_roundoff
    expected = u * x * np.sqrt(1.7**2 + 0.9**2 + 0.8**2)
    measured = np.sqrt(np.mean(samples(recording) ** 2))
    assert measured == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.05)


def test_the_number_of_threads_changes_nothing() -> None:
    recording = record(narrow_network.network(np.float64), narrow_network.picture().astype(np.float64))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            found.append(envelope(recording, Declaration(storage=FLOAT16)))
    assert found[0].keys() == found[1].keys()
    for name, size in found[0].items():
        assert found[1][name] == pytest.approx(size, rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 99), st.integers(1, 64))
def test_signs_begin_again_at_their_end(size: int, first: int, at_once: int) -> None:
    signs = np.random.default_rng(size).choice([-1.0, 1.0], 100).astype(np.float32)
    value, sizes = np.zeros((size, 1)), np.arange(size, dtype=np.float32).reshape(size, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelopes, "AT_ONCE", at_once)
        envelopes._perturb(value, sizes, signs, first)
    expected = sizes[:, 0] * np.take(signs, np.arange(first, first + size), mode="wrap")
    assert np.array_equal(value[:, 0], expected)


def test_an_operand_is_never_perturbed_in_place() -> None:
    x = np.arange(12.0).reshape(3, 4)
    for view in (x, x[1:], x.T, x.reshape(4, 3)):
        assert not np.shares_memory(envelopes._own(view, [x]), x)
    fresh = x * 2
    assert envelopes._own(fresh, [x]) is fresh


CONVOLUTIONS = {
    "dense": {"pads": (1, 1, 1, 1)},
    "strided": {"pads": (1, 0, 1, 2), "strides": (2, 1)},
    "dilated": {"pads": (2, 2, 2, 2), "dilations": (2, 2)},
    "grouped": {"group": 2},
    "depthwise": {"group": 4},
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("size", [1e-16, 1e-7, 1.0, 1e20])
def test_a_convolution_of_a_moved_operand_is_the_convolution_of_it(kind: str, size: float) -> None:
    """By its definition, but for what float32 loses of the movement."""
    settings = CONVOLUTIONS[kind]
    shape = (4, 4 // settings.get("group", 1), 3, 3)
    weights = {"weight": np.random.default_rng(3).normal(size=shape), "bias": np.arange(4.0)}
    recording = recorded(lambda x, w: ops.conv(x, w["weight"], w["bias"], **settings), **weights)
    (node,) = recording.steps
    linear = envelopes._Convolutions.of(recording.graph, recording.tensors, {})
    x = recording.tensors[node.inputs[0]]
    moved = x + size * np.random.default_rng(4).normal(size=x.shape)
    (made,) = linear.of_moved(node, (moved, *weights.values()))
    expected = ops.conv(moved, weights["weight"], weights["bias"], **settings)
    movement = np.abs(moved - x).max() * 36
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6 * movement + 1e-13)
    assert np.abs(made - recording.tensors[node.outputs[0]]).max() > 0.1 * size or size < 1e-15


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200, 1e-200])
def test_what_float32_does_not_hold_is_convolved_in_float64(value: float) -> None:
    weights = {"weight": np.full((2, 4, 1, 1), 1.5)}
    recording = recorded(lambda x, w: ops.conv(x, w["weight"]), **weights)
    (node,) = recording.steps
    linear = envelopes._Convolutions.of(recording.graph, recording.tensors, {})
    moved = recording.tensors[node.inputs[0]].copy()
    moved[0, 1, 2, 3] += value
    (made,) = linear.of_moved(node, (moved, weights["weight"]))
    np.testing.assert_array_equal(made, ops.conv(moved, weights["weight"]))


@pytest.mark.parametrize("weight", [1e-30, 1e-200, 1e30, np.inf])
def test_weights_that_float32_does_not_hold_are_kept(weight: float) -> None:
    weights = {"weight": np.array([1.0, 0.0, -1.0, weight]).reshape(1, 4, 1, 1)}
    recording = recorded(lambda x, w: ops.conv(x, w["weight"]), **weights)
    assert not envelopes._Convolutions.of(recording.graph, recording.tensors, {}).weights


def test_of_a_weight_that_is_perturbed_nothing_is_known() -> None:
    recording = recorded(lambda x, w: ops.conv(x, w["weight"]), weight=np.ones((1, 4, 1, 1)))
    name = recording.steps[0].inputs[1]
    linear = envelopes._Convolutions.of(recording.graph, recording.tensors, {name: np.ones(1)})
    assert not linear.weights
