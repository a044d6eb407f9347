"""Small graphs that some released version of ONNX Runtime computes wrongly, one line each.

Numbers are seeded: of a normal distribution unless others are given. What is right is what onnx's own reference
computes, or what the official node case states, or PyTorch, where one of those is named.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from refimpl.ops.operation import Array

Operand = Array | tuple[int, ...] | None
"""An array, the shape of one of random numbers, or an operand left out."""


@dataclass(frozen=True)
class Small:
    """A graph, what it is fed, and its right outputs where they are known otherwise than by onnx's reference."""

    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    right: Sequence[Array] | None = None


@dataclass(frozen=True)
class Bug:
    """A wrong result of a released version.

    Attributes
    ----------
    says
        What it does wrong.
    version
        One that does.
    operator
        Whose node it is; of an optimisation, its name.
    make
        Makes the graph.
    source
        Where it was reported, repaired or stated otherwise; empty: found by running the versions.
    """

    says: str
    version: str
    operator: str
    make: Callable[[], Small]
    source: str = ""


def numbers(*shape: int, offset: float = 0.0, scale: float = 1.0, seed: int = 0) -> Array:
    """Return seeded numbers, float32."""
    drawn = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return np.asarray(drawn * scale + offset, np.float32)


def graph(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    constants: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
) -> Small:
    """Return a graph of nodes."""
    held = {name: np.asarray(array) for name, array in (constants or {}).items()}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    made = helper.make_graph(
        nodes,
        "bug",
        infos,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(made, opset_imports=imports, ir_version=9)
    return Small(onnx.shape_inference.infer_shapes(model), feeds)


def one(operator: str, *operands: Operand, opset: int = 18, outputs: int = 1, **attributes: Any) -> Small:
    """Return a graph of one node, whose small integer operands are constants."""
    arrays = {
        f"x{place}": numbers(*each, seed=place) if isinstance(each, tuple) else np.asarray(each)
        for place, each in enumerate(operands)
        if each is not None
    }
    held = {name: array for name, array in arrays.items() if array.dtype == np.int64 and array.ndim == 1}
    names = [f"x{place}" if each is not None else "" for place, each in enumerate(operands)]
    made = [f"y{place}" if place else "y" for place in range(outputs)]
    node = helper.make_node(operator, names, made, **attributes)
    return graph([node], {k: v for k, v in arrays.items() if k not in held}, held, made, opset)


def whole(*values: int) -> Array:
    """Return lengths or places, int64."""
    return np.array(values, np.int64)


@functools.cache
def _cases() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that their own numbers overflow
        return {case.name: case for case in collect_testcases(None)}


def case(name: str, opset: int | None = None) -> Small:
    """Return an official node case of the installed onnx, as of an older operator set where one is given."""
    found = _cases()[f"test_{name}"]
    model = onnx.ModelProto()
    model.CopyFrom(found.model)
    model.ir_version = min(model.ir_version, 10)
    if opset is not None:
        model.opset_import[0].version = opset
    inputs, outputs = found.data_sets[0]
    arrays = inputs if isinstance(inputs, list) else list(inputs.values())
    names = [info.name for info in model.graph.input]
    return Small(model, dict(zip(names, map(np.asarray, arrays), strict=True)), list(outputs))


def holding_nan(
    operator: str, *constants: Any, opset: int = 18, at: Sequence[int] = (3,), **attributes: Any
) -> Small:
    """Return an operator on square roots, of which those of negative numbers are NaN."""
    x = np.abs(numbers(3, 9)) + 1
    x[0, list(at)] = -1
    held = {f"c{place}": each for place, each in enumerate(constants)}
    nodes = [helper.make_node("Sqrt", ["x"], ["t"])]
    nodes.append(helper.make_node(operator, ["t", *held], ["y"], **attributes))
    return graph(nodes, {"x": x}, held, opset=opset)


def pooled(padding: Sequence[int], value: float, operator: str, x: Array, **attributes: Any) -> Small:
    """Return Pad and a pooling of it."""
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["t"]),
        helper.make_node(operator, ["t"], ["y"], **attributes),
    ]
    return graph(nodes, {"x": x}, {"pads": whole(*padding), "value": np.float32(value)})


