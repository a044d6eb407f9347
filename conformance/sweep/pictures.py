"""The pictures of a sweep, in order: a folder's, a video's frames, those of a COCO ground truth."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from conformance.evaluation import coco
from conformance.json_files import read_json
from conformance.pictures.picture import read_picture
from conformance.reports.printable import printable
from conformance.video.frames import Video, open_video, picture_suffixes
from refimpl.errors import FileError, MobileInstError
from refimpl.ops.operation import Array

CHUNK = 8
"""Pictures that are judged in one go, and whose rows are one part of the results."""


@dataclass(frozen=True)
class Picture:
    """One picture of a sweep.

    Attributes
    ----------
    name
        What the rows call it.
    path
        The file that a worker reads; None for a frame.
    pixels
        (H, W, 3) uint8, of a frame, which is decoded once and sent.
    image_id
        The ground truth's.
    fault
        Why a frame cannot be read.
    """

    name: str
    path: Path | None = None
    pixels: Array | None = None
    image_id: int | None = None
    fault: str = ""

    def read(self) -> Array:
        """Return (H, W, 3) uint8 (errors: those of `read_picture`)."""
        if self.fault:
            raise FileError(self.fault)
        if self.pixels is not None:
            return self.pixels
        assert self.path is not None
        return read_picture(self.path)


@dataclass(frozen=True)
class Chunk:
    """Pictures that are judged in one go.

    Attributes
    ----------
    place
        Its number among all.
    pictures
    before
        The frame before the first, where they are frames of one video.
    """

    place: int
    pictures: tuple[Picture, ...]
    before: Picture | None = None


@dataclass(frozen=True)
class Pictures:
    """What a sweep goes over.

    Attributes
    ----------
    names
        In order, as rows have them; of a video as many as it says.
    folder
        Where the files are.
    video
        The video whose frames they are; None: files.
    truth
        COCO's ground truth, if there is one.
    image_ids
        The ground truth's, of each picture.
    files
        The names that the files have: not every one is text.
    truth_sha256
        The hash of the ground truth's file.
    """

    names: Sequence[str]
    folder: Path
    video: Video | None = None
    truth: dict[str, Any] | None = None
    image_ids: Sequence[int] = ()
    files: Sequence[str] = ()
    truth_sha256: str = ""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """A hash of what there is: names, sizes, times of change; the ground truth."""
        digest = hashlib.sha256(self.truth_sha256.encode())
        files = [self.folder] if self.video else [self.folder / file for file in self.files]
        for name, path in zip(self.names, files, strict=False):
            about = path.stat() if path.exists() else None
            told = [name, about.st_size, about.st_mtime_ns] if about and path.is_file() else [name]
            digest.update(json.dumps(told).encode())
        digest.update(str(len(self)).encode())
        return digest.hexdigest()

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-len(self) // CHUNK)

    def file_of(self, name: str) -> Path:
        """Return the file of a picture, by its name in the rows."""
        return self.folder / self.files[self.names.index(name)]

    def names_of(self, place: int) -> Sequence[str]:
        """Return the names of a chunk's pictures."""
        return self.names[place * CHUNK : (place + 1) * CHUNK]

    def at(self, places: Sequence[int]) -> list[Picture]:
        """Return the pictures at some places, in order of places."""
        wanted = sorted(places)
        if self.video is None:
            return [self._file(place) for place in wanted]
        frames = enumerate(self._frames(self.video, max(wanted, default=-1) + 1))
        return [frame for place, frame in frames if place in places]

    def in_chunks(self, done: frozenset[int] = frozenset()) -> Iterator[Chunk]:
        """Yield the chunks that are not done; of a video each frame is decoded once."""
        if self.video is None:
            for place in (place for place in range(self.chunks) if place not in done):
                numbers = range(place * CHUNK, min((place + 1) * CHUNK, len(self)))
                yield Chunk(place, tuple(map(self._file, numbers)))
            return
        frames, before = self._frames(self.video, len(self)), None
        for place in range(self.chunks):
            pictures = tuple(islice(frames, CHUNK))
            if place not in done:
                yield Chunk(place, pictures, before)
            before = None if pictures[-1].fault else pictures[-1]

    def _frames(self, video: Video, stop: int) -> Iterator[Picture]:
        """Yield the frames before a place; from the first on that cannot be read, why."""
        read, fault = 0, "the video ends before it"
        try:
            for frame in video.frames(0, stop):
                yield Picture(self.names[read], None, frame)
                read += 1
        except MobileInstError as error:
            fault = str(error).partition("; ")[0]
        yield from (Picture(name, fault=fault) for name in self.names[read:stop])

    def _file(self, place: int) -> Picture:
        identity = self.image_ids[place] if self.image_ids else None
        path = (self.folder / self.files[place]).absolute()  # a worker may stand in another folder
        return Picture(self.names[place], path, None, identity)


def find_pictures(path: Path) -> Pictures:
    """Return the pictures of a folder, of a COCO ground truth (.json), or the frames of a video.

    Raises
    ------
    FileError
        There is nothing there, or no picture in it.
    MissingDependencyError
        A video file needs the extra ``video``.
    """
    if path.suffix.lower() == ".json":
        return _of_truth(path)
    if not path.is_dir():
        return _of_video(path)
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if _is_picture(file, path))
    if not names:
        raise FileError(f"{path} holds no picture; give a folder of pictures, a video or a COCO .json")
    return Pictures(shown_names(names), path, files=names)


def _is_picture(file: Path, folder: Path) -> bool:
    """Tell whether a file is to be judged: a link to nothing is a picture that cannot be read."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    there = file.is_file() or (file.is_symlink() and not file.exists())
    return there and not hidden and file.suffix.lower() in picture_suffixes()


def shown_names(names: Sequence[str]) -> list[str]:
    """Return names as rows have them: escapes of what is no text, and so of the backslash itself."""
    return [printable(name.replace("\\", "\\\\")) for name in names]


def _of_truth(path: Path) -> Pictures:
    document = read_json(path)
    coco.check_truth(path, document)
    images = document["images"]
    unnamed = next((image["id"] for image in images if not isinstance(image.get("file_name"), str)), None)
    if unnamed is not None:
        raise FileError(f"{path}: image {unnamed} has no file_name")
    if not images:
        raise FileError(f"{path} names no image")
    names = [image["file_name"] for image in images]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise FileError(f"{path}: more than one image has the file_name {twice!r}; leave all but one out")
    ids = [image["id"] for image in images]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Pictures(shown_names(names), path.parent, None, document, ids, names, digest)


def _of_video(path: Path) -> Pictures:
    video = open_video(path)
    count = video.count if video.count is not None else sum(1 for _ in video.frames())
    if not count:
        raise FileError(f"{path} holds no frame")
    return Pictures([f"frame {index}" for index in range(count)], path, video)
