"""`lint` for Snapdragon's NPU: its own library says which nodes it takes, rules what it computes otherwise.

The rules are of what was measured with QNN 2.51 (docs/snapdragon.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from conformance.bounds import FLOAT16
from conformance.candidates.qnn import Npu, npu_graph
from conformance.graph.findings import CHANGES, ELSEWHERE, FAILS, Finding
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import DEQUANTIZE, LARGEST_FACTOR, joined_convolutions, stored_scale
from conformance.pictures.graph_inputs import graph_inputs
from refimpl.errors import CandidateError, ConfigurationError
from refimpl.graph import Node

CHIP = "snapdragon-8-gen-2"
CONTROL = ("If", "Loop", "Scan")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CENTRAL = range(96, 161)
"""Zero points from which no 8-bit integer is more than 32 steps further than the NPU keeps."""


def lint_for_npu(path: Path, chip: str = CHIP) -> list[Finding]:
    """Return what of a model the NPU refuses, leaves to the CPU or computes otherwise.

    Parameters
    ----------
    path
        The model; nodes outside the vocabulary are taken, too.
    chip
        As after ``qnn:``.

    Raises
    ------
    FileError
        The file is missing, malformed or no valid graph.
    ConfigurationError
        There is no such chip.
    MissingDependencyError
        The extra is not installed.
    """
    npu = Npu.parse(chip)
    graph = OnnxGraph.load(path, partly=True)
    dynamic = list(_dynamic(graph))
    return dynamic or [*_assigned(graph, npu), *_otherwise(graph)]


def _dynamic(graph: OnnxGraph) -> Iterator[Finding]:
    for name, info in graph.declared.items():
        if info.shape is None or not all(isinstance(size, int) for size in info.shape):
            happens = f"its shape is {info.shape}; the NPU needs every length"
            instead = "export with fixed sizes, without dynamic_axes or dynamic_shapes"
            yield Finding("dynamic-input", f"input {name!r}", FAILS, happens, instead)


def _assigned(graph: OnnxGraph, npu: Npu) -> list[Finding]:
    """Run the model once, and say which nodes the NPU did not take."""
    runtime = npu_graph(graph, npu)
    try:
        runtime.run(graph_inputs(graph, [], [], 0))
    except (CandidateError, ConfigurationError) as error:
        return [Finding("refused", "model", FAILS, str(error), "quantise it, or name another chip")]
    happens = "the NPU does not take it; what is before and after it is copied to the CPU and back"
    instead = "express it by operators that the NPU takes, or leave it to what runs after the network"
    # The library does not list what holds other graphs.
    controlling = [(node.name, node.op_type) for node in graph.model.graph.node if node.op_type in CONTROL]
    left = dict.fromkeys([*controlling, *map(tuple, runtime.fallbacks)])
    return [Finding("cpu", f"{op_type} {name!r}", ELSEWHERE, happens, instead) for name, op_type in left]


def _otherwise(graph: OnnxGraph) -> Iterator[Finding]:
    for node in graph.nodes:
        subject = f"{node.op_type} {node.name!r}"
        for rule, is_caught, happens, instead in RULES:
            if is_caught(graph, node):
                yield Finding(rule, subject, CHANGES, happens, instead)


def _is_wide_weight(graph: OnnxGraph, node: Node) -> bool:
    """Tell whether a weight has integers further from its zero point than the NPU keeps."""
    maker = graph.producer(node.inputs[1]) if node.op_type in WEIGHTED else None
    if maker is None or maker.op_type != DEQUANTIZE or not {*maker.uses} <= graph.initializers.keys():
        return False
    array, *point = (graph.initializers[name].astype(np.int64) for name in (maker.uses[0], *maker.uses[2:]))
    if graph.initializers[maker.uses[0]].dtype != np.uint8 or (point and point[0].size != 1):
        return False
    return bool(np.abs(array - (point[0] if point else 0)).max(initial=0) > LARGEST_FACTOR + 1)


def _is_lopsided_factor(graph: OnnxGraph, node: Node) -> bool:
    """Tell whether a product's second operand is of 8-bit activations, not around the middle of its range."""
    maker = graph.producer(node.inputs[1]) if node.op_type == "MatMul" else None
    if maker is None or maker.op_type != DEQUANTIZE or maker.inputs[0] in graph.initializers:
        return False
    point = graph.initializers.get(maker.inputs[2]) if len(maker.inputs) > 2 else None
    return point is not None and point.dtype == np.uint8 and int(point.flat[0]) not in CENTRAL


def _is_mostly_subnormal(graph: OnnxGraph, node: Node) -> bool:
    """Tell whether most numbers of a float bias, zeros aside, are subnormal in float16."""
    bias = graph.initializers.get(node.inputs[2]) if node.op_type in WEIGHTED and node.inputs[2:] else None
    if bias is None or bias.dtype.kind != "f":
        return False
    sizes = np.abs(bias[bias != 0])
    return 2 * np.count_nonzero(sizes < FLOAT16.smallest_normal) > sizes.size


def _joins_convolutions(graph: OnnxGraph, node: Node) -> bool:
    """Tell whether three or more quantised convolutions, of weights of several scales, are concatenated."""
    joined = joined_convolutions(graph, node) if node.op_type == "Concat" else []
    names = [stored_scale(graph, convolution.inputs[1]) for convolution in joined]
    return len({graph.initializers[name].tobytes() for name in names if name}) > 1 and len(joined) > 2


RULES = (
    (
        "subnormal-bias",
        _is_mostly_subnormal,
        "the NPU takes a bias of a subnormal float16, m · 2⁻²⁴, for (1 + m · 2⁻¹⁰) · 2⁻¹⁵, up to 3e-5 more",
        "leave out a bias that small",
    ),
    (
        "wide-weight",
        _is_wide_weight,
        f"the NPU cuts unsigned weights off {LARGEST_FACTOR} steps from their zero point",
        "quantise weights with sign, as export --target qnn --quantize does",
    ),
    (
        "lopsided-factor",
        _is_lopsided_factor,
        f"the NPU cuts a product's second operand off {LARGEST_FACTOR} steps from its zero point",
        "quantise this activation symmetrically, or to 16 bits",
    ),
    (
        "joined-convolutions",
        _joins_convolutions,
        "the NPU takes the third one's weights and bias at the second one's scale, up to 66 of 255 steps off",
        "give their weights one scale, as export --target qnn --quantize does",
    ),
)
"""Name, what it catches, what happens, what to do instead."""
