"""An export that survives `onnx2tnn`: nothing is computed from constants, implicit, or unknown to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from conformance.graph.evaluation import evaluate_node, run
from conformance.graph.onnx_graph import OnnxGraph
from conformance.tnn.lint import lint
from conformance.tnn.text import write_input
from refimpl import __version__
from refimpl.errors import ConfigurationError
from refimpl.graph import Node

Array = NDArray[Any]

EXPLICIT: dict[str, dict[str, Any]] = {
    "Conv": {"dilations": [1, 1], "group": 1, "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "AveragePool": {"ceil_mode": 0, "count_include_pad": 0, "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "MaxPool": {"ceil_mode": 0, "dilations": [1, 1], "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "Softmax": {"axis": -1},
    "LayerNormalization": {"axis": -1, "epsilon": 1e-5},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    "ReduceMean": {"keepdims": 1},
}
"""Attributes that are written even where ONNX has a default: the converter's differ, or it has none."""

CONVERTED = frozenset(
    [
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Conv",
        "Div",
        "Gather",
        "Gemm",
        "GlobalAveragePool",
        "HardSigmoid",
        "LayerNormalization",
        "MatMul",
        "MaxPool",
        "Mul",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators that the converter has been seen to convert rightly, in the forms the reference writes."""


def for_tnn(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite one of our exports for the converter.

    What depends on no input (the queries' expansion, split and transposed weights, position embeddings) is
    computed; attributes are explicit; names hold no ``/`` and ``:``, which dumps cannot show.

    Parameters
    ----------
    model
        A model of `conformance.graph.onnx_export`, float32, batch norms folded.

    Raises
    ------
    ConfigurationError
        An operator that does not convert, or a construct that `lint` finds.
    """
    graph = OnnxGraph.load(model)
    fixed = _computed(graph)
    left = [node for node in model.graph.node if not set(node.output) <= set(fixed)]
    unknown = sorted({node.op_type for node in left} - CONVERTED)
    if unknown:
        raise ConfigurationError(
            f"--target tnn: this network needs {', '.join(unknown)}, which the converter was not seen to "
            "convert; choose a MobileInst configuration"
        )
    result = _rebuilt(model, left, fixed)
    findings = lint(result, "tnn")
    if findings:
        raise ConfigurationError(f"--target tnn: {findings[0]}")
    return result


def _computed(graph: OnnxGraph) -> dict[str, Array]:
    """Return every tensor that depends on no input, computed in float64, in its own dtype."""
    dependent = graph.dependent(graph.inputs.values())
    fixed = [node for node in graph.nodes if dependent.isdisjoint(node.outputs)]
    return run(fixed, graph.initializers, _narrow)


def _narrow(node: Node, operands: Sequence[Array | None]) -> list[Array]:
    """Compute a node in float64 and round its results to the dtype of its operands."""
    dtype = next((x.dtype for x in operands if x is not None and x.dtype.kind == "f"), None)
    outputs = evaluate_node(node, operands, np.float64)
    return [y.astype(dtype) if dtype is not None and y.dtype.kind == "f" else y for y in outputs]


def _rebuilt(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], fixed: Mapping[str, Array]
) -> onnx.ModelProto:
    names = _plain_names(model, nodes)
    made = [_node(node, names) for node in nodes]
    used = dict.fromkeys(name for node in nodes for name in node.input if name in fixed)
    arrays = [numpy_helper.from_array(np.asarray(fixed[name], order="C"), names[name]) for name in used]
    inputs = [item for item in model.graph.input if item.name not in fixed]
    graph = helper.make_graph(made, model.graph.name, inputs, list(model.graph.output), arrays)
    result = helper.make_model(
        graph,
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=__version__,
    )
    onnx.checker.check_model(result, full_check=True)
    return onnx.shape_inference.infer_shapes(result, strict_mode=True)


def _plain_names(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, str]:
    """Return a name without ``/`` and ``:`` for every tensor and node; the graph's own stay."""
    kept = {item.name for item in (*model.graph.input, *model.graph.output)}
    names = {name: name for name in kept}
    taken = set(kept)
    for name in dict.fromkeys(n for node in nodes for n in (*node.input, *node.output, node.name) if n):
        if name in names:
            continue
        plain, number = name.replace("/", ".").replace(":", "."), 1
        while plain in taken:
            number += 1
            plain = f"{name.replace('/', '.').replace(':', '.')}.{number}"
        names[name] = plain
        taken.add(plain)
    return names


def _node(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return helper.make_node(
        node.op_type,
        [names[name] if name else "" for name in node.input],
        [names[name] for name in node.output],
        name=names.get(node.name, node.name),
        **{**EXPLICIT.get(node.op_type, {}), **attributes},
    )


def golden_input_path(path: Path) -> Path:
    """Return where the golden input of a model stands: beside it, as `verify` looks for it."""
    return path.with_suffix(".in.txt")


def write_golden_input(path: Path, images: Array) -> None:
    """Write the input text that TNNTest reads, beside the model."""
    write_input(golden_input_path(path), {"images": images})
