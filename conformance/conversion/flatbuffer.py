"""Flatbuffers, read by the places that a schema gives its fields: strict, without generated code.

Source: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

import numpy as np

from refimpl.errors import FileError
from refimpl.ops.operation import Array

Content = bytes | memoryview
"""A file, or a part of one."""
_FIRST = 4
"""Bytes of a table's own entry before its fields."""


@dataclass(frozen=True)
class Table:
    """A table: fields by their place in the schema, the first 0; those that are left out have a default.

    Attributes
    ----------
    content
        Of the whole file.
    at
        Where the table begins.
    """

    content: Content
    at: int

    def number(self, place: int, kind: str, default: float = 0) -> int | float:
        """Return a scalar; ``kind`` as `struct` calls it."""
        field = self._field(place)
        return default if field is None else unpacked(self.content, field, kind)

    def whole(self, place: int, kind: str = "i", default: int = 0) -> int:
        """Return a whole number."""
        return int(self.number(place, kind, default))

    def table(self, place: int) -> Table | None:
        """Return a table that a field refers to, also by a union."""
        field = self._field(place)
        return None if field is None else _referred(self.content, field)

    def text(self, place: int) -> str:
        """Return a string, empty where there is none."""
        field = self._field(place)
        return "" if field is None else self._bytes(field).decode("utf-8", "replace")

    def tables(self, place: int) -> list[Table]:
        """Return the tables of a list."""
        field = self._field(place)
        if field is None:
            return []
        begin, count = _extent(self.content, field, 4)
        return [_referred(self.content, begin + 4 * number) for number in range(count)]

    def texts(self, place: int) -> list[str]:
        """Return the strings of a list."""
        field = self._field(place)
        if field is None:
            return []
        begin, count = _extent(self.content, field, 4)
        places = (begin + 4 * number for number in range(count))
        return [self._bytes(each).decode("utf-8", "replace") for each in places]

    def array(self, place: int, dtype: str) -> Array:
        """Return the numbers of a list, little-endian."""
        field, kind = self._field(place), np.dtype(dtype).newbyteorder("<")
        if field is None:
            return np.zeros(0, kind)
        begin, count = _extent(self.content, field, kind.itemsize)
        return np.frombuffer(self.content, kind, count, begin)

    def wholes(self, place: int, dtype: str = "i4") -> tuple[int, ...]:
        """Return the whole numbers of a list."""
        return tuple(map(int, self.array(place, dtype)))

    def _bytes(self, field: int) -> bytes:
        begin, count = _extent(self.content, field, 1)
        return bytes(self.content[begin : begin + count])

    def _field(self, place: int) -> int | None:
        fields, held = self._fields
        if _FIRST + 2 * place >= held:
            return None
        away = int(unpacked(self.content, fields + _FIRST + 2 * place, "H"))
        return self.at + away if away else None

    @functools.cached_property
    def _fields(self) -> tuple[int, int]:
        """Where the places of the fields begin, and their bytes."""
        begin = self.at - int(unpacked(self.content, self.at, "i"))
        return begin, int(unpacked(self.content, begin, "H"))


def root(content: Content) -> Table:
    """Return the table that a file begins with.

    Raises
    ------
    FileError
        It does not lie within the file.
    """
    return _referred(content, 0)


def unpacked(content: Content, at: int, kind: str) -> int | float:
    """Return the number at a place.

    Raises
    ------
    FileError
        It lies outside of the file.
    """
    form = _form(kind)
    if not 0 <= at <= len(content) - form.size:
        raise FileError(f"it refers to byte {at}, and has {len(content)}: cut off or malformed")
    value: int | float = form.unpack_from(content, at)[0]
    return value


@functools.cache
def _form(kind: str) -> struct.Struct:
    return struct.Struct(f"<{kind}")


def _referred(content: Content, at: int) -> Table:
    return Table(content, at + int(unpacked(content, at, "I")))


def _extent(content: Content, field: int, size: int) -> tuple[int, int]:
    """Return where a list begins and its length."""
    begin = field + int(unpacked(content, field, "I"))
    count = int(unpacked(content, begin, "I"))
    if begin + 4 + count * size > len(content):
        raise FileError(f"a list of {count} lies outside of the file: cut off or malformed")
    return begin + 4, count
