"""What a model of ncnn means, as an ONNX graph: each layer as the nodes that its parameters describe.

ncnn has no batch axis: blobs are (C, D, H, W), (C, H, W), (H, W) or (W). The graph is given the source's
inputs and outputs under their names and with that axis, so that the two can be compared.

Source: github.com/Tencent/ncnn, ``src/layer/*.cpp`` and its wiki, *operators*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from conformance.conversion.ncnn_activations import ACTIVATIONS
from conformance.conversion.ncnn_arithmetic import ARITHMETIC
from conformance.conversion.ncnn_attention import ATTENTION
from conformance.conversion.ncnn_deconvolutions import DECONVOLUTIONS
from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_norms import NORMS
from conformance.conversion.ncnn_parts import PARTS
from conformance.conversion.ncnn_pooling import POOLING
from conformance.conversion.ncnn_products import PRODUCTS
from conformance.conversion.ncnn_recurrent import RECURRENT
from conformance.conversion.ncnn_sampling import SAMPLING
from conformance.conversion.ncnn_shapes import SHAPES
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten
from refimpl.errors import MobileInstError

KEEP_BITS = ("ExpandDims", "Flatten", "Reshape", "Split", "Squeeze")
"""Layers that hand on what they are given as it is, whatever its type."""


def ncnn_graph(
    layers: Sequence[NcnnLayer],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    *,
    as_it_runs: bool = False,
) -> onnx.ModelProto:
    """Return the graph that the layers compute.

    Parameters
    ----------
    layers
        As `read_ncnn` returns them.
    inputs
        Of the source: name → shape (1, …), in the order of the model's own.
    outputs
        Of the source, in order: ncnn's converter calls the n-th ``out`` and n.
    as_it_runs
        Whether what the file leaves to the runtime is written down, too: integers end at ±127, and what is
        multiplied by integer matrices is made integers by its own largest. Else these are products with what
        the integers stand for.

    Raises
    ------
    UnsupportedOperationError
        A layer, or a way of it, whose meaning is not written down here.
    """
    writer = NcnnWriter(as_it_runs)
    for layer, (name, shape) in zip((x for x in layers if x.kind == "Input"), inputs.items(), strict=False):
        writer.inferred.declare(name, shape)
        writer.node("Squeeze", [name, writer.shape(0)], layer.tops[0])
        writer.ranks[layer.tops[0]] = len(shape) - 1
        writer.as_given.add(layer.tops[0])
    for layer in (each for each in layers if each.kind != "Input"):
        if layer.kind not in _LAYERS:
            raise unwritten(layer, f"what {layer.kind} means")
        writer.prefix = layer.name
        try:
            _LAYERS[layer.kind](writer, layer)
        except MobileInstError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise unwritten(layer, f"this {layer.kind} ({error})") from error
        if layer.kind in KEEP_BITS and layer.bottoms[0] in writer.as_given:
            writer.as_given.update(layer.tops)
    for own, name in zip(ends_of(layers), outputs, strict=False):
        writer.node("Unsqueeze", [own, writer.shape(0)], name)
    return writer.model("ncnn", inputs, outputs)


def ends_of(layers: Sequence[NcnnLayer]) -> list[str]:
    """Return a model's outputs: in the order of the numbers that ncnn's converter gives."""
    taken = {name for layer in layers for name in layer.bottoms}
    ends = [name for layer in layers for name in layer.tops if name not in taken]
    return sorted(ends, key=lambda name: (len(name), name) if name.startswith("out") else (0, ""))


_LAYERS: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    **ACTIVATIONS,
    **ARITHMETIC,
    **ATTENTION,
    **DECONVOLUTIONS,
    **NORMS,
    **PARTS,
    **POOLING,
    **PRODUCTS,
    **RECURRENT,
    **SAMPLING,
    **SHAPES,
}
KINDS = frozenset(_LAYERS)
"""Layers whose meaning is written down."""
