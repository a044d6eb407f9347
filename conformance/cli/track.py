"""`mobileinst track`: instances followed through a video."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from conformance.cli import options
from conformance.cli.job import Beside, Job, Unless
from conformance.cli.options import JsonFile
from conformance.cli.output_files import GIF, JSON, PNG, Output, Reads
from conformance.cli.terminal import coloured
from conformance.evaluation import ytvis
from conformance.judge.network import weights_hash
from conformance.pictures.picture import UNTRAINED, write_picture, write_results
from conformance.video import tracking as video_tracking
from conformance.video.frames import Video, open_video
from conformance.video.networks import NumpyNetwork, OnnxPair
from conformance.video.results import FRAMES, STATE, TrackLog, scene_ground_truth, video_results
from conformance.video.tracking import Tracking
from refimpl import MobileInst
from refimpl.association import METHODS
from refimpl.errors import ConfigurationError, MobileInstError
from refimpl.held_out import held_out_video
from refimpl.ops.operation import Array
from refimpl.scenes import LABELS, Oracle, Scene, make_scene, render_frame
from refimpl.tracker import KeyframeTensors, Network, Tracker
from refimpl.trained import DEFAULT

RESULTS, SHEET, ANIMATION, TRUTH = "results.json", "contact_sheet.png", "tracks.gif", "truth.json"
TEXTS = (RESULTS, TRUTH, FRAMES, STATE, video_tracking.RUN)
INTERRUPTED = 130
DEMO_SIZE, DEMO_SEED, DEMO_FRAMES = (192, 320), 4, 24
DEMO_VIDEO = 0


Count = Annotated[
    int | None, typer.Option("--count", min=1, help="Track the first so many frames only. Default: all.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--output", help="Folder for the files. Default: VIDEO's name + .tracks, here."),
]


@dataclass(frozen=True)
class Followed:
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


@dataclass(frozen=True, kw_only=True)
class TrackerOptions:
    """How instances are followed, and what is kept of them."""

    count: Count = None
    keyframe_interval: Annotated[
        int,
        typer.Option(
            "--keyframe-interval", metavar="T", help="A keyframe every T frames; 1: no kernel reuse."
        ),
    ] = 3
    method: Annotated[str, typer.Option("--method", help=f"Association: {' or '.join(METHODS)}.")] = "optimal"
    birth: Annotated[
        float, typer.Option("--birth", help="Score at a keyframe from which a track begins.")
    ] = 0.4
    death: Annotated[float, typer.Option("--death", help="Score at a keyframe below which a track ends.")] = (
        0.2
    )
    keep: Annotated[
        float, typer.Option("--keep", min=0, max=1, help="Keep results whose mean score is above this.")
    ] = 0.005
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the video in the output folder where it stopped.")
    ] = False
    animate: Annotated[bool, typer.Option("--animate", help=f"Also write {ANIMATION}, every frame.")] = False
    video_id: Annotated[int, typer.Option("--video-id", help="video_id in the results.")] = 1

    @property
    def tracking(self) -> Tracking:
        """How the video is followed, by a network that is not yet known (errors: those of `Tracker`)."""
        given = (self.keyframe_interval, self.method, self.birth, self.death)
        Tracker(given[0], method=given[1], birth=given[2], death=given[3])
        return Tracking(*given, "native", {})


@dataclass(frozen=True, kw_only=True)
class TrackedNetwork:
    """What follows: the NumPy network, or a pair of ONNX models."""

    network: options.NetworkOptions
    onnx: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--onnx",
            metavar="KEYFRAME REUSE",
            help="Two ONNX models, as mobileinst export --video writes them, in place of the NumPy network.",
        ),
        Reads(),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=0, help="Threads of ONNX Runtime. Default: its choice."),
        Beside("onnx"),
    ] = None

    @property
    def chosen(self) -> options.NetworkOptions:
        """The NumPy network."""
        return self.network if self.onnx else self.network.or_trained(DEFAULT)

    @property
    def remark(self) -> str:
        """What pictures say of untrained weights."""
        return "" if self.onnx or self.chosen.weights else UNTRAINED

    def load(self) -> _Network:
        """Return the network, what identifies it, and the size of its input if it has only one."""
        if self.onnx:
            return _onnx_network(self.onnx, self.threads or 0)
        return _numpy_network(self.chosen)


class Track:
    """Follow instances through a video: YouTube-VIS results, a contact sheet, and a table of the frames.

    On keyframes the whole network runs and its kernels are associated with the tracks; on the frames between
    only the backbone and the mask decoder, and the kernels are reused. Each frame is kept as soon as it is
    finished: after an interruption, or an unreadable frame, --resume goes on.
    With no network given, the trained set scenes-tiny is used, which knows rendered shapes only.
    Exits 0, 130 if interrupted, 2 on bad usage or input; with --demo --oracle 1 unless AP is 100.

    [bold]Examples[/bold]

      mobileinst track street.gif --count 24 --keyframe-interval 3 --weights mine.safetensors

      mobileinst track street.mp4 --onnx phone.keyframe.onnx phone.reuse.onnx --output street --resume

      mobileinst track --demo

      mobileinst track --demo --oracle
    """


@dataclass(frozen=True, kw_only=True)
class TrackJob(Job):
    """A video that is followed."""

    tracker: TrackerOptions
    output: Folder = None
    files: JsonFile

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the results go."""

    def outputs(self) -> list[Output]:
        """Return the folder and all that may be written in it; earlier results of this command are ours."""
        folder = self.folder
        ours = video_tracking.holds_run(folder)
        kinds = {SHEET: PNG, ANIMATION: GIF, **dict.fromkeys(TEXTS, JSON)}
        return [Output("--output", folder, None)] + [
            Output("--output", folder / name, kind, ours) for name, kind in kinds.items()
        ]

    @abstractmethod
    def begin(self) -> Followed:
        """Return what is tracked by what."""

    def run(self) -> int:
        """Follow the video, write the results, and print the frames."""
        followed = self.begin()
        try:
            error = _follow(followed)
            content = _write(followed, self.tracker)
        except KeyboardInterrupt:
            typer.echo(
                f"interrupted; {followed.tracker.state.frame} finished frames are kept in "
                f"{followed.log.folder}; the same command with --resume goes on",
                err=True,
            )
            return INTERRUPTED
        content |= self.evaluated(followed)
        if self.files.write(content):
            _show(followed, content)
        if error is not None:
            raise type(error)(
                f"{error}; the {len(content['frames'])} frames before it are kept in {followed.log.folder}"
            ) from error
        return self.code(content)

    def evaluated(self, followed: Followed) -> dict[str, Any]:
        """Return figures against the truth, if there is one."""
        return {}

    def code(self, content: dict[str, Any]) -> int:
        """Return the exit code."""
        return 0


