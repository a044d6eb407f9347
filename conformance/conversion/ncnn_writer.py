"""Layers of ncnn on their way into an ONNX graph: how many axes blobs have, which are integers, products.

Source: github.com/Tencent/ncnn, ``src/layer/*.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from conformance.conversion.graph_writer import GraphWriter
from conformance.conversion.inferred_lengths import InferredLengths, Lengths
from conformance.conversion.ncnn_model import REQUANTISED, NcnnLayer
from refimpl.errors import FileError, UnsupportedOperationError
from refimpl.ops.operation import Array

LARGEST = 127.0
"""Of ncnn's integers, to either side."""
MADE_INTEGERS = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
"""Layers whose float weights become integers as they are loaded, if there are scales for them."""
ZEROS = 2.0**-100
"""What the largest of a row of zeros counts as."""


@dataclass(frozen=True)
class Integers:
    """Integers on their way into a product.

    Attributes
    ----------
    name
    scale
        How many of their steps make 1.
    """

    name: str
    scale: str


Factor = str | Integers
"""A tensor of floats, or of integers."""
SIDES = ("", "w", "hw", "chw", "cdhw")
"""Number of a blob's axes → what ncnn calls them."""


def unwritten(layer: NcnnLayer, what: str) -> UnsupportedOperationError:
    """Return the error that a layer, or a way of it, has no meaning here."""
    return UnsupportedOperationError(f"layer {layer.name}: {what} is not written down")


