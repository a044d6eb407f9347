"""How each operation hands on what its operands may be wrong by, to first order in the errors.

Sums of products by their absolute values, monotone functions by their values at both ends of the interval,
the others by a Lipschitz constant. Source: Higham, §3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.bounds.declaration import Declaration
from conformance.bounds.formats import FLOAT64
from conformance.bounds.recurrent import RECURRENT, analysed
from conformance.bounds.step import Step
from conformance.graph.evaluation import as_tuple
from refimpl.graph import Node
from refimpl.ops import OPERATIONS, Trait, having
from refimpl.ops.operation import Array

Errors = list[Array]
"""Of each operand, by how much it may be wrong per element; of what has no error, zeros."""


def passed_on(
    call: Node, operands: list[Any], errors: list[Any], outputs: tuple[Array, ...]
) -> tuple[Array | float | None, ...]:
    """Return what the operands' errors make of each output: 0 of none."""
    if any(error is None for error in errors):
        return (None,) * len(outputs)
    if not any(np.any(error) for error in errors):
        return (0.0,) * len(outputs)
    carry = CARRIED.get(call.op_type)
    elsewhere = call.op_type not in _OF_ALL_OPERANDS and any(np.any(error) for error in errors[1:])
    if carry is None or elsewhere:
        return (None,) * len(outputs)
    spread = [
        np.zeros(()) if x is None else np.broadcast_to(error, x.shape)
        for x, error in zip(operands, errors, strict=True)
    ]
    with np.errstate(all="ignore"):
        result = carry(call, operands, spread, outputs[0])
    listed = as_tuple(result)
    return listed + (None,) * (len(outputs) - len(listed))


# --- how each operation carries errors ------------------------------------------------------------

Carry = Callable[[Node, list[Any], Errors, Array], Any]


def _run(call: Node, *operands: Any) -> Any:
    return OPERATIONS[call.op_type](*operands, **call.attributes)


