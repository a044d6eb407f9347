"""Deploying the trained network: what is made of it is what it says, and flips are counted."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as tree

import numpy as np
import onnx
import pytest

from conformance.candidates.onnx_runtime import RuntimeOptions
from conformance.evidence.deployment import Deployment, compared, halved, quantized
from conformance.evidence.worst import quality
from golden.learning.curve import SHOWN, loss_curve
from refimpl import MobileInst, Weights, held_out
from refimpl.inference import Placement, postprocess
from refimpl.scenes import Frame
from refimpl.trained import trained_config

OUTPUTS = ["class_logits", "objectness", "masks"]


@pytest.fixture(scope="module")
def deployment():
    return Deployment(MobileInst(trained_config("scenes-tiny"), Weights.trained("scenes-tiny")), 2)


def run(model, images):
    return RuntimeOptions(threads=1).session(model).run(OUTPUTS, {"images": images})


def test_swapped_channels_are_swapped_channels(deployment) -> None:
    images = deployment.inputs[0]
    swapped = run(deployment.model, np.ascontiguousarray(images[:, ::-1]))
    for ours, theirs in zip(run(deployment.mistaken("preprocessing/BGR"), images), swapped, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_half_model_is_float16_inside_and_close(deployment) -> None:
    model = halved(deployment.model)
    onnx.checker.check_model(model)
    kinds = {array.data_type for array in model.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    for ours, theirs in zip(
        run(model, deployment.inputs[0]), run(deployment.model, deployment.inputs[0]), strict=True
    ):
        assert 0 < np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()


def test_one_part_is_quantized_and_no_other(deployment) -> None:
    model = quantized(deployment.folded, "backbone.trans")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in convolutions:
        quantised = makers.get(node.input[1]) == "DequantizeLinear"
        assert quantised == node.name.startswith("backbone.trans"), node.name


def test_what_is_measured_of_the_float32_model_is_no_loss(deployment) -> None:
    row = deployment.measure("float32", deployment.model)
    assert (row.flipped, row.pixels, row.verdict) == (0, 0.0, "pass")
    assert row.instances > 0


def test_flips_are_lost_found_and_renamed_instances(deployment) -> None:
    (before, other) = deployment.reference
    assert compared([before], [before]) == (0, 0.0)
    shown = np.flatnonzero(before.scores > 0.4)
    scores = before.scores.copy()
    scores[shown[0]] = 0.3
    assert compared([before], [dataclasses.replace(before, scores=scores)]) == (1, 0.0)
    labels = before.labels.copy()
    labels[shown[0]] += 1
    assert compared([before], [dataclasses.replace(before, labels=labels)]) == (1, 0.0)
    masks = before.masks.copy()
    masks[shown[0]] ^= True
    flipped, pixels = compared([before, other], [dataclasses.replace(before, masks=masks), other])
    everything = len(shown) + np.count_nonzero(other.scores > 0.4)
    assert (flipped, pixels) == (0, pytest.approx(1 / everything))


def test_quality_is_one_for_the_truth_and_less_for_each_mistake() -> None:
    frame = held_out.held_out_picture(0)
    asked = np.flatnonzero(held_out.seen_enough(frame.masks))
    count, size = len(asked), held_out.SIZE
    logits = np.full((1, count, 4), -9.0)
    logits[0, np.arange(count), frame.labels[asked]] = 9
    masks = np.where(frame.masks[asked], 9.0, -9.0)[None]

    def found(class_logits, masks):
        from types import SimpleNamespace

        outputs = SimpleNamespace(
            class_logits=class_logits, masks=masks, objectness=np.full((1, count, 1), 9.0)
        )
        return postprocess(outputs, Placement.unscaled(*size))

    assert quality(frame, found(logits, masks)) == pytest.approx(1)
    assert quality(frame, found(np.roll(logits, 1, axis=2), masks)) < 0.5
    assert quality(frame, found(np.full_like(logits, -9.0), masks)) == 0
    mistaken = masks.copy()
    mistaken[0, 0] = -mistaken[0, 0]
    assert quality(frame, found(logits, mistaken)) < 1
    assert isinstance(frame, Frame)


def test_the_loss_curve_is_svg_with_a_line_for_each_term() -> None:
    log = "step,total,classification,dice,cells\n20,4,1,0.5,1\n40,2,0.5,0.25,0.5\n"
    root = tree.fromstring(loss_curve(log, "a <run>"))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == len(SHOWN)
    total = [tuple(map(float, point.split(","))) for point in lines[0].get("points").split()]
    assert total[0][1] < total[1][1]  # SVG's y grows downwards
    assert total[1][0] > total[0][0]
