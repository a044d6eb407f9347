"""What the NPU makes of 16-bit integers, one operation at a time, against bounds of its arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.qnn import Npu, npu_graph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import quantized_for_npu
from conformance.judge.quantized import judge_units
from conformance.reports.report import Comparison
from refimpl.ops.operation import Array

pytestmark = pytest.mark.runtimes

RNG = np.random.default_rng(3)
MIDDLE = 1 << 15


def chain(shape: tuple[int, ...], scales: list[float], *nodes: onnx.NodeProto) -> OnnxGraph:
    """Return x → quantised → operation → quantised → …, the scales in order, as a graph of 16 bits.

    The first zero point is in the middle of the range, the others are 0.
    """
    arrays = {"point0": np.uint16(MIDDLE), "point": np.uint16(0), "sizes": np.array([1, 2, 8, 8])}
    made, name = [], "x"
    for place, scale in enumerate(scales):
        arrays[f"scale{place}"] = np.float32(scale)
        point = "point" if place else "point0"
        operands = [f"scale{place}", point]
        made.append(helper.make_node("QuantizeLinear", [name, *operands], [f"q{place}"], name=f"q{place}"))
        made.append(
            helper.make_node("DequantizeLinear", [f"q{place}", *operands], [f"d{place}"], name=f"d{place}")
        )
        if place < len(nodes):
            node = onnx.NodeProto()
            node.CopyFrom(nodes[place])
            node.input.insert(0, f"d{place}")
            node.output.append(f"y{place}")
            made.append(node)
        name = f"y{place}"
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info(f"d{len(scales) - 1}", TensorProto.FLOAT, None),
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(made, "chain", ends[:1], ends[1:], tensors)
    return OnnxGraph.load(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    )


def captured(graph: OnnxGraph, x: Array) -> dict[str, Array]:
    """Return the integer results on the NPU."""
    return npu_graph(graph, Npu.parse("snapdragon-8-gen-2")).capture({"x": x.astype(np.float32)})


def judged(graph: OnnxGraph, x: Array, tensors: dict[str, Array]) -> tuple[list[Comparison], list[str]]:
    """Return what is found of each integer result."""
    return judge_units(graph, {"x": x.astype(np.float32)}, tensors)


@pytest.mark.parametrize("length", [2, 6, 24])
@pytest.mark.parametrize("scale", [1.813525e-05, 2.328195e-05, 5.268282e-05, 1.133484e-04, 5.1e-04])
def test_a_softmax_is_within_what_its_multiplier_and_polynomial_lose(scale: float, length: int) -> None:
    x = RNG.uniform(-MIDDLE, MIDDLE, (1, 1, 64, length)) * min(scale, 1e-4)
    graph = chain(x.shape, [scale, 1 / 65535], helper.make_node("Softmax", [], [], name="softmax", axis=-1))
    found = captured(graph, x)
    rows, remarks = judged(graph, x, found)
    assert [row.verdict for row in rows] == ["pass", "pass"]
    assert not remarks
    larger = np.clip(np.rint(1.01 * found["q1"]), 0, 65535).astype(np.uint16)
    rows, _ = judged(graph, x, {**found, "q1": larger})
    assert rows[1].verdict == "fail"


def test_a_hard_sigmoid_is_shown_in_steps_of_its_own_and_taken_so() -> None:
    x = RNG.uniform(-3, 2.8, (1, 2, 4, 4))
    resize = helper.make_node("Resize", ["", "", "sizes"], [], name="resize", mode="linear")
    hard = helper.make_node("HardSigmoid", [], [], name="hard", alpha=1 / 6, beta=0.5)
    scale = 0.97 / 65535
    graph = chain(x.shape, [1e-4, scale, scale], hard, resize)
    rows, remarks = judged(graph, x, captured(graph, x))
    assert [row.verdict for row in rows] == ["pass"] * 3
    assert [remark.partition(":")[0] for remark in remarks] == ["hard"]


CHANNELS = {"first": 32, "q": 64, "k": 64, "v": 128}
SIZES = {"first": 1.0, "q": 1.0, "k": 1.1, "v": 2.0}


def joined(quantization: str, x: Array) -> onnx.ModelProto:
    """Return a convolution and three of its result, joined, quantised for the NPU by the ranges of x."""
    rng = np.random.default_rng(5)
    arrays: dict[str, Array] = {}
    for name, channels in CHANNELS.items():
        arrays[f"{name}_w"] = SIZES[name] * rng.uniform(-0.2, 0.2, (channels, 32, 1, 1))
        arrays[f"{name}_b"] = SIZES[name] * rng.uniform(-0.5, 0.5, channels)
    nodes = [
        helper.make_node(
            "Conv", ["x" if name == "first" else "first", f"{name}_w", f"{name}_b"], [name], name
        )
        for name in CHANNELS
    ]
    nodes.append(helper.make_node("Concat", ["q", "k", "v"], ["y"], "joined", axis=1))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", x.shape), ("y", None))
    ]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "joined", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return quantized_for_npu(model, [x], quantization)


def with_a_scale_of_its_own(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in which one convolution's weights and bias mean the same, in other steps."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in ("k_w_scale", "k_b_quantized_scale"):
            tensor.CopyFrom(numpy_helper.from_array(array / np.float32(1.4), tensor.name))
        elif tensor.name in ("k_w_quantized", "k_b_quantized"):
            tensor.CopyFrom(numpy_helper.from_array(np.rint(array * 1.4).astype(array.dtype), tensor.name))
    return other


@pytest.mark.parametrize("quantization", ["a8w8", "a16w8"])
def test_joined_convolutions_are_right_as_our_quantiser_gives_them(quantization: str) -> None:
    x = RNG.normal(size=(1, 32, 6, 6))
    graph = OnnxGraph.load(joined(quantization, x.astype(np.float32)))
    rows, _ = judged(graph, x, captured(graph, x))
    assert {row.verdict for row in rows} == {"pass"}


@pytest.mark.parametrize("quantization", ["a8w8", "a16w8"])
def test_the_third_of_joined_convolutions_is_taken_at_the_scale_of_the_second(quantization: str) -> None:
    x = RNG.normal(size=(1, 32, 6, 6))
    graph = OnnxGraph.load(with_a_scale_of_its_own(joined(quantization, x.astype(np.float32))))
    tensors = captured(graph, x)
    rows, remarks = judged(graph, x, tensors)
    assert [row.candidate for row in rows if row.verdict == "fail"] == ["joined"]
    assert [remark.partition(":")[0] for remark in remarks] == ["joined"]
    assert "second's steps" in remarks[0]
