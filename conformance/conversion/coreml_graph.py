"""What an ML program of Core ML means, as an ONNX graph: each operation as the nodes that it stands for.

Source: apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from conformance.conversion.coreml_model import CoreMlOperation, CoreMlProgram
from conformance.conversion.graph_writer import GraphWriter
from conformance.limits import check_size
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array


def coreml_graph(
    program: CoreMlProgram, inputs: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return the graph that a program computes.

    Parameters
    ----------
    program
    inputs
        Of the source: name → shape, in the order of the model's own.
    outputs
        Of the source; those of other names in the model are taken in order.

    Raises
    ------
    UnsupportedOperationError
        An operation, or a way of it, whose meaning is not written down here.
    ShapeError
        The model takes other inputs.
    FileError
        An operation lacks what it should be told.
    """
    writer = _Writer({*inputs, *outputs})
    if [*program.inputs.values()] != [*map(tuple, inputs.values())]:
        raise ShapeError(f"the model takes {dict(program.inputs)}, its source {dict(inputs)}")
    for own, (name, shape) in zip(program.inputs, inputs.items(), strict=True):
        writer.known[own], writer.shapes[name] = name, tuple(shape)
    try:
        for each in program.operations:
            writer.write(each)
        named = {*outputs} == {*program.outputs}
        for name, own in zip(outputs, program.outputs, strict=False):
            writer.node("Identity", [writer.known[name if named else own]], name)
    except MobileInstError:
        raise
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise FileError(f"{writer.prefix}: it is malformed: {type(error).__name__} {error}") from error
    return writer.model("coreml", inputs, outputs)


