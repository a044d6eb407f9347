"""A weight as a runtime's file stores it: floats, or integers with their scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refimpl.ops.operation import Array


@dataclass(frozen=True)
class StoredWeight:
    """One constant of a file, widened only when it is asked for.

    Attributes
    ----------
    held
        As it is stored, floats or integers.
    scale
        Of integers, of a shape that broadcasts to theirs; None: they are floats.
    point
        The integer that stands for zero, alike.
    shift
        What is added to the integers' products with their scale, alike, in float32 as the runtime does; None:
        nothing is.
    """

    held: Array
    scale: Array | None = None
    point: Array | float = 0.0
    shift: Array | None = None

    @property
    def numbers(self) -> Array:
        """What it stands for, float64."""
        if self.scale is not None and self.shift is not None:
            return np.asarray(self.held.astype(np.float32) * self.scale + self.shift, np.float64)
        wide = self.held.astype(np.float64)
        return wide if self.scale is None else (wide - self.point) * self.scale.astype(np.float64)

    @property
    def steps(self) -> Array:
        """How far apart its numbers can be; of floats, 0."""
        size = 0.0 if self.scale is None else np.abs(self.scale.astype(np.float64))
        return np.broadcast_to(size, self.held.shape)

    @property
    def fits(self) -> bool:
        """Whether its scale and zero point broadcast to it."""
        parts = [np.shape(each) for each in (self.scale, self.point, self.shift) if each is not None]
        try:
            return np.broadcast_shapes(self.held.shape, *parts) == self.held.shape
        except ValueError:
            return False
