"""`mobileinst bench`: how fast the NumPy forward is beside its peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from conformance.candidates.onnx_runtime import MOST_THREADS
from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.evidence.benchmark import NUMPY, Timing, measure
from conformance.evidence.floor import OperationTime, blas_kernels, profile, slowed_by
from conformance.evidence.judge_benchmark import COUNT, LIMITS, measure_judging
from conformance.evidence.memory import peak_memory
from conformance.evidence.tracking_benchmark import LIMITS as MILLISECONDS
from conformance.evidence.tracking_benchmark import PIECES, PieceTiming, measure_tracking
from conformance.evidence.video_benchmark import (
    PAPER_MILLISECONDS,
    IntervalTiming,
    measure_intervals,
    operations_per_frame,
)
from conformance.pictures.inputs import rendered_input
from refimpl import MobileInstConfig
from refimpl.ops.operation import Array

Threads = Annotated[
    list[int] | None,
    typer.Option(
        "--threads",
        min=1,
        max=MOST_THREADS,
        help="Threads of every peer; repeatable. Default: 1 and 2; a video: 1.",
    ),
]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Timed forwards of each peer, interleaved.")]


@dataclass(frozen=True, kw_only=True)
class Bench(Job):
    """Time the forward pass against ONNX Runtime, onnx.reference and, if installed, PyTorch.

    All peers run the same recorded operations on the same numbers with equal threads. The ratio is NumPy
    float32's median over the peer's: below 1, NumPy is faster.

    [bold]Examples[/bold]

      mobileinst bench

      mobileinst bench --model topformer-tiny --threads 1 --repeats 15

      mobileinst bench --video --threads 1

      mobileinst bench --judge --repeats 3

      mobileinst bench --tracking --threads 1

      mobileinst bench --profile --threads 1
    """

    doing = "the forward pass"

    network: options.SeededNetwork
    size: options.Size = None
    threads: Threads = None
    repeats: Repeats = 7
    files: JsonFile

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the input."""
        return options.parse_size(self.size) or options.DEFAULT_SIZE

    def run(self) -> int:
        """Time every peer, and print the ratios."""
        config, weights = self.network.config, self.network.load()
        images = _scene(self.sides, self.network.seed or 0)
        timings: list[Timing] = []
        for count, advance in _counted(self.threads or [1, 2], 6 * self.repeats + 1):
            timings += measure(config, weights, images, count, self.repeats, advance)
        memory = peak_memory(config, weights, self.sides)
        content = {"timings": [asdict(timing) for timing in timings], "peak_memory_mb": memory}
        if self.files.write({**content, "blas": blas_kernels(), "slowed_by": slowed_by()}):
            height, width = self.sides
            options.console.print(_table(timings))
            options.console.print(
                f"{self.network.name} at {height}×{width}; "
                f"peak memory of a process that runs one NumPy float32 forward: {memory:.0f} MB",
                highlight=False,
            )
            _say_kernels()
        return 0


def _say_kernels() -> None:
    options.console.print(f"BLAS: {blas_kernels()}", highlight=False)
    if slowing := slowed_by():
        said = f"{' '.join(slowing)} keeps BLAS from this processor's own kernels; unset it to measure"
        options.console.print(said, highlight=False)


def _scene(size: tuple[int, int], seed: int) -> Array:
    (images,) = rendered_input(size, seed=seed).values()
    return images.astype(np.float32)


