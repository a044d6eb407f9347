"""The layers of a TNN graph as a table: what each computes, on which shapes, at which cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.tnn.evaluation import evaluate
from conformance.tnn.graph import TnnGraph
from conformance.tnn.parameters import AnyConvolution
from conformance.tnn.proto import Layer

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerRow:
    """One row.

    Attributes
    ----------
    name, type
        The layer's.
    inputs, outputs
        Blob → shape.
    parameters
        The words of the proto line.
    constants
        Number of stored numbers.
    products
        Multiplications that are added up (multiply-accumulates); 0 for layers without.
    """

    name: str
    type: str
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    parameters: str
    constants: int
    products: int


def layer_table(graph: TnnGraph) -> list[LayerRow]:
    """Return a row per layer, in the order they run.

    The shapes are those of an evaluation on zeros.

    Raises
    ------
    ShapeError
        Shapes inside the graph do not fit; the layer is named.
    UnsupportedOperationError
        A form of a layer that is not evaluated.
    """
    zeros = {item.name: np.zeros(item.dims, np.float32) for item in graph.proto.inputs}
    with np.errstate(all="ignore"):
        shapes = {name: array.shape for name, array in evaluate(graph, zeros, np.float32).items()}
    return [_row(graph, layer, shapes) for layer in graph.proto.layers]


def _row(graph: TnnGraph, layer: Layer, shapes: dict[str, tuple[int, ...]]) -> LayerRow:
    return LayerRow(
        layer.name,
        layer.type,
        {name: shapes[name] for name in layer.inputs},
        {name: shapes[name] for name in layer.outputs},
        " ".join(layer.parameters.write()),
        _stored(graph, layer),
        _products(graph, layer, shapes),
    )


def _stored(graph: TnnGraph, layer: Layer) -> int:
    resource = graph.resources.get(layer.name)
    own = 0 if resource is None else sum(buffer.values.size for buffer in resource.buffers.values())
    return own + sum(graph.constants[name].values.size for name in layer.inputs if name in graph.constants)


def _products(graph: TnnGraph, layer: Layer, shapes: dict[str, tuple[int, ...]]) -> int:
    result = math.prod(shapes[layer.outputs[0]])
    source = shapes[layer.inputs[0]] if layer.inputs else ()
    if isinstance(layer.parameters, AnyConvolution):
        weight = graph.resources[layer.name].buffers["weight"].values.size
        # A transposed convolution multiplies every input element, a plain one makes every output element.
        places = source if layer.type == "Deconvolution" else shapes[layer.outputs[0]]
        return weight * places[0] * math.prod(places[2:])
    if layer.type == "InnerProduct":
        return result * (
            graph.resources[layer.name].buffers["weight"].values.size // shapes[layer.outputs[0]][-1]
        )
    if layer.type == "MatMul":
        # The inner length is the last of the left operand, which may be the constant.
        constant = graph.resources.get(layer.name)
        left = constant.buffers["constant"].values.shape if constant and _is_left(layer) else source
        return result * left[-1]
    return 0


def _is_left(layer: Layer) -> bool:
    return bool(getattr(layer.parameters, "constant_operand", -1) == 0)
