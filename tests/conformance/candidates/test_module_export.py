"""PyTorch modules converted: written as ONNX by PyTorch's exporter first, and judged by PyTorch itself."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import export_module
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import ConfigurationError, FileError

pytestmark = pytest.mark.runtimes
CODE = """
import torch

def build():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers).eval()
"""
SHAPE = "images=1x3x12x16"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.py"


def of_pytorch(code: Path, x: np.ndarray) -> np.ndarray:
    """Return what PyTorch computes."""
    with torch.no_grad():
        return np.asarray(runpy.run_path(str(code))["build"]()(torch.from_numpy(x)))


def test_a_module_is_converted_and_its_onnx_file_kept(code: Path) -> None:
    run = CliRunner().invoke
    result = run(conformance.cli.app, ["convert", "pytorch:mine.py:build", "--shape", SHAPE, "--to", "mnn"])
    assert result.exit_code == 0, result.output
    assert {each.name for each in code.parent.iterdir() if each.is_file()} == {
        *("mine.py", "mine.onnx", "mine.mnn", "mine.conversion.json")
    }
    x = np.random.default_rng(1).normal(size=(1, 3, 12, 16)).astype(np.float32)
    (found,) = EvaluatedGraph(OnnxGraph.load(code.with_suffix(".onnx"))).run({"images": x}).values()
    np.testing.assert_allclose(found, of_pytorch(code, x), atol=1e-5)
    line = ["verify", "mine.mnn", "--against", "mine.onnx", "--no-cache"]
    assert run(conformance.cli.app, line).exit_code == 0


def test_an_exported_program_is_read_only_if_it_is_trusted(code: Path) -> None:
    module = torch.nn.Conv2d(3, 4, 1).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 8, 8),)), "p.pt2")
    target = code.with_name("p.onnx")
    with pytest.raises(FileError, match="which can run code of whoever wrote it"):
        export_module("p.pt2", target, ["x=1x3x8x8"])
    assert not target.exists()
    export_module("p.pt2", target, ["x=1x3x8x8"], trusted=True)
    assert [*OnnxGraph.load(target).inputs] == ["x"]


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        ("mine.py:build", [], "give --shape NAME=1x3x224x224"),
        ("mine.py:build", ["images"], "--shape images: expected NAME=1x3x224x224"),
        ("mine.py:build", ["images=1x4x8x8"], "PyTorch's exporter refuses it: Given groups=1"),
        ("mine.py:none", [SHAPE], "has no 'none'"),
        ("other.py:build", [SHAPE], "there is no such file"),
    ],
)
def test_what_is_not_exported_is_named(code: Path, text: str, shapes: list[str], said: str) -> None:
    with pytest.raises((ConfigurationError, FileError), match=said):
        export_module(text, code.with_name("m.onnx"), shapes)
    assert [each.name for each in code.parent.iterdir() if each.is_file()] == ["mine.py"]


def test_what_is_said_of_a_module_has_no_effect_on_a_file(code: Path) -> None:
    code.with_name("m.onnx").write_bytes(b"")
    for more in (["--shape", SHAPE], ["--trust"]):
        result = CliRunner().invoke(conformance.cli.app, ["convert", "m.onnx", "--to", "mnn", *more])
        assert isinstance(result.exception, ConfigurationError)
        assert f"{more[0]} has no effect on an ONNX file" in str(result.exception)
