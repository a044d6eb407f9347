"""What ExecuTorch hands to XNNPACK read as a graph: each operation alone, and fused as it ships."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from changed_files import changed, with_a_slice_off
from converted_files import beside_its_source, read
from executorch_files import SHOWN, SMALL, W, meaning, small
from onnx import numpy_helper
from pytorch_functions import CASES, MAP, functional, wrapped
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.kinds import PHONE_RUNTIMES
from conformance.conversion.executorch_model import ExecutorchProgram, read_executorch
from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.meanings import MEANINGS
from conformance.conversion.xnnpack_graph import write_xnnpack
from conformance.conversion.xnnpack_model import FIELDS, XnnpackGraph, XnnpackNode, XnnpackValue, read_xnnpack
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import FileError, UnsupportedOperationError
from refimpl.ops.operation import Array

runtimes = pytest.mark.runtimes
FILES = {
    "xnnpack": SMALL.with_name("small-xnnpack.pte"),
    "xnnpack-whole": SMALL.with_name("small-xnnpack-whole.pte"),
}
"""Of the same graph, by ExecuTorch 1.5.1: ``mobileinst convert small.onnx --to executorch --delegate …``."""
ORDERS = {"w1": (0, 2, 3, 1), "w2": (1, 2, 3, 0)}
"""Weight → its axes as XNNPACK has them."""

either = pytest.mark.parametrize("delegate", FILES)


def lying(name: str, weight: Array) -> bytes:
    """Return a weight as it lies in the file."""
    return weight.transpose(ORDERS.get(name, range(weight.ndim))).tobytes()


@either
def test_a_small_one_means_what_it_was_made_from(delegate: str) -> None:
    report = beside_its_source(FILES[delegate], small())
    report.raise_on_failure()
    assert [row.verdict for row in report.leading.steps].count("pass") == 15


@either
@pytest.mark.parametrize("name", SHOWN)
def test_slices_of_weights_are_named_where_they_are(tmp_path: Path, delegate: str, name: str) -> None:
    for other in with_a_slice_off(W[name], name, 2):
        both = [lying(name, array.reshape(W[name].shape)) for array in (W[name], other)]
        path = changed(FILES[delegate], tmp_path, *both)
        report = beside_its_source(path, small())
        assert report.leading.first_fault is not None
        assert report.leading.first_fault.step == SHOWN[name]


CHANGES: dict[str, tuple[bytes, bytes, str]] = {
    "limits": (struct.pack("<If", 8, 6), struct.pack("<If", 8, 7), "six"),
    "kernel order": (
        W["w2"].transpose(2, 3, 1, 0).tobytes(),
        W["w2"].transpose(3, 2, 1, 0).tobytes(),
        "deep",
    ),
    "matrix": (W["w3"].tobytes(), W["w3"].reshape(6, 18).T.tobytes(), "product"),
}
"""What is changed in the file → bytes, others, and the step that it shows at."""


@either
@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_named_where_it_is(tmp_path: Path, delegate: str, kind: str) -> None:
    before, after, step = CHANGES[kind]
    report = beside_its_source(changed(FILES[delegate], tmp_path, before, after), small())
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == step


@either
def test_the_command_takes_it(tmp_path: Path, delegate: str) -> None:
    onnx.save(small(), tmp_path / "small.onnx")
    line = ["verify", str(FILES[delegate]), "--against", str(tmp_path / "small.onnx"), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output


# --- what is malformed, or not known --------------------------------------------------------------


def handed(delegate: str = "xnnpack-whole") -> tuple[ExecutorchProgram, bytes]:
    """Return a program, and what is handed over first."""
    program = read_executorch(FILES[delegate])
    return program, bytes(program.parts[0])


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda whole: b"",
    "a header alone": lambda whole: whole[:20],
    "half": lambda whole: whole[: len(whole) // 2],
    "another mark": lambda whole: whole[:4] + b"XH01" + whole[8:],
    "a graph beyond the end": lambda whole: whole[:10] + struct.pack("<I", len(whole)) + whole[14:],
    "a graph of another mark": lambda whole: whole.replace(b"XN01", b"XN99").replace(b"XN00", b"XN99"),
    "constants beyond the end": lambda whole: whole[:18] + struct.pack("<I", 2**32 - 1) + whole[22:],
    "noise": lambda whole: whole[:40] + bytes(range(256)) * (len(whole) // 256),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_named(kind: str) -> None:
    program, whole = handed()
    with pytest.raises((FileError, UnsupportedOperationError)):
        read_xnnpack(BROKEN[kind](whole), program.named)
    with pytest.raises((FileError, UnsupportedOperationError)):
        meaning(replace(program, parts=[BROKEN[kind](whole), *program.parts[1:]]))


def test_constants_that_are_missing_or_cut_off_are_named() -> None:
    program, whole = handed()
    with pytest.raises(FileError, match="is not among the program's"):
        read_xnnpack(whole, {})
    with pytest.raises(FileError, match="is cut off"):
        read_xnnpack(whole, {name: blob[:-1] for name, blob in program.named.items()})


def written(node: XnnpackNode, *shapes: tuple[int, ...]) -> None:
    """Write a graph of one node, whose operands come from outside."""
    values = {place: XnnpackValue(shape, outside=place) for place, shape in enumerate(shapes)}
    values[node.output] = XnnpackValue((), outside=node.output, is_output=True)
    given = {place: f"x{place}" for place in range(len(shapes))}
    write_xnnpack(GraphWriter(), XnnpackGraph([node], values), given, {node.output: "y"})


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (XnnpackNode("Add", (0, 1), 2, {"flags": 4}), "XNNPACK's Add of flags 4"),
        (XnnpackNode("Tanh", (0,), 2, {"flags": 0}, (0.0, 1.0)), "a limit of XNNPACK's Tanh"),
        (XnnpackNode("StaticReshape", (0,), 2, {"flags": 0, "shape": (0, 0)}), "StaticReshape to"),
        (XnnpackNode("StaticSlice", (0,), 2, {"flags": 0, "offsets": (0,), "sizes": (0,)}), "StaticSlice of"),
    ],
)
def test_a_way_that_is_not_known_is_named(node: XnnpackNode, said: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=f"{said}.* is not written down"):
        written(node, (2, 3), (2, 3))


def test_a_value_that_is_not_made_is_named() -> None:
    with pytest.raises(FileError, match="value 7 is used before it is made"):
        written(XnnpackNode("Tanh", (7,), 2, {"flags": 0}), (2, 3))


def test_another_delegate_is_named() -> None:
    program = read_executorch(FILES["xnnpack"])
    calls = {
        number: replace(call, kind="CoreMLBackend") if call.delegated else call
        for number, call in program.calls.items()
    }
    with pytest.raises(UnsupportedOperationError, match="what CoreMLBackend computes is not written down"):
        meaning(replace(program, calls=calls))


# --- beside ExecuTorch itself ---------------------------------------------------------------------

WORDS = """
<ir_version: 8, opset_import: ["" : 18]>
words (float[1, 4, 6, 8] x) => (float[1, 4, 6, 8] y, float[1, 4, 1, 1] mean, float[1, 4, 9, 12] wide,
                                float[1, 4, 8, 11] padded, float[1, 4, 6, 3] mapped)
{
  a = Abs (x)
  a1 = Add (a, one)
  l = Log (a1)
  e = Exp (l)
  q = Sqrt (e)
  d = Div (x, q)
  n = Neg (d)
  f = Floor (n)
  c = Ceil (d)
  s = Sub (f, c)
  t = Tanh (s)
  g = Sigmoid (t)
  si = Sin (g)
  co = Cos (si)
  lr = LeakyRelu <alpha = 0.125> (co)
  hs = HardSwish (lr)
  two = Mul (n, n)
  b = Add (hs, two)
  k = Clip (b, low, high)
  y = Mul (k, g)
  mean = ReduceMean <keepdims = 1> (y, axes)
  wide = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (y, , , sides)
  padded = Pad (y, pads, one)
  pool = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (y)
  top = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (y)
  both = Add (pool, top)
  again = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (both, , , whole)
  rows = Transpose <perm = [0, 2, 3, 1]> (again)
  fed = MatMul (rows, matrix)
  more = Add (fed, bias)
  back = Transpose <perm = [0, 3, 1, 2]> (more)
  cut = Slice (back, begins, ends, last)
  mapped = Softmax <axis = -1> (cut)
}
"""
OTHERS = {
    "Copy",
    "Div",
    "ELU",
    "Gelu",
    "Maximum",
    "Minimum",
    "PReLU",
    "ReciprocalSquareRoot",
    "Square",
    "Convert",
}
"""Nodes that `convert` writes of none of the two graphs; the last of integers only."""


def words() -> onnx.ModelProto:
    """Return a graph of most words that XNNPACK has."""
    rng = np.random.default_rng(4)
    held: dict[str, Any] = {"one": 1.0, "low": -0.5, "high": 0.75}
    shapes = {"matrix": (4, 4), "bias": (4,)}
    held |= {name: rng.normal(size=shape) for name, shape in shapes.items()}
    whole = {"axes": [2, 3], "sides": [1, 4, 9, 12], "pads": [0, 0, 1, 2, 0, 0, 1, 1], "whole": [1, 4, 6, 8]}
    whole |= {"begins": [2], "ends": [5], "last": [3]}
    model = onnx.parser.parse_model(WORDS)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in held.items()
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(numbers, np.int64), name) for name, numbers in whole.items()
    )
    return model


@pytest.fixture(scope="module")
def many_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of many words, each operation alone; the ONNX file lies beside it."""
    folder = tmp_path_factory.mktemp("words")
    onnx.save(words(), folder / "m.onnx")
    return convert(CONVERTERS["executorch"], folder / "m.onnx", folder / "m.pte", delegate="xnnpack")[0]


