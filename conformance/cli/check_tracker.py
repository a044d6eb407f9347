"""`mobileinst check-tracker`: the properties any tracker must have, tried on yours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.output_files import XML, Reads, Writes
from conformance.cli.terminal import coloured
from conformance.cli.verify_tnn import files_of_command
from conformance.files import write_text
from conformance.reports.tracker_junit import tracker_junit
from conformance.trackers.candidate import Candidate
from conformance.trackers.command_candidate import CommandCandidate
from conformance.trackers.known_bad_trackers import KNOWN_BAD
from conformance.trackers.optimality_properties import smallest_decided_margin
from conformance.trackers.pasted_languages import LANGUAGES
from conformance.trackers.pasted_tests import pasted_test
from conformance.trackers.precision import PRECISIONS, precision_named
from conformance.trackers.properties import (
    catch_table_markdown,
    caught_by,
    check_candidate,
    properties,
    rival_properties,
)
from conformance.trackers.property import Outcome, Property
from conformance.trackers.reference_candidate import ReferenceCandidate
from conformance.trackers.rival_candidate import RivalCandidate
from conformance.trackers.rival_table import counterexamples_markdown, properties_markdown
from refimpl.errors import ConfigurationError
from refimpl.rivals import RIVALS, RULES

Own = Annotated[bool, typer.Option("--self", help="Check this project's own tracker.")]
Command = Annotated[
    str | None,
    typer.Option(
        "--command",
        metavar="CMD",
        help="A tracker that reads and writes one JSON object per line (docs/check-tracker.md).",
    ),
    Reads(files_of_command),
]
KnownBad = Annotated[
    bool, typer.Option("--known-bad", help="Instead: which properties catch each known-bad tracker.")
]
Rival = Annotated[
    str | None,
    typer.Option("--rival", metavar="NAME", help=f"Check a tracker of Table 2: {', '.join(RIVALS)}."),
]
Method = Annotated[str, typer.Option("--method", help="What the tracker claims to be: optimal or greedy.")]
Format = Annotated[
    str, typer.Option("--precision", help=f"What the tracker computes in: {', '.join(PRECISIONS)}.")
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="PROPERTY", help="Check this one; repeatable.")
]
Skip = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="PROPERTY", help="Leave this one out, such as a tie rule; repeatable."),
]
Cases = Annotated[int, typer.Option("--cases", "--examples", min=1, help="Cases drawn for each property.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=options.MOST_SEED, help="Seed of the cases.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds to wait for each answer of the command.")
]
PastedTest = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="LANGUAGE", help=f"Print counterexamples as unit tests: {', '.join(LANGUAGES)}."
    ),
]
Junit = Annotated[
    Path | None,
    typer.Option("--junit", callback=options.writable, help="Write JUnit XML, one case per property."),
    Writes(XML),
]


class CheckTracker:
    """Check a tracker in any language for the properties every tracker must have.

    A property that fails comes with the smallest counterexample found and a line, or a test, to paste.
    Exits 0 if every property that could be run holds, 1 if one does not, 2 on bad usage, if the command
    does not answer, or if nothing could be checked.

    [bold]Examples[/bold]

      mobileinst check-tracker --self

      mobileinst check-tracker --command 'node docs/examples/tracker.js'

      mobileinst check-tracker --command build/tracker --precision float32 --skip tie_rule --test cpp

      mobileinst check-tracker --rival crossvis

      mobileinst check-tracker --rivals

      mobileinst check-tracker --known-bad
    """


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the tracker is checked for, and with which cases."""

    method: Method = "optimal"
    precision: Format = "float64"
    only: Only = None
    skip: Skip = None
    cases: Cases = 100
    seed: Seed = 0

    @property
    def properties(self) -> list[Property]:
        """The properties chosen."""
        return properties(self.method, self.precision, self.only or (), self.skip or ())


@dataclass(frozen=True, kw_only=True)
class TrackerCheck(Job):
    """A check of one tracker."""

    trial: Trial
    test: PastedTest = None
    junit: Junit = None
    files: JsonFile

    @property
    @abstractmethod
    def tracker(self) -> str:
        """What is checked, for the reports."""

    @abstractmethod
    def candidate(self, running: ExitStack) -> Candidate:
        """The tracker, running until the stack is closed."""

    def check(self) -> None:
        """Refuse a language that there is not."""
        if self.test is not None and self.test not in LANGUAGES:
            raise ConfigurationError(f"--test {self.test!r} is unknown; choose one of {', '.join(LANGUAGES)}")

    def run(self) -> int:
        """Check, write and print; 1 if a property does not hold."""
        wanted = self.trial.properties
        with ExitStack() as running:
            candidate = self.candidate(running)
            outcomes = list(_outcomes(candidate, self.trial, wanted))
            margin = _decided_margin(candidate, self.trial, outcomes)
        self._write_junit(outcomes)
        if self.files.write(self._content(outcomes, margin)):
            _show(self.trial, outcomes, margin, self.test)
        if all(one.holds is None for one in outcomes):
            raise ConfigurationError(f"nothing could be checked: {outcomes[0].message}")
        return 1 if any(one.holds is False for one in outcomes) else 0

    def _content(self, outcomes: Sequence[Outcome], margin: float | None) -> dict[str, Any]:
        return {
            "tracker": self.tracker,
            "method": self.trial.method,
            "precision": self.trial.precision,
            "seed": self.trial.seed,
            "smallest_decided_margin": margin,
            "properties": [_plain(one) for one in outcomes],
        }

    def _write_junit(self, outcomes: Sequence[Outcome]) -> None:
        if self.junit is not None:
            write_text(self.junit, tracker_junit(outcomes, self.tracker))


