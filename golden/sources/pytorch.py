"""PyTorch's float64 operators as a second source: ONNX semantics in PyTorch's words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conformance.graph.evaluation import as_tuple, run
from conformance.graph.pytorch_replay import import_torch
from refimpl.graph import Graph, Node
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

Translation = Callable[..., Any]


def computed(computation: Graph) -> dict[str, Array] | None:
    """Run a computation on PyTorch's operators; None if one has no translation with these attributes."""
    torch = import_torch()
    calls = translations(torch)
    given = {name: torch.from_numpy(np.array(x)) for name, x in computation.initializers.items()}

    def translated(node: Node, operands: Sequence[Any]) -> tuple[Any, ...]:
        _require(node.op_type in calls)
        return as_tuple(calls[node.op_type](*operands, **_given(node)))

    try:
        values = run(computation.nodes, given, translated)
    except (_Untranslated, TypeError):
        return None
    if not set(computation.outputs.values()) <= set(values):
        return None
    return {name: values[tensor].numpy() for name, tensor in computation.outputs.items()}


def _given(node: Node) -> dict[str, Any]:
    """Return the attributes that are not ONNX's defaults: only those need a translation."""
    parameters = inspect.signature(OPERATIONS[node.op_type]).parameters
    return {k: v for k, v in node.attributes.items() if not _equal(v, parameters[k].default)}


def _equal(value: Any, default: Any) -> bool:
    return bool(np.array_equal(value, default)) and isinstance(value, type(default))


class _Untranslated(Exception):
    """PyTorch has no such attribute."""


def _require(condition: bool) -> None:
    if not condition:
        raise _Untranslated


def translations(torch: Any) -> dict[str, Translation]:
    """Return ONNX operator → a function of tensors and ONNX attributes."""
    f = torch.nn.functional
    return {
        **_products(torch, f),
        **_functions(torch, f),
        **_pooling(torch, f),
        **_arranging(torch),
        **_choosing(torch),
    }


def _padded(f: Any, x: Any, pads: Any, value: float = 0.0) -> Any:
    """Pad the spatial axes: ONNX lists all begins, then all ends; PyTorch pairs, last axis first."""
    if pads is None:
        return x
    half = len(pads) // 2
    pairs = [int(n) for i in reversed(range(half)) for n in (pads[i], pads[i + half])]
    return f.pad(x, pairs, value=value)


def _products(torch: Any, f: Any) -> dict[str, Translation]:
    convolutions = {1: f.conv1d, 2: f.conv2d, 3: f.conv3d}
    transposed = {1: f.conv_transpose1d, 2: f.conv_transpose2d}

    def conv(
        x: Any,
        w: Any,
        b: Any = None,
        *,
        strides: Any = None,
        pads: Any = None,
        dilations: Any = None,
        group: int = 1,
        kernel_shape: Any = None,
        auto_pad: str = "NOTSET",
    ) -> Any:
        _require(auto_pad in ("NOTSET", "VALID"))
        rank = x.ndim - 2
        x = _padded(f, x, pads)
        return convolutions[rank](
            x, w, b, tuple(strides or (1,) * rank), 0, tuple(dilations or (1,) * rank), group
        )

    def conv_transpose(
        x: Any,
        w: Any,
        b: Any = None,
        *,
        strides: Any = None,
        pads: Any = None,
        dilations: Any = None,
        group: int = 1,
        output_padding: Any = None,
        auto_pad: str = "NOTSET",
    ) -> Any:
        rank = x.ndim - 2
        pads = tuple(pads or (0,) * 2 * rank)
        _require(pads[:rank] == pads[rank:])
        return transposed[rank](
            x,
            w,
            b,
            tuple(strides or (1,) * rank),
            pads[:rank],
            tuple(output_padding or (0,) * rank),
            group,
            tuple(dilations or (1,) * rank),
        )

    def gemm(
        a: Any,
        b: Any,
        c: Any = None,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        transA: int = 0,
        transB: int = 0,
    ) -> Any:
        product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
        return product if c is None else product + beta * c

    return {
        "Conv": conv,
        "ConvTranspose": conv_transpose,
        "MatMul": torch.matmul,
        "Gemm": gemm,
        "Einsum": lambda *x, equation: torch.einsum(equation, *x),
    }


def _functions(torch: Any, f: Any) -> dict[str, Translation]:
    def layer_norm(
        x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
    ) -> Any:
        shape = x.shape[axis:]
        return f.layer_norm(
            x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon
        )

    def batch_norm(
        x: Any,
        w: Any,
        b: Any,
        mean: Any,
        variance: Any,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        training_mode: int = 0,
    ) -> Any:
        return f.batch_norm(x, mean, variance, w, b, eps=epsilon)

    def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
        return torch.clamp(alpha * x + beta, 0.0, 1.0)

    return {
        "BatchNormalization": batch_norm,
        "LayerNormalization": layer_norm,
        "InstanceNormalization": lambda x, w, b, *, epsilon=1e-5: f.instance_norm(
            x, weight=w, bias=b, eps=epsilon
        ),
        "GroupNormalization": lambda x, w, b, *, num_groups, epsilon=1e-5, stash_type=1: f.group_norm(
            x, num_groups, w, b, epsilon
        ),
        "Relu": f.relu,
        "LeakyRelu": lambda x, *, alpha=0.01: f.leaky_relu(x, alpha),
        "Elu": lambda x, *, alpha=1.0: f.elu(x, alpha),
        "HardSigmoid": hard_sigmoid,
        "HardSwish": f.hardswish,
        "Swish": lambda x, *, alpha=1.0: x * torch.sigmoid(alpha * x),
        "Mish": f.mish,
        "Softplus": lambda x: f.softplus(x, threshold=1000),
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "Erf": torch.erf,
        "Gelu": lambda x, *, approximate="none": f.gelu(x, approximate=approximate),
        "Softmax": lambda x, *, axis=-1: torch.softmax(x, axis),
        "LogSoftmax": lambda x, *, axis=-1: torch.log_softmax(x, axis),
        "Clip": lambda x, low=None, high=None: (
            x if low is None and high is None else torch.clamp(x, low, high)
        ),
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Exp": torch.exp,
        "Log": torch.log,
        "Sqrt": torch.sqrt,
        "Sin": torch.sin,
        "Cos": torch.cos,
        "Pow": torch.pow,
        "Reciprocal": torch.reciprocal,
        "Neg": torch.neg,
        "Abs": torch.abs,
        "Sign": torch.sign,
        "Floor": torch.floor,
        "Ceil": torch.ceil,
        "Round": torch.round,
    }