class _Writer(GraphWriter):
    """And the tensors of the program, under the names that it has for them unless the source has those."""

    def __init__(self, taken: set[str]) -> None:
        super().__init__()
        self.taken = taken
        self.known: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.operation = CoreMlOperation("", {}, [], [])

    def write(self, operation: CoreMlOperation) -> None:
        """Write the nodes of an operation."""
        self.operation, self.prefix = operation, f"{operation.kind} {operation.outputs[0]}"
        if operation.kind not in _OPERATIONS:
            raise UnsupportedOperationError(
                f"{operation.outputs[0]}: what {operation.kind} means is not written down"
            )
        made = _OPERATIONS[operation.kind](self)
        for name, own, shape in zip(
            [made] if isinstance(made, str) else made, operation.outputs, operation.shapes, strict=True
        ):
            free = own not in self.taken
            self.taken.add(own)
            self.known[own] = self.node("Identity", [name], own if free else self.fresh("result"))
            self.shapes[self.known[own]] = shape

    def refuse(self, why: str) -> UnsupportedOperationError:
        """Return the error of a way that is not written down."""
        return UnsupportedOperationError(f"{self.prefix}: {why} is not written down")

    def operands(self, name: str) -> list[str]:
        """Return the tensors given for an operand; constants are written first."""
        return [
            self.known[each] if isinstance(each, str) else self.constant(each)
            for each in self.operation.inputs[name]
        ]

    def operand(self, name: str) -> str:
        """Return the only one."""
        (only,) = self.operands(name)
        return only

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of an operand."""
        (only,) = self.operation.inputs[name]
        return self.shapes[self.known[only]] if isinstance(only, str) else only.shape

    def fixed(self, name: str, otherwise: Any = None) -> Array:
        """Return an operand that must be constant, or what stands for one that is left out."""
        held = self.operation.inputs.get(name)
        if held is None and otherwise is not None:
            return np.asarray(otherwise)
        (only,) = self.operation.inputs[name]
        if isinstance(only, str):
            raise UnsupportedOperationError(f"{self.prefix}: {name} is computed; expected a constant")
        return only

    def whole(self, name: str, otherwise: Any = None) -> list[int]:
        """Return constant whole numbers."""
        return [int(number) for number in self.fixed(name, otherwise).ravel()]

    def number(self, name: str, otherwise: float | None = None) -> float:
        """Return a constant number, as it is stored."""
        return float(self.fixed(name, otherwise).reshape(()))

    def text(self, name: str, otherwise: str) -> str:
        """Return a constant word."""
        return str(self.fixed(name, otherwise).reshape(()))

    def flag(self, name: str) -> bool:
        """Return a constant truth, false if it is left out."""
        return bool(self.fixed(name, False).reshape(()))

    def optional(self, name: str) -> list[str]:
        """Return the operand, if it is given."""
        return self.operands(name) if name in self.operation.inputs else []

    def filled(self, number: Array | np.generic, *shape: int) -> str:
        """Add a constant of one number, of a shape that the file says."""
        check_size(math.prod(shape) * number.itemsize, self.prefix)
        return self.constant(np.full(shape, number.reshape(()), number.dtype))

    def reshaped(self, name: str) -> str:
        """Give a tensor the shape of the result."""
        (shape,) = self.operation.shapes
        if min(shape, default=0) < 0:
            raise self.refuse("a shape that is not fixed")
        return self.node("Reshape", [name, self.shape(*shape)])

    def swapped(self, name: str, rank: int) -> str:
        """Turn the last two axes around."""
        return self.node("Transpose", [name], perm=[*range(rank - 2), rank - 1, rank - 2])


Meaning = Callable[[_Writer], str | list[str]]


def _alike(kind: str, *names: str) -> Meaning:
    """Return what writes an operation that ONNX has under another name."""
    return lambda writer: writer.node(kind, [writer.operand(name) for name in names or ("x",)])


def _shifted(kind: str, epsilon: float, then: str = "") -> Meaning:
    """Return what writes a function of x + epsilon."""

    def write(writer: _Writer) -> str:
        held = writer.scalar(writer.number("epsilon", epsilon))
        made = writer.node(kind, [writer.node("Add", [writer.operand("x"), held])])
        return writer.node(then, [made]) if then else made

    return write


def _pads(writer: _Writer) -> dict[str, Any]:
    kind = writer.text("pad_type", "valid")
    if kind in ("same", "same_lower"):
        return {"auto_pad": "SAME_UPPER" if kind == "same" else "SAME_LOWER"}
    sides = writer.whole("pad") if kind == "custom" else []
    return {"pads": sides[::2] + sides[1::2]} if sides else {}


def _window(writer: _Writer, *names: str) -> dict[str, Any]:
    said = {name: writer.whole(name) for name in names if name in writer.operation.inputs}
    return {**_pads(writer), **said}


def _convolution(writer: _Writer) -> str:
    operands = [writer.operand("x"), writer.operand("weight"), *writer.optional("bias")]
    groups = writer.whole("groups", 1)[0]
    return writer.node("Conv", operands, group=groups, **_window(writer, "strides", "dilations"))


def _transposed_convolution(writer: _Writer) -> str:
    how = _window(writer, "strides", "dilations")
    if "auto_pad" in how:
        raise writer.refuse("padding to the same size")
    sides, kernel = writer.shape_of("x")[2:], writer.shape_of("weight")[2:]
    strides = how.get("strides", [1] * len(sides))
    dilations, pads = how.get("dilations", [1] * len(sides)), how.get("pads", [0, 0] * len(sides))
    spanned = [
        (side - 1) * stride + (taps - 1) * dilation + 1 - begin - end
        for side, stride, taps, dilation, begin, end in zip(
            sides, strides, kernel, dilations, pads[: len(sides)], pads[len(sides) :], strict=True
        )
    ]
    beyond = [made - side for made, side in zip(writer.operation.shapes[0][2:], spanned, strict=True)]
    operands = [writer.operand("x"), writer.operand("weight"), *writer.optional("bias")]
    groups = writer.whole("groups", 1)[0]
    return writer.node("ConvTranspose", operands, group=groups, output_padding=beyond, **how)


def _pooling(writer: _Writer) -> str:
    how = {**_window(writer, "strides"), "kernel_shape": writer.whole("kernel_sizes")}
    how["ceil_mode"] = int(writer.flag("ceil_mode"))
    if writer.operation.kind == "max_pool":
        return writer.node("MaxPool", [writer.operand("x")], **how)
    counted = int(not writer.flag("exclude_padding_from_average"))
    return writer.node("AveragePool", [writer.operand("x")], count_include_pad=counted, **how)


def _linear(writer: _Writer) -> str:
    made = writer.node("MatMul", [writer.operand("x"), writer.swapped(writer.operand("weight"), 2)])
    bias = writer.optional("bias")
    return writer.node("Add", [made, *bias]) if bias else made


def _matmul(writer: _Writer) -> str:
    operands = [
        writer.swapped(writer.operand(side), len(writer.shape_of(side)))
        if writer.flag(f"transpose_{side}")
        else writer.operand(side)
        for side in "xy"
    ]
    return writer.node("MatMul", operands)


def _attention(writer: _Writer) -> str:
    """Softmax(q · kᵀ / √d + mask) · v."""
    query, key, value = (writer.operand(name) for name in ("query", "key", "value"))
    *_, width = writer.shape_of("query")
    logits = writer.node("MatMul", [query, writer.swapped(key, len(writer.shape_of("key")))])
    logits = writer.node("Mul", [logits, writer.scalar(1 / np.sqrt(width))])
    mask = writer.optional("attn_mask")
    if mask:
        logits = writer.node("Add", [logits, *mask])
    return writer.node("MatMul", [writer.node("Softmax", [logits], axis=-1), value])


def _clip(writer: _Writer) -> str:
    limits = [writer.scalar(writer.number(end)) for end in ("alpha", "beta")]
    return writer.node("Clip", [writer.operand("x"), *limits])


def _relu6(writer: _Writer) -> str:
    return writer.node("Clip", [writer.operand("x"), writer.scalar(0), writer.scalar(6)])


def _with_numbers(kind: str, **said: str) -> Meaning:
    """Return what writes a function with constant numbers; ``said``: ONNX's attribute → MIL's operand."""

    def write(writer: _Writer) -> str:
        numbers: dict[str, Any] = {name: writer.number(own) for name, own in said.items()}
        return writer.node(kind, [writer.operand("x")], **numbers)

    return write


def _silu(writer: _Writer) -> str:
    return writer.node("Mul", [writer.operand("x"), writer.node("Sigmoid", [writer.operand("x")])])


def _gelu(writer: _Writer) -> str:
    x, mode = writer.operand("x"), writer.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return writer.node(
            "Mul", [x, writer.node("Sigmoid", [writer.node("Mul", [x, writer.scalar(1.702)])])]
        )
    return writer.gelu(x, by_tanh=mode != "EXACT")


def _prelu(writer: _Writer) -> str:
    slopes = writer.fixed("alpha").reshape(-1, *[1] * (len(writer.shape_of("x")) - 2))
    return writer.node("PRelu", [writer.operand("x"), writer.constant(slopes)])


def _layer_norm(writer: _Writer) -> str:
    rank, shape = len(writer.shape_of("x")), writer.shape_of("x")
    axes = sorted(axis % rank for axis in writer.whole("axes"))
    if axes != [*range(axes[0], rank)]:
        raise writer.refuse("a norm over other axes than the last")
    weights = writer.optional("gamma") or [writer.filled(np.float32(1), *shape[axes[0] :])]
    epsilon = writer.number("epsilon", 1e-5)
    return writer.node(
        "LayerNormalization",
        [writer.operand("x"), *weights, *writer.optional("beta")],
        axis=axes[0],
        epsilon=epsilon,
    )


def _batch_norm(writer: _Writer) -> str:
    wide = writer.shape_of("x")[1]
    weights = writer.optional("gamma") or [writer.filled(np.float32(1), wide)]
    biases = writer.optional("beta") or [writer.filled(np.float32(0), wide)]
    operands = [writer.operand("x"), *weights, *biases]
    if writer.operation.kind == "batch_norm":
        operands += [writer.operand("mean"), writer.operand("variance")]
    kinds = {"batch_norm": "BatchNormalization", "instance_norm": "InstanceNormalization"}
    return writer.node(kinds[writer.operation.kind], operands, epsilon=writer.number("epsilon", 1e-5))


def _reduced(kind: str) -> Meaning:
    def write(writer: _Writer) -> str:
        axes = [writer.shape(*writer.whole("axes"))] if "axes" in writer.operation.inputs else []
        return writer.node(kind, [writer.operand("x"), *axes], keepdims=int(writer.flag("keep_dims")))

    return write


def _softmax(writer: _Writer) -> str:
    return writer.node("Softmax", [writer.operand("x")], axis=writer.whole("axis", -1)[0])


def _concat(writer: _Writer) -> str:
    if writer.flag("interleave"):
        raise writer.refuse("interleaving")
    return writer.node("Concat", writer.operands("values"), axis=writer.whole("axis")[0])


def _split(writer: _Writer) -> list[str]:
    axis = writer.whole("axis")[0]
    sizes = writer.shape(*(shape[axis] for shape in writer.operation.shapes))
    return writer.several("Split", [writer.operand("x"), sizes], len(writer.operation.shapes), axis=axis)


def _stack(writer: _Writer) -> str:
    axis = writer.shape(*writer.whole("axis"))
    single = [writer.node("Unsqueeze", [each, axis]) for each in writer.operands("values")]
    return writer.node("Concat", single, axis=writer.whole("axis")[0])


def _reshape(writer: _Writer) -> str:
    return writer.reshaped(writer.operand("x"))


def _transpose(writer: _Writer) -> str:
    return writer.node("Transpose", [writer.operand("x")], perm=writer.whole("perm"))


def _sliced(writer: _Writer) -> str:
    """From ``begin`` to ``end`` by ``stride``; a mask says which ends are the tensor's own."""
    rank = len(writer.shape_of("x"))
    begins, ends, steps = writer.whole("begin"), writer.whole("end"), writer.whole("stride", [1] * rank)
    first, last, single = (
        writer.whole(name, [0] * rank) for name in ("begin_mask", "end_mask", "squeeze_mask")
    )
    largest = np.iinfo(np.int64).max
    for axis in range(rank):
        if single[axis]:
            steps[axis], ends[axis] = 1, begins[axis] + 1 or largest
            continue
        if first[axis]:
            begins[axis] = 0 if steps[axis] > 0 else largest
        if last[axis]:
            ends[axis] = largest if steps[axis] > 0 else -largest
    said = [writer.shape(*each) for each in (begins, ends, range(rank), steps)]
    return writer.reshaped(writer.node("Slice", [writer.operand("x"), *said]))


