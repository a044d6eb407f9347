"""Operations on the bits of integers, element by element."""

from __future__ import annotations

import numpy as np

from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array, Trait, operation


@operation("BitwiseAnd", Trait.EXACT | Trait.ELEMENTWISE)
def bitwise_and(a: Array, b: Array) -> Array:
    """Return the bits that both have. ONNX BitwiseAnd."""
    return np.asarray(np.bitwise_and(a, b))


@operation("BitwiseOr", Trait.EXACT | Trait.ELEMENTWISE)
def bitwise_or(a: Array, b: Array) -> Array:
    """Return the bits that at least one has. ONNX BitwiseOr."""
    return np.asarray(np.bitwise_or(a, b))


@operation("BitwiseXor", Trait.EXACT | Trait.ELEMENTWISE)
def bitwise_xor(a: Array, b: Array) -> Array:
    """Return the bits that exactly one has. ONNX BitwiseXor."""
    return np.asarray(np.bitwise_xor(a, b))


@operation("BitwiseNot", Trait.EXACT | Trait.ELEMENTWISE)
def bitwise_not(x: Array) -> Array:
    """Return every bit inverted. ONNX BitwiseNot."""
    return np.asarray(np.bitwise_not(x))


@operation("BitShift", Trait.EXACT | Trait.ELEMENTWISE)
def bit_shift(x: Array, y: Array, *, direction: str) -> Array:
    """Return the bits moved by ``y`` places, zeros coming in: "LEFT" or "RIGHT". ONNX BitShift.

    Raises
    ------
    ConfigurationError
        Another direction.
    """
    moves = {"LEFT": np.left_shift, "RIGHT": np.right_shift}
    if direction not in moves:
        raise ConfigurationError(f"BitShift has direction {direction!r}; expected LEFT or RIGHT")
    return np.asarray(moves[direction](x, y))
