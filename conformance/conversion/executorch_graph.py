"""What a program of ExecuTorch means, as an ONNX graph: each instruction as the nodes of its operator.

What XNNPACK is handed is read, too; of another delegate's it is refused.

Source: https://docs.pytorch.org/docs/stable/torch.compiler_ir.html and github.com/pytorch/executorch,
``kernels/portable/functions.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from conformance.conversion.executorch_model import ExecutorchCall, ExecutorchProgram, ExecutorchTensor
from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.stored_weight import StoredWeight
from conformance.conversion.xnnpack_graph import write_xnnpack
from conformance.conversion.xnnpack_model import read_xnnpack
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array

XNNPACK = "XnnpackBackend"
"""The delegate that is read."""
_LONG = np.iinfo(np.int64).max
_LONGEST = 2**20
"""Numbers of a list that is counted."""
_CASTS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


class _Tensor(NamedTuple):
    """An operand: its name in the graph, and its shape and numbers as the program has them."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def executorch_graph(
    program: ExecutorchProgram, inputs: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return the graph that a program computes.

    Parameters
    ----------
    program
    inputs
        Of the source: name → shape, in the order of the program's own.
    outputs
        Of the source; those of other names in the program are taken in order.

    Raises
    ------
    UnsupportedOperationError
        An instruction, or a way of it, whose meaning is not written down here, or of another delegate.
    ShapeError
        The program takes other inputs.
    FileError
        An instruction lacks what it should be told, or takes what is not made.
    """
    shapes = [program.tensors[place].shape if place in program.tensors else () for place in program.inputs]
    if shapes != [*map(tuple, inputs.values())]:
        raise ShapeError(f"the program takes {shapes}, its source {[*map(tuple, inputs.values())]}")
    if program.jumps:
        raise UnsupportedOperationError(f"its {program.jumps} jumps and moves are not written down")
    writer = _Writer(program, inputs)
    try:
        for number, call in program.calls.items():
            writer.prefix = f"{call.kind}_{number}"
            writer.call(call, program.made[number])
        writer.leave(outputs)
    except MobileInstError:
        raise
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        said = f"it is malformed: {type(error).__name__} {str(error)[:80]}"
        raise FileError(f"{writer.prefix}: {said}") from error
    return writer.model("executorch", inputs, outputs)


_BY_CHANNEL = "quantized_decomposed::dequantize_per_channel"
"""What makes floats of weights."""


def stored_in_executorch(program: ExecutorchProgram) -> Iterator[StoredWeight]:
    """Yield the constants made floats by channel, and those handed to XNNPACK where it is read."""
    for call in program.calls.values():
        if call.kind == XNNPACK:
            # What cannot be read so may run all the same.
            with suppress(UnsupportedOperationError):
                values = read_xnnpack(program.parts[call.part], program.named).values.values()
                yield from (value.stored for value in values if value.stored is not None)
        elif call.kind.startswith(_BY_CHANNEL):
            weight, scales, points, axis = call.arguments[:4]
            held, scale = program.constants.get(weight), program.constants.get(scales)
            point = program.constants.get(points, np.zeros(1))
            if held is not None and scale is not None:
                shape = [-1 if each == program.plain[axis] else 1 for each in range(held.ndim)]
                zeros = point.reshape(shape if point.size > 1 else ())
                yield StoredWeight(held, scale.astype(np.float32).reshape(shape), zeros)


class _Writer(GraphWriter):
    """And the values of the program."""

    def __init__(self, program: ExecutorchProgram, inputs: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.program = program
        self.known = dict(zip(program.inputs, inputs, strict=True))
        self.made: ExecutorchTensor | None = None
        self.own = ""
        self.owns: list[str] = []
        self.numbers: dict[str, Array] = {}
        self.chosen: dict[str, str] = {}

    def call(self, call: ExecutorchCall, made: Sequence[int]) -> None:
        """Write an instruction."""
        kind = call.kind.partition(".")[0]
        if call.delegated:
            self.hand_over(call)
            return
        if kind not in _OPERATORS:
            raise self.unknown(f"what {call.kind} means")
        self.made = self.program.tensors[made[0]] if made else None
        self.owns = [self.program.names[place] for place in made]
        self.own = self.owns[0] if made else ""
        taken = [place for place in call.arguments if not self._is_made(place, made)]
        results = _OPERATORS[kind](self, *map(self.value, taken))
        for place, name in zip(made, [results] if isinstance(results, str) else results, strict=False):
            own = self.program.names[place]
            self.known[place] = name if name == own else self.node("Identity", [name], own)

    def hand_over(self, call: ExecutorchCall) -> None:
        """Write what XNNPACK computes of a call's arguments, its operands and then its results."""
        if call.kind != XNNPACK:
            raise self.unknown(f"what {call.kind} computes")
        graph = read_xnnpack(self.program.parts[call.part], self.program.named)
        taken = {value.outside for value in graph.values.values() if not value.is_output}
        given = {place: self.tensor(call.arguments[place]).name for place in taken if place is not None}
        made = {value.outside for value in graph.values.values() if value.is_output}
        places = {which: call.arguments[which] for which in made if which is not None}
        wanted = {which: self.program.names[place] for which, place in places.items()}
        write_xnnpack(self, graph, given, wanted)
        self.known |= {place: wanted[which] for which, place in places.items()}

    def _is_made(self, place: int, made: Sequence[int]) -> bool:
        held = self.program.lists.get(place, (place,))
        return bool(held) and {*made}.issuperset(held)

    def leave(self, outputs: Sequence[str]) -> None:
        """Give the source's outputs: by their names if the program has them, else in order."""
        own = self.program.outputs
        named = {*outputs} == {*own}
        for name, other in zip(outputs, own, strict=False):
            self.node("Identity", [self.tensor(own[name if named else other]).name], name)

    def value(self, place: int) -> Any:
        """Return an argument: a tensor, several, a number, several, or nothing."""
        program = self.program
        if place in program.lists:
            # An operand that is left out is written as −1.
            return [self.tensor(each) if each >= 0 else None for each in program.lists[place]]
        if place in program.tensors:
            return self.tensor(place)
        held = program.plain[place]
        return [program.plain[each] for each in held] if place in program.places else held

    def tensor(self, place: int) -> _Tensor:
        """Return a tensor; a constant is written first, and so is another shape of what lies there."""
        held = self.program.tensors[place]
        if place not in self.known and place in self.program.constants:
            self.known[place] = self.constant(self.program.constants[place])
            self.numbers[self.known[place]] = self.program.constants[place]
        if place not in self.known and place in self.program.shared:
            base = self.program.shared[place]
            orders = (held.order, self.program.tensors[base].order)
            if any(order != tuple(range(len(order))) for order in orders):
                raise self.unknown("another shape of axes that lie in another order")
            self.known[place] = self.node("Reshape", [self.known[base], self.shape(*held.shape)])
        return _Tensor(self.known[place], held.shape, held.dtype)

    def unknown(self, what: str) -> UnsupportedOperationError:
        """Return the error for a way of an operator that has no meaning here."""
        return UnsupportedOperationError(f"{self.prefix}: {what} is not written down")

    def operand(self, value: Any, beside: Any = None) -> str:
        """Return the name of a tensor, or of a number, whole if it is beside whole ones."""
        if isinstance(value, _Tensor):
            return value.name
        whole = isinstance(beside, _Tensor) and beside.dtype.kind == "i" and isinstance(value, int)
        return self.constant(np.array(value, np.int64 if whole else np.float32))

    def dtype_made(self) -> np.dtype[Any]:
        """Return what the instruction makes numbers of."""
        if self.made is None or self.made.dtype not in _CASTS:
            raise self.unknown("a result of these numbers")
        return self.made.dtype


