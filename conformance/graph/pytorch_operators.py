"""The vocabulary in PyTorch's words: ONNX operator → a function of tensors and of ONNX's attributes.

Shapes, axes and bounds among the operands may be tensors or Python numbers. What PyTorch has no word for is
refused, never approximated. Needs PyTorch: `conformance.graph.pytorch_replay.operators` asks for it first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional

from refimpl.errors import UnsupportedOperationError

Operator = Callable[..., Any]
Axes = Iterable[Any]
"""Whole numbers: axes, sizes or a shape."""

# Products


def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Conv over one to three spatial axes; PyTorch pads evenly, anything else is padded before."""
    _require(auto_pad in ("NOTSET", "VALID"))
    rank = x.ndim - 2
    begin, end = _halves(pads, rank)
    if begin != end:
        x, begin = _padded(x, begin, end), (0,) * rank
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    return function(x, w, b, _each(strides, rank), begin, _each(dilations, rank), group)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """ConvTranspose over one to three spatial axes, cut evenly."""
    rank = x.ndim - 2
    begin, end = _halves(pads, rank)
    _require(begin == end)
    functions = functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d
    extra = _each(output_padding, rank, 0)
    return functions[rank - 1](x, w, b, _each(strides, rank), begin, extra, group, _each(dilations, rank))


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Gemm."""
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + beta * c


PRODUCTS: dict[str, Operator] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MatMul": torch.matmul,
    "Gemm": gemm,
    "Einsum": lambda *x, equation: torch.einsum(equation, *x),
}


def _halves(pads: Sequence[int] | None, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding before and after each spatial axis: ONNX lists all begins, then all ends."""
    both = tuple(pads or (0,) * 2 * rank)
    return both[:rank], both[rank:]


def _padded(x: Tensor, begin: tuple[int, ...], end: tuple[int, ...]) -> Tensor:
    """Pad the spatial axes with zeros: PyTorch lists pairs, the last axis first."""
    pairs = zip(reversed(begin), reversed(end), strict=True)
    return functional.pad(x, [n for pair in pairs for n in pair])


def _each(values: Sequence[int] | None, rank: int, default: int = 1) -> tuple[int, ...]:
    return tuple(values or (default,) * rank)


# Normalisation and activations


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> Tensor:
    """BatchNormalization from the running statistics, where a momentum has no effect."""
    return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5
) -> Tensor:
    """LayerNormalization, without its statistics."""
    shape = x.shape[axis:]
    shift = None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, shape, scale.expand(shape), shift, epsilon)


def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """GroupNormalization."""
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """InstanceNormalization."""
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """MeanVarianceNormalization, as ONNX's function has it."""
    over = tuple(axes)
    deviation = x.var(over, correction=0, keepdim=True).sqrt()
    return (x - x.mean(over, keepdim=True)) / (deviation + 1e-9)


