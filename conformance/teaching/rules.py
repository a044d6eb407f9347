"""How each operator of the networks computes one cell of its result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from conformance.teaching.arithmetic import Arithmetic, Call, Operand, Reduction, own
from refimpl.errors import UnsupportedOperationError
from refimpl.ops.operation import Array
from refimpl.ops.windows import sliding_windows

Index = tuple[int, ...]
Rule = Callable[[Call, Index], Arithmetic]

RULES: dict[str, Rule] = {}
"""ONNX operator → its rule."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register the rule of some operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


# One number from those at its place.

ELEMENTWISE = {
    "Add": ("ab", "a + b"),
    "Mul": ("ab", "a * b"),
    "Div": ("ab", "a / b"),
    "Relu": ("x", "max(x, 0)"),
    "Sigmoid": ("x", "1 / (1 + exp(-x))"),
    "Tanh": ("x", "1 - 2 / (1 + exp(2 * x))"),
}
"""Operator → the letters of its operands, and its formula."""


@rule(*ELEMENTWISE)
def elementwise(call: Call, index: Index) -> Arithmetic:
    """A formula of the operands at the same place."""
    letters, formula = ELEMENTWISE[call.node.op_type]
    singles = [call.broadcast_cell(letter, place, index) for place, letter in enumerate(letters)]
    return Arithmetic(formula, singles)


@rule("HardSigmoid")
def hard_sigmoid(call: Call, index: Index) -> Arithmetic:
    """``max(0, min(1, alpha · x + beta))``."""
    alpha, beta = (call.attributes.get(name, usual) for name, usual in (("alpha", 0.2), ("beta", 0.5)))
    singles = [call.broadcast_cell("x", 0, index), own("alpha", alpha), own("beta", beta)]
    return Arithmetic("max(0, min(1, alpha * x + beta))", singles)


@rule("Clip")
def clip(call: Call, index: Index) -> Arithmetic:
    """``min(max(x, low), high)``, of which one end may be missing."""
    formula, singles = "x", [call.broadcast_cell("x", 0, index)]
    for place, name, bound in ((1, "low", "max"), (2, "high", "min")):
        if call.has(place):
            formula = f"{bound}({formula}, {name})"
            singles.append(call.broadcast_cell(name, place, ()))
    return Arithmetic(formula, singles)


@rule("BatchNormalization")
def batch_normalization(call: Call, index: Index) -> Arithmetic:
    """``scale · (x − mean) / √(variance + epsilon) + bias`` with the channel's numbers."""
    names = ("scale", "bias", "mean", "variance")
    singles = [call.cells(name, place, [index[1:2]]) for place, name in enumerate(names, 1)]
    epsilon = own("epsilon", call.attributes.get("epsilon", 1e-5))
    formula = "scale * (x - mean) / sqrt(variance + epsilon) + bias"
    return Arithmetic(formula, [call.broadcast_cell("x", 0, index), *singles, epsilon])


# Sums of products.


@rule("MatMul")
def mat_mul(call: Call, index: Index) -> Arithmetic:
    """A row times a column."""
    a, b = call.array(0), call.array(1)
    count, (*batch, row, column) = a.shape[-1], index
    left = [(*_batch(a, batch), row, k) for k in range(count)]
    right = [(*_batch(b, batch), k, column) for k in range(count)]
    return _products(call.cells("a", 0, left), call.cells("b", 1, right))


def _batch(x: Array, index: Sequence[int]) -> list[int]:
    shape = x.shape[:-2]
    kept = index[len(index) - len(shape) :]
    return [0 if n == 1 else i for i, n in zip(kept, shape, strict=True)]


def _products(*factors: Operand, addend: Sequence[Operand] = ()) -> Arithmetic:
    expression = " * ".join(each.symbol for each in factors)
    products = Reduction("sum", expression, np.prod([each.values for each in factors], axis=0))
    formula = " + ".join([products.text, *(each.symbol for each in addend)])
    return Arithmetic(formula, addend, factors, [products])


