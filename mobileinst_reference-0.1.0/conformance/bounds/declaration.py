"""What a candidate is declared to compute with."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.bounds.allowances import CPU, Runtime
from conformance.bounds.envelope import MULTIPLE, SAMPLES
from conformance.bounds.formats import FLOAT32, Format


@dataclass(frozen=True)
class Declaration:
    """What a candidate is declared to compute with.

    Attributes
    ----------
    arithmetic
        Format of its products and sums.
    storage
        Format of its tensors.
    runtime
        How well its special functions approximate.
    """

    arithmetic: Format = FLOAT32
    storage: Format = FLOAT32
    runtime: Runtime = CPU

    def __str__(self) -> str:
        """Say what a verdict under this declaration allows."""
        return (
            f"each step may err by the rounding of {self.arithmetic.name} arithmetic stored as "
            f"{self.storage.name} (unit roundoff {self.arithmetic.unit_roundoff:.1e}); "
            f"each output by {MULTIPLE:g} × the largest of {SAMPLES} runs with random rounding"
        )
