"""Reading an ONNX file strictly: the model with all its data, or one named error that says what is wrong.

Sizes are checked before anything is allocated, external data may not leave the model's folder, and nothing
in the file is executed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import inliner, numpy_helper

from conformance.foreign_names import shown
from conformance.limits import check_size
from refimpl.errors import FileError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops import ONNX_DTYPES
from refimpl.ops.operation import Array

ONNX_DOMAINS = ("", "ai.onnx")
"""What ONNX's own domain is called."""

Source: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"


def read_model(source: Source) -> onnx.ModelProto:
    """Return the model at a path, in bytes, or given; external data loaded, local functions inlined.

    Raises
    ------
    FileError
        The file is missing, empty, truncated or no ONNX model, or its external data is missing, misplaced or
        shorter than it says.
    """
    if isinstance(source, onnx.ModelProto):
        model, folder = onnx.ModelProto(), None
        model.CopyFrom(source)
    else:
        model, folder = _parsed(source)
    _check_names(model)
    _load_all_external(model, folder)
    return _inlined(model) if model.functions else model


def external_files(path: Path) -> list[Path]:
    """Return the files beside an ``.onnx`` that hold its weights, whether they are there or not."""
    if path.suffix != ".onnx" or not path.is_file():
        return []
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError):
        return []  # what is wrong with it is said when it is read
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / name for name in sorted(names) if "\0" not in name]


MOST_NODES = 1_000_000
"""Of a graph with its functions inlined: functions that call functions grow without bound."""


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    _check_growth(model)
    _take_operator_set(model)
    try:
        return inliner.inline_local_functions(model)
    except RuntimeError as error:
        raise FileError(f"invalid model: its local functions cannot be inlined: {error}") from error


def _take_operator_set(model: onnx.ModelProto) -> None:
    """Give functions the model's operator set, in which runtimes read them, where it means the same.

    Those of another are not inlined.
    """
    own = next((each.version for each in model.opset_import if each.domain in ONNX_DOMAINS), 0)
    for function in model.functions:
        operators = _operators(function.node)
        for entry in (each for each in function.opset_import if each.domain in ONNX_DOMAINS):
            if all(_signature(each, entry.version) == _signature(each, own) for each in operators):
                entry.version = own


def _operators(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """Return the operators of ONNX that nodes are of, in their subgraphs too."""
    found = dict.fromkeys(node.op_type for node in nodes if node.domain in ONNX_DOMAINS)
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        for graph in (attribute.g, *attribute.graphs):
            found.update(dict.fromkeys(_operators(graph.node)))
    return list(found)


def _signature(operator: str, opset: int) -> list[tuple[str, str | int]]:
    """Return the operands and attributes, with their defaults, that an operator has; none: it is not there.

    What else changed is which types are allowed, and what is said of them.
    """
    known = min(max(opset, 0), onnx.defs.onnx_opset_version())
    try:
        schema = onnx.defs.get_schema(operator, known)
    except onnx.defs.SchemaError:
        return []
    attributes = sorted((each.name, str(each.default_value)) for each in schema.attributes.values())
    return [*((each.name, each.option.value) for each in (*schema.inputs, *schema.outputs)), *attributes]


def _check_growth(model: onnx.ModelProto) -> None:
    """Raise unless inlining the functions ends, with a graph that fits in memory."""
    calls = {(f.domain, f.name): [(node.domain, node.op_type) for node in f.node] for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    try:
        for name in TopologicalSorter(calls).static_order():
            called = calls.get(name)
            sizes[name] = 1 if called is None else min(sum(sizes[each] for each in called), MOST_NODES)
    except CycleError as error:
        raise FileError("invalid model: a function of it calls itself; export it again") from error
    if sum(sizes.get((node.domain, node.op_type), 1) for node in model.graph.node) >= MOST_NODES:
        raise FileError(f"its functions inlined, the model has more than {MOST_NODES} nodes; export it flat")


def _check_names(model: onnx.ModelProto) -> None:
    """Raise unless all names are text: protobuf hands out as bytes what is no UTF-8."""
    nodes = _nodes(model)
    names = [
        text for node in nodes for text in (node.name, node.op_type, node.domain, *node.input, *node.output)
    ]
    names += [attribute.name for node in nodes for attribute in node.attribute]
    names += [named.name for named in (*_tensors(model), *model.graph.input, *model.graph.output)]
    garbled = [name for name in names if not isinstance(name, str)]
    if garbled:
        raise FileError(f"invalid model: the name {garbled[0]!r} is not text in UTF-8; export it again")


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for body in (model.graph, *model.functions) for node in body.node]


def _parsed(source: str | os.PathLike[str] | bytes) -> tuple[onnx.ModelProto, Path | None]:
    content, name, folder = (
        (source, "the bytes given", None)
        if isinstance(source, bytes)
        else (_content(Path(source)), str(source), Path(source).resolve().parent)
    )
    if not content:
        raise FileError(f"{name}: empty; expected an ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise FileError(
            f"{name}: not an ONNX model, or truncated ({len(content)} bytes); export it again"
        ) from error
    if not (model.ir_version and model.opset_import and model.HasField("graph") and model.graph.output):
        raise FileError(
            f"{name}: holds no ONNX graph (no IR version, operator set or output); give a .onnx file"
        )
    return model, folder


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}; give an ONNX file") from error


