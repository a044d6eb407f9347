"""Running a graph: the one loop over nodes, the one call of an operation.

With a ``dtype``, at least this precision everywhere: narrower floats are widened, and a Cast to a narrower
float type becomes one to this type, so a replay in float64 loses nothing on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import DTypeLike

from refimpl.errors import MobileInstError, ShapeError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops import OPERATIONS, layer_normalization_with_statistics, max_pool_with_indices
from refimpl.ops.operation import Array

T = TypeVar("T")
N = TypeVar("N", bound=Node)

_ALL_OUTPUTS: dict[str, Callable[..., Any]] = {
    "MaxPool": max_pool_with_indices,
    "LayerNormalization": layer_normalization_with_statistics,
}
"""What computes an operator when more than its first output is wanted."""

_FLOAT_CODES = {1: 4, 10: 2, 11: 8, 16: 2}
"""ONNX's float types → their size in bytes."""


def run(
    nodes: Sequence[N],
    tensors: Mapping[str, T],
    compute: Callable[[N, tuple[T | None, ...]], Sequence[T]],
    keep: Collection[str] | None = None,
) -> dict[str, T]:
    """Run nodes in order.

    Parameters
    ----------
    nodes
        In topological order.
    tensors
        Name → what no node makes.
    compute
        Makes a node's outputs of its operands, None where absent: `evaluate_node`, or what perturbs, bounds
        or translates it.
    keep
        Return only these, and free every other tensor after its last use. None: all, those given included.
    """
    values = dict(tensors)
    last_use = {name: node for node in nodes for name in (*node.inputs, *node.outputs)}
    for node in nodes:
        made = compute(node, node.operands(values))
        values.update((name, x) for name, x in zip(node.outputs, made, strict=False) if name)
        for name in () if keep is None else {*node.inputs, *node.outputs}.difference(keep):
            if last_use[name] is node:
                values.pop(name, None)
    return values if keep is None else {name: x for name, x in values.items() if name in keep}


def evaluate_node(
    node: Node, operands: Sequence[Array | None], dtype: DTypeLike | None = None
) -> tuple[Array, ...]:
    """Run one node on its operands, None where absent, and return its outputs.

    The operands are taken as they are; ``dtype`` holds for the attributes.

    Raises
    ------
    MobileInstError
        The operands do not fit the operation; the message names the node and their shapes.
    """
    function = OPERATIONS.get(node.op_type)
    if function is None:
        raise UnsupportedOperationError(f"node {node.name!r} ({node.op_type}) is no single operation")
    if len([name for name in node.outputs if name]) > 1:
        function = _ALL_OUTPUTS.get(node.op_type, function)
    try:
        # Overflow and NaN are results like others here; who compares them decides.
        with np.errstate(all="ignore"):
            outputs = as_tuple(function(*operands, **_attributes(node, dtype)))
    except (MobileInstError, ValueError, TypeError, IndexError, ArithmeticError, MemoryError) as error:
        kind = type(error) if isinstance(error, MobileInstError) else ShapeError
        raise kind(f"node {node.name!r} ({node.op_type}) on {_described(operands)}: {error}") from error
    if len(outputs) < len(node.outputs):
        raise UnsupportedOperationError(
            f"node {node.name!r} ({node.op_type}) has {len(node.outputs)} outputs, the operation makes "
            f"{len(outputs)}; export the model in evaluation mode"
        )
    return outputs


def as_tuple(result: Any) -> tuple[Any, ...]:
    """Return what an operation made, one tensor or several, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def _described(operands: Sequence[Array | None]) -> str:
    return (
        ", ".join("nothing" if x is None else f"{x.dtype}{list(x.shape)}" for x in operands) or "no operands"
    )


def widened(array: Array, dtype: DTypeLike | None = np.float64) -> Array:
    """Return floats in at least this precision, everything else as it is."""
    if dtype is None or array.dtype.kind != "f":
        return array
    return array.astype(np.promote_types(array.dtype, dtype), copy=False)


def widened_all(arrays: Mapping[str, Array], dtype: DTypeLike | None = np.float64) -> dict[str, Array]:
    """Return the arrays, `widened`."""
    return {name: widened(array, dtype) for name, array in arrays.items()}


def _attributes(node: Node, dtype: DTypeLike | None) -> dict[str, Any]:
    if dtype is None:
        return node.attributes
    return {name: _widened_attribute(name, value, np.dtype(dtype)) for name, value in node.attributes.items()}


def _widened_attribute(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, np.ndarray):
        return widened(value, dtype)
    if name in ("to", "dtype", "output_dtype", "precision") and _FLOAT_CODES.get(value, 8) < dtype.itemsize:
        return onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return value
