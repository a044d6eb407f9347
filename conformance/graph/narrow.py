"""Which tensors of a graph are stored in less than float32, told by its constants, casts and declarations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from conformance.graph.onnx_graph import OnnxGraph
from refimpl.graph import Node
from refimpl.ops import ONNX_DTYPES

_BFLOAT16 = onnx.TensorProto.BFLOAT16


def narrow_tensors(graph: OnnxGraph) -> frozenset[str]:
    """Return the tensors that are float16 or bfloat16.

    A node's results are where one of its operands is, unless it casts. Of an operator whose results are of
    another type than its operands they are said to be, too, which is on the safe side.
    """
    declared = {name: info.dtype for name, info in graph.declared.items()}
    narrow = {name for name, array in graph.initializers.items() if _is_narrow(array.dtype)}
    narrow |= {name for name, dtype in declared.items() if dtype is not None and _is_narrow(dtype)}
    narrow |= graph.bfloat16
    for node in graph.nodes:
        if _makes_narrow(node, narrow):
            narrow.update(name for name in node.outputs if name)
    return frozenset(narrow)


def _makes_narrow(node: Node, narrow: set[str]) -> bool:
    if node.op_type == "Cast":
        code = node.attributes["to"]
        return code == _BFLOAT16 or _is_narrow(np.dtype(ONNX_DTYPES.get(code, np.float64)))
    given = node.inputs[1:2] if node.op_type == "CastLike" else node.uses
    return not narrow.isdisjoint(given)


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" and dtype.itemsize < np.dtype(np.float32).itemsize
