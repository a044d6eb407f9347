"""Floating-point formats, and the two accumulated-rounding factors of the bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

from refimpl.errors import UnsupportedOperationError
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class Format:
    """A binary floating-point format, rounding to nearest.

    Attributes
    ----------
    name
    unit_roundoff
        Largest relative error u of one rounding.
    smallest_normal
        Numbers below it may be flushed to zero.
    largest
        The largest finite number.
    by_channel
        Whether numbers are steps of the largest of their output channel, by which the roundoff is relative.
    of_range
        Then, whether it is relative to the channel's range, zero within it, instead.
    step
        Then, the format that the steps' size is rounded to; None: float32.
    """

    name: str
    unit_roundoff: float
    smallest_normal: float
    largest: float
    by_channel: bool = False
    of_range: bool = False
    step: Format | None = None

    def rounded(self, x: Array) -> Array:
        """Return float64 ``x`` rounded to this format, as float64; what is too large becomes infinite."""
        with np.errstate(over="ignore"):
            if self != BFLOAT16:
                return np.asarray(x).astype(self.name).astype(np.float64)
            # Of 8 bits: a multiple of 2^(exponent − 8), the exponent at least that of the subnormals.
            exponent = np.maximum(np.frexp(x)[1], -125)
            y = np.ldexp(np.rint(np.ldexp(x, 8 - exponent)), exponent - 8)
            return np.where(np.abs(y) > self.largest, np.copysign(np.inf, x), y)

    def rounding_of(self, x: Array) -> Array:
        """Return how far a number may be from it when it is rounded to this format, or flushed to zero."""
        return self.unit_roundoff * np.maximum(np.abs(x), self.smallest_normal)


FLOAT64 = Format("float64", 2.0**-53, 2.0**-1022, float(np.finfo(np.float64).max))
FLOAT32 = Format("float32", 2.0**-24, 2.0**-126, float(np.finfo(np.float32).max))
FLOAT16 = Format("float16", 2.0**-11, 2.0**-14, 65504.0)
BFLOAT16 = Format("bfloat16", 2.0**-8, 2.0**-126, 2.0**127 * (2 - 2.0**-7))


TRUNCATED_FLOAT16 = replace(FLOAT16, name="float16, truncated", unit_roundoff=2.0**-10)
"""Of weights whose last bits were cut off: off by up to twice a rounding."""

INT8 = Format("int8", 0.5 / 127 * (1 + 2.0**-20), 0.0, math.inf, by_channel=True)
"""Of weights alone: multiples of a 127th of their output channel's largest, which float32 rounds."""

INT8_OF_RANGE = Format(
    "int8 of a range",
    0.5 / 255 * (1 + 2.0**-20),
    0.0,
    math.inf,
    by_channel=True,
    of_range=True,
    step=FLOAT16,
)
"""Of weights alone: multiples of a 255th of their output channel's range, from a zero point; NNCF's."""

FORMATS = {each.name: each for each in (FLOAT64, FLOAT32, FLOAT16, BFLOAT16)}
"""Formats by name."""
WEIGHT_FORMATS = FORMATS | {each.name: each for each in (TRUNCATED_FLOAT16, INT8, INT8_OF_RANGE)}
"""Formats of weights alone, too."""


def format_of(dtype: DTypeLike) -> Format:
    """Return the format of a float dtype (bfloat16 by its name, as `ml_dtypes` gives it).

    Raises
    ------
    UnsupportedOperationError
        Another dtype.
    """
    name = np.dtype(dtype).name
    for candidate in (FLOAT32, FLOAT16, BFLOAT16, FLOAT64):
        if candidate.name == name:
            return candidate
    raise UnsupportedOperationError(f"no format for {name}; expected float16, bfloat16, float32 or float64")


def gamma(n: float, unit_roundoff: float) -> float:
    """Return γₙ = n·u / (1 − n·u), infinite from n·u = 1 on.

    Source: Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., lemma 3.1.
    """
    total = n * unit_roundoff
    return total / (1 - total) if total < 1 else math.inf


def probable_gamma(n: float, unit_roundoff: float) -> float:
    """Return √n·u: the size that n independent roundings of mean zero accumulate to.

    Source: Higham & Mary, *A new approach to probabilistic rounding error analysis*, SISC 2019, with λ = 1.
    """
    return math.sqrt(n) * unit_roundoff
