"""The vocabulary on zeros, wherever only shapes matter: what is the same everywhere is computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from refimpl.ops.operation import OPERATIONS, Array, Trait, having
from refimpl.ops.windows import sliding_windows


def _conv(x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> Array:
    placed = {key: attributes[key] for key in PLACING & attributes.keys()}
    windows = sliding_windows(x.shape[2:], weight.shape[2:], **placed)
    return _zeros((len(x), len(weight), *windows.output), x.dtype)


def _batch_normalization(x: Array, *parameters: Array, **attributes: Any) -> Array:
    return _zeros(x.shape, x.dtype)


def _mat_mul(a: Array, b: Array) -> Array:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    return _zeros(shape, a.dtype)


def _elementwise(name: str, *inputs: Any, **attributes: Any) -> Array:
    """Compute one of each that are the same because they were broadcast."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in inputs if x is not None))
    return np.broadcast_to(OPERATIONS[name](*map(_distinct, inputs), **attributes), shape)


def _distinct(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    return x[tuple(slice(None) if stride else slice(1) for stride in x.strides)]


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return zeros that take no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


PLACING = frozenset({"auto_pad", "dilations", "pads", "strides"})

BLANK: Mapping[str, Callable[..., Any]] = {
    **OPERATIONS,
    **{name: partial(_elementwise, name) for name in having(Trait.ELEMENTWISE)},
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "MatMul": _mat_mul,
}
"""Operator → a function that gives the shape and dtype of its result."""


class BlankInterceptor:
    """An interceptor that computes with `BLANK`."""

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        """Compute an operation."""
        return BLANK[name](*inputs, **attributes)

    def block(self, path: str, compute: Callable[[], Any]) -> Any:
        """Run a block."""
        return compute()
