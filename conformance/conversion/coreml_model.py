"""Core ML's ``.mlpackage``, read by its own schema: the operations of an ML program, and their constants.

Source: github.com/apple/coremltools, ``mlmodel/format/MIL.proto`` as the package's ``proto`` has it, and
``mlmodel/src/MILBlob/Blob/StorageFormat.hpp``.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from conformance.json_files import read_json
from conformance.limits import check_size
from refimpl.errors import FileError, MissingDependencyError, MobileInstError, UnsupportedOperationError
from refimpl.ops.operation import Array

MANIFEST = "Manifest.json"
WEIGHTS = "@model_path/"
"""Begins the name of a file of weights; the rest is a path beside the program."""
DTYPES = {"BOOL": "?", "FLOAT16": "f2", "FLOAT32": "f4", "FLOAT64": "f8", "STRING": "U"} | {
    f"{sign}INT{8 * size}": f"{sign.lower() or 'i'}{size}" for sign in ("", "U") for size in (1, 2, 4, 8)
}
"""``DataType`` → its numbers, little-endian."""
SENTINEL = 0xDEADBEEF
"""Begins the record of a constant among the weights: type, size in bytes and place follow."""


@dataclass(frozen=True)
class CoreMlOperation:
    """One operation.

    Attributes
    ----------
    kind
        As MIL calls it: ``conv``.
    inputs
        Name of an operand → the tensors it is given by name, or constants.
    outputs
        Names of its results.
    shapes
        Of its results; -1 for a side that is not fixed.
    """

    kind: str
    inputs: Mapping[str, Sequence[str | Array]]
    outputs: Sequence[str]
    shapes: Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class CoreMlProgram:
    """A package's only function.

    Attributes
    ----------
    operations
        In the order in which they run; constants are with those that take them.
    inputs
        Name → shape.
    outputs
        Names of tensors.
    """

    operations: Sequence[CoreMlOperation]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Sequence[str]


def read_coreml(path: Path) -> CoreMlProgram:
    """Return the program of an ``.mlpackage``.

    Raises
    ------
    FileError
        A file is missing, of another kind, cut off or malformed.
    UnsupportedOperationError
        It is no ML program, or one of several functions or of nested blocks.
    MissingDependencyError
        coremltools, whose schema is used, is not installed.
    """
    schema = _schema()
    place = _program_file(path)
    model = schema.Model()
    try:
        model.ParseFromString(_content(place))
        if model.HasField("mlProgram"):
            return _Reader(place.parent).program(model.mlProgram)
    except MobileInstError:
        raise
    except (DecodeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise FileError(f"{path}: it is cut off or malformed: {str(error)[:100]}") from error
    held = model.WhichOneof("Type") or "nothing"
    raise UnsupportedOperationError(f"{path} holds {held}; expected an mlProgram")


def _schema() -> ModuleType:
    """Return coremltools' schema without coremltools, which takes seconds and prints."""
    found = importlib.util.find_spec("coremltools")
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            "coremltools, whose schema reads .mlpackage files, is not installed: "
            "pip install 'mobileinst-reference[coreml]'"
        )
    folder = Path(found.submodule_search_locations[0]) / "proto"
    name = "_coremltools_proto"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.Model_pb2")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


def _program_file(package: Path) -> Path:
    """Return where the manifest says that the program is."""
    if not package.is_dir():
        raise FileError(f"{package}: it is no folder; a package of Core ML is one")
    manifest = read_json(package / MANIFEST)
    try:
        name = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        return _inside(package / "Data", name)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{package / MANIFEST}: it does not say where the program is: {error}") from error


def _inside(folder: Path, name: str) -> Path:
    """Return a file of a folder; raise `ValueError` if the name leads out of it."""
    place = (folder / name).resolve()
    if folder.resolve() not in place.parents:
        raise ValueError(f"{name!r} leads out of the package")
    return place


