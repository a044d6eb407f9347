"""PyTorch's float64 operators as a second source: ONNX semantics in PyTorch's words."""

from __future__ import annotations

import numpy as np

from conformance.graph.pytorch_replay import given_attributes, import_torch, operators
from golden.computation import Computation
from refimpl.errors import UnsupportedOperationError
from refimpl.ops.operation import Array


def computed(computation: Computation) -> dict[str, Array] | None:
    """Run a computation on PyTorch's operators; None if one has no translation with these attributes."""
    torch = import_torch()
    calls = operators()
    values = {name: torch.from_numpy(np.array(x)) for name, x in computation.operands.items()}
    for node in computation.nodes:
        operands = [values[name] if name else None for name in node.inputs]
        if node.op_type not in calls:
            return None
        try:
            result = calls[node.op_type](*operands, **given_attributes(node.op_type, node.attributes))
        except (UnsupportedOperationError, TypeError):
            return None
        values.update(zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=False))
    if not set(computation.outputs.values()) <= set(values):
        return None
    return {name: values[tensor].numpy() for name, tensor in computation.outputs.items()}
