"""Models that ONNX Runtime has optimised and saved, with operators of its own: judged as any other."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_models
import pytest

from conformance.candidates.onnx_runtime import LEVELS, OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.judge.nodes import judge_nodes
from conformance.pictures.graph_inputs import graph_inputs
from conformance.silent_onnxruntime import onnxruntime

MODELS = {
    "residual": (onnx_models.residual_network(), ["2x3x32x32"], {"FusedConv"}),
    "mobile": (onnx_models.mobile_network(), [], {"FusedConv"}),
    "quantised": (onnx_models.quantised_network(), [], {"FusedConv"}),
    "transformer": (onnx_models.transformer(), [], {"FusedMatMul", "SkipLayerNormalization", "Gelu"}),
}
"""Name → model, shapes of its inputs, what ONNX Runtime makes of it."""


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """Have a model optimised and saved."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = LEVELS["extended"]
    options.optimized_model_filepath = str(folder / "saved.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return folder / "saved.onnx"


@pytest.mark.parametrize("name", MODELS)
def test_every_node_is_judged_and_right(name: str, tmp_path: Path) -> None:
    model, shapes, fused = MODELS[name]
    graph = OnnxGraph.load(saved(model, tmp_path))
    own = {node.op_type for node in graph.model.graph.node if node.domain == "com.microsoft"}
    assert fused <= own
    report = verify_graph(
        OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), graph_inputs(graph, shapes=shapes)
    )
    report.raise_on_failure()
    (item,) = report.inputs
    made = {output for node in graph.model.graph.node for output in node.output if output}
    assert {row.name for row in item.nodes} == made
    assert {row.verdict for row in [*item.nodes, *item.outputs]} == {"pass"}


@pytest.mark.parametrize("name", MODELS)
def test_a_fused_node_that_is_wrong_is_named(name: str, tmp_path: Path) -> None:
    model, shapes, fused = MODELS[name]
    graph = OnnxGraph.load(saved(model, tmp_path))
    candidate = OnnxRuntimeGraph(graph, RuntimeOptions(threads=1))
    tensors = candidate.capture(feeds := graph_inputs(graph, shapes=shapes))
    last = [node.output[0] for node in graph.model.graph.node if node.op_type in fused][-1]
    tensors[last] = tensors[last] * tensors[last].dtype.type(1 + 1e-3)
    rows = judge_nodes(graph, feeds, tensors, candidate.declaration)
    assert next(row.name for row in rows if row.verdict == "fail") == last
