"""An ONNX graph, read strictly, and its evaluation with the operations of `refimpl.ops`.

In float64 the evaluation of a float32 graph is the truth its float32 runs are compared with: initializers and
inputs are the same numbers, widened, and so are the float attributes, which ONNX stores as float32.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike

from conformance.graph import contributed_attention, contributed_quantized  # noqa: F401
from conformance.graph.contributed import MEANINGS, MICROSOFT, WITHOUT_DOMAIN, meant
from conformance.graph.control_flow import Body, Written, check_bodies, is_written_out, makes_sequences
from conformance.graph.evaluation import evaluate_node, run, widened_all
from conformance.graph.function_bodies import body_of, has_body
from conformance.graph.onnx_file import ONNX_DOMAINS, Source, array_of, attribute_value, node_of, read_model
from conformance.graph.opset import FORMS, LATEST, OLDEST, SOFTMAXES, Context, modernised
from conformance.graph.output_sizes import Sizes
from conformance.graph.sequences import ACTS
from refimpl.errors import FileError, ShapeError, UnsupportedOperationError, first_of
from refimpl.graph import Graph, Node
from refimpl.ops import ONNX_DTYPES, OPERATIONS
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class TensorInfo:
    """What a graph declares of an input or output.

    Attributes
    ----------
    name
    dtype
        None if undeclared.
    shape
        Lengths, names of dynamic lengths, None for a length that is not declared; None if the rank is not.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class OnnxGraph(Graph):
    """A graph read from ONNX.

    Every node is in the latest form of its operator (see `conformance.graph.opset`), and the operands that
    older forms held as attributes are initializers; an input with an initializer is not listed.

    Attributes
    ----------
    model
        The model as read: complete, external data loaded, local functions inlined, otherwise as in the file.
    declared
        Input → what is declared of it, in order.
    opset
        The operator set the file was written for, or the latest known.
    unknown
        Name of a node outside the vocabulary → why it is; only if the graph was read partly.
    hidden
        Tensors that its runtime is known not to show.
    """

    model: onnx.ModelProto
    declared: Mapping[str, TensorInfo]
    opset: int
    unknown: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()

    @functools.cached_property
    def within(self) -> frozenset[str]:
        """What no runtime shows: sequences, and what is between the nodes that one of the file became."""
        named = {name for node in self.model.graph.node for name in node.output}
        return self.hidden | frozenset(
            name for node in self.nodes for name in node.outputs if name not in named or makes_sequences(node)
        )

    @property
    def random(self) -> dict[str, str]:
        """Nodes that are random, or have such within: their names, and what is said of them."""
        return {name: why for name, why in self.unknown.items() if _IS_RANDOM in why}

    @functools.cached_property
    def bfloat16(self) -> frozenset[str]:
        """Tensors of this type, which NumPy has not: they are held in float32."""
        code = onnx.TensorProto.BFLOAT16
        if not _mentions(self.model.graph, code):
            return frozenset()
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        infos = (*inferred.input, *inferred.value_info, *inferred.output)
        return frozenset(info.name for info in infos if info.type.tensor_type.elem_type == code)

    @classmethod
    def load(cls, source: Source, *, partly: bool = False) -> OnnxGraph:
        """Read a graph from a path, bytes or a model.

        Parameters
        ----------
        source
        partly
            Keep nodes of unknown operators, if others are known: they are in ``unknown``, and whoever runs
            the graph has to know what they make.

        Raises
        ------
        FileError
            The file is missing, malformed, incomplete, or no valid graph.
        UnsupportedOperationError
            The graph uses what the vocabulary has not; the message lists all of it.
        """
        model = read_model(source)
        graph, opset = model.graph, _opset(model)
        initializers = _initializers(graph)
        context = Context(opset, _ranks(model, opset), known=dict(initializers), model=model)
        unknown: dict[str, str] = {}
        nodes = _in_order(_nodes(graph, context, unknown if partly else None))
        initializers |= context.constants
        declared = {info.name: _info(info) for info in graph.input if info.name not in initializers}
        outputs = [_info(info).name for info in graph.output]
        _check_names(nodes, {*declared, *initializers}, outputs)
        names = ({name: name for name in each} for each in (declared, outputs))
        return cls(nodes, initializers, *names, model=model, declared=declared, opset=opset, unknown=unknown)