def kinds(path: Path) -> set[str]:
    """Return the nodes that a program hands to XNNPACK."""
    program = read_executorch(path)
    graphs = [read_xnnpack(part, program.named) for part in program.parts]
    return {node.kind for graph in graphs for node in graph.nodes}


@runtimes
def test_nodes_mean_what_they_were_made_from(many_words: Path) -> None:
    beside_its_source(many_words, many_words.with_suffix(".onnx")).raise_on_failure()
    assert kinds(many_words) | kinds(FILES["xnnpack"]) == {kind for kind, _ in FIELDS.values()} - OTHERS


@runtimes
@pytest.mark.parametrize("which", ["small", "words"])
def test_xnnpack_computes_what_its_file_is_read_as(many_words: Path, which: str) -> None:
    """Every tensor, in XNNPACK and by our evaluation of the graph."""
    small_one = which == "small"
    path = FILES["xnnpack"] if small_one else many_words
    graph, before = read(path, small() if small_one else many_words.with_suffix(".onnx"))
    ((name, info),) = before.declared.items()
    images = np.random.default_rng(0).normal(size=info.shape).astype(np.float32)
    own = PHONE_RUNTIMES["executorch"].candidate(f"{path},delegate=xnnpack").capture(images)
    ours = EvaluatedGraph(graph).capture({name: images})
    shared = own.keys() & ours.keys()
    assert len(shared) > (20 if small_one else 35)
    for each in shared:
        assert own[each].shape == ours[each].shape, each
        assert np.abs(own[each] - ours[each]).max() <= 1e-3 * max(np.abs(ours[each]).max(), 1e-3), each


