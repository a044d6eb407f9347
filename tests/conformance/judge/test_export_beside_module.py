"""A PyTorch module beside its export, by both exporters, right and with a mistake in one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conformance.cli import app

pytestmark = pytest.mark.runtimes

CODE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, epsilon=1e-5):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.ln = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.LayerNorm(16, eps=epsilon)
        self.attention, self.fc = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 10)
        nn.init.uniform_(self.bn1.running_mean, -0.5, 0.5)
        nn.init.uniform_(self.bn1.running_var, 0.5, 1.5)

    def forward(self, x, scale):
        y = nn.functional.hardswish(self.bn1(self.conv1(x)))
        y = nn.functional.gelu(self.conv2(y)) + y
        t = self.ln(y.flatten(2).transpose(1, 2))
        t = t + self.attention(t, t, t, need_weights=False)[0]
        return self.fc(t.mean(1)) * scale

right = Block().eval()
other = Block(1e-3).eval()
altered = Block().eval()
with torch.no_grad():
    altered.fc.weight[3, 5] *= 1.001
"""


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_module_and_its_export(dynamo: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    Path("block.py").write_text(CODE)
    scope: dict[str, object] = {}
    exec(CODE, scope)
    inputs = (torch.from_numpy(np.ones((1, 3, 16, 16), np.float32)), torch.ones(1, 10))
    more = {"external_data": False} if dynamo else {}
    torch.onnx.export(
        scope["right"], inputs, "m.onnx", dynamo=dynamo, input_names=["x", "scale"], verbose=False, **more
    )

    def verify(name: str) -> str:
        words = ["verify", "m.onnx", "--against", f"pytorch:block.py:{name}", "--no-cache"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == (0 if name == "right" else 1), result.output
        return " ".join(result.stdout.split())

    assert "PASS m.onnx means what pytorch:block.py:right does" in verify("right")
    epsilon = verify("other")
    assert "(LayerNormalization) expected ln/native_layer_norm" in epsilon
    assert "epsilon = 0.001; the export does not" in epsilon
    assert "(Gemm)" in verify("altered")
