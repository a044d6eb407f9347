"""`mobileinst faults`: how good the judge itself is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.padding import Padding
from rich.progress import Progress
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Writes
from conformance.cli.planted import PlantedErrors, Seed
from conformance.evidence import false_alarms, fault_score
from conformance.evidence.baselines import BASELINES
from conformance.evidence.false_alarms import CorrectRun, Outcome
from conformance.evidence.fault_score import KNOWN, MODELS, Score, Trial
from conformance.evidence.faulty_models import FaultyModel, write_faulty_models
from conformance.faults import CATALOGUE
from refimpl.errors import ConfigurationError

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FAULT]...", help="Only faults whose names begin so. Default: all."),
]
Networks = Annotated[list[str] | None, typer.Option("--network", help="Only these networks; repeatable.")]
PictureCount = Annotated[
    int | None,
    typer.Option("--pictures", min=0, help="Pictures for each correct run. Default: 5, with --quick 1."),
]
Exporter = Annotated[
    str,
    typer.Option(
        "--exporter",
        metavar="|".join(fault_score.EXPORTERS),
        help="Put the faults into this project's own exports, or those of an independent PyTorch "
        "implementation by either of PyTorch's exporters (extra: torch).",
    ),
]
Workers = Annotated[int, typer.Option("--workers", min=1, max=options.MOST_WORKERS, help="Processes.")]


class Faults:
    """Put every fault of the catalogue into correct networks, and judge correct implementations too.

    Prints how many faults were detected, localised to the exact step and named, and how often a correct
    implementation was called wrong, beside comparisons with fixed tolerances. A fault that moves no output by
    more than rounding is harmless there, and counted apart. Exits 1 if a harmful fault is missed or a correct
    run fails.

    [bold]Examples[/bold]

      mobileinst faults --quick

      mobileinst faults --quick --exporter dynamo

      mobileinst faults --leave-one-out --seed 1

      mobileinst faults resize normalization --per-fault 1 --pictures 0 --json score.json

      mobileinst faults resize attention/scale --write faulty

      mobileinst faults --planted 50 --candidate qnn:snapdragon-8-gen-2 --quantize a8w8
    """


@dataclass(frozen=True, kw_only=True)
class Catalogue(Job):
    """The faults there are."""

    doing = "the catalogue (--list)"
    chosen_by = ("listing",)

    listing: Annotated[bool, typer.Option("--list", help="Only list the catalogue.")] = False

    def run(self) -> int:
        """Print it."""
        _print_catalogue()
        return 0


@dataclass(frozen=True, kw_only=True)
class FaultyModels(Job):
    """Models with a fault each, to try the judge on."""

    doing = "wrong models to try (--write FOLDER)"
    chosen_by = ("write",)

    names: Names = None
    networks: Networks = None
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FOLDER",
            help="Only write a model with each fault to a new folder, to try mobileinst verify on.",
        ),
        Writes(None),
    ] = None
    files: JsonFile

    def run(self) -> int:
        """Write the models, and say how each is judged."""
        assert self.write is not None
        names, networks = self.names or [], self.networks or list(MODELS)
        _check(names, networks)
        chosen = [name for name in CATALOGUE if not names or name.startswith(tuple(names))]
        with Progress(console=options.progress_console, transient=True) as progress:
            writing = progress.add_task("models", total=len(chosen))
            written = write_faulty_models(
                self.write, chosen, networks, lambda done, total: progress.update(writing, completed=done)
            )
        if self.files.write([asdict(item) for item in written]):
            _print_written(written)
            for name in [name for name in chosen if name not in {item.fault for item in written}]:
                options.console.print(
                    f"{name}: does no harm to {', '.join(networks)}; not written", highlight=False
                )
        return 0


def _print_written(written: Sequence[FaultyModel]) -> None:
    for item in written:
        heading = f"{item.fault} ({item.detail}) at {item.call} of {item.network}"
        options.console.print(heading, highlight=False, soft_wrap=True)
        options.console.print(f"  {item.command}", highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Scoring(Job):
    """How good the judge is."""

    most_pictures: ClassVar[int]

    names: Names = None
    networks: Networks = None
    pictures: PictureCount = None
    exporter: Exporter = fault_score.OWN
    workers: Workers = 1
    files: JsonFile

    @abstractmethod
    def tasks(self, networks: Sequence[str]) -> list[fault_score.Task]:
        """Return where each fault is put."""

    def run(self) -> int:
        """Judge faulty and correct networks; 1 if a harmful fault is missed or a correct run fails."""
        names, networks = tuple(self.names or ()), self.networks or list(MODELS)
        _check(names, networks)
        if self.exporter not in fault_score.EXPORTERS:
            expected = ", ".join(fault_score.EXPORTERS)
            raise ConfigurationError(f"no exporter {self.exporter!r} for faults; expected one of {expected}")
        chosen = [task for task in self.tasks(networks) if not names or task.fault.startswith(names)]
        pictures = self.most_pictures if self.pictures is None else self.pictures
        trials, outcomes = _judged(chosen, false_alarms.correct_runs(pictures), self.workers)
        if self.files.write(_plain(trials, outcomes)):
            _print(trials, outcomes)
        missed = any(not trial.harmless and not trial.detected for trial in trials)
        return 1 if missed or any(outcome.headline for outcome in outcomes) else 0


@dataclass(frozen=True, kw_only=True)
class FullScore(Scoring):
    """Every fault in every network."""

    doing = "the score"
    most_pictures = 5

    per_fault: Annotated[
        int, typer.Option("--per-fault", min=1, help="Places for each fault in each network.")
    ] = 2

    def tasks(self, networks: Sequence[str]) -> list[fault_score.Task]:
        """Return where each fault is put."""
        return fault_score.tasks(networks, self.per_fault, self.exporter)


@dataclass(frozen=True, kw_only=True)
class QuickScore(Scoring):
    """Each fault once."""

    doing = "the quick score (--quick)"
    chosen_by = ("quick",)
    most_pictures = 1

    quick: Annotated[bool, typer.Option("--quick", help="Each fault once, in one of the networks.")] = False
    seed: Seed = 0

    def tasks(self, networks: Sequence[str]) -> list[fault_score.Task]:
        """Return where each fault is put."""
        return fault_score.quick_tasks(networks, self.seed, self.exporter)


@dataclass(frozen=True, kw_only=True)
class LeftOutScore(Scoring):
    """Each fault once, judged without its own entry of the catalogue."""

    doing = "the score of what nobody foresaw (--leave-one-out)"
    chosen_by = ("leaving",)
    most_pictures = 0

    leaving: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Each fault once, in one of the networks, judged by a catalogue without it.",
        ),
    ] = False
    seed: Seed = 0

    def tasks(self, networks: Sequence[str]) -> list[fault_score.Task]:
        """Return where each fault is put."""
        tasks = fault_score.quick_tasks(networks, self.seed, self.exporter)
        return [replace(task, left_out=True) for task in tasks]


MODES = (Catalogue, FaultyModels, PlantedErrors, LeftOutScore, QuickScore, FullScore)


def _judged(
    tasks: Sequence[fault_score.Task], runs: Sequence[CorrectRun], workers: int
) -> tuple[list[Trial], list[Outcome]]:
    with Progress(console=options.progress_console, transient=True) as progress:
        injecting = progress.add_task("faults", total=len(tasks))
        judging = progress.add_task("correct runs", total=len(runs))
        trials = fault_score.run(
            tasks, workers, lambda done, total: progress.update(injecting, completed=done)
        )
        outcomes = false_alarms.judge(
            runs, workers, lambda done, total: progress.update(judging, completed=done)
        )
    return trials, outcomes


def _check(names: Sequence[str], networks: Sequence[str]) -> None:
    """Raise `ConfigurationError` unless there are such networks, and faults whose names begin so."""
    unknown = [name for name in networks if name not in KNOWN]
    if unknown:
        raise ConfigurationError(f"no network {unknown[0]!r} for faults; expected one of {', '.join(KNOWN)}")
    for name in names:
        if not any(fault.startswith(name) for fault in CATALOGUE):
            categories = dict.fromkeys(fault.category for fault in CATALOGUE.values())
            raise ConfigurationError(
                f"no fault begins with {name!r}; the categories are {', '.join(categories)}"
            )


def _print_catalogue() -> None:
    """Print each fault, what is computed instead, and its source, whose address is kept in one piece."""
    for fault in CATALOGUE.values():
        named, scheme, rest = fault.source.partition("https://")
        options.console.print(fault.name, style="bold", highlight=False)
        for line in (fault.happens, named.rstrip(", ")):
            options.console.print(Padding(line, (0, 0, 0, 2), expand=False), highlight=False)
        if rest:
            options.console.print(f"  {scheme}{rest}", soft_wrap=True, highlight=False)


def _print(trials: Sequence[Trial], outcomes: Sequence[Outcome]) -> None:
    if trials:
        options.console.print(_score_table(trials))
        for trial in trials:
            told = trial.described if trial.left_out else trial.named
            if not trial.harmless and not (trial.detected and trial.localised and told):
                options.console.print(_miss(trial), highlight=False)
    if outcomes:
        options.console.print(_alarm_table(outcomes))
        for outcome in outcomes:
            if outcome.headline:
                options.console.print(f"{outcome.run}: {outcome.headline}", style="red", highlight=False)


def _miss(trial: Trial) -> str:
    if not trial.detected:
        found = "not detected"
    elif not trial.localised:
        found = f"blamed is {trial.blamed}, not {trial.expected}"
    else:
        found = f"diagnosed as {', '.join(trial.diagnoses) or 'nothing'}"
    return f"{trial.fault} ({trial.detail}) at {trial.call} of {trial.model}: {found}"


def _score_table(trials: Sequence[Trial]) -> Table:
    left_out = trials[0].left_out
    table = Table(title="Faults", title_justify="left", box=None, pad_edge=False)
    table.add_column("category")
    # Without its own entry none can be named.
    found = (
        ("described", "misleading") if left_out else ("named", "first", "described", "misleading", *BASELINES)
    )
    for column in ("faults", "harmless", "detected", "localised", *found):
        table.add_column(column, justify="right")
    for category, score in fault_score.by_category(trials).items():
        table.add_row(category, *_cells(score, left_out))
    table.add_section()
    table.add_row("all", *_cells(fault_score.score(trials), left_out), style="bold")
    return table


def _cells(score: Score, left_out: bool) -> list[str]:
    told = [score.described, score.misleading]
    named = [score.named, score.first, *told, *(score.baselines.get(name, 0) for name in BASELINES)]
    counts = [score.detected, score.localised, *(told if left_out else named)]
    return [str(score.faults), str(score.harmless), *(_share(count, score.faults) for count in counts)]


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} %" if total else "-"


def _alarm_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Correct runs called wrong", title_justify="left", box=None, pad_edge=False)
    table.add_column("implementation")
    for column in ("runs", "largest deviation", "this judge", *BASELINES):
        table.add_column(column, justify="right")
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        ill = outcome.run.network == false_alarms.ILL_CONDITIONED
        groups.setdefault(outcome.run.implementation + (", ill-conditioned" if ill else ""), []).append(
            outcome
        )
    for name, group in groups.items():
        table.add_row(name, *_alarm_cells(group))
    table.add_section()
    table.add_row("all", *_alarm_cells(outcomes), style="bold")
    return table


def _alarm_cells(group: Sequence[Outcome]) -> list[str]:
    deviation = max(outcome.deviation for outcome in group)
    counts = [sum(bool(outcome.headline) for outcome in group)]
    counts += [sum(outcome.baselines[name] for outcome in group) for name in BASELINES]
    return [str(len(group)), f"{deviation:.1e}", *map(str, counts)]


def _plain(trials: Sequence[Trial], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "score": asdict(fault_score.score(trials)),
        "categories": {name: asdict(score) for name, score in fault_score.by_category(trials).items()},
        "correct_runs": len(outcomes),
        "false_alarms": sum(bool(outcome.headline) for outcome in outcomes),
        "baseline_alarms": {name: sum(outcome.baselines[name] for outcome in outcomes) for name in BASELINES},
        "trials": [{**asdict(trial), "localised": trial.localised, "named": trial.named} for trial in trials],
        "runs": [asdict(outcome) for outcome in outcomes],
    }
