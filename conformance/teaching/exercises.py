"""Exercises that check themselves, and name the learner's mistake where it is a known one."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from conformance.bounds.formats import gamma
from refimpl.association import associate_similarities
from refimpl.errors import ConfigurationError
from refimpl.inference import PIXEL_DEVIATION, PIXEL_MEAN
from refimpl.losses import FOCAL_ALPHA, FOCAL_GAMMA, focal_loss
from refimpl.ops import resize
from refimpl.ops.operation import Array

Function = Callable[..., Any]
UNIT = 2.0**-24
QUIET = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
BRIEF = settings(QUIET, max_examples=60, phases=(Phase.generate,))
"""Where it is only asked whether two functions differ."""


@dataclass(frozen=True)
class Exercise:
    """A function to be written.

    Attributes
    ----------
    asks
        What it takes and returns.
    right
        The reference.
    inputs
        Draws the arguments, as a tuple.
    wrong
        Name of a mistake → the function that makes it; those with a stroke are in the catalogue of faults.
    """

    asks: str
    right: Function
    inputs: st.SearchStrategy[tuple[Any, ...]]
    wrong: Mapping[str, Function] = field(default_factory=dict)


def check(name: str, mine: Function) -> bool:
    """Try a learner's function on drawn inputs, print what is found, and tell whether it is right.

    Parameters
    ----------
    name
        Of an exercise in `EXERCISES`.
    mine
        The learner's function; it may raise.

    Raises
    ------
    ConfigurationError
        There is no such exercise.

    Examples
    --------
    >>> check("mask", lambda kernel, features: kernel @ features.reshape(len(kernel), -1))
    mask: right, on every input tried
    True
    """
    if name not in EXERCISES:
        raise ConfigurationError(f"there is no exercise {name!r}; there are {', '.join(EXERCISES)}")
    exercise = EXERCISES[name]
    try:
        found = find(exercise.inputs, lambda given: not _agree(mine, exercise.right, given), settings=QUIET)
    except NoSuchExample:
        print(f"{name}: right, on every input tried")
        return True
    print(f"{name}: not yet. For {', '.join(map(_shown, found))}")
    print(f"  expected {_shown(exercise.right(*found))}, yours is {_shown(_result(mine, found))}")
    mistake = recognised(name, mine)
    if mistake:
        print(f"  this is a known mistake: {mistake}")
    return False


def recognised(name: str, mine: Function) -> str | None:
    """Return the known mistake whose results are those of a function on every input tried."""
    exercise = EXERCISES[name]
    return next(
        (name for name, wrong in exercise.wrong.items() if _never_differ(exercise, mine, wrong)), None
    )


def _never_differ(exercise: Exercise, one: Function, other: Function) -> bool:
    # Kept ones are copied: a learner's function may write into what it is given.
    return all(_agree(one, other, copy.deepcopy(given)) for given in _tried(exercise.inputs))


@functools.cache
def _tried(inputs: st.SearchStrategy[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the inputs on which a function is compared with the known mistakes."""
    drawn: list[tuple[Any, ...]] = []

    def is_sought(given: tuple[Any, ...]) -> bool:
        drawn.append(given)
        return False

    with contextlib.suppress(NoSuchExample):
        find(inputs, is_sought, settings=BRIEF)
    return drawn


def _result(function: Function, given: tuple[Any, ...]) -> Any:
    with np.errstate(all="ignore"):
        try:
            return function(*given)
        except Exception as error:  # whatever a learner's function raises is its result
            return f"{type(error).__name__}: {error}"


def _agree(one: Function, other: Function, given: tuple[Any, ...]) -> bool:
    first, second = _result(one, given), _result(other, given)
    if isinstance(first, str) or isinstance(second, str):
        return isinstance(first, str) and isinstance(second, str) and first == second
    try:
        a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return np.array2string(np.asarray(value), precision=6, separator=", ").replace("\n", "")


# What is drawn.

NUMBERS = st.integers(-4, 4).map(float)
CHANCES = st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.64, 0.81, 0.9])


def _array(*shape: int) -> st.SearchStrategy[Array]:
    return arrays(np.float64, shape, elements=NUMBERS)


# The exercises.


