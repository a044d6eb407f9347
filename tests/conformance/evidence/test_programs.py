"""What is run as a program of its own says what it lacks, and ends with 2."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from conformance.evidence import sweep_scale
from conformance.evidence.program import end_with

NPU = "--network topformer-tiny --pictures 1"


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("npu_alarms", f"{NPU} --format a8w8 --chip snapdragon-8-elite", "mobileinst-reference[qnn]"),
        ("npu_steps", NPU, "mobileinst-reference[qnn]"),
        ("npu_beside_cpu", "--network topformer-tiny", "mobileinst-reference[qnn]"),
        ("sweep_scale", "costs {folder}", "holds no sweep"),
        ("sweep_scale", "cluster {folder}", "holds no sweep"),
        ("sweep_scale", "forwards nonesuch", "unknown preset 'nonesuch'"),
        ("sweep_pictures", "{folder}/file 6", "Not a directory"),
        ("arm", "--folder {folder}/file", "{folder}/file"),
    ],
)
def test_an_error_is_said(
    module: str,
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    monkeypatch.setattr(sys, "argv", [module, *words.format(folder=tmp_path).split()])
    with pytest.raises(SystemExit) as ended:
        end_with(importlib.import_module(f"conformance.evidence.{module}").main)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].startswith("error: ")
    assert said.format(folder=tmp_path) in error


@pytest.mark.parametrize("words", ["", "somewhere", "forwards --nonesuch"])
def test_bad_usage_is_said(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep_scale", *words.split()])
    with pytest.raises(SystemExit) as ended:
        end_with(sweep_scale.main)
    assert ended.value.code == 2
    assert "usage: " in capsys.readouterr().err
