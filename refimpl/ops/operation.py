"""The vocabulary: every operation is registered under its ONNX name, and every call can be intercepted.

An operation is a pure function of arrays: the ONNX operator's inputs are its positional parameters (None for
an absent optional one), the ONNX attributes its keyword-only parameters, with ONNX's names and defaults. So
one function serves the network, the recording, the ONNX export, and the replay of somebody else's graph.
What holds of it whatever its operands, its traits, it declares itself.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""ONNX operator name → the plain function that computes it."""


def is_fixed(array: Array) -> bool:
    """Tell whether nobody can write into an array's memory: it owns it, or what does, and is read-only."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or isinstance(base, bytes)


class Trait(enum.Flag):
    """What holds of an operation whatever its operands; one that implies another has its bit too."""

    ROUNDS = 1
    """Results may be rounded."""
    EXACT = 2
    """No result is rounded: of float32 numbers, float32 and float64 make the same."""
    MOVES = 4 | EXACT
    """Every result is an element of an operand, or a filling, and no number decides which."""
    VIEWS = 8 | MOVES
    """The first operand's elements in their order, in another shape."""
    SELECTS = 16 | EXACT
    """Every float result is a number of an operand, or zero, chosen by comparing."""
    SUMS = 32 | ROUNDS
    """Every result is a sum of its own, of many terms, linear in the first operand."""
    PRODUCTS = 64 | SUMS
    """The terms are products of an element of each of the first operands; an addend may follow."""
    ELEMENTWISE = 128
    """Every result depends only on the elements at its place, after broadcasting."""
    MONOTONE = 256 | ELEMENTWISE
    """The results only rise, or only fall, with the first operand."""
    MAPS = 512
    """The first operand is a map: batch, channels, then space; each of a batch is computed alone."""


TRAITS: dict[str, Trait] = {}
"""ONNX operator name → what the operation declares of itself."""


def having(trait: Trait) -> frozenset[str]:
    """Return the operators that declare a trait."""
    return frozenset(name for name, traits in TRAITS.items() if trait in traits)


class Interceptor(Protocol):
    """Sees every operation of the vocabulary, and every block of the network, while it is active."""

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        """Compute operation ``name``, usually as ``OPERATIONS[name](*inputs, **attributes)``."""

    def block(self, path: str, compute: Callable[[], R]) -> R:
        """Run ``compute``, the block of the network whose weights stand under ``path``."""


_interceptor: ContextVar[Interceptor | None] = ContextVar("interceptor", default=None)


def active_interceptor() -> Interceptor | None:
    """Return the interceptor in force, or None."""
    return _interceptor.get()


@contextmanager
def intercepted(interceptor: Interceptor | None) -> Iterator[None]:
    """Let ``interceptor`` see every operation called inside the ``with`` block (None: nobody)."""
    token = _interceptor.set(interceptor)
    try:
        yield
    finally:
        _interceptor.reset(token)


def operation(name: str, traits: Trait) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function as the ONNX operator ``name``, and let interceptors see its calls."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        OPERATIONS[name], TRAITS[name] = function, traits

        @functools.wraps(function)
        def call(*inputs: P.args, **attributes: P.kwargs) -> R:
            interceptor = _interceptor.get()
            if interceptor is None:
                return function(*inputs, **attributes)
            return cast(R, interceptor.call(name, inputs, attributes))

        return call

    return register
