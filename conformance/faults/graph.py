"""A computation as the faults see it: a graph of which shapes and constants are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import named_outputs
from refimpl import Recording
from refimpl.graph import Graph
from refimpl.ops.operation import Array

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ShapedGraph(Graph):
    """A graph of which a run is known.

    Attributes
    ----------
    constants
        Name → value of every tensor that does not depend on the inputs: weights, literals, and what is
        computed from them.
    shapes
        Name → shape of every tensor.
    weights
        Names of the learned arrays.
    """

    constants: Mapping[str, Array]
    shapes: Mapping[str, Shape]
    weights: tuple[str, ...]

    @classmethod
    def of_recording(cls, recording: Recording) -> ShapedGraph:
        """Return the graph of a recorded network."""
        return cls._of(recording.graph, recording.tensors, recording.weights)

    @classmethod
    def of_onnx(cls, graph: OnnxGraph, tensors: Mapping[str, Array]) -> ShapedGraph:
        """Return the graph of an ONNX model of which ``tensors``, the inputs too, are known by name."""
        learned = [name for name, array in graph.initializers.items() if array.dtype.kind == "f"]
        named = [replace(node, outputs=named_outputs(node)) for node in graph.nodes]
        return cls._of(replace(graph, nodes=named), {**graph.initializers, **tensors}, learned)

    @classmethod
    def _of(cls, graph: Graph, tensors: Mapping[str, Array], weights: Iterable[str]) -> ShapedGraph:
        dependent = graph.dependent(graph.inputs.values())
        return cls(
            graph.nodes,
            graph.initializers,
            graph.inputs,
            graph.outputs,
            constants={name: array for name, array in tensors.items() if name not in dependent},
            shapes={name: array.shape for name, array in tensors.items()},
            weights=tuple(weights),
        )