def _pair(sides: Sequence[int]) -> list[int]:
    """Return rows and columns, of which one number says both."""
    return [int(side) for side in sides] * (2 if len(sides) == 1 else 1)


def _convolution(
    writer: _Writer, x: _Tensor, kernel: _Tensor, bias: _Tensor | None, stride: list[int],
    padding: list[int], dilation: list[int], transposed: bool, added: list[int], groups: int,
) -> str:  # fmt: skip
    if transposed:
        raise writer.unknown("a transposed convolution")
    operands = [each.name for each in (x, kernel, bias) if each is not None]
    how: dict[str, Any] = {"strides": _pair(stride), "dilations": _pair(dilation), "group": groups}
    return writer.node("Conv", operands, pads=_pair(padding) * 2, **how)


def _batch_norm(
    writer: _Writer, x: _Tensor, scale: _Tensor | None, shift: _Tensor | None, mean: _Tensor,
    variance: _Tensor, momentum: float, epsilon: float,
) -> str:  # fmt: skip
    ones = scale.name if scale else writer.constant(np.ones(mean.shape, np.float32))
    zeros = shift.name if shift else writer.constant(np.zeros(mean.shape, np.float32))
    operands = [x.name, ones, zeros, mean.name, variance.name]
    return writer.node("BatchNormalization", operands, epsilon=epsilon)


