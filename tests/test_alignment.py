"""Tensors found by value: what has no bound must still resemble."""

from __future__ import annotations

import numpy as np

from conformance.alignment import CandidateTensors
from conformance.bounds import propagated_bound
from conformance.onnx_file import Node


def test_an_infinite_bound_finds_no_other_tensor() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((2, 3, 4))
    other = rng.standard_normal((2, 3, 4)).astype(np.float32)
    near = (reference * (1 + 1e-4)).astype(np.float32)
    assert CandidateTensors({"other": other}).find(reference, np.inf) is None
    match = CandidateTensors({"other": other, "near": near}).find(reference, np.inf)
    assert match is not None
    assert match.name == "near"


def test_a_loose_bound_finds_no_other_tensor() -> None:
    reference = np.random.default_rng(2).standard_normal((3, 50))
    other = (reference + 0.2 * np.sin(np.arange(150)).reshape(3, 50)).astype(np.float32)
    assert CandidateTensors({"other": other}).find(reference, np.full(reference.shape, 10.0)) is None


def test_a_finite_bound_finds_the_tensor_in_another_layout() -> None:
    reference = np.random.default_rng(1).standard_normal((2, 3, 4))
    turned = reference.transpose(0, 2, 1).astype(np.float32)
    match = CandidateTensors({"turned": turned}).find(reference, np.full(reference.shape, 1e-6))
    assert match is not None
    np.testing.assert_allclose(match.values, reference, rtol=1e-6)


def test_a_rounded_limit_of_a_clip_leaves_a_bound() -> None:
    x, low = np.linspace(-1, 1, 9), np.asarray(1e-6)
    clip = Node("clip", "Clip", ("x", "low"), ("y",))
    error = np.full(x.shape, 1e-3)
    _, bounds = propagated_bound([clip], {"x": x, "low": low}, errors={"x": error, "low": np.asarray(1e-13)})
    bound = bounds["y"]
    assert bound is not None
    for moved_x, moved_low in ((x + error, low + 1e-13), (x - error, low - 1e-13)):
        assert (np.abs(np.maximum(moved_x, moved_low) - np.maximum(x, low)) <= bound).all()
