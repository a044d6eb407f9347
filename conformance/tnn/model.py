"""The `.tnnmodel`: TNN's constants, read without copies, sizes checked first, written back byte for byte.

Little endian. ``u32 magic, i32 layers``; per layer ``i32 type id, string type, string name, payload``; then,
if present, ``u32 magic, i32 n`` and ``n`` × (string, RawBuffer), the constant map. A string is ``i32 length``
and bytes. A RawBuffer is ``u32 magic, i32 dtype, i32 bytes`` and, when bytes > 0, ``i32 rank, i32 dims[]``
(absent in version 1) and the data. Source: TNN's serializer and layer interpreters, and real files of
`onnx2tnn`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.tnn.layers import layer_type
from conformance.tnn.proto import MAGIC, MAGIC_V1, MAGICS
from refimpl.errors import FileError

Array = NDArray[Any]
BFLOAT16 = 4
DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
    2: np.dtype("i1"),
    3: np.dtype("<i4"),
    BFLOAT16: np.dtype("<u2"),
    5: np.dtype("<i8"),
    6: np.dtype("<u4"),
}
GATHERED, SCATTERED = ("data", "indices"), ("indices", "updates")
COLOUR_CURVES = ("ccm weight", "ccm bias", "shifts", "slopes", "projection weight", "projection bias")
BY_NAME = 0
"""The type id that tells the runtime to go by the type's name."""
_INTEGER = struct.Struct("<i")


@dataclass(frozen=True, eq=False)
class RawBuffer:
    """A constant as stored: ``values`` views the file's bytes, shaped by its dims; bfloat16 as its 16 bits.

    A file of version 1 holds no dims, so there ``values`` is flat.
    """

    values: Array
    dtype: int = 0

    def numbers(self) -> Array:
        """Return the values as an array that can be computed with: bfloat16 is widened to float32."""
        if self.dtype == BFLOAT16:
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values


@dataclass(frozen=True, eq=False)
class Resource:
    """The constants of one layer by role: weight, bias, scale, constant, data or indices."""

    type: str
    name: str
    buffers: Mapping[str, RawBuffer]
    type_id: int
    label: str = ""


@dataclass(frozen=True, eq=False)
class Model:
    """A `.tnnmodel`: resources in file order, and the constant map by blob name, None when there is none."""

    resources: tuple[Resource, ...]
    constants: Mapping[str, RawBuffer] | None = None
    magic: int = MAGIC


