"""QDQ graphs: floats on paper, integers in the runtimes that take them."""

from __future__ import annotations

from conformance.graph.onnx_graph import OnnxGraph
from refimpl.graph import Node

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
LARGEST_FACTOR = 127
"""Steps from its zero point that Snapdragon's NPU keeps of an 8-bit product's second operand."""

MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather")
"""Operators whose results are their operand's elements: quantised, the same integers."""


def is_quantized(graph: OnnxGraph) -> bool:
    """Tell whether a graph goes through integers."""
    return any(node.op_type in (QUANTIZE, DEQUANTIZE) for node in graph.nodes)


def quantized_results(graph: OnnxGraph) -> list[str]:
    """Return the integers that such a runtime makes, in order: what QuantizeLinear gives."""
    return [node.outputs[0] for node in graph.nodes if node.op_type == QUANTIZE]


def joined_convolutions(graph: OnnxGraph, concat: Node) -> list[Node]:
    """Return the convolutions whose integer results are joined, if all are of the same integers."""
    found = [_convolution(graph, name) for name in concat.uses]
    convolutions = [node for node in found if node is not None]
    sources = {maker.inputs[0] for node in convolutions if (maker := graph.producer(node.inputs[0]))}
    return convolutions if len(convolutions) == len(found) and len(sources) == 1 else []


def _convolution(graph: OnnxGraph, name: str) -> Node | None:
    """Return the convolution whose result, made integers, a tensor is; None of anything else."""
    for op_type in (DEQUANTIZE, QUANTIZE):
        maker = graph.producer(name)
        if maker is None or maker.op_type != op_type:
            return None
        name = maker.inputs[0]
    maker = graph.producer(name)
    return maker if maker is not None and maker.op_type == "Conv" else None


def stored_scale(graph: OnnxGraph, name: str) -> str | None:
    """Return the constant that is the scale of a dequantised constant; None of anything else."""
    maker = graph.producer(name)
    stored = maker is not None and maker.op_type == DEQUANTIZE and {*maker.uses} <= graph.initializers.keys()
    return maker.inputs[1] if maker is not None and stored else None
