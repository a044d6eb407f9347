"""What a model of MNN means, as an ONNX graph: each operator as the nodes that its parameters describe.

Maps have their channels first, packed by fours or not; a graph that has them last is refused.

Source: github.com/alibaba/MNN, ``source/shape/*.cpp``, ``source/geometry/*.cpp`` and ``source/backend/cpu``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.mnn_model import MnnGrid, MnnModel, MnnOperator, constant, kernel
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array

_LAST = 1
"""``MNN_DATA_FORMAT`` of channels last."""
_BINARY = {
    0: "Add", 1: "Sub", 2: "Mul", 3: "Div", 4: "Max", 5: "Min", 6: "Pow", 7: "Div", 8: "Min", 9: "Max",
}  # fmt: skip
"""``BinaryOpOperation`` → the operator of ONNX."""
_UNARY = {
    0: "Abs", 1: "Neg", 2: "Floor", 3: "Ceil", 5: "Sqrt", 7: "Exp", 8: "Log", 9: "Sin", 10: "Cos",
    15: "Reciprocal", 22: "Sign", 25: "Erf", 29: "Sigmoid", 30: "Tanh", 31: "HardSwish",
}  # fmt: skip
"""``UnaryOpOperation`` → the operator of ONNX."""
_SQUARE, _RSQRT, _GELU, _GELU_ERF, _SILU = 4, 6, 32, 33, 34
_REDUCED = {0: "ReduceSum", 3: "ReduceMean", 4: "ReduceMax", 5: "ReduceMin", 6: "ReduceProd"}
_WHERE = {1: "align_corners", 2: "half_pixel", 3: "pytorch_half_pixel", 4: "asymmetric"}
"""``CoordinateTransformationMode`` → what ONNX calls it."""
_RESIZED: dict[int, dict[str, Any]] = {
    1: {"mode": "nearest", "nearest_mode": "floor"},
    2: {"mode": "linear"},
    3: {"mode": "cubic"},
    4: {"mode": "nearest", "nearest_mode": "round_prefer_floor"},
}
_PADDED = {0: "constant", 1: "reflect", 3: "edge"}
_PAD_MODES = {1: "VALID", 2: "SAME_UPPER"}
"""``PadMode``; 0 is by numbers."""
_CASTS = {1: TensorProto.FLOAT, 3: TensorProto.INT64, 9: TensorProto.INT64}
_STILL = (
    "ConvertTensor", "Identity", "Permute", "Reshape", "Slice", "SliceTf", "Squeeze", "StridedSlice",
    "Unsqueeze",
)  # fmt: skip
"""Operators whose results are elements of their first operand."""
_CAFFE, _TORCH = 0, 4
"""``NetSource`` whose splits say where each part ends, and the length of each."""


def mnn_graph(
    model: MnnModel,
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    in_integers: Collection[str] | None = None,
    given_integers: Collection[str] = (),
) -> onnx.ModelProto:
    """Return the graph that a model computes.

    Parameters
    ----------
    model
    inputs
        Of the source: name → shape.
    outputs
        Of the source; those of other names in the model are taken in order.
    in_integers
        The operators that compute in integers; None: those whose results the file says may be integers.
    given_integers
        The operators for which an operand was made integers, whatever they compute in.

    Raises
    ------
    UnsupportedOperationError
        An operator, or a way of it, whose meaning is not written down here.
    ShapeError
        The model takes other inputs.
    FileError
        An operator lacks what it should be told.
    """
    writer = _Writer(model, {*inputs, *outputs}, in_integers, given_integers)
    try:
        writer.enter(inputs)
        for each in model.operators:
            if each.kind not in _OPERATORS:
                raise UnsupportedOperationError(f"{each.name}: what {each.kind} means is not written down")
            writer.prefix = f"{each.kind} {each.name}"
            _OPERATORS[each.kind](writer, each)
        writer.leave(outputs)
    except MobileInstError:
        raise
    except (KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
        raise FileError(f"{writer.prefix}: it is malformed: {type(error).__name__} {error}") from error
    return writer.model("mnn", inputs, outputs)


class _Writer(GraphWriter):
    """And the tensors of the file."""

    def __init__(
        self,
        model: MnnModel,
        taken: set[str],
        in_integers: Collection[str] | None,
        given_integers: Collection[str],
    ) -> None:
        super().__init__()
        self.held, self.taken = model, taken
        self.in_integers, self.given_integers = in_integers, given_integers
        self.known: dict[int, str] = {}
        self.constants: dict[int, Array] = {}
        self.rounded: dict[int, MnnGrid] = {}
        self.as_read: dict[tuple[int, MnnGrid], str] = {}
        self.within: dict[int, set[MnnGrid]] = {}

    def enter(self, inputs: Mapping[str, Sequence[int]]) -> None:
        """Take the source's inputs: by their names if they have them, else in order."""
        given = {self.held.names[place]: each for each in self.held.operators for place in _made(each)}
        shapes = [tuple(map(int, each.told["dims"])) for each in given.values()]
        if len(shapes) != len(inputs) or not all(map(_fits, shapes, inputs.values())):
            raise ShapeError(f"the model takes {shapes}, its source {[*map(tuple, inputs.values())]}")
        named = {*given} == {*inputs}
        for name, own in zip(inputs, given, strict=True):
            self.known[given[name if named else own].outputs[0]] = name

    def leave(self, outputs: Sequence[str]) -> None:
        """Give the source's outputs: by their names if they have them, else in order."""
        made = {self.held.names[place]: place for place in self.known}
        own = outputs if {*outputs} <= {*made} else self.held.outputs
        for name, given in zip(outputs, own, strict=False):
            self.node("Identity", [self.known[made[given]]], name)

    def operands(self, each: MnnOperator) -> list[str]:
        """Return the names of what an operator takes."""
        if not self._makes_integers(each) and each.name not in self.given_integers:
            return [self.known[place] for place in each.inputs]
        return [self._as_read(each, place) for place in each.inputs]

    def _makes_integers(self, each: MnnOperator) -> bool:
        if self.in_integers is not None:
            return each.name in self.in_integers
        return each.kind not in _STILL and all(place in self.held.grids for place in each.outputs)

    def _as_read(self, each: MnnOperator, place: int) -> str:
        """Return an operand of what computes in integers: made such first if it is not."""
        grid = self.held.grids.get(place) or self.rounded.get(place)
        if grid is None and place == each.inputs[0]:
            grid = self.held.grids.get(each.outputs[0])
        held = self.rounded.get(place)
        if grid is None or (held is not None and _alike(held, grid)):
            return self.known[place]
        if (place, grid) not in self.as_read:
            called = operand_name(each)
            called = self.fresh("operand") if called in self.taken else called
            self.taken.add(called)
            self.as_read[place, grid] = self._rounded(self.known[place], self._as_wide(place, grid), called)
        return self.as_read[place, grid]

    def _as_wide(self, place: int, grid: MnnGrid) -> MnnGrid:
        """Return a grid with the ends of those alike that a tensor's parts are of: it is not cut off anew."""
        parts = [each for each in self.within.get(place, ()) if _alike(each, grid)]
        ends = min(each.low for each in (grid, *parts)), max(each.high for each in (grid, *parts))
        return replace(grid, low=ends[0], high=ends[1])

    def _rounded(self, name: str, grid: MnnGrid, output: str) -> str:
        """Return what integers stand for that are nearest to a tensor; they are called ``output``."""
        if self.in_integers is not None and (grid.low, grid.high) != (-128, 127):
            ends = [self.scalar((end - grid.point) * grid.scale) for end in (grid.low, grid.high)]
            name = self.node("Clip", [name, *ends])
        constants = np.array(grid.scale, np.float32), np.array(grid.point, np.int8)
        return self.quantized(name, [self.constant(each) for each in constants], output)

    def whole(self, each: MnnOperator, operand: int) -> list[int]:
        """Return the numbers of an operand that must be constant."""
        held = self.constants.get(each.inputs[operand])
        if held is None:
            raise self.unknown(f"operand {operand}, which is computed,")
        return [int(number) for number in held.ravel()]

    def unknown(self, what: str) -> UnsupportedOperationError:
        """Return the error for a way of an operator that has no meaning here."""
        return UnsupportedOperationError(f"{self.prefix}: {what} is not written down")

    def done(self, each: MnnOperator, name: str, number: int = 0) -> None:
        """Give one of an operator's results, under the name that the source had for it."""
        place = each.outputs[number]
        own, grid = self.held.names[place], self._made_as(each, place)
        unused = bool(own) and own not in self.taken
        self.taken.add(own)
        called = own if unused else self.fresh("result")
        if grid is None or each.kind in _STILL:
            self.known[place] = self.node("Identity", [name], called)
        else:
            self.known[place] = self._rounded(name, grid, called)
        moved = each.inputs if each.kind == "Concat" else each.inputs[:1] if each.kind in _STILL else ()
        self.within[place] = set[MnnGrid]().union(*(self.within.get(taken, ()) for taken in moved))
        if grid is not None:
            self.rounded[place] = grid
            self.within[place].add(grid)

    def _made_as(self, each: MnnOperator, place: int) -> MnnGrid | None:
        """Return of which integers a result is, if of any: moved, they stay what they are."""
        own, first = self.held.grids.get(place), each.inputs[0] if each.inputs else -1
        if each.kind in _STILL:
            return self.rounded.get(first)
        if not self._makes_integers(each):
            return None
        return own or self.held.grids.get(first) or self.rounded.get(first)

    def activated(self, each: MnnOperator, name: str, way: int) -> None:
        """Give an operator's only result, behind no activation, that of 1, Relu, or that of 2, Relu6."""
        if way not in (0, 1, 2):
            raise self.unknown(f"activation {way}")
        clipped = ["Clip", [name, self.scalar(0.0), self.scalar(6.0)]]
        kind, operands = (["Identity", [name]], ["Relu", [name]], clipped)[way]
        self.done(each, self.node(str(kind), list(operands)))