def _softmax(row: Array) -> Array:
    shares = np.exp(row - row.max())
    return shares / shares.sum()


def _attend(q: Array, keys: Array, values: Array, scale: float) -> Array:
    return _softmax(keys @ q * scale) @ values


def _columns_first(kernel: Array, features: Array) -> Array:
    return kernel @ features.transpose(0, 2, 1).reshape(len(kernel), -1)


def _normalised(pixel: Array) -> Array:
    return (pixel - PIXEL_MEAN) / PIXEL_DEVIATION


def _norm(value: Any, scale: float, mean: float, spread: float, bias: float) -> Any:
    return scale * (value - mean) / spread + bias


def _conv_norm(patch: Array, weight: Array, variance: float) -> Any:
    return _norm((patch * weight).sum(), 2.0, 1.0, np.sqrt(variance + 1e-5), 0.5)


def _enlarged(x: Array, **how: Any) -> Array:
    made: Array = resize(x[None, None], None, None, (1, 1, 4, 4), **{"mode": "linear", **how})[0, 0]
    return made


def _score(classes: float, objectness: float, sure: float) -> float:
    return float(np.sqrt(expit(classes) * expit(objectness)) * sure)


def _total(scores: Array, method: str = "optimal") -> float:
    return associate_similarities(scores / 8, method).total * 8


def _focal(logit: float, target: int) -> float:
    return float(focal_loss(np.array([logit]), np.array([float(target)]), 1).value)


def _focal_with(alpha: float, power: float) -> Function:
    def loss(logit: float, target: int) -> float:
        p = expit(logit if target else -logit)
        weight = alpha if target else 1 - alpha
        return float(weight * (1 - p) ** power * -np.log(p))

    return loss


def _bound(kernel: Array, feature: Array) -> float:
    return gamma(len(kernel), UNIT) * float(np.abs(kernel) @ np.abs(feature))


ROOT_OF_EIGHT = 8**-0.5

