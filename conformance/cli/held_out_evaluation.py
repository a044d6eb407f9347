"""`mobileinst evaluate scenes-val`: a network on the held-out scenes."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from conformance.cli import options
from conformance.evidence import held_out as measured
from conformance.evidence import held_out_rivals as rivals
from conformance.evidence import held_out_videos as followed
from conformance.evidence.carried_objects import Carried
from conformance.evidence.held_out import Figure, without_labels
from conformance.evidence.held_out_videos import Followed
from conformance.evidence.ways_of_tracking import Way
from conformance.files import atomic_write
from refimpl import MobileInst, held_out
from refimpl.association import METHODS
from refimpl.errors import ConfigurationError

Record = dict[str, Any]

WeightsFile = Annotated[
    Path, typer.Option("--weights", help="scenes-val: a trained set's name, or a file of weights.")
]
Videos = Annotated[bool, typer.Option("--videos", help="scenes-val: its videos, not its pictures.")]
Count = Annotated[int | None, typer.Option("--count", min=2, help="scenes-val: the first so many only.")]
Intervals = Annotated[
    list[int] | None,
    typer.Option("-T", "--keyframe-interval", min=1, help="scenes-val: repeatable. Default: 1, 3 and 6."),
]
Method = Annotated[str, typer.Option("--method", help=f"scenes-val: association, {' or '.join(METHODS)}.")]
DotProduct = Annotated[
    bool, typer.Option("--dot-product", help="scenes-val: associate by dot product in place of cosine.")
]
TrueAssociation = Annotated[
    bool,
    typer.Option(
        "--true-association", help="scenes-val: associate as the truth has it: what association costs."
    ),
]
Worst = Annotated[
    Path | None,
    typer.Option(
        "--worst", callback=options.writable, help="scenes-val: draw the twelve worst pictures, as PNG."
    ),
]
Deployment = Annotated[
    bool,
    typer.Option(
        "--deployment",
        help="scenes-val: its pictures in float16, in int8, whole and by part, and with known mistakes.",
    ),
]
Write = Annotated[
    Path | None, typer.Option("--write", help="scenes-val: a folder for truth and results, as JSON.")
]


def evaluate(
    network: MobileInst,
    name: str,
    ways: Sequence[Way],
    count: int | None,
    folder: Path | None,
    json_file: Path | None,
) -> None:
    """Measure a network on the split's pictures, or on its videos if there are ``ways`` of tracking."""
    whole = held_out.VIDEOS if ways else held_out.PICTURES
    _check_split(network, count, whole)
    measure = _videos if ways else _pictures
    rows, truth, results = measure(network, count or whole, ways)
    _write(folder, truth, results)
    content = {"split": held_out.NAME, "weights": name, "count": count or whole, "rows": rows}
    options.write_json(json_file, content)
    if str(json_file) != "-":
        _print(rows, content)


def _check_split(network: MobileInst, count: int | None, whole: int) -> None:
    if network.config.num_classes != len(measured.CATEGORIES):
        raise ConfigurationError(
            f"{held_out.NAME} has {len(measured.CATEGORIES)} classes, not {network.config.num_classes}; "
            "give weights that were trained on scenes"
        )
    if count is not None and count > whole:
        raise ConfigurationError(f"--count {count}: {held_out.NAME} has {whole}")


def _pictures(
    network: MobileInst, count: int, ways: Sequence[Way]
) -> tuple[list[Record], Record, dict[str, Any]]:
    with options.progress_console.status(f"{count} pictures"):
        truth, results = measured.picture_truth(count), measured.picture_results(network, count)
        rows = []
        for labels in (True, False):
            pair = (truth, results) if labels else (without_labels(truth), without_labels(results))
            figures = measured.picture_figures(*pair)
            rows.append(_row("pictures", labels, measured.picture_precision(*pair), figures))
    return rows, truth, {"results": results}


def _videos(
    network: MobileInst, count: int, ways: Sequence[Way]
) -> tuple[list[Record], Record, dict[str, Any]]:
    with Progress(console=options.progress_console, transient=True) as progress:
        task = progress.add_task("videos", total=count)
        by_way = followed.follow_videos(network, ways, count, progress=lambda: progress.advance(task))
    truth = measured.video_truth(count)
    seconds = followed.seconds_per_frame(network, [way.keyframe_interval for way in ways])
    rows = [
        row
        for way, found in by_way.items()
        for row in _video_rows(way, found, truth, seconds[way.keyframe_interval])
    ]
    return rows, truth, {f"results.T{way.keyframe_interval}": f.results for way, f in by_way.items()}


def _video_rows(way: Way, found: Followed, truth: Record, seconds: float) -> list[Record]:
    """With labels and without: the figures of one way of tracking."""
    carried = sum(found.carried, Carried())
    more = {**asdict(way), **asdict(carried), "shares": carried.shares(), "seconds_per_frame": seconds}
    rows = []
    for labels in (True, False):
        pair = (truth, found.results) if labels else (without_labels(truth), without_labels(found.results))
        figures, precision = measured.video_precision(*pair)
        rows.append(_row(f"T = {way.keyframe_interval}", labels, precision, figures) | more)
    return rows


