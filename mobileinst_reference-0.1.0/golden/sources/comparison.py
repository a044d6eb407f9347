"""Agreement of float64 implementations: the build's and the check's one test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from conformance.bounds.worst_element import absolute_error
from golden.case import REPRODUCTION, Bounds, Confirmation
from refimpl.errors import VerificationError
from refimpl.ops.operation import Array

ULPS = 2
"""Units in the last place of float64 that are granted where the float32 bound is below them."""


def disagreement(
    result: Mapping[str, Array], truth: Mapping[str, Array], bounds: Bounds
) -> tuple[float, str | None]:
    """Return the largest difference of two float64 results, and what is wrong with it, if anything.

    ``bounds`` are those for float32; `REPRODUCTION` of them is allowed.
    """
    largest = 0.0
    for name, expected in truth.items():
        given = np.asarray(result[name])
        if given.shape != expected.shape:
            return np.inf, f"{name} has shape {given.shape}, expected {expected.shape}"
        error = absolute_error(given, expected)
        exact = name not in bounds or not np.any(bounds[name])
        allowed = 0.0 if exact else REPRODUCTION * bounds[name] + ULPS * np.spacing(_finite(expected))
        if np.any(error > allowed):
            place = np.unravel_index(int(np.argmax(error - allowed)), error.shape)
            here = tuple(int(i) for i in place)
            return float(error.max()), f"{name}{list(here)} is {given[place]!r}, expected {expected[place]!r}"
        largest = max(largest, float(error.max(initial=0.0)))
    return largest, None


def _finite(values: Array) -> Array:
    return np.abs(np.where(np.isfinite(values), values, 0.0).astype(np.float64))


def confirmed(
    source: str, result: Mapping[str, Array], truth: Mapping[str, Array], bounds: Bounds
) -> Confirmation:
    """Return the confirmation by ``source``.

    Raises
    ------
    VerificationError
        It disagrees.
    """
    largest, problem = disagreement(result, truth, bounds)
    if problem:
        raise VerificationError(f"{source} disagrees: {problem}")
    return Confirmation(source, largest)
