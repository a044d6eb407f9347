"""What a tracker can decide at the precision it declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.association import RESOLUTION
from refimpl.errors import ConfigurationError

Array = NDArray[Any]


@dataclass(frozen=True)
class Precision:
    """The format a tracker computes in.

    Attributes
    ----------
    name : str
    unit_roundoff : float
    resolution : float
        Cosines closer than this may count as equal: the reference's rounding step, which only float64 feels.
    largest_exponent : int
        Factors 10^−e … 10^e leave small integers within the format.
    largest_count : int
        Kernels of a set whose totals the format can still compare.
    """

    name: str
    unit_roundoff: float
    resolution: float
    largest_exponent: int
    largest_count: int

    def cosine_error(self, count: int, dimension: int) -> float:
        """How far a cosine computed in this precision may be off, and what a solver adds to it.

        Norms, quotients and the products of ``dimension`` channels: 2·dimension + 8 roundings (Higham,
        Accuracy and Stability, section 3.1); potentials of ``count`` rows: 4·count more.
        """
        return (2 * dimension + 4 * count + 8) * self.unit_roundoff + self.resolution

    def deciding_margin(self, count: int, dimension: int) -> float:
        """Margin between totals above which this precision must decide rightly: two totals' errors."""
        return 2 * count * self.cosine_error(count, dimension)

    def mask_error(self, kernels: Array, mask_features: Array) -> Array:
        """How far mask logits may be off: (N, dim), (dim, h, w) → (N, h, w)."""
        sizes = np.tensordot(np.abs(kernels), np.abs(mask_features), 1)
        error: Array = (len(mask_features) + 4) * self.unit_roundoff * sizes
        return error


PRECISIONS = {
    one.name: one
    for one in (
        Precision("float64", 2.0**-53, RESOLUTION, 307, 300),
        Precision("float32", 2.0**-24, 0.0, 30, 300),
        Precision("float16", 2.0**-11, 0.0, 2, 12),
    )
}


def precision_named(name: str) -> Precision:
    """Return one of `PRECISIONS`.

    Raises
    ------
    ConfigurationError
    """
    if name not in PRECISIONS:
        raise ConfigurationError(f"precision {name!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
