"""Putting a fault into a correct model: the right ONNX node makes way for the wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conformance.faults.catalogue import Fault, Variant
from conformance.faults.graph import ShapedGraph
from refimpl.graph import Node
from refimpl.ops.operation import Array

OPSET = 21
"""Of models that take faults: attributes of older operator sets are inputs."""


@dataclass(frozen=True)
class Injection:
    """A fault with its parameters, at one call of a graph."""

    fault: Fault
    call: Node
    variant: Variant
    graph: ShapedGraph


def injections(fault: Fault, graph: ShapedGraph) -> list[Injection]:
    """Return every way to put a fault into a graph."""
    return [
        Injection(fault, call, variant, graph) for call in graph.nodes for variant in fault.at(graph, call)
    ]


def injected(model: onnx.ModelProto, injection: Injection) -> onnx.ModelProto:
    """Return a model, of operator set 18 or later, with a fault in it.

    The injection is of the model's own graph or of the one it was exported from. Inputs, outputs and other
    tensors keep their names; lengths are declared of the inputs only.
    """
    renamed = {tensor: output for output, tensor in injection.graph.outputs.items()}
    faulty = onnx.ModelProto()
    faulty.CopyFrom(model)
    made = renamed.get(injection.call.outputs[0], injection.call.outputs[0])
    place = next(i for i, node in enumerate(faulty.graph.node) if made in node.output)
    del faulty.graph.node[place]
    for offset, call in enumerate(injection.variant.calls):
        faulty.graph.node.insert(place + offset, _proto(call, renamed))
    _add_constants(faulty, injection.variant.constants)
    _forget_shapes(faulty)
    _sort(faulty)
    return faulty


def _proto(call: Node, renamed: Mapping[str, str]) -> onnx.NodeProto:
    inputs = [renamed.get(name, name) for name in call.inputs]
    outputs = [renamed.get(name, name) for name in call.outputs]
    while inputs and not inputs[-1]:
        inputs.pop()
    attributes = {key: value for key, value in call.attributes.items() if value is not None}
    return helper.make_node(call.op_type, inputs, outputs, name=call.name, **attributes)


def _add_constants(model: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
    for name, array in constants.items():
        stored = array.astype(np.float32) if array.dtype.kind == "f" else array
        model.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(stored).reshape(array.shape), name)
        )


def _forget_shapes(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]
    for output in model.graph.output:
        for length in output.type.tensor_type.shape.dim:
            length.Clear()


def _sort(model: onnx.ModelProto) -> None:
    """Move nodes behind those whose results they use: a wrong wire may come from a later node."""
    rounds = {tensor.name: 0 for tensor in (*model.graph.initializer, *model.graph.input)}
    waiting, placed = list(enumerate(model.graph.node)), []
    while waiting:
        later = []
        for place, node in waiting:
            inputs = [name for name in node.input if name]
            if all(name in rounds for name in inputs):
                after = 1 + max((rounds[name] for name in inputs), default=0)
                rounds.update(dict.fromkeys(node.output, after))
                placed.append((after, place, node))
            else:
                later.append((place, node))
        if len(later) == len(waiting):
            break
        waiting = later
    nodes = [node for *_, node in sorted(placed, key=lambda item: item[:2])] + [node for _, node in waiting]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