def normed(scale: tuple[int, ...], axis: int = -1, exponent: float = 2.0) -> Small:
    """Return a norm by the root of the mean of squares, as exporters write it."""
    steps = [
        ("Pow", ["x", "two"], "p"),
        ("ReduceMean", ["p"], "v"),
        ("Add", ["v", "e"], "a"),
        ("Sqrt", ["a"], "r"),
        ("Div", ["x", "r"], "q"),
        ("Mul", ["q", "s"], "y"),
    ]
    nodes = [
        helper.make_node(operator, names, [made], **({"axes": [axis]} if operator == "ReduceMean" else {}))
        for operator, names, made in steps
    ]
    constants = {"two": np.float32(exponent), "e": np.float32(1e-5), "s": numbers(*scale, seed=1)}
    return graph(nodes, {"x": np.abs(numbers(2, 3, 8))}, constants, opset=17)


def untransposed(*operators: str, shape: tuple[int, int] = (4, 4), place: int = 0) -> Small:
    """Return a product of which an operand passes through a Transpose that leaves its axes as they are."""
    feeds = {"a": numbers(*shape), "w": numbers(shape[1], 5, seed=1) if place == 0 else numbers(5, 5, seed=1)}
    names = ["a", "w"]
    nodes = [helper.make_node("Transpose", [names[place]], ["t"], perm=[0, 1])]
    names[place] = "t"
    if operators == ("Gemm",):
        nodes.append(helper.make_node("Gemm", [*names, "c"], ["y"]))
    else:
        nodes += [helper.make_node("MatMul", names, ["m"]), helper.make_node("Add", ["m", "c"], ["y"])]
    return graph(nodes, feeds, {"c": numbers(5, seed=2)}, opset=13)


def same(
    operator: str,
    shape: tuple[int, ...],
    kernel: Sequence[int],
    dilations: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    lower: bool = False,
    opset: int = 18,
) -> Small:
    """Return a pooling with SAME padding, and what its definition says: windows over the input's own numbers."""
    steps = strides or [1] * len(kernel)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "dilations": dilations, "strides": steps}
    attributes["auto_pad"] = "SAME_LOWER" if lower else "SAME_UPPER"
    small = one(operator, shape, opset=opset, **attributes)
    x = small.feeds["x0"].astype(np.float64)
    taken = [_taken(*each, lower) for each in zip(shape[2:], kernel, steps, dilations, strict=True)]
    result = np.empty((*shape[:2], *map(len, taken)))
    for place in np.ndindex(*result.shape[2:]):
        window = x[:, :, *np.ix_(*(axis[at] for axis, at in zip(taken, place, strict=True)))]
        result[:, :, *place] = _OVER_WINDOWS[operator](window.reshape(*shape[:2], -1))
    return replace(small, right=[result.astype(np.float32)])


_OVER_WINDOWS: dict[str, Callable[[Array], Array]] = {
    "MaxPool": lambda x: x.max(-1),
    "AveragePool": lambda x: x.mean(-1),
    "LpPool": lambda x: np.sqrt((x**2).sum(-1)),
}


