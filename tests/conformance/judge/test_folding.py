"""Constants that a converter stores narrower: cut off instead of rounded, and the smallest as zero."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from refimpl.ops.operation import Array

SMALLEST = 2.0**-14
"""The smallest normal number of float16."""
RNG = np.random.default_rng(0)
CONSTANT = RNG.normal(size=64).astype(np.float32) * np.where(np.arange(64) % 4 == 0, 1e-5, 1.0).astype("f")
X = RNG.normal(scale=1e-6, size=(2, 64)).astype(np.float32)


def added(constant: Array) -> OnnxGraph:
    """Return x + constant."""
    held = [numpy_helper.from_array(constant, "held")]
    nodes = [helper.make_node("Cast", ["held"], ["wide"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Add", ["x", "wide"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 64])] for name in ("x", "z")]
    graph = helper.make_graph(nodes, "added", *ends, held)
    return OnnxGraph.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def cut_off(array: Array) -> Array:
    """Return what ncnn's tools make of floats: their last bits are left out, and what is subnormal is 0."""
    wide = (array.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.abs(array) < SMALLEST, 0, wide).astype(np.float16)


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_what_is_cut_off_is_right_and_a_factor_is_not(factor: float) -> None:
    changed = np.where(np.arange(64) < 8, CONSTANT * np.float32(factor), CONSTANT)
    held = cut_off(changed)
    assert (held[CONSTANT != 0] == 0).sum() > 8
    report = verify_against(added(held), added(CONSTANT), {"drawn": {"x": X}})
    assert report.verdict == ("pass" if factor == 1.0 else "fail"), report.headline()