def _sliced_by_size(writer: _Writer) -> str:
    begins = writer.whole("begin")
    ends = [begin + side for begin, side in zip(begins, writer.operation.shapes[0], strict=True)]
    return writer.node("Slice", [writer.operand("x"), writer.shape(*begins), writer.shape(*ends)])


def _pad(writer: _Writer) -> str:
    sides, rank = writer.whole("pad"), len(writer.shape_of("x"))
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[
        writer.text("mode", "constant")
    ]
    every = [0] * (2 * rank - len(sides)) + sides  # those of the last axes are given
    ends = writer.shape(*every[::2], *every[1::2])
    held = [writer.scalar(writer.number("constant_val", 0))] if mode == "constant" else []
    return writer.node("Pad", [writer.operand("x"), ends, *held], mode=mode)


def _cropped(writer: _Writer) -> str:
    sides = [writer.whole("crop_height"), writer.whole("crop_width")]
    ends = [size - last for size, (_, last) in zip(writer.shape_of("x")[-2:], sides, strict=True)]
    said = [writer.shape(*each) for each in ([first for first, _ in sides], ends, (-2, -1))]
    return writer.node("Slice", [writer.operand("x"), *said])


def _gathered(writer: _Writer) -> str:
    if writer.whole("batch_dims", 0)[0]:
        raise writer.refuse("gathering by batches")
    places = writer.constant(writer.fixed("indices").astype(np.int64))
    return writer.node("Gather", [writer.operand("x"), places], axis=writer.whole("axis", 0)[0])


