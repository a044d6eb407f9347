"""Tracking a whole video: frames in, finished frames logged, results and pictures out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from conformance.files import atomic_write
from conformance.json_files import read_json
from conformance.pictures.picture import draw_masks
from conformance.video.frames import Video
from conformance.video.results import TrackLog, picture_masks
from refimpl.errors import ConfigurationError
from refimpl.inference import Sizing, place, preprocess
from refimpl.tracker import Network, Tracker, TrackerState

Array = NDArray[Any]
Record = dict[str, Any]
RUN = "run.json"
SHEET_FRAMES = 12
TILE_SIDE = 480
SHEET_ASPECT = 1.5


@dataclass(frozen=True)
class Tracking:
    """How a video is to be tracked.

    Attributes
    ----------
    keyframe_interval, method, birth, death
        As of `Tracker`.
    sizing
        How frames become the network's input.
    network
        What identifies the network: names and digests.
    """

    keyframe_interval: int
    method: str
    birth: float
    death: float
    sizing: Sizing
    network: dict[str, Any]

    def tracker(self, state: TrackerState | None) -> Tracker:
        """Return a tracker that goes on from a state.

        Raises
        ------
        ConfigurationError
        """
        return Tracker(
            self.keyframe_interval, method=self.method, birth=self.birth, death=self.death, state=state
        )


def begin(log: TrackLog, tracking: Tracking, video: Video, resume: bool) -> TrackerState | None:
    """Prepare the folder of the log, and return the state to go on from.

    The folder notes how the video is tracked, and its first frame; only the same video tracked in the same
    way can be resumed.

    Raises
    ------
    ConfigurationError
        What is to be resumed differs from what was begun; names the differences.
    FileError, ShapeError
        The video or the folder cannot be read.
    """
    run = _described(tracking, video)
    path = log.folder / RUN
    if resume and path.exists():
        _require_same(path, read_json(path), run)
        return log.resume()
    log.begin()
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    return None


def holds_run(folder: Path) -> bool:
    """Tell whether a folder holds a run that `begin` noted."""
    try:
        noted = json.loads((folder / RUN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(noted, dict) and {"keyframe_interval", "first_frame"} <= noted.keys()


def _described(tracking: Tracking, video: Video) -> Record:
    """What must not change between the parts of a run."""
    first = next(video.frames(stop=1))
    place(first.shape[0], first.shape[1], tracking.sizing)
    described: Record = json.loads(json.dumps(vars(tracking)))
    return {**described, "first_frame": hashlib.sha256(first.tobytes()).hexdigest(), "size": first.shape[:2]}


def _require_same(path: Path, before: Any, now: Record) -> None:
    now = json.loads(json.dumps(now))
    kept = before if isinstance(before, dict) else {}
    differing = [name for name, value in now.items() if kept.get(name) != value]
    if differing:
        told = "; ".join(f"{name}: {kept.get(name)} then, {now[name]} now" for name in differing)
        raise ConfigurationError(
            f"{path} was begun differently ({told}); give the same options, "
            "or leave out --resume to start anew"
        )


def track(
    video: Video,
    network: Network[Array],
    tracker: Tracker,
    tracking: Tracking,
    log: TrackLog,
    stop: int | None = None,
    finished: Callable[[Record], None] = lambda record: None,
) -> None:
    """Track the frames from the tracker's next one on, each logged as soon as it is finished.

    Parameters
    ----------
    stop : int or None
        The frame to stop before; None goes on to the end.
    finished : callable
        Called with the record of each finished frame.

    Raises
    ------
    FileError, ShapeError, NonFiniteError
        The log has all frames before the one that is named.
    """
    for picture in video.frames(tracker.state.frame, stop):
        images, placement = preprocess(picture, tracking.sizing, np.float32)
        start = time.perf_counter()
        if tracker.keyframe_due:
            tracked = tracker.keyframe(network.keyframe(images))
        else:
            tracked = tracker.reuse(network.mask_features(images))
        seconds = time.perf_counter() - start
        masks = picture_masks(tracked.mask_logits, placement)
        finished(log.append(tracked, masks, tracker.state, seconds))


# Pictures.


def evenly_chosen(count: int, wanted: int = SHEET_FRAMES) -> list[int]:
    """Return up to ``wanted`` frames of ``count``, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()))


def drawn_frames(
    video: Video,
    log: TrackLog,
    chosen: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    remark: str = "",
) -> Iterator[Array]:
    """Yield the frames of the log, or the chosen ones, with the living tracks drawn over them.

    A track has one colour throughout, which its identity decides. Frames wider or higher than `TILE_SIDE`
    are drawn smaller. With ``names``, one for each label, captions say what an instance is; ``remark`` is
    written beside the frame's number.
    """
    wanted = None if chosen is None else set(chosen)
    for record in _with_pictures(video, log):
        if wanted is None or record[0]["frame"] in wanted:
            yield _drawn(*record, names, remark)


def _with_pictures(video: Video, log: TrackLog) -> Iterator[tuple[Record, Array]]:
    pictures = video.frames()
    for record in log.records():
        yield record, next(pictures)


def _drawn(record: Record, picture: Array, names: Sequence[str] | None = None, remark: str = "") -> Array:
    tracks = zip(record["tracks"], record["slots"], record["scores"], record["labels"], strict=True)
    shown = [
        (score, identity, record["segmentations"][slot], f"{names[label]} " if names else "")
        for identity, slot, score, label in tracks
        if record["segmentations"][slot] is not None
    ]
    shown.sort(key=lambda track: track[:2])
    # Captions would be too small to read if they were drawn before.
    tile = _tile(picture)
    masks = np.zeros((len(shown), *tile.shape[:2]), bool)
    for mask, (_, _, rle, _) in zip(masks, shown, strict=True):
        whole = Image.fromarray(coco_mask.decode([rle])[:, :, 0])
        mask[:] = np.asarray(whole.resize((tile.shape[1], tile.shape[0]), Image.Resampling.NEAREST))
    captions = [f"{identity} {name}{score:.2f}" for score, identity, _, name in shown]
    drawn = draw_masks(tile, masks, [identity for _, identity, _, _ in shown], captions)
    said = [f"frame {record['frame']}", "keyframe" if record["keyframe"] else "reused", remark]
    return _captioned(drawn, ", ".join(word for word in said if word))


def _tile(picture: Array) -> Array:
    image = Image.fromarray(picture)
    image.thumbnail((TILE_SIDE, TILE_SIDE))
    return np.asarray(image)


def _captioned(picture: Array, text: str) -> Array:
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    pen.text((4, picture.shape[0] - 4), text, anchor="ls", fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(canvas)


def contact_sheet(pictures: Sequence[Array]) -> Array:
    """Lay pictures of one size out in rows, (H, W, 3) uint8 each, on one sheet of about 3:2."""
    height, width = pictures[0].shape[:2]
    columns = min(range(1, len(pictures) + 1), key=lambda n: _distance(n, len(pictures), width / height))
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _distance(columns: int, count: int, aspect: float) -> float:
    """How far a sheet of that many columns is from the wanted aspect ratio."""
    return float(abs(np.log(columns * aspect / -(-count // columns) / SHEET_ASPECT)))


def write_animation(path: Path, pictures: Iterator[Array], milliseconds: int = 100) -> None:
    """Write pictures as an endlessly repeated GIF.

    Raises
    ------
    FileError
        The place cannot be written.
    """
    images = (Image.fromarray(picture) for picture in pictures)
    first = next(images)
    with atomic_write(path) as temporary:
        first.save(
            temporary, format="GIF", save_all=True, append_images=images, duration=milliseconds, loop=0
        )
