"""LiteRT's files, right ones and broken ones, and what its candidate refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, weights
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.kinds import Request, make
from conformance.candidates.litert import LitertCandidate
from conformance.conversion.litert_model import read_litert
from refimpl.errors import FileError, ShapeError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")
SHAPE, ROWS_FIRST = (1, 3, 6, 8), (1, 6, 8, 3)


def kernel() -> Array:
    """Return a convolution's, (4, 3, 3, 3)."""
    return np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)


def picture() -> Array:
    """Return an input of `SHAPE`."""
    return np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


def convolution(path: Path, shape: tuple[int, ...] = SHAPE) -> Path:
    """Write a convolution as an ONNX file, of an input with channels last where ``shape`` is so."""
    turn = helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 3, 1, 2])
    last = shape == ROWS_FIRST
    nodes = [turn] * last + [helper.make_node("Conv", ["t" if last else "x", "w"], ["y"], "c", pads=[1] * 4)]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", shape), ("y", None))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [numpy_helper.from_array(kernel(), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The convolution, converted."""
    folder = tmp_path_factory.mktemp("litert")
    return convert(CONVERTERS["litert"], convolution(folder / "m.onnx"), folder / "m.tflite")[0]


def candidate(path: Path) -> LitertCandidate:
    """Return the candidate of a file."""
    made = make(f"litert:{path}", Request("", CONFIG, weights()))
    assert isinstance(made, LitertCandidate)
    return made


def assert_convolved(outputs: dict[str, Array]) -> None:
    """Compare the only output, in either layout, with PyTorch's in float64."""
    (result,) = outputs.values()
    x, w = (torch.from_numpy(array.astype(np.float64)) for array in (picture(), kernel()))
    wanted = torch.nn.functional.conv2d(x, w, padding=1).numpy()
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-5)


def test_it_computes_and_says_which_operators(model: Path) -> None:
    made = candidate(model)
    assert_convolved(made.run(picture()))
    captured, own = made.capture(picture()), made.own_graph(picture())
    assert "CONV_2D" in {node.op_type for node in own.nodes.nodes}
    assert {name for node in own.nodes.nodes for name in node.outputs} <= {*captured}


def test_a_model_of_channels_last_is_fed_so(tmp_path: Path) -> None:
    source = convolution(tmp_path / "m.onnx", ROWS_FIRST)
    path, record = convert(CONVERTERS["litert"], source, tmp_path / "m.tflite")
    record.unlink()
    assert_convolved(candidate(path).run(picture()))


def test_another_size_is_refused(model: Path, tmp_path: Path) -> None:
    """Also where no record of the conversion says which."""
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(model.read_bytes())
    with pytest.raises(ShapeError, match=r"takes \(1, 3, 6, 8\), but the input given has \(1, 3, 8, 8\)"):
        candidate(bare).run(np.zeros((1, 3, 8, 8), np.float32))


def test_the_record_says_versions_and_names_no_folder(model: Path) -> None:
    record = json.loads(model.with_suffix(".conversion.json").read_text())
    assert {"litert-torch", "ai-edge-litert"} <= {*record["versions"]}
    assert "model.onnx" in record["converter"][-3]
    assert "/converting-" not in json.dumps(record)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda whole: b"", "no model of LiteRT"),
    "ncnn": (lambda whole: b"7767517\n1 1\n", "no model of LiteRT"),
    "half": (lambda whole: whole[: len(whole) // 2], "cut off or malformed"),
    "end": (lambda whole: whole[:-40], "cut off or malformed"),
    "noise": (lambda whole: whole[:8] + bytes(range(256)) * 8, "cut off or malformed"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(model: Path, tmp_path: Path, kind: str) -> None:
    change, said = BROKEN[kind]
    (tmp_path / "m.tflite").write_bytes(change(model.read_bytes()))
    with pytest.raises(FileError, match=said):
        read_litert(tmp_path / "m.tflite")
    with pytest.raises(FileError, match=said):
        candidate(tmp_path / "m.tflite")


def test_an_operator_without_a_translation_is_named_and_nothing_written(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"], "n")], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(FileError, match="not translated to PyTorch: Hardmax"):
        convert(CONVERTERS["litert"], tmp_path / "m.onnx", tmp_path / "m.tflite")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
