"""A PyTorch module beside its export, by both exporters, right and with a mistake in one of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from conformance.candidates.pytorch import PyTorchCandidate
from conformance.cli import app, main
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_export
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError

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


FLOAT32_ONLY = """
import copy
import torch
from torch import nn

KERNEL = torch.arange(27.0).reshape(3, 1, 3, 3).div(27)

class Blur(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.register_buffer("kernel", KERNEL * factor)

    def forward(self, x):
        return nn.functional.conv2d(x, self.kernel, padding=1, groups=3)

class Plain(Blur):
    def forward(self, x):
        return nn.functional.conv2d(x, KERNEL, padding=1, groups=3)

class Cast(Blur):
    def forward(self, x):
        return super().forward(x.float())

class Checked(Blur):
    def forward(self, x):
        assert x.dtype == torch.float32
        return super().forward(x)

class Single(Blur):
    def __deepcopy__(self, memory):
        raise RuntimeError("there is one of it")

class Broken(Blur):
    def forward(self, x):
        raise RuntimeError("broken")

right, plain, cast = Blur().eval(), Plain().eval(), Cast().eval()
checked, single, broken = Checked().eval(), Single().eval(), Broken().eval()
scripted, traced = torch.jit.script(right), torch.jit.trace(right, torch.zeros(1, 3, 8, 8))
scripted_other = torch.jit.script(Blur(1.01).eval())
traced_plain = torch.jit.trace(plain, torch.zeros(1, 3, 8, 8))
"""


def blurring() -> onnx.ModelProto:
    """Return what the modules compute."""
    kernel = onnx.numpy_helper.from_array(np.arange(27, dtype=np.float32).reshape(3, 1, 3, 3) / 27, "kernel")
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    node = helper.make_node("Conv", ["x", "kernel"], ["y"], pads=[1, 1, 1, 1], group=3)
    graph = helper.make_graph([node], "blur", sides[:1], sides[1:], [kernel])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The modules by name, of a file: what is scripted is read there."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    Path("blur.py").write_text(FLOAT32_ONLY)
    return runpy.run_path("blur.py")


def judged(module: Any) -> Report:
    images = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    return verify_export(
        OnnxGraph.load(blurring()), PyTorchCandidate(module, wide=True), {"x": {"x": images}}
    )


@pytest.mark.parametrize("name", ["right", "scripted", "traced"])
def test_compiled_modules_are_judged_as_others(made: dict[str, Any], name: str) -> None:
    report = judged(made[name])
    assert report.verdict == "pass"
    assert [row.verdict for row in report.leading.steps] == ["pass"]


@pytest.mark.parametrize("name", ["plain", "cast", "checked", "single", "traced_plain"])
def test_what_float64_is_too_much_for_is_no_mistake_of_the_export(made: dict[str, Any], name: str) -> None:
    """Whoever runs it does so in float32."""
    with pytest.raises(ConfigurationError, match=r"cannot be run in float64.*--graph-only"):
        judged(made[name])


def test_what_the_refusal_names_judges_it(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(blurring(), "m.onnx")

    def verify(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mobileinst", "verify", "m.onnx", *words, "--no-cache"])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out + printed.err

    code, said = verify("--against", "pytorch:blur.py:plain")
    assert (code, "--graph-only --candidate pytorch:" in said) == (2, True)
    code, said = verify("--graph-only", "--candidate", "pytorch:blur.py:plain")
    assert (code, "1 of 1 steps judged" in said) == (0, True)


@pytest.mark.parametrize(
    ("name", "why"), [("broken", "it crashes: RuntimeError: broken"), ("scripted_other", "Conv")]
)
def test_what_is_wrong_in_float32_too_fails(made: dict[str, Any], name: str, why: str) -> None:
    report = judged(made[name])
    assert report.verdict == "fail"
    assert why in report.headline()