@dataclass(frozen=True, kw_only=True)
class VideoTrack(TrackJob):
    """A video of the user's own."""

    doing = "a video (VIDEO)"

    video_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[VIDEO]",
            help="A folder of frames, a GIF, or a video file (extra 'video'). Not with --demo.",
        ),
        Reads(),
    ] = None
    using: TrackedNetwork
    sizing: Annotated[
        str | None,
        typer.Option(
            "--sizing",
            help="video (shorter side 360), image (640), phone (320×640) or native. "
            "Default: what the ONNX models take, else video.",
        ),
        Unless("size"),
    ] = None
    size: options.Size = None

    def check(self) -> None:
        """Refuse a missing video, and what a tracker refuses."""
        if self.video_path is None:
            raise ConfigurationError("give either a VIDEO to track or --demo")
        _ = self.tracker.tracking

    @property
    def folder(self) -> Path:
        """Where the results go."""
        assert self.video_path is not None
        return self.output or Path(f"{self.video_path.resolve().stem}.tracks")

    def begin(self) -> Followed:
        """Return the video, the network and the tracker as they were left, or anew."""
        assert self.video_path is not None
        drawn = not self.using.onnx and self.using.chosen.is_trained
        how = options.parse_size(self.size) or self.sizing or ("native" if drawn else None)
        with options.working("network"):
            video = open_video(self.video_path)
            network, identity, wanted = self.using.load()
            tracking = replace(self.tracker.tracking, sizing=how or wanted or "video", network=identity)
            followed = _begun(video, network, tracking, self.folder, self.tracker.count, self.tracker.resume)
        return replace(followed, names=LABELS if drawn else None, remark=self.using.remark)


@dataclass(frozen=True, kw_only=True)
class DemoJob(TrackJob):
    """A rendered video, whose truth is known."""

    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Track a held-out video with the trained network, and evaluate against its truth."
        ),
    ] = False

    @property
    @abstractmethod
    def scene(self) -> Scene:
        """What is seen."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.output or Path("demo.tracks")

    @property
    def frames(self) -> int:
        """How many frames are rendered."""
        return self.tracker.count or DEMO_FRAMES

    def check(self) -> None:
        """Refuse what a tracker refuses."""
        _ = self.tracker.tracking

    def evaluated(self, followed: Followed) -> dict[str, Any]:
        """Return the twelve figures against the scene's truth."""
        return {"stats": _evaluate_demo(followed, self.scene, self.tracker.video_id)}


