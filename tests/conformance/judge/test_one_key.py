"""Attention over a single key: its weight is one whatever is asked, so that a simplifier takes it out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, exported, picture, weights
from onnx import numpy_helper, shape_inference

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.reports.report import Report

pytestmark = pytest.mark.usefixtures("small_backbones")

ATTENTION = "instance_decoder.local_decoder.0.cross_attn"


def judged(model: onnx.ModelProto) -> Report:
    """Return the verdict on a model; 64 × 96 pixels have one key."""
    return verify(OnnxRuntimeCandidate(OnnxGraph.load(model)), CONFIG, weights(), {"picture": picture()})


def without_nodes(model: onnx.ModelProto, taken: Callable[[onnx.NodeProto], bool]) -> onnx.ModelProto:
    """Return a model without some nodes, and without what only they use."""
    kept = [node for node in model.graph.node if not taken(node)]
    while True:
        used = {name for node in kept for name in node.input} | {each.name for each in model.graph.output}
        needed = [node for node in kept if used.intersection(node.output)]
        if len(needed) == len(kept):
            break
        kept = needed
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def without_the_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that has ones in place of what a Softmax over one element makes."""
    shapes = {each.name: each for each in shape_inference.infer_shapes(model).graph.value_info}
    for node in list(model.graph.node):
        if node.op_type == "Softmax":
            sides = [side.dim_value for side in shapes[node.output[0]].type.tensor_type.shape.dim]
            if sides[-1] == 1:
                ones = numpy_helper.from_array(np.ones(sides, np.float32), node.output[0])
                model.graph.initializer.append(ones)
    fixed = {each.name for each in model.graph.initializer}
    return without_nodes(model, lambda node: fixed.issuperset(node.output))


def test_attention_over_one_key_may_be_taken_out() -> None:
    whole = exported()
    model = without_the_softmax(exported())
    operators = [[node.op_type for node in each.graph.node].count("Softmax") for each in (whole, model)]
    assert operators[1] < operators[0]
    report = judged(model)
    assert report.verdict == "pass", report.headline()
    said = " ".join(report.inputs[0].remarks)
    # The sum with the positions, two projections and their biases, the scale, the product, the softmax.
    assert "a Softmax over one element is one whatever it is given: 8 steps before it" in said
    assert "a larger input" in said


def test_what_is_kept_of_it_is_judged() -> None:
    model = exported()
    scale = next(each for each in model.graph.initializer if each.name == f"{ATTENTION}/Mul/literal_1")
    scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), scale.name))
    report = judged(model)
    assert report.verdict == "fail"
    fault = report.inputs[0].first_fault
    assert fault is not None
    assert fault.step == f"{ATTENTION}/Mul"


def test_other_attention_may_not() -> None:
    """The keys of the other attention are many."""
    model = exported()
    for node in model.graph.node:
        if node.op_type == "Softmax" and "self_attn" in node.output[0]:
            node.op_type = "Identity"
            del node.attribute[:]
    assert judged(model).verdict == "fail"
