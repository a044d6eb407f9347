"""How much was judged: by count, and by the multiply–accumulates of steps that were, alone or fused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import graph_recording
from conformance.judge.coverage import covered
from conformance.reports.report import Comparison, InputReport
from refimpl import Recording

CONV, PRODUCT = 5 * 4 * 4 * 3 * 3 * 3, 5 * 4 * 4 * 2
"""Multiply–accumulates by hand: 5×4×4 results of 3×3×3 taps; 5×4×2 results of 4."""


def recording() -> Recording:
    """Return the run of a convolution, ReLU and product."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "m"], ["c"], name="product"),
    ]
    constants = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("w", (5, 3, 3, 3)), ("m", (4, 2)))
    ]
    ends = [
        helper.make_tensor_value_info(*end)
        for end in (("x", 1, [1, 3, 4, 4]), ("c", TensorProto.FLOAT, None))
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return graph_recording(OnnxGraph.load(model), {"x": np.ones((1, 3, 4, 4), np.float32)})


def rows(**verdicts: str) -> list[Comparison]:
    """Return rows of verdicts by name."""
    return [Comparison.absent(name, "Relu", (), verdict) for name, verdict in verdicts.items()]


@pytest.mark.parametrize(
    ("found", "reach", "macs"),
    [
        (rows(a="pass", b="pass", c="pass"), 4, CONV + PRODUCT),
        (rows(a="absent", b="fail", c="not judged"), 4, CONV),
        (rows(a="absent", b="absent", c="pass"), 4, CONV + PRODUCT),
        (rows(a="absent", b="absent", c="pass"), 1, PRODUCT),
        (rows(a="pass", b="absent", c="inherited"), 4, CONV),
        (rows(a="absent", b="absent", c="not judged"), 4, 0),
    ],
)
def test_the_share_is_of_what_was_judged_alone_or_fused(
    found: list[Comparison], reach: int, macs: int
) -> None:
    assert covered(recording(), found, reach) == pytest.approx(macs / (CONV + PRODUCT))


def test_nothing_compared_has_no_share() -> None:
    assert covered(recording(), [], 4) is None


def report(judged: int, absent: int, share: float) -> InputReport:
    """Return a report of so many steps."""
    step = Comparison("s", "Relu", "inside", (), 0.0, 0.0, (), 0.0, 1.0, 0.0, "pass")
    missing = Comparison.absent("t", "Relu", (), "absent")
    return InputReport("x", (), "", [], [step] * judged + [missing] * absent, [], None, covered=share)


def test_the_headline_says_how_much() -> None:
    assert report(300, 0, 1.0).coverage == "300 of 300 steps judged"
    assert report(218, 20, 0.98).coverage == (
        "218 of 238 steps judged; 20 absent; 98 % of the multiply–accumulates judged"
    )
    assert report(5, 227, 0.02).coverage.startswith(
        "outputs only but for some: 5 of 232 steps judged; 227 absent; 2"
    )
