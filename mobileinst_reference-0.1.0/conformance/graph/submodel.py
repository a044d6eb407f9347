"""A part of a graph as a model of its own, fed with the tensors that were captured around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper, numpy_helper

from conformance.graph.onnx_file import Node
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import UnsupportedOperationError
from refimpl.ops.operation import Array


def submodel(
    graph: OnnxGraph, part: Sequence[Node], known: Mapping[str, Array], outputs: Sequence[str]
) -> tuple[onnx.ModelProto, list[str]]:
    """Return a model of some nodes of a graph, in the forms of the file, and the names of its inputs.

    Parameters
    ----------
    graph
    part
        Nodes, in order.
    known
        Name → array: what the nodes may be fed; the graph's initializers stay initializers.
    outputs
        What the model returns, of what the nodes make.

    Raises
    ------
    UnsupportedOperationError
        The graph's loader rewrote one of the nodes, so that the file has no such node.
    """
    made = {name for node in part for name in node.outputs if name}
    protos = [proto for proto in graph.model.graph.node if made.intersection(proto.output)]
    if {name for proto in protos for name in proto.output if name} != made:
        names = ", ".join(node.name for node in part)
        raise UnsupportedOperationError(f"{names}: not nodes of the file, but the latest forms of older ones")
    used = list(dict.fromkeys(name for proto in protos for name in proto.input if name and name not in made))
    initializers = [tensor for tensor in graph.model.graph.initializer if tensor.name in used]
    held = {tensor.name for tensor in initializers}
    # A constant that the loader made from an attribute, or a Constant node outside the part, is fed as one.
    constants = [name for name in used if name not in held and name in graph.initializers]
    initializers += [numpy_helper.from_array(graph.initializers[name], name) for name in constants]
    fed = [name for name in used if name not in held and name not in constants]
    inputs = [_value(name, known[name]) for name in fed]
    results = [
        _value(name, known[name]) if name in known else onnx.ValueInfoProto(name=name) for name in outputs
    ]
    built = helper.make_graph(protos, "part", inputs, results, initializers)
    model = helper.make_model(
        built, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version
    )
    return model, fed


def _value(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
