"""Segmentations as COCO and YouTube-VIS write them: compressed RLE, uncompressed RLE, polygons, or null.

All become compressed RLE of pycocotools, checked before pycocotools sees them: its C code trusts its input,
and a truncated string would be read beyond its end.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from refimpl.errors import FileError

Array = NDArray[Any]
Rle = dict[str, Any]
Size = tuple[int, int]
Describe = Callable[[int], str]

LARGEST_SIDE = 1 << 15
# pycocotools' area() takes at most 255 masks; small portions also keep the decoded counts small.
PORTION = 250
LONGEST_COUNT = 7
"""Groups of 5 bits that a count has at most."""


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause Python's cycle collector: a file's masks are millions of small objects, in no cycles."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def encode(masks: Array) -> list[Rle | None]:
    """Encode masks (n, H, W) bool as compressed RLE with text counts; None where a mask is empty."""
    columns_first = np.asfortranarray(np.moveaxis(masks, 0, -1), dtype=np.uint8)
    shown = [bool(mask.any()) for mask in masks]
    return [
        {"size": rle["size"], "counts": rle["counts"].decode("ascii")} if seen else None
        for rle, seen in zip(coco_mask.encode(columns_first), shown, strict=True)
    ]


def mask_overlaps(first: Array, second: Array) -> Array:
    """IoU of each pair of masks, (n, H, W) and (m, H, W) bool → (n, m); 0 where both are empty."""
    encoded = [
        coco_mask.encode(np.asfortranarray(np.moveaxis(masks, 0, -1), dtype=np.uint8))
        for masks in (first, second)
    ]
    overlaps = np.array(coco_mask.iou(*encoded, [False] * len(second)), np.float64)
    return overlaps.reshape(len(first), len(second))


def read(segmentations: Sequence[Any], sizes: Sequence[Size | None], describe: Describe) -> list[Rle | None]:
    """Turn segmentations of any form into checked, compressed RLE.

    Parameters
    ----------
    segmentations : sequence
        RLE objects, lists of polygons, or None for "not there".
    sizes : sequence of (height, width) or None
        Of each one's frame; None takes the size an RLE states, and refuses polygons.
    describe : callable
        Index → where the segmentation stands, for the error message.

    Returns
    -------
    list of {"size", "counts"} or None
        None also where no pixel is covered.

    Raises
    ------
    FileError
        Not a segmentation, another size than its frame, or counts that do not cover the frame.
    """
    rles: list[Rle | None] = []
    for index, (segmentation, size) in enumerate(zip(segmentations, sizes, strict=True)):
        try:
            rles.append(None if segmentation is None else _compressed(segmentation, size))
        except ValueError as error:
            raise FileError(f"{describe(index)}: {error}") from None
    for start in range(0, len(rles), PORTION):
        present = {start + i: rle for i, rle in enumerate(rles[start : start + PORTION]) if rle is not None}
        for index, text in _bad_counts(list(present.values())):
            raise FileError(f"{describe(list(present)[index])}: {text}")
    return [rle if area else None for rle, area in zip(rles, areas_of(rles), strict=True)]


def areas_of(rles: Sequence[Rle | None]) -> Array:
    """Pixels covered by each, int64; 0 for None."""
    areas = np.zeros(len(rles), np.int64)
    present = [index for index, rle in enumerate(rles) if rle is not None]
    for start in range(0, len(present), PORTION):
        portion = present[start : start + PORTION]
        areas[portion] = coco_mask.area([rles[index] for index in portion])
    return areas


def intersections(first: Sequence[Rle], second: Sequence[Rle], areas: tuple[Array, Array]) -> Array:
    """Pixels common to each pair, (len(first), len(second)) int64.

    pycocotools gives the IoU only; with the areas the intersection follows, an integer rounding recovers.
    """
    if not first or not second:
        return np.zeros((len(first), len(second)), np.int64)
    iou = np.asarray(coco_mask.iou(list(first), list(second), [0] * len(second)))
    both: Array = np.rint(iou * (areas[0][:, None] + areas[1]) / (1 + iou)).astype(np.int64)
    return both


def empty(size: Size) -> Rle:
    """Return the RLE of a mask without a pixel."""
    return _from_counts([size[0] * size[1]], size)


def _compressed(segmentation: Any, size: Size | None) -> Rle:
    """One segmentation as compressed RLE; its counts are not yet checked. Raises ValueError."""
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, size)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise ValueError(
            f"a segmentation is an RLE object with size and counts, a list of polygons or null; "
            f"got {_shortened(segmentation)}"
        )
    stated = _checked_size(segmentation["size"])
    if size is not None and stated != size:
        raise ValueError(f"the mask is {stated[0]}×{stated[1]} but its frame is {size[0]}×{size[1]}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return _from_counts(counts, stated)
    if isinstance(counts, str):
        counts = counts.encode("utf-8")
    if not isinstance(counts, bytes):
        raise ValueError(f"counts are a string or a list of integers; got {_shortened(counts)}")
    return {"size": segmentation["size"], "counts": counts}


def _checked_size(size: Any) -> Size:
    if isinstance(size, list | tuple) and len(size) == 2:
        height, width = size
        if type(height) is type(width) is int and 1 <= height <= LARGEST_SIDE >= width >= 1:
            return height, width
    raise ValueError(f"size is [height, width], each 1 to {LARGEST_SIDE}; got {_shortened(size)}")


def _from_counts(counts: list[Any], size: Size) -> Rle:
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
        raise ValueError(
            f"uncompressed counts are integers ≥ 0 that sum to {size[0] * size[1]}; got {_shortened(counts)}"
        )
    rle: Rle = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    return rle


def _from_polygons(polygons: list[Any], size: Size | None) -> Rle:
    if size is None:
        raise ValueError("polygons need the size of their frame; give the ground truth, or write RLE")
    if not polygons:
        return _from_counts([size[0] * size[1]], size)
    for polygon in polygons:
        flat = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not flat or not all(type(v) in (int, float) and abs(v) <= 2 * LARGEST_SIDE for v in polygon):
            raise ValueError(
                f"a polygon is x1, y1, x2, y2, … of at least 3 finite points; got {_shortened(polygon)}"
            )
    merged: Rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    return merged


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _bad_counts(rles: Sequence[Rle]) -> list[tuple[int, str]]:
    """The first RLE whose counts are malformed, with the reason; all are decoded in one pass.

    The format (COCO's maskApi.c): each count is a little-endian string of 5-bit groups, character 48 + group,
    bit 32 = "more follows", sign-extended from bit 16 of the last group; from the fourth on, counts are
    differences to the count before the last.
    """
    lengths = np.array([len(rle["counts"]) for rle in rles], np.int64)
    for index in np.flatnonzero(lengths == 0)[:1]:
        return [(int(index), "counts are empty")]
    if not len(rles):
        return []
    # Bytes below 48 wrap to beyond 63.
    groups = np.frombuffer(b"".join(rle["counts"] for rle in rles), np.uint8) - np.uint8(48)
    ends = np.cumsum(lengths)
    last = groups < 32
    foreign = np.flatnonzero(groups > 63)
    cut = np.flatnonzero(~last[ends - 1])
    if foreign.size:
        return [(int(np.searchsorted(ends, foreign[0], "right")), "counts have a foreign character")]
    if cut.size:
        return [(int(cut[0]), "counts are cut off")]
    return _uncovered(groups, last, ends - lengths, [rle["size"][0] * rle["size"][1] for rle in rles])


def _uncovered(groups: Array, last: Array, starts: Array, pixels: list[int]) -> list[tuple[int, str]]:
    """The first RLE with a negative count or with counts that do not sum to its pixels."""
    ends = np.flatnonzero(last)
    lengths = np.diff(ends, prepend=-1)
    numbers = np.add.reduceat(last, starts, dtype=np.int64)
    of = np.repeat(np.arange(len(pixels)), numbers)
    if lengths.max() > LONGEST_COUNT:
        return [(int(of[np.argmax(lengths > LONGEST_COUNT)]), "a count is larger than any mask")]
    counts = _undo_differences(_values(groups, ends, lengths), numbers)
    sums = np.add.reduceat(counts, np.cumsum(numbers) - numbers)
    bad = sums != np.array(pixels)
    bad[of[counts < 0]] = True
    return [
        (int(index), f"counts cover {sums[index]} pixels of {pixels[index]}, or some are negative")
        for index in np.flatnonzero(bad)[:1]
    ]


def _values(groups: Array, ends: Array, lengths: Array) -> Array:
    """Counts as they are written, differences among them: the last group first, which has the sign."""
    values = groups[ends].astype(np.int64)
    values[values >= 16] -= 32
    for place in range(1, lengths.max()):
        longer = np.flatnonzero(lengths > place)
        values[longer] = values[longer] << 5 | groups[ends[longer] - place] & 31
    return values


def _undo_differences(values: Array, numbers: Array) -> Array:
    """Running sums along every second count of each RLE, from its second and its third count on.

    Even and odd places of all RLEs stand in two rows, one RLE after another: one running sum serves all.
    """
    first = np.cumsum(numbers) - numbers
    halves = (numbers + 1) // 2
    left = np.cumsum(halves) - halves
    place = np.arange(len(values)) - np.repeat(first, numbers)
    at = np.repeat(left, numbers) + place // 2 + place % 2 * halves.sum()
    rows = np.zeros((2, halves.sum()), np.int64)
    np.put(rows, at, values)
    rows[0, left] = 0
    running = np.cumsum(rows, axis=1)
    running -= np.repeat(running[:, left] - rows[:, left], halves, axis=1)
    counts: Array = np.take(running, at)
    counts[first] = values[first]
    return counts
