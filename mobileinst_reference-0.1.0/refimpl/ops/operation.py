"""The vocabulary: every operation is registered under its ONNX name, and every call can be intercepted.

An operation is a pure function of arrays: the ONNX operator's inputs are its positional parameters (None for
an
absent optional one), the ONNX attributes its keyword-only parameters, with ONNX's names and defaults. So one
function serves
the network, the recording, the ONNX export, and the replay of somebody else's graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from numpy.typing import NDArray

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""ONNX operator name → the plain function that computes it."""


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


def operation(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function as the ONNX operator ``name`` and let interceptors see its calls."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        OPERATIONS[name] = function

        @functools.wraps(function)
        def call(*inputs: P.args, **attributes: P.kwargs) -> R:
            interceptor = _interceptor.get()
            if interceptor is None:
                return function(*inputs, **attributes)
            return cast(R, interceptor.call(name, inputs, attributes))

        return call

    return register
