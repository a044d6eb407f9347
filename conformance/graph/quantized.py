"""QDQ graphs: floats on paper, integers in the runtimes that take them."""

from __future__ import annotations

from conformance.graph.onnx_graph import OnnxGraph

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
LARGEST_FACTOR = 127
"""Steps from its zero point that Snapdragon's NPU keeps of an 8-bit product's second operand."""


def quantized_results(graph: OnnxGraph) -> list[str]:
    """Return the integers that such a runtime makes, in order: what QuantizeLinear gives."""
    return [node.outputs[0] for node in graph.nodes if node.op_type == QUANTIZE]
