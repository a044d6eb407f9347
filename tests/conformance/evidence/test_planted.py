"""Planted mistakes: each kind changes what it says, and the judge finds its place."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pytest

from conformance.evidence.planted import FloatSubject, QuantizedSubject, Subject, judge_planted
from conformance.evidence.planting import FLOAT_KINDS, KINDS, Planted, plant
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

NETWORK = "topformer-tiny"


@functools.cache
def subject(quantization: str | None = None) -> Subject:
    """Return a right network on the CPU."""
    if quantization is None:
        return FloatSubject(NETWORK, "onnxruntime", 3)
    return QuantizedSubject(NETWORK, "onnxruntime", 3, quantization)


def planted(model: onnx.ModelProto, kind: str) -> Planted:
    """Return a mistake of a kind."""
    found = (plant(model, kind, np.random.default_rng(seed)) for seed in range(20))
    return next(each for each in found if each)


def results(model: onnx.ModelProto, images: Array) -> list[Array]:
    """Return what ONNX Runtime makes of a model."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": images}))


@pytest.mark.parametrize(
    ("quantization", "kind"), [(None, kind) for kind in FLOAT_KINDS] + [("a8w8", kind) for kind in KINDS]
)
def test_a_mistake_is_in_the_copy_alone(quantization: str | None, kind: str) -> None:
    right = subject(quantization)
    before = right.model.SerializeToString()
    wrong = planted(right.model, kind)
    assert right.model.SerializeToString() == before
    assert wrong.kind == kind
    assert set(wrong.nodes) <= {node.name for node in right.model.graph.node}
    assert all(np.isfinite(array).all() for array in results(wrong.model, right.images))
    altered = [
        ours.name
        for ours, theirs in zip(right.model.graph.node, wrong.model.graph.node, strict=True)
        if ours != theirs
    ]
    constants = [
        ours.name
        for ours, theirs in zip(right.model.graph.initializer, wrong.model.graph.initializer, strict=True)
        if ours != theirs
    ]
    assert len(altered) + len(constants) == 1


def test_a_weight_is_five_percent_too_large_in_a_slice() -> None:
    right = subject()
    wrong = planted(right.model, "weight")
    name = wrong.detail.partition(" ")[0]
    ours, theirs = (
        next(onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.name == name)
        for model in (right.model, wrong.model)
    )
    changed = ours != theirs
    np.testing.assert_allclose(theirs[changed], 1.05 * ours[changed], rtol=1e-6)
    assert 0 < changed.mean() <= 0.5


@pytest.mark.parametrize("quantization", [None, "a8w8"])
def test_mistakes_are_found_at_their_place_in_onnx_runtime(
    quantization: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.evidence.planted._subject", lambda *_: subject(quantization))
    result = judge_planted(len(KINDS), "onnxruntime", [NETWORK], seed=3, quantization=quantization)
    counted = [trial for trial in result.trials if trial.counted]
    assert not result.alarms
    assert len(counted) == len(KINDS)
    assert all(trial.localised for trial in counted), counted


@pytest.mark.runtimes
def test_mistakes_are_found_on_the_npu() -> None:
    result = judge_planted(3, "qnn:snapdragon-8-gen-2", [NETWORK], seed=0)
    # Its pooling matrix holds 1/3, which the NPU rounds alike in all products: no alarm.
    assert not result.alarms
    assert all(trial.localised for trial in result.trials if trial.counted), result.trials


@pytest.mark.runtimes
def test_what_the_npu_does_not_look_at_is_no_mistake_there() -> None:
    right = QuantizedSubject("sparseinst-topformer-tiny", "qnn:snapdragon-8-gen-2", 0, "a8w8")
    assert not right.alarm
    model = onnx.ModelProto()
    model.CopyFrom(right.model)
    node, way = next(
        (node, each) for node in model.graph.node for each in node.attribute if each.s == b"asymmetric"
    )
    way.s = b"half_pixel"
    trial = right.trial(Planted("attribute", "", (node.name,), model))
    assert (trial.size, trial.detected) == (0.0, False)


def test_what_is_too_small_to_be_counted_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    right = subject()
    monkeypatch.setattr(right, "_judged", None)
    trial = right.trial(Planted("attribute", "", (right.model.graph.node[0].name,), right.model))
    assert not trial.counted
    assert not trial.detected


@pytest.mark.runtimes
def test_mistakes_in_files_of_integers_are_found_beside_the_right_model() -> None:
    result = judge_planted(3, "mnn:winograd=off,weights=int8-static", [NETWORK], seed=21)
    assert not result.alarms
    assert [trial.localised for trial in result.trials if trial.counted] == [True] * 3
