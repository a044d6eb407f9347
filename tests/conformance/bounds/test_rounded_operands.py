"""Bounds of a runtime that rounds operands to float16 and sums widely, against arithmetic that does so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.bounds import FLOAT16, FLOAT32, HEXAGON, Declaration, bias_test, introduced_bound
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

ON_NPU = Declaration(FLOAT16, FLOAT32, HEXAGON)
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    """Return normal numbers that float16 does not hold."""
    return RNG.normal(size=shape)


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Conv", (normal(1, 200, 6, 6), normal(8, 200, 3, 3), normal(8)), {"pads": [1, 1, 1, 1]}),
    ("Conv", (normal(1, 8, 6, 6), normal(8, 1, 3, 3)), {"group": 8}),
    ("MatMul", (normal(4, 300), normal(300, 5)), {}),
    ("Gemm", (normal(4, 300), normal(300, 5), normal(5)), {"alpha": 0.5, "beta": 2.0}),
    ("Einsum", (normal(4, 300), normal(300, 5)), {"equation": "ik,kj->ij"}),
    ("Add", (normal(50), -normal(50)), {}),
    ("Sub", (normal(50), normal(50)), {}),
    ("Mul", (normal(50), normal(50)), {}),
    ("Div", (normal(50), 2 + np.abs(normal(50))), {}),
    ("Relu", (normal(50),), {}),
    ("Clip", (10 * normal(50), np.array(0.0), np.array(6.0)), {}),
    ("HardSigmoid", (4 * normal(50),), {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", (4 * normal(50),), {}),
    ("Sigmoid", (4 * normal(50),), {}),
    ("Gelu", (4 * normal(50),), {}),
    ("Exp", (normal(50),), {}),
    ("Softmax", (4 * normal(5, 40),), {}),
    ("AveragePool", (normal(1, 3, 8, 8),), {"kernel_shape": [3, 3]}),
    ("MaxPool", (normal(1, 3, 8, 8),), {"kernel_shape": [3, 3]}),
    ("ReduceMean", (normal(4, 300), np.array([1])), {}),
    ("LayerNormalization", (normal(4, 256), normal(256), normal(256)), {}),
    ("BatchNormalization", (normal(1, 5, 4, 4), *(normal(5) for _ in range(3)), 1 + np.abs(normal(5))), {}),
    ("Transpose", (normal(3, 4),), {"perm": [1, 0]}),
    ("Concat", (normal(3, 4), normal(3, 4)), {"axis": 1}),
]


def rounded(x: Any) -> Any:
    """Round floats to float16, as float32: what the sums are of."""
    return x.astype(np.float16).astype(np.float32) if x.dtype.kind == "f" else x


@pytest.mark.parametrize(("name", "inputs", "attributes"), CALLS, ids=[name for name, *_ in CALLS])
def test_rounded_operands_and_wide_sums_stay_within(
    name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    call = OPERATIONS[name]
    truth = np.asarray(call(*inputs, **attributes))
    bound = introduced_bound(name, inputs, attributes, truth, ON_NPU)
    result = np.asarray(call(*map(rounded, inputs), **attributes))
    for stored in (result, result.astype(np.float16)):
        error = np.abs(stored.astype(np.float64) - truth)
        assert bound is not None
        assert np.all(error <= bound), (error / bound).max()


def test_a_long_sum_is_held_to_wide_arithmetic() -> None:
    """Not K·u of half arithmetic: a product that is off by 5 % of a few of its terms shows."""
    a, b = np.abs(normal(4, 3000)), np.abs(normal(3000, 5))
    truth = a @ b
    bound = introduced_bound("MatMul", (a, b), {}, truth, ON_NPU)
    half = introduced_bound("MatMul", (a, b), {}, truth, Declaration(FLOAT16, FLOAT16))
    assert bound is not None
    assert half is not None
    assert np.all(bound < 4 * FLOAT16.unit_roundoff * truth)
    assert np.all(half > 1000 * bound)


@pytest.mark.parametrize("sign", [np.abs, lambda x: x], ids=["of one sign", "of both"])
def test_results_rounded_too_look_like_rounding(sign: Any) -> None:
    """Terms of one sign make a result whose own rounding is more than √n of theirs."""
    a, b = (sign(normal(*shape)).astype(np.float16).astype(np.float64) for shape in ((200, 50), (50, 64)))
    truth = a @ b
    error = truth.astype(np.float16) - truth
    bound, scale = (
        introduced_bound("MatMul", (a, b), {}, truth, ON_NPU, probable=probable) for probable in (False, True)
    )
    assert not bias_test(error, np.asarray(bound), np.asarray(scale)).suspicious
    assert bias_test(8 * error, np.asarray(bound), np.asarray(scale)).suspicious


def between(x: Array, axis: int, length: int) -> tuple[Array, Array, Array]:
    """Return, for twice as many places along an axis, the elements before and after, and the weight."""
    places = (np.arange(2 * length) + 0.5) / 2 - 0.5
    low = np.floor(places)
    weight = (places - low).astype(np.float16).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    before, after = (x.take(np.clip(low + i, 0, length - 1).astype(int), axis) for i in (0, 1))
    return before, after, weight


def test_resizing_by_rounded_differences_stays_within() -> None:
    """a + v·(b − a) + w·(c − a) + v·w·(a − b − c + d), every operation in float16."""
    # Between a large element and a small one, what is left of the large one's rounding is most.
    x = normal(1, 200, 20, 20) * np.where(RNG.random((1, 200, 20, 20)) < 0.1, 100, 1)
    sizes = np.array([1, 200, 40, 40])
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    truth = OPERATIONS["Resize"](x, None, None, sizes, **attributes)
    bound = introduced_bound("Resize", (x, None, None, sizes), attributes, truth, ON_NPU)
    top, bottom, w = between(x.astype(np.float16), 2, 20)
    (a, b, v), (c, d, _) = between(top, 3, 20), between(bottom, 3, 20)
    made = a + v * (b - a) + w * (c - a) + v * w * (a - b - c + d)
    assert bound is not None
    assert (np.abs(made.astype(np.float64) - truth) <= bound).all()
