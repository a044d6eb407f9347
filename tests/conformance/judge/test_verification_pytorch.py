"""Files from both of PyTorch's exporters, of an independent implementation, right and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from conformance.cli import app
from refimpl import MobileInstConfig, Weights
from refimpl.inference import preprocess
from refimpl.scenes import render_picture

torch = pytest.importorskip("torch")

from pytorch_faults import align_corners, scale_attention, scale_bias  # noqa: E402

from golden.sources import independent  # noqa: E402
from golden.sources.independent.export import export  # noqa: E402
from golden.sources.independent.weights import load  # noqa: E402

pytestmark = pytest.mark.runtimes

SETTINGS = {"dim": 64, "num_queries": 20}
EXPORTERS = [(False, 11), (False, 17), (True, 18)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and an input; the exported files join them."""
    folder = tmp_path_factory.mktemp("verification")
    config = MobileInstConfig.preset("topformer-tiny", **SETTINGS)
    Weights.seeded(config, seed=3).save(folder / "w.safetensors")
    images, _ = preprocess(render_picture(128, 192, seed=5), sizing="native", dtype=np.float32)
    np.save(folder / "x.npy", images)
    return folder


def judge(folder: Path, model: Path) -> tuple[int, dict[str, Any]]:
    """Run the command as a user would; return its exit code and JSON."""
    arguments = [
        "verify",
        str(model),
        "--model",
        "topformer-tiny",
        "--set",
        "dim=64",
        "--set",
        "num_queries=20",
    ]
    arguments += ["--weights", str(folder / "w.safetensors"), "--input", str(folder / "x.npy")]
    result = CliRunner().invoke(app, [*arguments, "--json", str(folder / "r.json")])
    assert result.exit_code in (0, 1), result.output
    return result.exit_code, json.loads((folder / "r.json").read_text())


def exported(
    folder: Path, dynamo: bool, opset: int, fault: Callable[[Any], None] = lambda model: None
) -> Path:
    """Export the independent implementation with the folder's weights, after a fault was put in."""
    config = MobileInstConfig.preset("topformer-tiny", **SETTINGS)
    model = load(
        independent.MobileInst("topformer-tiny", **SETTINGS),
        Weights.load(folder / "w.safetensors", config),
    )
    fault(model)
    images = torch.from_numpy(np.load(folder / "x.npy"))
    return export(model, images, folder / "it.onnx", dynamo, opset)


@pytest.mark.parametrize(("dynamo", "opset"), EXPORTERS)
def test_a_right_export_passes(files: Path, dynamo: bool, opset: int) -> None:
    code, report = judge(files, exported(files, dynamo, opset))
    assert code == 0
    assert report["verdict"] == "pass"
    assert report["first_fault"] is None
    assert all(row["candidate"] is not None for row in report["outputs"])
    found = [row for row in report["steps"] if row["candidate"] is not None]
    assert len(found) > 0.9 * len(report["steps"])


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "class bias": (
        lambda m: scale_bias(m, "instance_decoder.class_head.bias"),
        "instance_decoder.class_head",
    ),
    "dwconv bias": (
        lambda m: scale_bias(m, "backbone.trans.transformer_blocks.2.mlp.dwconv.bias"),
        "backbone.trans.transformer_blocks.2.mlp.dwconv",
    ),
    "norm bias": (lambda m: scale_bias(m, "mask_decoder.output.1.bn.bias"), "mask_decoder.output.1"),
    "align corners": (
        lambda m: align_corners(m, "mask_decoder.resize_top_down.1"),
        "mask_decoder.top_down.1",
    ),
    "attention scale": (scale_attention, "backbone.trans.transformer_blocks.0.attn"),
}


@pytest.mark.parametrize(
    ("fault", "dynamo"), [*((fault, False) for fault in FAULTS), ("align corners", True)]
)
def test_a_wrong_export_fails_at_the_fault(files: Path, fault: str, dynamo: bool) -> None:
    mutate, place = FAULTS[fault]
    code, report = judge(files, exported(files, dynamo, 18, mutate))
    assert code == 1
    assert report["verdict"] == "fail"
    assert report["first_fault"]["step"].startswith(place)
