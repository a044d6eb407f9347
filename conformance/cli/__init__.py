"""The command line: `mobileinst`, one module for each command."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path

import typer

from conformance.candidates.arrays import is_ours
from conformance.cli import (
    bench,
    cache,
    check_tracker,
    convert,
    cost,
    derive,
    evaluate,
    explain,
    export,
    faults,
    lint,
    losses,
    matrix,
    run,
    track,
    verify,
    walk,
)
from conformance.cli.job import add_command
from conformance.reports.printable import printable
from refimpl import __version__
from refimpl.errors import MobileInstError

INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h."""
LONGEST = 1200
"""Characters of an error's line; names in a file may be of any length."""
REPORT_TO = "the project's issue tracker"

app = typer.Typer(
    help="Ground truth for MobileInst: the NumPy reference, and checks of what mobile runtimes make of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
add_command(app, "verify", verify.Verify, *verify.MODES)
add_command(app, "export", export.Export)
add_command(app, "convert", convert.Convert)
add_command(app, "matrix", matrix.Matrix)
add_command(app, "lint", lint.Lint)
add_command(app, "run", run.Run)
add_command(app, "explain", explain.Explain, *explain.MODES)
add_command(app, "derive", derive.Derive)
add_command(app, "walk", walk.Walk)
add_command(app, "cost", cost.Cost, *cost.MODES)
add_command(app, "bench", bench.Bench, *bench.MODES)
add_command(app, "cache", cache.Cache, cache.CacheContents)
add_command(app, "losses", losses.Losses)
# Groups of commands that other packages bring; nothing here knows them by name.
for point in entry_points(group="mobileinst.commands"):
    app.add_typer(point.load(), name=point.name)
add_command(app, "faults", faults.Faults, *faults.MODES)
add_command(app, "track", track.Track, *track.MODES)
add_command(app, "evaluate", evaluate.Evaluate, *evaluate.MODES)
add_command(app, "check-tracker", check_tracker.CheckTracker, *check_tracker.MODES)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Ground truth for MobileInst: the NumPy reference, and checks of what mobile runtimes make of it."""


def main() -> None:
    """Run the command line, and exit.

    With 0 or 1 as the command says: 1 means *does not conform* and nothing else; 2 on bad usage or input,
    which is one line on standard error; 130 if interrupted; 70 if the fault is ours, with where to report it.
    """
    try:
        app()
    except MobileInstError as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"out of memory, {error or 'the network or its input is too large'}; choose smaller ones")
    except RecursionError:
        _fail("the input is nested too deeply; simplify it")
    except OSError as error:
        _fail(f"{error}; check the path, the space on the disk and the permissions")
    except Exception as error:
        _fail(_our_fault(error), INTERNAL_ERROR)


def _our_fault(error: Exception) -> str:
    """Say in one line what happened, where, and where to report it."""
    frames = traceback.extract_tb(error.__traceback__)
    here = next((frame for frame in reversed(frames) if is_ours(frame.filename)), frames[-1])
    place = f"{Path(here.filename).name}:{here.lineno}"
    return (
        f"this is a fault of mobileinst {__version__}, not of your input: {type(error).__name__}: {error} "
        f"({place}); please report this line and the command to {REPORT_TO}"
    )


def _fail(message: str, code: int = 2) -> None:
    """Say what is wrong in one line, lists joined, and exit."""
    line = " ".join(message.replace(":\n", ": ").replace("\n", "; ").split())
    if len(line) > LONGEST:
        line = f"{line[:LONGEST]}… ({len(line) - LONGEST} characters more)"
    typer.echo(f"error: {printable(line)}", err=True)
    sys.exit(code)
