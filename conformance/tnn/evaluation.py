"""A TNN graph evaluated on the operations of `refimpl`, in any float dtype: what the converted files *mean*.

What each layer computes stands in `conformance.tnn.meaning`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from conformance.graph.evaluation import as_tuple, run
from conformance.graph.output_sizes import MOST_IN_ALL
from conformance.tnn.graph import TnnGraph
from conformance.tnn.meaning import LINEAR, MEANINGS, Operands, completed_operands
from conformance.tnn.model import RawBuffer
from conformance.tnn.parameters import NO_ACTIVATION, AnyConvolution
from conformance.tnn.proto import Layer
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError

Array = NDArray[Any]


def evaluate(graph: TnnGraph, inputs: Mapping[str, Array], dtype: DTypeLike = np.float64) -> dict[str, Array]:
    """Compute every blob of ``graph``.

    Parameters
    ----------
    graph
        The graph.
    inputs
        One array per input, of the declared shape.
    dtype
        The arithmetic: float64 for the truth, float32 for a candidate.

    Returns
    -------
    dict
        Blob name → array; inputs and the constant map included.

    Raises
    ------
    ShapeError
        An input is missing, unknown or of another shape; or shapes inside the graph do not fit, naming the
        layer.
    UnsupportedOperationError
        A form of a layer that is not evaluated.
    """
    return evaluate_layers(graph, checked_inputs(graph, inputs, dtype), dtype)


def evaluate_layers(graph: TnnGraph, blobs: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Compute every blob from the inputs, which may be recorded tensors."""
    constants = {name: _numbers(buffer, dtype) for name, buffer in graph.constants.items()}
    total = 0

    def compute(layer: Layer, operands: tuple[Array | None, ...]) -> Operands:
        nonlocal total
        made = evaluate_layer(graph, layer, cast(Operands, operands))
        total += sum(array.size for array in made)
        if total > MOST_IN_ALL:
            raise ShapeError(
                f"{layer.type} {layer.name!r}: {total} elements with the layers before it; at most "
                f"{MOST_IN_ALL} of a graph are computed; judge a smaller input"
            )
        return made

    return run(graph.proto.layers, {**blobs, **constants}, compute)


def evaluate_layer(graph: TnnGraph, layer: Layer, operands: Operands) -> Operands:
    """Compute the outputs of one layer from its operands, in their dtype (errors: those of `evaluate`)."""
    if layer.type == "Gather" and not operands:
        raise UnsupportedOperationError(
            f"Gather {layer.name!r} has constant data and indices; fold it in the source"
        )
    try:
        given = _completed(graph, layer, operands)
        result = MEANINGS[layer.type](layer, given, _constants(graph, layer, operands))
    except UnsupportedOperationError:
        raise
    except (MobileInstError, ValueError, TypeError, IndexError, ArithmeticError, MemoryError) as error:
        shapes = [operand.shape for operand in operands]
        raise ShapeError(
            f"{layer.type} {layer.name!r} cannot take operands of shapes {shapes}: {error}"
        ) from error
    outputs = as_tuple(result)
    if len(outputs) != len(layer.outputs):
        raise FileError(
            f"{layer.type} {layer.name!r} makes {len(outputs)} blobs, the proto lists {len(layer.outputs)}"
        )
    return outputs


def magnitude(graph: TnnGraph, layer: Layer, operands: Operands, results: Operands) -> Array:
    """Return how large the numbers are that a layer adds up, per output element: the scale of its rounding.

    For linear layers, the layer on absolute operands and constants (abs(W) ∗ abs(x) + abs(b)); for others the
    largest number among operands and results.
    """
    if layer.type not in LINEAR:
        sizes = [np.abs(array.astype(np.float64)) for array in (*operands, *results)]
        return np.full((), max(float(size.max(initial=0, where=np.isfinite(size))) for size in sizes))
    plain = layer
    if isinstance(layer.parameters, AnyConvolution):
        without = dataclasses.replace(layer.parameters, activation=NO_ACTIVATION)
        plain = dataclasses.replace(layer, parameters=without)
    absolute = {role: np.abs(values) for role, values in _constants(graph, layer, operands).items()}
    given = tuple(np.abs(operand) for operand in _completed(graph, layer, operands))
    return cast(Array, MEANINGS["Add" if layer.type == "Sub" else layer.type](plain, given, absolute))


def unread_constants(graph: TnnGraph) -> dict[str, RawBuffer]:
    """Return the constants of the map that no layer reads."""
    read = {name for layer in graph.proto.layers for name in layer.inputs}
    return {name: buffer for name, buffer in graph.constants.items() if name not in read}


def _completed(graph: TnnGraph, layer: Layer, operands: Operands) -> Operands:
    """Return the operands, those of an Einsum with what the converter left out of its line."""
    if layer.type != "Einsum":
        return operands
    unread = [_numbers(buffer, operands[0].dtype) for buffer in unread_constants(graph).values()]
    return completed_operands(layer, operands, unread)


def _constants(graph: TnnGraph, layer: Layer, operands: Operands) -> dict[str, Array]:
    resource = graph.resources.get(layer.name)
    dtype = next((operand.dtype for operand in operands if operand.dtype.kind == "f"), np.dtype(np.float64))
    return {} if resource is None else {role: _numbers(v, dtype) for role, v in resource.buffers.items()}


def checked_inputs(graph: TnnGraph, inputs: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Return the inputs in the arithmetic's dtype; raise `ShapeError` unless they are those of the graph."""
    declared = {declaration.name: declaration.dims for declaration in graph.proto.inputs}
    if set(inputs) != set(declared):
        raise ShapeError(f"inputs {sorted(inputs)}, the graph takes {sorted(declared)}")
    for name, dims in declared.items():
        if np.shape(inputs[name]) != dims:
            raise ShapeError(f"input {name!r} has shape {np.shape(inputs[name])}, the graph takes {dims}")
    return {name: np.asarray(inputs[name]).astype(dtype) for name in declared}


def _numbers(buffer: RawBuffer, dtype: DTypeLike) -> Array:
    """Return a constant in the arithmetic's dtype; integers (indices) stay integers."""
    numbers = buffer.numbers()
    return numbers.astype(dtype) if np.issubdtype(numbers.dtype, np.floating) else numbers