def read_model(path: Path) -> Model:
    """Read a `.tnnmodel`.

    Raises
    ------
    FileError
        No such file, or bytes that are not of the format: truncated, lengths past the end, counts that lie.
    UnsupportedOperationError
        A layer type outside the vocabulary.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_model(content, str(path))


def parse_model(content: bytes, source: str) -> Model:
    """Parse the bytes of a `.tnnmodel`; ``source`` names it in errors (those of `read_model`)."""
    cursor = _Cursor(content, source)
    magic = cursor.magic(*MAGICS)
    cursor.file_magic = magic
    resources = tuple(_read_resource(cursor) for _ in range(cursor.count("layers with constants")))
    names = [resource.name for resource in resources]
    if len(set(names)) != len(names):
        raise cursor.error("two layers have the same name")
    constants = _read_constants(cursor) if cursor.offset < len(content) else None
    if cursor.offset != len(content):
        raise cursor.error(f"{len(content) - cursor.offset} bytes left over after the last constant")
    return Model(resources, constants, magic)


def write_model(model: Model) -> bytes:
    """Return the bytes of the `.tnnmodel`, those `onnx2tnn` writes."""
    chunks = [struct.pack("<Ii", model.magic, len(model.resources))]
    for resource in model.resources:
        chunks += [_INTEGER.pack(resource.type_id), _string(resource.type), _string(resource.name)]
        chunks += _PAYLOADS[layer_type(resource.type, resource.name).payload].write(resource, model.magic)
    if model.constants is not None:
        chunks.append(struct.pack("<Ii", model.magic, len(model.constants)))
        for name, buffer in model.constants.items():
            chunks += [_string(name), *_buffer(buffer, model.magic)]
    return b"".join(chunks)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _INTEGER.pack(len(encoded)) + encoded


def _buffer(buffer: RawBuffer, magic: int) -> list[bytes]:
    values = buffer.values
    header = struct.pack("<Iii", magic, buffer.dtype, values.nbytes)
    if values.nbytes == 0:
        return [header]
    dims = b"" if magic == MAGIC_V1 else struct.pack(f"<{1 + values.ndim}i", values.ndim, *values.shape)
    return [header, dims, values.tobytes()]


@dataclass
class _Cursor:
    """A position in the file; every read checks first that the bytes are there."""

    content: bytes
    source: str
    offset: int = 0
    file_magic: int = MAGIC
    inside: str = "header"

    def error(self, reason: str, offset: int | None = None) -> FileError:
        at = self.offset if offset is None else offset
        return FileError(f"{self.source}: byte {at} ({self.inside}): {reason}")

    def take(self, size: int, what: str) -> int:
        """Return the offset of the next ``size`` bytes and step over them."""
        start, left = self.offset, len(self.content) - self.offset
        if not 0 <= size <= left:
            raise self.error(
                f"{what} takes {size} bytes, the file has {left} left; truncated or damaged, convert again"
            )
        self.offset += size
        return start

    def integer(self, what: str) -> int:
        return int(_INTEGER.unpack_from(self.content, self.take(4, what))[0])

    def count(self, what: str) -> int:
        # Whatever is counted takes at least 4 bytes, so a lying count is caught before anything is built.
        count, left = self.integer(f"the number of {what}"), len(self.content) - self.offset
        if not 0 <= 4 * count <= left:
            raise self.error(f"{count} {what} announced, {left} bytes left", self.offset - 4)
        return count

    def magic(self, *expected: int) -> int:
        found = self.integer("the magic") & 0xFFFFFFFF
        if found not in expected:
            names = " or ".join(f"{magic:#x}" for magic in expected)
            raise self.error(f"magic {found:#x}, expected {names}; is this a .tnnmodel?", self.offset - 4)
        return found

    def string(self, what: str) -> str:
        length = self.integer(f"the length of {what}")
        start = self.take(length, what)
        try:
            return self.content[start : self.offset].decode()
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is no UTF-8 text", start) from error

    def flag(self, what: str, width: int = 4) -> bool:
        start = self.take(width, what)
        value = int.from_bytes(self.content[start : self.offset], "little")
        if value not in (0, 1):
            raise self.error(f"{what} is {value}, expected 0 or 1", start)
        return value == 1

    def buffer(self, role: str) -> RawBuffer:
        self.magic(self.file_magic)
        dtype, size = self.integer(f"{role}'s dtype"), self.integer(f"{role}'s size")
        if dtype not in DTYPES:
            raise self.error(f"{role} has dtype {dtype}, expected one of {sorted(DTYPES)}", self.offset - 8)
        item = DTYPES[dtype]
        if size <= 0 or size % item.itemsize:
            if size == 0:
                return RawBuffer(np.empty(0, item), dtype)
            raise self.error(
                f"{role} has {size} bytes, no multiple of {item}'s {item.itemsize}", self.offset - 4
            )
        dims = self._dims(role, size // item.itemsize)
        start = self.take(size, role)
        values = np.frombuffer(self.content, item, size // item.itemsize, start)
        return RawBuffer(values.reshape(dims), dtype)

    def _dims(self, role: str, elements: int) -> tuple[int, ...]:
        if self.file_magic == MAGIC_V1:
            return (elements,)
        at = self.offset
        rank = self.count(f"dimensions of {role}")
        dims = struct.unpack_from(f"<{rank}i", self.content, self.take(4 * rank, f"the dimensions of {role}"))
        if rank > 16 or min(dims, default=1) < 1 or math.prod(dims) != elements:
            raise self.error(f"{role} has {elements} elements but the dimensions {dims[:16]}", at)
        return dims


@dataclass(frozen=True)
class _Payload:
    """How the constants of a family of layers are laid out."""

    read: Callable[[_Cursor], tuple[str, dict[str, RawBuffer]]]
    write: Callable[[Resource, int], list[bytes]]


def _read_resource(cursor: _Cursor) -> Resource:
    at = cursor.offset
    type_id, type_name = cursor.integer("a layer's type id"), cursor.string("a layer's type")
    name = cursor.string("a layer's name")
    cursor.inside = f"{type_name} {name!r}"
    description = layer_type(type_name, f"{cursor.source}: byte {at}, layer {name!r}")
    if not description.payload:
        raise cursor.error(f"{type_name} has no constants in this format", at)
    if type_id not in (BY_NAME, description.type_id):
        raise cursor.error(f"type id {type_id} is not that of {type_name}", at)
    label, buffers = _PAYLOADS[description.payload].read(cursor)
    return Resource(type_name, name, buffers, type_id, label)


def _read_constants(cursor: _Cursor) -> dict[str, RawBuffer]:
    cursor.inside = "constant map"
    cursor.magic(cursor.file_magic)
    constants: dict[str, RawBuffer] = {}
    for _ in range(cursor.count("constants")):
        name = cursor.string("a constant's name")
        if name in constants:
            raise cursor.error(f"constant {name!r} is there twice")
        constants[name] = cursor.buffer(f"constant {name!r}")
    return constants


def _read_convolution(cursor: _Cursor) -> tuple[str, dict[str, RawBuffer]]:
    label, has_bias = cursor.string("the inner name"), cursor.flag("has-bias")
    buffers = {"weight": cursor.buffer("weight")}
    if has_bias:
        buffers["bias"] = cursor.buffer("bias")
    return label, buffers


def _write_convolution(resource: Resource, magic: int) -> list[bytes]:
    buffers = [chunk for buffer in resource.buffers.values() for chunk in _buffer(buffer, magic)]
    return [_string(resource.label), _INTEGER.pack("bias" in resource.buffers), *buffers]


def _read_labelled(*roles: str) -> Callable[[_Cursor], tuple[str, dict[str, RawBuffer]]]:
    return lambda cursor: (cursor.string("the inner name"), {role: cursor.buffer(role) for role in roles})


def _write_labelled(resource: Resource, magic: int) -> list[bytes]:
    return [_string(resource.label), *_write_buffers(resource, magic)]


def _read_optional(width: int, *roles: str) -> Callable[[_Cursor], tuple[str, dict[str, RawBuffer]]]:
    """Return what reads buffers, each after a flag of ``width`` bytes that says whether it is there."""

    def read(cursor: _Cursor) -> tuple[str, dict[str, RawBuffer]]:
        return "", {role: cursor.buffer(role) for role in roles if cursor.flag(f"has-{role}", width)}

    return read


def _write_optional(width: int, *roles: str) -> Callable[[Resource, int], list[bytes]]:
    def write(resource: Resource, magic: int) -> list[bytes]:
        chunks: list[bytes] = []
        for role in roles:
            buffer = resource.buffers.get(role)
            chunks.append((buffer is not None).to_bytes(width, "little"))
            chunks += [] if buffer is None else _buffer(buffer, magic)
        return chunks

    return write


def _read_roles(*roles: str) -> Callable[[_Cursor], tuple[str, dict[str, RawBuffer]]]:
    return lambda cursor: ("", {role: cursor.buffer(role) for role in roles})


def _write_buffers(resource: Resource, magic: int) -> list[bytes]:
    return [chunk for buffer in resource.buffers.values() for chunk in _buffer(buffer, magic)]


_PAYLOADS = {
    "convolution": _Payload(_read_convolution, _write_convolution),
    "inner product": _Payload(_read_labelled("weight", "bias"), _write_labelled),
    "slope": _Payload(_read_labelled("slope"), _write_labelled),
    "scale and bias": _Payload(_read_roles("scale", "bias"), _write_buffers),
    "constant": _Payload(_read_roles("constant"), _write_buffers),
    "value": _Payload(_read_roles("value"), _write_buffers),
    "colour curves": _Payload(_read_roles(*COLOUR_CURVES), _write_buffers),
    "gather": _Payload(_read_optional(4, *GATHERED), _write_optional(4, *GATHERED)),
    "scatter": _Payload(_read_optional(1, *SCATTERED), _write_optional(1, *SCATTERED)),
}
