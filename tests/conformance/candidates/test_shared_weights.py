"""A model that is run unoptimised reads the weights where they are, and computes the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.large_models import arrays_of, lacked_by, lacking_data
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.ops.operation import Array

RNG = np.random.default_rng(0)
WIDE = RNG.standard_normal((32, 32)).astype(np.float32)
"""More bytes than stay in a message."""


def model(text: str, *tensors: onnx.TensorProto) -> onnx.ModelProto:
    """Return the model of a text with these initializers."""
    made = parser.parse_model(text)
    made.graph.initializer.extend(tensors)
    return made


def head(opset: int = 21) -> str:
    return f'<ir_version: 10, opset_import: ["" : {opset}]> graph (float[2, 32] x) => (float[2, 32] y)'


def four_bits() -> onnx.TensorProto:
    """Return whole numbers of four bits: NumPy has none."""
    return helper.make_tensor("w", TensorProto.INT4, (64, 64), (np.arange(4096) % 16 - 8).tolist())


UNUSUAL = {
    "one that no node takes": model(
        head() + "{ y = MatMul(x, w) }", *(numpy_helper.from_array(WIDE, n) for n in "wu")
    ),
    "one that is an input, too": model(
        head().replace("x)", "x, float[32, 32] w)") + "{ y = MatMul(x, w) }",
        numpy_helper.from_array(WIDE, "w"),
    ),
    "one that only a branch takes": model(
        head() + "{ c = Constant<value = bool {1}>() y = If (c) <"
        "then_branch = a () => (float[2, 32] p) { p = MatMul(x, w) },"
        "else_branch = b () => (float[2, 32] q) { q = Neg(x) }> }",
        numpy_helper.from_array(WIDE, "w"),
    ),
    "one that is an output": model(
        head().replace("y)", "y, float[32, 32] w)") + "{ y = MatMul(x, w) }",
        numpy_helper.from_array(WIDE, "w"),
    ),
    "half as wide": model(
        head() + "{ v = Cast<to = 1>(w) y = MatMul(x, v) }",
        numpy_helper.from_array(WIDE.astype(np.float16), "w"),
    ),
    "twice as wide": model(
        head() + "{ v = Cast<to = 1>(w) y = MatMul(x, v) }",
        numpy_helper.from_array(WIDE.astype(np.float64), "w"),
    ),
    "bytes": model(
        head().replace("32] y", "40] y") + "{ v = DequantizeLinear(w, s) y = MatMul(x, v) }",
        numpy_helper.from_array(np.arange(1280).astype(np.int8).reshape(32, 40), "w"),
        numpy_helper.from_array(np.float32(0.01), "s"),
    ),
    "taken twice": model(
        head() + "{ v = Transpose(w) z = MatMul(x, v) y = MatMul(z, w) }", numpy_helper.from_array(WIDE, "w")
    ),
}
MODELS = {
    "residual": onnx_models.residual_network(),
    "quantised": onnx_models.quantised_network(),
    "transformer": onnx_models.transformer(),
    **UNUSUAL,
}


def fed(graph: OnnxGraph) -> dict[str, Array]:
    """Return numbers for every input."""
    shapes = {
        name: [n if isinstance(n, int) else 1 for n in info.shape or ()]
        for name, info in graph.declared.items()
    }
    return {
        name: RNG.standard_normal(shape).astype(graph.declared[name].dtype) for name, shape in shapes.items()
    }


def plainly(given: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Return what a session of the whole model makes of its every tensor, none of it optimised."""
    whole = onnx.ModelProto()
    whole.CopyFrom(given)
    shown = {output.name for output in whole.graph.output}
    made = (name for node in whole.graph.node for name in node.output if name not in shown)
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, feeds), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_the_same(name: str) -> None:
    graph = OnnxGraph.load(MODELS[name])
    feeds = fed(graph)
    captured, wanted = OnnxRuntimeGraph(graph).capture(feeds), plainly(MODELS[name], feeds)
    assert captured.keys() == wanted.keys()
    for tensor, values in wanted.items():
        np.testing.assert_array_equal(captured[tensor], values, strict=True)


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("one that no node takes", ["w"]),
        ("one that is an input, too", ["w"]),
        ("one that only a branch takes", ["w"]),
        ("half as wide", ["w"]),
        ("bytes", ["w"]),
    ],
)
def test_what_is_given_is_what_a_node_takes(name: str, lacking: list[str]) -> None:
    before = MODELS[name].SerializeToString(deterministic=True)
    light = lacking_data(MODELS[name], arrays_of(MODELS[name]))
    assert lacked_by(light) == lacking
    assert MODELS[name].SerializeToString(deterministic=True) == before
    assert light.ByteSize() < len(before)


@pytest.mark.parametrize(
    "tensor", [four_bits(), helper.make_tensor("w", TensorProto.BFLOAT16, (1024,), [1.5] * 1024)]
)
def test_what_numpy_has_not_stays(tensor: onnx.TensorProto) -> None:
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor), "w")
    assert raw.data_type == tensor.data_type
    given = model(head() + "{ v = Cast<to = 1>(w) y = Identity(x) }", raw)
    for arrays in (arrays_of(given), {"w": numpy_helper.to_array(tensor).astype(np.float32)}):
        light = lacking_data(given, arrays)
        assert not lacked_by(light)
        assert light.graph.initializer[0].raw_data == raw.raw_data


def test_an_array_that_is_another_is_not_given() -> None:
    given = UNUSUAL["taken twice"]
    one_off = WIDE.copy()
    one_off[-1, -1] = np.nextafter(one_off[-1, -1], 2)
    for other in (one_off, WIDE.T, WIDE.astype(np.float64), WIDE[:, :16], np.asfortranarray(WIDE)):
        assert not lacked_by(lacking_data(given, {"w": other}))


def test_no_other_process_is_given_a_model_that_lacks_data() -> None:
    graph = OnnxGraph.load(MODELS["residual"])
    feeds = fed(graph)

    class Apart(OnnxRuntimeGraph):
        shares_weights = False

        def _run(
            self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
        ) -> dict[str, Array]:
            assert not lacked_by(model)
            return super()._run(model, feeds, options)

    apart = Apart(graph)
    captured = apart.capture(feeds)
    together = OnnxRuntimeGraph(graph).optimized(feeds, captured)
    shown = apart.optimized(feeds, captured)
    assert together[0] == shown[0]
    assert together[1].keys() == shown[1].keys() != set()
    for name, values in together[1].items():
        np.testing.assert_array_equal(values, shown[1][name])


@pytest.mark.parametrize("name", MODELS)
def test_what_is_made_of_it_is_the_same(name: str, tmp_path: Path) -> None:
    """An optimiser multiplies weights that it is given as those that it has read."""
    graph = OnnxGraph.load(MODELS[name])
    written = []
    for place, given in enumerate((graph.model, lacking_data(graph.model, graph.initializers))):
        path = tmp_path / f"{place}.onnx"
        RuntimeOptions(level="extended", save_to=str(path)).session(given, arrays=graph.initializers)
        made = onnx.load(path)
        weights = {tensor.name: tensor.SerializeToString() for tensor in made.graph.initializer}
        del made.graph.initializer[:]
        written.append((made.SerializeToString(deterministic=True), weights))
    assert written[0] == written[1]