@dataclass(frozen=True, kw_only=True)
class Demo(DemoJob):
    """A held-out video, followed by a network."""

    doing = "the demo (--demo)"
    chosen_by = ("demo",)

    using: TrackedNetwork

    @property
    def scene(self) -> Scene:
        """What is seen."""
        return held_out_video(DEMO_VIDEO)

    def begin(self) -> Followed:
        """Return the video, the network and the tracker as they were left, or anew."""
        network, identity, _ = self.using.load()
        tracking = replace(self.tracker.tracking, network=identity)
        video = _rendered(self.scene, self.frames)
        followed = _begun(video, network, tracking, self.folder, self.frames, self.tracker.resume)
        drawn = not self.using.onnx and self.using.chosen.is_trained
        return replace(followed, names=LABELS if drawn else None, remark=self.using.remark)


@dataclass(frozen=True, kw_only=True)
class OracleDemo(DemoJob):
    """An easier video, followed by kernels that know the truth."""

    doing = "the oracle's demo (--demo --oracle)"
    chosen_by = ("oracle",)

    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="With --demo: kernels that know the truth, on an easier scene."),
        Beside("demo"),
    ] = False

    @property
    def scene(self) -> Scene:
        """What is seen."""
        return make_scene(*DEMO_SIZE, DEMO_SEED)

    def begin(self) -> Followed:
        """Return the video, the oracle and the tracker as they were left, or anew."""
        knowing = _DemoNetwork(Oracle(self.scene, self.frames, stride=1))
        video = _rendered(self.scene, self.frames)
        followed = _begun(
            video, knowing, self.tracker.tracking, self.folder, self.frames, self.tracker.resume
        )
        knowing.frame = followed.tracker.state.frame
        return replace(followed, names=LABELS)

    def code(self, content: dict[str, Any]) -> int:
        """Return 1 unless the AP is 100."""
        return 1 if content["stats"]["AP"] < 1 - 1e-9 else 0


MODES = (OracleDemo, Demo, VideoTrack)


# What is tracked by what.

_Network = tuple[Network[Array], dict[str, Any], tuple[int, int] | None]
"""A network, what identifies it, and the size of its input if it has only one."""


def _begun(
    video: Video, network: Network[Array], tracking: Tracking, folder: Path, stop: int | None, resume: bool
) -> Followed:
    log = TrackLog(folder)
    state = video_tracking.begin(log, tracking, video, resume)
    if state is not None and stop is not None and state.frame > stop:
        raise ConfigurationError(
            f"{folder} has {state.frame} finished frames already, more than --count {stop}; "
            "give as many at least, or leave out --resume to start anew"
        )
    return Followed(video, network, tracking, tracking.tracker(state), log, stop)


def _numpy_network(chosen: options.NetworkOptions) -> _Network:
    """The network in float32."""
    config, weights = chosen.load()
    arrays = weights.astype(np.float32)
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


def _rendered(scene: Scene, frames: int) -> Video:
    return Video(
        Path("the rendered scene"),
        frames,
        lambda start: (render_frame(scene, index).picture for index in range(start, frames)),
        lambda index: f"frame {index} of the rendered scene",
    )


# Tracking.


def _follow(job: Followed) -> MobileInstError | None:
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


def _write(job: Followed, wanted: TrackerOptions) -> dict[str, Any]:
    """Write the results and the pictures of all finished frames; return what there is to tell."""
    folder = job.log.folder
    results = video_results(job.log, job.tracker.state, wanted.video_id, wanted.keep)
    write_results(folder / RESULTS, results)
    records = [
        {name: value for name, value in record.items() if name != "segmentations"}
        for record in job.log.records()
    ]
    chosen = video_tracking.evenly_chosen(len(records))
    draw = partial(video_tracking.drawn_frames, job.video, job.log, names=job.names, remark=job.remark)
    write_picture(folder / SHEET, video_tracking.contact_sheet(list(draw(chosen))))
    if wanted.animate:
        video_tracking.write_animation(folder / ANIMATION, draw())
    files = [RESULTS, SHEET, *([ANIMATION] if wanted.animate else [])]
    return {
        "video": str(job.video.path),
        "keyframe_interval": job.tracking.keyframe_interval,
        "instances": len(results),
        "files": [str(folder / name) for name in files],
        "frames": records,
    }


def _evaluate_demo(job: Followed, scene: Scene, video_id: int) -> dict[str, float]:
    """The twelve figures against the scene's truth."""
    path, truth = job.log.folder / TRUTH, scene_ground_truth([scene], job.tracker.state.frame)
    for video in truth["videos"]:
        video["id"] = video_id
    for annotation in truth["annotations"]:
        annotation["video_id"] = video_id
    options.write_json(path, truth)
    evaluation = ytvis.evaluate_files(path, job.log.folder / RESULTS)
    return dict(zip(ytvis.STATISTICS, evaluation.stats.tolist(), strict=True))


# What is printed.


def _show(job: Followed, content: dict[str, Any]) -> None:
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


def _row(record: dict[str, Any]) -> list[str | Text]:
    kernels = coloured("keyframe", "bold") if record["keyframe"] else "reused"
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