@rule("Conv")
def convolution(call: Call, index: Index) -> Arithmetic:
    """Weights times what the window reads; what it reads of the padding is zero and left out."""
    weights = call.array(1)
    group = call.attributes.get("group", 1)
    channels, outputs = weights.shape[1], weights.shape[0] // group
    taps, positions = _window(call, weights.shape[2:], index[2:])
    first = index[1] // outputs * channels
    pairs = list(itertools.product(range(channels), zip(taps, positions, strict=True)))
    w = call.cells("w", 1, [(index[1], c, *tap) for c, (tap, _) in pairs])
    x = call.cells("x", 0, [(index[0], first + c, *position) for c, (_, position) in pairs])
    bias = [call.cells("bias", 2, [index[1:2]])] if call.has(2) else []
    return _products(w, x, addend=bias)


def _window(call: Call, kernel: Sequence[int], place: Sequence[int]) -> tuple[list[Index], list[Index]]:
    """Return the taps of one window that lie inside the input, and where they read."""
    names = ("auto_pad", "dilations", "pads", "strides", "ceil_mode")
    given = {name: call.attributes[name] for name in names if name in call.attributes}
    size = call.array(0).shape[2:]
    windows = sliding_windows(size, kernel, **given)
    taps, positions = [], []
    for tap in itertools.product(*map(range, kernel)):
        at = zip(place, windows.strides, tap, windows.dilations, windows.begin, strict=True)
        position = tuple(p * s + t * d - b for p, s, t, d, b in at)
        if all(0 <= p < n for p, n in zip(position, size, strict=True)):
            taps.append(tap)
            positions.append(position)
    return taps, positions


RESIZES = ("mode", "coordinate_transformation_mode", "nearest_mode")


