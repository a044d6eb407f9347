"""A step is blamed for what it does to the operands it was given, not for what those were."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from altered_models import attribute, change
from narrow_network import CONFIG, exported, picture, weights

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.reports.html_report import html_report
from conformance.reports.junit_report import junit_report
from conformance.reports.markdown_report import markdown_report
from conformance.reports.report import Report

pytestmark = pytest.mark.usefixtures("small_backbones")


def every_resize_aligned(model: onnx.ModelProto) -> str:
    """All resizes with the corners aligned."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            attribute(node, "coordinate_transformation_mode").s = b"align_corners"
    return "Resize"


def every_norm_shifted(model: onnx.ModelProto) -> str:
    """All batch norms' shifts a little larger."""
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            change(model, node.input[2], lambda x: x + 0.05)
    return "BatchNormalization"


def every_relu_leaks(model: onnx.ModelProto) -> str:
    """All ReLUs as leaky ones."""
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "LeakyRelu"
    return "Relu"


def every_softmax_over_queries(model: onnx.ModelProto) -> str:
    """All softmaxes over the axis before the last."""
    for node in model.graph.node:
        if node.op_type == "Softmax":
            attribute(node, "axis").i = -2
    return "Softmax"


MISTAKES = [every_resize_aligned, every_norm_shifted, every_relu_leaks, every_softmax_over_queries]


def report_on(mistake: Callable[[onnx.ModelProto], str]) -> tuple[Report, str]:
    model = exported()
    guilty = mistake(model)
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
    return verify(candidate, CONFIG, weights(), {"scene": picture()}), guilty


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_only_the_guilty_operation_fails(mistake: Callable[[onnx.ModelProto], str]) -> None:
    report, guilty = report_on(mistake)
    (item,) = report.inputs
    failed = [row for row in item.steps if row.verdict == "fail"]
    assert len(failed) > 1
    assert {row.operation for row in failed} == {guilty}, [(row.name, row.operation) for row in failed]
    assert item.inherited > 0
    # What comes before the first fault inherits nothing.
    first = item.steps.index(failed[0])
    assert {row.verdict for row in item.steps[:first]} <= {"pass", "absent"}


def test_the_reports_count_heirs_apart() -> None:
    report, _ = report_on(every_resize_aligned)
    (item,) = report.inputs
    assert f"{item.inherited} steps behind them" in markdown_report(report)
    assert f"{item.inherited} steps behind them" in report.failure_message()
    assert junit_report(report).count('message="inherited: ') == item.inherited
    page = html_report(report)
    assert page.count('class="verdict inherited"') == item.inherited
    assert " inherit" in page
