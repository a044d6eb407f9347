"""Operations that real files use, in ONNX Runtime: right ones pass, and are judged; wrong ones fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.judge.nodes import judge_nodes
from refimpl.ops.operation import Array

Draw = Callable[[np.random.Generator], Any]
SEEDS = range(3)


@dataclass(frozen=True)
class One:
    """A graph of one operator, and what it is fed."""

    op_type: str
    inputs: tuple[Draw | Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 22
    domain: str = ""
    wrong_by: int = 64
    """Unit roundoffs of the largest number; more where places are computed, and the map is steep."""

    def model(self, feeds: dict[str, Array]) -> onnx.ModelProto:
        """Return the model; what is no float is an initializer."""
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(self.inputs)]
        made = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op_type, names, made, domain=self.domain, **self.attributes)
        kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in feeds.items()}
        inputs = [helper.make_tensor_value_info(name, kinds[name], x.shape) for name, x in feeds.items()]
        graph = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name=name) for name in made])
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def feeds(self, seed: int) -> dict[str, Array]:
        """Draw the operands, floats in float32."""
        rng = np.random.default_rng(seed)
        drawn = {f"x{i}": x(rng) if callable(x) else x for i, x in enumerate(self.inputs) if x is not None}
        return {
            name: x.astype(np.float32) if x.dtype == np.float64 else np.asarray(x)
            for name, x in drawn.items()
        }


def normal(*shape: int, scale: float = 1.0) -> Draw:
    """Normal numbers."""
    return lambda rng: rng.normal(size=shape) * scale


def uniform(low: float, high: float, *shape: int) -> Draw:
    """Uniform numbers."""
    return lambda rng: rng.uniform(low, high, shape)


def small(low: int, high: int, *shape: int, dtype: type[np.integer[Any]] = np.uint8) -> Draw:
    """Whole numbers from ``low`` to below ``high``."""
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def regions(count: int) -> Draw:
    """Corners of rectangles."""

    def draw(rng: np.random.Generator) -> Array:
        first = rng.uniform(-4, 40, (count, 2))
        return np.concatenate([first, first + rng.uniform(1, 30, (count, 2))], 1)

    return draw


def recurrent(gates: int, hidden: int, count: int = 1) -> tuple[Draw, ...]:
    """The operands of a recurrent layer of 12 steps: data, weights, recurrences, biases."""
    spread = hidden**-0.5
    return (
        normal(12, 2, 6),
        normal(count, gates * hidden, 6, scale=spread),
        normal(count, gates * hidden, hidden, scale=spread),
        normal(count, 2 * gates * hidden, scale=0.3),
    )


SCALES = np.array([0.005, 0.01, 0.02, 0.001], np.float32)


def quantised(*shape: int) -> tuple[Draw | Array, ...]:
    """Integers, their scale and zero point."""
    return (lambda rng: rng.integers(0, 256, shape, np.uint8), *scales(0.02))


def scales(scale: float) -> tuple[Array, Array]:
    """A scale and a zero point."""
    return np.asarray(scale), np.asarray(112, np.uint8)


LINE = (normal(4, 300, scale=3),)
OF_A_LINE = ("Selu", "Celu", "Softsign", "Tan", "Atan", "Sinh", "Cosh", "Asinh")
CASES = {
    **{
        name: One(name, LINE) for name in ("Selu", "Celu", "Softsign", "Tan", "Atan", "Sinh", "Cosh", "Asinh")
    },
    **{name: One(name, (uniform(-1, 1, 500),)) for name in ("Asin", "Acos", "Atanh")},
    "Acosh": One("Acosh", (uniform(1, 20, 500),)),
    "Shrink": One("Shrink", LINE, {"lambd": 1.5, "bias": 0.5}),
    "ThresholdedRelu": One("ThresholdedRelu", LINE, {"alpha": 0.7}),
    "Hardmax": One("Hardmax", LINE),
    "RMSNormalization": One("RMSNormalization", (normal(3, 5, 32), normal(32)), opset=23),
    "MeanVarianceNormalization": One("MeanVarianceNormalization", (normal(2, 3, 9, 8),), wrong_by=512),
    "LpNormalization, 1": One("LpNormalization", (normal(4, 30),), {"p": 1}),
    "LpNormalization, 2": One("LpNormalization", (normal(4, 30, 3),), {"p": 2, "axis": 1}),
    "LRN": One("LRN", (normal(2, 9, 4, 5),), {"size": 5, "alpha": 0.5, "bias": 2.0}),
    "LpPool": One("LpPool", (normal(1, 4, 13, 12),), {"kernel_shape": [3, 3], "strides": [2, 2], "p": 3}),
    "GlobalLpPool": One("GlobalLpPool", (normal(2, 4, 7, 5),), {"p": 2}, opset=17, wrong_by=128),
    "EyeLike": One("EyeLike", (normal(3, 5),), {"k": 1}),
    "Unique": One("Unique", (np.array([2, 1, 1, 3, 4, 3.0]),), {"sorted": 0}, outputs=4),
    "Compress": One("Compress", (normal(3, 4), np.array([False, True, True])), {"axis": 1}),
    "ReverseSequence": One("ReverseSequence", (normal(4, 3, 2), np.array([4, 1, 2]))),
    "BitShift": One(
        "BitShift", (np.array([16, 4, 5], np.uint8), np.array([1, 2, 3], np.uint8)), {"direction": "LEFT"}
    ),
    "BitwiseXor": One("BitwiseXor", (np.array([16, -4, 99]), np.array([1, 2, 3]))),
    "BitwiseNot": One("BitwiseNot", (np.array([16, -4, 99]),)),
    "NonMaxSuppression": One(
        "NonMaxSuppression",
        (uniform(0, 8, 2, 30, 4), uniform(0, 1, 2, 3, 30), np.array([8]), np.array([0.3], np.float32)),
    ),
    "ConvInteger": One(
        "ConvInteger",
        (small(0, 256, 1, 3, 8, 9), small(0, 256, 4, 3, 3, 3), np.uint8(120), np.uint8(128)),
        {"pads": [1] * 4},
    ),
    "MatMulInteger": One(
        "MatMulInteger", (small(0, 256, 4, 33), small(0, 256, 33, 5), np.uint8(12), np.uint8(128))
    ),
    "QLinearConv": One(
        "QLinearConv",
        (
            *(small(0, 256, 1, 3, 8, 9), np.float32(0.03), np.uint8(120)),
            *(small(-128, 128, 4, 3, 3, 3, dtype=np.int8), SCALES, np.zeros(4, np.int8)),
            *(np.float32(0.2), np.uint8(100), small(-2000, 2000, 4, dtype=np.int32)),
        ),
        {"pads": [1] * 4, "strides": [2, 2]},
    ),
    "QLinearMatMul": One(
        "QLinearMatMul",
        (
            *(small(0, 256, 4, 33), np.float32(0.03), np.uint8(120)),
            *(small(0, 256, 33, 5), np.float32(0.02), np.uint8(130)),
            *(np.float32(0.1), np.uint8(100)),
        ),
    ),
    "RotaryEmbedding": One(
        "RotaryEmbedding",
        (normal(2, 3, 5, 8), uniform(-1, 1, 9, 4), uniform(-1, 1, 9, 4), small(0, 9, 2, 5, dtype=np.int64)),
        opset=23,
    ),
    "Attention": One(
        "Attention",
        (normal(2, 4, 7, 16), normal(2, 2, 9, 16), normal(2, 2, 9, 5), normal(7, 9)),
        opset=23,
        wrong_by=2048,
    ),
    "Attention, causal, capped, cached, of three axes": One(
        "Attention",
        (normal(2, 5, 24), normal(2, 5, 24), normal(2, 5, 24), None, normal(2, 3, 4, 8), normal(2, 3, 4, 8)),
        {"q_num_heads": 3, "kv_num_heads": 3, "is_causal": 1, "softcap": 2.0},
        outputs=3,
        opset=23,
        wrong_by=2048,
    ),
    "MaxUnpool": One(
        "MaxUnpool",
        (normal(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]])),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    "Col2Im": One("Col2Im", (normal(1, 18, 12), np.array([5, 6]), np.array([3, 3])), opset=18),
    "Resize, antialiased": One(
        "Resize",
        (normal(1, 3, 23, 31), None, None, np.array([1, 3, 9, 14])),
        {"mode": "linear", "antialias": 1},
        wrong_by=1024,
    ),
    "Resize, antialiased, cubic": One(
        "Resize",
        (normal(1, 3, 23, 31), None, None, np.array([1, 3, 9, 14])),
        {"mode": "cubic", "antialias": 1},
        wrong_by=4096,
    ),
    "DeformConv": One(
        "DeformConv",
        (
            *(normal(1, 4, 7, 8), normal(6, 2, 3, 3), normal(1, 36, 7, 8)),
            *(normal(6), uniform(0, 1, 1, 18, 7, 8)),
        ),
        {"group": 2, "offset_group": 2, "pads": [1] * 4},
        wrong_by=4096,
    ),
    "GridSample": One("GridSample", (normal(2, 3, 9, 11), uniform(-1.2, 1.2, 2, 7, 8, 2)), wrong_by=1024),
    "GridSample, bilinear": One(
        "GridSample",
        (normal(1, 3, 9, 11), uniform(-1.2, 1.2, 1, 7, 8, 2)),
        {"mode": "bilinear", "padding_mode": "reflection", "align_corners": 1},
        opset=16,
        wrong_by=1024,
    ),
    "GridSample, cubic": One(
        "GridSample",
        (normal(1, 3, 9, 11), uniform(-1.2, 1.2, 1, 7, 8, 2)),
        {"mode": "cubic", "padding_mode": "border"},
        wrong_by=1024,
    ),
    "GridSample, nearest": One(
        "GridSample", (normal(1, 3, 9, 11), uniform(-1.2, 1.2, 1, 7, 8, 2)), {"mode": "nearest"}
    ),
    "RoiAlign": One(
        "RoiAlign",
        (normal(2, 4, 13, 12), regions(6), np.array([0, 1, 1, 0, 0, 1])),
        {"output_height": 3, "output_width": 4, "spatial_scale": 0.25, "sampling_ratio": 2},
        opset=16,
    ),
    "RoiAlign, adaptive": One(
        "RoiAlign",
        (normal(2, 4, 13, 12), regions(6), np.array([0, 1, 1, 0, 0, 1])),
        {"output_height": 2, "output_width": 3, "spatial_scale": 0.25},
        opset=10,
    ),
    "LSTM": One("LSTM", recurrent(4, 24), {"hidden_size": 24}, outputs=3),
    "LSTM, both ways": One(
        "LSTM", recurrent(4, 8, 2), {"hidden_size": 8, "direction": "bidirectional"}, outputs=3, opset=14
    ),
    "LSTM of sequences": One(
        "LSTM",
        (*recurrent(4, 8), np.array([12, 5], np.int32), normal(1, 2, 8), normal(1, 2, 8), normal(1, 24)),
        {"hidden_size": 8},
        outputs=3,
        opset=14,
    ),
    "GRU": One("GRU", recurrent(3, 24), {"hidden_size": 24, "linear_before_reset": 1}, outputs=2),
    "GRU, backward": One("GRU", recurrent(3, 8), {"hidden_size": 8, "direction": "reverse"}, outputs=2),
    "RNN": One("RNN", recurrent(1, 24), {"hidden_size": 24}, outputs=2),
    "RNN of ReLU": One(
        "RNN", recurrent(1, 8), {"hidden_size": 8, "activations": ["Relu"], "clip": 2.0}, outputs=2
    ),
    **{
        f"{name} of opset {opset}": One(name, (normal(3, 8, 5),), {"axis": 1}, opset=opset)
        for name in ("Softmax", "LogSoftmax")
        for opset in (11,)
    },
    "CenterCropPad": One("CenterCropPad", (normal(9, 4), np.array([6, 7])), opset=18),
    "FusedConv": One(
        "FusedConv",
        (normal(1, 4, 9, 8), normal(6, 4, 3, 3, scale=0.2), normal(6), normal(1, 6, 7, 6)),
        {"activation": "Relu"},
        domain="com.microsoft",
    ),
    "FusedConv, clipped": One(
        "FusedConv",
        (normal(1, 4, 9, 8), normal(6, 4, 3, 3, scale=0.2), normal(6)),
        {"activation": "Clip", "activation_params": [-0.5, 0.5], "pads": [1] * 4},
        domain="com.microsoft",
    ),
    "FusedGemm": One(
        "FusedGemm",
        (normal(5, 8), normal(6, 8), normal(6)),
        {"activation": "LeakyRelu", "activation_alpha": 0.25, "transB": 1},
        domain="com.microsoft",
    ),
    "FusedMatMul": One(
        "FusedMatMul", (normal(2, 5, 8), normal(2, 6, 8)), {"alpha": 0.3, "transB": 1}, domain="com.microsoft"
    ),
    "FusedMatMul of batches transposed": One(
        "FusedMatMul",
        (normal(5, 3, 2, 8), normal(8, 3, 2, 6)),
        {"transBatchA": 1, "transBatchB": 1},
        domain="com.microsoft",
    ),
    "FusedMatMul of batches and matrices transposed": One(
        "FusedMatMul",
        (normal(8, 3, 2, 5), normal(6, 3, 2, 8)),
        {"transBatchA": 1, "transBatchB": 1, "transA": 1, "transB": 1},
        domain="com.microsoft",
    ),
    **{name: One(name, LINE, domain="com.microsoft") for name in ("Gelu", "QuickGelu", "FastGelu")},
    "BiasGelu": One("BiasGelu", (normal(4, 30), normal(30)), domain="com.microsoft"),
    "FastGelu of a sum": One("FastGelu", (normal(4, 30), normal(30)), domain="com.microsoft"),
    "SkipLayerNormalization": One(
        "SkipLayerNormalization",
        (normal(2, 5, 16), normal(2, 5, 16), normal(16), normal(16), normal(16)),
        {"epsilon": 1e-5},
        domain="com.microsoft",
    ),
    "SkipLayerNormalization by default": One(
        "SkipLayerNormalization",
        (normal(2, 5, 16, scale=1e-3), normal(2, 5, 16, scale=1e-3), normal(16), normal(16)),
        domain="com.microsoft",
    ),
    "SkipSimplifiedLayerNormalization by default": One(
        "SkipSimplifiedLayerNormalization",
        (normal(2, 5, 16, scale=1e-3), normal(2, 5, 16, scale=1e-3), normal(16)),
        domain="com.microsoft",
    ),
    "SkipSimplifiedLayerNormalization": One(
        "SkipSimplifiedLayerNormalization",
        (normal(2, 5, 16), normal(2, 5, 16), normal(16)),
        {"epsilon": 1e-5},
        domain="com.microsoft",
    ),
    "SimplifiedLayerNormalization": One(
        "SimplifiedLayerNormalization", (normal(2, 5, 16), normal(16)), {"epsilon": 1e-5}
    ),
    **{
        name: One(name, (*quantised(5, 6), *quantised(5, 6), *scales(0.03)), domain="com.microsoft")
        for name in ("QLinearAdd", "QLinearMul")
    },
    **{
        name: One(name, (*quantised(2, 3, 7, 8), *scales(0.02)), domain="com.microsoft")
        for name in ("QLinearSigmoid", "QLinearGlobalAveragePool")
    },
    "QLinearLeakyRelu": One(
        "QLinearLeakyRelu", (*quantised(5, 6), *scales(0.02)), {"alpha": 0.1}, domain="com.microsoft"
    ),
    "QLinearAveragePool": One(
        "QLinearAveragePool",
        (*quantised(2, 3, 7, 8), *scales(0.02)),
        {"kernel_shape": [2, 3], "strides": [2, 2]},
        domain="com.microsoft",
    ),
    "QLinearConcat": One(
        "QLinearConcat",
        (*scales(0.05), *quantised(2, 3, 7), *quantised(2, 4, 7)),
        {"axis": 1},
        domain="com.microsoft",
    ),
    "QGemm": One(
        "QGemm",
        (*quantised(5, 8), *quantised(8, 6), lambda rng: rng.integers(-99, 99, 6, np.int32), *scales(0.1)),
        domain="com.microsoft",
    ),
    "MatMulIntegerToFloat": One(
        "MatMulIntegerToFloat",
        (
            *(
                lambda rng: rng.integers(0, 256, (5, 8), np.uint8),
                lambda rng: rng.integers(0, 256, (8, 6), np.uint8),
            ),
            *(np.asarray(0.02), np.asarray(0.03), np.asarray(120, np.uint8), np.asarray(9, np.uint8)),
            normal(6),
        ),
        domain="com.microsoft",
        wrong_by=4096,
    ),
    "MultiHeadAttention": One(
        "MultiHeadAttention",
        (normal(2, 7, 24), normal(2, 9, 24), normal(2, 9, 24), normal(72)),
        {"num_heads": 3},
        domain="com.microsoft",
        wrong_by=4096,
    ),
    "Attention of ONNX Runtime": One(
        "Attention",
        (normal(2, 7, 24), normal(24, 72, scale=0.2), normal(72)),
        {"num_heads": 3},
        domain="com.microsoft",
        wrong_by=4096,
    ),
    "RotaryEmbedding of ONNX Runtime": One(
        "RotaryEmbedding",
        (normal(2, 3, 5, 8), lambda rng: rng.integers(0, 9, (2, 5)), normal(9, 4), normal(9, 4)),
        domain="com.microsoft",
    ),
    "EmbedLayerNormalization": One(
        "EmbedLayerNormalization",
        (
            lambda rng: rng.integers(0, 9, (2, 5), np.int32),
            lambda rng: rng.integers(0, 2, (2, 5), np.int32),
            *(normal(9, 16), normal(8, 16), normal(2, 16)),
            *(normal(16), normal(16)),
        ),
        outputs=2,
        domain="com.microsoft",
    ),
    "DFT": One("DFT", (normal(2, 48, 1),), opset=20, wrong_by=4096),
    "DFT of complex numbers": One("DFT", (normal(2, 37, 2),), {"inverse": 1}, opset=20, wrong_by=4096),
    "DFT of opset 17": One("DFT", (normal(2, 48, 1),), {"axis": 1, "onesided": 1}, opset=17, wrong_by=4096),
    "STFT": One("STFT", (normal(2, 160, 1), np.array(16), uniform(0, 1, 32)), opset=17, wrong_by=4096),
    "Dropout": One("Dropout", (normal(5, 6),), outputs=2),
    "GroupNormalization of opset 18": One(
        "GroupNormalization", (normal(2, 6, 5, 4), normal(3), normal(3)), {"num_groups": 3}, opset=18
    ),
}
"""Name → a graph of one operator."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_what_onnx_runtime_computes_is_judged_and_right(name: str, seed: int) -> None:
    feeds = CASES[name].feeds(seed)
    graph = OnnxGraph.load(CASES[name].model(feeds))
    report = verify_graph(OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), feeds)
    report.raise_on_failure()
    (item,) = report.inputs
    assert sorted(row.name for row in item.nodes) == [f"y{place}" for place in range(CASES[name].outputs)]
    assert {row.verdict for row in item.nodes} == {"pass"}
    assert all((row.utilisation or 0.0) < 1 for row in item.nodes)


@pytest.mark.parametrize("name", CASES)
def test_a_few_units_in_the_last_place_fail(name: str) -> None:
    """Of the largest number there is: of the operands, or of the result."""
    feeds = CASES[name].feeds(0)
    graph = OnnxGraph.load(CASES[name].model(feeds))
    candidate = OnnxRuntimeGraph(graph, RuntimeOptions(threads=1))
    tensors = candidate.capture(feeds)
    y = tensors["y0"] = tensors["y0"].copy()
    floats = [np.abs(x).max() for x in (*feeds.values(), y) if x.dtype.kind == "f"]
    place = np.unravel_index(np.argmax(np.abs(y)) if y.dtype.kind == "f" else 0, y.shape)
    wrong = CASES[name].wrong_by * 2.0**-24 * max(floats) if y.dtype.kind == "f" else 1
    y[place] += np.asarray(wrong, y.dtype)
    rows = judge_nodes(graph, feeds, tensors, candidate.declaration)
    assert next(row for row in rows if row.name == "y0").verdict == "fail"
