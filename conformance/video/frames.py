"""Frames of a video one after another: a folder of pictures, an animation Pillow reads, or a video file."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conformance.limits import MOST_PIXELS
from conformance.pictures.picture import FORMATS, read_picture
from refimpl.errors import FileError, MissingDependencyError, ShapeError

Array = NDArray[Any]


@dataclass(frozen=True)
class Video:
    """A video that can be read from any frame on, one frame in memory at a time.

    Attributes
    ----------
    path : Path
    count : int or None
        Number of frames as the file states it; None if it does not.
    decode : callable
        First frame wanted → iterator of (H, W, 3) uint8.
    name : callable
        Index of a frame → what to call it in an error.
    """

    path: Path
    count: int | None
    decode: Callable[[int], Iterator[Array]]
    name: Callable[[int], str]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Array]:
        """Yield frames ``start`` … ``stop`` − 1, or to the end, each (H, W, 3) uint8 RGB.

        Raises
        ------
        FileError
            There is no frame at all, or one cannot be read; names file and index.
        ShapeError
            A frame is not of the size of the frames before.
        """
        index, size = start, None
        for picture in self._decoded(start, stop):
            size = size or picture.shape
            if picture.shape != size:
                raise ShapeError(
                    f"{self.name(index)} is {picture.shape[0]}×{picture.shape[1]}, the frames before it "
                    f"{size[0]}×{size[1]}; the frames of a video have one size"
                )
            yield picture
            index += 1
        if index == 0:
            raise FileError(f"{self.path} holds no frame; give a video, a GIF or a folder of pictures")

    def _decoded(self, start: int, stop: int | None) -> Iterator[Array]:
        """The frames as they are; whatever a decoder raises becomes a `FileError` with the frame's index."""
        index, decoder = start, self.decode(start)
        while index != stop:
            try:
                picture = next(decoder)
            except StopIteration:
                return
            # Pillow's and FFmpeg's decoders raise whatever a broken byte leads them to.
            except Exception as error:
                reason = " ".join(str(error).split())
                stop_before = f", or stop before it with --count {index}" if index else ""
                raise FileError(
                    f"{self.name(index)} cannot be read ({reason}); write it again{stop_before}"
                ) from error
            yield picture
            index += 1


def open_video(path: str | os.PathLike[str]) -> Video:
    """Open a folder of pictures, an animation or a picture (Pillow), or a video file (PyAV).

    Pictures of a folder are taken in the order of their names, numbers in names by their value; files that
    are no pictures by their suffix, and hidden ones, are passed over.

    Raises
    ------
    FileError
        There is nothing there, or nothing that can be read.
    MissingDependencyError
        A video file, and PyAV is not installed.
    """
    place = Path(path)
    if place.is_dir():
        return _folder(place)
    if not place.is_file() or not os.access(place, os.R_OK):
        raise FileError(f"there is no readable video {path}; give a file or a folder of pictures")
    if not place.stat().st_size:
        raise FileError(f"{path} is empty; give a whole file")
    return _animation(place) if place.suffix.lower() in picture_suffixes() else _film(place)


def picture_suffixes() -> set[str]:
    """Return the suffixes of files that are pictures."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}


def _folder(folder: Path) -> Video:
    suffixes = picture_suffixes()
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != "."]
    pictures.sort(key=lambda path: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)])
    if not pictures:
        raise FileError(f"{folder} holds no picture; give a folder of frames")
    return Video(
        folder,
        len(pictures),
        lambda start: (read_picture(path) for path in pictures[start:]),
        lambda index: f"frame {index}, {pictures[index]},",
    )


def _animation(path: Path) -> Video:
    try:
        with _opened(path) as picture:
            count = int(getattr(picture, "n_frames", 1))
    # As in `read_picture`: what a broken header raises is not documented.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{path} is not a readable animation ({reason}); give a whole file") from error
    return Video(path, count, lambda start: _seek_frames(path, start, count), _named(path))


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def _seek_frames(path: Path, start: int, count: int) -> Iterator[Array]:
    with _opened(path) as picture:
        for index in range(start, count):
            picture.seek(index)
            _check_pixels(*picture.size)
            yield np.array(picture.convert("RGB"))


def _check_pixels(width: int, height: int) -> None:
    """Raise `ValueError`, which becomes the frame's error, if a frame is too large to decode."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"{height}×{width} pixels are more than {MOST_PIXELS}; make it smaller")


CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ivf,ogg,asf,mxf,dv,nut"
)
"""FFmpeg's demuxers that read the one file they are given: playlists name others, on the network too."""


def _container(path: Path) -> Any:
    # FFmpeg itself reads "concat:…" or "http://…" where a file's name stands.
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    return _import_av().open(f"file:{os.fspath(path)}", options=options, metadata_errors="replace")


def _film(path: Path) -> Video:
    _import_av()
    try:
        with _container(path) as container:
            if not container.streams.video:
                raise FileError(f"{path} has no moving pictures; give a video")
            stream = container.streams.video[0]
            count = stream.frames or None
            _check_pixels(stream.width, stream.height)
    except FileError:
        raise
    # FFmpeg's own errors, and what text that is none leads PyAV to.
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise FileError(f"{path} is not a readable video ({reason}); give a whole file") from error
    return Video(path, count, lambda start: _decoded_film(path, start), _named(path))


def _decoded_film(path: Path, start: int) -> Iterator[Array]:
    """Every frame is decoded, since one may build on all before it; only the wanted ones are converted."""
    with _container(path) as container:
        for index, frame in enumerate(container.decode(video=0)):
            # The decoder fills in what is missing, which would be tracked as if it had been seen.
            if frame.is_corrupt:
                raise ValueError("the decoder calls it corrupt")
            _check_pixels(frame.width, frame.height)
            if index >= start:
                yield frame.to_ndarray(format="rgb24")


def _named(path: Path) -> Callable[[int], str]:
    return lambda index: f"{path}: frame {index}"


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "video files need PyAV; install the extra 'video': pip install 'mobileinst-reference[video]', "
            "or give a GIF or a folder of frames"
        ) from error
    return av