EXERCISES: dict[str, Exercise] = {
    "mask": Exercise(
        "kernel (C,), features (C, h, w) → the logits of all cells, row by row (h·w,)",
        lambda kernel, features: kernel @ features.reshape(len(kernel), -1),
        st.tuples(_array(3), _array(3, 2, 3)),
        {
            "layout/flattened column by column": _columns_first,
            "the mean of the products instead of their sum": lambda k, x: k @ x.reshape(len(k), -1) / len(k),
            "the kernel is not used": lambda k, x: x.reshape(len(k), -1).sum(axis=0),
        },
    ),
    "normalise": Exercise(
        "pixel (red, green, blue) in 0…255 → what the network sees",
        _normalised,
        st.tuples(arrays(np.float64, 3, elements=st.integers(0, 255).map(float))),
        {
            "preprocessing/BGR": lambda pixel: _normalised(pixel[::-1]),
            "preprocessing/mean only": lambda pixel: pixel - PIXEL_MEAN,
            "preprocessing/deviation only": lambda pixel: pixel / PIXEL_DEVIATION,
            "preprocessing/scaled to one only": lambda pixel: pixel / 255,
        },
    ),
    "convolution": Exercise(
        "patch (3, 3), weight (3, 3), variance → one cell: the products' sum, then batch norm with "
        "scale 2, mean 1, epsilon 1e-5, bias 0.5",
        _conv_norm,
        st.tuples(_array(3, 3), _array(3, 3), st.sampled_from([0.25, 4.0, 9.0])),
        {
            "convolution/kernel flipped": lambda x, w, v: _conv_norm(x, w[::-1, ::-1], v),
            "convolution/kernel transposed": lambda x, w, v: _conv_norm(x, w.T, v),
            "normalization/variance instead of deviation": lambda x, w, v: _norm(
                (x * w).sum(), 2.0, 1.0, v + 1e-5, 0.5
            ),
            "normalization/mean not subtracted": lambda x, w, v: _norm(
                (x * w).sum(), 2.0, 0.0, np.sqrt(v + 1e-5), 0.5
            ),
        },
    ),
    "softmax": Exercise(
        "a row of products, some near 1000 → the weights",
        _softmax,
        st.tuples(arrays(np.float64, 4, elements=st.sampled_from([0.0, 1.0, 2.0, 999.0, 1000.0]))),
        {
            "exp overflows: the largest is not taken off first": lambda row: np.exp(row) / np.exp(row).sum(),
            "attention/scale added": lambda row: _softmax(row / 4),
            "attention/softmax applied twice": lambda row: _softmax(_softmax(row)),
        },
    ),
    "enlarge": Exercise(
        "a 2×2 map → 4×4, bilinear with half-pixel centres",
        _enlarged,
        st.tuples(_array(2, 2)),
        {
            "resize/corners aligned": lambda x: _enlarged(x, coordinate_transformation_mode="align_corners"),
            "resize/no half pixel": lambda x: _enlarged(x, coordinate_transformation_mode="asymmetric"),
            "resize/nearest instead of bilinear": lambda x: x.repeat(2, axis=0).repeat(2, axis=1),
        },
    ),
    "attention": Exercise(
        "query (8,), keys (n, 8), values (n, 8) of one head → what the query takes (8,)",
        lambda q, keys, values: _attend(q, keys, values, ROOT_OF_EIGHT),
        st.tuples(_array(8), _array(2, 8), _array(2, 8)),
        {
            "attention/scale missing": lambda q, k, v: _attend(q, k, v, 1.0),
            "attention/scale doubled": lambda q, k, v: _attend(q, k, v, 1 / 8),
            "attention/softmax missing": lambda q, k, v: k @ q * ROOT_OF_EIGHT @ v,
            "keys and values exchanged": lambda q, k, v: _attend(q, v, k, ROOT_OF_EIGHT),
        },
    ),
    "score": Exercise(
        "class logit, objectness logit, maskness → the score",
        _score,
        st.tuples(NUMBERS, NUMBERS, CHANCES),
        {
            "the root is missing": lambda c, o, m: expit(c) * expit(o) * m,
            "maskness is missing": lambda c, o, m: np.sqrt(expit(c) * expit(o)),
            "postprocessing/sigmoid already applied": lambda c, o, m: _score(expit(c), expit(o), m),
        },
    ),
    "keyframes": Exercise(
        "number of frames, T → how often the instance decoder runs",
        lambda frames, interval: -(-frames // interval),
        st.tuples(st.integers(1, 40), st.integers(1, 8)),
        {
            "frame 0 is a keyframe too": lambda frames, interval: frames // interval,
            "NeverReuses": lambda frames, interval: frames,
            "one too many where T divides the frames": lambda frames, interval: frames // interval + 1,
        },
    ),
    "assignment": Exercise(
        "scores (3, 3) in 0 … 8 → the greatest total of a one-to-one assignment",
        _total,
        st.tuples(arrays(np.float64, (3, 3), elements=st.integers(0, 8).map(float))),
        {
            "GreedyInsteadOfOptimal": lambda scores: _total(scores, "greedy"),
            "not one to one: the best of every row": lambda scores: scores.max(axis=1).sum(),
            "the identity, whatever the scores": lambda scores: np.trace(scores),
        },
    ),
    "focal": Exercise(
        "class logit, target 0 or 1 → focal loss with α = 0.25, γ = 2",
        _focal,
        st.tuples(NUMBERS, st.integers(0, 1)),
        {
            "α exchanged with 1 − α": _focal_with(1 - FOCAL_ALPHA, FOCAL_GAMMA),
            "γ is missing: a weighted cross-entropy": _focal_with(FOCAL_ALPHA, 0),
            "γ is 1": _focal_with(FOCAL_ALPHA, 1),
        },
    ),
    "bound": Exercise(
        "kernel (n,), feature (n,) → how far their float32 product sum may be off",
        _bound,
        st.tuples(_array(6), _array(6)),
        {
            "one rounding only": lambda k, x: UNIT * float(np.abs(k) @ np.abs(x)),
            "the magnitude of the sum, not the sum of magnitudes": lambda k, x: (
                gamma(len(k), UNIT) * abs(float(k @ x))
            ),
            "u is 2⁻²⁴, not 2⁻²³": lambda k, x: gamma(len(k), 2 * UNIT) * float(np.abs(k) @ np.abs(x)),
        },
    ),
}
"""Name → exercise, one for each chapter, in order."""
