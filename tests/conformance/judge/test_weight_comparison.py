"""A candidate's weights beside the reference's: each alteration is said as what was done."""

from __future__ import annotations

from collections.abc import Callable

import narrow_network
import numpy as np
import pytest
from narrow_network import CONFIG, picture, weights
from onnx import numpy_helper

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.judge.weight_comparison import compare_weights
from refimpl.ops.operation import Array

NAME = "mask_decoder.lateral.1.conv.weight"
NORM = "mask_decoder.lateral.1.bn.running_mean"
RNG = np.random.default_rng(11)


def reference() -> dict[str, Array]:
    """Return the narrow network's weights, float32."""
    return dict(weights())


def _slice(w: Array) -> Array:
    w[:8] *= 1.05
    return w


def _inputs(w: Array) -> Array:
    w[:, 3] *= -1
    return w


def _element(w: Array) -> Array:
    w[2, 1] += 0.5
    return w


STEP = 0.01


def _levels(w: Array, step: Array | float) -> Array:
    return (np.round(w / step) * step).astype(np.float32)


def _scales(w: Array) -> Array:
    return np.abs(w).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)


ALTERED: dict[str, tuple[Callable[[Array], Array], str]] = {
    "factor": (lambda w: w * np.float32(1.37), "is 1.37 × yours, everywhere"),
    "sign": (lambda w: -w, "is -1 × yours, everywhere"),
    "slice": (_slice, "is 1.05 × yours, in 8 of 32 output channels, the first 0"),
    "input channel": (_inputs, "is -1 × yours, in 1 of"),
    "zeros": (np.zeros_like, "is all zeros"),
    "order": (lambda w: w[RNG.permutation(len(w))], "has its output channels in another order"),
    "order of inputs": (lambda w: w[:, ::-1], "has its input channels in another order"),
    "float16": (lambda w: w.astype(np.float16).astype(np.float32), "is yours rounded to float16"),
    "element": (_element, "at [2, 1, 0, 0], where yours is"),
    "shift": (lambda w: w + np.float32(0.03125), "is +0.03125 beside yours, everywhere"),
    "read as (in, out)": (
        lambda w: np.swapaxes(w.reshape(w.shape[1], w.shape[0], *w.shape[2:]), 0, 1),
        "was read as if stored by input channels, output channels, rows, columns",
    ),
    "mixed up": (
        lambda w: RNG.permutation(w.ravel()).reshape(w.shape),
        "has the same numbers in another order",
    ),
    "zero point": (lambda w: _levels(w, STEP) + np.float32(2 * STEP), ", +2 steps"),
    "scales of other channels": (
        lambda w: _levels(w, _scales(w)) * np.roll(_scales(w), 1, 0) / _scales(w),
        ", and has a factor of its own for each",
    ),
    "noise": (lambda w: w + RNG.normal(size=w.shape).astype(np.float32) * 0.01, "is off by"),
}


UNLIKE = ("zeros", "order", "order of inputs", "read as (in, out)", "mixed up")
"""What resembles no weight is not taken for one where names are lost."""


@pytest.mark.parametrize("kind", ALTERED)
def test_an_altered_weight_is_said_as_what_was_done(kind: str) -> None:
    alter, said = ALTERED[kind]
    constants = reference()
    constants[NAME] = np.ascontiguousarray(alter(constants[NAME].copy()))
    (sentence,) = compare_weights(reference(), constants)
    assert sentence.startswith(f"weight {NAME} ")
    assert said in sentence
    nameless = {f"onnx::Conv_{place}": array for place, array in enumerate(constants.values())}
    assert compare_weights(reference(), nameless) == ([] if kind in UNLIKE else [sentence])


def test_the_same_weights_folded_or_transposed_are_not_said() -> None:
    assert compare_weights(reference(), reference()) == []
    folded = {name: x.astype(np.float32) for name, x in weights().folded().items()}
    assert compare_weights(reference(), folded) == []
    turned = {name: x.T if x.ndim == 2 and x.shape[0] != x.shape[1] else x for name, x in reference().items()}
    assert compare_weights(reference(), turned) == []


def test_another_weights_values_are_said() -> None:
    constants = reference()
    same = [name for name, x in constants.items() if x.shape == constants[NORM].shape and name != NORM]
    constants[NORM] = constants[same[0]]
    assert compare_weights(reference(), constants) == [f"weight {NORM} holds the values of {same[0]}"]


def test_another_checkpoint_is_one_sentence_and_a_handful() -> None:
    other = {
        name: x + np.float32(1e-3) * RNG.normal(size=x.shape).astype(np.float32)
        for name, x in reference().items()
    }
    first, *rest = compare_weights(reference(), other)
    assert first.startswith(f"{len(reference())} of {len(reference())} weights differ")
    assert len(rest) == 5


def test_a_failing_verdict_says_which_weight_and_names_no_format() -> None:
    model = export(narrow_network.network(), picture())
    (tensor,) = (each for each in model.graph.initializer if each.name == NAME)
    tensor.CopyFrom(numpy_helper.from_array(_slice(np.array(numpy_helper.to_array(tensor))), NAME))
    report = verify(
        OnnxRuntimeCandidate(OnnxGraph.load(model)), CONFIG, weights(), {"scene": picture()}
    ).leading
    assert f"weight {NAME} is 1.05 × yours, in 8 of 32 output channels, the first 0" in report.evidence
    assert not [each for each in report.diagnoses if each.fault.startswith("quantization/")]
    right = export(narrow_network.network(), picture())
    passed = verify(
        OnnxRuntimeCandidate(OnnxGraph.load(right)), CONFIG, weights(), {"scene": picture()}
    ).leading
    assert not [remark for remark in passed.remarks if remark.startswith("weight ")]
