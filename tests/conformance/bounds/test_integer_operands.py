"""Products of which one operand is made integers, computed so here by NumPy, are within the bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from conformance.bounds import CPU, INT8, LITERT_DYNAMIC, Declaration, introduced_bound
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

DYNAMIC, PLAIN = (Declaration(weights=INT8, runtime=each) for each in (LITERT_DYNAMIC, CPU))


def symmetric(x: Array, axes: tuple[int, ...]) -> Array:
    """Return multiples of a 127th of the largest of those that share a scale."""
    step = np.abs(x).max(axis=axes, keepdims=True) / 127
    return np.rint(x / step) * step


def of_range(x: Array, axes: tuple[int, ...]) -> Array:
    """Return multiples of a 255th of the range of those that share a scale, from a zero point on."""
    low, high = np.minimum(x.min(axes, keepdims=True), 0), np.maximum(x.max(axes, keepdims=True), 0)
    step = (high - low) / 255
    point = np.rint(-128 - low / step)
    return (np.clip(np.rint(x / step) + point, -128, 127) - point) * step


def in_groups(x: Array, axes: tuple[int, ...]) -> Array:
    """As `symmetric`, two neighbours along the first of the axes with a scale of their own."""
    turned = np.moveaxis(x, axes[0], -1)
    made = symmetric(turned.reshape(*turned.shape[:-1], -1, 2), (-1,)).reshape(turned.shape)
    return np.moveaxis(made, -1, axes[0])


CASES = [
    ("Conv", (2, 8, 6, 4), (5, 8, 3, 3), {"pads": [1, 1, 1, 1]}, 0, (1, 2, 3)),
    ("Conv", (1, 8, 6, 4), (8, 1, 3, 3), {"group": 8}, 0, (1, 2, 3)),
    ("Gemm", (6, 8), (5, 8), {"transB": 1}, 0, (-1,)),
    ("Gemm", (8, 6), (8, 5), {"transA": 1, "alpha": 2.0}, 0, (0,)),
    ("MatMul", (2, 6, 8), (8, 5), {}, 0, (-1,)),
    ("MatMul", (5, 8), (2, 8, 4), {}, 1, (-2,)),
]


@pytest.mark.parametrize("rounded", [symmetric, of_range, in_groups])
@pytest.mark.parametrize(("name", "first", "second", "attributes", "place", "axes"), CASES)
def test_what_is_computed_of_integers_is_within_the_bound(
    name: str,
    first: tuple[int, ...],
    second: tuple[int, ...],
    attributes: dict[str, object],
    place: int,
    axes: tuple[int, ...],
    rounded: Callable[[Array, tuple[int, ...]], Array],
) -> None:
    rng = np.random.default_rng(0)
    operands = [rng.normal(size=shape) for shape in (first, second)]
    exact = OPERATIONS[name](*operands, **attributes)
    bound, plain = (introduced_bound(name, operands, attributes, exact, each) for each in (DYNAMIC, PLAIN))
    operands[place] = rounded(operands[place], axes)
    error = np.abs(OPERATIONS[name](*operands, **attributes) - exact)
    assert bound is not None
    assert plain is not None
    assert (error <= bound).all()
    assert error.max() > 0.02 * bound.max()
    assert error.max() > 100 * plain.max()


def test_products_of_two_activations_are_as_before() -> None:
    a, b = (np.random.default_rng(seed).normal(size=(2, 3, 4, 4)) for seed in (1, 2))
    bounds = [introduced_bound("MatMul", [a, b], {}, a @ b, each) for each in (DYNAMIC, PLAIN)]
    np.testing.assert_array_equal(*bounds)


def test_a_declaration_says_so() -> None:
    assert "weights of int8, their other operands made integers, too" in str(DYNAMIC)
