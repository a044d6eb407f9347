"""Values that are given by name, on a command line: each once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from refimpl.errors import ConfigurationError

Value = TypeVar("Value")


def given_once(pairs: Iterable[tuple[str, Value]], where: str) -> dict[str, Value]:
    """Return name → value, of which none would be dropped for a later one.

    Parameters
    ----------
    pairs
    where
        The option that they are given by.

    Raises
    ------
    ConfigurationError
        A name is there twice.
    """
    found: dict[str, Value] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigurationError(f"{where} gives {name!r} twice; leave one of them out")
        found[name] = value
    return found


def values_in(words: Iterable[str], where: str) -> dict[str, str]:
    """Return name → value of ``name=value`` each (errors: those of `given_once`); empty words are none."""
    pairs = (word.partition("=") for word in words if word)
    return given_once(((name, value) for name, _, value in pairs), where)
