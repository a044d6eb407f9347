"""Does the runtime compute its own graph? Every node replayed in float64 on the operands the candidate itself
fed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from conformance.bounds import CPU, FLOAT32, Format, Runtime, introduced_bounds
from conformance.detail import Spotlight
from conformance.onnx_file import Node
from conformance.onnx_graph import OnnxGraph, evaluate_node
from conformance.report import Comparison
from conformance.utilisation import hides_a_fault, worst_of
from refimpl.ops.operation import Array

SUMS = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "MatMul",
        "Gemm",
        "Einsum",
        "ReduceSum",
        "ReduceMean",
        "AveragePool",
        "GlobalAveragePool",
    ]
)
"""Operations that sum up many products or terms."""


def judge_nodes(
    graph: OnnxGraph,
    inputs: Mapping[str, Array],
    tensors: Mapping[str, Array],
    *,
    arithmetic: Format = FLOAT32,
    storage: Format = FLOAT32,
    runtime: Runtime = CPU,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Comparison]:
    """Judge every node output that was captured, in order.

    Parameters
    ----------
    graph
        The candidate's graph, of MobileInst or not.
    inputs
        What the candidate was fed, by name.
    tensors
        What it computed, by name; a node whose operands or outputs are not among them is not judged.
    arithmetic, storage
        The formats the candidate is declared to compute and to store in.
    runtime
        How well its special functions are declared to approximate.
    progress
        Called with the number of nodes done and of all.
    """
    known = {**graph.initializers, **inputs, **tensors}
    rows = []
    spotlight = Spotlight()
    for count, node in enumerate(graph.nodes):
        if all(name in known for name in node.inputs if name):
            rows += _judge(node, known, arithmetic, storage, runtime, spotlight)
        progress(count + 1, len(graph.nodes))
    return spotlight.placed(rows)


def _judge(
    node: Node,
    known: Mapping[str, Array],
    arithmetic: Format,
    storage: Format,
    runtime: Runtime,
    spotlight: Spotlight,
) -> list[Comparison]:
    operands = tuple(_widened(known[name]) if name else None for name in node.inputs)
    truths = evaluate_node(node, operands, np.float64)
    declared = (node.op_type, operands, node.attributes, truths, arithmetic, storage)
    bounds = introduced_bounds(*declared, runtime=runtime)
    # Only long sums have bounds so loose that a fault could hide in them.
    scales = introduced_bounds(*declared, runtime=runtime, probable=True) if node.op_type in SUMS else bounds
    rows = []
    for name, truth, bound, scale in zip(node.outputs, truths, bounds, scales, strict=False):
        if name in known:
            row = _row(node, name, known[name], truth, bound, spotlight)
            if node.op_type in SUMS and row.verdict == "pass" and bound is not None and scale is not None:
                hidden = hides_a_fault(known[name], truth, bound, scale)
                row = replace(row, verdict="fail", systematic=True) if hidden else row
            rows.append(row)
    return rows


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _row(
    node: Node, name: str, values: Array, truth: Array, bound: Array | None, spotlight: Spotlight
) -> Comparison:
    if values.shape != truth.shape:
        return Comparison(name, node.op_type, name, truth.shape, None, None, None, None, None, None, "fail")
    worst = worst_of(values, truth, np.inf if bound is None else bound)
    largest = worst_of(values, truth, 1.0)
    scale = float(np.abs(truth).max(initial=0.0)) if truth.dtype.kind in "fiu" else 1.0
    if bound is None:
        verdict = "not judged"
    else:
        verdict = "pass" if worst.utilisation <= 1 else "fail"
        spotlight.show(name, values, truth, bound, worst.utilisation)
    return Comparison(
        name=name,
        operation=node.op_type,
        candidate=node.name,
        shape=truth.shape,
        max_abs_error=largest.error,
        relative_error=largest.error / scale if scale else largest.error,
        worst_index=(worst if bound is not None else largest).index,
        introduced_error=largest.error if bound is None else worst.error,
        tolerance=None if bound is None else worst.bound,
        utilisation=None if bound is None else worst.utilisation,
        verdict=verdict,
    )
