"""Right exports of the rivals conform, ours and those of both of PyTorch's exporters; wrong ones do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rival_networks import drawn_weights, narrow

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_export import export, export_regions
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from conformance.judge.network import verify
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Report
from refimpl import MobileInstConfig, Network, Weights

pytestmark = pytest.mark.usefixtures("small_backbones")
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
@pytest.mark.usefixtures("published_backbones")
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("preset", PRESETS)
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


WRONG_REGIONS = {
    "half a pixel moved": ("places = first[:, None] +", "places = first[:, None] - 0.5 +"),
    "one sample of a cell": ("/ 2 + 0.25", "// 2 + 0.5"),
    "one level finer": ("torch.floor(4 +", "torch.floor(3 +"),
    "no least side": (".clamp(min=1.0)", ".clamp(min=0.0)"),
}
"""What is written otherwise in the independent module."""


def written_otherwise(old: str, new: str) -> Any:
    """The class of the heads, of the independent module's text with something else in it."""
    from golden.sources.independent import maskrcnn

    source = Path(str(maskrcnn.__file__)).read_text("utf-8")
    assert source.count(old) == 1
    names: dict[str, Any] = {"__name__": maskrcnn.__name__, "__package__": maskrcnn.__package__}
    exec(compile(source.replace(old, new), "otherwise", "exec"), names)
    return names["RegionHeads"]


def regions_judged(kind: Any, folder: Path, dynamo: bool) -> Report:
    """The verdict on PyTorch's export of Mask R-CNN's second stage beside ours."""
    torch: Any = pytest.importorskip("torch")
    from golden.sources.independent.export import export_named
    from golden.sources.independent.weights import load

    config = narrow("maskrcnn-r50")
    weights = {name: x.astype(np.float32) for name, x in drawn_weights(config).items()}
    own = {name: x for name, x in weights.items() if name.startswith("roi_heads.")}
    module = kind(config.num_classes, config.dim, config.head_dim, config.mask_dim)
    load(module, {name.removeprefix("roi_heads."): x for name, x in own.items()})
    rng = np.random.default_rng(0)
    corners = np.array([[-5.5, 3], [-20, -20], [10, 4], [-9, 7], [1, 2], [30.2, 20.7]])
    sides = [[20, 30], [120, 130], [230, 250], [500, 460], [112, 112], [0.3, 0.4]]
    inputs = {f"level{i}": rng.normal(size=(1, config.dim, 64 >> i, 96 >> i)) for i in (2, 3, 4, 5)}
    inputs["regions"] = np.concatenate([corners, corners + sides], axis=1)
    fed = {name: x.astype(np.float32) for name, x in inputs.items()}
    tensors = {name: torch.from_numpy(x) for name, x in fed.items()}
    path = export_named(module, tensors, folder / "heads.onnx", dynamo, 18)
    ours = export_regions(Network(config, weights), np.zeros((1, 3, *SIZE), np.float32), len(corners))
    return verify_against(OnnxGraph.load(path), OnnxGraph.load(ours), {"regions": fed})


@pytest.mark.runtimes
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_exports_of_the_second_stage_conform(dynamo: bool, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from golden.sources.independent.maskrcnn import RegionHeads

    report = regions_judged(RegionHeads, tmp_path, dynamo)
    assert report.verdict == "pass"
    assert {row.name for row in report.inputs[0].outputs} == {"class_logits", "boxes", "masks"}


@pytest.mark.runtimes
@pytest.mark.parametrize("mistake", WRONG_REGIONS)
def test_a_second_stage_written_otherwise_does_not(mistake: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    report = regions_judged(written_otherwise(*WRONG_REGIONS[mistake]), tmp_path, dynamo=False)
    assert report.verdict == "fail"
    wrong = next(row.name for row in report.inputs[0].steps if row.verdict == "fail")
    assert wrong.startswith(("RoiAlign", "roi_heads.box_head.fc6"))