@dataclass(frozen=True, kw_only=True)
class CommandCheck(TrackerCheck):
    """A tracker in any language."""

    doing = "a tracker in any language (--command CMD)"
    chosen_by = ("command",)

    command: Command = None
    timeout: Timeout = 30.0

    @property
    def tracker(self) -> str:
        """The command."""
        return str(self.command)

    def candidate(self, running: ExitStack) -> Candidate:
        """The command, started."""
        return running.enter_context(CommandCandidate(self.tracker, self.timeout))


@dataclass(frozen=True, kw_only=True)
class OwnCheck(TrackerCheck):
    """This project's own tracker."""

    doing = "this project's own tracker (--self)"
    chosen_by = ("own",)

    own: Own = False

    @property
    def tracker(self) -> str:
        """This project's."""
        return "this project's own tracker"

    def check(self) -> None:
        """Refuse a command line that says nothing of what is checked."""
        super().check()
        if not self.own:
            raise ConfigurationError(
                "give one of --self, --command CMD, --rival NAME, --rivals and --known-bad"
            )

    def candidate(self, running: ExitStack) -> Candidate:
        """The reference."""
        return ReferenceCandidate(self.trial.method)


@dataclass(frozen=True, kw_only=True)
class KnownBadCheck(Job):
    """The trackers that are known to fail."""

    doing = "the known-bad trackers (--known-bad)"
    chosen_by = ("known_bad",)

    known_bad: KnownBad = False
    cases: Cases = 100
    seed: Seed = 0
    files: JsonFile

    def run(self) -> int:
        """Print which properties catch which tracker; 1 if one is caught by nothing."""
        table = {}
        with Progress(console=options.progress_console, transient=True) as progress:
            task = progress.add_task("", total=len(KNOWN_BAD))
            for name, (make, _) in KNOWN_BAD.items():
                progress.update(task, description=name)
                # Their overflows are what they are known for.
                with np.errstate(all="ignore"):
                    table[name] = caught_by(make, self.cases, self.seed)
                progress.advance(task)
        if self.files.write(table):
            typer.echo(catch_table_markdown(table), nl=False)
        return 0 if all(table.values()) else 1


@dataclass(frozen=True, kw_only=True)
class RivalCheck(Job):
    """A tracker of Table 2."""

    doing = "a tracker of Table 2 (--rival NAME)"
    chosen_by = ("rival",)

    rival: Rival = None
    only: Only = None
    skip: Skip = None
    cases: Cases = 100
    seed: Seed = 0
    files: JsonFile

    def run(self) -> int:
        """Check, write and print; 1 if a property does not hold, which may be by design."""
        candidate = RivalCandidate(str(self.rival))
        wanted = rival_properties(self.only or (), self.skip or ())
        trial = Trial(cases=self.cases, seed=self.seed)
        outcomes = list(_outcomes(candidate, trial, wanted))
        content = {"tracker": self.rival, "seed": self.seed, "properties": [_plain(one) for one in outcomes]}
        if self.files.write(content):
            _show(trial, outcomes, None, None)
        return 1 if any(one.holds is False for one in outcomes) else 0


@dataclass(frozen=True, kw_only=True)
class RivalTable(Job):
    """All trackers of Table 2, beside this project's."""

    doing = "the trackers of Table 2 (--rivals)"
    chosen_by = ("rivals",)

    rivals: options.Rivals = False
    only: Only = None
    skip: Skip = None
    cases: Cases = 100
    seed: Seed = 0
    files: JsonFile

    def run(self) -> int:
        """Print who has which property, and the smallest counterexamples."""
        wanted = rival_properties(self.only or (), self.skip or ())
        trial = Trial(cases=self.cases, seed=self.seed)
        table = {
            names: list(_outcomes(RivalCandidate(names.partition(",")[0]), trial, wanted)) for names in RULES
        }
        content = {
            name: [_plain(one) for one in outcomes]
            for names, outcomes in table.items()
            for name in names.split(", ")
        }
        if self.files.write({"seed": self.seed, "trackers": content}):
            typer.echo(properties_markdown(table))
            typer.echo(counterexamples_markdown(table), nl=False)
        return 0


MODES = (KnownBadCheck, RivalCheck, RivalTable, CommandCheck, OwnCheck)
"""What `mobileinst check-tracker` checks."""


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


def _plain(outcome: Outcome) -> dict[str, object]:
    fields = ("name", "statement", "holds", "cases", "message", "request", "line")
    return {name: getattr(outcome, name) for name in fields}


def _show(trial: Trial, outcomes: Sequence[Outcome], margin: float | None, test: str | None) -> None:
    _show_table(outcomes)
    left = [one for one in outcomes if one.holds is None]
    if left:
        names = ", ".join(one.name for one in left)
        options.console.print(f"Not run: {names}: {left[0].message}", highlight=False)
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
    verdicts = {
        True: coloured("holds", "green"),
        False: coloured("FAILS", "red"),
        None: coloured("not run", "yellow"),
    }
    for one in outcomes:
        table.add_row(one.name, one.statement, str(one.cases), verdicts[one.holds])
    options.console.print(table)


def _show_failure(outcome: Outcome, trial: Trial, test: str | None) -> None:
    options.console.print(f"{outcome.name}: {outcome.message:.1000}", highlight=False)
    pasted = "" if test is None else pasted_test(outcome, test, trial.method)
    options.console.print("Smallest counterexample found, to paste into the tracker:")
    # One line, however long, so that it can be copied.
    typer.echo(pasted or outcome.line)
