"""Operators that ONNX itself defines by others: a node of one becomes the nodes of its function's body."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, inliner

from refimpl.errors import UnsupportedOperationError

Types = Mapping[str, onnx.TypeProto]
"""Tensor → its type, as far as ONNX's inference finds it."""


def has_body(proto: onnx.NodeProto, opset: int) -> bool:
    """Tell whether ONNX defines a node's operator by a function."""
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, "" if proto.domain == "ai.onnx" else proto.domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def body_of(
    proto: onnx.NodeProto, name: str, imports: list[onnx.OperatorSetIdProto], types: Types
) -> list[onnx.NodeProto]:
    """Return the body of a node's function, with the node's operands and results.

    Parameters
    ----------
    proto
    name
        Prefix of the tensors between, and of the nodes.
    imports
        The model's operator sets.
    types
        Of the operands: bodies depend on them.

    Raises
    ------
    UnsupportedOperationError
        The type of an operand is not known, or ONNX has no body for these.
    """
    unknown = [each for each in proto.input if each and each not in types]
    if unknown:
        raise UnsupportedOperationError(f"is a function of ONNX's, but the types of {unknown} are not known")
    operands = [
        onnx.ValueInfoProto(name=each, type=types[each]) for each in dict.fromkeys(proto.input) if each
    ]
    made = [onnx.ValueInfoProto(name=each) for each in proto.output if each]
    graph = helper.make_graph([_with_defaults(proto, imports)], "one", operands, made)
    # An absent operand is asked for its type, too.
    graph.value_info.append(helper.make_tensor_value_info("", onnx.TensorProto.FLOAT, None))
    model = helper.make_model(graph, opset_imports=imports)
    try:
        flat = inliner.inline_selected_functions(
            model, [(proto.domain, proto.op_type)], exclude=False, inline_schema_functions=True
        )
    except RuntimeError as error:
        raise UnsupportedOperationError(f"its function has no body for these operands: {error}") from error
    nodes = list(flat.graph.node)
    if any((node.domain, node.op_type) == (proto.domain, proto.op_type) for node in nodes):
        raise UnsupportedOperationError("no such operation")
    _keep_samples(nodes)
    inner = {each for node in nodes for each in (*node.input, *node.output)} - {*proto.input, *proto.output}
    names = {each: f"{name}/{each}" for each in inner if each}
    return [renamed(node, f"{name}/{place}/{node.op_type}", names) for place, node in enumerate(nodes)]


def _keep_samples(nodes: list[onnx.NodeProto]) -> None:
    """Squeeze only the axis that is put back: of one sample, ONNX's AffineGrid squeezes the samples' too."""
    for attribute in (each for node in nodes for each in node.attribute):
        within = attribute.g.node
        axes = [each.input[1] for each in within if each.op_type == "Unsqueeze"]
        for each in within:
            if each.op_type == "Squeeze" and len(each.input) == 1 and axes:
                each.input.append(axes[0])


def _with_defaults(proto: onnx.NodeProto, imports: list[onnx.OperatorSetIdProto]) -> onnx.NodeProto:
    """Return a node with ONNX's defaults filled in, which the inliner leaves open in a body."""
    opset = next(
        (each.version for each in imports if each.domain == proto.domain), onnx.defs.onnx_opset_version()
    )
    filled = onnx.NodeProto()
    filled.CopyFrom(proto)
    given = {attribute.name for attribute in proto.attribute}
    for name, attribute in onnx.defs.get_schema(proto.op_type, opset, proto.domain).attributes.items():
        if name not in given and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            filled.attribute.append(attribute.default_value)
    return filled


def renamed(node: onnx.NodeProto, name: str, names: Mapping[str, str]) -> onnx.NodeProto:
    """Return a node of a body under names that no other has, in its subgraphs too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = name
    for listed in (copy.input, copy.output):
        changed = [names.get(each, each) for each in listed]
        del listed[:]
        listed.extend(changed)
    for attribute in copy.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            within = [renamed(each, each.name, names) for each in graph.node]
            del graph.node[:]
            graph.node.extend(within)
            for output in graph.output:
                output.name = names.get(output.name, output.name)
    return copy


def inferred_types(model: onnx.ModelProto) -> Types:
    """Return the types that ONNX's inference finds, of graphs without their weights' numbers."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    for fieldname in ("node", "input", "output", "value_info"):
        getattr(light.graph, fieldname).extend(getattr(model.graph, fieldname))
    light.graph.name = "types"
    known = {info.name for info in light.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in known:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            light.graph.input.append(info)
    try:
        graph = onnx.shape_inference.infer_shapes(light).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = light.graph
    infos = (*graph.input, *graph.value_info, *graph.output)
    return {info.name: info.type for info in infos if info.HasField("type")}