# --- tensors --------------------------------------------------------------------------------------


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of the model: initializers and those in attributes."""
    yield from model.graph.initializer
    for attribute in (attribute for node in _nodes(model) for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


@dataclass(frozen=True)
class _External:
    """Where the data of a tensor stands."""

    tensor: onnx.TensorProto
    path: Path
    offset: int
    length: int


def _load_all_external(model: onnx.ModelProto, folder: Path | None) -> None:
    """Move external data into the tensors, if it is no more than the files have: they may be named often."""
    parts = [_external(t, folder) for t in _tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    present = sum(path.stat().st_size for path in {part.path for part in parts})
    check_size(sum(part.length for part in parts), "the model's external data", present)
    for part in parts:
        _load(part)


def _external(tensor: onnx.TensorProto, folder: Path | None) -> _External:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _external_path(tensor, entries.get("location", ""), folder)
    return _External(tensor, path, *_external_range(tensor, entries, path))


def _load(part: _External) -> None:
    tensor = part.tensor
    try:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            tensor.raw_data = file.read(part.length)
    except OSError as error:
        raise FileError(f"{part.path}: cannot be read: {error.strerror}; put it beside the model") from error
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT


def _external_path(tensor: onnx.TensorProto, location: str, folder: Path | None) -> Path:
    if folder is None:
        raise FileError(
            f"tensor {tensor.name!r} has external data in {location!r}; give the model by its path"
        )
    try:
        path = (folder / location).resolve()
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, a circle of links
        reason = getattr(error, "strerror", None) or error
        raise FileError(
            f"tensor {tensor.name!r}: external data {shown(location)} is no file's name: {reason}"
        ) from error
    if not location or not path.is_relative_to(folder):
        raise FileError(f"tensor {tensor.name!r}: external data {location!r} lies outside the model's folder")
    if not is_file:
        raise FileError(f"tensor {tensor.name!r}: external data {path} is missing; put it beside the model")
    return path


def _external_range(tensor: onnx.TensorProto, entries: dict[str, str], path: Path) -> tuple[int, int]:
    expected = _element_count(tensor) * _dtype(tensor).itemsize
    available = path.stat().st_size
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", expected))
    except ValueError as error:
        raise FileError(f"tensor {tensor.name!r}: external data has a malformed offset or length") from error
    if offset < 0 or length != expected or offset + length > available:
        raise FileError(
            f"tensor {tensor.name!r}: shape {tuple(tensor.dims)} needs {expected} bytes, but {path} is to "
            f"give {length} from byte {offset} on and has {available}"
        )
    return offset, length


def _dtype(tensor: onnx.TensorProto) -> np.dtype[Any]:
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return np.dtype(ml_dtypes.bfloat16)
    if tensor.data_type not in ONNX_DTYPES:
        names = {code: name for name, code in onnx.TensorProto.DataType.items()}
        kind = names.get(tensor.data_type, tensor.data_type)
        raise UnsupportedOperationError(
            f"tensor {tensor.name!r} is of type {kind}, which NumPy does not have"
        )
    return np.dtype(ONNX_DTYPES[tensor.data_type])


def _element_count(tensor: onnx.TensorProto) -> int:
    if any(length < 0 for length in tensor.dims):
        raise FileError(f"tensor {tensor.name!r} has a negative length in its shape {tuple(tensor.dims)}")
    return math.prod(tensor.dims)


def array_of(tensor: onnx.TensorProto) -> Array:
    """Return a tensor's array.

    Raises
    ------
    UnsupportedOperationError
        Its type is one that NumPy does not have.
    FileError
        Its data is not of the size its shape says, or the shape has more axes than an array may.
    """
    dtype, count = _dtype(tensor), _element_count(tensor)
    if tensor.HasField("raw_data"):
        present, unit = len(tensor.raw_data), dtype.itemsize
    else:
        present, unit = len(getattr(tensor, _typed_field(tensor))), 1
    if present != count * unit:
        raise FileError(
            f"tensor {tensor.name!r}: shape {tuple(tensor.dims)} of {dtype} needs {count * unit} "
            f"{'bytes' if tensor.HasField('raw_data') else 'elements'}, the file holds {present}"
        )
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except ValueError as error:
        raise FileError(f"tensor {tensor.name!r}: no array is of its shape: {error}") from None
    # NumPy has no bfloat16; float32 holds its values exactly.
    return array.astype(np.float32) if tensor.data_type == onnx.TensorProto.BFLOAT16 else array


def _typed_field(tensor: onnx.TensorProto) -> str:
    return str(onnx.helper.tensor_dtype_to_field(tensor.data_type))


# --- attributes and nodes -------------------------------------------------------------------------


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """Return an attribute as a Python value.

    Raises
    ------
    UnsupportedOperationError
        It is a subgraph, a sparse tensor or a type.
    """
    kind = onnx.AttributeProto
    if attribute.type == kind.TENSOR:
        return array_of(attribute.t)
    if attribute.type in (kind.INT, kind.FLOAT, kind.STRING, kind.INTS, kind.FLOATS, kind.STRINGS):
        return _text(onnx.helper.get_attribute_value(attribute))
    name = kind.AttributeType.Name(attribute.type)
    raise UnsupportedOperationError(f"attribute {attribute.name!r} is of type {name}, outside the vocabulary")


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, int | float) else tuple(_text(element) for element in value)


def node_of(proto: onnx.NodeProto, name: str) -> Node:
    """Return a node, attributes as Python values, floats as stored, no trailing absent operands."""
    try:
        attributes = {attribute.name: attribute_value(attribute) for attribute in proto.attribute}
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(f"node {name!r} ({proto.op_type}): {error}") from error
    return Node(name, proto.op_type, _trimmed(proto.input), _trimmed(proto.output), attributes)


def _trimmed(names: Any) -> tuple[str, ...]:
    listed = list(names)
    while listed and not listed[-1]:
        listed.pop()
    return tuple(listed)
