"""`mobileinst sweep`: a candidate on thousands of pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from conformance.candidates.kinds import Request
from conformance.candidates.onnx_candidate import only_input
from conformance.cli import options, verify_options
from conformance.cli.candidate import Kind, Trust, check_candidate
from conformance.cli.command_help import CANDIDATE, INPUT, RESULTS
from conformance.cli.formats import DeclaredFormats
from conformance.cli.job import Beside, Job, Unless
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Output, Reads
from conformance.cli.report_files import Html
from conformance.cli.terminal import coloured
from conformance.cli.verdict import STYLES
from conformance.files import write_text
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.weights_cache import cache_folder
from conformance.reports.sweep_report import SweepReport, sweep_page, tables
from conformance.sweep.merged import merge
from conformance.sweep.pictures import Pictures, find_pictures
from conformance.sweep.pools import InProcess, Pool, dask_pool
from conformance.sweep.station import Setup, model_hash, project_hash
from conformance.sweep.sweep import Sweep
from refimpl import MobileInstConfig
from refimpl.errors import ConfigurationError

ROWS, CELL = 15, 60
"""Rows of a table, and characters of a cell, on the terminal."""


@dataclass(frozen=True, kw_only=True)
class SweepJob(Job):
    """Judge a candidate on thousands of pictures: all are screened, those near a limit judged in full.

    With a COCO .json beside its pictures, average precision is compared too. Rows of every picture, step and
    decision are kept in the output folder as they come, in Parquet if the extra sweep is installed: after an
    interruption, --resume goes on. Exits 0 if it conforms on every picture, 1 if not, 2 on bad usage or
    input, or if a picture could not be judged.

    [bold]Examples[/bold]

      mobileinst sweep mine.onnx --weights mine.safetensors --inputs pictures

      mobileinst sweep mine.onnx --weights mine.safetensors --inputs val.json --workers 8 --html sweep.html

      mobileinst sweep mine.onnx --weights mine.safetensors --inputs pictures --scheduler tcp://10.0.0.1:8786
    """

    doing = "a sweep"

    model_file: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="The candidate: .onnx."), Reads()
    ] = None
    network: options.NetworkOptions
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="FOLDER|VIDEO|COCO.json",
            help="The pictures: a folder, a video's frames, or those of a COCO ground truth.",
            rich_help_panel=INPUT,
        ),
        Reads(),
    ] = None
    size: options.Size = None
    share: Annotated[
        float,
        typer.Option(
            "--share",
            min=0,
            max=1,
            help="Share of the pictures, drawn at random, that is judged in full too.",
            rich_help_panel=INPUT,
        ),
    ] = 0.01
    candidate: Kind = None
    trust: Annotated[Trust, Beside("candidate")] = False
    declared: DeclaredFormats
    timeout: verify_options.Timeout = None
    no_cache: verify_options.NoCache = False
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            max=options.MOST_WORKERS,
            help="Processes. Default: this one.",
            rich_help_panel=CANDIDATE,
        ),
        Unless("scheduler"),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="tcp://HOST:PORT",
            help="A scheduler of Dask, whose workers see the same files.",
            rich_help_panel=CANDIDATE,
        ),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Folder for the rows. Default: INPUTS + .sweep, here.", rich_help_panel=RESULTS
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the sweep in the output folder.", rich_help_panel=RESULTS),
    ] = False
    html_file: Html = None
    files: JsonFile

    def check(self) -> None:
        """Refuse what has no effect on this kind of candidate, and a sweep of nothing."""
        if self.inputs is None:
            raise ConfigurationError("name the pictures: --inputs FOLDER, VIDEO or COCO.json")
        if self.model_file is None and self.candidate is None:
            raise ConfigurationError("name a MODEL.onnx, or a --candidate that needs none")
        kind = self.candidate or "onnxruntime"
        if kind.partition(":")[0] == "dumps":
            raise ConfigurationError("--candidate dumps holds one run; a sweep runs the candidate")
        given = {"MODEL": self.model_file, "--trust": self.trust}
        formats = {"--arithmetic": self.declared.arithmetic, "--storage": self.declared.storage}
        check_candidate(kind, {**given, **formats})

    @property
    def place(self) -> Path:
        """Where the pictures are."""
        assert self.inputs is not None
        return self.inputs

    @property
    def folder(self) -> Path:
        """Where the rows are kept."""
        return self.output or Path(f"{self.place.name}.sweep")

    def outputs(self) -> list[Output]:
        """Return the folder; a sweep that is there is looked at before any work."""
        return [Output("--output", self.folder, None)]

    def run(self) -> int:
        """Judge what is not judged yet, merge, write and print."""
        with options.working("pictures"):
            pictures = find_pictures(self.place)
            setup = self._setup(pictures)
        sweep = Sweep(setup, pictures, self.folder)
        sweep.check(self.resume)
        with self._pool(setup) as pool:
            _follow(sweep, pool)
        report = self._merged(sweep)
        if self.html_file is not None:
            write_text(self.html_file, sweep_page(report))
        if self.files.write(report.to_json()):
            print_sweep(report)
        return report.exit_code

    def _setup(self, pictures: Pictures) -> Setup:
        config, weights = self.network.load()
        size = self._size(config)
        arithmetic, storage = self.declared.formats
        plain = dict(weights)
        model = None if self.model_file is None else self.model_file.resolve()
        request = Request("", config, plain, model, arithmetic, storage, threads=1, trusted=self.trust)
        truth = pictures.truth
        return Setup(
            self.candidate or "onnxruntime",
            request,
            size,
            self.timeout or verify_options.LONGEST,
            self.share,
            seed=self.network.seed or 0,
            cache=None if self.no_cache else cache_folder(),
            frames=pictures.video is not None,
            categories=_categories(truth, config.num_classes) if truth else (),
            sizes={each["id"]: (each["height"], each["width"]) for each in truth["images"]} if truth else {},
            model_sha256=model_hash(self.candidate or "", model),
            project_sha256=project_hash(),
        )

    def _size(self, config: MobileInstConfig) -> tuple[int, int]:
        given = options.parse_size(self.size, step=1)
        usual = options.TRAINED_SIZE if self.network.is_trained else options.DEFAULT_SIZE
        if self.model_file is None or self.model_file.suffix != ".onnx":
            return given or usual
        *_, height, width = only_input(OnnxGraph.load(self.model_file, partly=True)).shape
        wanted = (height or (given or usual)[0], width or (given or usual)[1])
        if given and given != wanted:
            raise ConfigurationError(
                f"--size {self.size} has no effect: the model takes {wanted[0]}x{wanted[1]}; leave it out"
            )
        return wanted

    @contextmanager
    def _pool(self, setup: Setup) -> Iterator[Pool]:
        if self.workers is None and self.scheduler is None:
            yield InProcess(setup)
            return
        with dask_pool(setup, self.workers, self.scheduler) as pool:
            yield pool

    def _merged(self, sweep: Sweep) -> SweepReport:
        name = self.model_file.name if self.model_file else str(self.candidate)
        report = merge(
            sweep.parts,
            candidate=f"{name} in {self.candidate}" if self.model_file and self.candidate else name,
            pictures=str(self.place),
            total=len(sweep.pictures),
            command=lambda picture: self._command(sweep, picture),
            truth=sweep.pictures.truth,
        )
        return replace(report, command=self.command_line)

    def _command(self, sweep: Sweep, picture: str) -> str:
        """Return the command that judges one picture alone; none where a frame cannot be read."""
        if sweep.pictures.video is not None and not sweep.file_of(picture).exists():
            return ""
        height, width = sweep.setup.size
        words = ["mobileinst", "verify", *([str(self.model_file)] if self.model_file else [])]
        words += self._network_words()
        words += ["--input", str(sweep.file_of(picture)), "--size", f"{height}x{width}"]
        return shlex.join(words)

    def _network_words(self) -> list[str]:
        network, formats = self.network, self.declared
        named = {
            "--model": network.model,
            "--weights": network.weights,
            "--backbone-weights": network.backbone_weights,
            # Where nothing is said of the network, verify may take a trained one.
            "--seed": network.seed if network.is_given else 0,
            "--candidate": self.candidate,
            "--arithmetic": formats.arithmetic and formats.arithmetic.value,
            "--storage": formats.storage and formats.storage.value,
            "--timeout": self.timeout,
        }
        words = [word for name, value in named.items() if value is not None for word in (name, str(value))]
        words += [word for each in network.overrides or () for word in ("--set", each)]
        return words + ["--trust"] * self.trust


def _categories(truth: dict[str, Any], classes: int) -> tuple[int, ...]:
    found = tuple(sorted(category["id"] for category in truth["categories"]))
    if len(found) != classes:
        raise ConfigurationError(
            f"the ground truth has {len(found)} categories, the network {classes} classes"
        )
    return found


def _follow(sweep: Sweep, pool: Pool) -> None:
    """Judge, and show how far it is and when it ends."""
    console = options.progress_console
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console.print(f"{len(sweep.pictures)} pictures, judged {pool.described}", highlight=False)
    with Progress(*columns, console=console) as shown:
        task = shown.add_task("pictures", total=len(sweep.pictures))
        for done in sweep.run(pool, lambda said: shown.update(task, description=said)):
            shown.update(task, description="pictures", completed=done)


def print_sweep(report: SweepReport) -> None:
    """Print the tables, and the verdict last."""
    for title, heads, rows in tables(report, ROWS):
        table = Table(*heads, title=title, title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(
                *(cell if len(cell) <= CELL or heads[-1] == "command" else cell[:CELL] for cell in row)
            )
        options.console.print(table)
    options.console.print(coloured(report.headline, STYLES[report.verdict]), highlight=False, soft_wrap=True)
