"""`mobileinst golden train`: a network learns rendered scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from conformance.cli import options
from conformance.cli.job import Beside, Job, Unless
from conformance.cli.output_files import SVG, Reads, Writes
from conformance.files import atomic_write
from golden import DATA
from golden.learning.settings import KINDS, Settings
from refimpl.errors import FileError
from refimpl.trained import DEFAULT, trained_folder

if TYPE_CHECKING:
    from golden.learning.trainer import Trainer

INTERRUPTED = 130
SMALL = ("num_classes=4", "num_queries=20", "dim=64")


@dataclass(frozen=True, kw_only=True)
class Train(Job):
    """Train on rendered scenes without end; needs the extra [bold]torch[/bold].

    The modules are the independent PyTorch implementation's; losses and their gradients are the reference's.
    A checkpoint is written every 45 seconds: killed, the same command goes on from there. Without --set, the
    network has 4 classes, 20 queries and 64 channels.
    Exits 0; 130 if interrupted; 2 on bad usage, other options than the run began with, or a loss that is NaN.

    [bold]Examples[/bold]

      mobileinst golden train runs/pictures --steps 6000

      mobileinst golden train runs/video --kind passing --start runs/pictures --steps 600
    """

    doing = "training"

    folder: Annotated[
        Path,
        typer.Argument(help="The run: its checkpoint and log; gone on with if there."),
        Writes(None),
    ]
    kind: Annotated[
        str, typer.Option("--kind", help=f"What a step learns from: {', '.join(KINDS)} (paper 3.5).")
    ] = "pictures"
    steps: Annotated[int, typer.Option("--steps", help="Length of the run."), Unless("minutes")] = 12_000
    minutes: Annotated[
        float,
        typer.Option("--minutes", help="Length by the clock, in place of --steps; pauses do not count."),
    ] = 0.0
    batch: Annotated[int, typer.Option("--batch-size", help="Pictures of 128×192 in a step.")] = 16
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The largest.")] = 1e-3
    warmup: Annotated[int, typer.Option("--warmup", help="Steps in which it rises.")] = 200
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, max=options.MOST_SEED, help="Of the first weights, and of the scenes."),
    ] = 0
    association: Annotated[
        float,
        typer.Option("--association", help="Weight of the loss of association, not the paper's; pairs only."),
    ] = 0.0
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="What to start from: a finished run's folder, a trained set's name, or a weights file.",
        ),
        Reads(),
    ] = None
    model: options.Model = None
    overrides: options.Set = None
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=options.MOST_WORKERS, help="Of PyTorch.")
    ] = 1
    until: Annotated[
        int | None, typer.Option("--until", min=1, help="Stop at this step; the run can be gone on with.")
    ] = None
    ship: Annotated[
        str | None, typer.Option("--ship", metavar="NAME", help="When finished, make it this trained set.")
    ] = None
    ship_to: Annotated[
        Path, typer.Option("--ship-to", metavar="FOLDER", help="Where --ship puts it."), Beside("ship")
    ] = DATA / "trained"

    def run(self) -> int:
        """Go on with the run, or begin it; 130 if interrupted."""
        trainer = _trainer(self._settings, self.folder, self.start, self.threads)
        try:
            _run(trainer, self.until)
        except KeyboardInterrupt:
            trainer.save()
            typer.echo(f"interrupted at step {trainer.step}; the same command goes on", err=True)
            return INTERRUPTED
        if trainer.progress >= 1:
            _finish(trainer, self.ship, self.ship_to, self.threads)
        return 0

    def _settings(self, digest: str) -> Settings:
        """Return what the run is, by the digest of the weights it starts from."""
        return Settings(
            options.configuration(self.model or "topformer-tiny", self.overrides or SMALL),
            self.kind,
            self.steps,
            self.batch,
            self.learning_rate,
            self.warmup,
            self.seed,
            digest,
            self.minutes,
            self.association,
        )


@dataclass(frozen=True, kw_only=True)
class Curve(Job):
    """Draw the loss curve of a trained set, or of a run's log.csv.

    [bold]Examples[/bold]

      mobileinst golden curve loss.svg

      mobileinst golden curve loss.svg --log runs/pictures/log.csv
    """

    doing = "drawing a curve"

    file: Annotated[Path, typer.Argument(metavar="CURVE.svg", help="To write."), Writes(SVG)]
    name: Annotated[
        str, typer.Option("--trained", help="The trained set whose curve is wanted."), Unless("log")
    ] = DEFAULT
    log: Annotated[Path | None, typer.Option("--log", help="Or the log of a run."), Reads()] = None
    force: options.Force = False

    def run(self) -> int:
        """Draw it."""
        from golden.learning.curve import loss_curve

        source = self.log or trained_folder() / f"{self.name}.csv"
        try:
            drawn = loss_curve(source.read_text(encoding="utf-8"), str(self.log or self.name))
        except (OSError, KeyError, ValueError) as error:
            raise FileError(f"{source} is no log of a training run: {error}") from error
        with atomic_write(self.file) as temporary:
            temporary.write_text(drawn, encoding="utf-8")
        return 0


def _trainer(settings: Any, folder: Path, source: str | None, threads: int) -> Trainer:
    """The run as its folder has it, or a new one."""
    from conformance.graph.pytorch_replay import import_torch

    torch = import_torch()
    from golden.learning.start import digest, find_start, starting_weights
    from golden.learning.trainer import Trainer

    torch.set_num_threads(threads)
    start = find_start(source) if source else None
    wanted: Settings = settings(digest(start.weights) if start else "")
    if start:
        start = start._replace(weights=starting_weights(start.weights, wanted.config, wanted.seed))
    return Trainer(wanted, folder, start)


def _run(trainer: Trainer, until: int | None) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=options.progress_console) as progress:
        task = progress.add_task("training", total=1.0)

        def advance(row: dict[str, Any]) -> None:
            text = f"step {row['step']}, loss {row['total']:.3f}"
            progress.update(task, completed=trainer.progress, description=text)

        try:
            trainer.run(advance, until)
        except RuntimeError as error:
            if "alloc" not in str(error):
                raise
            raise MemoryError(
                f"step {trainer.step + 1}: give a smaller --batch-size; the checkpoint is whole"
            ) from None


def _finish(trainer: Trainer, name: str | None, data: Path, threads: int) -> None:
    """Write the rounded weights, and put them in place if they are to be shipped."""
    from golden.learning.shipped import machine, rounded, ship, versions
    from golden.learning.start import WEIGHTS

    half = rounded(trainer.weights())
    path = trainer.folder / WEIGHTS
    half.astype("float32").save(path)
    options.console.print(
        f"{trainer.step} steps, {trainer.seconds / 60:.0f} minutes: {path}", highlight=False
    )
    if name is not None:
        *before, last = trainer.stages()
        log = (trainer.folder / "log.csv").read_text(encoding="utf-8")
        training = {**last, "stages": before, "versions": versions(), "machine": machine(threads)}
        ship(data, name, trainer.weights(), trainer.settings.config, log, training)
