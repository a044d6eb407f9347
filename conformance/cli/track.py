"""`mobileinst track`: instances followed through a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from conformance.cli import options
from conformance.evaluation import ytvis
from conformance.judge.network import weights_hash
from conformance.pictures.picture import UNTRAINED, write_picture, write_results
from conformance.video import tracking as video_tracking
from conformance.video.frames import Video, open_video
from conformance.video.networks import NumpyNetwork, OnnxPair
from conformance.video.results import TrackLog, scene_ground_truth, video_results
from conformance.video.tracking import Tracking
from refimpl import MobileInst
from refimpl.association import METHODS
from refimpl.errors import ConfigurationError, MobileInstError
from refimpl.held_out import held_out_video
from refimpl.inference import Sizing
from refimpl.ops.operation import Array
from refimpl.scenes import LABELS, Oracle, Scene, make_scene, render_frame
from refimpl.tracker import KeyframeTensors, Network, Tracker
from refimpl.trained import VIDEO

RESULTS, SHEET, ANIMATION = "results.json", "contact_sheet.png", "tracks.gif"
INTERRUPTED = 130
DEMO_SIZE, DEMO_SEED, DEMO_FRAMES = (192, 320), 4, 24
DEMO_VIDEO = 0


@dataclass(frozen=True)
class Job:
    """What is tracked by what, and where it is written."""

    video: Video
    network: Network[Array]
    tracking: Tracking
    tracker: Tracker
    log: TrackLog
    stop: int | None
    names: Sequence[str] | None = None
    remark: str = ""

    @property
    def frames(self) -> int | None:
        """Number of frames to be finished; None if the video does not say."""
        known = [count for count in (self.video.count, self.stop) if count is not None]
        return min(known, default=None)


def track(
    context: typer.Context,
    video_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[VIDEO]",
            help="A folder of frames, a GIF, or a video file (extra 'video'). Not with --demo.",
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Track the first frames only. Default: all.")
    ] = None,
    keyframe_interval: Annotated[
        int,
        typer.Option(
            "--keyframe-interval", metavar="T", help="A keyframe every T frames; 1: no kernel reuse."
        ),
    ] = 3,
    method: Annotated[
        str, typer.Option("--method", help=f"Association: {' or '.join(METHODS)}.")
    ] = "optimal",
    birth: Annotated[
        float, typer.Option("--birth", help="Score at a keyframe from which a track begins.")
    ] = 0.4,
    death: Annotated[
        float, typer.Option("--death", help="Score at a keyframe below which a track ends.")
    ] = 0.2,
    keep: Annotated[
        float, typer.Option("--keep", min=0, max=1, help="Keep results whose mean score is above this.")
    ] = 0.005,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for the files. Default: VIDEO's name + .tracks, here."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the video in the output folder where it stopped.")
    ] = False,
    animate: Annotated[bool, typer.Option("--animate", help=f"Also write {ANIMATION}, every frame.")] = False,
    model: options.Model = options.DEFAULT_MODEL,
    overrides: options.Set = None,
    weights: options.WeightsFile = None,
    backbone_weights: options.BackboneFile = None,
    seed: options.Seed = 0,
    onnx: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--onnx",
            metavar="KEYFRAME REUSE",
            help="Two ONNX models, as mobileinst export --video writes them, in place of the NumPy network.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="Threads of ONNX Runtime; 0: its choice.")
    ] = 0,
    sizing: Annotated[
        str | None,
        typer.Option(
            "--sizing",
            help="video (shorter side 360), image (640), phone (320×640) or native. "
            "Default: what the ONNX models take, else video.",
        ),
    ] = None,
    size: options.Size = None,
    video_id: Annotated[int, typer.Option("--video-id", help="video_id in the results.")] = 1,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Track a held-out video with the trained network, and evaluate against its truth."
        ),
    ] = False,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="With --demo: kernels that know the truth, on an easier scene."),
    ] = False,
    json_file: options.Json = None,
) -> None:
    """Follow instances through a video: YouTube-VIS results, a contact sheet, and a table of the frames.

    On keyframes the whole network runs and its kernels are associated with the tracks; on the frames between
    only the backbone and the mask decoder, and the kernels are reused. Each frame is kept as soon as it is
    finished: after an interruption, or an unreadable frame, --resume goes on.
    With no network given, the trained set scenes-tiny-video is used, which knows rendered shapes only.
    Exits 0, 130 if interrupted, 2 on bad usage or input; with --demo --oracle 1 unless AP is 100.

    [bold]Examples[/bold]

      mobileinst track street.gif --frames 24 --keyframe-interval 3 --weights mine.safetensors

      mobileinst track street.mp4 --onnx phone.keyframe.onnx phone.reuse.onnx --output street --resume

      mobileinst track --demo

      mobileinst track --demo --oracle
    """
    if demo == (video_path is not None):
        raise ConfigurationError("give either a VIDEO to track or --demo")
    if oracle and not demo:
        raise ConfigurationError("--oracle knows the truth of the demo's scene only; give --demo too")
    weights = weights or options.trained_by_default(context, VIDEO)
    # Before any work: what a tracker refuses.
    Tracker(keyframe_interval, method=method, birth=birth, death=death)
    tracking = Tracking(keyframe_interval, method, birth, death, "native", {})

    def network() -> _Network:
        if onnx:
            return _onnx_network(onnx, threads)
        return _numpy_network(model, overrides, weights, backbone_weights, seed)

    drawn = oracle or options.names_trained(weights)
    scene = make_scene(*DEMO_SIZE, DEMO_SEED) if oracle else held_out_video(DEMO_VIDEO)
    if video_path is None:
        job = _demo_job(scene, oracle, network, tracking, frames or DEMO_FRAMES, output, resume)
    else:
        how = options.parse_size(size) or sizing or ("native" if drawn else None)
        job = _video_job(video_path, network, tracking, how, frames, output, resume)
    remark = "" if drawn or weights or onnx else UNTRAINED
    job = replace(job, names=LABELS if drawn else None, remark=remark)
    try:
        error = _follow(job)
        content = _write(job, video_id, keep, animate)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; {job.tracker.state.frame} finished frames are kept in {job.log.folder}; "
            "the same command with --resume goes on",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if demo:
        content["stats"] = _evaluate_demo(job, scene)
    options.write_json(json_file, content)
    if str(json_file) != "-":
        _show(job, content)
    if error is not None:
        raise type(error)(
            f"{error}; the {len(content['frames'])} frames before it are kept in {job.log.folder}"
        ) from error
    raise typer.Exit(1 if oracle and content["stats"]["AP"] < 1 - 1e-9 else 0)


# What is tracked by what.

_Network = tuple[Network[Array], dict[str, Any], tuple[int, int] | None]
"""A network, what identifies it, and the size of its input if it has only one."""


def _job(
    video: Video, network: Network[Array], tracking: Tracking, folder: Path, stop: int | None, resume: bool
) -> Job:
    log = TrackLog(folder)
    state = video_tracking.begin(log, tracking, video, resume)
    if state is not None and stop is not None and state.frame > stop:
        raise ConfigurationError(
            f"{folder} has {state.frame} finished frames already, more than --frames {stop}; "
            "give as many at least, or leave out --resume to start anew"
        )
    return Job(video, network, tracking, tracking.tracker(state), log, stop)


def _numpy_network(
    model: str, overrides: list[str] | None, weights: Path | None, backbone: Path | None, seed: int
) -> _Network:
    """The network in float32."""
    config = options.configuration(model, overrides, weights)
    arrays = options.load_weights(config, weights, backbone, seed).astype(np.float32)
    identity = {"config": asdict(config), "weights_sha256": weights_hash(arrays)}
    return NumpyNetwork(MobileInst(config, arrays)), identity, None


def _onnx_network(paths: tuple[Path, Path], threads: int) -> _Network:
    """The pair of models."""
    pair = OnnxPair(*paths, threads)
    return pair, {"onnx_sha256": [sha256(path.read_bytes()).hexdigest() for path in paths]}, pair.size


class _DemoNetwork:
    """The oracle of a scene, driven by pictures it does not look at."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle, self.frame = oracle, 0

    def _next(self) -> int:
        self.frame += 1
        return self.frame - 1

    def keyframe(self, frame: Array) -> KeyframeTensors:
        """All tensors of the next frame."""
        return self.oracle.keyframe(self._next())

    def mask_features(self, frame: Array) -> Array:
        """Mask features of the next frame."""
        return self.oracle.mask_features(self._next())


