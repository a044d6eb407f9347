"""PyTorch's float64 operators as a second source: ONNX semantics in PyTorch's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conformance.graph.evaluation import as_tuple, run
from conformance.graph.pytorch_replay import given_attributes, import_torch, operators
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array


def computed(computation: Graph) -> dict[str, Array] | None:
    """Run a computation on PyTorch's operators; None if one has no translation with these attributes."""
    torch = import_torch()
    calls = operators()
    given = {name: torch.from_numpy(np.array(x)) for name, x in computation.initializers.items()}

    def translated(node: Node, operands: Sequence[Any]) -> tuple[Any, ...]:
        if node.op_type not in calls:
            raise UnsupportedOperationError(f"{node.op_type} is not translated to PyTorch")
        attributes = given_attributes(node.op_type, node.attributes)
        return as_tuple(calls[node.op_type](*operands, **attributes))

    try:
        values = run(computation.nodes, given, translated)
    except (UnsupportedOperationError, TypeError):
        return None
    if not set(computation.outputs.values()) <= set(values):
        return None
    return {name: values[tensor].numpy() for name, tensor in computation.outputs.items()}