def response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """LRN, over as many channels before as behind."""
    _require(size % 2 == 1)
    return functional.local_response_norm(x, size, alpha, beta, bias)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """HardSigmoid; PyTorch's own has the slope 1/6."""
    if (alpha, beta) == (1 / 6, 0.5):
        return functional.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def clip(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """Clip, to both bounds, one, or none."""
    return x if low is None and high is None else torch.clamp(x, low, high)


FUNCTIONS: dict[str, Operator] = {
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "RMSNormalization": lambda x, scale, *, epsilon=1e-5: functional.rms_norm(
        x, x.shape[-1:], scale, epsilon
    ),
    "MeanVarianceNormalization": mean_variance_normalization,
    "LRN": response_normalization,
    "LpNormalization": lambda x, *, axis=-1, p=2: functional.normalize(x, p, axis, torch.finfo(x.dtype).tiny),
    "Relu": functional.relu,
    "LeakyRelu": lambda x, *, alpha=0.01: functional.leaky_relu(x, alpha),
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Elu": lambda x, *, alpha=1.0: functional.elu(x, alpha),
    "Celu": lambda x, *, alpha=1.0: functional.celu(x, alpha),
    "ThresholdedRelu": lambda x, *, alpha=1.0: torch.where(x > alpha, x, 0),
    "Softsign": functional.softsign,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": functional.hardswish,
    "Swish": lambda x, *, alpha=1.0: x * torch.sigmoid(alpha * x),
    "Mish": functional.mish,
    # Beyond the threshold it is taken for the identity.
    "Softplus": lambda x: functional.softplus(x, threshold=1000),
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Gelu": lambda x, *, approximate="none": functional.gelu(x, approximate=approximate),
    "Softmax": lambda x, *, axis=-1: torch.softmax(x, axis),
    "LogSoftmax": lambda x, *, axis=-1: torch.log_softmax(x, axis),
    "Clip": clip,
}

# Arithmetic


def div(a: Tensor, b: Any) -> Tensor:
    """Div; of whole numbers towards zero."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


ARITHMETIC: dict[str, Operator] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": div,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Max": lambda *x: functools.reduce(torch.maximum, x),
    "Min": lambda *x: functools.reduce(torch.minimum, x),
    "Sum": lambda *x: functools.reduce(torch.add, x),
    "Mean": lambda *x: functools.reduce(torch.add, x) / len(x),
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "Not": torch.logical_not,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Neg": torch.neg,
    "Abs": torch.abs,
    "Sign": torch.sign,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
}

# Pooling, resizing and reductions


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """MaxPool of maps, evenly padded, without its indices."""
    step, padding = _pooling_windows(kernel_shape, strides, pads)
    spread = _each(dilations, 2)
    return functional.max_pool2d(x, tuple(kernel_shape), step, padding, spread, bool(ceil_mode))


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """AveragePool of maps, evenly padded."""
    step, padding = _pooling_windows(kernel_shape, strides, pads)
    flags = bool(ceil_mode), bool(count_include_pad)
    return functional.avg_pool2d(x, tuple(kernel_shape), step, padding, *flags)


def _pooling_windows(
    kernel: Sequence[int], strides: Sequence[int] | None, pads: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    begin, end = _halves(pads, len(kernel))
    _require(len(kernel) == 2 and begin == end)
    return _each(strides, 2), begin


INTERPOLATIONS = {("linear", 1): "linear", ("linear", 2): "bilinear", ("cubic", 2): "bicubic"}
"""ONNX's mode and the number of spatial axes → PyTorch's mode."""


def resize(
    x: Tensor,
    roi: None = None,
    scales: None = None,
    sizes: Axes | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    antialias: int = 0,
    exclude_outside: int = 0,
) -> Tensor:
    """Resize of the spatial axes to given sizes; antialiased, PyTorch leaves out what is outside."""
    _require(exclude_outside == antialias and not (antialias and mode == "cubic"))
    wanted = _ints(sizes)
    size = wanted[2:]
    _require(wanted[:2] == x.shape[:2])
    if mode == "nearest":
        _require(coordinate_transformation_mode == "asymmetric" and nearest_mode == "floor")
        return functional.interpolate(x, size, mode="nearest")
    aligned = coordinate_transformation_mode == "align_corners"
    _require(aligned or coordinate_transformation_mode == "half_pixel")
    _require((mode, len(size)) in INTERPOLATIONS)
    name = INTERPOLATIONS[mode, len(size)]
    return functional.interpolate(x, size, mode=name, align_corners=aligned, antialias=bool(antialias))


def _reduction(function: Operator) -> Operator:
    def reduce(x: Tensor, axes: Axes | None = None, *, keepdims: int = 1) -> Tensor:
        return function(x, tuple(range(x.ndim)) if axes is None else _ints(axes), bool(keepdims))

    return reduce


def cumulated(x: Tensor, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """CumSum, forwards."""
    _require(not exclusive and not reverse)
    return torch.cumsum(x, int(axis))


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


REDUCTIONS: dict[str, Operator] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda x: x.mean(_spatial(x), keepdim=True),
    "GlobalLpPool": lambda x, *, p=2: torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(_spatial(x), keepdim=True),
    "Resize": resize,
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMin": _reduction(torch.amin),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "CumSum": cumulated,
}

# Arranging and choosing


def reshape(x: Tensor, shape: Axes, *, allowzero: int = 0) -> Tensor:
    """Reshape; 0 keeps an axis unless ``allowzero``."""
    wanted = _ints(shape)
    return x.reshape(wanted if allowzero else [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)])


def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Transpose; without a permutation, reversed."""
    return x.permute(tuple(reversed(range(x.ndim))) if perm is None else tuple(perm))


DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
}
"""What numbers are cast to."""


