"""`mobileinst verify --reproduce` and `--recorded`: the first wrong step as a folder, and judged again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli.options import progress_console
from conformance.cli.output_files import Reads, Writes
from conformance.folders import check_new_folder
from refimpl.errors import MobileInstError


def _new_folder(folder: Path | None) -> Path | None:
    """Refuse a folder that is in use before any work."""
    if folder is not None:
        check_new_folder(folder)
    return folder


Reproduce = Annotated[
    Path | None,
    typer.Option(
        "--reproduce",
        metavar="FOLDER",
        callback=_new_folder,
        help="Write the first wrong step to a new folder: minimal model, inputs, outputs, float64, bounds, "
        "and the command that shows it again.",
    ),
    Writes(None),
]
Recorded = Annotated[
    Path | None,
    typer.Option("--recorded", metavar="FOLDER", help="Judge again the step that --reproduce wrote."),
    Reads(),
]


def say_reproduced(write: Callable[[], str | None]) -> None:
    """Write the failing step, and say how it is shown again, or why not: the verdict stands in any case."""
    try:
        command = write()
        text = (
            f"shown again by: {command}" if command else "no step on its own is wrong: nothing to reproduce"
        )
    except MobileInstError as error:
        text = f"nothing reproduced: {error}"
    progress_console.print(text, highlight=False, soft_wrap=True)
