"""Parts of a graph as models of their own, fed with the tensors that were captured around them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx
from onnx import helper, numpy_helper

from conformance.graph.onnx_graph import OnnxGraph, outer_names
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node
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


def is_same_node(one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    """Tell whether two nodes compute the same of the same."""
    attributes = ({each.name: each for each in node.attribute} for node in (one, other))
    alike = (one.op_type, one.domain, one.input[:]) == (other.op_type, other.domain, other.input[:])
    return alike and next(attributes) == next(attributes)


GIVEN = "given/"
"""Before the name of a tensor that is fed in place of what a node makes."""


def feed_each_node(
    model: onnx.ModelProto,
    tensors: Mapping[str, Array],
    wanted: Sequence[str],
    bfloat16: Collection[str] = (),
) -> dict[str, Array]:
    """Have a model's nodes take tensors in place of what other nodes make, and return what it is fed so.

    Parameters
    ----------
    model
        Is changed.
    tensors
        Name → array; what nodes make under other names they still take from one another.
    wanted
        The model's outputs instead of its own; what is not needed for them is left out.
    bfloat16
        Which of the tensors are of this type, which NumPy has not.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output}.intersection(tensors)
    needed, used, kept = set(wanted), dict[str, None](), list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            used.update(dict.fromkeys(_taken(node, made)))
            needed.update([*node.input, *outer_names(node)])
            kept.append(node)
    for field in (graph.node, graph.output):
        del field[:]
    graph.node.extend(reversed(kept))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    for name in used:
        info = _value(GIVEN + name, tensors[name])
        if name in bfloat16:
            info.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
        graph.input.append(info)
    return {GIVEN + name: tensors[name] for name in used}


def given_to_each(model: onnx.ModelProto, wanted: Sequence[str]) -> dict[str, set[str]]:
    """Return of which given tensors each of some is made, in a model of `feed_each_node`.

    Not all have a tensor of the same name in front of them: a runtime names its own between.
    """
    reached: dict[str, set[str]] = {}
    for node in model.graph.node:
        taken = {*node.input, *outer_names(node)}
        given = {name.removeprefix(GIVEN) for name in taken if name.startswith(GIVEN)}
        for name in node.output:
            reached[name] = given.union(*(reached[each] for each in taken if each in reached))
    return {name: reached[name] for name in wanted}


def _taken(node: onnx.NodeProto, names: Collection[str]) -> Iterator[str]:
    """Have a node, and the graphs within it, take given tensors of these names; yield those it takes."""
    for place, name in enumerate(node.input):
        if name in names:
            node.input[place] = GIVEN + name
            yield name
    for graph in (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)):
        for inner in graph.node:
            yield from _taken(inner, names)


def _value(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