def _pooling(torch: Any, f: Any) -> dict[str, Translation]:
    def windows(kernel: Any, strides: Any, pads: Any) -> tuple[Any, Any, Any]:
        pads = tuple(pads or (0,) * 2 * len(kernel))
        half = len(kernel)
        _require(half == 2 and pads[:half] == pads[half:])
        return tuple(kernel), tuple(strides or (1,) * half), pads[:half]

    def max_pool(
        x: Any,
        *,
        kernel_shape: Any,
        strides: Any = None,
        pads: Any = None,
        ceil_mode: int = 0,
        dilations: Any = None,
    ) -> Any:
        return f.max_pool2d(
            x, *windows(kernel_shape, strides, pads), tuple(dilations or (1, 1)), bool(ceil_mode)
        )

    def average_pool(
        x: Any,
        *,
        kernel_shape: Any,
        strides: Any = None,
        pads: Any = None,
        ceil_mode: int = 0,
        count_include_pad: int = 0,
    ) -> Any:
        return f.avg_pool2d(
            x, *windows(kernel_shape, strides, pads), bool(ceil_mode), bool(count_include_pad)
        )

    def resize(
        x: Any,
        roi: Any = None,
        scales: Any = None,
        sizes: Any = None,
        *,
        mode: str = "nearest",
        coordinate_transformation_mode: str = "half_pixel",
        cubic_coeff_a: float = -0.75,
        nearest_mode: str = "round_prefer_floor",
        antialias: int = 0,
    ) -> Any:
        aligned = coordinate_transformation_mode == "align_corners"
        _require(sizes is not None and tuple(sizes[:2]) == tuple(x.shape[:2]) and cubic_coeff_a == -0.75)
        size, spatial = tuple(int(n) for n in sizes[2:]), x.ndim - 2
        if mode == "nearest":
            _require(coordinate_transformation_mode == "asymmetric" and nearest_mode == "floor")
            return f.interpolate(x, size, mode="nearest")
        _require(aligned or coordinate_transformation_mode == "half_pixel")
        name = {("linear", 1): "linear", ("linear", 2): "bilinear", ("cubic", 2): "bicubic"}.get(
            (mode, spatial)
        )
        _require(name is not None)
        return f.interpolate(x, size, mode=name, align_corners=aligned, antialias=bool(antialias))

    def reduced(function: Any) -> Translation:
        def call(x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
            _require(axes is not None)
            return function(x, tuple(int(n) for n in axes), bool(keepdims))

        return call

    return {
        "MaxPool": max_pool,
        "AveragePool": average_pool,
        "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
        "Resize": resize,
        "ReduceMean": reduced(torch.mean),
        "ReduceSum": reduced(torch.sum),
        "ReduceMax": reduced(torch.amax),
        "ReduceMin": reduced(torch.amin),
        "ReduceLogSumExp": reduced(torch.logsumexp),
    }


def _arranging(torch: Any) -> dict[str, Translation]:
    def ints(x: Any) -> tuple[int, ...]:
        return tuple(int(n) for n in x)

    def reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
        wanted = ints(shape)
        return x.reshape(wanted if allowzero else [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)])

    def split(x: Any, sizes: Any = None, *, axis: int = 0, num_outputs: Any = None) -> Any:
        _require(sizes is not None)
        return torch.split(x, ints(sizes), axis)

    return {
        "Identity": lambda x: x,
        "Reshape": reshape,
        "Transpose": lambda x, *, perm=None: x.permute(
            tuple(reversed(range(x.ndim))) if perm is None else tuple(perm)
        ),
        "Unsqueeze": lambda x, axes: x.unsqueeze(*ints(axes)),
        "Concat": lambda *x, axis: torch.cat(x, axis),
        "Split": split,
        "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, ints(shape))),
        "Tile": lambda x, repeats: x.repeat(ints(repeats)),
    }


def _choosing(torch: Any) -> dict[str, Translation]:
    return {
        "Where": torch.where,
        "GatherElements": lambda x, i, *, axis=0: torch.gather(x, axis, i),
        "DepthToSpace": lambda x, *, blocksize, mode="DCR": (
            torch.nn.functional.pixel_shuffle(x, blocksize) if mode == "CRD" else _require(False)
        ),
        "Div": lambda a, b: (
            torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")
        ),
    }
