"""Nodes on their way into an ONNX graph that says what a runtime's file means."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from refimpl.ops.operation import Array

OPSET = 18


class GraphWriter:
    """Nodes and constants, named after the layer that is being written."""

    def __init__(self) -> None:
        self.opset = OPSET
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.prefix = ""
        self._numbers = itertools.count()

    def fresh(self, what: str) -> str:
        """Return a name that is not taken."""
        return f"{self.prefix}/{what}_{next(self._numbers)}"

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node and return the tensor that it makes."""
        output = output or self.fresh(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [output], self.fresh("node"), **attributes))
        return output

    def several(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node of several results and return them."""
        made = [self.fresh(kind) for _ in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, self.fresh("node"), **attributes))
        return made

    def constant(self, array: Array, output: str = "") -> str:
        """Add a constant; of half precision it is stored so, and widened where it is used."""
        halved = array.dtype == np.float16
        name = output if output and not halved else self.fresh("constant")
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return self.node("Cast", [name], output, to=TensorProto.FLOAT) if halved else name

    def shape(self, *sides: int) -> str:
        """Add a list of whole numbers."""
        return self.constant(np.array(sides, np.int64))

    def scalar(self, value: float) -> str:
        """Add a number."""
        return self.constant(np.array(value, np.float32))

    def quantized(self, name: str, grid: Sequence[str], output: str, axis: int = 0) -> str:
        """Make a tensor integers, called ``output``, by scale and zero point; return what they stand for."""
        self.node("QuantizeLinear", [name, *grid], output, axis=axis)
        return self.node("DequantizeLinear", [output, *grid], axis=axis)

    def gelu(self, x: str, *, by_tanh: bool) -> str:
        """Add a GELU in its parts, exact or by the hyperbolic tangent; return what it makes."""
        if by_tanh:
            cube = self.node("Mul", [self.node("Mul", [x, x]), x])
            inner = self.node("Add", [x, self.node("Mul", [cube, self.scalar(0.044715)])])
            part = self.node("Tanh", [self.node("Mul", [inner, self.scalar(np.sqrt(2 / np.pi))])])
        else:
            part = self.node("Erf", [self.node("Mul", [x, self.scalar(np.sqrt(0.5))])])
        halved = self.node("Mul", [x, self.scalar(0.5)])
        return self.node("Mul", [halved, self.node("Add", [part, self.scalar(1.0)])])

    def model(
        self, name: str, inputs: Mapping[str, Sequence[int | str]], outputs: Sequence[str]
    ) -> onnx.ModelProto:
        """Return the graph of what was written, of float32 inputs of these shapes."""
        given = [
            helper.make_tensor_value_info(each, TensorProto.FLOAT, list(shape))
            for each, shape in inputs.items()
        ]
        made = [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in outputs]
        graph = helper.make_graph(self.nodes, name, given, made, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
