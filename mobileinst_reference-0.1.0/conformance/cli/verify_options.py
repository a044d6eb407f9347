"""Options that several modes of `mobileinst verify` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli.output_files import Reads


def _after_the_name(text: str) -> Iterator[str]:
    """``NAME=FILE`` or ``FILE``."""
    yield text
    if "=" in text:
        yield text.partition("=")[2]


ModelFile = Annotated[
    Path | None,
    typer.Argument(metavar="[MODEL]", help="The candidate: .onnx, .tnnproto. Default: our own export."),
    Reads(),
]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        help="A picture, or a .npy with the normalised input (B, 3, H, W); repeatable. "
        "Default: a rendered scene.",
    ),
    Reads(_after_the_name),
]
Batch = Annotated[bool, typer.Option("--batch", help="Stack all inputs into one batch.")]
Frames = Annotated[
    bool,
    typer.Option(
        "--frames",
        help="The inputs are consecutive keyframes of one video: judge track identity too.",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=0, help="Threads of the runtime. Default: its own choice.")
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Compute the noise envelope anew, and keep nothing.")
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.1, help="Seconds a run may take. Default: 300 where others' code runs."),
]
LONGEST = 300.0
"""Seconds that others' code may take where no limit is given."""
