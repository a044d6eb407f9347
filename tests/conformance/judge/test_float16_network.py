"""The network in float16, as ONNX Runtime's own converter writes it: it is computed in float32 there."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, picture, weights
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.reports.report import Report
from refimpl import MobileInst


def converted(keep_io_types: bool) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that float16 makes zero
        made = convert_float_to_float16(
            export(MobileInst(CONFIG, weights()), picture()), keep_io_types=keep_io_types
        )
    assert isinstance(made, onnx.ModelProto)
    return made


def judged(model: onnx.ModelProto) -> Report:
    return verify(OnnxRuntimeCandidate(OnnxGraph.load(model)), CONFIG, weights(), {"scene": picture()})


@pytest.mark.parametrize("keep_io_types", [True, False])
def test_it_passes(keep_io_types: bool) -> None:
    report = judged(converted(keep_io_types))
    report.raise_on_failure()
    assert all(row.verdict == "pass" for row in report.inputs[0].steps)


@pytest.mark.parametrize("keep_io_types", [True, False])
def test_a_slice_of_a_weight_off_is_found(keep_io_types: bool) -> None:
    model = converted(keep_io_types)
    (tensor,) = (each for each in model.graph.initializer if "lateral.1" in each.name and len(each.dims) == 4)
    wrong = numpy_helper.to_array(tensor).copy()
    wrong[: len(wrong) // 2] *= np.float16(1.1)
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    report = judged(model)
    assert report.verdict == "fail"
    fault = report.inputs[0].first_fault
    assert fault is not None
    assert "mask_decoder.lateral.1" in fault.step
