"""How long the axes of what a graph's nodes make are, known while the graph is being written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TypeProto, defs, helper, numpy_helper, shape_inference

from conformance.graph.opset import LATEST
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

Lengths = list[int | None]
"""Of a tensor's axes; None: it is not known."""
SMALL = 64
"""Elements of a tensor that may be a shape."""
OF_SHAPES = ("Add", "Concat", "Div", "Gather", "Mul", "Sub")
"""Operators that shapes are computed with."""


class InferredLengths:
    """ONNX's own inference, one node after the other, as far as somebody asks.

    Parameters
    ----------
    nodes, initializers
        Of the graph; they may grow.
    """

    def __init__(self, nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto]) -> None:
        self.nodes, self.initializers = nodes, initializers
        self.types: dict[str, TypeProto] = {}
        self.values: dict[str, Array] = {}
        self.seen = self.held = 0

    def declare(self, name: str, shape: Sequence[int | str]) -> None:
        """Tell of a graph's input, of floats."""
        self.types[name] = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, list(shape))

    def of(self, name: str) -> Lengths | None:
        """Return the lengths of a tensor's axes; None: not even their number is known."""
        for constant in self.initializers[self.held :]:
            self.types[constant.name] = helper.make_tensor_type_proto(constant.data_type, constant.dims)
            if np.prod(constant.dims, dtype=np.int64) <= SMALL:
                self.values[constant.name] = numpy_helper.to_array(constant)
        for node in self.nodes[self.seen :]:
            self._infer(node)
        self.held, self.seen = len(self.initializers), len(self.nodes)
        return _lengths(self.types[name]) if name in self.types else None

    def _infer(self, node: onnx.NodeProto) -> None:
        given = {name: self.types[name] for name in node.input if name in self.types}
        small = {
            name: numpy_helper.from_array(self.values[name], name) for name in given if name in self.values
        }
        try:
            found = shape_inference.infer_node_outputs(
                defs.get_schema(node.op_type, LATEST),
                node,
                given,
                small,
                opset_imports=[helper.make_opsetid("", LATEST)],
            )
        # What does not fit is refused where it is computed; here it only stays unknown.
        except Exception:
            found = {}
        self.types |= {name: made for name, made in found.items() if made.HasField("tensor_type")}
        self._compute(node)

    def _compute(self, node: onnx.NodeProto) -> None:
        """Keep what a node makes of shapes."""
        name = node.output[0]
        if node.op_type == "Shape":
            lengths = _lengths(self.types[node.input[0]]) if node.input[0] in self.types else None
            if lengths is not None and None not in lengths:
                self.values[name] = np.array(lengths, np.int64)
        elif node.op_type in OF_SHAPES and all(each in self.values for each in node.input):
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            operands = [self.values[each] for each in node.input]
            self.values[name] = OPERATIONS[node.op_type](*operands, **attributes)


def _lengths(made: TypeProto) -> Lengths | None:
    if not made.tensor_type.HasField("shape"):
        return None
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in made.tensor_type.shape.dim]
