"""What a terminal of 80 columns shows: the verdict first, and no line that is broken."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from narrow_network import OPTIONS, exported, picture, weights
from typer.testing import CliRunner

from conformance.cli import app, terminal

pytestmark = pytest.mark.usefixtures("small_backbones")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Write a network and its input, and make the terminal narrow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal.console, "width", 80)
    model = exported()
    onnx.save(model, "right.onnx")
    slope = next(node for node in model.graph.node if node.op_type == "HardSigmoid")
    next(each for each in slope.attribute if each.name == "alpha").f = 0.2
    onnx.save(model, "wrong.onnx")
    weights().save(Path("w.npz"))
    np.save("x.npy", picture())


@pytest.mark.parametrize("table", ["", " --table"])
@pytest.mark.parametrize(
    "words",
    [
        f"right.onnx {shlex.join(OPTIONS)} --weights w.npz --input x.npy",
        f"wrong.onnx {shlex.join(OPTIONS)} --weights w.npz --input x.npy",
        "right.onnx --graph-only --input x.npy",
        "wrong.onnx --against right.onnx --input x.npy",
    ],
    ids=["network", "wrong network", "graph", "against"],
)
def test_the_verdict_comes_first_and_nothing_is_broken(words: str, table: str) -> None:
    result = CliRunner().invoke(app, ["verify", *shlex.split(words + table)])
    lines = result.stdout.splitlines()
    passes = words.startswith("right")
    assert lines[0].startswith("PASS" if passes else "FAIL")
    assert lines[-1].startswith("PASS" if passes else "FAIL")
    assert any(line.startswith("coverage  ") for line in lines[:10])
    if not passes:
        assert "enhancer" in lines[1]
        assert "0.2" in " ".join(lines[:10])
    tables = [
        line for line in lines[:-1] if line.rstrip().endswith((" pass", " fail", " absent", " inherited"))
    ]
    assert len(tables) > 10
    assert max(map(len, tables)) <= 80
    assert max(len(line) for line in lines[:10]) <= 80
