"""Goldens that are graphs of the vocabulary: one operation, a block, or a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conformance.bounds import Declaration, Format, introduced_bounds, propagated_bound
from conformance.bounds.envelope import deviations
from conformance.graph.evaluation import widened_all
from conformance.graph.onnx_export import to_onnx
from conformance.graph.onnx_graph import OnnxGraph, evaluate
from conformance.judge.replay import stored_error
from golden.case import Bounds
from refimpl import Recording
from refimpl.errors import ShapeError
from refimpl.graph import Graph
from refimpl.ops.operation import Array

OPSET = 21
"""Operator set of the single operations, unless an operator is newer."""
NEWER = {
    **dict.fromkeys(("RMSNormalization", "RotaryEmbedding"), 23),
    **dict.fromkeys(("Swish", "TensorScatter", "Attention"), 24),
    "CumProd": 26,
}
"""Operator → the operator set since which there is one."""
IR_VERSION = 10


# --- one operation --------------------------------------------------------------------------------


def operation_model(
    op_type: str, operands: Sequence[Any], attributes: Mapping[str, Any], fed: int, outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return a model of one node.

    Parameters
    ----------
    operands
        Arrays; None where absent. The first ``fed`` are the graph's inputs, the others its initializers.
    """
    names = ["" if x is None else f"x{i}" for i, x in enumerate(operands)]
    present = {name: np.asarray(x) for name, x in zip(names, operands, strict=True) if x is not None}
    inputs = [name for name in names[:fed] if name]
    infos = [_info(name, present[name]) for name in inputs]
    initializers = [numpy_helper.from_array(x, name) for name, x in present.items() if name not in inputs]
    node = helper.make_node(op_type, names, list(outputs), name=op_type, **_attributes(attributes))
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], op_type, infos, made, initializers)
    # The operators that are newer than the set need a newer one; none else may change with ONNX's version.
    opset = NEWER.get(op_type, OPSET)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in attributes.items()
    }


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def of_model(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Graph:
    """Return a model's graph with what it is fed among the initializers, floats widened to float64."""
    graph = OnnxGraph.load(model)
    return Graph(graph.nodes, widened_all({**graph.initializers, **feeds}), outputs=graph.outputs)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Evaluate a model in float64."""
    graph = OnnxGraph.load(model)
    return evaluate(graph, feeds, np.float64, keep=list(graph.outputs))


def operation_bounds(computation: Graph, truth: Mapping[str, Array], form: Format) -> Bounds:
    """Return the rigorous bound of each output of a single operation, computed and stored in ``form``."""
    (node,) = computation.nodes
    operands = node.operands(computation.initializers)
    outputs = [truth[name] for name in node.outputs]
    bounds = introduced_bounds(node.op_type, operands, node.attributes, outputs, Declaration(form, form))
    for name, bound in zip(node.outputs, bounds, strict=True):
        if bound is None and truth[name].dtype.kind == "f":
            raise ShapeError(f"{node.op_type} with {node.attributes} has no bound; choose another call")
    return kept(dict(zip(node.outputs, bounds, strict=True)))


def kept(bounds: Mapping[str, Array | None]) -> Bounds:
    """Return the bounds, float64, without those of outputs that must be equal."""
    return {name: np.asarray(b, np.float64) for name, b in bounds.items() if b is not None and np.any(b)}


# --- recordings -----------------------------------------------------------------------------------


def of_recording(recording: Recording, outputs: Mapping[str, str]) -> Graph:
    """Return a recording's graph with what it was fed among the initializers, and other outputs."""
    fed = {name: recording.tensors[name] for name in recording.inputs.values()}
    return Graph(recording.steps, {**fed, **recording.graph.initializers}, outputs=outputs)


def chain_bounds(computation: Graph, constants: Sequence[str], form: Format) -> Bounds:
    """Return the bounds of a block's outputs by running error analysis; infinite where none is known."""
    stored = _stored(computation.initializers, constants, form)
    errors = {name: np.full(computation.initializers[name].shape, error) for name, error in stored.items()}
    bounds = propagated_bound(
        computation.nodes, computation.initializers, Declaration(form, form), errors=errors
    )[1]
    named = {name: bounds[tensor] for name, tensor in computation.outputs.items()}
    return {name: np.asarray(np.inf) if bound is None else bound for name, bound in named.items()}


def _stored(tensors: Mapping[str, Array], constants: Sequence[str], form: Format) -> dict[str, float]:
    """Return by how much a candidate's copy of each inexact constant may be off."""
    errors = {name: stored_error(tensors[name], form, computed=True) for name in constants}
    return {name: error for name, error in errors.items() if error}


SAMPLES = 48
"""Perturbed runs behind a noise bound."""
MULTIPLE = 4.0
"""How many root mean squares of its deviations an element may deviate."""
FLOOR = 0.25
"""Part of the tensor's root mean square below which no element's is taken to be."""


def noise_bounds(recording: Recording, outputs: Mapping[str, str], form: Format) -> Bounds:
    """Return how far rounding is seen to carry each element of a network's tensors (Monte Carlo, seeded).

    `MULTIPLE` times the element's root mean square over `SAMPLES` runs, or `FLOOR` of the whole tensor's if
    that is more: an element at zero behind a ReLU may leave it in a run that was not drawn.
    """
    squares = {name: np.zeros(recording.tensors[tensor].shape) for name, tensor in outputs.items()}
    named, stored = (
        replace(recording, outputs=dict(outputs)),
        _stored(recording.tensors, recording.constants, form),
    )
    for sample in deviations(named, Declaration(form, form), samples=SAMPLES, stored=stored):
        for name, deviation in sample.items():
            squares[name] += deviation**2
    return {name: MULTIPLE * _not_below_floor(np.sqrt(total / SAMPLES)) for name, total in squares.items()}


def _not_below_floor(size: Array) -> Array:
    return np.asarray(np.maximum(size, FLOOR * np.sqrt(np.mean(size * size))))


def serialised(recording: Recording, name: str) -> bytes:
    """Return a float32 recording as an ONNX file."""
    return to_onnx(recording, name).SerializeToString(deterministic=True)