def _demo_job(
    scene: Scene,
    oracle: bool,
    network: Callable[[], _Network],
    tracking: Tracking,
    frames: int,
    output: Path | None,
    resume: bool,
) -> Job:
    video = Video(
        Path("the rendered scene"),
        frames,
        lambda start: (render_frame(scene, index).picture for index in range(start, frames)),
        lambda index: f"frame {index} of the rendered scene",
    )
    folder = output or Path("demo.tracks")
    if not oracle:
        used, identity, _ = network()
        return _job(video, used, replace(tracking, network=identity), folder, frames, resume)
    knowing = _DemoNetwork(Oracle(scene, frames, stride=1))
    job = _job(video, knowing, tracking, folder, frames, resume)
    knowing.frame = job.tracker.state.frame
    return job


def _video_job(
    path: Path,
    network: Callable[[], _Network],
    tracking: Tracking,
    sizing: Sizing | None,
    frames: int | None,
    output: Path | None,
    resume: bool,
) -> Job:
    with options.progress_console.status("network"):
        video = open_video(path)
        used, identity, wanted = network()
        tracking = replace(tracking, sizing=sizing or wanted or "video", network=identity)
        folder = output or Path(f"{video.path.resolve().stem}.tracks")
        return _job(video, used, tracking, folder, frames, resume)