# Beside PyTorch.


def handed_over(module: Any, place: Path, alone: bool) -> Path:
    """Convert a module by ExecuTorch, as much as it likes handed to XNNPACK."""
    import torch
    from executorch import exir
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    program = torch.export.export(module, (torch.from_numpy(MAP),))
    partitioner = [XnnpackPartitioner(per_op_mode=alone)]
    edge = exir.to_edge_transform_and_lower(program, partitioner=partitioner)
    place.write_bytes(edge.to_executorch().buffer)
    return place


def what_it_means(path: Path) -> Array:
    graph = MEANINGS[".pte"](path, {"x": MAP.shape}, ["y"])
    return EvaluatedGraph(OnnxGraph.load(graph)).run({"x": MAP})["y"]


REFUSED = {
    "transposed", "transposed, grouped", "least", "elu", "prelu", "softplus", "softplus, steep", "larger",
    "group norm", "chosen", "divided", "nearest whole", "norms", "place of the largest", "running",
    "turned around", "from a threshold", "variance", "adaptive average", "attention", "attention, masked",
}  # fmt: skip
"""Of `CASES`, those of which ExecuTorch's own kernels compute what is not written down."""


@runtimes
@pytest.mark.parametrize("name", CASES)
def test_what_is_read_is_what_pytorch_computes(name: str, tmp_path: Path) -> None:
    """In float64 on both sides; constants are float32 in the file and in PyTorch."""
    import torch

    module = wrapped(CASES[name])
    path = handed_over(module, tmp_path / "m.pte", alone=True)
    if name in REFUSED:
        with pytest.raises(UnsupportedOperationError, match="is not written down"):
            what_it_means(path)
        return
    found, expected = what_it_means(path), module(torch.from_numpy(MAP.astype(np.float64))).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def _pooled_and_normed(x: Any) -> Any:
    import torch

    return torch.nn.functional.max_pool2d(x, 2).softmax(-1)


LOST: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "GELU by tanh": (functional("gelu", approximate="tanh"), True),
    "the axis of a softmax behind a pooling": (_pooled_and_normed, False),
}
"""What ExecuTorch 1.5.1 hands to XNNPACK as something else: function, and whether alone."""


@runtimes
@pytest.mark.parametrize("name", LOST)
def test_what_is_handed_over_as_something_else_is_seen(name: str, tmp_path: Path) -> None:
    """The real runtime computes what is read, and not what PyTorch does.

    If this fails, it has learnt it: `docs/runtimes.md` says that it has not.
    """
    import torch
    from executorch.runtime import Runtime

    module, alone = wrapped(LOST[name][0]), LOST[name][1]
    path = handed_over(module, tmp_path / "m.pte", alone)
    (made,) = Runtime.get().load_program(str(path)).load_method("forward").execute([torch.from_numpy(MAP)])
    assert np.abs(what_it_means(path) - made.numpy()).max() < 1e-5
    assert np.abs(made.numpy() - module(torch.from_numpy(MAP)).numpy()).max() > 1e-4
