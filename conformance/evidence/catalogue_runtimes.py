"""Runtimes on small graphs, wrong and right: each wrong one does what runtimes have been seen to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions, exposed
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.reports.report import Report
from refimpl.ops.operation import Array

Outputs = dict[str, Array]
Tamper = Callable[[Outputs, Array], Outputs]
"""What is made of the results, and of the input."""


def model(
    nodes: str, shape: tuple[int, ...], constants: Mapping[str, Any], opset: int = 20
) -> onnx.ModelProto:
    """Return a model of nodes in ONNX's text that make ``y`` of ``x``; a shape stands for noise of it."""
    sizes = ",".join(map(str, shape))
    text = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[{sizes}] x) => (float y) {{ {nodes} }}'
    made = parser.parse_model(text)
    made.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    for name, given in constants.items():
        random = np.random.default_rng(len(name) + len(made.graph.initializer))
        array = random.standard_normal(given).astype(np.float32) / 4 if isinstance(given, tuple) else given
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return made


def noise(shape: tuple[int, ...]) -> Array:
    """Return standard normal numbers, float32."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class Other(OnnxRuntimeGraph):
    """A runtime that computes another graph than it was given."""

    other: onnx.ModelProto

    def _run(self, given: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> Outputs:
        wanted = [output.name for output in given.graph.output]
        wide = not {output.name for output in self.other.graph.output}.issuperset(wanted)
        own = {value.name: feeds[value.name] for value in self.other.graph.input if value.name in feeds}
        made = super()._run(exposed(self.other) if wide else self.other, own, options)
        return {name: made[name] for name in wanted}


class Tampering(OnnxRuntimeGraph):
    """A runtime whose results are changed, at every run or only where it may optimise."""

    tamper: Tamper
    optimised_only = False

    def _run(self, given: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> Outputs:
        made = super()._run(given, feeds, options)
        return made if self.optimised_only and options.level == "disabled" else self.tamper(made, feeds["x"])


SQUARE = (1, 3, 8, 8)
SCALES = np.array([1, 1, 2.5, 2.5], np.float32)
RESIZE = (
    'y = Resize<mode="{}", coordinate_transformation_mode="{}", nearest_mode="{}", cubic_coeff_a={}>(x,, s)'
)
CONV = {"w": (4, 3, 3, 3)}
NORM = {"a": (3,), "b": (3,), "m": (3,), "v": np.array([0.01, 0.5, 2], np.float32)}
AXES = {"i": np.array([1])}

OPERATIONS: dict[str, tuple[str, str, tuple[int, ...], dict[str, Any]]] = {
    "Resize with aligned corners": (
        RESIZE.format("linear", "half_pixel", "floor", -0.75),
        RESIZE.format("linear", "align_corners", "floor", -0.75),
        SQUARE,
        {"s": SCALES},
    ),
    "Resize without half pixels": (
        RESIZE.format("linear", "half_pixel", "floor", -0.75),
        RESIZE.format("linear", "asymmetric", "floor", -0.75),
        SQUARE,
        {"s": SCALES},
    ),
    "Resize, nearest by ceiling": (
        RESIZE.format("nearest", "asymmetric", "floor", -0.75),
        RESIZE.format("nearest", "asymmetric", "ceil", -0.75),
        SQUARE,
        {"s": SCALES},
    ),
    "Resize, another cubic": (
        RESIZE.format("cubic", "half_pixel", "floor", -0.75),
        RESIZE.format("cubic", "half_pixel", "floor", -0.5),
        SQUARE,
        {"s": SCALES},
    ),
    "LeakyRelu of another slope": (
        "y = LeakyRelu<alpha=0.01>(x)",
        "y = LeakyRelu<alpha=0.0101>(x)",
        SQUARE,
        {},
    ),
    "Elu of another alpha": ("y = Elu(x)", "y = Elu<alpha=1.001>(x)", SQUARE, {}),
    "HardSigmoid of slope 0.2": ("y = HardSigmoid<alpha=0.16666667>(x)", "y = HardSigmoid(x)", SQUARE, {}),
    "Gelu by tanh": ("y = Gelu(x)", 'y = Gelu<approximate="tanh">(x)', SQUARE, {}),
    "Erf by Tanh": ("y = Erf(x)", "y = Tanh(x)", SQUARE, {}),
    "Softmax over another axis": ("y = Softmax<axis=3>(x)", "y = Softmax<axis=1>(x)", SQUARE, {}),
    "LayerNormalization of another epsilon": (
        "y = LayerNormalization<axis=3>(x, k)",
        "y = LayerNormalization<axis=3, epsilon=0.00002>(x, k)",
        SQUARE,
        {"k": (8,)},
    ),
    "BatchNormalization of another epsilon": (
        "y = BatchNormalization(x, a, b, m, v)",
        "y = BatchNormalization<epsilon=0.00002>(x, a, b, m, v)",
        SQUARE,
        NORM,
    ),
    "InstanceNormalization of another epsilon": (
        "y = InstanceNormalization(x, a, b)",
        "y = InstanceNormalization<epsilon=0.0001>(x, a, b)",
        SQUARE,
        {"a": (3,), "b": (3,)},
    ),
    "Conv padded at the end": (
        "y = Conv<pads=[1,1,1,1]>(x, w)",
        "y = Conv<pads=[0,0,2,2]>(x, w)",
        SQUARE,
        CONV,
    ),
    "Conv, kernel flipped": (
        "y = Conv(x, w)",
        "t = Slice(w, b, e, a, d) y = Conv(x, t)",
        SQUARE,
        {**CONV, "b": np.array([-1]), "e": np.array([-9]), "a": np.array([3]), "d": np.array([-1])},
    ),
    "Conv, dilation ignored": (
        "y = Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)",
        "y = Conv<pads=[1,1,1,1]>(x, w)",
        SQUARE,
        CONV,
    ),
    "ConvTranspose cut at the other end": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,0,0]>(x, w)",
        "y = ConvTranspose<strides=[2,2], pads=[0,0,1,1]>(x, w)",
        SQUARE,
        {"w": (3, 2, 3, 3)},
    ),
    "AveragePool that counts its padding": (
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",
        SQUARE,
        {},
    ),
    "MaxPool, window shifted": (
        "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0]>(x)",
        "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]>(x)",
        SQUARE,
        {},
    ),
    "Gemm without its beta": (
        "y = Gemm<beta=0.5>(x, w, b)",
        "y = Gemm(x, w, b)",
        (4, 8),
        {"w": (8, 5), "b": (5,)},
    ),
    "MatMul of the transposed": (
        "y = MatMul(x, w)",
        "t = Transpose(w) y = MatMul(x, t)",
        (4, 8),
        {"w": (8, 8)},
    ),
    "Transpose that only reshapes": (
        "y = Transpose<perm=[0,2,3,1]>(x)",
        "y = Reshape(x, n)",
        SQUARE,
        {"n": np.array([1, 8, 8, 3])},
    ),
    "Concat in another order": (
        "y = Concat<axis=1>(x, w)",
        "y = Concat<axis=1>(w, x)",
        SQUARE,
        {"w": (1, 2, 8, 8)},
    ),
    "Gather of the next": ("y = Gather<axis=1>(x, i)", "y = Gather<axis=2>(x, i)", (1, 8, 8), AXES),
    "ReduceMean that sums": ("y = ReduceMean(x, i)", "y = ReduceSum(x, i)", SQUARE, AXES),
    "DepthToSpace by columns": (
        'y = DepthToSpace<blocksize=2, mode="DCR">(x)',
        'y = DepthToSpace<blocksize=2, mode="CRD">(x)',
        (1, 8, 4, 4),
        {},
    ),
    "Pad that repeats the edge": (
        'y = Pad<mode="reflect">(x, p)',
        'y = Pad<mode="edge">(x, p)',
        SQUARE,
        {"p": np.array([0, 0, 2, 2, 0, 0, 2, 2])},
    ),
    "CumSum that leaves the element out": (
        "y = CumSum(x, i)",
        "y = CumSum<exclusive=1>(x, i)",
        (3, 9),
        {"i": np.array(1)},
    ),
    "Round towards zero": ("y = Round(x)", "y = Floor(x)", SQUARE, {}),
    "bias left out inside a graph": (
        "t = Conv(x, w, b) u = Relu(t) y = Sigmoid(u)",
        "t = Conv(x, w) u = Relu(t) y = Sigmoid(u)",
        SQUARE,
        {**CONV, "b": (4,)},
    ),
    "activation left out inside a graph": (
        "t = Conv(x, w) u = Relu(t) y = Sigmoid(u)",
        "t = Conv(x, w) u = Identity(t) y = Sigmoid(u)",
        SQUARE,
        CONV,
    ),
}
"""Name → what is to be computed, what is computed, of which shape, with which constants."""

PRODUCT = "y = Conv(x, w)"
LAYER_NORM = "y = LayerNormalization<axis=1>(x, k)"


def _each(change: Callable[[Array], Array]) -> Tamper:
    return lambda made, x: {name: np.asarray(change(array), array.dtype) for name, array in made.items()}


def _with(value: float) -> Tamper:
    def change(array: Array) -> Array:
        changed = array.copy()
        changed.flat[0] = value
        return changed

    return _each(change)


def _half(array: Array) -> Array:
    return array.astype(np.float16)


def _bfloat16(array: Array) -> Array:
    return (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


TAMPERING: dict[str, tuple[str, tuple[int, ...], dict[str, Any], Tamper]] = {
    "Conv two millionths too large": (
        "t = Abs(x) y = Conv(t, w)",
        (1, 64, 24, 24),
        {"w": np.abs(noise((16, 64, 3, 3)))},
        lambda made, x: {**made, "y": made["y"] * np.float32(1 + 2e-6)},
    ),
    "Sqrt off by four units in the last place": (
        "t = Abs(x) y = Sqrt(t)",
        SQUARE,
        {},
        lambda made, x: {**made, "y": made["y"] * np.float32(1 + 2**-21)},
    ),
    "one element NaN": (PRODUCT, SQUARE, CONV, _with(np.nan)),
    "one element infinite": (PRODUCT, SQUARE, CONV, _with(np.inf)),
    "one element zero": (PRODUCT, SQUARE, CONV, _with(0)),
    "stored as float16, undeclared": (PRODUCT, SQUARE, CONV, _each(_half)),
    "stored as bfloat16, undeclared": (PRODUCT, SQUARE, CONV, _each(_bfloat16)),
    "an output of another shape": (PRODUCT, SQUARE, CONV, _each(lambda y: y[..., :-1])),
    "an output that is missing": (PRODUCT, SQUARE, CONV, lambda made, x: {}),
    "rows exchanged": (PRODUCT, SQUARE, CONV, _each(lambda y: y[:, :, ::-1].copy())),
    "channels exchanged": (PRODUCT, SQUARE, CONV, _each(lambda y: y[:, ::-1].copy())),
    "all zero": (PRODUCT, SQUARE, CONV, _each(np.zeros_like)),
    "negative zero and sign lost": ("y = Neg(x)", SQUARE, {}, _each(np.abs)),
}


def _tampered(
    nodes: str, shape: tuple[int, ...], constants: dict[str, Any], tamper: Tamper, **more: bool
) -> Report:
    candidate = Tampering(OnnxGraph.load(model(nodes, shape, constants)))
    candidate.tamper = tamper
    candidate.optimised_only = more.get("optimised_only", False)
    return verify_graph(candidate, {"x": noise(shape)})


def _other(right: str, wrong: str, shape: tuple[int, ...], constants: dict[str, Any]) -> Report:
    candidate = Other(OnnxGraph.load(model(right, shape, constants)))
    candidate.other = model(wrong, shape, constants)
    return verify_graph(candidate, {"x": noise(shape)})


def _one_pass(offset: float) -> Report:
    """Judge a variance that is E[x²] − E[x]² in float32."""

    def tamper(made: Outputs, x: Array) -> Outputs:
        mean = x.mean(axis=1, keepdims=True, dtype=np.float32)
        square = np.square(x).mean(axis=1, keepdims=True, dtype=np.float32)
        return {"y": (x - mean) / np.sqrt(np.maximum(square - mean * mean, 0) + np.float32(1e-5))}

    return _on(LAYER_NORM, offset + noise((2, 64)), {"k": np.ones(64, np.float32)}, tamper)


def _stored() -> Report:
    """Judge a runtime that returns its first result."""
    memory: dict[frozenset[str], Outputs] = {}
    return _tampered(PRODUCT, SQUARE, CONV, lambda made, x: memory.setdefault(frozenset(made), made))


def _not_repeatable() -> Report:
    calls: list[int] = []

    def tamper(made: Outputs, x: Array) -> Outputs:
        calls.append(0)
        return {name: array + np.float32(len(calls) * 1e-6) for name, array in made.items()}

    return _tampered(PRODUCT, SQUARE, CONV, tamper)


def wrong() -> dict[str, Callable[[], Report]]:
    """Return name → what judges it, of runtimes that must fail."""
    entries: dict[str, Callable[[], Report]] = {}
    for name, operation in OPERATIONS.items():
        entries[name] = partial(_other, *operation)
    for name, tampering in TAMPERING.items():
        entries[name] = partial(_tampered, *tampering)
    entries["variance in one pass, offset 1234"] = lambda: _one_pass(1234)
    entries["the first result, returned again"] = _stored
    entries["not repeatable"] = _not_repeatable
    entries["wrong only when optimised"] = lambda: _tampered(
        PRODUCT, SQUARE, CONV, _each(lambda y: y + np.float32(0.01)), optimised_only=True
    )
    return entries


# --- right ones -------------------------------------------------------------------------------------


def _on(nodes: str, x: Array, constants: dict[str, Any], tamper: Tamper = lambda made, x: made) -> Report:
    """Judge ONNX Runtime, or what is made of its results, on an input of one's own."""
    candidate = Tampering(OnnxGraph.load(model(nodes, x.shape, constants)))
    candidate.tamper = tamper
    return verify_graph(candidate, {"x": x.astype(np.float32)})