def cast_to(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    """Cast between whole and floating-point numbers."""
    _require(to in DTYPES)
    return x.to(DTYPES[to])


def squeeze(x: Tensor, axes: Axes | None = None) -> Tensor:
    """Squeeze; without axes, of all that are one."""
    return x.squeeze() if axes is None else x.squeeze(_ints(axes))


def gather(x: Tensor, indices: Any, *, axis: int = 0) -> Tensor:
    """Gather, of indices of any rank."""
    axis %= x.ndim
    places = torch.as_tensor(indices)
    # No remainder: ExecuTorch's of a whole number less than zero is less than zero.
    chosen = torch.index_select(x, axis, torch.where(places < 0, places + x.shape[axis], places).reshape(-1))
    return chosen.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """DepthToSpace, in the order that PyTorch has."""
    _require(mode == "CRD")
    return functional.pixel_shuffle(x, blocksize)


def slice_(
    x: Tensor, starts: Axes, ends: Axes, axes: Axes | None = None, steps: Axes | None = None
) -> Tensor:
    """Slice, forwards."""
    first, last = _ints(starts), _ints(ends)
    along = range(len(first)) if axes is None else _ints(axes)
    strides = (1,) * len(first) if steps is None else _ints(steps)
    _require(min(strides) > 0)
    index = [slice(None)] * x.ndim
    for axis, *part in zip(along, first, last, strides, strict=True):
        index[axis] = slice(*part)
    return x[tuple(index)]


def pad(x: Tensor, pads: Axes, value: Any = None, *, mode: str = "constant") -> Tensor:
    """Pad; repeated edges only of the last two axes, which is where PyTorch has them."""
    counts = _ints(pads)
    begin, end = counts[: x.ndim], counts[x.ndim :]
    if mode == "constant":
        pairs = zip(reversed(begin), reversed(end), strict=True)
        fill = 0.0 if value is None else float(value)
        return functional.pad(x, [n for pair in pairs for n in pair], value=fill)
    _require(mode == "edge" and x.ndim == 4 and not any(begin[:2]) and not any(end[:2]))
    _require(min(counts) >= 0)
    return functional.pad(x, [begin[3], end[3], begin[2], end[2]], mode="replicate")


ARRANGING: dict[str, Operator] = {
    "Identity": lambda x: x,
    "Reshape": reshape,
    "Transpose": transpose,
    "Cast": cast_to,
    "Flatten": lambda x, *, axis=1: x.reshape(x.shape[:axis].numel(), -1),
    "Gather": gather,
    "Squeeze": squeeze,
    "Unsqueeze": lambda x, axes: x.unsqueeze(*_ints(axes)),
    "Concat": lambda *x, axis: torch.cat(x, axis),
    "Split": lambda x, sizes, *, axis=0: torch.split(x, _ints(sizes), axis),
    "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, _ints(shape))),
    "Tile": lambda x, repeats: x.repeat(_ints(repeats)),
    "Where": torch.where,
    "GatherElements": lambda x, indices, *, axis=0: torch.gather(x, axis, indices),
    "Slice": slice_,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
}

OPERATORS: dict[str, Operator] = {**PRODUCTS, **FUNCTIONS, **ARITHMETIC, **REDUCTIONS, **ARRANGING}


def _ints(values: Axes | None) -> tuple[int, ...]:
    """Whole numbers as such; PyTorch asks for them where ONNX has a default."""
    _require(values is not None)
    return tuple(int(n) for n in cast(Axes, values))


def _require(condition: bool) -> None:
    if not condition:
        raise UnsupportedOperationError("PyTorch has no operator with these attributes")
