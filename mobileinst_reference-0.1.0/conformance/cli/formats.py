"""The options that declare what a candidate computes with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from conformance.bounds import FORMATS, Format

Formats = tuple[Format | None, Format | None]
"""Arithmetic and storage; None where not declared."""


class FormatName(StrEnum):
    """A floating-point format, by name."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


Arithmetic = Annotated[
    FormatName | None,
    typer.Option("--arithmetic", help="Format of the candidate's products and sums. Default: float32."),
]
Storage = Annotated[
    FormatName | None,
    typer.Option("--storage", help="Format of its tensors. Default: the model's narrowest."),
]


@dataclass(frozen=True, kw_only=True)
class DeclaredFormats:
    """What the candidate is said to compute with."""

    arithmetic: Arithmetic = None
    storage: Storage = None

    @property
    def formats(self) -> Formats:
        """The formats named."""
        return (
            None if self.arithmetic is None else FORMATS[self.arithmetic.value],
            None if self.storage is None else FORMATS[self.storage.value],
        )