def _from_threshold(writer: _Writer) -> str:
    x, least = writer.operand("x"), writer.scalar(writer.number("alpha", 1))
    return writer.node("Where", [writer.node("GreaterOrEqual", [x, least]), x, writer.scalar(0)])


def _tile(writer: _Writer) -> str:
    return writer.node("Tile", [writer.operand("x"), writer.shape(*writer.whole("reps"))])


def _cast(writer: _Writer) -> str:
    """Between real numbers, of whatever width, it is no other number."""
    kinds = {"fp16": TensorProto.FLOAT, "fp32": TensorProto.FLOAT, "bool": TensorProto.BOOL}
    return writer.node(
        "Cast", [writer.operand("x")], to=kinds.get(writer.text("dtype", ""), TensorProto.INT64)
    )


def _einsum(writer: _Writer) -> str:
    return writer.node("Einsum", writer.operands("values"), equation=writer.text("equation", ""))


def _floor_divided(writer: _Writer) -> str:
    return writer.node("Floor", [writer.node("Div", [writer.operand("x"), writer.operand("y")])])


def _remainder(writer: _Writer) -> str:
    """Of the sign of what is divided by."""
    whole = writer.node("Mul", [_floor_divided(writer), writer.operand("y")])
    return writer.node("Sub", [writer.operand("x"), whole])


