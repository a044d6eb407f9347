"""Graphs from both of PyTorch's exporters, evaluated in float64, against PyTorch in float64."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from conformance.graph.onnx_graph import OnnxGraph, evaluate

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")


class Mixture(torch.nn.Module):  # type: ignore[misc, name-defined]
    """One of each kind of thing that the networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.key_value = torch.nn.Linear(8, 16)
        self.layer_norm = torch.nn.LayerNorm(8)
        self.group_norm = torch.nn.GroupNorm(2, 8)
        self.query = torch.nn.Parameter(torch.randn(1, 5, 8))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[name-defined]
        functional = torch.nn.functional
        x = functional.relu6(self.norm(self.stem(images)))
        pooled = functional.max_pool2d(x, 2) + functional.avg_pool2d(x, 3, stride=2, padding=1)
        gated = pooled * functional.hardsigmoid(self.group_norm(pooled)) + functional.hardswish(pooled)
        tokens = gated.flatten(2).transpose(1, 2)
        query = self.query.expand(images.shape[0], -1, -1)
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        attended = (self.layer_norm(query) @ key.transpose(1, 2) / 8**0.5).softmax(dim=-1) @ value
        kernels = functional.normalize(self.dropout(functional.gelu(attended)), dim=-1)
        first, second = kernels.split([3, 2], dim=1)
        masks = (torch.cat([second, first], dim=1) @ gated.flatten(2)).view(-1, 5, *gated.shape[2:])
        larger = functional.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=False)
        padded = functional.pad(larger[:, :, 1:, ::2], (1, 0, 0, 2))
        return padded, masks.flatten(2).logsumexp(-1), kernels.topk(3, dim=-1).values


@pytest.mark.parametrize(
    ("opset", "dynamo"), [(11, False), (12, False), (13, False), (17, False), (20, False), (18, True)]
)
def test_exported_graphs(opset: int, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, images = Mixture().eval(), torch.randn(2, 3, 16, 24)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (images,),
            str(path),
            input_names=["images"],
            opset_version=opset,
            dynamo=dynamo,
            verbose=False,
        )
    graph = OnnxGraph.load(path)
    tensors = evaluate(graph, {"images": images.numpy()}, np.float64, keep=list(graph.outputs))
    with torch.no_grad():
        expected = model.double()(images.double())
    for name, array in zip(graph.outputs, expected, strict=True):
        assert tensors[name].dtype == np.float64
        # The exporter folds batch norm and writes constants as float32; nothing else is rounded.
        np.testing.assert_allclose(tensors[name], array.numpy(), rtol=1e-6, atol=1e-6)
