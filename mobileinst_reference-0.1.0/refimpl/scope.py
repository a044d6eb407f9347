"""Where the network finds its weights, and how its parts get their names.

A block of the network is a function marked `@block`; its parameter ``w`` is a `Scope`, a place in the tree
of weight names. ``w / "bn"`` is the place below it and ``w["weight", 16, 3, 3, 3]`` the array there, which
must have that shape. The same path names the block's result in a recording, so weights, tensors and reports
share one set of names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import numpy as np

from refimpl.errors import ShapeError, WeightsError
from refimpl.ops.operation import Array, active_interceptor

P = ParamSpec("P")
R = TypeVar("R")


class Scope:
    """A place in the tree of weight names.

    Parameters
    ----------
    weights
        Mapping from full name to array.
    path
        The dotted prefix of this place; empty at the root.
    """

    def __init__(self, weights: Mapping[str, Array], path: str = "") -> None:
        self.weights = weights
        self.path = path

    def __truediv__(self, name: str | int) -> Scope:
        """Return the place ``name`` below this one."""
        return Scope(self.weights, f"{self.path}.{name}" if self.path else str(name))

    def __contains__(self, name: str) -> bool:
        """Tell whether an array of that name stands here."""
        return (self / name).path in self.weights

    def __getitem__(self, key: tuple[str, *tuple[int, ...]]) -> Array:
        """Return the array ``key[0]``, which must have the shape ``key[1:]``.

        Raises
        ------
        WeightsError
            The array is missing.
        ShapeError
            It has another shape.
        """
        name, *shape = key
        path = (self / name).path
        if path not in self.weights:
            raise WeightsError(f"weight {path} is missing; expected an array of shape {tuple(shape)}")
        array = self.weights[path]
        if array.shape != tuple(shape):
            raise ShapeError(f"weight {path} has shape {array.shape}, expected {tuple(shape)}")
        return array


class DeclaringScope(Scope):
    """A scope without weights: it answers with zeros and notes every name and shape asked for."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], path: str = "") -> None:
        super().__init__({}, path)
        self.shapes = shapes

    def __truediv__(self, name: str | int) -> DeclaringScope:
        """Return the place ``name`` below this one."""
        return DeclaringScope(self.shapes, super().__truediv__(name).path)

    def __contains__(self, name: str) -> bool:
        """No optional weight exists before it is loaded."""
        return False

    def __getitem__(self, key: tuple[str, *tuple[int, ...]]) -> Array:
        """Note the parameter and return zeros of its shape (float32)."""
        name, *shape = key
        self.shapes[(self / name).path] = tuple(shape)
        return np.zeros(shape, np.float32)


def block(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a part of the network: its operations and its result are recorded under the path of its ``w``."""
    position = list(inspect.signature(function).parameters).index("w")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        interceptor = active_interceptor()
        if interceptor is None:
            return function(*args, **kwargs)
        scope = kwargs["w"] if "w" in kwargs else args[position]
        assert isinstance(scope, Scope)
        return interceptor.block(scope.path, lambda: function(*args, **kwargs))

    return call
