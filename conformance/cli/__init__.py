"""The command line: `mobileinst`, one module for each command, which is imported when it is asked for."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points, version
from pathlib import Path
from typing import Any, NoReturn

import typer

from conformance.allocation import keep_freed_memory

INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h."""
LONGEST = 1200
"""Characters of an error's line; names in a file may be of any length."""
REPORT_TO = "the project's issue tracker"
PACKAGE = "mobileinst-reference"


@dataclass(frozen=True)
class Command:
    """A command: the class whose docstring is its help, in the module of its name, and its first sentence.

    Its modes are the module's ``MODES``; without, the class itself.
    """

    form: str
    help: str


COMMANDS = {
    "verify": Command("Verify", "Compare a model with the float64 reference, tensor by tensor."),
    "export": Command(
        "Export",
        "Write the network as an ONNX file of static shapes (opset 17), checked with full shape inference.",
    ),
    "convert": Command(
        "Convert",
        "Convert an ONNX file, or a PyTorch module, to a phone's runtime, by the runtime's own converter.",
    ),
    "matrix": Command(
        "Matrix",
        "Judge one model in every runtime that is installed, in every precision, converted by its own "
        "converter.",
    ),
    "sweep": Command(
        "SweepJob",
        "Judge a candidate on thousands of pictures: all are screened, those near a limit judged in full.",
    ),
    "lint": Command("Lint", "List what in an ONNX file will break or silently change on the way to a phone."),
    "run": Command("Run", "Segment a photograph: an annotated PNG and COCO-style results."),
    "explain": Command(
        "Explain", "Print the layer table: shapes, kernel, stride, groups, costs, and what each stage is for."
    ),
    "derive": Command(
        "Derive",
        "Derive a number that the network computed: its operator, operands, weights, products and bound.",
    ),
    "walk": Command(
        "Walk",
        "Write one page that shows how the network computes, and computes its numbers again in the browser.",
    ),
    "cost": Command("Cost", "Count what a network costs, for one picture in float32."),
    "bench": Command(
        "Bench", "Time the forward pass against ONNX Runtime, onnx.reference and, if installed, PyTorch."
    ),
    "cache": Command(
        "Cache",
        "Show where envelopes and seeded weights are kept between verdicts, and how much space they take.",
    ),
    "losses": Command(
        "Losses",
        "Print each loss of training (Eq. 3 and query passing), its gradient checked by central differences.",
    ),
    "faults": Command(
        "Faults",
        "Put every fault of the catalogue into correct networks, and judge correct implementations too.",
    ),
    "track": Command(
        "Track",
        "Follow instances through a video: YouTube-VIS results, a contact sheet, and a table of the frames.",
    ),
    "evaluate": Command(
        "Evaluate", "Evaluate results as the benchmarks do, or compare two result files decision by decision."
    ),
    "check-tracker": Command(
        "CheckTracker", "Check a tracker in any language for the properties every tracker must have."
    ),
}
"""By name, in the order in which they are listed."""


def commands(names: Iterable[str]) -> typer.Typer:
    """Return the command line with these commands and groups, and imports nothing for others."""
    from conformance.cli.job import add_command

    application, chosen = _empty(), set(names)
    for name, command in COMMANDS.items():
        if name in chosen:
            module = import_module(f"conformance.cli.{name.replace('-', '_')}")
            add_command(application, name, getattr(module, command.form), *getattr(module, "MODES", ()))
    for point in _groups():
        if point.name in chosen:
            application.add_typer(point.load(), name=point.name)
    return application


def overview() -> typer.Typer:
    """Return the command line as its help shows it: what the commands do is not imported."""
    application = _empty()
    for name, command in COMMANDS.items():
        application.command(name, help=command.help)(_nothing)
    for point in _groups():
        package = import_module(point.module.partition(".")[0])
        said = (package.__doc__ or "").partition("\n")[0]
        application.command(point.name, help=said)(_nothing)
    return application


def _nothing() -> None:
    """Stand for a command in the overview, which is never run."""
    raise AssertionError("a command of the overview was run")


def _groups() -> EntryPoints:
    """Return the groups of commands that other packages bring; nothing here knows them by name."""
    return entry_points(group="mobileinst.commands")


def _empty() -> typer.Typer:
    application = typer.Typer(
        help=_options.__doc__,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    application.callback()(_options)
    return application


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version(PACKAGE))
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Ground truth for MobileInst: the NumPy reference, and checks of what mobile runtimes make of it."""


def __getattr__(name: str) -> Any:
    """Return ``app``, the whole command line, made when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = commands([*COMMANDS, *(point.name for point in _groups())])
    return globals()["app"]


def _asked_for(words: list[str]) -> typer.Typer:
    """Return as much of the command line as these words need: its own options take no value."""
    named = next((word for word in words if not word.startswith("-")), "")
    before = words[: words.index(named)] if named else words
    if named not in {*COMMANDS, *(point.name for point in _groups())} or "--help" in before:
        return overview()
    return commands([named])


def main() -> None:
    """Run the command line, and exit.

    With 0 or 1 as the command says: 1 means *does not conform* and nothing else; 2 on bad usage or input,
    which is one line on standard error; 130 if interrupted; 70 if the fault is ours, with where to report it.
    """
    keep_freed_memory()
    _show_any_text()
    try:
        _asked_for(sys.argv[1:])()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # of which typer makes 1, a verdict, for --help
            from conformance.cli.job import BROKEN_PIPE

            sys.exit(BROKEN_PIPE)
        raise
    except MemoryError as error:
        _fail(f"out of memory, {error or 'the network or its input is too large'}; choose smaller ones")
    except RecursionError:
        _fail("the input is nested too deeply; simplify it")
    except Exception as error:
        _explain(error)


def _show_any_text() -> None:
    """Show what a stream's encoding has no word for as its escape: names of files, and signs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> NoReturn:
    from refimpl.errors import MobileInstError

    if isinstance(error, MobileInstError):
        _fail(str(error))
    if isinstance(error, OSError):
        _fail(f"{error}; check the path, the space on the disk and the permissions")
    _fail(_our_fault(error), INTERNAL_ERROR)


def _our_fault(error: Exception) -> str:
    """Say in one line what happened, where, and where to report it."""
    from conformance.candidates.arrays import is_ours

    frames = traceback.extract_tb(error.__traceback__)
    here = next((frame for frame in reversed(frames) if is_ours(frame.filename)), frames[-1])
    place = f"{Path(here.filename).name}:{here.lineno}"
    raised = f"{type(error).__name__}: {error}"
    return (
        f"this is a fault of mobileinst {version(PACKAGE)}, not of your input: {raised} ({place}); "
        f"please report this line and the command to {REPORT_TO}"
    )


def _fail(message: str, code: int = 2) -> NoReturn:
    """Say what is wrong in one line, lists joined, and exit."""
    from conformance.reports.printable import printable

    line = " ".join(message.replace(":\n", ": ").replace("\n", "; ").split())
    if len(line) > LONGEST:
        line = f"{line[:LONGEST]}… ({len(line) - LONGEST} characters more)"
    typer.echo(f"error: {printable(line)}", err=True)
    sys.exit(code)
