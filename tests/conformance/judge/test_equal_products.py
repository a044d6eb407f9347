"""Products that are equal round equally: no sign of a fault. On numbers that vary the statistics keep their
power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.reports.junit_report import junit_report
from refimpl.ops.operation import Array

RANDOM = np.random.default_rng(0)
PLANE = RANDOM.standard_normal((1, 1, 56, 56)).astype(np.float32)
ENLARGED = np.kron(RANDOM.standard_normal((1, 256, 8, 8)), np.ones((5, 5)))
ROWS = np.tile(PLANE[0, 0, :, :1], 768)


def one_node(operator: str, weight: Array, shape: tuple[int, ...], **attributes: Any) -> OnnxGraph:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"], **attributes)],
        "one node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    return OnnxGraph.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def conv(size: int = 1) -> Array:
    return RANDOM.standard_normal((64, 256, size, size)) / 16


EQUAL = {
    "equal channels": ("Conv", conv(), np.repeat(PLANE, 256, axis=1)),
    "equal channels, 3x3": ("Conv", conv(3), np.repeat(PLANE, 256, axis=1)),
    "two channels in turn": ("Conv", conv(), np.tile(RANDOM.standard_normal((1, 2, 40, 40)), (1, 128, 1, 1))),
    "equal rows": ("Conv", conv(3), np.repeat(RANDOM.standard_normal((1, 256, 1, 40)), 40, axis=2)),
    "enlarged to the nearest": (
        "Conv",
        conv(3),
        ENLARGED,
    ),
    "constant weights": ("Conv", np.full((64, 256, 1, 1), 0.01), np.repeat(PLANE, 256, axis=1)),
    "equal columns of a matrix": (
        "MatMul",
        RANDOM.standard_normal((768, 64)),
        ROWS,
    ),
}


@pytest.mark.parametrize("case", EQUAL)
def test_equal_products_pass(case: str) -> None:
    operator, weight, x = EQUAL[case]
    report = verify_graph(OnnxRuntimeGraph(one_node(operator, weight, x.shape)), {"x": x.astype(np.float32)})
    report.raise_on_failure()
    assert {row.verdict for row in report.leading.nodes} == {"pass"}


class Off(OnnxRuntimeGraph):
    """A runtime whose weights are a millionth too large."""

    def _run(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: Any) -> dict[str, Array]:
        outputs = super()._run(model, feeds, options)
        return {name: array * np.float32(1 + 2e-6) for name, array in outputs.items()}


def test_a_small_bias_on_varied_numbers_is_found_and_said() -> None:
    x = RANDOM.uniform(0.5, 1.5, (1, 256, 40, 40)).astype(np.float32)
    report = verify_graph(Off(one_node("Conv", np.abs(conv(3)), x.shape)), {"x": x})
    (row,) = report.leading.nodes
    assert row.utilisation is not None
    assert row.utilisation < 1
    assert (row.verdict, row.systematic) == ("fail", True)
    assert row.reason is not None
    assert row.reason.startswith("error / probable rounding has mean ")
    for said in (report.headline(), junit_report(report)):
        assert row.reason in said
