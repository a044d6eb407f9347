"""`lint --target qnn`: what the NPU leaves to the CPU, by its own library, and what it computes otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.qnn import Npu, npu_graph
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import quantized_for_npu
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import ConfigurationError

pytestmark = pytest.mark.runtimes


def lint(model: onnx.ModelProto, folder: Path, target: str = "qnn") -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the findings of a model."""
    onnx.save(model, folder / "m.onnx")
    words = ["lint", str(folder / "m.onnx"), "--target", target, "--json", str(folder / "f.json")]
    run = CliRunner().invoke(conformance.cli.app, words)
    if isinstance(run.exception, ConfigurationError):
        raise run.exception
    return run.exit_code, json.loads((folder / "f.json").read_text())["findings"]


def graph(*nodes: onnx.NodeProto, size: Any = 8) -> onnx.ModelProto:
    """Return a model of x and y, 1×3×8×8."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, size, size]), ("y", None))
    ]
    half = numpy_helper.from_array(np.float32(0.5), "half")
    made = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], [half])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_right_export_passes(tmp_path: Path) -> None:
    assert lint(export(narrow_network.network(), narrow_network.picture()), tmp_path) == (0, [])


BIASED = {
    "Conv": ([1, 3, 8, 8], (16, 3, 3, 3), {"kernel_shape": [3, 3]}),
    "depthwise Conv": ([1, 8, 8, 8], (8, 1, 3, 3), {"kernel_shape": [3, 3], "group": 8}),
    "Gemm": ([40, 64], (64, 16), {}),
}


@pytest.mark.parametrize("size", [2e-5, 2e-3])
@pytest.mark.parametrize("name", BIASED)
def test_biases_that_the_npu_misreads_are_named(name: str, size: float, tmp_path: Path) -> None:
    """On the NPU itself, fed zeros: a layer gives its bias, or what the rule says of it."""
    shape, weight, attributes = BIASED[name]
    random = np.random.default_rng(3)
    node = helper.make_node(name.split()[-1], ["x", "w", "b"], ["y"], name="n", **attributes)
    bias = (random.standard_normal(16 if name != "depthwise Conv" else 8) * size).astype(np.float32)
    held = {"w": random.standard_normal(weight).astype(np.float32), "b": bias}
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), onnx.ValueInfoProto(name="y")]
    tensors = [numpy_helper.from_array(array, key) for key, array in held.items()]
    made = helper.make_graph([node], "graph", ends[:1], ends[1:], tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    is_small = size < 1e-4
    assert [found["rule"] for found in lint(model, tmp_path)[1]] == ["subnormal-bias"] * is_small
    nothing = np.zeros(shape, np.float32)
    given = npu_graph(OnnxGraph.load(model), Npu.parse("snapdragon-8-gen-2")).run({"x": nothing})["y"]
    shown = given[0] if given.ndim == 2 else given[0, :, 3, 3]
    taken = np.where(np.abs(bias) < 2**-14, np.sign(bias) * (np.abs(bias) + 2**-14) / 2, bias)
    np.testing.assert_allclose(shown, taken, rtol=2**-11, atol=2**-24)


def test_what_the_npu_does_not_take_is_named(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node(op_type, ["a"], [name], name=op_type)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, op_type in (("then", "Relu"), ("other", "Neg"))
    }
    model = graph(
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("ReduceMax", ["a"], ["m"], name="most", keepdims=0),
        helper.make_node("Greater", ["m", "half"], ["c"], name="asked"),
        helper.make_node(
            "If", ["c"], ["b"], then_branch=branches["then"], else_branch=branches["other"], name="if"
        ),
        helper.make_node("Celu", ["b"], ["y"], name="celu"),
    )
    code, found = lint(model, tmp_path)
    assert code == 0
    named = {item["node"] for item in found if item["severity"] == "runs on the CPU instead"}
    assert {"If 'if'", "Celu 'celu'"} <= named
    assert "Relu 'first'" not in named


def test_a_dynamic_input_fails(tmp_path: Path) -> None:
    code, found = lint(graph(helper.make_node("Relu", ["x"], ["y"], name="r"), size="n"), tmp_path)
    assert code == 1
    assert [item["rule"] for item in found] == ["dynamic-input"]


def test_a_float_model_on_a_chip_for_integers_is_refused(tmp_path: Path) -> None:
    model = export(narrow_network.network(), narrow_network.picture())
    code, found = lint(model, tmp_path, "qnn:snapdragon-778g")
    assert code == 1
    assert [item["rule"] for item in found] == ["refused"]
    with pytest.raises(ConfigurationError, match="names no chip"):
        lint(model, tmp_path, "qnn:snapdragon-9")


def test_quantised_models_are_looked_at(tmp_path: Path) -> None:
    config = MobileInstConfig.preset("seaformer-tiny", **narrow_network.FIELDS)
    weights = Weights.seeded(config, seed=1).folded().astype(np.float32)
    pictures = [narrow_network.picture()]
    quantised = quantized_for_npu(export(MobileInst(config, weights), pictures[0]), pictures)
    code, found = lint(quantised, tmp_path)
    assert {item["rule"] for item in found} == {"cpu", "lopsided-factor"}
    # What a ReLU gives keeps its zero at an end: with a symmetric range nothing would be cut off there.
    (lopsided,) = (item["node"] for item in found if item["rule"] == "lopsided-factor")
    assert (code, lopsided) == (1, "MatMul 'masks/MatMul'")
    for tensor in quantised.graph.initializer:
        if tensor.name.endswith("trans1.transformer_blocks.0.attn.to_k.c.weight_scale"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 2, tensor.name))
        if tensor.name.endswith("stem_block.0.c.weight_quantized"):
            unsigned = (numpy_helper.to_array(tensor).astype(np.int16) + 128).clip(0, 255).astype(np.uint8)
            tensor.CopyFrom(numpy_helper.from_array(unsigned, tensor.name))
        if tensor.name.endswith("stem_block.0.c.weight_zero_point"):
            tensor.CopyFrom(numpy_helper.from_array(np.uint8(100), tensor.name))
    code, found = lint(quantised, tmp_path)
    assert code == 1
    assert {item["rule"] for item in found} == {
        "cpu",
        "lopsided-factor",
        "wide-weight",
        "joined-convolutions",
    }
    (joined,) = (item["node"] for item in found if item["rule"] == "joined-convolutions")
    assert joined == "Concat 'backbone.trans1.transformer_blocks.0.attn/Concat'"