def _softplus_parametric(writer: _Writer) -> str:
    channels = (-1, *[1] * (len(writer.shape_of("x")) - 2))
    scale, slope = (writer.constant(writer.fixed(name).reshape(channels)) for name in ("alpha", "beta"))
    inner = writer.node("Softplus", [writer.node("Mul", [writer.operand("x"), slope])])
    return writer.node("Mul", [inner, scale])


def _at_least(writer: _Writer) -> str:
    return writer.node("Max", [writer.operand("x"), writer.scalar(writer.number("alpha"))])


def _linear_activation(writer: _Writer) -> str:
    scaled = writer.node("Mul", [writer.operand("x"), writer.scalar(writer.number("alpha"))])
    return writer.node("Add", [scaled, writer.scalar(writer.number("beta", 0))])


def _largest_place(writer: _Writer) -> str:
    axis, keep = writer.whole("axis", -1)[0], int(writer.flag("keep_dims"))
    kinds = {"reduce_argmax": "ArgMax", "reduce_argmin": "ArgMin"}
    return writer.node(kinds[writer.operation.kind], [writer.operand("x")], axis=axis, keepdims=keep)


def _filled(writer: _Writer) -> str:
    return writer.filled(writer.fixed("value", np.float32(0)), *writer.shape_of("ref_tensor"))


def _running_sum(writer: _Writer) -> str:
    said: dict[str, Any] = {name: int(writer.flag(name)) for name in ("exclusive", "reverse")}
    axis = writer.constant(np.array(writer.whole("axis", 0)[0], np.int64))
    return writer.node("CumSum", [writer.operand("x"), axis], **said)


def _pixel_shuffle(writer: _Writer) -> str:
    factor = writer.whole("upscale_factor")[0]
    return writer.node("DepthToSpace", [writer.operand("x")], blocksize=factor, mode="CRD")


def _reversed(writer: _Writer) -> str:
    axes = writer.whole("axes", [*range(len(writer.shape_of("x")))])
    ends = [[-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), axes, [-1] * len(axes)]
    return writer.node("Slice", [writer.operand("x"), *(writer.shape(*each) for each in ends)])


def _resized(writer: _Writer, mode: str, transform: str) -> str:
    held = writer.shape(*writer.operation.shapes[0])
    how = {"nearest_mode": "floor"} if mode == "nearest" else {}
    return writer.node(
        "Resize",
        [writer.operand("x"), "", "", held],
        mode=mode,
        coordinate_transformation_mode=transform,
        **how,
    )


def _upsample_bilinear(writer: _Writer) -> str:
    corners = bool(writer.fixed("align_corners", True))
    half = bool(writer.fixed("half_pixel_centers", not corners))
    transform = "align_corners" if corners else "half_pixel" if half else "asymmetric"
    return _resized(writer, "linear", transform)


def _resize_bilinear(writer: _Writer) -> str:
    ways = {
        "STRICT_ALIGN_CORNERS": "align_corners",
        "DEFAULT": "asymmetric",
        "UNALIGN_CORNERS": "half_pixel",
    }
    mode = writer.text("sampling_mode", "DEFAULT")
    if mode not in ways:
        raise writer.refuse(f"sampling {mode}")
    return _resized(writer, "linear", ways[mode])