class _Reader:
    """Reads operations; files of weights are read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.constants: dict[str, Array] = {}
        self._weights: dict[str, bytes] = {}

    def program(self, program: Any) -> CoreMlProgram:
        """Return the operations of the only function."""
        if len(program.functions) != 1:
            raise UnsupportedOperationError(f"it has {len(program.functions)} functions; expected one")
        (function,) = program.functions.values()
        block = function.block_specializations[function.opset]
        operations = [each for each in map(self._operation, block.operations) if each is not None]
        inputs = {each.name: _shape(each.type) for each in function.inputs}
        return CoreMlProgram(operations, inputs, tuple(block.outputs))

    def _operation(self, given: Any) -> CoreMlOperation | None:
        """Return an operation; of a constant nothing, but it is kept."""
        if given.blocks:
            raise UnsupportedOperationError(f"{given.type} of {_names(given)}: nested blocks are not read")
        if given.type == "const":
            self.constants[given.outputs[0].name] = self._value(given.attributes["val"])
            return None
        inputs = {
            name: [self._operand(each) for each in argument.arguments]
            for name, argument in given.inputs.items()
        }
        shapes = [_shape(each.type) for each in given.outputs]
        return CoreMlOperation(given.type, inputs, [each.name for each in given.outputs], shapes)

    def _operand(self, binding: Any) -> str | Array:
        if binding.WhichOneof("binding") == "value":
            return self._value(binding.value)
        return self.constants.get(binding.name, binding.name)

    def _value(self, value: Any) -> Array:
        tensor = value.type.tensorType
        kind, shape = _type_name(tensor), _shape(value.type)
        if value.WhichOneof("value") == "blobFileValue":
            array = self._stored(value.blobFileValue, np.dtype(DTYPES[kind]))
        else:
            array = _immediate(value.immediateValue.tensor, np.dtype(DTYPES[kind]))
        if array.size == 1 < math.prod(shape):  # one number stands for all
            check_size(math.prod(shape) * array.itemsize, "a constant")
            array = np.broadcast_to(array.reshape(()), shape)
        return array.reshape(shape)

    def _stored(self, place: Any, dtype: np.dtype[Any]) -> Array:
        content = self._file(place.fileName)
        record = np.frombuffer(content, "<u4", 2, place.offset)
        size, begin = (int(number) for number in np.frombuffer(content, "<u8", 2, place.offset + 8))
        if record[0] != SENTINEL:
            raise ValueError(f"no constant begins at byte {place.offset} of {place.fileName}")
        if begin + size > len(content):
            raise ValueError(f"a constant ends at byte {begin + size}, the weights at {len(content)}")
        return np.frombuffer(content[begin : begin + size], dtype.newbyteorder("<"))

    def _file(self, name: str) -> bytes:
        if name not in self._weights:
            if not name.startswith(WEIGHTS):
                raise ValueError(f"weights in {name!r}; expected {WEIGHTS}…")
            self._weights[name] = _content(_inside(self.folder, name.removeprefix(WEIGHTS)))
        return self._weights[name]


def _type_name(tensor: Any) -> str:
    kinds = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    name = str(kinds[tensor.dataType].name)
    if name not in DTYPES:
        raise UnsupportedOperationError(f"tensors of {name} are not read")
    return name


def _shape(kind: Any) -> tuple[int, ...]:
    sides = kind.tensorType.dimensions
    return tuple(int(side.constant.size) if side.HasField("constant") else -1 for side in sides)


def _immediate(tensor: Any, dtype: np.dtype[Any]) -> Array:
    """Return numbers that stand in the program itself."""
    field = tensor.WhichOneof("value")
    held: Any = getattr(tensor, field).values if field else []
    if field == "bytes":
        return np.frombuffer(held, dtype.newbyteorder("<"))
    return np.array(list(held), dtype)


def _names(operation: Any) -> str:
    return ", ".join(each.name for each in operation.outputs)
