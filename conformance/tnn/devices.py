"""What TNN's devices cannot do, or do wrongly, whatever the file says: remarks about a device, not the file.

Source: the registered kernels of https://github.com/Tencent/TNN/tree/f0cb081/source/tnn/device, and runs.
"""

from __future__ import annotations

from conformance.tnn import traps
from conformance.tnn.evaluation import unread_constants
from conformance.tnn.graph import TnnGraph
from conformance.tnn.meaning import einsum_terms
from conformance.tnn.parameters import EDGE, Pad

WITHOUT_ARM_KERNEL = frozenset((*traps.WITHOUT_ARM_KERNEL, "Convolution3D", "Pooling1D", "Pooling3D", "Erf"))
"""Layer types that end in 'empty implemented_layouts' on ARM; NAIVE runs them, and X86 falls back on it."""

FAULTS = {
    ("X86", "InstBatchNormCxx"): "X86's epsilon is always 1e-5 (x86_inst_norm_layer_acc.cc)",
    ("X86", "ReduceProd"): "X86's products are all 0 (x86_compute.cc)",
}
"""Device and layer type → what it is known to compute wrongly."""


def remarks(graph: TnnGraph) -> tuple[str, ...]:
    """Return what keeps a graph from running somewhere, though it may mean what its source does."""
    found = [
        f"Einsum {layer.name!r} lists {len(layer.inputs)} of the {len(einsum_terms(layer))} operands of its "
        f"equation, the rest are constants that no layer reads ({', '.join(unread_constants(graph))}): "
        "no device runs it"
        for layer in graph.proto.layers
        if layer.type == "Einsum" and len(layer.inputs) < len(einsum_terms(layer))
    ]
    found += [
        f"Pad {layer.name!r} repeats edges, which NAIVE, X86 and ARM cannot"
        for layer in graph.proto.layers
        if isinstance(layer.parameters, Pad) and layer.parameters.type == EDGE
    ]
    without = sorted({layer.type for layer in graph.proto.layers} & WITHOUT_ARM_KERNEL)
    if without:
        found.append(f"ARM has no kernel for {', '.join(without)} ('empty implemented_layouts'); NAIVE has")
    return tuple(found)


def known_faults(device: str, graph: TnnGraph) -> tuple[str, ...]:
    """Return what a device is known to compute wrongly of a graph."""
    types = dict.fromkeys(layer.type for layer in graph.proto.layers)
    return tuple(FAULTS[device, each] for each in types if (device, each) in FAULTS)