@rule("Resize")
def resize(call: Call, index: Index) -> Arithmetic:
    """The two nearest cells along each axis, each with its share: v down, h across; or one cell."""
    modes = tuple(call.attributes.get(name) for name in RESIZES)
    old, new = call.array(0).shape, call.tensors[call.output].shape
    if modes == ("nearest", "asymmetric", "floor"):
        place = [i * n // m for i, n, m in zip(index, old, new, strict=True)]
        return Arithmetic("x", [call.cells("x", 0, [place])])
    if modes[:2] not in (("linear", "half_pixel"), ("linear", "align_corners")):
        raise UnsupportedOperationError(f"Resize {modes} is not derived; no network here has it")
    aligned = modes[1] == "align_corners"
    around = [_neighbours(index[axis], old[axis], new[axis], aligned) for axis in range(2, len(old))]
    corners = list(itertools.product(*around))
    x = call.cells("x", 0, [(*index[:2], *(cell for cell, _ in corner)) for corner in corners])
    shares = zip(*([share for _, share in corner] for corner in corners), strict=True)
    return _products(*(own(letter, each) for letter, each in zip("vh", shares, strict=False)), x)


def _neighbours(
    place: int, size: int, new_size: int, aligned: bool
) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return the two cells around an element, kept inside, and their weights."""
    coordinate = (place + 0.5) * size / new_size - 0.5
    if aligned:
        coordinate = place * (size - 1) / (new_size - 1) if new_size > 1 else 0.0
    low = math.floor(coordinate)
    share = coordinate - low
    first, second = (min(max(each, 0), size - 1) for each in (low, low + 1))
    return (first, 1 - share), (second, share)


# Means and maxima.


@rule("MaxPool")
def max_pool(call: Call, index: Index) -> Arithmetic:
    """The largest of a window."""
    x = _pooled(call, index)
    return Arithmetic("max(x)", (), [x], [Reduction("max", "x", x.values)])


@rule("AveragePool")
def average_pool(call: Call, index: Index) -> Arithmetic:
    """The mean of a window, of which the padding is no part."""
    return _mean(_pooled(call, index))


def _pooled(call: Call, index: Index) -> Operand:
    _, positions = _window(call, call.attributes["kernel_shape"], index[2:])
    return call.cells("x", 0, [(*index[:2], *position) for position in positions])


def _mean(x: Operand) -> Arithmetic:
    count = own("n", len(x.values))
    return Arithmetic("sum(x) / n", [count], [x], [Reduction("sum", "x", x.values)])


@rule("ReduceMean")
def reduce_mean(call: Call, index: Index) -> Arithmetic:
    """The mean over axes."""
    return _mean(_reduced(call, index))


@rule("ReduceSum")
def reduce_sum(call: Call, index: Index) -> Arithmetic:
    """The sum over axes."""
    x = _reduced(call, index)
    return Arithmetic("sum(x)", (), [x], [Reduction("sum", "x", x.values)])


def _reduced(call: Call, index: Index) -> Operand:
    shape = call.array(0).shape
    axes = (
        {int(axis) % len(shape) for axis in np.ravel(call.array(1))}
        if call.has(1)
        else set(range(len(shape)))
    )
    keeps = call.attributes.get("keepdims", 1)
    left = iter(index)
    ranges = [range(n) if axis in axes else None for axis, n in enumerate(shape)]
    fixed = []
    for axis, each in enumerate(ranges):
        place = next(left) if keeps or axis not in axes else 0
        fixed.append(each if each is not None else (place,))
    return call.cells("x", 0, list(itertools.product(*fixed)))


# Normalisations.


@rule("Softmax")
def softmax(call: Call, index: Index) -> Arithmetic:
    """One exponential as a share of all along the axis, the largest taken off first."""
    x = _along(call, index, call.attributes.get("axis", -1))
    largest = x.values.max()
    reductions = [
        Reduction("max", "x", x.values),
        Reduction("sum", "exp(x - m)", np.exp(x.values - largest)),
    ]
    own_cell = call.cells("x0", 0, [index])
    return Arithmetic(
        "exp(x0 - m) / sum(exp(x - m))", [own_cell], [x], reductions, [("m", "max(x)", largest)]
    )


@rule("LayerNormalization")
def layer_normalization(call: Call, index: Index) -> Arithmetic:
    """The distance from the mean in standard deviations, scaled and shifted; over the last axis."""
    return _standardised(call, index, _along(call, index, -1), channel=index[-1])


@rule("InstanceNormalization")
def instance_normalization(call: Call, index: Index) -> Arithmetic:
    """The distance from the mean in standard deviations, over all positions of the channel."""
    places = itertools.product(*map(range, call.array(0).shape[2:]))
    x = call.cells("x", 0, [(*index[:2], *place) for place in places])
    return _standardised(call, index, x, channel=index[1])


def _standardised(call: Call, index: Index, x: Operand, channel: int) -> Arithmetic:
    mean = x.values.mean()
    squares = np.square(x.values - mean)
    reductions = [Reduction("sum", "x", x.values), Reduction("sum", "(x - mean)^2", squares)]
    singles = [call.cells("x0", 0, [index]), own("n", len(x.values))]
    singles += [call.cells(name, place, [(channel,)]) for place, name in ((1, "scale"), (2, "bias"))]
    singles.append(own("epsilon", call.attributes.get("epsilon", 1e-5)))
    between = [("mean", "sum(x) / n", mean), ("variance", "sum((x - mean)^2) / n", squares.mean())]
    formula = "scale * (x0 - mean) / sqrt(variance + epsilon) + bias"
    return Arithmetic(formula, singles, [x], reductions, between)


def _along(call: Call, index: Index, axis: int) -> Operand:
    """Return the cells of the first operand along an axis through ``index``."""
    shape = call.array(0).shape
    axis %= len(shape)
    return call.cells("x", 0, [(*index[:axis], i, *index[axis + 1 :]) for i in range(shape[axis])])
