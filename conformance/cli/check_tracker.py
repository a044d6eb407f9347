"""`mobileinst check-tracker`: the properties any tracker must have, tried on yours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from conformance.cli import options
from conformance.files import atomic_write
from conformance.reports.tracker_junit import tracker_junit
from conformance.trackers.candidate import Candidate
from conformance.trackers.command_candidate import CommandCandidate
from conformance.trackers.known_bad_trackers import KNOWN_BAD
from conformance.trackers.optimality_properties import smallest_decided_margin
from conformance.trackers.pasted_languages import LANGUAGES
from conformance.trackers.pasted_tests import pasted_test
from conformance.trackers.precision import PRECISIONS, precision_named
from conformance.trackers.properties import catch_table_markdown, caught_by, check_candidate, properties
from conformance.trackers.property import Outcome, Property
from conformance.trackers.reference_candidate import ReferenceCandidate
from refimpl.errors import ConfigurationError


@dataclass(frozen=True)
class Trial:
    """What was checked, as what, and with which cases."""

    tracker: str
    method: str
    precision: str
    cases: int
    seed: int


def check_tracker(
    own: Annotated[bool, typer.Option("--self", help="Check this project's own tracker.")] = False,
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="CMD",
            help="A tracker that reads and writes one JSON object per line (docs/check-tracker.md).",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="What the tracker claims to be: optimal or greedy.")
    ] = "optimal",
    precision: Annotated[
        str, typer.Option("--precision", help=f"What the tracker computes in: {', '.join(PRECISIONS)}.")
    ] = "float64",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PROPERTY", help="Check this one; repeatable.")
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            "--skip", metavar="PROPERTY", help="Leave this one out, such as a tie rule; repeatable."
        ),
    ] = None,
    cases: Annotated[
        int, typer.Option("--cases", "--examples", min=1, help="Cases drawn for each property.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the cases.")] = 0,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for each answer of the command.")
    ] = 30.0,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            metavar="LANGUAGE",
            help=f"Print counterexamples as unit tests: {', '.join(LANGUAGES)}.",
        ),
    ] = None,
    known_bad: Annotated[
        bool, typer.Option("--known-bad", help="Instead: which properties catch each known-bad tracker.")
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", callback=options.writable, help="Write JUnit XML, one case per property."),
    ] = None,
    json_file: options.Json = None,
) -> None:
    """Check a tracker in any language for the properties every tracker must have.

    A property that fails comes with the smallest counterexample found and a line, or a test, to paste.
    Exits 0 if every property that could be run holds, 1 if one does not, 2 on bad usage, if the command
    does not answer, or if nothing could be checked.

    [bold]Examples[/bold]

      mobileinst check-tracker --self

      mobileinst check-tracker --command 'node docs/examples/tracker.js'

      mobileinst check-tracker --command build/tracker --precision float32 --skip tie_rule --test cpp

      mobileinst check-tracker --known-bad
    """
    if [own, command is not None, known_bad].count(True) != 1:
        raise ConfigurationError("give one of --self, --command CMD and --known-bad")
    if test is not None and test not in LANGUAGES:
        raise ConfigurationError(f"--test {test!r} is unknown; choose one of {', '.join(LANGUAGES)}")
    if known_bad:
        _refuse_unused(method, precision, only, skip, test, junit)
        raise typer.Exit(_known_bad(cases, seed, json_file))
    trial = Trial(command or "this project's own tracker", method, precision, cases, seed)
    wanted = properties(method, precision, only or (), skip or ())
    with ExitStack() as stack:
        candidate: Candidate = ReferenceCandidate(method)
        if command is not None:
            candidate = stack.enter_context(CommandCandidate(command, timeout))
        outcomes = list(_outcomes(candidate, trial, wanted))
        margin = _decided_margin(candidate, trial, outcomes)
    _write(trial, outcomes, margin, junit, json_file)
    if str(json_file) != "-":
        _show(trial, outcomes, margin, test)
    if all(one.holds is None for one in outcomes):
        raise ConfigurationError(f"nothing could be checked: {outcomes[0].message}")
    raise typer.Exit(1 if any(one.holds is False for one in outcomes) else 0)


def _refuse_unused(
    method: str, precision: str, only: Any, skip: Any, test: str | None, junit: Path | None
) -> None:
    """Refuse options that the table of known-bad trackers does not heed."""
    given = {"--method": method != "optimal", "--precision": precision != "float64", "--only": only}
    given |= {"--skip": skip, "--test": test, "--junit": junit}
    if unused := [name for name, is_given in given.items() if is_given]:
        raise ConfigurationError(f"--known-bad does not take {', '.join(unused)}; leave it out")


def _outcomes(candidate: Candidate, trial: Trial, wanted: Sequence[Property]) -> Iterator[Outcome]:
    with Progress(console=options.progress_console, transient=True) as progress:
        task = progress.add_task(wanted[0].name, total=len(wanted))
        found = check_candidate(candidate, trial.method, trial.cases, trial.seed, wanted)
        for index, outcome in enumerate(found):
            following = wanted[min(index + 1, len(wanted) - 1)].name
            progress.update(task, advance=1, description=following)
            yield outcome


def _decided_margin(candidate: Candidate, trial: Trial, outcomes: Sequence[Outcome]) -> float | None:
    """Return the smallest margin decided rightly, measured if the property of it was run to its end."""
    judged = [one for one in outcomes if one.name == "precision" and one.holds is not None]
    if not judged or judged[0].misbehaved:
        return None
    return smallest_decided_margin(candidate, precision_named(trial.precision), trial.seed)


def _write(
    trial: Trial,
    outcomes: Sequence[Outcome],
    margin: float | None,
    junit: Path | None,
    json_file: options.JsonPath,
) -> None:
    content = {
        "tracker": trial.tracker,
        "method": trial.method,
        "precision": trial.precision,
        "seed": trial.seed,
        "smallest_decided_margin": margin,
        "properties": [_plain(one) for one in outcomes],
    }
    options.write_json(json_file, content)
    if junit is not None:
        with atomic_write(junit) as temporary:
            temporary.write_text(tracker_junit(outcomes, trial.tracker), encoding="utf-8")


def _plain(outcome: Outcome) -> dict[str, object]:
    fields = ("name", "statement", "holds", "cases", "message", "request", "line")
    return {name: getattr(outcome, name) for name in fields}


def _show(trial: Trial, outcomes: Sequence[Outcome], margin: float | None, test: str | None) -> None:
    _show_table(outcomes)
    left = [one for one in outcomes if one.holds is None]
    if left:
        names = ", ".join(one.name for one in left)
        options.console.print(f"Not run: {names}: {left[0].message}", markup=False, highlight=False)
    for one in outcomes:
        if one.holds is False:
            _show_failure(one, trial, test)
    if margin is not None:
        needed = precision_named(trial.precision).deciding_margin(2, 3)
        options.console.print(
            f"Every margin tried from {margin:.2g} on is decided rightly; "
            f"{trial.precision} can tell {needed:.2g}",
            highlight=False,
        )
    counts = [sum(one.holds is verdict for one in outcomes) for verdict in (True, False, None)]
    options.console.print(
        f"{counts[0]} properties hold, {counts[1]} fail, {counts[2]} could not be run; "
        f"{sum(one.cases for one in outcomes)} cases",
        highlight=False,
    )


def _show_table(outcomes: Sequence[Outcome]) -> None:
    table = Table("property", "what it says", box=None, pad_edge=False)
    table.add_column("cases", justify="right")
    table.add_column("verdict")
    verdicts = {True: "[green]holds[/green]", False: "[red]FAILS[/red]", None: "[yellow]not run[/yellow]"}
    for one in outcomes:
        table.add_row(one.name, one.statement, str(one.cases), verdicts[one.holds])
    options.console.print(table)


def _show_failure(outcome: Outcome, trial: Trial, test: str | None) -> None:
    options.console.print(
        f"[bold red]{outcome.name}[/bold red]: {escape(f'{outcome.message:.1000}')}", highlight=False
    )
    pasted = "" if test is None else pasted_test(outcome, test, trial.method)
    options.console.print("Smallest counterexample found, to paste into the tracker:")
    # One line, however long, so that it can be copied.
    typer.echo(pasted or outcome.line)


def _known_bad(cases: int, seed: int, json_file: options.JsonPath) -> int:
    """Print which properties catch which tracker; 1 if one is caught by nothing."""
    table = {}
    with Progress(console=options.progress_console, transient=True) as progress:
        task = progress.add_task("", total=len(KNOWN_BAD))
        for name, (make, _) in KNOWN_BAD.items():
            progress.update(task, description=name)
            # Their overflows are what they are known for.
            with np.errstate(all="ignore"):
                table[name] = caught_by(make, cases, seed)
            progress.advance(task)
    options.write_json(json_file, table)
    if str(json_file) != "-":
        typer.echo(catch_table_markdown(table), nl=False)
    return 0 if all(table.values()) else 1
