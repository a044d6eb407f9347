"""The held-out split "scenes-val": scenes that no training run sees, drawn up from seeds of their own."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from refimpl.errors import ConfigurationError
from refimpl.hard_scenes import HardScene, make_hard_scene
from refimpl.scenes import Frame, render_frame

Array = NDArray[Any]

NAME = "scenes-val"
HELD_OUT_FIRST = 5_000_000
"""Seeds from here on are held out: training takes only smaller ones."""

PICTURES, VIDEOS, FRAMES = 200, 60, 36
SIZE = (192, 320)
_FIRST_VIDEO = HELD_OUT_FIRST + 100_000
_LEAST_SHARE = 600


def picture_seed(index: int) -> int:
    """Return the seed of the scene that picture ``index`` of the split shows."""
    return HELD_OUT_FIRST + _checked(index, PICTURES, "picture")


def video_seed(index: int) -> int:
    """Return the seed of video ``index`` of the split."""
    return _FIRST_VIDEO + _checked(index, VIDEOS, "video")


def held_out_picture(index: int) -> Frame:
    """Render picture ``index``: one frame of its scene, with its truth."""
    return render_frame(make_hard_scene(*SIZE, picture_seed(index)), index % FRAMES)


def held_out_video(index: int) -> HardScene:
    """Draw up video ``index``, of which the split has the first `FRAMES` frames."""
    return make_hard_scene(*SIZE, video_seed(index))


def seen_enough(masks: Array) -> Array:
    """Which masks (n, H, W) show at least a 600th of the picture; what is less is not asked for."""
    return area_enough(masks.sum(axis=(1, 2)), masks.shape[1:])


def area_enough(areas: Array, size: tuple[int, ...]) -> Array:
    """Which areas in pixels (n,) are at least a 600th of a picture of that size."""
    enough: Array = _LEAST_SHARE * areas >= size[0] * size[1]
    return enough


def _checked(index: int, count: int, kind: str) -> int:
    if not 0 <= index < count:
        raise ConfigurationError(f"{NAME} has {kind}s 0 to {count - 1}; got {index}")
    return index
