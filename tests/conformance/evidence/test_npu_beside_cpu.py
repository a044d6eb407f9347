"""The NPU and the CPU beside the float network: what is lost is the distance of what either gives."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest
from narrow_network import CONFIG, picture, weights

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.candidates.qnn import Npu, npu_graph
from conformance.evidence.npu_beside_cpu import SUFFIX, Setting, losses
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import quantized_for_npu
from refimpl import MobileInst, Weights

pytestmark = pytest.mark.runtimes


@functools.cache
def setting() -> Setting:
    """Return the narrow network, quantised."""
    folded = Weights(weights()).folded().astype(np.float32)
    source = export(MobileInst(CONFIG, folded), picture())
    quantised = quantized_for_npu(source, [picture(2)[1:]])
    return Setting(OnnxGraph.load(source), OnnxGraph.load(quantised), {"images": picture()})


def test_what_is_lost_is_what_the_integers_are_away_from_the_float_network() -> None:
    it = setting()
    npu = npu_graph(it.quantised, Npu.parse("snapdragon-8-gen-2")).capture(it.feeds)
    cpu = OnnxRuntimeGraph(it.quantised, RuntimeOptions(threads=1)).capture(it.feeds)
    found = losses(it, npu, cpu)
    assert len(found) > 100
    assert all(each.off[1] < 0.51 for each in found)
    session = onnxruntime.InferenceSession(
        it.source.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    truth = session.run(["class_logits"], dict(it.feeds))[0]
    each = next(each for each in found if each.name == "class_logits")
    scale, point = (it.quantised.initializers[f"class_logits_{kind}"] for kind in ("scale", "zero_point"))
    for lost, tensors in zip(each.lost, (npu, cpu), strict=True):
        real = (tensors[f"class_logits{SUFFIX}"].astype(np.float64) - point) * scale
        wanted = np.linalg.norm(real - truth) / np.linalg.norm(truth)
        assert lost == pytest.approx(wanted, rel=1e-3)
