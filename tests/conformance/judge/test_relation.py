"""Relations that NumPy makes are found, with their numbers; of what has none, only the size is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.judge.relation import relation
from conformance.reports.report import UNRELATED
from refimpl.ops.operation import Array

SHAPE = (1, 16, 12, 20)
Make = Callable[[Array, np.random.Generator], Array]


def tensors(seed: int) -> tuple[Array, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=SHAPE), rng


def told(make: Make, seed: int, known: dict[str, Array] | None = None) -> str:
    """Return what is said of a tensor that is made of the right one and rounded as float32 is."""
    right, rng = tensors(seed)
    wrong = make(right, rng).astype(np.float32).astype(np.float64)
    return relation(right, wrong, np.abs(right) * 2.0**-23 + 2.0**-24, known)


def _slices(x: Array, _: np.random.Generator) -> Array:
    y = x.copy()
    y[:, 3:5] *= 1.05
    return y


RELATED: dict[str, tuple[Make, str]] = {
    "factor": (lambda x, _: 1.37 * x, "is 1.37 × the right one"),
    "sign": (lambda x, _: -x, "is the right one negated"),
    "shift": (lambda x, _: x + 0.25, "is the right one +0.25"),
    "line": (lambda x, _: 2 * x + 1, "is 2 × the right one +1"),
    "clamp": (lambda x, _: np.clip(x, None, 1.5), "is the right one cut off at 1.5"),
    "mirrored": (lambda x, _: x[..., ::-1], "with its columns reversed"),
    "upside down": (lambda x, _: x[:, :, ::-1], "with its rows reversed"),
    "pixels": (lambda x, _: np.roll(x, 2, 3), "shifted by +2 columns"),
    "order": (lambda x, rng: x[:, rng.permutation(16)], "has its channels in another order"),
    "factors": (
        lambda x, rng: x * rng.uniform(1.5, 2, (1, 16, 1, 1)),
        "a factor of its own for each of its channels",
    ),
    "shifts": (
        lambda x, rng: x + rng.uniform(1, 2, (1, 16, 1, 1)),
        "a shift of its own for each of its channels",
    ),
    "slices": (_slices, "is 1.05 × the right one, in 2 of 16 channels only: 3, 4"),
    "grid": (lambda x, _: np.rint(x * 16) / 16, "rounded to multiples of 0.0625"),
    "float16": (lambda x, _: x.astype(np.float16).astype(np.float64), "was rounded to float16"),
    "zeros": (lambda x, _: 0 * x, "is all zeros"),
}
UNRELATED_TO: dict[str, Make] = {
    "another": lambda x, rng: rng.normal(size=x.shape),
    "noise": lambda x, rng: x + 1e-2 * rng.normal(size=x.shape),
    "curve": lambda x, _: np.tanh(x),
    "elements": lambda x, rng: x * np.where(rng.random(x.shape) < 0.3, 1 + rng.random(x.shape), 1),
    "half and noise": lambda x, rng: 0.5 * x + 1e-3 * rng.normal(size=x.shape),
}


@pytest.mark.parametrize("kind", RELATED)
@given(seed=st.integers(0, 10_000))
def test_a_relation_is_told_with_its_numbers(kind: str, seed: int) -> None:
    make, said = RELATED[kind]
    assert said in told(make, seed)


@pytest.mark.parametrize("kind", UNRELATED_TO)
@given(seed=st.integers(0, 10_000))
def test_without_a_relation_only_the_size_is_told(kind: str, seed: int) -> None:
    """The null: what is free enough to explain anything explains nothing."""
    assert told(UNRELATED_TO[kind], seed).startswith(UNRELATED)


@given(seed=st.integers(0, 10_000))
def test_another_tensor_is_recognised(seed: int) -> None:
    other = np.random.default_rng(seed + 1).normal(size=SHAPE)
    bias = np.random.default_rng(seed + 2).normal(size=(1, 16, 1, 1))
    known = {"other": other, "bias": bias}
    assert told(lambda x, _: other, seed, known) == "is other"
    assert told(lambda x, _: x + other, seed, known) == "is the right one with other added"
    assert told(lambda x, _: x - bias, seed, known).startswith("is the right one without bias")


def test_numbers_that_are_not_finite_are_counted() -> None:
    right, _ = tensors(0)
    wrong = right.copy()
    wrong[0, 0, 0, :3] = np.nan
    assert relation(right, wrong, 0.0) == "holds 3 numbers that are not finite"


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (0, 3, slice(None), slice(None))])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told_apart(place: tuple[int, ...], number: float) -> None:
    right, _ = tensors(0)
    right[place] = number
    count = int(np.sum(~np.isfinite(right)))
    wrong = np.where(np.isfinite(right), right, 1.0)
    assert relation(right, wrong, None) == f"holds {count} finite numbers where the right one has none"
    assert relation(wrong, right, None) == f"holds {count} numbers that are not finite"
    assert relation(right, 1.37 * right, None) == "is 1.37 × the right one"