# --- loading --------------------------------------------------------------------------------------


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS]
    if not versions:
        domains = ", ".join(entry.domain for entry in model.opset_import)
        raise UnsupportedOperationError(f"the model uses no operator set of ONNX, only {domains}")
    if versions[0] < OLDEST:
        raise UnsupportedOperationError(
            f"the model is of opset {versions[0]}; supported are those from {OLDEST} on"
        )
    # What is newer than the installed ONNX is read by its operators' names.
    return min(int(versions[0]), LATEST)


def _initializers(graph: onnx.GraphProto) -> dict[str, Array]:
    if graph.sparse_initializer:
        names = ", ".join(tensor.values.name for tensor in graph.sparse_initializer)
        raise UnsupportedOperationError(f"sparse initializers are outside the vocabulary: {names}")
    return {tensor.name: array_of(tensor) for tensor in graph.initializer}


def _mentions(graph: onnx.GraphProto, code: int) -> bool:
    """Tell whether an input, a weight or an attribute says a type."""
    declared = (info.type.tensor_type.elem_type for info in graph.input)
    given = (attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "to")
    return code in (*declared, *given, *(tensor.data_type for tensor in graph.initializer))


def _ranks(model: onnx.ModelProto, opset: int) -> dict[str, int]:
    """Return the ranks that shape inference finds, if an older softmax can do with them."""
    if opset >= 13 or not any(node.op_type in SOFTMAXES for node in model.graph.node):
        return {}
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return {}
    infos = (*graph.input, *graph.value_info, *graph.output)
    return {info.name: len(info.type.tensor_type.shape.dim) for info in infos if _has_shape(info)}


