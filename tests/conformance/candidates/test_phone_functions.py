"""Every function that a runtime computes as it always does passes, alone: what it errs by is declared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper
from typer.testing import CliRunner

import conformance.cli

pytestmark = pytest.mark.runtimes

SHAPE = [1, 3, 16, 64]
TENTH, SEVEN = np.float32(0.1), np.float32(0.7)
VECTOR = np.linspace(1, 3, 3, dtype=np.float32).reshape(1, 3, 1, 1)
CHANNELS = np.array([2, -2, 0])
CONSTANTS = {"tenth": TENTH, "seven": SEVEN, "vector": VECTOR, "channels": CHANNELS}


def positive(operator: str, *operands: str) -> list[NodeProto]:
    """Return an operator of ``p``, which is |x| + 0.1."""
    return [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("Add", ["size", "tenth"], ["p"]),
        helper.make_node(operator, list(operands), ["y"]),
    ]


def single(operator: str) -> list[NodeProto]:
    return [helper.make_node(operator, ["x"], ["y"])]


GELU = [
    helper.make_node("Mul", ["x", "seven"], ["a"]),
    helper.make_node("Erf", ["a"], ["b"]),
    helper.make_node("Mul", ["x", "b"], ["y"]),
]
FUNCTIONS = {
    **{name: single(name) for name in ("Abs", "Neg", "Exp", "Tanh", "Sigmoid", "Sin", "Cos", "Relu")},
    **{name: single(name) for name in ("Softplus", "Elu", "Erf")},
    **{name: positive(name, "p") for name in ("Log", "Sqrt", "Reciprocal")},
    "Pow": positive("Pow", "p", "seven"),
    "x / p": positive("Div", "x", "p"),
    "0.7 / p": positive("Div", "seven", "p"),
    "x / 0.7": [helper.make_node("Div", ["x", "seven"], ["y"])],
    "x / vector": [helper.make_node("Div", ["x", "vector"], ["y"])],
    "x · erf(0.7 · x)": GELU,
}
RUNTIMES = ("ncnn:winograd=off", "mnn:winograd=off", "openvino")


def saved(nodes: Sequence[NodeProto], path: Path, shape: Sequence[int] = SHAPE) -> Path:
    """Write a model of ``x`` and ``y``."""
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    used = {name for node in nodes for name in node.input}
    held = [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in used]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


# Of a constant of four axes pnnx makes one with the batch's, along which ncnn repeats it.
WRONG = {("ncnn:winograd=off", "x / vector")}


@pytest.mark.parametrize(
    ("candidate", "function"), [x for x in itertools.product(RUNTIMES, FUNCTIONS) if x not in WRONG]
)
def test_a_function_passes(candidate: str, function: str, tmp_path: Path) -> None:
    path = saved(FUNCTIONS[function], tmp_path / "m.onnx")
    line = ["verify", str(path), "--graph-only", "--candidate", candidate]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("candidate", ["litert:xnnpack=off", "executorch:delegate=portable"])
def test_functions_pass_together_where_converting_takes_long(candidate: str, tmp_path: Path) -> None:
    """A padded AveragePool is a file of several graphs in LiteRT; places count from the end, too."""
    made: list[NodeProto] = []
    for place, nodes in enumerate(FUNCTIONS.values()):
        for node in nodes:
            made.append(onnx.NodeProto.FromString(node.SerializeToString()))
            for names in (made[-1].input, made[-1].output):
                names[:] = [name if name in (*CONSTANTS, "x") else f"{name}{place}" for name in names]
    pool = helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    chosen = helper.make_node("Gather", ["pooled", "channels"], ["chosen"], axis=1)
    last = helper.make_node("Sum", [*(f"y{place}" for place in range(len(FUNCTIONS))), "chosen"], ["y"])
    path = saved([*made, pool, chosen, last], tmp_path / "m.onnx")
    line = ["verify", str(path), "--graph-only", "--candidate", candidate]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output


def test_executorch_shows_outputs_of_many_numbers(tmp_path: Path) -> None:
    """Its event dump holds them once more than other tensors."""
    path = saved(single("Relu"), tmp_path / "m.onnx", [1, 3, 512, 512])
    line = ["verify", str(path), "--graph-only", "--candidate", "executorch:delegate=portable"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output


def test_a_batch_norm_is_read_from_ncnns_files(tmp_path: Path) -> None:
    """Its numbers, those of PReLU and of an instance norm, stand in the .bin, too."""
    node = helper.make_node("BatchNormalization", ["x", *("s", "b", "m", "v")], ["n"])
    nodes = [
        node,
        helper.make_node("PRelu", ["n", "p"], ["r"]),
        helper.make_node("InstanceNormalization", ["r", "s", "b"], ["y"]),
    ]
    drawn = np.random.default_rng(0).uniform(0.5, 2.0, (5, 3)).astype(np.float32)
    held = dict(zip("sbmv", drawn, strict=False)) | {"p": drawn[4].reshape(3, 1, 1)}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, SHAPE) for name in "xy"]
    constants = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "m.onnx",
    )
    param = tmp_path / "m.param"
    for line in (
        ["convert", str(tmp_path / "m.onnx"), str(param), "--to", "ncnn"],
        ["verify", str(param), "--against", str(tmp_path / "m.onnx")],
        ["verify", str(tmp_path / "m.onnx"), "--graph-only", "--candidate", "ncnn"],
    ):
        result = CliRunner().invoke(conformance.cli.app, line)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_layer_is_whole_in_ncnns_files(kind: str, direction: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(8, 12, batch_first=True, bidirectional=direction == "bidirectional")
    path = tmp_path / "m.onnx"
    torch.onnx.export(layer.eval(), (torch.zeros(1, 5, 8),), str(path), input_names=["x"], dynamo=False)
    model = onnx.load(path)
    del model.graph.output[1:]
    onnx.save(model, path)
    line = ["verify", str(path), "--graph-only", "--candidate", "ncnn:winograd=off"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output