def _alike(one: MnnGrid, other: MnnGrid) -> bool:
    """Tell whether the integers of two grids stand for the same numbers."""
    return (one.scale, one.point) == (other.scale, other.point)


def operand_name(each: MnnOperator) -> str:
    """Return what the integers are called that are made of the first float operand of an operator."""
    return f"{each.name}/operand"


def _made(each: MnnOperator) -> tuple[int, ...]:
    """Return the tensor that an input is."""
    return each.outputs[:1] if each.kind == "Input" else ()


def _fits(own: Sequence[int], other: Sequence[int]) -> bool:
    """Tell whether an input may have a shape; sides that are not fixed are at most 0."""
    return len(own) == len(other) and all(
        side in (wanted, 0, -1) for side, wanted in zip(own, other, strict=True)
    )


Write = Callable[[_Writer, MnnOperator], None]
"""Writes an operator."""


def _constant(writer: _Writer, each: MnnOperator) -> None:
    array = constant(each)
    array = array.astype(np.int64) if array.dtype.kind in "iu" else array
    writer.constants[each.outputs[0]] = array
    writer.known[each.outputs[0]] = writer.constant(array)


def _window(writer: _Writer, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return strides and pads, as ONNX says them."""
    how: dict[str, Any] = {"strides": [told["stride_y"], told["stride_x"]]}
    if told["pad_mode"] in _PAD_MODES:
        return {**how, "auto_pad": _PAD_MODES[told["pad_mode"]]}
    if told["pad_mode"]:
        raise writer.unknown(f"pad mode {told['pad_mode']}")
    pads = [*map(int, told["pads"])] or [told["pad_y"], told["pad_x"]] * 2
    return {**how, "pads": pads}


def _convolution(writer: _Writer, each: MnnOperator) -> None:
    told = each.told["common"]
    groups = max(told["group"], 1)
    operands = writer.operands(each)
    if len(operands) == 1:
        held = kernel(each)
        array = held.held if held.scale is None else held.numbers.astype(np.float32)
        bias = np.asarray(each.told["bias"]).reshape(told["made"])
        operands += [writer.constant(array), writer.constant(bias)]
    how = {**_window(writer, told), "dilations": [told["dilate_y"], told["dilate_x"]], "group": groups}
    way = 2 if told["relu6"] else int(bool(told["relu"]))
    writer.activated(each, writer.node("Conv", operands, **how), way)


def _pooling(writer: _Writer, each: MnnOperator) -> None:
    told, operands = each.told, writer.operands(each)
    kind = "AveragePool" if told["average"] else "MaxPool"
    if told["global"]:
        writer.done(each, writer.node(f"Global{kind}", operands))
        return
    how = {**_window(writer, told), "kernel_shape": [told["kernel_y"], told["kernel_x"]]}
    if told["average"]:
        # By default padding counts where it is not told for each side.
        counted = not told["pads"].size and not told["pad_mode"]
        how["count_include_pad"] = int((counted, True, False)[told["counted"]])
    ceil = bool(told["ceil"]) and not told["pad_mode"]
    writer.done(each, writer.node(kind, operands, ceil_mode=int(ceil), **how))


def _interp(writer: _Writer, each: MnnOperator) -> None:
    told = each.told
    where = _WHERE.get(told["where"] or (1 if told["aligned"] else 2 if told["halves"] else 4))
    if told["way"] not in _RESIZED or where is None or len(each.inputs) != 2:
        raise writer.unknown(f"resizing in way {told['way']}, mode {told['where']}")
    how: dict[str, Any] = {"coordinate_transformation_mode": where, **_RESIZED[told["way"]]}
    if told["way"] == 3:
        how["cubic_coeff_a"] = told["cubic"]
    x, sides = writer.operands(each)
    scaled = writer.constants.get(each.inputs[1], np.zeros(0, np.int64)).dtype.kind == "f"
    writer.done(each, writer.node("Resize", [x, "", *([sides] if scaled else ["", sides])], **how))


def _binary(writer: _Writer, each: MnnOperator) -> None:
    kind = _BINARY.get(each.told["way"])
    if kind is None and each.told["way"] != 14:
        raise writer.unknown(f"BinaryOp {each.told['way']}")
    made = writer.node(kind or "Sub", writer.operands(each))
    writer.activated(each, made if kind else writer.node("Mul", [made, made]), each.told["activation"])


def _unary(writer: _Writer, each: MnnOperator) -> None:
    (x,), way = writer.operands(each), each.told["way"]
    if way in _UNARY:
        made = writer.node(_UNARY[way], [x])
    elif way == _SQUARE:
        made = writer.node("Mul", [x, x])
    elif way == _RSQRT:
        made = writer.node("Reciprocal", [writer.node("Sqrt", [x])])
    elif way == _SILU:
        made = writer.node("Mul", [x, writer.node("Sigmoid", [x])])
    elif way in (_GELU, _GELU_ERF):
        made = writer.gelu(x, by_tanh=way == _GELU)
    else:
        raise writer.unknown(f"UnaryOp {way}")
    writer.done(each, made)


def _reshape(writer: _Writer, each: MnnOperator) -> None:
    x, *sides = writer.operands(each)
    if each.told["last"] == _LAST:
        raise writer.unknown("sides with channels last")
    writer.done(each, writer.node("Reshape", [x, *(sides or [writer.shape(*map(int, each.told["dims"]))])]))


def _permute(writer: _Writer, each: MnnOperator) -> None:
    order: dict[str, Any] = {"perm": [*map(int, each.told["dims"])]} if each.told["dims"].size else {}
    writer.done(each, writer.node("Transpose", writer.operands(each), **order))


def _convert(writer: _Writer, each: MnnOperator) -> None:
    """As it is: packed by fours or not, channels are first."""
    if each.told["to"] == _LAST:
        raise writer.unknown("a map with its channels last")
    writer.done(each, writer.operands(each)[0])


def _matmul(writer: _Writer, each: MnnOperator) -> None:
    operands, told = writer.operands(each), each.told
    if len(operands) != 2:
        raise writer.unknown(f"a product of {len(operands)}")
    if told["swapped_a"] or told["swapped_b"]:
        first, second = "ji" if told["swapped_a"] else "ij", "kj" if told["swapped_b"] else "jk"
        made = writer.node("Einsum", operands, equation=f"...{first},...{second}->...ik")
    else:
        made = writer.node("MatMul", operands)
    writer.done(each, made)


def _layer_norm(writer: _Writer, each: MnnOperator) -> None:
    told = each.told
    if told["external"].size:
        raise UnsupportedOperationError(f"{each.name}: its weights lie in another file")
    if [*told["axis"]] != [-1] or told["group"] != 1 or told["root_mean_square"]:
        raise writer.unknown(f"normalising over {[*map(int, told['axis'])]} in {told['group']} groups")
    scale = writer.constant(told["gamma"]) if told["gamma"].size else writer.scalar(1.0)
    shift = writer.constant(told["beta"]) if told["beta"].size else writer.scalar(0.0)
    operands = [*writer.operands(each), scale, shift]
    writer.done(each, writer.node("LayerNormalization", operands, axis=-1, epsilon=told["epsilon"]))


def _reduction(writer: _Writer, each: MnnOperator) -> None:
    kind, axes = _REDUCED.get(each.told["way"]), [*map(int, each.told["dim"])]
    if kind is None:
        raise writer.unknown(f"Reduction {each.told['way']}")
    operands = writer.operands(each) if len(each.inputs) > 1 and not axes else writer.operands(each)[:1]
    operands += [writer.shape(*axes)] if axes else []
    writer.done(each, writer.node(kind, operands, keepdims=int(each.told["keeps"])))


def _slice(writer: _Writer, each: MnnOperator) -> None:
    """Split: where each part ends or the length of each, all alike where none is told."""
    told, (x, *sides), count = each.told, writer.operands(each), len(each.outputs)
    lengths = [*map(int, told["points"])]
    if told["source"] == _CAFFE:
        parts = _between(writer, x, lengths[: count - 1], told["axis"])
    elif told["source"] == _TORCH:
        lengths = lengths * count if len(lengths) == 1 else lengths
        sides = sides or ([writer.shape(*lengths)] if lengths else [])
        how = {"axis": told["axis"], **({} if sides else {"num_outputs": count})}
        parts = writer.several("Split", [x, *sides], count, **how)
    else:
        raise writer.unknown(f"a split as of NetSource {told['source']}")
    for number, name in zip(range(count), parts, strict=True):
        writer.done(each, name, number)


def _between(writer: _Writer, x: str, ends: Sequence[int], axis: int) -> list[str]:
    """Return the parts of an axis before, between and behind these places."""
    along = writer.shape(axis)
    return [
        writer.node("Slice", [x, writer.shape(begin), writer.shape(end), along])
        for begin, end in zip((0, *ends), (*ends, np.iinfo(np.int64).max), strict=True)
    ]


def _slice_tf(writer: _Writer, each: MnnOperator) -> None:
    """Begin and length per axis; begins may count from the end, and a length below 0 is the rest."""
    x, begins, lengths = writer.operands(each)
    sides, zero = writer.node("Shape", [x]), writer.shape(0)
    from_end = writer.node("Add", [begins, sides])
    begins = writer.node("Where", [writer.node("Less", [begins, zero]), from_end, begins])
    ends = writer.node("Add", [begins, lengths])
    ends = writer.node("Where", [writer.node("Less", [lengths, zero]), sides, ends])
    writer.done(each, writer.node("Slice", [x, begins, ends]))


def _strided_slice(writer: _Writer, each: MnnOperator) -> None:
    told = each.told
    if told["onnx"] != 1 or any(told[mask] for mask in ("begin", "end", "ellipsis", "new", "shrink")):
        raise writer.unknown("a slice by masks")
    writer.done(each, writer.node("Slice", writer.operands(each)))


def _shape(writer: _Writer, each: MnnOperator) -> None:
    if each.told and (each.told["has_start"] or each.told["has_end"]):
        raise writer.unknown("a part of a shape")
    writer.done(each, writer.node("Shape", writer.operands(each)))


def _rank(writer: _Writer, each: MnnOperator) -> None:
    rank = writer.node("Shape", [writer.node("Shape", writer.operands(each))])
    writer.done(each, writer.node("Squeeze", [rank, writer.shape(0)]))


def _squeezing(writer: _Writer, each: MnnOperator) -> None:
    x, *axes = writer.operands(each)
    told = [*map(int, each.told["dims"])]
    writer.done(each, writer.node(each.kind, [x, *([writer.shape(*told)] if told else axes)]))


def _padding(writer: _Writer, each: MnnOperator) -> None:
    mode, ends = _PADDED.get(each.told["way"]), np.array(writer.whole(each, 1)).reshape(-1, 2)
    if mode is None:
        raise writer.unknown(f"padding in way {each.told['way']}")
    x, _, *value = writer.operands(each)
    pads = writer.shape(*map(int, ends.T.ravel()))
    writer.done(each, writer.node("Pad", [x, pads, *value], mode=mode))


def _per_channel(writer: _Writer, array: Array) -> str:
    return writer.constant(np.asarray(array).reshape(-1, 1, 1))


def _scale(writer: _Writer, each: MnnOperator) -> None:
    if each.told["external"].size:
        raise UnsupportedOperationError(f"{each.name}: its weights lie in another file")
    made = writer.node("Mul", [*writer.operands(each), _per_channel(writer, each.told["scale"])])
    if each.told["bias"].size:
        made = writer.node("Add", [made, _per_channel(writer, each.told["bias"])])
    writer.done(each, made)


def _prelu(writer: _Writer, each: MnnOperator) -> None:
    slopes = _per_channel(writer, each.told["slope"])
    writer.done(each, writer.node("PRelu", [*writer.operands(each), slopes]))


def _relu(writer: _Writer, each: MnnOperator) -> None:
    slope = each.told.get("slope", 0.0)
    how = {"alpha": slope} if slope else {}
    writer.done(each, writer.node("LeakyRelu" if slope else "Relu", writer.operands(each), **how))


def _clip(writer: _Writer, each: MnnOperator) -> None:
    limits = [writer.scalar(each.told.get(*end)) for end in (("low", 0.0), ("high", 6.0))]
    writer.done(each, writer.node("Clip", [*writer.operands(each), *limits]))


def _cast(writer: _Writer, each: MnnOperator) -> None:
    if each.told["to"] not in _CASTS:
        raise writer.unknown(f"a cast to DataType {each.told['to']}")
    writer.done(each, writer.node("Cast", writer.operands(each), to=_CASTS[each.told["to"]]))


def _along(kind: str) -> Write:
    return lambda writer, each: writer.done(
        each, writer.node(kind, writer.operands(each), axis=each.told.get("axis", 0))
    )


def _named(kind: str) -> Write:
    return lambda writer, each: writer.done(each, writer.node(kind, writer.operands(each)))


_OPERATORS: dict[str, Write] = {
    "BatchMatMul": _matmul,
    "BinaryOp": _binary,
    "Cast": _cast,
    "Concat": _along("Concat"),
    "Const": _constant,
    "ConvertTensor": _convert,
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "Identity": _named("Identity"),
    "Input": lambda writer, each: None,
    "Interp": _interp,
    "LayerNorm": _layer_norm,
    "MatMul": _matmul,
    "PReLU": _prelu,
    "Padding": _padding,
    "Permute": _permute,
    "Pooling": _pooling,
    "Rank": _rank,
    "ReLU": _relu,
    "ReLU6": _clip,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Scale": _scale,
    "Shape": _shape,
    "Sigmoid": _named("Sigmoid"),
    "Slice": _slice,
    "SliceTf": _slice_tf,
    "Softmax": _along("Softmax"),
    "Squeeze": _squeezing,
    "StridedSlice": _strided_slice,
    "TanH": _named("Tanh"),
    "UnaryOp": _unary,
    "Unsqueeze": _squeezing,
}