def _has_shape(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"))


def _info(info: onnx.ValueInfoProto) -> TensorInfo:
    kind = info.type.WhichOneof("value")
    if kind not in ("tensor_type", None):
        raise UnsupportedOperationError(f"{info.name!r} is of {kind}; expected a tensor")
    dtype = ONNX_DTYPES.get(info.type.tensor_type.elem_type)
    dims = info.type.tensor_type.shape.dim
    shape = tuple(_length(dim) for dim in dims) if _has_shape(info) else None
    return TensorInfo(info.name, None if dtype is None else np.dtype(dtype), shape)


def _length(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value >= 0:  # −1 is how some exporters write an open axis
        return int(dim.dim_value)
    return dim.dim_param or None


class _UnknownOperatorError(UnsupportedOperationError):
    """An operator that a runtime may know."""


def _nodes(graph: onnx.GraphProto, context: Context, unknown: dict[str, str] | None) -> tuple[Node, ...]:
    """Return the nodes in their latest forms; one error lists all that is outside the vocabulary.

    Where ``unknown`` is given, nodes of unknown operators are kept as they are, and noted there.
    """
    nodes: list[Node] = []
    problems: dict[str, list[tuple[str, str]]] = {}
    for name, proto in zip(names_of(graph), graph.node, strict=True):
        try:
            nodes += _accepted(proto, name, context)
        except UnsupportedOperationError as error:
            problems.setdefault(_qualified(proto), []).append((name, str(error)))
            if unknown is not None and isinstance(error, _UnknownOperatorError):
                unknown[name] = str(error)
                nodes.append(_kept(proto, name))
    refused = sum(map(len, problems.values())) - len(unknown or ())
    if problems and (refused or len(unknown or ()) == len(graph.node)):
        raise _outside(problems, len(graph.node))
    return tuple(nodes)


def _kept(proto: onnx.NodeProto, name: str) -> Node:
    """Return a node of an unknown operator; what its subgraphs take from outside are operands, too."""
    inputs = dict.fromkeys([*filter(None, proto.input), *outer_names(proto)])
    return Node(name, _qualified(proto), tuple(inputs), tuple(proto.output))


def outer_names(proto: onnx.NodeProto) -> list[str]:
    """Return the tensors that the subgraphs of a node take from outside of them."""
    found: dict[str, None] = {}
    for attribute in proto.attribute:
        for graph in (attribute.g, *attribute.graphs):
            made = {tensor.name for tensor in (*graph.input, *graph.initializer)}
            made |= {name for node in graph.node for name in node.output}
            used = [name for node in graph.node for name in (*node.input, *outer_names(node))]
            used += [output.name for output in graph.output]
            found.update((name, None) for name in used if name and name not in made)
    return list(found)


def _outside(problems: Mapping[str, Sequence[tuple[str, str]]], nodes: int) -> UnsupportedOperationError:
    """Return the error that counts what is outside the vocabulary by operator, the most frequent first."""
    kinds = sorted(problems.items(), key=lambda pair: -len(pair[1]))
    listed = [
        f"{name} ({operator}): {error}"
        if len(found) == 1
        else f"{operator} ×{len(found)}, first {name}: {error}"
        for operator, found in kinds
        for name, error in found[:1]
    ]
    items = [f"{name} ({operator}): {error}" for operator, found in kinds for name, error in found]
    said = "; ".join(first_of(listed))
    return UnsupportedOperationError(
        f"{len(items)} of {nodes} nodes are outside the vocabulary: {said}"
    ).with_items(items)


def names_of(graph: onnx.GraphProto) -> list[str]:
    """Return a name of its own for each node: the file's, if no other has it."""
    counts = Counter(node.name for node in graph.node)
    return [
        node.name if node.name and counts[node.name] == 1 else _fallback_name(node, index)
        for index, node in enumerate(graph.node)
    ]


def _fallback_name(proto: onnx.NodeProto, index: int) -> str:
    output = next((name for name in proto.output if name), f"node {index}")
    return f"{output}/{proto.op_type}"


def _qualified(proto: onnx.NodeProto) -> str:
    return f"{proto.domain}::{proto.op_type}" if proto.domain not in ONNX_DOMAINS else str(proto.op_type)


DOMAINS_OF_RUNTIMES = frozenset(("ai.onnx.ml", "ai.onnx.preview", "com.microsoft.nchwc"))
"""Domains whose operators ONNX Runtime has, and the vocabulary has not."""

LIKE_ONNX = {("com.microsoft", "QuantizeLinear"), ("com.microsoft", "DequantizeLinear")}
"""Domain and operator of what means the same: ONNX Runtime's quantiser writes 16 bits so below opset 21."""


def _accepted(proto: onnx.NodeProto, name: str, context: Context) -> list[Node]:
    """Return the nodes of the vocabulary that a node is."""
    if proto.op_type not in OPERATIONS and proto.op_type not in FORMS and has_body(proto, context.opset):
        imports = [] if context.model is None else list(context.model.opset_import)
        inner = body_of(proto, name, imports, context.types)
        return [node for each in inner for node in _accepted(each, each.name, context)]
    if any(attribute.HasField("g") or attribute.graphs for attribute in proto.attribute):
        return [_with_bodies(proto, name, context)]
    if proto.op_type in ACTS and proto.domain in ONNX_DOMAINS:
        values = {each.name: attribute_value(each) for each in proto.attribute if each.name != "type"}
        values.pop("dtype", None)
        return [Node(name, proto.op_type, tuple(proto.input), tuple(proto.output), values)]
    contributed = proto.domain == MICROSOFT or proto.op_type in WITHOUT_DOMAIN
    if proto.domain in DOMAINS_OF_RUNTIMES:
        raise _UnknownOperatorError("of another domain than ONNX's")
    if proto.domain not in (*ONNX_DOMAINS, MICROSOFT):
        raise UnsupportedOperationError(
            "of another domain than ONNX's, and no function whose operators are those of the model's opset"
        )
    try:
        node = node_of(proto, name)
        foreign = contributed and (proto.domain, proto.op_type) not in LIKE_ONNX
        if foreign and proto.op_type not in MEANINGS:
            raise _UnknownOperatorError("no such operation")
        forms = meant(node, context) if foreign else modernised(node, context)
    except UnsupportedOperationError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise UnsupportedOperationError(f"malformed operands or attributes: {error}") from error
    for node in forms:
        if node.op_type not in OPERATIONS:
            raise _UnknownOperatorError(RANDOM.get(node.op_type, "no such operation"))
        _check_call(node)
    return forms


_IS_RANDOM = "is random"
RANDOM = {
    "Dropout": f"{_IS_RANDOM}, as in training: export in evaluation mode",
    **dict.fromkeys(("Bernoulli", "Multinomial"), _IS_RANDOM),
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), _IS_RANDOM),
}
"""Operators that are random → what is said of them; of Dropout only those in training mode are left."""


