"""Branches that are taken, in their If's place: then whatever runs the graph shows what is inside."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from conformance.graph.function_bodies import renamed
from conformance.graph.onnx_graph import OnnxGraph, names_of


def with_branches(graph: OnnxGraph, taken: Mapping[str, bool]) -> OnnxGraph:
    """Return a graph in which nodes are replaced by one of their branches.

    Parameters
    ----------
    graph
    taken
        Name of an If node → whether its condition holds.
    """
    makers = {node.outputs[0]: node.name for node in graph.nodes if node.name in taken}
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:]
    for proto in graph.model.graph.node:
        name = makers.get(proto.output[0]) if proto.op_type == "If" else None
        if name is None:
            model.graph.node.append(proto)
        else:
            _replace(model.graph, proto, name, "then_branch" if taken[name] else "else_branch")
    return OnnxGraph.load(model, partly=bool(graph.unknown))


def _replace(graph: onnx.GraphProto, proto: onnx.NodeProto, name: str, branch: str) -> None:
    """Add a branch's nodes and initializers, under the names that they have when written out."""
    body = next(attribute.g for attribute in proto.attribute if attribute.name == branch)
    inner = [tensor.name for tensor in body.initializer]
    inner += [output for node in body.node for output in node.output if output]
    prefix = f"{name}/{branch}"
    names = {each: f"{prefix}/{each}" for each in inner}
    for tensor in body.initializer:
        graph.initializer.append(tensor)
        graph.initializer[-1].name = names[tensor.name]
    called = names_of(body)
    graph.node.extend(
        renamed(node, f"{prefix}/{own}", names) for node, own in zip(body.node, called, strict=True)
    )
    for made, output in zip(body.output, proto.output, strict=False):
        if output:
            inside = names.get(made.name, made.name)
            graph.node.append(helper.make_node("Identity", [inside], [output], name=f"{output}/Identity"))