def _normalized(
    writer: _Writer, x: _Tensor, scale: _Tensor | None, shift: _Tensor | None, training: bool,
    momentum: float, epsilon: float,
) -> str:  # fmt: skip
    """Each channel by its own mean and variance over all else, as instance and group norms are exported."""
    axes = writer.shape(0, *range(2, len(x.shape)))
    apart = writer.node("Sub", [x.name, writer.node("ReduceMean", [x.name, axes], keepdims=1)])
    variance = writer.node("ReduceMean", [writer.node("Mul", [apart, apart]), axes], keepdims=1)
    held = writer.node("Sqrt", [writer.node("Add", [variance, writer.scalar(epsilon)])])
    made, sides = writer.node("Div", [apart, held]), writer.shape(-1, *(1 for _ in x.shape[2:]))
    for kind, each in (("Mul", scale), ("Add", shift)):
        if each is not None:
            made = writer.node(kind, [made, writer.node("Reshape", [each.name, sides])])
    return made


def _layer_norm(
    writer: _Writer, x: _Tensor, sides: list[int], scale: _Tensor | None, shift: _Tensor | None,
    epsilon: float,
) -> str:  # fmt: skip
    ones = scale.name if scale else writer.constant(np.ones(sides, np.float32))
    operands = [x.name, ones, *([shift.name] if shift else [])]
    return writer.node("LayerNormalization", operands, axis=-len(sides), epsilon=epsilon)


def _scaled(kind: str) -> Callable[..., str]:
    """Return what adds or subtracts, the second operand times a number."""

    def write(writer: _Writer, x: Any, y: Any, factor: float = 1) -> str:
        other = writer.operand(y, x)
        other = other if factor == 1 else writer.node("Mul", [other, writer.scalar(float(factor))])
        return writer.node(kind, [writer.operand(x, y), other])

    return write


def _binary(kind: str) -> Callable[..., str]:
    return lambda writer, x, y: writer.node(kind, [writer.operand(x, y), writer.operand(y, x)])


def _divided(writer: _Writer, x: Any, y: Any, rounded: str | None = None) -> str:
    if rounded is not None:
        raise writer.unknown(f"a quotient rounded by {rounded}")
    return writer.node("Div", [writer.operand(x, y), writer.operand(y, x)])


def _unary(kind: str) -> Callable[..., str]:
    return lambda writer, x: writer.node(kind, [x.name])


def _clamp(writer: _Writer, x: _Tensor, low: Any = None, high: Any = None) -> str:
    limits = ["" if end is None else writer.operand(end, x) for end in (low, high)]
    return writer.node("Clip", [x.name, *limits])


def _gelu(writer: _Writer, x: _Tensor, approximate: str = "none") -> str:
    if approximate != "none":
        raise writer.unknown(f"Gelu by {approximate}")
    error = writer.node("Erf", [writer.node("Mul", [x.name, writer.scalar(np.sqrt(0.5))])])
    halved = writer.node("Mul", [x.name, writer.scalar(0.5)])
    return writer.node("Mul", [halved, writer.node("Add", [error, writer.scalar(1.0)])])


def _rsqrt(writer: _Writer, x: _Tensor) -> str:
    return writer.node("Reciprocal", [writer.node("Sqrt", [x.name])])


def _softmax(writer: _Writer, x: _Tensor, axis: int, halved: bool) -> str:
    return writer.node("Softmax", [x.name], axis=axis)