class NcnnWriter(GraphWriter):
    """And how many axes each blob has, and which are integers."""

    def __init__(self, as_it_runs: bool = False) -> None:
        super().__init__()
        self.as_it_runs = as_it_runs
        self.ranks: dict[str, int] = {}
        self.integers: set[str] = set()
        self.as_given: set[str] = set()
        self.inferred = InferredLengths(self.nodes, self.initializers)

    def give(self, top: str, name: str, rank: int) -> None:
        """Give one of a layer's blobs."""
        self.node("Identity", [name], top)
        self.ranks[top] = rank

    def done(self, layer: NcnnLayer, name: str, rank: int) -> None:
        """Give a layer's only blob."""
        self.give(layer.tops[0], name, rank)

    def like(self, layer: NcnnLayer, name: str) -> None:
        """Give a layer's only blob, of as many axes as its first operand."""
        self.done(layer, name, self.ranks[layer.bottoms[0]])

    def rank(self, layer: NcnnLayer, *allowed: int, blob: int = 0) -> int:
        """Return how many axes one of a layer's operands has; refuse others than are allowed."""
        rank = self.ranks[layer.bottoms[blob]]
        if allowed and rank not in allowed:
            raise unwritten(layer, f"{layer.kind} of {rank} axes")
        return rank

    def lengths(self, name: str) -> Lengths:
        """Return how long the axes of a tensor are; None: it is not known."""
        found = self.inferred.of(name)
        return [None] * self.ranks.get(name, 0) if found is None else found

    def known(self, layer: NcnnLayer, name: str) -> list[int]:
        """Return how long the axes of a tensor are; refuse a layer that hangs on what is not known."""
        lengths = [each for each in self.lengths(name) if each is not None]
        if len(lengths) != len(self.lengths(name)) or not lengths:
            raise unwritten(layer, f"{layer.kind} of {name}, whose axes are not declared,")
        return lengths

    def axis(self, layer: NcnnLayer, axis: int, blob: int = 0) -> int:
        """Return an axis, counted from the first; ncnn does not look at it where there is but one."""
        rank = self.ranks[layer.bottoms[blob]]
        if rank == 1:
            return 0
        if not -rank <= axis < rank:
            raise unwritten(layer, f"axis {axis} of {rank}")
        return axis % rank

    def in_batch(self, name: str) -> str:
        """Return a blob with an axis for the batch."""
        return self.node("Unsqueeze", [name, self.shape(0)])

    def out_of_batch(self, name: str) -> str:
        """Return it without."""
        return self.node("Squeeze", [name, self.shape(0)])

    def reshaped(self, name: str, *sides: int) -> str:
        """Return a tensor in another shape."""
        return self.node("Reshape", [name, self.shape(*sides)])

    def shaped_like(self, name: str, other: str) -> str:
        """Return a tensor in the shape of another."""
        return self.node("Reshape", [name, self.node("Shape", [other])])

    def cut(self, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """Return a part of a tensor, along an axis."""
        return self.node("Slice", [name, *(self.shape(each) for each in (start, end, axis, step))])

    def along_first(self, layer: NcnnLayer, vector: Array) -> str:
        """Return a vector as a constant with a number for each place along the first axis of an operand."""
        return self.constant(vector.reshape([-1, *[1] * (self.ranks[layer.bottoms[0]] - 1)]))

    def operand(self, layer: NcnnLayer) -> Factor:
        """Return what a layer takes; of one with a scale for it, as the integers that it makes of it."""
        name = layer.bottoms[0]
        if not layer.scales:
            return name
        integers = name if name in self.integers else self._integers(name, layer, layer.scales[1])
        return self._factor(integers, layer, layer.scales[1])

    def weight(self, layer: NcnnLayer, held: Array, scales: Array | None, axis: int = 0) -> Factor:
        """Return one of a layer's weights, of integers if there are scales for the places along an axis."""
        if scales is None and held.dtype != np.int8:
            return self.constant(held)
        if scales is None or (held.dtype != np.int8 and layer.kind not in MADE_INTEGERS):
            how = "without" if scales is None else "with"
            raise unwritten(layer, f"what weights of {held.dtype} {how} scales of integers mean")
        # One scale may be of all.
        scales = scales if len(scales) == 1 else scales.repeat(held.shape[axis] // len(scales))
        along = scales.reshape([-1 if place == axis else 1 for place in range(held.ndim)])
        if held.dtype != np.int8:
            held = _nearest(held.astype(np.float32) * along).clip(-LARGEST, LARGEST)
        # Whatever the integers are, a scale of zero makes nothing of them.
        held = np.where(along == 0, 0, held).astype(np.int8)
        scales, along = (np.where(each == 0, 1, each).astype(np.float32) for each in (scales, along))
        if self.as_it_runs:
            return Integers(self.constant(held), self.constant(along))
        steps = 1 / scales if len(scales) > 1 else 1 / scales.reshape(())
        grid = self.constant(np.asarray(steps)), self.constant(np.zeros(steps.shape, np.int8))
        return self.node("DequantizeLinear", [self.constant(held), *grid], axis=axis)

    def requantised(self, layer: NcnnLayer, name: str) -> str:
        """Return a layer's result: as integers, if it is handed on so."""
        if layer.integers <= REQUANTISED:
            return name
        self.integers.add(layer.tops[0])
        return self._integers(name, layer, layer.scales[2])

    def rounded(self, layer: NcnnLayer, name: str, axes: Sequence[int]) -> Factor:
        """Return what a layer multiplies: as the integers that it makes, the largest along some axes 127."""
        if not self.as_it_runs or not layer.integers:
            return name
        largest = self.node("ReduceMax", [self.node("Abs", [name]), self.shape(*axes)], keepdims=1)
        largest = self.node("Max", [largest, self.scalar(ZEROS)])
        scale = self.node("Div", [self.scalar(LARGEST), largest])
        grid = self.scalar(1.0), self.constant(np.zeros((), np.int8))
        return Integers(self.node("QuantizeLinear", [self.node("Mul", [name, scale]), *grid]), scale)

    def turned(self, x: Factor) -> Factor:
        """Return a matrix with its axes swapped."""
        if isinstance(x, Integers):
            return Integers(*(self.node("Transpose", [name], perm=[1, 0]) for name in (x.name, x.scale)))
        return self.node("Transpose", [x], perm=[1, 0])

    def product(self, first: Factor, second: Factor) -> str:
        """Return a product of matrices."""
        if isinstance(first, Integers) and isinstance(second, Integers):
            total = self.node("MatMulInteger", [first.name, second.name])
            return self.scaled(total, first.scale, second.scale)
        assert isinstance(first, str)
        assert isinstance(second, str)
        return self.node("MatMul", [first, second])

    def scaled(self, total: str, first: str, second: str, *, estimated: bool = False) -> str:
        """Return what a sum of products of integers stands for, by the scales of both."""
        scale = self.node("Mul", [first, second])
        one = [] if estimated else [self.scalar(1.0)]
        factor = self.node("Reciprocal" if estimated else "Div", [*one, scale])
        return self.node("Mul", [self.node("Cast", [total], to=onnx.TensorProto.FLOAT), factor])

    def _integers(self, name: str, layer: NcnnLayer, scale: Array) -> str:
        step, *grid = self._grid(layer, scale)
        if self.as_it_runs:
            name = self.node("Clip", [name, self.scalar(-LARGEST * step), self.scalar(LARGEST * step)])
        return self.node("QuantizeLinear", [name, *grid])

    def _factor(self, integers: str, layer: NcnnLayer, scale: Array) -> Factor:
        if self.as_it_runs:
            return Integers(integers, self.constant(scale.reshape(())))
        return self.node("DequantizeLinear", [integers, *self._grid(layer, scale)[1:]])

    def _grid(self, layer: NcnnLayer, scale: Array) -> tuple[float, str, str]:
        """Return the step of integers, as a number and as a constant, and their zero point."""
        if scale[0] <= 0:
            raise FileError(f"layer {layer.name}: the scale of what it takes or gives is {scale[0]}")
        step = 1 / scale.reshape(())
        return float(step), self.constant(np.array(step)), self.constant(np.zeros((), np.int8))


def _nearest(numbers: Array) -> Array:
    """Return the nearest whole numbers, of two the one that is farther from zero."""
    return np.trunc(numbers + np.copysign(np.float32(0.5), numbers))
