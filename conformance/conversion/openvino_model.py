"""OpenVINO's IR, read: the layers of an ``.xml``, and their constants from the ``.bin`` beside it.

Source: https://docs.openvino.ai/2025/documentation/openvino-ir-format.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from conformance.conversion.stored_weight import StoredWeight
from refimpl.errors import FileError
from refimpl.ops.operation import Array

DTYPES = {
    "boolean": "?", "f16": "f2", "f32": "f4", "f64": "f8", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8",
    "u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8",
}  # fmt: skip
"""``element_type`` → its numbers."""


@dataclass(frozen=True)
class OpenVinoLayer:
    """One operation.

    Attributes
    ----------
    name, kind
    data
        What it is told, as written.
    inputs
        Per operand: the place of the layer that makes it, and which of its results.
    shapes
        Of its results.
    names
        Of its results, those that the source gave them; empty where there is none.
    constant
        What a ``Const`` holds.
    precisions
        Of its results, as written: ``FP32``, ``BOOL``.
    """

    name: str
    kind: str
    data: Mapping[str, str]
    inputs: Sequence[tuple[int, int]]
    shapes: Sequence[tuple[int, ...]]
    names: Sequence[str]
    constant: Array | None = None
    precisions: Sequence[str] = ()


def read_openvino(path: Path) -> list[OpenVinoLayer]:
    """Return the layers of an IR, each behind those that it takes.

    Raises
    ------
    FileError
        A file is missing, of another runtime, cut off or malformed.
    """
    try:
        text, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    except OSError as error:
        raise FileError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if b"<!" in text.replace(b"<!--", b""):
        raise FileError(f"{path}: it declares entities; an IR has none")
    try:
        net = ElementTree.fromstring(text)
        if net.tag != "net":
            raise FileError(f"{path}: begins with <{net.tag[:40]}>, not <net>: it is no IR of OpenVINO")
        return _layers(net, weights)
    except (ElementTree.ParseError, KeyError, ValueError, IndexError, StopIteration, RecursionError) as error:
        raise FileError(f"{path}: it is cut off or malformed: {str(error)[:100]}") from error


def _layers(net: ElementTree.Element, weights: bytes) -> list[OpenVinoLayer]:
    found = {layer.attrib["id"]: layer for layer in net.iterfind("layers/layer")}
    takes: dict[str, dict[str, tuple[str, str]]] = {each: {} for each in found}
    for edge in net.iterfind("edges/edge"):
        held = edge.attrib
        takes[held["to-layer"]][held["to-port"]] = (held["from-layer"], held["from-port"])
    order = _ordered({each: [maker for maker, _ in ends.values()] for each, ends in takes.items()})
    places = {each: place for place, each in enumerate(order)}
    ports = {each: [end.attrib["id"] for end in found[each].iterfind("output/port")] for each in found}
    layers = []
    for each in order:
        own = [takes[each][end.attrib["id"]] for end in found[each].iterfind("input/port")]
        inputs = [(places[maker], ports[maker].index(port)) for maker, port in own]
        layers.append(_layer(found[each], inputs, weights))
    return layers


def _ordered(takes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return layers behind those that they take; raise `ValueError` if they go round."""
    order: dict[str, None] = {}
    waiting = list(takes)
    while waiting:
        ready = [each for each in waiting if all(maker in order for maker in takes[each])]
        if not ready:
            raise ValueError(f"layer {waiting[0]} takes what is made of it, or of no layer")
        order |= dict.fromkeys(ready)
        waiting = [each for each in waiting if each not in order]
    return list(order)


def _layer(layer: ElementTree.Element, inputs: list[tuple[int, int]], weights: bytes) -> OpenVinoLayer:
    told = layer.find("data")
    data = {} if told is None else dict(told.attrib)
    outputs = layer.findall("output/port")
    shapes = [tuple(int(side.text or "") for side in port.iterfind("dim")) for port in outputs]
    return OpenVinoLayer(
        layer.attrib["name"],
        layer.attrib["type"],
        data,
        inputs,
        shapes,
        [port.attrib.get("names", "").partition(",")[0] for port in outputs],
        _constant(data, weights) if layer.attrib["type"] == "Const" else None,
        [port.attrib.get("precision", "") for port in outputs],
    )


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of ``1, 3, 128``."""
    return [int(word) for word in text.split(",") if word.strip()]


def _constant(data: Mapping[str, str], weights: bytes) -> Array:
    kind = data["element_type"]
    if kind not in DTYPES:
        raise ValueError(f"constants of {kind} are not read")
    shape, dtype, begin = whole_numbers(data["shape"]), np.dtype(DTYPES[kind]), int(data["offset"])
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or begin < 0 or begin + size > len(weights):
        raise ValueError(f"a constant ends at byte {begin + size}, the weights at {len(weights)}")
    return np.frombuffer(weights, dtype, math.prod(shape), begin).reshape(shape)


def stored_in_openvino(layers: Sequence[OpenVinoLayer]) -> Iterator[StoredWeight]:
    """Yield the float constants, and the integers that are widened by a scale, as NNCF writes them.

    What is rounded to float16 between is not: where it computes in float32, the runtime widens all to that.
    """
    for layer in layers:
        weight = integer_weight(layers, layer)
        if weight is not None:
            yield weight
        elif layer.constant is not None and layer.constant.dtype.kind == "f":
            yield StoredWeight(layer.constant)


def integer_weight(layers: Sequence[OpenVinoLayer], layer: OpenVinoLayer) -> StoredWeight | None:
    """Return the weight that a Multiply makes of integers, their zero point and scale, all constant."""
    if not of_integers(layers, layer):
        return None
    (held, point), scale = _shifted(layers, layer), _widened(layers, layer.inputs[1][0])
    return None if held is None or scale is None else StoredWeight(held, scale, point.astype(np.float64))


def of_integers(layers: Sequence[OpenVinoLayer], layer: OpenVinoLayer) -> bool:
    """Tell whether a layer multiplies constant integers of a byte."""
    return layer.kind == "Multiply" and len(layer.inputs) == 2 and _is_byte(_shifted(layers, layer)[0])


def is_widened(layers: Sequence[OpenVinoLayer], layer: OpenVinoLayer) -> bool:
    """Tell whether a layer makes floats of constant integers of a byte, their scale still missing."""
    if layer.kind not in ("Convert", "Subtract") or not layer.inputs:
        return False
    place = layer.inputs[0][0]
    return _is_byte(layers[place].constant) or is_widened(layers, layers[place])


def _is_byte(array: Array | None) -> bool:
    return array is not None and array.dtype.itemsize == 1 and array.dtype.kind != "b"


def _shifted(layers: Sequence[OpenVinoLayer], layer: OpenVinoLayer) -> tuple[Array | None, Array]:
    """Return the constant that a layer multiplies, and what is subtracted from it before."""
    place = layer.inputs[0][0]
    if layers[place].kind != "Subtract":
        return _widened(layers, place), np.zeros(())
    found = [_widened(layers, each) for each, _ in layers[place].inputs]
    if len(found) != 2 or found[1] is None:
        return None, np.zeros(())
    return found[0], found[1]


def _widened(layers: Sequence[OpenVinoLayer], place: int) -> Array | None:
    """Return a constant, also behind conversions; None: it is computed."""
    while layers[place].kind == "Convert" and layers[place].inputs:
        place = layers[place].inputs[0][0]
    return layers[place].constant