def _product(writer: _Writer, x: _Tensor, y: _Tensor) -> str:
    return writer.node("MatMul", [x.name, y.name])


def _addmm(writer: _Writer, added: _Tensor, x: _Tensor, y: _Tensor, beta: float = 1, alpha: float = 1) -> str:
    how: dict[str, Any] = {"alpha": float(alpha), "beta": float(beta)}
    return writer.node("Gemm", [x.name, y.name, added.name], **how)


def _permute(writer: _Writer, x: _Tensor, order: list[int]) -> str:
    return writer.node("Transpose", [x.name], perm=[axis % len(order) for axis in order])


def _transpose(writer: _Writer, x: _Tensor, first: int, second: int) -> str:
    order = [*range(len(x.shape))]
    order[first], order[second] = order[second], order[first]
    return writer.node("Transpose", [x.name], perm=order)


def _expand(writer: _Writer, x: _Tensor, sides: list[int], implicit: bool) -> str:
    return writer.node("Expand", [x.name, writer.shape(*(max(side, 1) for side in sides))])


def _view(writer: _Writer, x: _Tensor, sides: list[int]) -> str:
    return writer.node("Reshape", [x.name, writer.shape(*sides)])


def _unsqueeze(writer: _Writer, x: _Tensor, axis: int) -> str:
    return writer.node("Unsqueeze", [x.name, writer.shape(axis)])


def _squeeze(writer: _Writer, x: _Tensor, axes: Any) -> str:
    """Leave out those of the axes that have length one."""
    named = axes if isinstance(axes, list) else [axes]
    single = [axis for axis in named if x.shape[axis] == 1]
    return writer.node("Squeeze", [x.name, writer.shape(*single)]) if single else x.name


def _cat(writer: _Writer, parts: list[_Tensor], axis: int = 0) -> str:
    return writer.node("Concat", [each.name for each in parts], axis=axis)


def _split(writer: _Writer, x: _Tensor, lengths: list[int], axis: int = 0) -> list[str]:
    return writer.several("Split", [x.name, writer.shape(*lengths)], len(lengths), axis=axis)


