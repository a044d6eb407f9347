"""Quantised operators of ONNX Runtime's own domain: operands dequantised, an operator, its result quantised.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conformance.graph.contributed import Writer, chosen, meaning
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node


def _dequantised(write: Writer, place: int) -> str:
    """Write the number that three operands stand for: integers, scale, zero point."""
    return write.add("DequantizeLinear", *(write.operand(place + k) for k in range(3)))


def _quantise(write: Writer, x: str, scale: int) -> None:
    """Write the result, quantised by the operands at ``scale`` and after."""
    write.add("QuantizeLinear", x, write.operand(scale), write.operand(scale + 1), result=write.wanted(0))


@meaning("QLinearAdd", "QLinearMul")
def _of_two(node: Node, write: Writer) -> None:
    operands = (_dequantised(write, 0), _dequantised(write, 3))
    _quantise(write, write.add(node.op_type.removeprefix("QLinear"), *operands), 6)


_OF_ONE: dict[str, tuple[str, ...]] = {
    "LeakyRelu": ("alpha",),
    "Sigmoid": (),
    "AveragePool": ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"),
    "GlobalAveragePool": (),
    "Softmax": ("axis",),
}
"""Operator → its attributes."""


@meaning(*(f"QLinear{name}" for name in _OF_ONE))
def _of_one(node: Node, write: Writer) -> None:
    name = node.op_type.removeprefix("QLinear")
    if node.attributes.get("channels_last"):
        raise UnsupportedOperationError("has its channels last")
    if node.op_type == "QLinearSoftmax" and node.attributes.get("opset", 13) < 13:
        raise UnsupportedOperationError("is a softmax of opset 12, over several axes")
    defaults = {"axis": -1} if name == "Softmax" else {}
    y = write.add(name, _dequantised(write, 0), **{**defaults, **chosen(node, *_OF_ONE[name])})
    _quantise(write, y, 3)


@meaning("QLinearConcat")
def _concat(node: Node, write: Writer) -> None:
    parts = [_dequantised(write, place) for place in range(2, len(node.inputs), 3)]
    _quantise(write, write.add("Concat", *parts, axis=node.attributes["axis"]), 0)


@meaning("QLinearWhere")
def _where(node: Node, write: Writer) -> None:
    operands = (_dequantised(write, 1), _dequantised(write, 4))
    _quantise(write, write.add("Where", write.operand(0), *operands), 7)


@meaning("QLinearReduceMean")
def _reduce_mean(node: Node, write: Writer) -> None:
    axes = write.constant(np.array(node.attributes["axes"]))
    y = write.add("ReduceMean", _dequantised(write, 0), axes, keepdims=node.attributes.get("keepdims", 1))
    _quantise(write, y, 3)


@meaning("QGemm")
def _gemm(node: Node, write: Writer) -> None:
    """Its addend is of integers, their scale the factors' product; without a scale the result is float."""
    first, second = _dequantised(write, 0), _dequantised(write, 3)
    factors = [write.operand(1), write.operand(4)]
    addend = write.operand(6)
    if addend:
        step = write.add("Mul", *factors)
        addend = write.add("Mul", write.add("Cast", addend, to=1), step)
    given = chosen(node, "alpha", "transA", "transB")
    if not write.operand(7):
        write.add("Gemm", first, second, addend, result=write.wanted(0), **given)
        return
    _quantise(write, write.add("Gemm", first, second, addend, **given), 7)


@meaning("MatMulIntegerToFloat")
def _mat_mul_to_float(node: Node, write: Writer) -> None:
    operands = [write.add("DequantizeLinear", *_by_columns(write, place)) for place in (0, 1)]
    _biased(write, write.add("MatMul", *operands), write.operand(6))


def _by_columns(write: Writer, place: int) -> Sequence[Any]:
    return write.operand(place), write.operand(place + 2), write.operand(place + 4)


@meaning("DynamicQuantizeMatMul")
def _dynamic_mat_mul(node: Node, write: Writer) -> None:
    """The first factor is quantised over its own range."""
    whole = write.whole
    names = tuple(f"{whole.name}/{role}" for role in ("quantised", "scale", "point"))
    write.nodes.append(Node(f"{whole.name}/dynamic", "DynamicQuantizeLinear", (write.operand(0),), names))
    first = write.add("DequantizeLinear", *names)
    second = write.add("DequantizeLinear", *(write.operand(place) for place in (1, 2, 3)))
    _biased(write, write.add("MatMul", first, second), write.operand(4))


def _biased(write: Writer, product: str, bias: str) -> None:
    if bias:
        write.add("Add", product, bias, result=write.wanted(0))
    else:
        write.add("Identity", product, result=write.wanted(0))
