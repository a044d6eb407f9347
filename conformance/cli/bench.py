"""`mobileinst bench`: how fast the NumPy forward is beside its peers."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from conformance.cli import options
from conformance.evidence.benchmark import NUMPY, Timing, measure, peak_memory
from conformance.evidence.judge_benchmark import LIMITS, measure_judging
from conformance.evidence.video_benchmark import (
    PAPER_MILLISECONDS,
    IntervalTiming,
    measure_intervals,
    operations_per_frame,
)
from conformance.pictures.inputs import rendered_input
from refimpl import MobileInstConfig, Weights
from refimpl.ops.operation import Array


def bench(
    model: options.Model = options.DEFAULT_MODEL,
    overrides: options.Set = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    threads: Annotated[
        list[int] | None,
        typer.Option("--threads", min=1, help="Threads of every peer; repeatable. Default: 1 and 2."),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Timed forwards of each peer, interleaved.")
    ] = 7,
    video: Annotated[
        bool,
        typer.Option(
            "--video", help="Instead: the cost per frame of a video at T = 1, 3 and 6, beside the paper's."
        ),
    ] = False,
    judge: Annotated[
        bool,
        typer.Option("--judge", help="Instead: what a verdict costs, in float64 forwards of the network."),
    ] = False,
    json_file: options.Json = None,
) -> None:
    """Time the forward pass against ONNX Runtime, onnx.reference and, if installed, PyTorch.

    All peers run the same recorded operations on the same numbers with equal threads. The ratio is NumPy
    float32's median over the peer's: below 1, NumPy is faster.

    [bold]Examples[/bold]

      mobileinst bench

      mobileinst bench --model topformer-tiny --threads 1 --repeats 15

      mobileinst bench --video --threads 1

      mobileinst bench --judge --repeats 3
    """
    config = options.configuration(model, overrides)
    height, width = options.parse_size(size) or options.DEFAULT_SIZE
    weights = Weights.seeded(config, seed)
    if video:
        _bench_video(config, weights, (height, width), threads or [1], repeats, json_file)
        return
    (images,) = rendered_input((height, width), seed=seed).values()
    if judge:
        _bench_judge(config, weights, images.astype(np.float32), threads or [1, 2], repeats, json_file)
        return
    timings: list[Timing] = []
    with Progress(console=options.progress_console, transient=True) as progress:
        for count in threads or [1, 2]:
            task = progress.add_task(f"{count} thread{'s' * (count > 1)}", total=4 * repeats + 1)
            timings += measure(
                config, weights, images.astype(np.float32), count, repeats, partial(progress.advance, task)
            )
    memory = peak_memory(config, weights, (height, width))
    options.write_json(
        json_file, {"timings": [asdict(timing) for timing in timings], "peak_memory_mb": memory}
    )
    if str(json_file) == "-":
        return
    options.console.print(_table(timings))
    options.console.print(
        f"{model} at {height}×{width}; "
        f"peak memory of a process that runs one NumPy float32 forward: {memory:.0f} MB",
        highlight=False,
    )


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


def _bench_judge(
    config: MobileInstConfig,
    weights: Weights,
    images: Array,
    threads: list[int],
    repeats: int,
    json_file: options.JsonPath,
) -> None:
    rows, memory = [], 0.0
    with Progress(console=options.progress_console, transient=True) as progress:
        for count in threads:
            task = progress.add_task(f"{count} thread{'s' * (count > 1)}", total=4 * (repeats + 1))
            timings, memory = measure_judging(
                config, weights, images, count, repeats, partial(progress.advance, task)
            )
            rows += [
                {
                    "stage": one.peer,
                    "threads": count,
                    "seconds": one.seconds,
                    "median": one.median,
                    "ratio": one.ratio(timings[0]),
                    "limit": LIMITS.get(one.peer),
                }
                for one in timings
            ]
    options.write_json(json_file, {"stages": rows, "peak_memory_mb": memory})
    if str(json_file) == "-":
        return
    table = Table("stage", box=None)
    for name in ("threads", "median s", "float64 forwards", "limit"):
        table.add_column(name, justify="right")
    for row in rows:
        limit = "-" if row["limit"] is None else f"{row['limit']:g}"
        table.add_row(
            str(row["stage"]), str(row["threads"]), f"{row['median']:.2f}", f"{row['ratio']:.2f}", limit
        )
    options.console.print(table)
    options.console.print(f"peak memory of this process: {memory:.0f} MB", highlight=False)


def _bench_video(
    config: MobileInstConfig,
    weights: Weights,
    size: tuple[int, int],
    threads: list[int],
    repeats: int,
    json_file: options.JsonPath,
) -> None:
    rows = []
    with Progress(console=options.progress_console, transient=True) as progress:
        for count in threads:
            task = progress.add_task(f"{count} thread{'s' * (count > 1)}", total=6 * repeats)
            timings = measure_intervals(
                config, weights, size, count, repeats, partial(progress.advance, task)
            )
            rows += [_interval_row(timing, timings, count, config, size) for timing in timings]
    options.write_json(json_file, {"size": size, "intervals": rows})
    if str(json_file) == "-":
        return
    table = Table("runtime", box=None)
    for name in ("threads", "T", "ms per frame", "/ T = 1", "paper's", "multiply–accumulates'"):
        table.add_column(name, justify="right")
    for row in rows:
        ratios = [f"{row[name]:.3f}" for name in ("ratio", "paper_ratio", "macs_ratio")]
        cells = [str(row["threads"]), str(row["keyframe_interval"]), f"{1e3 * row['median']:.1f}", *ratios]
        table.add_row(row["runtime"], *cells)
    options.console.print(table)


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
