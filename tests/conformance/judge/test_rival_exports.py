"""Right exports of the rivals conform, ours and those of both of PyTorch's exporters; wrong ones do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rival_networks import narrow

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Report
from refimpl import MobileInstConfig, Network, Weights

PRESETS = ("solov2-lite-r18", "condinst-topformer-base", "yolact-mobilenetv2", "maskrcnn-r50")
SIZE = (64, 96)


def judged(model: onnx.ModelProto, config: MobileInstConfig, weights: Weights) -> Report:
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model))
    return verify(candidate, config, weights, rendered_input(SIZE))


@pytest.mark.parametrize("preset", PRESETS)
def test_our_export_conforms(preset: str) -> None:
    config = narrow(preset)
    weights = Weights.seeded(config, seed=1)
    report = judged(export(Network(config, weights), np.zeros((1, 3, *SIZE), np.float32)), config, weights)
    assert report.verdict == "pass"
    steps = report.inputs[0].steps
    assert len(steps) > 60
    assert all(step.verdict == "pass" for step in steps)


@pytest.mark.parametrize(
    ("preset", "weight", "step"),
    [
        ("solov2-lite-r18", "mask_feat_head.convs_all_levels.2.conv1.gn.weight", "mask_feat_head"),
        ("yolact-mobilenetv2", "prediction_layers.0.mask_layer.bias", "prediction_layers.0"),
    ],
)
def test_a_wrong_weight_is_found(preset: str, weight: str, step: str) -> None:
    config = narrow(preset)
    weights = Weights.seeded(config, seed=1)
    model = export(Network(config, weights), np.zeros((1, 3, *SIZE), np.float32))
    tensor = next(each for each in model.graph.initializer if each.name == weight)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), weight))
    report = judged(model, config, weights)
    assert report.verdict == "fail"
    assert any(row.verdict == "fail" and row.name.startswith(step) for row in report.inputs[0].steps)


@pytest.mark.runtimes
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("preset", PRESETS[:3])
def test_exports_of_pytorch_conform(preset: str, dynamo: bool, tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    from golden.sources.independent import module_for
    from golden.sources.independent.export import export as export_module
    from golden.sources.independent.weights import load

    config = narrow(preset)
    weights = Weights.seeded(config, seed=1)
    module = load(module_for(config), weights)
    path = export_module(module, torch.zeros(1, 3, *SIZE), tmp_path / "it.onnx", dynamo, 18)
    report = judged(onnx.load(path), config, weights)
    assert report.verdict == "pass"