def _with_bodies(proto: onnx.NodeProto, name: str, context: Context) -> Node:
    """Return If, Loop or Scan, its bodies read; the tensors that they take from outside are operands, too."""
    if proto.domain not in ONNX_DOMAINS or proto.op_type not in ("If", "Loop", "Scan"):
        raise _UnknownOperatorError("has subgraphs")
    if proto.op_type == "Scan" and context.opset < 9:
        raise _UnknownOperatorError("Scan of opset 8, which has batches")
    values: dict[str, Any] = {"outer": tuple(outer_names(proto))}
    for attribute in proto.attribute:
        graph = attribute.HasField("g")
        values[attribute.name] = _body(attribute.g, context) if graph else attribute_value(attribute)
    node = Node(name, proto.op_type, (*proto.input, *values["outer"]), tuple(proto.output), values)
    check_bodies(node)
    return node


def _body(graph: onnx.GraphProto, context: Context) -> Body:
    initializers = _initializers(graph)
    inner = Context(context.opset, {}, known={**context.known, **initializers})
    try:
        nodes = _in_order(_nodes(graph, inner, None))
    except UnsupportedOperationError as error:
        raise _UnknownOperatorError(f"in a subgraph, {error}") from error
    inputs, outputs = (tuple(info.name for info in each) for each in (graph.input, graph.output))
    return Body(nodes, {**initializers, **inner.constants}, inputs, outputs)


def _check_call(node: Node) -> None:
    """Raise unless the operation takes these operands and attributes."""
    try:
        _signature(node.op_type).bind(*node.inputs, **node.attributes)
    except TypeError as error:
        raise UnsupportedOperationError(str(error)) from error
    for name, operand in zip(_operands(node.op_type), node.inputs, strict=False):
        if operand == "" and name:
            raise UnsupportedOperationError(f"has no operand {name!r}, which the operation needs")


@functools.cache
def _signature(op_type: str) -> inspect.Signature:
    return inspect.signature(OPERATIONS[op_type])


@functools.cache
def _operands(op_type: str) -> tuple[str, ...]:
    """Return the names of an operation's operands, empty of those that may be absent."""
    parameters = _signature(op_type).parameters.values()
    single = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return tuple(
        "" if each.default is None or "None" in str(each.annotation) else each.name for each in single
    )


