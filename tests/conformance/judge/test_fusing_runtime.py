"""A runtime that computes several steps as one layer is blamed at the layer that is wrong, in any layout."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from altered_models import change
from narrow_network import exported, network, picture

from conformance.bounds import Declaration
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge import steps
from conformance.judge.alignment import CandidateTensors
from conformance.judge.steps import compare_steps
from conformance.reports.report import Comparison, Fault
from refimpl import Recording, record
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

ACTIVATIONS = {"Relu", "Clip", "HardSigmoid"}
REACH = 8
Laid = Callable[[Array], Array]


def layers(model: onnx.ModelProto) -> dict[str, Array]:
    """What a phone's runtime has: ONNX Runtime's tensors but those within a layer.

    A convolution is one layer with its batch norm and activation, an attention one with its projections.
    """
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
    return {
        name: array
        for name, array in candidate.capture(picture()).items()
        if not (("_attn" in name and "out_proj" not in name) or name.endswith("out_proj/MatMul"))
        and not {"BatchNormalization", *ACTIVATIONS}.intersection(users.get(name, []))
    }


@functools.cache
def reference() -> Recording:
    return record(network(np.float64), picture().astype(np.float64))


def as_it_is(array: Array) -> Array:
    return array


def channels_last(array: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if array.ndim == 4 else array


def judged(
    alter: Callable[[onnx.ModelProto], None], laid: Laid, further: Sequence[Array] = ()
) -> tuple[list[Comparison], Fault | None]:
    model = exported()
    alter(model)
    held = layers(model)
    numbers = {name: str(place) for place, name in enumerate(held)}
    outputs = {name: numbers[name] for name in reference().outputs}
    named = {numbers[name]: laid(array) for name, array in held.items()}
    tensors = CandidateTensors(named | {f"further {place}": array for place, array in enumerate(further)})
    return compare_steps(reference(), outputs, tensors, Declaration(), reach=REACH)


@pytest.mark.parametrize("laid", [as_it_is, channels_last])
def test_a_right_one_passes(laid: Laid) -> None:
    rows, fault = judged(lambda model: None, laid)
    assert fault is None
    assert sum(row.verdict == "absent" for row in rows) > 30


BLOCK, DECODER = "backbone.trans.transformer_blocks.0.mlp", "instance_decoder.global_decoder.0"
SLICES = [
    ("backbone.tpm.layer2.conv.2.c.weight", "backbone.tpm.layer2/Relu_2"),
    ("backbone.tpm.layer3.conv.0.bn.bias", "backbone.tpm.layer3/Relu"),
    (f"{BLOCK}.dwconv.weight", f"{BLOCK}/Clip"),
    (f"{BLOCK}.dwconv.bias", f"{BLOCK}/Clip"),
    (f"{BLOCK}.fc1.c.weight", f"{BLOCK}.fc1"),
    (f"{DECODER}.self_attn.in_proj_weight", f"{DECODER}.self_attn.out_proj"),
    (f"{DECODER}.self_attn.in_proj_bias", f"{DECODER}.self_attn.out_proj"),
    (f"{DECODER}.cross_attn.out_proj.weight", f"{DECODER}.cross_attn.out_proj"),
    (f"{DECODER}.self_norm.weight", f"{DECODER}.self_norm"),
]


@pytest.mark.parametrize("laid", [as_it_is, channels_last])
@pytest.mark.parametrize(("weight", "layer"), SLICES)
@pytest.mark.parametrize("factor", [1.05, 3.0])
def test_the_wrong_layer_is_blamed(weight: str, layer: str, factor: float, laid: Laid) -> None:
    def slice_too_large(values: Array) -> Array:
        scaled = values.copy()
        scaled[: max(1, len(values) // 4)] *= factor
        return scaled

    _, fault = judged(lambda model: change(model, weight, slice_too_large), laid)
    assert fault is not None
    assert fault.step == layer


@pytest.mark.parametrize("further", [0, 1])
def test_a_tensor_somewhere_and_its_relu_explain_nothing(further: int) -> None:
    """Most layers have a ReLU; that of a tensor without anything to do with a layer is no sign of it."""
    layer = "mask_decoder.top_down.0"
    shape = reference().tensors[layer].shape
    noise = np.random.default_rng(0).standard_normal((further, *shape)).astype(np.float32)
    pairs = [each for x in noise for each in (x, np.maximum(x, 0))]
    _, fault = judged(
        lambda model: change(model, f"{layer}.conv.weight", lambda x: 1.003 * x), as_it_is, pairs
    )
    assert fault is not None
    assert fault.step == layer


@pytest.mark.parametrize("pair", zip(SLICES[:4], SLICES[:4:-1], strict=True))
def test_what_is_known_before_a_mistake_changes_nothing(
    pair: Sequence[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def alter(model: onnx.ModelProto) -> None:
        for weight, _ in pair:
            change(model, weight, lambda x: 1.3 * x)

    rows, fault = judged(alter, as_it_is)
    assert sum(row.verdict == "fail" for row in rows) > 1
    monkeypatch.setattr(steps, "_until", lambda *_: {})
    assert judged(alter, as_it_is) == (rows, fault)
