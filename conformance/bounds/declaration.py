"""What a candidate is declared to compute with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from conformance.bounds.allowances import CPU, Runtime
from conformance.bounds.formats import FLOAT32, Format

SAMPLES = 8
"""Perturbed runs of an envelope."""
MULTIPLE = 4.0
"""How many times the largest deviation seen in the samples a candidate may deviate."""


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
    weights
        Format of its copies of kernels and matrices, where that is another than the tensors'; vectors, such
        as biases, stay as exact as the arithmetic.
    read
        Weight, and from where to where its elements are, in the truth, those of the candidate's file.
    otherwise
        Format of the tensors that a graph does not say are stored so; None: all are.
    """

    arithmetic: Format = FLOAT32
    storage: Format = FLOAT32
    runtime: Runtime = CPU
    weights: Format | None = None
    read: tuple[tuple[str, int, int], ...] = ()
    otherwise: Format | None = None

    def __str__(self) -> str:
        """Say what a verdict under this declaration allows."""
        return (
            f"each step may err by the rounding of {self.arithmetic.name} arithmetic stored as "
            f"{self.stored_as} (unit roundoff {self.arithmetic.unit_roundoff:.1e}){self._exceptions}; "
            f"each output by {MULTIPLE:g} × the largest of {SAMPLES} runs with random rounding"
        )

    @property
    def finest(self) -> Format:
        """The format of the tensors that are stored most finely."""
        return self.otherwise or self.storage

    def finely(self) -> Declaration:
        """Return what is declared of what is stored most finely."""
        return replace(self, storage=self.finest, otherwise=None)

    @property
    def stored_as(self) -> str:
        """What tensors are stored as, in words."""
        place = f" where the graph says so, else as {self.otherwise.name}" if self.otherwise else ""
        return self.storage.name + place

    @property
    def _exceptions(self) -> str:
        weights = f", with weights of {self.weights.name}" if self.weights else ""
        taken = len({name for name, *_ in self.read})
        weights += f", {taken} of them as the file has them" if taken else ""
        weights += ", their other operands made integers, too" if self.runtime.makes_integers else ""
        tile = self.runtime.winograd_tile
        return weights + (f", 3×3 convolutions by Winograd's F({tile}×{tile}, 3×3)" if tile else "")


DEFAULT = Declaration()
"""Float32, stored as such, on a CPU."""
