"""How large a node's results will be, said before memory is taken: a small file can ask for a terabyte."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from conformance.graph.opset import LATEST
from refimpl.errors import ShapeError
from refimpl.graph import Node
from refimpl.ops.operation import Array

MOST_ELEMENTS = 2**28
"""Of one node's results together: 1 GiB as float32."""
MOST_IN_ALL = 2**30
"""Of the results of all nodes."""
SMALL = 64
"""Elements of an operand that may be a shape, a count or a list of axes."""


class Sizes:
    """Adds up what the nodes of a graph make, as ONNX's own inference of shapes has it."""

    def __init__(self) -> None:
        self.total = 0

    def check(self, node: Node, operands: Sequence[Array | None]) -> None:
        """Count a node that is about to be run.

        Raises
        ------
        ShapeError
            Its results, or those of all nodes until now, are too large.
        """
        count = elements(node, operands)
        self.total += count
        if count > MOST_ELEMENTS or self.total > MOST_IN_ALL:
            raise ShapeError(
                f"node {node.name!r} ({node.op_type}) asks for {count} elements, {self.total} with the nodes "
                f"before it; at most {MOST_ELEMENTS} of a node and {MOST_IN_ALL} of a graph are computed; "
                "judge a smaller input"
            )


def elements(node: Node, operands: Sequence[Array | None]) -> int:
    """Return how many elements a node's results have, or its padded input; 0 where ONNX cannot tell."""
    given = {
        name: _narrow(x) for name, x in zip(node.inputs, operands, strict=False) if name and x is not None
    }
    types = {name: _type(array) for name, array in given.items()}
    small = {name: numpy_helper.from_array(x, name) for name, x in given.items() if x.size <= SMALL}
    try:
        found = shape_inference.infer_node_outputs(
            defs.get_schema(node.op_type, LATEST),
            _proto(node),
            types,
            small,
            opset_imports=[helper.make_opsetid("", LATEST)],
        )
    # What does not fit is the operation's to refuse, which says more.
    except Exception:
        return 0
    return max(sum(_count(made) for made in found.values()), _padded(node, operands[0] if operands else None))


def _narrow(array: Array) -> Array:
    """Return an operand with floats as ONNX's: scales and the like are float32."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32 if array.dtype.kind == "f" else None)


def _padded(node: Node, x: Array | None) -> int:
    """Return how many elements the first operand has once padded."""
    pads = node.attributes.get("pads")
    if x is None or not pads or len(pads) != 2 * (x.ndim - 2):
        return 0
    half = len(pads) // 2
    lengths = [size + pads[axis] + pads[axis + half] for axis, size in enumerate(x.shape[2:])]
    return math.prod((*x.shape[:2], *lengths))


def _type(array: Array) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _proto(node: Node) -> onnx.NodeProto:
    attributes = {key: _attribute(value) for key, value in node.attributes.items() if value is not None}
    return helper.make_node(node.op_type, node.inputs, node.outputs, **attributes)


def _attribute(value: Any) -> Any:
    return numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value


def _count(made: onnx.TypeProto) -> int:
    lengths = [axis.dim_value for axis in made.tensor_type.shape.dim if axis.HasField("dim_value")]
    known = made.tensor_type.HasField("shape") and len(lengths) == len(made.tensor_type.shape.dim)
    return math.prod(lengths) if known else 0
