"""Options that several modes of `mobileinst verify` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli.command_help import CANDIDATE, INPUT
from conformance.cli.output_files import Reads


def _after_the_name(text: str) -> Iterator[str]:
    """``NAME=FILE`` or ``FILE``."""
    yield text
    if "=" in text:
        yield text.partition("=")[2]


def _named_files(text: str) -> Iterator[str]:
    """``BEFORE.onnx``, ``pytorch:FILE.pt2``, ``pytorch:FILE.py:NAME``."""
    rest = text.partition(":")[2]
    yield from (path for path in (text, rest, rest.rpartition(":")[0]) if path)


ModelFile = Annotated[
    Path | None,
    typer.Argument(metavar="[MODEL]", help="The candidate: .onnx, .tnnproto. Default: our own export."),
    Reads(),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="BEFORE.onnx",
        help="What the model was made from, .onnx or pytorch:FILE.py:NAME: judge whether an exporter, "
        "simplifier, optimiser, quantiser or converter kept the meaning.",
    ),
    Reads(_named_files),
]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        help="A picture, or a .npy with the normalised input (B, 3, H, W); repeatable. "
        "Default: a rendered scene.",
        rich_help_panel=INPUT,
    ),
    Reads(_after_the_name),
]
Batch = Annotated[
    bool, typer.Option("--batch", help="Stack all inputs into one batch.", rich_help_panel=INPUT)
]
Frames = Annotated[
    bool,
    typer.Option(
        "--frames",
        help="The inputs are consecutive keyframes of one video: judge track identity too.",
        rich_help_panel=INPUT,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=0, help="Threads of the runtime. Default: its own choice.", rich_help_panel=CANDIDATE
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Compute the noise envelope anew, and keep none.", rich_help_panel=CANDIDATE
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.1,
        help="Seconds a run may take. Default: 300 where others' code runs.",
        rich_help_panel=CANDIDATE,
    ),
]
LONGEST = 300.0
"""Seconds that others' code may take where no limit is given."""