def _taken(length: int, kernel: int, stride: int, dilation: int, lower: bool) -> list[Array]:
    """Return which places of an axis each window has: as many windows as strides begin in the axis."""
    count = -(-length // stride)
    missing = max((count - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    before = missing - missing // 2 if lower else missing // 2
    places = (at * stride - before + dilation * np.arange(kernel) for at in range(count))
    return [each[(each >= 0) & (each < length)] for each in places]


def in_groups(x: Array, groups: int) -> Small:
    """Return a norm over groups of channels, and its definition in float64."""
    scale, shift = numbers(x.shape[1], seed=1), numbers(x.shape[1], seed=2)
    small = one("GroupNormalization", x, scale, shift, num_groups=groups, opset=21)
    split = x.astype(np.float64).reshape(len(x), groups, -1)
    normed = (split - split.mean(-1, keepdims=True)) / np.sqrt(split.var(-1, keepdims=True) + 1e-5)
    result = normed.reshape(x.shape) * scale[:, None, None] + shift[:, None, None]
    return replace(small, right=[result.astype(np.float32)])


_ISSUES = "https://github.com/microsoft/onnxruntime/issues/"
_PULLS = "https://github.com/microsoft/onnxruntime/pull/"

# fmt: off
BUGS = [
    Bug("a mean over the padding's end divides by too many", "1.20.1", "AveragePool",
        lambda: one("AveragePool", (1, 1, 6, 7), kernel_shape=[3, 3], strides=[2, 1], ceil_mode=1, count_include_pad=1)),
    Bug("the same in one dimension", "1.20.1", "AveragePool",
        lambda: one("AveragePool", (1, 2, 9), kernel_shape=[4], strides=[3], ceil_mode=1, count_include_pad=1)),
    Bug("the same in three dimensions", "1.20.1", "AveragePool",
        lambda: one("AveragePool", (1, 2, 9, 6, 9), kernel_shape=[3, 4, 4], strides=[1, 3, 2], ceil_mode=1, count_include_pad=1)),
    Bug("the same with dilations, in one dimension", "1.20.1", "AveragePool",
        lambda: one("AveragePool", (1, 3, 6), kernel_shape=[3], strides=[2], dilations=[2], ceil_mode=1, count_include_pad=1, opset=19)),
    Bug("the same with dilations, in two dimensions", "1.20.1", "AveragePool",
        lambda: one("AveragePool", (1, 3, 8, 7), kernel_shape=[3, 2], strides=[2, 2], dilations=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1, count_include_pad=1, opset=19)),
    Bug("the same with dilations, in three", "1.20.1", "AveragePool", lambda: case("averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True", 19)),
    Bug("a window that begins in the padding is not left out", "1.20.1", "AveragePool", lambda: case("averagepool_2d_ceil_last_window_starts_on_pad", 19)),
    Bug("a window that begins beyond the input is not left out", "1.20.1", "MaxPool", lambda: case("maxpool_2d_ceil_output_size_reduce_by_one", 12)),
    Bug("a window beyond the input, of a p-norm", "1.20.1", "LpPool",
        lambda: one("LpPool", (1, 1, 7, 9, 6), kernel_shape=[3, 3, 2], strides=[2, 3, 2], pads=[0, 0, 0, 0, 1, 0], ceil_mode=1)),
    Bug("a window beyond the input, in three dimensions", "1.20.1", "AveragePool",
        lambda: one("AveragePool", (1, 1, 9, 9, 6), kernel_shape=[2, 2, 2], strides=[3, 3, 2], dilations=[2, 1, 1], ceil_mode=1, opset=19)),
    Bug("SAME padding forgets the dilations", "1.23.2", "MaxPool",
        lambda: same("MaxPool", (1, 3, 5, 6), [3, 3], [2, 2], strides=[1, 2], lower=True)),
    Bug("the same in three dimensions", "1.32.0", "MaxPool",
        lambda: same("MaxPool", (1, 1, 7, 7, 6), [2, 2, 2], [1, 1, 2], strides=[1, 2, 1])),
    Bug("the same, with indices", "1.32.0", "MaxPool",
        lambda: one("MaxPool", (1, 2, 7, 6), kernel_shape=[2, 3], dilations=[2, 1], auto_pad="SAME_UPPER", outputs=2)),
    Bug("SAME padding forgets the dilations of a mean", "1.32.0", "AveragePool",
        lambda: same("AveragePool", (1, 2, 7, 6), [2, 3], [2, 2], opset=19)),
    Bug("SAME padding forgets the dilations of a p-norm", "1.32.0", "LpPool",
        lambda: same("LpPool", (1, 2, 7, 6), [2, 3], [2, 2])),
    Bug("SAME padding of strides longer than the kernel", "1.19.2", "Conv",
        lambda: one("Conv", (2, 4, 6, 9), (1, 4, 1, 1), (1,), strides=[3, 3], auto_pad="SAME_UPPER")),
    Bug("the same with groups, in three dimensions", "1.19.2", "Conv",
        lambda: one("Conv", (2, 8, 9, 6, 9), (4, 2, 3, 1, 3), (4,), group=4, strides=[2, 3, 3], auto_pad="SAME_UPPER")),
    Bug("the same in one dimension", "1.19.2", "Conv",
        lambda: one("Conv", (1, 2, 9), (3, 2, 1), strides=[3], auto_pad="SAME_UPPER")),
    Bug("SAME with strides longer than the kernel gives too few", "1.32.0", "ConvTranspose",
        lambda: one("ConvTranspose", (2, 1, 5, 5), (1, 3, 2, 2), strides=[1, 3], auto_pad="SAME_UPPER")),
    Bug("the same at the other end, in three dimensions", "1.32.0", "ConvTranspose",
        lambda: one("ConvTranspose", (1, 1, 3, 5, 3), (1, 2, 1, 4, 2), (2,), strides=[2, 2, 2], auto_pad="SAME_LOWER")),
    Bug("the same in one dimension", "1.32.0", "ConvTranspose",
        lambda: one("ConvTranspose", (1, 2, 4), (2, 3, 1), strides=[3], auto_pad="SAME_UPPER")),
    Bug("a variance in one pass cancels", "1.20.1", "LayerNormalization",
        lambda: one("LayerNormalization", numbers(2, 8, offset=1234), (8,), (8,)), f"{_PULLS}28743"),
    Bug("the same over three axes", "1.20.1", "LayerNormalization",
        lambda: one("LayerNormalization", numbers(2, 3, 4, 6, offset=800), (3, 4, 6), (3, 4, 6), axis=1, epsilon=1e-3), f"{_PULLS}28743"),
    Bug("the same without a bias", "1.23.2", "LayerNormalization",
        lambda: one("LayerNormalization", numbers(4, 64, offset=1000), (64,)), f"{_PULLS}28743"),
    Bug("the same in groups", "1.20.1", "GroupNormalization",
        lambda: in_groups(numbers(2, 4, 3, 4, offset=200), 2)),
    Bug("the same in one group", "1.20.1", "GroupNormalization",
        lambda: in_groups(numbers(2, 6, 3, 4, offset=500), 1)),
    Bug("a padding with 0 is taken for one with −∞", "1.23.2", "Pad_Fusion",
        lambda: pooled([0, 0, 1, 1, 0, 0, 1, 1], 0, "MaxPool", numbers(1, 3, 8, 7, offset=-3), kernel_shape=[3, 3]), f"{_ISSUES}22177"),
    Bug("the same with strides, at one end only", "1.30.0", "Pad_Fusion",
        lambda: pooled([0, 0, 0, 2, 0, 0, 0, 0], 0, "MaxPool", numbers(1, 8, 8, 7, offset=-3), kernel_shape=[3, 3], strides=[2, 2]), f"{_ISSUES}22177"),
    Bug("padding that counts is taken for padding that does not", "1.20.1", "Pad_Fusion",
        lambda: pooled([0, 0, 1, 1, 0, 0, 1, 1], 0, "AveragePool", numbers(1, 3, 8, 7), kernel_shape=[3, 3]), f"{_ISSUES}22177"),
    Bug("a mean of cubes is fused as one of squares", "1.20.1", "SimplifiedLayerNormFusion", lambda: normed((8,), exponent=3.0)),
    Bug("align_corners takes the length of the result for that of the scale", "1.32.0", "Resize", lambda: case("resize_downsample_scales_linear_align_corners", 19)),
    Bug("the same, cubic", "1.32.0", "Resize", lambda: case("resize_downsample_scales_cubic_align_corners", 19)),
    Bug("indices are of the larger output", "1.32.0", "MaxUnpool", lambda: case("maxunpool_export_with_output_shape", 11)),
    Bug("reads beyond the batch", "1.20.1", "ReverseSequence", lambda: case("reversesequence_batch", 10)),
    Bug("softcap comes after the mask", "1.23.2", "Attention", lambda: case("attention_4d_softcap_neginf_mask")),
    Bug("the same, where a masked value is large", "1.23.2", "Attention", lambda: case("attention_4d_softcap_neginf_mask_poison")),
    Bug("softcap, and the scores after it", "1.23.2", "Attention", lambda: case("attention_4d_with_qk_matmul_softcap")),
    Bug("the same with a past", "1.24.4", "Attention", lambda: case("attention_3d_with_past_and_present_qk_matmul_softcap")),
    Bug("a row that is masked whole is NaN", "1.23.2", "Attention", lambda: case("attention_23_boolmask_fullymasked_row_nan_robustness")),
    Bug("the same beside a causal mask", "1.24.4", "Attention", lambda: case("attention_causal_boolmask_nan_robustness")),
    Bug("the same in the scores", "1.23.2", "Attention", lambda: case("attention_23_fullymasked_qk_matmul_output_mode3_zero")),
    Bug("the same at the next operator set", "1.24.4", "Attention", lambda: case("attention_24_fullymasked_qk_matmul_output_mode3_zero")),
    Bug("padding without keys: the first key is used", "1.24.4", "Attention", lambda: case("attention_4d_causal_nonpad_negative_offset_structural_empty")),
    Bug("padding: the causal mask begins elsewhere", "1.24.4", "Attention", lambda: case("attention_4d_causal_nonpad_continued_prefill")),
    Bug("the same in a batch", "1.25.1", "Attention", lambda: case("attention_4d_causal_nonpad_batch_prefill")),
    Bug("the same with a mask", "1.26.0", "Attention", lambda: case("attention_4d_causal_nonpad_attn_mask_composition")),
    Bug("the same with heads that share keys", "1.24.4", "Attention", lambda: case("attention_4d_gqa_causal_nonpad_decode")),
    Bug("the same in float16", "1.24.4", "Attention", lambda: case("attention_4d_gqa_causal_nonpad_decode_fp16")),
    Bug("scores before the mask hold the mask", "1.24.4", "Attention", lambda: case("attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal")),
    Bug("the same with a mask of each head", "1.24.4", "Attention", lambda: case("attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal")),
    Bug("the same along the last axis", "1.20.1", "ReduceMax", lambda: holding_nan("ReduceMax", opset=13, axes=[1]), f"{_ISSUES}10514"),
    Bug("the same of the smallest along the last axis", "1.32.0", "ReduceMin", lambda: holding_nan("ReduceMin", opset=13, axes=[1]), f"{_ISSUES}10514"),
    Bug("a Transpose that changes nothing is folded", "1.20.1", "GemmTransposeFusion", lambda: untransposed("MatMul", "Add"), f"{_ISSUES}32228"),
    Bug("the same of Gemm", "1.23.2", "GemmTransposeFusion", lambda: untransposed("Gemm"), f"{_ISSUES}32418"),
    Bug("the same of the second factor", "1.25.1", "GemmTransposeFusion", lambda: untransposed("Gemm", shape=(3, 5), place=1), f"{_ISSUES}32418"),
    Bug("the same of the second factor before Add", "1.28.0", "GemmTransposeFusion", lambda: untransposed("MatMul", "Add", shape=(3, 5), place=1), f"{_ISSUES}32228"),
    Bug("NaN is passed over along the last of three", "1.20.1", "ReduceMax", lambda: holding_nan("ReduceMax", opset=13, axes=[-1], at=(1, 2)), f"{_ISSUES}10514"),
    Bug("NaN is passed over in all", "1.20.1", "ReduceMax", lambda: holding_nan("ReduceMax", opset=13, at=(4,)), f"{_ISSUES}10514"),
    Bug("NaN is passed over in all by the smallest", "1.20.1", "ReduceMin", lambda: holding_nan("ReduceMin", opset=13, at=(4,)), f"{_ISSUES}10514"),
    Bug("a window beyond the input, of a p-norm in two dimensions", "1.20.1", "LpPool",
        lambda: one("LpPool", (1, 2, 9, 6), kernel_shape=[2, 2], strides=[3, 2], ceil_mode=1)),
    Bug("SAME padding forgets the dilations of a mean in one dimension", "1.30.0", "AveragePool",
        lambda: same("AveragePool", (1, 2, 9), [3], [2], lower=True, opset=19)),
    Bug("SAME padding forgets the dilations of a p-norm in three", "1.31.1", "LpPool",
        lambda: same("LpPool", (1, 2, 5, 7, 6), [2, 3, 2], [1, 2, 2], lower=True)),
    Bug("SAME with strides longer than the kernel, at the lower end", "1.31.1", "ConvTranspose",
        lambda: one("ConvTranspose", (1, 2, 5, 3), (2, 3, 1, 2), strides=[2, 3], auto_pad="SAME_LOWER")),
    Bug("a variance in one pass cancels in float64", "1.20.1", "LayerNormalization",
        lambda: one("LayerNormalization", numbers(2, 8).astype(np.float64) + 1e7, numbers(8).astype(np.float64)), f"{_PULLS}28743"),
]