def _slice(
    writer: _Writer,
    x: _Tensor,
    axis: int = 0,
    begin: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> str:
    ends = (begin or 0, _LONG if end is None else end, axis, step)
    return writer.node("Slice", [x.name, *(writer.shape(each) for each in ends)])


def _select(writer: _Writer, x: _Tensor, axis: int, place: int) -> str:
    return writer.node("Gather", [x.name, writer.constant(np.array(place, np.int64))], axis=axis)


def _reduced(kind: str) -> Callable[..., str]:
    def write(
        writer: _Writer, x: _Tensor, axes: list[int] | None, keeps: bool = False, dtype: Any = None
    ) -> str:
        named = [writer.shape(*axes)] if axes else []
        return writer.node(kind, [x.name, *named], keepdims=int(keeps))

    return write


def _average_pool(
    writer: _Writer, x: _Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil: bool,
    counted: bool, divisor: int | None,
) -> str:  # fmt: skip
    if divisor is not None:
        raise writer.unknown("a divisor of its own")
    how = {**_window(kernel, stride, padding, ceil), "count_include_pad": int(counted)}
    return writer.node("AveragePool", [x.name], **how)


def _max_pool(
    writer: _Writer, x: _Tensor, kernel: list[int], stride: list[int], padding: list[int],
    dilation: list[int], ceil: bool,
) -> str:  # fmt: skip
    how = _window(kernel, stride, padding, ceil)
    return writer.node("MaxPool", [x.name], dilations=_pair(dilation), **how)


def _window(kernel: list[int], stride: list[int], padding: list[int], ceil: bool) -> dict[str, Any]:
    sides, pads = _pair(kernel), _pair(padding) * 2
    return {"kernel_shape": sides, "strides": _pair(stride) or sides, "pads": pads, "ceil_mode": int(ceil)}


def _bilinear(writer: _Writer, x: _Tensor, sides: list[int] | None, aligned: bool, scales: Any = None) -> str:
    where = "align_corners" if aligned else "half_pixel"
    return _resized(writer, x, sides, scales, {"mode": "linear", "coordinate_transformation_mode": where})


def _nearest(writer: _Writer, x: _Tensor, sides: list[int] | None, scales: Any = None) -> str:
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _resized(writer, x, sides, scales, how)


def _resized(writer: _Writer, x: _Tensor, sides: list[int] | None, scales: Any, how: dict[str, Any]) -> str:
    to = ["", writer.shape(*sides)] if sides else [writer.constant(np.array(scales, np.float32))]
    return writer.node("Resize", [x.name, "", *to], axes=[2, 3], **how)


def _pad(writer: _Writer, x: _Tensor, ends: list[int], value: float = 0) -> str:
    """Begin and end of the last axis, then of the one before."""
    pairs = [(0, 0)] * (len(x.shape) - len(ends) // 2) + [*zip(ends[::2], ends[1::2], strict=True)][::-1]
    pads = [begin for begin, _ in pairs] + [end for _, end in pairs]
    return writer.node("Pad", [x.name, writer.shape(*pads), writer.scalar(float(value))])


def _same(writer: _Writer, x: _Tensor, *how: Any) -> str:
    """Copy: into another order of axes in memory, or as it is."""
    return x.name


def _cast(writer: _Writer, x: _Tensor, *how: Any) -> str:
    return writer.node("Cast", [x.name], to=_CASTS[writer.dtype_made()])


def _arange(writer: _Writer, begin: float, end: float, step: float = 1) -> str:
    dtype = writer.dtype_made()
    count = writer.made.shape[0] if writer.made is not None else 0
    if count > _LONGEST or count != max(0, np.ceil((end - begin) / step)):
        raise writer.unknown(f"a list of {count} from {begin} to {end} by {step}")
    return writer.constant((begin + step * np.arange(count)).astype(dtype))


def _index(writer: _Writer, x: _Tensor, indices: list[_Tensor | None]) -> str:
    ((axis, index),) = [(place, each) for place, each in enumerate(indices) if each is not None]
    return writer.node("Gather", [x.name, index.name], axis=axis)


def _grid(writer: _Writer, scale: Array, point: Array, ends: tuple[int, int], dtype: Any) -> list[str]:
    """Add scale and zero point of integers of 8 bits, which are not cut off before their type ends."""
    kept = np.iinfo(dtype)
    if dtype.itemsize != 1 or ends[0] > kept.min + 1 or ends[1] < kept.max:
        raise writer.unknown(f"integers from {ends[0]} to {ends[1]}")
    return [writer.constant(scale.astype(np.float32)), writer.constant(point.astype(dtype))]


def _chosen(writer: _Writer, x: _Tensor, *ends: Any) -> list[str]:
    """Note scale and zero point that are found of a tensor as it runs: it is not rounded here."""
    writer.chosen |= dict.fromkeys(writer.owns, x.name)
    return writer.owns


def _as_it_runs(writer: _Writer, x: _Tensor, scale: _Tensor, point: Any) -> str:
    """Return what integers of a scale stand for that was found of what they are made of."""
    sources = {writer.chosen.get(each.name) for each in (scale, point) if isinstance(each, _Tensor)}
    if len(sources) != 1 or not sources <= {x.name, writer.chosen.get(x.name)} - {None}:
        raise writer.unknown("a scale that is computed of another tensor")
    writer.chosen[writer.own] = next(iter(sources)) or ""
    return writer.node("Identity", [x.name], writer.own)


def _quantize(
    writer: _Writer, x: _Tensor, scale: float | _Tensor, point: int, low: int, high: int, dtype: int
) -> str:
    if isinstance(scale, _Tensor):
        return _as_it_runs(writer, x, scale, point)
    kept = writer.made.dtype if writer.made is not None else np.dtype(np.int8)
    if low != np.iinfo(kept).min:
        raise writer.unknown(f"integers from {low} to {high}")
    grid = _grid(writer, np.array(scale), np.array(point), (low, high), kept)
    return writer.node("QuantizeLinear", [x.name, *grid], writer.own)


def _dequantize(
    writer: _Writer, x: _Tensor, scale: float | _Tensor, point: int, low: int, high: int, *dtypes: Any
) -> str:
    if isinstance(scale, _Tensor):
        return _as_it_runs(writer, x, scale, point)
    grid = _grid(writer, np.array(scale), np.array(point), (low, high), x.dtype)
    return writer.node("DequantizeLinear", [x.name, *grid])


def _dequantize_channels(
    writer: _Writer, x: _Tensor, scales: _Tensor, points: _Tensor | None, axis: int, low: int, high: int,
    *dtypes: Any,
) -> str:  # fmt: skip
    scale = writer.numbers[scales.name]
    point = writer.numbers[points.name] if points else np.zeros(scale.shape)
    grid = _grid(writer, scale, point, (low, high), x.dtype)
    return writer.node("DequantizeLinear", [x.name, *grid], axis=axis)


def _repeat(writer: _Writer, x: _Tensor, counts: list[int]) -> str:
    """Repeat along the last axes, of which there may be more than the tensor has."""
    shape = [1] * (len(counts) - len(x.shape)) + [*x.shape]
    whole = writer.node("Reshape", [x.name, writer.shape(*shape)])
    return writer.node("Tile", [whole, writer.shape(*map(int, counts))])


def _leaky_relu(writer: _Writer, x: _Tensor, slope: float = 0.01) -> str:
    return writer.node("LeakyRelu", [x.name], alpha=slope)


_OPERATORS: dict[str, Callable[..., str | list[str]]] = {
    "aten::_log_softmax": lambda writer, x, axis, halved: writer.node("LogSoftmax", [x.name], axis=axis),
    "aten::_native_batch_norm_legit": _normalized,
    "aten::_native_batch_norm_legit_no_training": _batch_norm,
    "aten::_softmax": _softmax,
    "aten::abs": _unary("Abs"),
    "aten::add": _scaled("Add"),
    "aten::addmm": _addmm,
    "aten::amax": _reduced("ReduceMax"),
    "aten::arange": _arange,
    "aten::avg_pool2d": _average_pool,
    "aten::bmm": _product,
    "aten::cat": _cat,
    "aten::clamp": _clamp,
    "aten::clone": _same,
    "aten::constant_pad_nd": _pad,
    "aten::convolution": _convolution,
    "aten::cos": _unary("Cos"),
    "aten::div": _divided,
    "aten::erf": _unary("Erf"),
    "aten::exp": _unary("Exp"),
    "aten::expand_copy": _expand,
    "aten::gelu": _gelu,
    "aten::hardtanh": _clamp,
    "aten::index": _index,
    "aten::leaky_relu": _leaky_relu,
    "aten::log": _unary("Log"),
    "aten::max_pool2d_with_indices": _max_pool,
    "aten::maximum": _binary("Max"),
    "aten::mean": _reduced("ReduceMean"),
    "aten::minimum": _binary("Min"),
    "aten::mm": _product,
    "aten::mul": _binary("Mul"),
    "aten::native_layer_norm": _layer_norm,
    "aten::neg": _unary("Neg"),
    "aten::permute_copy": _permute,
    "aten::pow": _binary("Pow"),
    "aten::reciprocal": _unary("Reciprocal"),
    "aten::relu": _unary("Relu"),
    "aten::repeat": _repeat,
    "aten::rsqrt": _rsqrt,
    "aten::select_copy": _select,
    "aten::sigmoid": _unary("Sigmoid"),
    "aten::sin": _unary("Sin"),
    "aten::slice_copy": _slice,
    "aten::split_with_sizes_copy": _split,
    "aten::sqrt": _unary("Sqrt"),
    "aten::squeeze_copy": _squeeze,
    "aten::sub": _scaled("Sub"),
    "aten::sum": _reduced("ReduceSum"),
    "aten::tanh": _unary("Tanh"),
    "aten::transpose_copy": _transpose,
    "aten::unsqueeze_copy": _unsqueeze,
    "aten::upsample_bilinear2d": _bilinear,
    "aten::upsample_nearest2d": _nearest,
    "aten::view_copy": _view,
    "dim_order_ops::_clone_dim_order": _same,
    "dim_order_ops::_to_dim_order_copy": _cast,
    "quantized_decomposed::choose_qparams": _chosen,
    _BY_CHANNEL: _dequantize_channels,
    "quantized_decomposed::dequantize_per_tensor": _dequantize,
    "quantized_decomposed::quantize_per_tensor": _quantize,
}
