"""Recorded steps that were damaged, or that strangers wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from conformance.reproduction.recorded_step import NOTE, RecordedStep, judge_folder
from conformance.reproduction.step_folder import StepFolder
from refimpl.errors import FileError, MobileInstError

STEP = RecordedStep("network", "y", "Relu", "float32", "float32", "cpu", 1e-6)


def relu() -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")], "g", infos[:1], infos[1:]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A step whose candidate is wrong."""
    x = np.array([-1, 2, 3], np.float32)
    arrays = {"input_0.npy": x, "candidate_0.npy": np.maximum(x, 0) + np.float32(0.5)}
    StepFolder(STEP, {"step.onnx": relu()}, arrays).write(tmp_path / "step")
    return tmp_path / "step"


def rewritten(folder: Path, **changes: object) -> None:
    note = json.loads((folder / NOTE).read_text())
    for name in ("sha256", "files"):
        del note[name]
    (folder / NOTE).write_text(json.dumps({**note, **changes}))


def test_as_written_it_fails_again(folder: Path) -> None:
    assert judge_folder(folder).verdict == "fail"


def test_without_hashes_it_is_read_as_well(folder: Path) -> None:
    rewritten(folder, envelope=None)
    assert judge_folder(folder).verdict == "fail"


@pytest.mark.parametrize("envelope", [float("nan"), float("inf"), -1, "1", [], True, 10**400])
def test_no_envelope_of_a_stranger_lets_it_pass(envelope: object, folder: Path) -> None:
    rewritten(folder, envelope=envelope)
    with pytest.raises(FileError, match=r"step\.json"):
        judge_folder(folder)


@pytest.mark.parametrize("key", ["question", "step", "operation", "arithmetic", "storage", "runtime"])
@pytest.mark.parametrize("value", [None, 1.5, [[0, 0, 4]], {}, "\ud800"])
def test_a_note_of_other_types_is_named(key: str, value: object, folder: Path) -> None:
    rewritten(folder, **{key: value})
    try:
        judge_folder(folder)
    except MobileInstError:
        return
    assert key in ("step", "operation")
    assert isinstance(value, str)


def test_no_flipped_bit_is_believed(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        if path.name == "README.md":
            continue
        for bit in range(0, 8 * len(content), 7):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            try:
                note = RecordedStep.read(folder)
            except FileError:
                continue
            assert (path.name, note) == (NOTE, STEP), bit
        path.write_bytes(content)
