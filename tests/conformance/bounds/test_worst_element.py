"""The element that uses most of its bound, beside a search element by element in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from conformance.bounds import worst_element
from conformance.bounds.worst_element import largest_error, worst_of
from refimpl.ops.operation import Array

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, 1e30, math.inf, -math.inf, math.nan])
BOUNDS = st.sampled_from([0.0, 0.5, 1.0, 3.0, math.inf])
SHAPES = hn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worst_element, "BLOCK", 4)


def error_of(value: float, truth: float) -> float:
    if value == truth or (math.isnan(value) and math.isnan(truth)):
        return 0.0
    return math.inf if math.isnan(value) or math.isnan(truth) else abs(value - truth)


def share_of(error: float, truth: float, bound: float) -> float:
    bound = bound if math.isfinite(truth) else 0.0
    if error == 0 or math.isinf(bound):
        return 0.0
    return error / bound if bound else math.inf


@given(data=st.data(), shape=SHAPES, each=st.booleans())
def test_it_is_what_a_search_finds(data: st.DataObject, shape: tuple[int, ...], each: bool) -> None:
    arrays = [data.draw(hn.arrays(np.float64, shape, elements=NUMBERS)) for _ in range(2)]
    bounds = data.draw(hn.arrays(np.float64, shape if each else (), elements=BOUNDS))
    values, truth = arrays
    found = worst_of(values, truth, bounds if each else float(bounds))
    pairs = list(zip(values.ravel().tolist(), truth.ravel().tolist(), strict=True))
    limits = np.broadcast_to(bounds, shape).ravel().tolist()
    errors = [error_of(*pair) for pair in pairs]
    shares = [share_of(e, t, b) for e, (_, t), b in zip(errors, pairs, limits, strict=True)]
    assert found.utilisation == max(shares, default=0.0)
    assert found.largest == max(errors, default=0.0)
    for index, among in ((found.index, shares), (found.largest_index, errors)):
        assert not among or int(np.ravel_multi_index(index, shape) if shape else 0) == among.index(max(among))
    kept = zip(errors, pairs, limits, strict=True)
    assert found.open == any(e > 0 and math.isinf(b) and math.isfinite(t) for e, (_, t), b in kept)
    assert largest_error(values, truth) == (found.largest, found.largest_index if errors else ())


@given(
    x=hn.arrays(np.float32, (3, 4, 5), elements=st.floats(-4, 4, width=32)), order=st.permutations(range(3))
)
def test_how_it_lies_in_memory_is_of_no_matter(x: Array, order: list[int]) -> None:
    y = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    truth = np.zeros(x.shape)
    assert worst_of(x, truth, 2.0) == worst_of(y, truth, 2.0)
    assert largest_error(x, truth) == largest_error(y, truth)