def _row(what: str, labels: bool, precision: Figure, figures: Record) -> Record:
    interval = [precision.low, precision.high]
    return {"what": what, "labels": labels, "AP": precision.value, "interval": interval, **figures}


def evaluate_rivals(network: MobileInst, name: str, count: int, json_file: Path | None) -> None:
    """AP of every tracker of Table 2, on the oracle's detections, on worse ones, and on the network's."""
    _check_split(network, count, held_out.VIDEOS)
    truth, rows = measured.video_truth(count), []
    with Progress(console=options.progress_console, transient=True) as progress:
        for source in rivals.sources(network):
            task = progress.add_task(source.name, total=count)
            found = rivals.rival_results(source, count, functools.partial(progress.advance, task))
            for names, results in found.items():
                figures, precision = measured.video_precision(truth, results)
                row = {"results": len(results), **_row(source.name, True, precision, figures)}
                rows += [{"tracker": name, **row} for name in names.split(", ")]
    options.write_json(json_file, {"split": held_out.NAME, "weights": name, "count": count, "rows": rows})
    if str(json_file) != "-":
        typer.echo(rivals_markdown(rows), nl=False)


def rivals_markdown(rows: Sequence[Record]) -> str:
    """Write AP by tracker and source as Markdown."""
    columns = list(dict.fromkeys(row["what"] for row in rows))
    lines = [f"| AP [95 %] | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for tracker in dict.fromkeys(row["tracker"] for row in rows):
        figures = [Figure(row["AP"], *row["interval"]) for row in rows if row["tracker"] == tracker]
        lines.append(f"| {tracker} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines) + "\n"


def draw_worst(network: MobileInst, count: int, path: Path) -> None:
    """Draw the pictures that the network does worst on."""
    from conformance.evidence.worst import worst_pictures
    from conformance.pictures.picture import write_picture

    with options.progress_console.status("worst pictures"):
        sheet, indices = worst_pictures(network, count)
        write_picture(path, sheet)
    options.console.print(f"worst pictures in {path}: {', '.join(map(str, indices))}", highlight=False)


def evaluate_deployment(network: MobileInst, name: str, count: int, json_file: Path | None) -> None:
    """What each way of deploying the network costs in AP and in decisions, beside the judge's verdict."""
    from conformance.evidence.deployment import Deployment as Deployed

    with options.progress_console.status("exporting") as status:
        deployment, rows = Deployed(network, count), []
        for model, make in deployment.models():
            status.update(model)
            rows.append(asdict(deployment.measure(model, make())))
    options.write_json(json_file, {"split": held_out.NAME, "weights": name, "count": count, "rows": rows})
    if str(json_file) != "-":
        _print_deployment(rows)


def _print_deployment(rows: Sequence[Record]) -> None:
    columns = ("AP", "no labels", "flipped", "pixels", "verdict", "first wrong step", "looks like")
    table = Table("model", *columns, box=None, pad_edge=False)
    for row in rows:
        precisions = [f"{100 * row[key]['value']:.1f}" for key in ("labelled", "unlabelled")]
        flipped = f"{row['flipped']} of {row['instances']}"
        judged = (row["verdict"], row["blamed"], row["diagnosis"])
        table.add_row(row["name"], *precisions, flipped, f"{100 * row['pixels']:.2f} %", *judged)
    options.console.print(table)


def _write(folder: Path | None, truth: Record, results: dict[str, Any]) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"truth": truth, **results}.items():
        with atomic_write(folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _print(rows: Sequence[Record], content: Record) -> None:
    options.console.print(
        f"{content['split']}, {content['count']} of it, {content['weights']}", highlight=False
    )
    names = list(rows[0]["named"])
    tracking = ("kept", "held", "handed", "of it kept", "moved", "ms/frame")
    columns = tracking if "shares" in rows[0] else ()
    table = Table("", "labels", "AP [95 %]", *names[1:], *columns, box=None, pad_edge=False)
    for row in rows:
        low, high = row["interval"]
        figures = [f"{100 * value:.1f}" if value >= 0 else "–" for value in row["named"].values()]
        more = _tracking(row) if columns else []
        interval = f"{figures[0]} [{100 * low:.1f}, {100 * high:.1f}]"
        table.add_row(row["what"], "yes" if row["labels"] else "no", interval, *figures[1:], *more)
    options.console.print(table)


def _tracking(row: Record) -> list[str]:
    """The cells of a video's row that say what association did, and what a frame takes."""
    shares = [f"{100 * share:.1f}" for share in row["shares"].values()]
    return [*shares, f"{1000 * row['seconds_per_frame']:.1f}"]
