"""A converted model: `.tnnproto` and `.tnnmodel` together, checked against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance.files import atomic_write
from conformance.tnn.layers import layer_type
from conformance.tnn.model import (
    COLOUR_CURVES,
    SCATTERED,
    Model,
    RawBuffer,
    Resource,
    read_model,
    write_model,
)
from conformance.tnn.parameters import (
    AnyConvolution,
    Binary,
    Gather,
    InnerProduct,
    InstanceNorm,
    PReLU,
)
from conformance.tnn.proto import MAGIC_V1, Layer, Proto, read_proto, write_proto
from refimpl.errors import FileError


@dataclass(frozen=True, eq=False)
class TnnGraph:
    """A runnable graph: every constant a layer needs is there, of the size its parameters say.

    Attributes
    ----------
    proto, model
        What the two files hold.
    resources
        The constants of the layers, by layer name.
    constants
        The constant map, by blob name.
    """

    proto: Proto
    model: Model
    resources: Mapping[str, Resource]
    constants: Mapping[str, RawBuffer]


def model_path(proto_path: Path) -> Path:
    """Return the path where TNN looks for the model of a proto: ``proto`` replaced by ``model``."""
    return proto_path.with_name(proto_path.name.replace("proto", "model"))


def read_graph(proto_path: Path, path_of_model: Path | None = None) -> TnnGraph:
    """Read a proto and its model, by default the one TNN itself would load.

    Raises
    ------
    FileError
        A file is missing or malformed, or the two are of different models.
    UnsupportedOperationError
        A layer type outside the vocabulary.
    """
    proto_path = Path(proto_path)
    proto = read_proto(proto_path)
    path = model_path(proto_path) if path_of_model is None else Path(path_of_model)
    return join(proto, read_model(path), f"{proto_path} and {path}")


def write_graph(graph: TnnGraph, proto_path: Path) -> None:
    """Write both files, the proto to ``proto_path``; each appears whole or not at all."""
    contents = {model_path(proto_path): write_model(graph.model), proto_path: write_proto(graph.proto)}
    for path, content in contents.items():
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)


def join(proto: Proto, model: Model, source: str) -> TnnGraph:
    """Check a proto and a model against each other and return the graph; ``source`` names them in errors."""
    if proto.magic != model.magic:
        raise FileError(f"{source}: proto of version {proto.magic:#x}, model of version {model.magic:#x}")
    layers = {layer.name: layer for layer in proto.layers}
    for resource in model.resources:
        layer = layers.get(resource.name)
        if layer is None or layer.type != resource.type:
            there = "no layer of that name" if layer is None else f"a {layer.type}"
            raise FileError(
                f"{source} are of different models: the model has constants for {resource.type} "
                f"{resource.name!r}, the proto has {there}; take both files from one conversion"
            )
    graph = TnnGraph(proto, model, {item.name: item for item in model.resources}, model.constants or {})
    for layer in proto.layers:
        _check_constants(graph, layer, source)
    _check_order(graph, source)
    return graph


def _check_constants(graph: TnnGraph, layer: Layer, source: str) -> None:
    expected = _expected_sizes(layer)
    resource = graph.resources.get(layer.name)
    found = (
        {} if resource is None else {role: buffer.values.size for role, buffer in resource.buffers.items()}
    )
    # A size of None: any that is not empty. An absent bias may be stored as an empty buffer.
    absent = [role for role in expected if not found.get(role)]
    optional = SCATTERED if layer_type(layer.type, source).payload == "scatter" else ()
    extra = [role for role, size in found.items() if size and role not in (*expected, *optional)]
    wrong = [role for role, size in expected.items() if size is not None and found.get(role, size) != size]
    given = layer.parameters
    if isinstance(given, InnerProduct) and not absent and found["weight"] % given.outputs:
        wrong.append("weight")
    if absent or extra or wrong:
        raise FileError(
            f"{source}: {layer.type} {layer.name!r} has constants of {found or 'none'} elements, expected "
            f"{expected or 'none'}; the two files are of different models, or damaged"
        )
    _check_weight_shape(graph, layer, source)


def _check_weight_shape(graph: TnnGraph, layer: Layer, source: str) -> None:
    """Check the order of a convolution's axes: the same number of elements may be another kernel."""
    if not layer.type.startswith("Convolution") or graph.model.magic == MAGIC_V1:
        return
    weight = graph.resources[layer.name].buffers["weight"].values
    given = layer.parameters
    assert isinstance(given, AnyConvolution)
    expected = (given.output_channels, given.channels_per_group, *given.kernel)
    if weight.shape != expected:
        raise FileError(
            f"{source}: the weight of {layer.name!r} has shape {weight.shape}, the proto says {expected}"
        )


def _expected_sizes(layer: Layer) -> dict[str, int | None]:
    """Return the roles of the constants a layer must have, and how many elements, as its parameters say."""
    given = layer.parameters
    if isinstance(given, AnyConvolution):
        weight = given.channels_per_group * given.output_channels * math.prod(given.kernel)
        return {"weight": weight, **({"bias": given.output_channels} if given.bias else {})}
    if isinstance(given, InnerProduct):
        return {"weight": None, **({"bias": given.outputs} if given.bias else {})}
    if isinstance(given, InstanceNorm):
        return {"scale": given.channels, "bias": given.channels}
    if layer.type == "BatchNormCxx":
        return {"scale": None, "bias": None}
    if isinstance(given, Binary) and given.has_constant:
        return {"constant": None}
    if isinstance(given, PReLU):
        return {"slope": 1 if given.channel_shared else None}
    if layer.type == "ConstantOfShape":
        return {"value": None}
    if layer.type == "HDRGuide":
        return dict(zip(COLOUR_CURVES, (9, 3, 12, 12, 3, 1), strict=True))
    if isinstance(given, Gather):
        held = {"data": given.data_constant, "indices": given.indices_constant}
        return {role: None for role, constant in held.items() if constant}
    return {}


def _check_order(graph: TnnGraph, source: str) -> None:
    """Check that what a layer reads is an input, a constant, or written by a layer before it."""
    known = {declaration.name for declaration in graph.proto.inputs} | set(graph.constants)
    for layer in graph.proto.layers:
        missing = [name for name in layer.inputs if name not in known]
        if missing:
            raise FileError(
                f"{source}: {layer.type} {layer.name!r} reads {missing}, which is no input, no constant "
                "of the model and not written by an earlier layer; the two files are of "
                "different models, or the conversion broke off"
            )
        known.update(layer.outputs)
