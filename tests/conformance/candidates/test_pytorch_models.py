"""The PyTorch models that the reference is compared with, held against what was published about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from golden.sources.independent import MobileInst, SparseInst  # noqa: E402
from golden.sources.independent.export import export  # noqa: E402
from golden.sources.independent.mobileinst import build_backbone  # noqa: E402
from golden.sources.independent.resnet import ResNet50  # noqa: E402

pytestmark = pytest.mark.runtimes


def multiply_accumulates(build: Any, *shape: int) -> float:
    """In units of 10⁹; convolutions and matrix products, on shapes alone."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused operators are not counted
    try:
        with torch.device("meta"):
            model, images = build().eval().requires_grad_(False), torch.zeros(shape)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() / 2e9


def parameters(model: Any) -> float:
    """In millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


# Tables 3 to 6: FLOPs in G at 320×640. Normalisation and resizing, not counted here, are a constant 0.07.
TABLES: tuple[tuple[dict[str, Any], float], ...] = (
    ({"local_layers": 0}, 8.69),
    ({"global_layers": 2, "local_layers": 0}, 8.75),
    ({"global_layers": 0, "local_layers": 2}, 8.74),
    ({}, 8.75),
    ({"local_pooling": "none"}, 9.32),
    ({"local_pooling": "max4"}, 8.77),
    ({"local_pooling": "avg8"}, 8.75),
    ({"num_queries": 20}, 8.59),
    ({"num_queries": 50}, 8.65),
    ({"num_queries": 200}, 8.97),
    ({"mask_decoder": "semantic_enhanced"}, 8.79),
)


@pytest.mark.parametrize(("fields", "published"), TABLES, ids=str)
def test_flops_of_the_tables(fields: dict[str, Any], published: float) -> None:
    counted = multiply_accumulates(
        lambda: MobileInst(**{"mask_decoder": "top_down_bottom_up", **fields}), 1, 3, 320, 640
    )
    assert published - counted == pytest.approx(0.073, abs=0.01)


# Table 5's baselines lack 0.25 for the same reasons; what four convolutions add over one is exact.


def test_flops_of_the_baselines() -> None:
    four, one, fpn = (
        multiply_accumulates(
            lambda name=name, n=n: MobileInst(mask_decoder=name, mask_convs=n), 1, 3, 320, 640
        )
        for name, n in (("sparseinst", 4), ("sparseinst", 1), ("fpn", 1))
    )
    assert four - one == pytest.approx(12.38 - 6.72, abs=0.01)
    assert one - fpn == pytest.approx(6.72 - 6.69, abs=0.01)


# Parameters (M) of the ImageNet classifiers: the backbone and a linear layer of 1000 classes.
PARAMETERS = {
    "topformer-tiny": 1.5,
    "topformer-small": 3.11,
    "topformer-base": 5.07,
    "seaformer-tiny": 1.8,
    "seaformer-small": 4.1,
    "seaformer-base": 8.7,
    "seaformer-large": 14.0,
}


@pytest.mark.parametrize(("preset", "published"), PARAMETERS.items())
def test_parameters_of_the_backbones(preset: str, published: float) -> None:
    with torch.device("meta"):
        backbone = build_backbone(preset)
    classifier = (backbone.channels[3] + 1) / 1000
    decimals = len(str(published).split(".")[1])
    assert round(parameters(backbone) + classifier, decimals) == published


# SeaFormer's classifiers at 224×224, in G.
SEAFORMER_FLOPS = {"tiny": 0.1, "small": 0.2, "base": 0.3, "large": 1.2}


@pytest.mark.parametrize(("size", "published"), SEAFORMER_FLOPS.items())
def test_flops_of_seaformer(size: str, published: float) -> None:
    counted = multiply_accumulates(lambda: build_backbone(f"seaformer-{size}"), 1, 3, 224, 224)
    assert round(counted, 1) == published


def test_size_of_resnet_50() -> None:
    with torch.device("meta"):
        assert round(parameters(ResNet50()) + 2049 / 1000, 2) == 25.56
    assert multiply_accumulates(ResNet50, 1, 3, 224, 224) == pytest.approx(4.09, abs=0.01)


# Export.


MODELS: dict[str, Any] = {
    "mobileinst": lambda: MobileInst("topformer-tiny", num_queries=6, dim=32),
    "sparseinst": lambda: SparseInst("topformer-tiny", num_queries=6, dim=32, kernel_dim=16),
}


@pytest.mark.parametrize(
    ("name", "dynamo", "opset"),
    [
        ("mobileinst", False, 11),
        ("mobileinst", False, 17),
        ("mobileinst", True, 18),
        ("sparseinst", False, 13),
    ],
)
def test_export_computes_the_same(name: str, dynamo: bool, opset: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model, images = MODELS[name]().eval(), torch.randn(1, 3, 192, 192)
    path = export(model, images, tmp_path / "model.onnx", dynamo, opset)
    session = onnxruntime.InferenceSession(path)
    with torch.no_grad():
        expected = model(images)
    assert [output.name for output in session.get_outputs()] == list(expected._fields)
    for actual, tensor in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
        np.testing.assert_allclose(actual, tensor.numpy(), rtol=0, atol=1e-4 * tensor.abs().max().item())