def _nearest(writer: _Writer) -> str:
    return _resized(writer, "nearest", "asymmetric")


_OPERATIONS: dict[str, Meaning] = {
    "abs": _alike("Abs"),
    "add": _alike("Add", "x", "y"),
    "avg_pool": _pooling,
    "batch_norm": _batch_norm,
    "cast": _cast,
    "ceil": _alike("Ceil"),
    "clip": _clip,
    "concat": _concat,
    "conv": _convolution,
    "conv_transpose": _transposed_convolution,
    "cos": _alike("Cos"),
    "crop": _cropped,
    "cumsum": _running_sum,
    "einsum": _einsum,
    "elu": _with_numbers("Elu", alpha="alpha"),
    "equal": _alike("Equal", "x", "y"),
    "erf": _alike("Erf"),
    "exp": _alike("Exp"),
    "expand_dims": _reshape,
    "fill_like": _filled,
    "floor": _alike("Floor"),
    "floor_div": _floor_divided,
    "gather": _gathered,
    "gelu": _gelu,
    "greater": _alike("Greater", "x", "y"),
    "greater_equal": _alike("GreaterOrEqual", "x", "y"),
    "identity": _alike("Identity"),
    "instance_norm": _batch_norm,
    "inverse": _shifted("Reciprocal", 1e-4),
    "layer_norm": _layer_norm,
    "leaky_relu": _with_numbers("LeakyRelu", alpha="alpha"),
    "less": _alike("Less", "x", "y"),
    "less_equal": _alike("LessOrEqual", "x", "y"),
    "linear": _linear,
    "linear_activation": _linear_activation,
    "log": _shifted("Log", 1e-45),
    "logical_and": _alike("And", "x", "y"),
    "logical_not": _alike("Not"),
    "logical_or": _alike("Or", "x", "y"),
    "matmul": _matmul,
    "max_pool": _pooling,
    "maximum": _alike("Max", "x", "y"),
    "minimum": _alike("Min", "x", "y"),
    "mod": _remainder,
    "mul": _alike("Mul", "x", "y"),
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pow": _alike("Pow", "x", "y"),
    "prelu": _prelu,
    "real_div": _alike("Div", "x", "y"),
    "reduce_argmax": _largest_place,
    "reduce_argmin": _largest_place,
    "reduce_l1_norm": _reduced("ReduceL1"),
    "reduce_l2_norm": _reduced("ReduceL2"),
    "reduce_log_sum_exp": _reduced("ReduceLogSumExp"),
    "reduce_max": _reduced("ReduceMax"),
    "reduce_mean": _reduced("ReduceMean"),
    "reduce_min": _reduced("ReduceMin"),
    "reduce_prod": _reduced("ReduceProd"),
    "reduce_sum": _reduced("ReduceSum"),
    "reduce_sum_square": _reduced("ReduceSumSquare"),
    "relu": _alike("Relu"),
    "relu6": _relu6,
    "reshape": _reshape,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _nearest,
    "reverse": _reversed,
    "round": _alike("Round"),
    "rsqrt": _shifted("Sqrt", 1e-12, "Reciprocal"),
    "scaled_dot_product_attention": _attention,
    "select": _alike("Where", "cond", "a", "b"),
    "sigmoid": _alike("Sigmoid"),
    "sigmoid_hard": _with_numbers("HardSigmoid", alpha="alpha", beta="beta"),
    "sign": _alike("Sign"),
    "silu": _silu,
    "sin": _alike("Sin"),
    "slice_by_index": _sliced,
    "slice_by_size": _sliced_by_size,
    "softmax": _softmax,
    "softplus": _alike("Softplus"),
    "softplus_parametric": _softplus_parametric,
    "split": _split,
    "sqrt": _alike("Sqrt"),
    "square": lambda writer: writer.node("Mul", writer.operands("x") * 2),
    "squeeze": _reshape,
    "stack": _stack,
    "sub": _alike("Sub", "x", "y"),
    "tanh": _alike("Tanh"),
    "threshold": _at_least,
    "thresholded_relu": _from_threshold,
    "tile": _tile,
    "transpose": _transpose,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _nearest,
}
