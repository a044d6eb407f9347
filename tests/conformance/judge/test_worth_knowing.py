"""Remarks on graphs that pass: where another runtime may compute otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.reports.report import InputReport

CASES = Path(__file__).parents[4] / "shared" / "data" / "onnx-cases"


def judged(model: Any, x: np.ndarray) -> InputReport:
    candidate = OnnxRuntimeGraph(OnnxGraph.load(model), RuntimeOptions(threads=1))
    (item,) = verify_graph(candidate, {"x": x}).inputs
    return item


def model(node: onnx.NodeProto, given: int, made: int, **constants: np.ndarray) -> onnx.ModelProto:
    """Return a graph of one node that takes x and makes y."""
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("x", given), ("y", made))]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "one", infos[:1], infos[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("silent_resize_nearest_26_64", "4 of 64 elements lie so near to a tie"),
        ("silent_fp16_overflow", "a: more than float16 holds"),
    ],
)
def test_cases_that_passed_without_a_remark(name: str, said: str) -> None:
    item = judged(CASES / f"{name}.onnx", np.load(CASES / f"{name}.x.npy"))
    assert item.first_fault is None
    assert any(said in remark for remark in item.remarks)


def test_numbers_that_a_phone_flushes() -> None:
    halved = model(helper.make_node("Mul", ["x", "c"], ["y"]), 1, 1, c=np.float32([0.25]))
    assert judged(halved, np.float32([1.0, 2.0])).remarks == []
    (remark,) = judged(halved, np.float32([1.0, 2e-38])).remarks
    assert "y: holds subnormal numbers" in remark


def test_casts_of_numbers_that_the_integers_do_not_hold() -> None:
    cast = model(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT8, name="cast"), 1, 2)
    assert judged(cast, np.float32([1.5, 255.9])).remarks == []
    assert "cast: casts numbers" in judged(cast, np.float32([1.5, 256.0])).remarks[0]


def test_what_the_graph_itself_makes_undefined() -> None:
    root = model(helper.make_node("Sqrt", ["x"], ["y"]), 1, 1)
    item = judged(root, np.float32([4.0, -1.0]))
    assert item.verdict == "pass"
    assert "output y: has NaN in float64 too" in item.remarks[0]