def _counted(threads: Sequence[int], total: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """Yield each number of threads, with what moves its progress bar of ``total`` steps."""
    with Progress(console=options.progress_console, transient=True) as progress:
        for count in threads:
            task = progress.add_task(f"{count} thread{'s' * (count > 1)}", total=total)
            yield count, partial(progress.advance, task)


def _table(timings: list[Timing]) -> Table:
    table = Table("peer", box=None)
    for name in ("threads", "median ms", "min ms", "max ms", "NumPy float32 / peer"):
        table.add_column(name, justify="right")
    own = {timing.threads: timing.median for timing in timings if timing.peer == NUMPY}
    for timing in timings:
        milliseconds = [1e3 * value for value in (timing.median, min(timing.seconds), max(timing.seconds))]
        ratio = own[timing.threads] / timing.median
        table.add_row(
            timing.peer, str(timing.threads), *(f"{value:.1f}" for value in milliseconds), f"{ratio:.2f}"
        )
    return table


@dataclass(frozen=True, kw_only=True)
class BenchJudge(Bench):
    """Time what a verdict costs."""

    doing = "the cost of a verdict (--judge)"
    chosen_by = ("judge",)

    judge: Annotated[
        bool,
        typer.Option("--judge", help="Instead: what a verdict costs, in float64 forwards of the network."),
    ] = False

    def run(self) -> int:
        """Time the stages of a verdict, and print them beside their limits."""
        config, weights = self.network.config, self.network.load()
        images = _scene(self.sides, self.network.seed or 0)
        rows, memory = [], 0.0
        for count, advance in _counted(self.threads or [1, 2], (COUNT + 2) * (self.repeats + 1)):
            given = config, weights, images, self._command()
            timings, memory = measure_judging(*given, count, self.repeats, advance)
            rows += [_stage_row(one, timings[0], count) for one in timings]
        if self.files.write({"stages": rows, "peak_memory_mb": memory}):
            options.console.print(_stage_table(rows))
            options.console.print(f"peak memory of this process: {memory:.0f} MB", highlight=False)
        return 0

    def _command(self) -> list[str]:
        """Return what `mobileinst` is told to judge the same."""
        height, width = self.sides
        chosen = [f"--set={field}" for field in self.network.overrides or ()]
        network = ["--model", self.network.name, *chosen, "--seed", str(self.network.seed or 0)]
        return ["verify", *network, "--size", f"{height}x{width}"]


def _stage_row(timing: Timing, first: Timing, threads: int) -> dict[str, Any]:
    return {
        "stage": timing.peer,
        "threads": threads,
        "seconds": timing.seconds,
        "median": timing.median,
        "ratio": timing.ratio(first),
        "limit": LIMITS.get(timing.peer),
    }


def _stage_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("stage", box=None)
    for name in ("threads", "median s", "float64 forwards", "limit"):
        table.add_column(name, justify="right")
    for row in rows:
        limit = "-" if row["limit"] is None else f"{row['limit']:g}"
        table.add_row(
            str(row["stage"]), str(row["threads"]), f"{row['median']:.2f}", f"{row['ratio']:.2f}", limit
        )
    return table


@dataclass(frozen=True, kw_only=True)
class BenchVideo(Bench):
    """Time a video."""

    doing = "the cost of a video (--video)"
    chosen_by = ("video",)

    video: Annotated[
        bool,
        typer.Option(
            "--video", help="Instead: the cost per frame of a video at T = 1, 3 and 6, beside the paper's."
        ),
    ] = False

    def run(self) -> int:
        """Time the intervals of keyframes, and print their ratios to T = 1."""
        config, weights = self.network.config, self.network.load()
        rows = []
        for count, advance in _counted(self.threads or [1], 6 * self.repeats):
            timings = measure_intervals(config, weights, self.sides, count, self.repeats, advance)
            rows += [_interval_row(timing, timings, count, config, self.sides) for timing in timings]
        if self.files.write({"size": self.sides, "intervals": rows}):
            options.console.print(_interval_table(rows))
        return 0


def _interval_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("runtime", box=None)
    for name in ("threads", "T", "ms per frame", "/ T = 1", "paper's", "multiply–accumulates'"):
        table.add_column(name, justify="right")
    for row in rows:
        ratios = [f"{row[name]:.3f}" for name in ("ratio", "paper_ratio", "macs_ratio")]
        cells = [str(row["threads"]), str(row["keyframe_interval"]), f"{1e3 * row['median']:.1f}", *ratios]
        table.add_row(row["runtime"], *cells)
    return table


def _interval_row(
    timing: IntervalTiming,
    timings: list[IntervalTiming],
    threads: int,
    config: MobileInstConfig,
    size: tuple[int, int],
) -> dict[str, Any]:
    """One row: its ratios are to T = 1 of the same runtime in the same run."""
    interval = timing.keyframe_interval
    first = next(one for one in timings if one.runtime == timing.runtime and one.keyframe_interval == 1)
    macs = [operations_per_frame(config, size, t) for t in (interval, 1)]
    return {
        **asdict(timing),
        "threads": threads,
        "median": timing.median,
        "ratio": timing.ratio(first),
        "paper_ratio": PAPER_MILLISECONDS[interval] / PAPER_MILLISECONDS[1],
        "macs_ratio": macs[0] / macs[1],
    }


@dataclass(frozen=True, kw_only=True)
class BenchTracking(Bench):
    """Time what surrounds the network."""

    doing = "association, losses and evaluation (--tracking)"
    chosen_by = ("tracking",)

    tracking: Annotated[
        bool,
        typer.Option(
            "--tracking",
            help="Instead: association, losses, video evaluation, beside named peers. Default: one thread.",
        ),
    ] = False

    def run(self) -> int:
        """Time each piece and its peer, and print the ratios."""
        config, weights = self.network.config, self.network.load()
        images = _scene(self.sides, self.network.seed or 0)
        rows = []
        for count, advance in _counted(self.threads or [1], PIECES * (self.repeats + 1)):
            timings = measure_tracking(config, weights, images, count, self.repeats, advance)
            rows += [_piece_row(timing) for timing in timings]
        if self.files.write({"pieces": rows}):
            options.console.print(_piece_table(rows))
        return 0


def _piece_row(timing: PieceTiming) -> dict[str, Any]:
    name = timing.own.peer
    milliseconds = {"median": 1e3 * timing.own.median, "limit": MILLISECONDS.get(name)}
    peer = {"peer": timing.peer.peer, "peer_median": 1e3 * timing.peer.median, "ratio": timing.ratio}
    return {"piece": name, "threads": timing.own.threads, **milliseconds, **peer}


def _piece_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("piece", box=None)
    for name in ("threads", "median ms", "limit"):
        table.add_column(name, justify="right")
    table.add_column("peer")
    for name in ("its ms", "piece / peer"):
        table.add_column(name, justify="right")
    for row in rows:
        limit = "-" if row["limit"] is None else f"{row['limit']:g}"
        own = row["piece"], str(row["threads"]), f"{row['median']:.2f}", limit
        table.add_row(*own, row["peer"], f"{row['peer_median']:.2f}", f"{row['ratio']:.2f}")
    return table


@dataclass(frozen=True, kw_only=True)
class BenchProfile(Bench):
    """Say where the time of a forward goes."""

    doing = "the time by operation (--profile)"
    chosen_by = ("profile",)

    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Instead: the float32 forward's time by operation, beside its floor. Default: one thread.",
        ),
    ] = False

    def run(self) -> int:
        """Time every step, and print the sums by kind."""
        config, weights = self.network.config, self.network.load()
        images = _scene(self.sides, self.network.seed or 0)
        rows = []
        for count, advance in _counted(self.threads or [1], self.repeats):
            times = profile(config, weights, images, count, self.repeats, advance)
            rows += [{"threads": count, **asdict(each)} for each in times]
            if self.files.prints:
                options.console.print(_profile_table(times))
        if self.files.write({"operations": rows, "blas": blas_kernels(), "slowed_by": slowed_by()}):
            _say_kernels()
        return 0


def _profile_table(times: Sequence[OperationTime]) -> Table:
    table = Table("operation", box=None)
    for name in ("calls", "ms", "share", "multiply–accumulates", "floor ms", "time / floor"):
        table.add_column(name, justify="right")
    total = sum(each.seconds for each in times)
    for each in times:
        floor = ("-", "-", "-")
        if each.macs:
            floor = f"{each.macs / 1e6:.0f} M", f"{1e3 * each.floor:.1f}", f"{each.seconds / each.floor:.2f}"
        spent = f"{1e3 * each.seconds:.1f}", f"{100 * each.seconds / total:.0f} %"
        table.add_row(each.kind, str(each.calls), *spent, *floor)
    return table


MODES = (BenchVideo, BenchJudge, BenchTracking, BenchProfile, Bench)
