"""The command line: `mobileinst`, one module for each command."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from conformance.cli import (
    bench,
    cache,
    cost,
    evaluate,
    explain,
    export,
    faults,
    lint,
    losses,
    run,
    track,
    verify,
)
from conformance.cli.check_tracker import check_tracker
from conformance.cli.job import add_command
from refimpl import __version__
from refimpl.errors import MobileInstError

app = typer.Typer(
    help="Ground truth for MobileInst: the NumPy reference, and checks of what mobile runtimes make of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
add_command(app, "verify", verify.Verify, *verify.MODES)
add_command(app, "export", export.Export)
add_command(app, "lint", lint.Lint)
add_command(app, "run", run.Run)
add_command(app, "explain", explain.Explain, *explain.MODES)
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
app.command()(check_tracker)


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
    """Run the command line; bad input is one line on standard error and exit code 2."""
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


def _fail(message: str) -> None:
    """Say what is wrong in one line, lists joined, and exit with 2."""
    line = message.replace(":\n", ": ").replace("\n", "; ")
    typer.echo(f"error: {' '.join(line.split())}", err=True)
    sys.exit(2)