def _in_order(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes so that what a node uses is made before it, in the file's order where that is so.

    Raises
    ------
    FileError
        Nodes use each other's results in a circle.
    """
    makers = {name: place for place, node in enumerate(nodes) for name in node.outputs if name}
    needs = [{makers[name] for name in node.uses if name in makers} for node in nodes]
    if all(max(needed, default=-1) < place for place, needed in enumerate(needs)):
        return nodes
    try:
        order = TopologicalSorter(dict(enumerate(needs))).static_order()
        return tuple(nodes[place] for place in order)
    except CycleError as error:
        names = ", ".join(repr(nodes[place].name) for place in error.args[1][:-1])
        raise FileError(f"invalid graph: nodes use each other's results in a circle: {names}") from error


def _check_names(nodes: Iterable[Node], known: set[str], outputs: Iterable[str]) -> None:
    """Raise unless every tensor is made once, before it is used."""
    for node in nodes:
        missing = [name for name in node.inputs if name and name not in known]
        if missing:
            raise FileError(
                f"invalid graph: node {node.name!r} uses {missing}, which no node before it makes"
            )
        twice = [name for name in node.outputs if name in known]
        if twice:
            raise FileError(f"invalid graph: node {node.name!r} makes {twice}, which exists already")
        known.update(name for name in node.outputs if name)
    absent = [name for name in outputs if name not in known]
    if absent:
        raise FileError(f"invalid graph: nothing makes the outputs {absent}")


# --- evaluation -----------------------------------------------------------------------------------


def evaluate(
    graph: OnnxGraph,
    inputs: Mapping[str, Array],
    dtype: DTypeLike | None = None,
    *,
    keep: Collection[str] | None = None,
) -> dict[str, Array]:
    """Run a graph on arrays of the declared dtypes; with ``dtype``, on floats of any width.

    Parameters
    ----------
    dtype : float dtype, optional
        At least this precision everywhere, as in `conformance.graph.evaluation`.
    keep : names, optional
        Return only these, and free every other tensor after its last use. None: all that the nodes make, and
        the outputs.

    Raises
    ------
    ShapeError
        An input is missing, unknown or does not fit; or the operands of a node, which is named; or what it
        makes is too large (`conformance.graph.output_sizes`).
    UnsupportedOperationError
        A node wants what its operation does not compute.
    """
    tensors = widened_all(graph.initializers, dtype) | bound_inputs(graph, inputs, dtype)
    made = {name for node in graph.nodes for name in node.outputs if name}
    wanted = made | set(graph.outputs) if keep is None else _known(keep, made | tensors.keys())
    sizes = Sizes()

    if any(map(is_written_out, graph.nodes)):
        written = Written(tensors, dtype, check=sizes.check)
        for node in graph.nodes:
            written.run(node)
        return {name: written.values[name] for name in wanted if name in written.values}

    def compute(node: Node, operands: tuple[Array | None, ...]) -> tuple[Array, ...]:
        sizes.check(node, operands)
        return evaluate_node(node, operands, dtype)

    return run(graph.nodes, tensors, compute, wanted)


def _known(keep: Collection[str], existing: set[str]) -> set[str]:
    unknown = set(keep) - existing
    if unknown:
        raise ShapeError(f"the graph has no tensor {', '.join(sorted(unknown))}")
    return set(keep)


# --- inputs ---------------------------------------------------------------------------------------


def bound_inputs(graph: OnnxGraph, inputs: Mapping[str, Array], dtype: DTypeLike | None) -> dict[str, Array]:
    """Return the inputs, checked against what the graph declares, and widened."""
    missing = [name for name in graph.inputs if name not in inputs]
    unknown = [name for name in inputs if name not in graph.inputs and name not in graph.initializers]
    if missing or unknown:
        expected = ", ".join(graph.inputs) or "none"
        raise ShapeError(f"inputs missing: {missing}, unknown: {unknown}; the graph takes {expected}")
    lengths: dict[str, int] = {}
    for name, info in graph.declared.items():
        _check_dtype(info, inputs[name], widening=dtype is not None)
        _check_shape(info, inputs[name].shape, lengths)
    return widened_all(inputs, dtype)


def _check_dtype(info: TensorInfo, array: Array, widening: bool) -> None:
    if info.dtype is None or array.dtype == info.dtype:
        return
    if not (widening and array.dtype.kind == info.dtype.kind == "f"):
        raise ShapeError(f"input {info.name!r} is of {array.dtype}; the graph takes {info.dtype}")


def _check_shape(info: TensorInfo, shape: tuple[int, ...], lengths: dict[str, int]) -> None:
    """Raise unless the shape fits; dynamic lengths of one name have one value in all inputs."""
    if info.shape is None:
        return
    bound = [lengths.get(length, length) if isinstance(length, str) else length for length in info.shape]
    fits = len(bound) == len(shape) and all(
        wanted == given for wanted, given in zip(bound, shape, strict=True) if isinstance(wanted, int)
    )
    if not fits:
        raise ShapeError(f"input {info.name!r} has shape {shape}; the graph takes {tuple(bound)}")
    lengths.update(
        (name, given) for name, given in zip(info.shape, shape, strict=True) if isinstance(name, str)
    )
