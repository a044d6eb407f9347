"""The options that declare what a candidate computes with."""

from __future__ import annotations

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
    typer.Option(
        "--format", "--arithmetic", help="Format of the candidate's products and sums. Default: float32."
    ),
]
Storage = Annotated[
    FormatName | None,
    typer.Option("--storage", help="Format of its tensors. Default: the model's narrowest."),
]


def declared_formats(arithmetic: FormatName | None, storage: FormatName | None) -> Formats:
    """Return the formats of the two options."""
    return (
        None if arithmetic is None else FORMATS[arithmetic.value],
        None if storage is None else FORMATS[storage.value],
    )
