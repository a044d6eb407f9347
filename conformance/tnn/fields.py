"""The grammar of a layer's parameters in the `.tnnproto`: words to the fields of a dataclass, and back.

The order of the fields is the order in the file, and the annotation of a field is its grammar: an ``int``, a
``float``, a ``str``, a counted list (``n`` then ``n`` numbers, or ``n`` pairs) or the numbers left (`rest`).
Fields with a default may be absent from older files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from refimpl.errors import FileError


def plain(**keywords: Any) -> Any:
    """Declare a field whose annotation says all there is."""
    return field(**keywords)


def limit() -> Any:
    """Declare a float field that may be infinite."""
    return field(metadata={"infinite": True})


def counted(each: int = 1) -> Any:
    """Declare a field that the file writes as a count followed by ``each`` numbers for each."""
    return field(metadata={"kind": "counted", "each": each})


def rest() -> Any:
    """Declare a field that takes all the integers left on the line."""
    return field(metadata={"kind": "rest"})


def choice(*allowed: int, **keywords: Any) -> Any:
    """Declare an integer field that has a few legal values."""
    return field(metadata={"kind": "int", "allowed": allowed}, **keywords)


def at_least(minimum: int, **keywords: Any) -> Any:
    """Declare an integer field with a least value."""
    return field(metadata={"kind": "int", "minimum": minimum}, **keywords)


def size(**keywords: Any) -> Any:
    """Declare an integer field that must be at least 1."""
    return at_least(1, **keywords)


def amount(**keywords: Any) -> Any:
    """Declare an integer field that must be at least 0."""
    return at_least(0, **keywords)


@dataclass(frozen=True)
class Parameters:
    """Parameters of a layer; this class itself is those of a layer that has none (ReLU, Sigmoid, …)."""

    @classmethod
    def read(cls, words: list[str]) -> Self:
        """Read the parameters from the words of a proto line.

        Raises
        ------
        FileError
            A word that is no number, an illegal value, too few words or too many.
        """
        left = iter(words)
        values = {}
        for slot in dataclasses.fields(cls):
            value = _read_field(slot, left)
            if value is not _ABSENT:
                values[slot.name] = value
        extra = list(left)
        if extra:
            raise FileError(f"{len(extra)} parameters too many: {' '.join(extra[:8])}; {cls.grammar()}")
        return cls(**values)

    def write(self) -> list[str]:
        """Return the words of the proto line; fields absent from the file stay absent."""
        words: list[str] = []
        for slot in dataclasses.fields(self):
            value = getattr(self, slot.name)
            if value is not None:
                words += _write_field(slot, value)
        return words

    @classmethod
    def grammar(cls) -> str:
        """Return the fields in order, for error messages."""
        names = " ".join(slot.name for slot in dataclasses.fields(cls))
        return f"expected: {names}" if names else "this layer type takes no parameters"


_ABSENT: Any = object()


def _kind(slot: dataclasses.Field[Any]) -> str:
    return str(slot.metadata.get("kind", slot.type))


def _integer(word: str, name: str) -> int:
    digits = word[1:] if word.startswith("-") else word
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise FileError(f"parameter {name} is {word!r}, expected an integer")
    return int(word)


def _float(word: str, name: str, infinite: bool = False) -> float:
    try:
        value = float(word) if "_" not in word else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value) or (math.isinf(value) and not infinite):
        raise FileError(f"parameter {name} is {word!r}, expected a {'' if infinite else 'finite '}number")
    return value


def _next(left: Iterator[str], name: str) -> str:
    word = next(left, None)
    if word is None:
        raise FileError(f"parameter {name} is missing")
    return word


def _read_field(slot: dataclasses.Field[Any], left: Iterator[str]) -> Any:
    kind = _kind(slot)
    if kind == "rest":
        return tuple(_integer(word, slot.name) for word in left)
    if slot.default is not dataclasses.MISSING:
        word = next(left, None)
        return _ABSENT if word is None else _read_word(slot, word)
    word = _next(left, slot.name)
    if kind == "counted":
        count = slot.metadata["each"] * _integer(word, f"count of {slot.name}")
        if count < 0:
            raise FileError(f"the count of {slot.name} is {word}, expected at least 0")
        number = _float if "float" in str(slot.type) else _integer
        return tuple(number(_next(left, slot.name), slot.name) for _ in range(count))
    return _read_word(slot, word)


def _read_word(slot: dataclasses.Field[Any], word: str) -> Any:
    if _kind(slot) == "float":
        return _float(word, slot.name, slot.metadata.get("infinite", False))
    if _kind(slot) == "str":
        return word
    value = _integer(word, slot.name)
    allowed = slot.metadata.get("allowed")
    if allowed is not None and value not in allowed:
        raise FileError(f"parameter {slot.name} is {value}, expected one of {allowed}")
    minimum = slot.metadata.get("minimum")
    if minimum is not None and value < minimum:
        raise FileError(f"parameter {slot.name} is {value}, expected at least {minimum}")
    return value


def _write_field(slot: dataclasses.Field[Any], value: Any) -> list[str]:
    if not isinstance(value, tuple):
        return [_word(value)]
    words = [_word(number) for number in value]
    return words if _kind(slot) == "rest" else [str(len(words) // slot.metadata["each"]), *words]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