def _blocks(w: Array) -> Tamper:
    """Return what sums a matrix product in blocks, the last first: another order is no fault."""
    starts = range(0, len(w), 8)
    return lambda made, x: {"y": np.sum([x[:, a : a + 8] @ w[a : a + 8] for a in reversed(starts)], axis=0)}


MATRIX = "y = MatMul(x, w)"
PLANE = noise((1, 1, 24, 24))
ROWS = noise((64, 1)).repeat(96, axis=1)
WIDE = {"w": (16, 64, 3, 3)}

RIGHT: dict[str, tuple[str, Array, dict[str, Any]]] = {
    "equal channels": (PRODUCT, PLANE.repeat(64, axis=1), WIDE),
    "two channels in turn": (PRODUCT, np.tile(noise((1, 2, 24, 24)), (1, 32, 1, 1)), WIDE),
    "equal rows": (PRODUCT, noise((1, 64, 1, 24)).repeat(24, axis=2), WIDE),
    "constant weights": (PRODUCT, PLANE.repeat(64, axis=1), {"w": np.full((16, 64, 3, 3), 0.01, np.float32)}),
    "equal columns of a matrix": (MATRIX, ROWS, {"w": (96, 8)}),
    "a flat input": (PRODUCT, np.full((1, 64, 24, 24), 0.7), WIDE),
    "an input of zeros": (PRODUCT, np.zeros((1, 64, 24, 24)), WIDE),
    "an input of one hot pixel": (PRODUCT, np.eye(1, 64 * 576, 300).reshape(1, 64, 24, 24), WIDE),
    "huge numbers": (PRODUCT, 1e30 * noise((1, 64, 24, 24)), WIDE),
    "subnormal numbers": ("y = Mul(x, x)", 1e-21 * noise((4, 9)), {}),
    "a sum that cancels": ("t = Add(x, c) y = Sub(t, c)", noise((4, 9)), {"c": np.full(9, 4096, np.float32)}),
    "LayerNormalization, offset 40000": (LAYER_NORM, 4e4 + noise((2, 64)), {"k": (64,)}),
    "LayerNormalization, offset 1234": (LAYER_NORM, 1234 + noise((2, 64)), {"k": (64,)}),
    "LayerNormalization of equal numbers": (LAYER_NORM, np.full((2, 64), 3.0), {"k": (64,)}),
    "InstanceNormalization": ("y = InstanceNormalization(x, a, b)", noise(SQUARE), {"a": (3,), "b": (3,)}),
    "saturated Sigmoid": ("y = Sigmoid(x)", 60 + noise(SQUARE), {}),
    "Softmax of one large number": ("y = Softmax(x)", 100 * noise((3, 9)), {}),
    "infinity that the graph means": ("y = Log(c)", noise((3,)), {"c": np.zeros(3, np.float32)}),
    "a branch that the input does not reach": ("t = Exp(c) y = Add(t, t)", noise((3,)), {"c": (3,)}),
    "a table beside a branch that moves": ("t = Exp(c) u = Relu(x) y = Mul(t, u)", noise((3,)), {"c": (3,)}),
    "ReLU of negative numbers": ("y = Relu(x)", -1 - np.abs(noise(SQUARE)), {}),
    "Sqrt": ("t = Abs(x) y = Sqrt(t)", noise(SQUARE), {}),
    "Exp, Log, Tanh, Erf": ("a = Tanh(x) b = Erf(a) c = Exp(b) y = Log(c)", noise(SQUARE), {}),
    "whole numbers": ("y = Floor(x)", 100 * noise(SQUARE), {}),
    "one element": ("y = Exp(x)", noise((1,)), {}),
    "no element": ("y = Exp(x)", np.zeros((0, 3)), {}),
    "a residual network": (
        "a = Conv<pads=[1,1,1,1]>(x, w) b = BatchNormalization(a, p, q, m, v) c = Relu(b) y = Add(c, x)",
        noise(SQUARE),
        {"w": (3, 3, 3, 3), "p": (3,), "q": (3,), "m": (3,), "v": np.array([0.01, 0.5, 2], np.float32)},
    ),
    "Resize to a size that does not divide": (
        RESIZE.format("linear", "half_pixel", "floor", -0.75),
        noise(SQUARE),
        {"s": SCALES},
    ),
}
"""Name → nodes, input, constants: ONNX Runtime on what has deceived judges, this one among them."""


def right() -> dict[str, Callable[[], Report]]:
    """Return name → what judges it, of runtimes that must pass."""
    entries: dict[str, Callable[[], Report]] = {}
    for name, graph in RIGHT.items():
        entries[name] = partial(_on, *graph)
    x, w = noise((8, 64)), noise((64, 8))
    entries["sums in blocks, the last first"] = lambda: _on(MATRIX, x, {"w": w}, _blocks(w))
    entries["sums in float64"] = lambda: _on(
        MATRIX, x, {"w": w}, lambda made, x: {"y": (x.astype(np.float64) @ w).astype(np.float32)}
    )
    return entries