def _product(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Σ over the operands of: the sizes of those before, its error, the sizes and errors of those after."""
    sizes = [None if x is None else np.abs(x) for x in operands]
    total = np.zeros(y.shape)
    factors = 2 if call.op_type not in ("Einsum",) else len(operands)
    for index in range(factors):
        if np.any(errors[index]):
            widened = [size + error for size, error in zip(sizes[:factors], errors[:factors], strict=True)]
            mixed = [*sizes[:index], errors[index], *widened[index + 1 :]]
            total = total + OPERATIONS[call.op_type](*mixed, **_absolute(call))
    return total + _addend(call, operands, errors, y) if len(operands) > factors else total


def _integer_product(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array | None:
    """As of floats; nothing of integers without a point for zero, or of one that stands for all."""
    points = [0 if point is None else point for point in (*operands[2:4], None, None)][:2]
    if any(np.size(point) != 1 for point in points):
        return None
    steps = [x.astype(np.float64) - point for x, point in zip(operands, points, strict=False)]
    return _product(replace(call, op_type=call.op_type.removesuffix("Integer")), steps, errors[:2], y)


def _absolute(call: Node) -> dict[str, Any]:
    return {name: abs(v) if name in ("alpha", "beta") else v for name, v in call.attributes.items()}


def _addend(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Return the error of a bias: per channel of a convolution, scaled and broadcast in Gemm."""
    if operands[2] is None:
        return np.zeros(y.shape)
    if call.op_type == "Gemm":
        return np.broadcast_to(abs(call.attributes.get("beta", 1.0)) * errors[2], y.shape)
    return np.broadcast_to(errors[2].reshape(1, -1, *(1,) * (y.ndim - 2)), y.shape)


def _sum(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    total = np.broadcast_to(sum(errors), y.shape)
    return total / len(operands) if call.op_type == "Mean" else total


def _quotient(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    least = np.abs(operands[1]) - errors[1]
    return np.where(least > 0, (errors[0] + np.abs(y) * errors[1]) / least, np.inf)


def _reciprocal(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    return _quotient(call, [1.0, operands[0]], [np.zeros(()), errors[0]], y)


def _largest(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    return np.asarray(np.broadcast_to(np.maximum.reduce(np.broadcast_arrays(*errors)), y.shape))


def _monotone(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Return the larger difference to the function's values at the ends of the interval."""
    x, rest = operands[0], operands[1:]
    above, below = _run(call, x + errors[0], *rest), _run(call, x - errors[0], *rest)
    return np.maximum(np.abs(above - y), np.abs(below - y))


def _rectified(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Return what is left of an error above 0: as of any monotone function, in fewer passes."""
    left = operands[0] + errors[0]
    np.maximum(left, 0.0, out=left)
    return np.minimum(left, errors[0], out=left)


def _clipped(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Return the larger difference at the ends of all intervals: it is monotone in each operand."""
    ends = [
        [x if x is None else x + sign * error for x, error in zip(operands, errors, strict=True)]
        for sign in (1, -1)
    ]
    above, below = (_run(call, *end) for end in ends)
    return np.maximum(np.abs(above - y), np.abs(below - y))


def _lipschitz(constant: float) -> Carry:
    def carry(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
        return constant * errors[0]

    return carry


def _leaky(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    default = 0.01 if call.op_type == "LeakyRelu" else 1.0
    return max(1.0, abs(call.attributes.get("alpha", default))) * errors[0]


def _selu(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    alpha, gamma = call.attributes.get("alpha", 1.67326), call.attributes.get("gamma", 1.0507)
    return np.asarray(abs(gamma) * max(1.0, abs(alpha)) * errors[0] * (1 + 1e-4))


def _cast(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array | None:
    return errors[0] if y.dtype.kind == "f" else None


def _compared(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array | None:
    """0 if no error is as large as a difference; what could come out otherwise has no bound."""
    first, second = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in operands))
    known = (np.isinf(first) & (first == second)) | (np.abs(first - second) > errors[0] + errors[1])
    known |= np.broadcast_to(errors[0] + errors[1] == 0, first.shape)
    return np.zeros(y.shape) if known.all() else None


def _quantised(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Return the larger difference to what the ends of the interval become, in steps.

    The interval is wider by the quotient's rounding: neither alone may reach a tie that both together do.
    """
    reach = errors[0] + np.where(errors[0] > 0, np.abs(operands[0]) * _OF_QUOTIENT, 0.0)
    sides = [_run(call, operands[0] + sign * reach, *operands[1:]).astype(np.float64) for sign in (-1, 1)]
    exact = y.astype(np.float64)
    return np.maximum(np.abs(sides[0] - exact), np.abs(sides[1] - exact))


_OF_QUOTIENT = 2.0**-21
"""Relatively, in float32."""


def _dequantised(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Return steps as the numbers that they stand for, and each number's share of the scale's error."""
    largest = np.abs(operands[1]) + errors[1]
    found = _run(call, np.ceil(errors[0]), largest, None)
    if np.any(errors[1]):
        size = np.abs(_run(call, operands[0], np.sign(operands[1]), *operands[2:]))
        found = found + size * _run(call, np.ones_like(errors[0]), errors[1], None)
    return np.asarray(found)


def _power(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Return the larger difference at the ends of the size's interval.

    It holds across zero for the powers from 1 on of whole numbers.
    """
    size, exponent = np.abs(operands[0]), operands[1]
    ends = [_run(call, np.maximum(size + sign * errors[0], 0), exponent) for sign in (-1, 1)]
    here = _run(call, size, exponent)
    found = np.maximum(np.abs(ends[0] - here), np.abs(ends[1] - here))
    across = (exponent == np.rint(exponent)) & (exponent >= 1)
    return np.where(across | (operands[0] > errors[0]), found, np.inf)


def _recurrent(call: Node, operands: list[Any], errors: Errors, y: Array) -> tuple[Array, ...]:
    """Run through the steps with the data's errors alone."""
    exact = Declaration(FLOAT64, FLOAT64)
    step = Step(call.op_type, tuple(operands), call.attributes, (), exact)
    return analysed(step, wrong_by=errors[0])[1]


def _moved(call: Node, operands: list[Any], errors: Errors, y: Array) -> Any:
    """Do to the errors what is done to the data."""
    return _run(call, errors[0], *operands[1:])


def _joined(call: Node, operands: list[Any], errors: Errors, y: Array) -> Any:
    return _run(call, *errors)


def _padded(call: Node, operands: list[Any], errors: Errors, y: Array) -> Any:
    return _run(call, errors[0], operands[1], 0.0, *operands[3:])


def _chosen(call: Node, operands: list[Any], errors: Errors, y: Array) -> Any:
    return _run(call, operands[0], errors[1], errors[2])


def _resized(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array | None:
    regions = call.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if call.attributes.get("mode", "nearest") == "cubic" or regions:
        return None
    return np.asarray(_moved(call, operands, errors, y))


def _reduced_by(op_type: str) -> Carry:
    def carry(call: Node, operands: list[Any], errors: Errors, y: Array) -> Any:
        return OPERATIONS[op_type](errors[0], *operands[1:], **call.attributes)

    return carry


def _batch_normalised(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Errors of x and the mean, scaled; of scale and deviation, times |x − mean|; the shift's."""

    def along(x: Array) -> Array:
        return x.reshape(1, -1, *(1,) * (y.ndim - 2))

    _, of_scale, of_shift, of_mean, of_var = errors
    scale, _, mean, var = operands[1:5]
    epsilon = call.attributes.get("epsilon", 1e-5)
    least, deviation = np.sqrt(np.maximum(var - of_var, 0) + epsilon), np.sqrt(var + epsilon)
    carried = (errors[0] + along(of_mean)) * along((np.abs(scale) + of_scale) / least)
    if np.any(of_scale) or np.any(of_var):
        change = of_scale / least + np.abs(scale) * (1 / least - 1 / deviation)
        carried = carried + np.abs(operands[0] - along(mean)) * along(change)
    return np.asarray(carried + along(of_shift))


def _layer_normalised(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Shift of the difference over the deviation, and the deviation's change (≤ rms error), scaled."""
    x, error = operands[0], errors[0]
    axes = tuple(range(call.attributes.get("axis", -1) % x.ndim, x.ndim))
    difference = np.abs(x - x.mean(axis=axes, keepdims=True))
    variance = np.square(difference).mean(axis=axes, keepdims=True)
    deviation = np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    shift = error + error.mean(axis=axes, keepdims=True)
    change = np.sqrt(np.square(error).mean(axis=axes, keepdims=True))
    least = deviation - change
    moved = shift / least + difference * change / (deviation * least)
    moved = np.where(least > 0, moved, np.inf)
    of_scale, of_shift = errors[1], errors[2] if len(errors) > 2 else 0.0
    return (np.abs(operands[1]) + of_scale) * moved + of_scale * difference / deviation + of_shift


def _rms_normalised(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """The error over the root, and the root's change (≤ rms error), scaled."""
    x, error = np.abs(operands[0]), errors[0]
    axes = tuple(range(call.attributes.get("axis", -1) % x.ndim, x.ndim))
    square = np.square(x).mean(axis=axes, keepdims=True)
    root = np.sqrt(square + call.attributes.get("epsilon", 1e-5))
    change = np.sqrt(np.square(error).mean(axis=axes, keepdims=True))
    least = root - change
    moved = np.where(least > 0, error / least + x * change / (root * least), np.inf)
    return np.asarray((np.abs(operands[1]) + errors[1]) * moved + errors[1] * x / root)


def _softmax(call: Node, operands: list[Any], errors: Errors, y: Array) -> Array:
    """Σ of the logits' own error and of the logarithm of the sum, relatively."""
    axis = call.attributes.get("axis", -1)
    logarithmic = call.op_type == "LogSoftmax"
    probability = np.exp(y) if logarithmic else y
    total = np.log(np.sum(probability * np.exp(errors[0]), axis=axis, keepdims=True))
    change = errors[0] + np.maximum(total, 0)
    return change if logarithmic else y * np.expm1(change)


_FOLDING = having(Trait.PRODUCTS)
_COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
_POOLED = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_REDUCED = ("ReduceSum", "ReduceMean", "ReduceMax")

CARRIED: dict[str, Carry] = {
    **dict.fromkeys((*_FOLDING, "Mul"), _product),
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean"), _sum),
    **dict.fromkeys(("Max", "Min"), _largest),
    **dict.fromkeys(having(Trait.MONOTONE), _monotone),
    **dict.fromkeys((*having(Trait.MOVES), *_POOLED, *_REDUCED), _moved),
    **dict.fromkeys(("Neg", "Abs", "Sin", "Cos"), _lipschitz(1.0)),
    **dict.fromkeys(("LeakyRelu", "Elu"), _leaky),
    "Celu": _lipschitz(1.0),
    "Selu": _selu,
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    **dict.fromkeys(_COMPARISONS, _compared),
    "Relu": _rectified,
    "QuantizeLinear": _quantised,
    "DequantizeLinear": _dequantised,
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), _integer_product),
    "Pow": _power,
    **dict.fromkeys(RECURRENT, _recurrent),
    "Clip": _clipped,
    "HardSwish": _lipschitz(1.5),
    "Swish": _lipschitz(1.1),
    "Gelu": _lipschitz(1.13),
    "Mish": _lipschitz(1.09),
    "Div": _quotient,
    "Reciprocal": _reciprocal,
    "BatchNormalization": _batch_normalised,
    "LayerNormalization": _layer_normalised,
    "RMSNormalization": _rms_normalised,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Resize": _resized,
    "Pad": _padded,
    "Where": _chosen,
    "Concat": _joined,
    "ReduceMin": _reduced_by("ReduceMax"),
    "ReduceL1": _reduced_by("ReduceSum"),
    "ReduceL2": _reduced_by("ReduceL2"),
    "ReduceLogSumExp": _reduced_by("ReduceMax"),
}
"""ONNX operator → how errors of its operands reach its output. Others end a chain's bound."""

_NORMALISED = ("BatchNormalization", "LayerNormalization", "RMSNormalization")
_OF_ALL_OPERANDS = {
    *("ConvInteger", "DequantizeLinear", "MatMulInteger"),
    *(*_FOLDING, *_NORMALISED, *_COMPARISONS),
    *("Mul", "Add", "Sub", "Sum", "Mean", "Max", "Min", "Div", "Where", "Concat", "Clip", "CastLike"),
}
"""What carries errors of every operand; the others only those of the first."""