# Tracking.


def _follow(job: Job) -> MobileInstError | None:
    """Track what is left of the video; a frame that cannot be read ends it; returns its error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=options.progress_console, transient=True) as progress:
        task = progress.add_task("tracking", total=job.frames, completed=job.tracker.state.frame)
        try:
            video_tracking.track(
                job.video,
                job.network,
                job.tracker,
                job.tracking,
                job.log,
                job.stop,
                lambda record: progress.advance(task),
            )
        except MobileInstError as error:
            if not job.tracker.state.frame:
                raise
            return error
    return None


def _write(job: Job, video_id: int, keep: float, animate: bool) -> dict[str, Any]:
    """Write the results and the pictures of all finished frames; return what there is to tell."""
    folder = job.log.folder
    results = video_results(job.log, job.tracker.state, video_id, keep)
    write_results(folder / RESULTS, results)
    records = [
        {name: value for name, value in record.items() if name != "segmentations"}
        for record in job.log.records()
    ]
    chosen = video_tracking.evenly_chosen(len(records))
    draw = partial(video_tracking.drawn_frames, job.video, job.log, names=job.names, remark=job.remark)
    write_picture(folder / SHEET, video_tracking.contact_sheet(list(draw(chosen))))
    if animate:
        video_tracking.write_animation(folder / ANIMATION, draw())
    files = [RESULTS, SHEET, *([ANIMATION] if animate else [])]
    return {
        "video": str(job.video.path),
        "keyframe_interval": job.tracking.keyframe_interval,
        "instances": len(results),
        "files": [str(folder / name) for name in files],
        "frames": records,
    }


def _evaluate_demo(job: Job, scene: Scene) -> dict[str, float]:
    """The twelve figures against the scene's truth."""
    truth = job.log.folder / "truth.json"
    options.write_json(truth, scene_ground_truth([scene], job.tracker.state.frame))
    evaluation = ytvis.evaluate_files(truth, job.log.folder / RESULTS)
    return dict(zip(ytvis.STATISTICS, evaluation.stats.tolist(), strict=True))


# What is printed.


def _show(job: Job, content: dict[str, Any]) -> None:
    table = Table("frame", "kernels", box=None, pad_edge=False)
    for name in ("tracks", "margin", "least track margin", "ms"):
        table.add_column(name, justify="right")
    for record in content["frames"]:
        table.add_row(*_row(record))
    options.console.print(table)
    for name, records in _by_kind(content["frames"]).items():
        milliseconds = 1e3 * float(np.mean([record["seconds"] for record in records]))
        options.console.print(f"{len(records)} {name} frames, {milliseconds:.0f} ms each", highlight=False)
    options.console.print(
        f"{content['instances']} instances and {len({t for r in content['frames'] for t in r['tracks']})} "
        f"online tracks in {', '.join(content['files'])}",
        highlight=False,
    )
    if "stats" in content:
        figures = (f"{name} {100 * value:.1f}" for name, value in content["stats"].items() if value >= 0)
        options.console.print("Against the scene's truth: " + ", ".join(figures), highlight=False)


def _row(record: dict[str, Any]) -> list[str]:
    kernels = "[bold]keyframe[/bold]" if record["keyframe"] else "reused"
    least = min((margin for margin in record["track_margins"] if margin is not None), default=None)
    margins = ["-" if margin is None else f"{margin:.2g}" for margin in (record["margin"], least)]
    return [
        str(record["frame"]),
        kernels,
        str(len(record["tracks"])),
        *margins,
        f"{1e3 * record['seconds']:.0f}",
    ]


def _by_kind(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    kinds = {"keyframe": True, "reused": False}
    grouped = {
        name: [record for record in records if record["keyframe"] is kind] for name, kind in kinds.items()
    }
    return {name: group for name, group in grouped.items() if group}
