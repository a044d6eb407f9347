"""ExecuTorch's programs, right ones and broken ones, and what its candidate refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, weights
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.executorch import ExecutorchCandidate
from conformance.candidates.kinds import Request, make
from conformance.conversion.executorch_model import DELEGATES, read_executorch
from refimpl.errors import ConfigurationError, FileError, ShapeError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")
SHAPE = (1, 3, 6, 8)


def kernel() -> Array:
    """Return a convolution's, (4, 3, 3, 3)."""
    return np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)


def picture() -> Array:
    """Return an input of `SHAPE`."""
    return np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


def small(path: Path) -> Path:
    """Write a convolution, of the result a view and softmax, as an ONNX file."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "c", pads=[1] * 4),
        helper.make_node("Reshape", ["c", "s"], ["r"], "r"),
        helper.make_node("Softmax", ["r"], ["y"], "s", axis=-1),
    ]
    held = [numpy_helper.from_array(kernel(), "w"), numpy_helper.from_array(np.array([1, 4, 48]), "s")]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", SHAPE), ("y", None))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module", params=DELEGATES)
def model(tmp_path_factory: pytest.TempPathFactory, request: Any) -> tuple[Path, str]:
    """The graph, converted, and by whom it is computed."""
    folder = tmp_path_factory.mktemp("executorch")
    source = small(folder / "m.onnx")
    return convert(CONVERTERS["executorch"], source, folder / "m.pte", delegate=request.param)[
        0
    ], request.param


@pytest.fixture(scope="module")
def delegated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph, converted for XNNPACK: its weights are the delegate's."""
    folder = tmp_path_factory.mktemp("delegated")
    return convert(CONVERTERS["executorch"], small(folder / "m.onnx"), folder / "m.pte", delegate="xnnpack")[
        0
    ]


def candidate(path: Path, delegate: str = "portable") -> ExecutorchCandidate:
    """Return the candidate of a file."""
    made = make(f"executorch:{path},delegate={delegate}", Request("", CONFIG, weights()))
    assert isinstance(made, ExecutorchCandidate)
    return made


def wanted() -> tuple[Array, Array]:
    """Return the convolution, and the output, as PyTorch computes them in float64."""
    x, w = (torch.from_numpy(array.astype(np.float64)) for array in (picture(), kernel()))
    convolved = torch.nn.functional.conv2d(x, w, padding=1)
    return convolved.numpy(), torch.softmax(convolved.reshape(1, 4, 48), -1).numpy()


def test_it_computes_under_the_names_of_its_source(model: tuple[Path, str]) -> None:
    outputs = candidate(*model).run(picture())
    assert [*outputs] == ["y"]
    np.testing.assert_allclose(outputs["y"], wanted()[1], rtol=0, atol=1e-6)


def test_what_is_computed_inside_is_captured(model: tuple[Path, str]) -> None:
    made = candidate(*model)
    captured, own = made.capture(picture()), made.own_graph(picture())
    made_by = {name: node for node in own.nodes.nodes for name in node.outputs}
    assert {*made_by} <= {*captured}
    alike = [
        name
        for name, array in captured.items()
        if array.shape == wanted()[0].shape and np.allclose(array, wanted()[0], rtol=0, atol=1e-5)
    ]
    assert bool(alike) == made.captures_all
    if model[1] == "portable":  # the view between is no instruction: the softmax takes what was convolved
        assert set(alike) & set(made_by[[*made_by][-1]].inputs)


def test_another_size_is_refused(delegated: Path, tmp_path: Path) -> None:
    """Also where no record of the conversion says which."""
    bare = tmp_path / "bare.pte"
    bare.write_bytes(delegated.read_bytes())
    with pytest.raises(ShapeError, match=r"takes \(1, 3, 6, 8\), but the input given has \(1, 3, 8, 8\)"):
        candidate(bare, "xnnpack").run(np.zeros((1, 3, 8, 8), np.float32))


def test_the_record_says_versions_and_the_delegate(model: tuple[Path, str]) -> None:
    record = json.loads(model[0].with_suffix(".conversion.json").read_text())
    assert {"executorch", "torch"} <= {*record["versions"]}
    assert record["converter"][-1] == model[1]
    assert "/converting-" not in json.dumps(record)


def test_the_constants_are_the_sources(model: tuple[Path, str]) -> None:
    held = [*read_executorch(model[0]).constants.values()]
    assert any(np.array_equal(array, kernel()) for array in held) == (model[1] == "portable")


def test_another_delegate_than_declared_is_named(model: tuple[Path, str]) -> None:
    path, delegate = model
    declared = "xnnpack" if delegate == "portable" else "portable"
    said = (
        "hands nothing to XNNPACK, which delegate=xnnpack"
        if delegate == "portable"
        else "XnnpackBackend: declare"
    )
    with pytest.raises(ConfigurationError, match=said):
        candidate(path, declared)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda whole: b"", "no program of ExecuTorch"),
    "ncnn": (lambda whole: b"7767517\n1 1\n", "no program of ExecuTorch"),
    "half": (lambda whole: whole[: len(whole) // 2], "cut off or malformed"),
    "noise": (lambda whole: whole[:8] + bytes(range(256)) * 8, "cut off or malformed"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(delegated: Path, tmp_path: Path, kind: str) -> None:
    change, said = BROKEN[kind]
    (tmp_path / "m.pte").write_bytes(change(delegated.read_bytes()))
    with pytest.raises(FileError, match=said):
        candidate(tmp_path / "m.pte", "xnnpack")


def test_an_unknown_delegate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no delegate 'coreml'; known: portable, xnnpack"):
        convert(CONVERTERS["executorch"], small(tmp_path / "m.onnx"), tmp_path / "m.pte", delegate="coreml")
    with pytest.raises(ConfigurationError, match="ncnn has no delegate 'xnnpack'; known: none"):
        convert(CONVERTERS["ncnn"], tmp_path / "m.onnx", tmp_path / "m.param", delegate="xnnpack")
