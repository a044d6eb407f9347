"""`mobileinst faults --planted N`: does the judge find small mistakes at their place in any runtime?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from conformance.candidates.kinds import KINDS
from conformance.cli import options
from conformance.cli.candidate import Interpreter, Kind, check_candidate, words_of
from conformance.cli.job import Beside, Job
from conformance.cli.options import JsonFile
from conformance.evidence.fault_score import MODELS
from conformance.evidence.planted import LEAST, Result, Trial, by_kind, judge_planted
from conformance.graph.quantizing import FORMATS
from refimpl.errors import ConfigurationError

NETWORKS = ("topformer-tiny", "seaformer-tiny", "sparseinst-topformer-tiny")

Seed = Annotated[
    int,
    typer.Option("--seed", min=0, max=options.MOST_SEED, help="Chooses each fault's network and place."),
]


@dataclass(frozen=True, kw_only=True)
class PlantedErrors(Job):
    """Small mistakes planted in models that a runtime of your choice computes."""

    doing = "mistakes planted in a runtime's models (--planted N)"
    chosen_by = ("planted",)

    planted: Annotated[
        int | None,
        typer.Option(
            "--planted",
            metavar="N",
            min=1,
            help="N mistakes (a slice of a weight 5 % off, an attribute, a constant, a scale, a zero point), "
            f"each moving its result by more than {LEAST:g} steps, in models that --candidate computes.",
        ),
    ] = None
    networks: Annotated[
        list[str] | None, typer.Option("--network", help="Only these networks; repeatable.")
    ] = None
    candidate: Kind = None
    interpreter: Annotated[Interpreter, Beside("candidate")] = None
    quantization: Annotated[
        str | None,
        typer.Option("--quantize", help="With --planted: in quantised models, a8w8 or a16w8."),
    ] = None
    seed: Seed = 0
    files: JsonFile

    def check(self) -> None:
        """Refuse networks, candidates and formats that are not known."""
        for kind, given, known in (
            ("network", self.networks or (), MODELS),
            ("quantisation", [self.quantization] if self.quantization else (), FORMATS),
            ("candidate", [(self.candidate or "onnxruntime").partition(":")[0]], KINDS),
        ):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ConfigurationError(f"no {kind} {unknown[0]!r} here; expected one of {', '.join(known)}")
        check_candidate(self.candidate or "onnxruntime", {"--interpreter": self.interpreter})

    def run(self) -> int:
        """Plant, judge and print; 1 if a mistake is missed or a right model fails."""
        assert self.planted is not None
        with Progress(console=options.progress_console, transient=True) as progress:
            task = progress.add_task("planted", total=self.planted)
            result = judge_planted(
                self.planted,
                self.candidate or "onnxruntime",
                self.networks or list(NETWORKS),
                self.seed,
                self.quantization,
                lambda done, total: progress.update(task, completed=done),
                words_of(self.interpreter),
            )
        trials = [{**asdict(trial), "localised": trial.localised} for trial in result.trials]
        if self.files.write({**asdict(result), "trials": trials}):
            _print(result)
        missed = any(trial.counted and not trial.detected for trial in result.trials)
        return 1 if missed or result.alarms else 0


def _print(result: Result) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("mistake")
    for column in ("planted", "counted", "detected", "at its place"):
        table.add_column(column, justify="right")
    for kind, (planted, *counts) in by_kind(result.trials).items():
        table.add_row(kind, str(planted), *map(str, counts))
    options.console.print(table)
    for trial in result.trials:
        if trial.counted and not trial.localised:
            options.console.print(_miss(trial), highlight=False, soft_wrap=True)
    if result.refused:
        options.console.print(f"{result.refused} more models were refused by the runtime", highlight=False)
    for network, alarm in result.alarms.items():
        options.console.print(f"Right, and fails: {network}: {alarm}", style="red", highlight=False)


def _miss(trial: Trial) -> str:
    found = f"blamed is {trial.blamed}" if trial.detected else "not detected"
    place = " or ".join(trial.expected) or "no step"
    return f"{trial.detail} in {trial.network} ({trial.size:.1f} steps): {found}, not {place}"
