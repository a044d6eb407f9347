"""LiteRT's ``.tflite``, read by its own schema: operators in order, their tensors and constants.

Source: github.com/google-ai-edge/LiteRT, ``tflite/converter/schema/schema.fbs``, as the package's
``schema_py_generated`` has it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conformance.conversion.stored_weight import StoredWeight
from refimpl.errors import FileError, MissingDependencyError
from refimpl.ops.operation import Array

MAGIC = b"TFL3"
"""Stands at byte 4."""


@dataclass(frozen=True)
class LitertOperator:
    """One operator.

    Attributes
    ----------
    kind
        Its name in the schema, ``CONV_2D``; a custom one's own.
    inputs, outputs
        Places of tensors; −1 for an operand that is left out.
    options
        Name → value, as the schema calls them.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class LitertModel:
    """A model's only graph.

    Attributes
    ----------
    operators
        In the order in which they run.
    names
        Place of a tensor → its name, made unlike the others'.
    shapes
        Place → shape.
    constants
        Place → array, in the type and scale that it is stored in.
    scales
        Place of a quantised tensor → scales, zero points and the axis that they belong to.
    inputs, outputs
        The name that users give → place.
    integers
        Place of a quantised tensor that is computed, or fed → the type of its integers.
    """

    operators: Sequence[LitertOperator]
    names: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    constants: Mapping[int, Array]
    scales: Mapping[int, tuple[Array, Array, int]]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    integers: Mapping[int, np.dtype[Any]] = field(default_factory=dict)


def read_litert(path: Path) -> LitertModel:
    """Return the graph of a ``.tflite``.

    Raises
    ------
    FileError
        The file is missing, of another runtime, cut off or malformed.
    MissingDependencyError
        LiteRT, whose schema is used, is not installed.
    """
    schema = _schema()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    if content[4:8] != MAGIC:
        raise FileError(f"{path}: bytes 4 to 8 are {content[4:8]!r}, not {MAGIC!r}: it is no model of LiteRT")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        _fetch(model, content)
        return _read(schema, model)
    except (struct.error, ValueError, IndexError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: it is cut off or malformed: {str(error)[:100]}") from error


def _fetch(model: Any, content: bytes) -> None:
    """Give buffers that lie behind the flatbuffer itself, as AI Edge Quantizer may write them, their data."""
    for buffer in model.buffers:
        if buffer.data is None and buffer.offset > 1:
            if buffer.offset + buffer.size > len(content):
                raise ValueError(f"a buffer ends at byte {buffer.offset + buffer.size} of {len(content)}")
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingDependencyError(
            "ai_edge_litert, whose schema reads .tflite files, is not installed: "
            "pip install 'mobileinst-reference[litert]'"
        ) from error
    return schema_py_generated


def _read(schema: Any, model: Any) -> LitertModel:
    graph = model.subgraphs[0]  # the others are what one of its operators consists of
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    codes = [_kind(kinds, code) for code in model.operatorCodes]
    operators = [
        LitertOperator(
            codes[each.opcodeIndex],
            tuple(map(int, each.inputs)),
            tuple(map(int, each.outputs)),
            vars(each.builtinOptions) if each.builtinOptions else {},
        )
        for each in graph.operators
    ]
    names = [tensor.name.decode("utf-8", "replace") for tensor in graph.tensors]
    constants = {
        place: array
        for place, tensor in enumerate(graph.tensors)
        if (array := _constant(schema, tensor, model.buffers[tensor.buffer].data)) is not None
    }
    scales = {
        place: held for place, tensor in enumerate(graph.tensors) if (held := _scales(tensor)) is not None
    }
    return LitertModel(
        operators,
        [f"{name}:{place}" if names.count(name) > 1 else name for place, name in enumerate(names)],
        [() if tensor.shape is None else tuple(map(int, tensor.shape)) for tensor in graph.tensors],
        constants,
        scales,
        *_ends(model, graph, names),
        {place: _dtype(schema, graph.tensors[place]) for place in scales if place not in constants},
    )


def _kind(kinds: Mapping[int, str], code: Any) -> str:
    if code.customCode:
        return str(code.customCode.decode("utf-8", "replace"))
    # Before there were more than 127 operators their numbers stood elsewhere.
    return kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _constant(schema: Any, tensor: Any, data: Any) -> Array | None:
    if data is None or not len(data):
        return None
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), _dtype(schema, tensor)).reshape(shape)


def _dtype(schema: Any, tensor: Any) -> np.dtype[Any]:
    kinds = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    name = kinds[tensor.type].lower()
    if name not in np.sctypeDict and name != "bool":
        raise ValueError(f"tensors of {name} are not read")
    return np.dtype(name)


def _scales(tensor: Any) -> tuple[Array, Array, int] | None:
    held = tensor.quantization
    if held is None or held.scale is None or not len(held.scale):
        return None
    return np.asarray(held.scale), np.asarray(held.zeroPoint), int(held.quantizedDimension)


def _ends(model: Any, graph: Any, names: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return inputs and outputs by the names of the first signature, else by the tensors'."""
    if model.signatureDefs:
        signature = model.signatureDefs[0]
        return (
            {each.name.decode(): int(each.tensorIndex) for each in signature.inputs},
            {each.name.decode(): int(each.tensorIndex) for each in signature.outputs},
        )
    inputs, outputs = ({names[place]: int(place) for place in ends} for ends in (graph.inputs, graph.outputs))
    return inputs, outputs


def stored_in_litert(model: LitertModel) -> Iterator[StoredWeight]:
    """Yield the constants that are floats, or integers with a scale."""
    for place, array in model.constants.items():
        if array.dtype.kind == "f":
            yield StoredWeight(array)
        elif (
            array.dtype in (np.int8, np.int32)
            and (grid := _along(model.scales.get(place), array)) is not None
        ):
            yield StoredWeight(array, *grid)


def _along(quantized: tuple[Array, Array, int] | None, array: Array) -> tuple[Array, Array] | None:
    """Return scales and zero points so that they broadcast to an array; None: they do not fit it."""
    if quantized is None:
        return None
    *grid, axis = quantized
    if not 0 <= axis < array.ndim or any(each.size not in (1, array.shape[axis]) for each in grid):
        return None
    shape = [-1 if other == axis else 1 for other in range(array.ndim)]
    scales, points = (each.reshape(shape) for each in grid)
    return scales, points
