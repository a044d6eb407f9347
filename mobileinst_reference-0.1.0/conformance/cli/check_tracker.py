"""`mobileinst check-tracker`: the properties any tracker must have, tried on yours."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from conformance.cli import options
from conformance.trackers.association_command import CommandCandidate
from conformance.trackers.association_properties import (
    Candidate,
    Outcome,
    ReferenceCandidate,
    catch_table_markdown,
    caught_by,
    check_property,
    properties,
)
from conformance.trackers.known_bad_trackers import KNOWN_BAD
from refimpl.errors import ConfigurationError


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
    examples: Annotated[int, typer.Option("--examples", min=1, help="Cases drawn for each property.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the cases.")] = 0,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for each answer of the command.")
    ] = 30.0,
    known_bad: Annotated[
        bool, typer.Option("--known-bad", help="Instead: which properties catch each known-bad tracker.")
    ] = False,
    json_file: options.Json = None,
) -> None:
    """Check a tracker in any language for the properties every tracker must have.

    A property that fails comes with the smallest counterexample found and a line to paste into the tracker.
    Exits 0 if every property that could be run holds, 1 if one does not, 2 on bad usage or if the command
    does not answer.

    [bold]Examples[/bold]

      mobileinst check-tracker --self

      mobileinst check-tracker --command 'node docs/examples/tracker.js'

      mobileinst check-tracker --known-bad
    """
    if [own, command is not None, known_bad].count(True) != 1:
        raise ConfigurationError("give one of --self, --command CMD and --known-bad")
    if known_bad:
        raise typer.Exit(_known_bad(examples, seed, json_file))
    with ExitStack() as stack:
        candidate: Candidate = ReferenceCandidate(method)
        if command is not None:
            candidate = stack.enter_context(CommandCandidate(command, timeout))
        outcomes = _outcomes(candidate, method, examples, seed)
    failed = [outcome for outcome in outcomes if outcome.holds is False]
    options.write_json(json_file, {"method": method, "properties": [_plain(one) for one in outcomes]})
    if str(json_file) != "-":
        _show(outcomes)
    raise typer.Exit(1 if failed else 0)


def _outcomes(candidate: Candidate, method: str, examples: int, seed: int) -> list[Outcome]:
    outcomes = []
    wanted = properties(method)
    with Progress(console=options.progress_console, transient=True) as progress:
        task = progress.add_task("", total=len(wanted))
        for one in wanted:
            progress.update(task, description=one.name)
            outcomes.append(check_property(one, candidate, examples, seed))
            progress.advance(task)
    return outcomes


def _plain(outcome: Outcome) -> dict[str, object]:
    return {**asdict(outcome), "line": outcome.line}


def _show(outcomes: list[Outcome]) -> None:
    table = Table("property", "what it says", box=None, pad_edge=False)
    table.add_column("cases", justify="right")
    table.add_column("verdict")
    verdicts = {True: "[green]holds[/green]", False: "[red]FAILS[/red]", None: "[yellow]not run[/yellow]"}
    for one in outcomes:
        table.add_row(one.name, one.statement, str(one.cases), verdicts[one.holds])
    options.console.print(table)
    left = [one for one in outcomes if one.holds is None]
    if left:
        names = ", ".join(one.name for one in left)
        options.console.print(f"Not run: {names}: {left[0].message}", markup=False, highlight=False)
    for one in outcomes:
        if one.holds is False:
            options.console.print(f"[bold red]{one.name}[/bold red]: {escape(one.message)}", highlight=False)
            options.console.print("Smallest counterexample found, to paste into the tracker:")
            # One line, however long, so that it can be copied.
            typer.echo(one.line)
    counts = [sum(one.holds is verdict for one in outcomes) for verdict in (True, False, None)]
    cases = sum(one.cases for one in outcomes)
    options.console.print(
        f"{counts[0]} properties hold, {counts[1]} fail, {counts[2]} could not be run; {cases} cases",
        highlight=False,
    )


def _known_bad(examples: int, seed: int, json_file: options.JsonPath) -> int:
    """Print which properties catch which tracker; 1 if one is caught by nothing."""
    table = {}
    with Progress(console=options.progress_console, transient=True) as progress:
        task = progress.add_task("", total=len(KNOWN_BAD))
        for name, (make, _) in KNOWN_BAD.items():
            progress.update(task, description=name)
            # Their overflows are what they are known for.
            with np.errstate(all="ignore"):
                table[name] = caught_by(make, examples, seed)
            progress.advance(task)
    options.write_json(json_file, table)
    if str(json_file) != "-":
        typer.echo(catch_table_markdown(table), nl=False)
    return 0 if all(table.values()) else 1
