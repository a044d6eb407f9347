"""An error lists a handful, counted by kind, what to do first; the rest is in --json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from narrow_network import OPTIONS, exported, picture, weights
from onnx import TensorProto, helper

from conformance.cli import main
from golden import DATA
from golden.store import read_manifest
from refimpl import MobileInstConfig, Weights

pytestmark = pytest.mark.usefixtures("small_backbones")

Runner = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    """Run `mobileinst` in this process; return the exit code, standard output and standard error."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mobileinst", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a narrow network and its weights."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(exported(), folder / "m.onnx")
    weights().save(folder / "w.npz")
    np.save(folder / "x.npy", picture())
    return folder


def test_a_forgotten_model_is_recognised_and_that_is_said(run: Runner, files: Path, tmp_path: Path) -> None:
    given = ["verify", files / "m.onnx", "--weights", files / "w.npz", "--input", files / "x.npy"]
    code, _, said = run(*given, "--json", tmp_path / "r.json")
    assert code == 0
    assert (
        "is that of --model topformer-tiny --set num_queries=5 --set dim=32 --set num_classes=7: adopted"
        in (" ".join(said.split()))
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["model"]["config"]["backbone"] == "topformer-tiny"
    assert run(*given, "--set", "dim=32")[0] == 0
    code, _, said = run(*given, "--set", "dim=64")
    assert (code, "they are those of --model topformer-tiny" in said) == (2, True)
    assert run(*given, "--model", "topformer-base")[0] == 2


@pytest.mark.parametrize("command", ["export", "run", "track"])
def test_every_command_adopts_it(run: Runner, files: Path, tmp_path: Path, command: str) -> None:
    pixels = tmp_path / "film"
    pixels.mkdir()
    from PIL import Image

    Image.new("RGB", (96, 64)).save(pixels / "0.png")
    words = {
        "export": [tmp_path / "e.onnx", "--size", "64x96"],
        "run": [pixels / "0.png", "--size", "64x96"],
        "track": [pixels, "--sizing", "native", "--output", tmp_path / "out"],
    }[command]
    code, _, said = run(command, *words, "--weights", files / "w.npz")
    assert (code, "adopted" in said) == (0, True)


def test_weights_that_fit_nothing_are_a_handful_of_lines(run: Runner, tmp_path: Path) -> None:
    other = Weights.seeded(MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5), 0)
    arrays = {name: array for name, array in other.items() if hash(name) % 3 or name.endswith("weight")}
    arrays |= {f"extra.part{index}.weight": np.zeros(3, np.float32) for index in range(40)}
    np.savez(tmp_path / "w.npz", **arrays)
    code, out, said = run("verify", *OPTIONS, "--weights", tmp_path / "w.npz", "--json", "-")
    assert (code, said.count("\n")) == (2, 1)
    assert len(said) < 1400
    listed = json.loads(out)
    assert len(listed["items"]) > 5
    assert "the weights do not fit" in listed["error"]
    assert f"and {len(listed['items']) - 5} more" in said


def graph(operators: list[str], domain: str = "") -> onnx.ModelProto:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("t0", f"t{len(operators)}")
    )
    nodes = [
        helper.make_node(operator, [f"t{index}"], [f"t{index + 1}"], domain=domain)
        for index, operator in enumerate(operators)
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=8)


def test_operators_are_counted_by_kind_the_most_frequent_first(run: Runner, tmp_path: Path) -> None:
    onnx.save(graph(["TfIdfVectorizer"] * 2 + ["StringNormalizer"] * 91), tmp_path / "m.onnx")
    code, out, said = run("verify", tmp_path / "m.onnx", "--graph-only", "--json", "-")
    assert code == 2
    assert "93 of 93 nodes" in said
    assert said.index("StringNormalizer ×91") < said.index("TfIdfVectorizer ×2")
    assert len(json.loads(out)["items"]) == 93


def test_many_kinds_are_a_line_still(run: Runner, tmp_path: Path) -> None:
    onnx.save(graph([f"Fused{index}" for index in range(300)], "com.microsoft"), tmp_path / "m.onnx")
    code, _, said = run("verify", tmp_path / "m.onnx", "--graph-only", "--json", tmp_path / "r.json")
    assert (code, said.count("\n")) == (2, 1)
    assert len(said) < 1400
    assert "and 295 more" in said
    assert len(json.loads((tmp_path / "r.json").read_text())["items"]) == 300


def test_a_name_of_any_length_is_a_line(run: Runner, tmp_path: Path) -> None:
    onnx.save(graph(["F" * 100_000], "com.microsoft"), tmp_path / "m.onnx")
    code, _, said = run("verify", tmp_path / "m.onnx", "--graph-only")
    assert (code, said.count("\n")) == (2, 1)
    assert len(said) < 1400
    assert "characters more" in said


def test_golden_judge_without_only_says_first_what_to_do(run: Runner, tmp_path: Path) -> None:
    entry = next(entry for entry in read_manifest(DATA) if entry.name.startswith("operations/abs"))
    place = tmp_path / "port" / f"{entry.name}.{next(iter(entry.outputs))}.npy"
    place.parent.mkdir(parents=True)
    np.save(place, entry.tensors("truth.")[next(iter(entry.outputs))])
    code, _, said = run("golden", "judge", tmp_path / "port", "--json", tmp_path / "r.json")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: --only 'operations/*' judges a part of the set; ")
    assert len(said) < 1400
    problems = json.loads((tmp_path / "r.json").read_text())["problems"]
    assert len(problems) > 100
    assert f"{len(problems)} problems" in said
    assert run("golden", "judge", tmp_path / "port", "--only", entry.name)[0] in (0, 1)
