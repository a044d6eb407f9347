"""Rendered scenes once more, pixel by pixel in Python's own integers and fractions, without NumPy.

What is drawn is defined by integer arithmetic; whether a shape covers a pixel is decided otherwise than the
reference does it: by the areas of triangles.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

WORD = (1 << 64) - 1
CORNERS = {
    "box": ((-600, -829), (-600, 829), (600, 829), (600, -829)),
    "triangle": ((-1024, 0), (512, 887), (512, -887)),
    "hexagon": ((-1024, 0), (-512, 887), (512, 887), (1024, 0), (512, -887), (-512, -887)),
}
LABELS = ("disc", "box", "triangle", "hexagon")
TURNS = ((1, 0, 1), (4, 3, 5), (3, 4, 5), (12, 5, 13), (5, 12, 13), (15, 8, 17), (24, 7, 25), (21, 20, 29))
"""Cosine, sine, length."""

Point = tuple[Fraction, Fraction]
Scene = dict[str, Any]
"""As `refimpl.scenes.Scene`, in the types of JSON."""


@lru_cache(maxsize=1 << 16)
def hashed(*keys: int) -> int:
    """SplitMix64's finaliser over the keys, each added to what the ones before gave."""
    state = 0
    for key in keys:
        state = ((state ^ (key & WORD)) + 0x9E3779B97F4A7C15) & WORD
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & WORD
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & WORD
        state ^= state >> 31
    return state


def chosen(low: int, high: int, *keys: int) -> int:
    """An integer from low to high, both included."""
    return low + hashed(*keys) % (max(high - low, 0) + 1)


def noise(row: int, column: int, cell: int, seed: int) -> int:
    """Value noise at a point, 0…255: lattice values between which a smooth step goes over."""
    (top, down), (left, across) = divmod(row, cell), divmod(column, cell)
    below, right = (256 * o * o * (3 * cell - 2 * o) // cell**3 for o in (down, across))
    upper, lower = ([hashed(r, c, seed) >> 56 for c in (left, left + 1)] for r in (top, top + 1))
    first, second = ((a * (256 - below) + b * below) // 256 for a, b in zip(upper, lower, strict=True))
    return (first * (256 - right) + second * right) // 256


def textured(row: int, column: int, cell: int, seed: int) -> int:
    """Three octaves of noise around zero."""
    octaves = [noise(row, column, max(cell >> 2 * i, 1), seed + i) for i in range(3)]
    return (4 * octaves[0] + 2 * octaves[1] + octaves[2]) // 7 - 128


def drawn_up(height: int, width: int, seed: int, shapes: int, blur: int) -> Scene:
    """What is in a scene."""
    return {
        "height": height,
        "width": width,
        "seed": seed,
        "shapes": [_shape(height, width, seed, i) for i in range(shapes)],
        "camera": [chosen(-8, 8, seed, 1), chosen(-24, 24, seed, 2)],
        "blur": blur,
    }


def _shape(height: int, width: int, seed: int, index: int) -> dict[str, Any]:
    def choose(low: int, high: int, key: int) -> int:
        return chosen(low, high, seed, 100 + index, key)

    size = 16 * min(height, width)
    radius = choose(max(size // 10, 1), max(size // (4 + index // 3), 1), 0)
    span = [16 * side + 2 * radius + 32 for side in (height, width)]
    return {
        "label": index % 4,
        "colour": [choose(40, 235, key) for key in (1, 2, 3)],
        "radius": radius,
        "turn": choose(0, 7, 4),
        "phase": [choose(span[0] // 4, 3 * span[0] // 4, 5), choose(0, span[1], 6)],
        "velocity": [choose(-size // 160, size // 160, 7), choose(-size // 40, size // 40, 8)],
        "span": span,
        "seed": choose(0, 1 << 30, 9),
    }


def placed(scene: Scene, shape: dict[str, Any], frame: int) -> tuple[list[int], int]:
    """The centre in 1/16 pixel, and the number of the lap."""
    travelled = [
        phase + frame * (velocity - camera)
        for phase, velocity, camera in zip(shape["phase"], shape["velocity"], scene["camera"], strict=True)
    ]
    laps, rests = zip(
        *(divmod(t, span) for t, span in zip(travelled, shape["span"], strict=True)), strict=True
    )
    return [rest - shape["radius"] - 16 for rest in rests], 1024 * abs(laps[0]) + abs(laps[1])


def identity(scene: Scene, index: int, frame: int) -> int:
    """A number of its own for each lap of each shape."""
    return index + placed(scene, scene["shapes"][index], frame)[1] * len(scene["shapes"])


def covers(shape: dict[str, Any], down: int, across: int) -> bool:
    """Tell whether a shape covers the point so far from its centre, in 1/16 pixel."""
    if LABELS[shape["label"]] == "disc":
        return down**2 + across**2 <= shape["radius"] ** 2
    cosine, sine, length = TURNS[shape["turn"]]
    scale = Fraction(shape["radius"], 1024 * length)
    corners = [
        (scale * (cosine * y - sine * x), scale * (sine * y + cosine * x))
        for y, x in CORNERS[LABELS[shape["label"]]]
    ]
    here = (Fraction(down), Fraction(across))
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    # From a point inside, the triangles to all edges fill the polygon; from one outside they are more.
    return sum(_area(here, a, b) for a, b in edges) == sum(_area(corners[0], a, b) for a, b in edges)


def _area(a: Point, b: Point, c: Point) -> Fraction:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]))


def nearest(scene: Scene, frame: int, row: int, column: int) -> int | None:
    """The index of the shape seen at a pixel: the last that covers it."""
    seen = None
    for index, shape in enumerate(scene["shapes"]):
        (y, x), _ = placed(scene, shape, frame)
        if covers(shape, 16 * row + 8 - y, 16 * column + 8 - x):
            seen = index
    return seen


def coloured(scene: Scene, frame: int, row: int, column: int, index: int | None) -> list[int]:
    """The colour of a pixel, at which a shape or the background is seen, before blur and grain."""
    if index is None:
        return _background(scene, frame, row, column)
    shape = scene["shapes"][index]
    (y, x), _ = placed(scene, shape, frame)
    texture = textured(row - y // 16, column - x // 16, 16, shape["seed"])
    shade = texture * 5 // 16 - (16 * row + 8 - y) * 32 // shape["radius"]
    return [colour + shade for colour in shape["colour"]]


def _background(scene: Scene, frame: int, row: int, column: int) -> list[int]:
    seed = scene["seed"]
    origin = [frame * camera // 16 for camera in scene["camera"]]
    texture = textured(row + origin[0], column + origin[1], 64, chosen(0, 1 << 30, seed, 3))
    down, across = row * 256 // scene["height"], column * 256 // scene["width"]
    colour = []
    for channel in range(3):
        first, below, right = (chosen(50, 200, seed, 10 + channel, i) for i in range(3))
        light = first + ((below - first) * down + (right - first) * across) // 512
        colour.append(light + texture * (12 + 2 * channel) // 32)
    return colour


Picture = list[list[list[int]]]


def blurred(picture: Picture) -> Picture:
    """One pass of the binomial 3×3, the border repeated."""
    height, width = len(picture), len(picture[0])

    def at(row: int, column: int, channel: int) -> int:
        return picture[min(max(row, 0), height - 1)][min(max(column, 0), width - 1)][channel]

    weights = [(i, j, (2 - abs(i)) * (2 - abs(j))) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return [
        [
            [(sum(w * at(r + i, c + j, k) for i, j, w in weights) + 8) // 16 for k in range(3)]
            for c in range(width)
        ]
        for r in range(height)
    ]


def painted(scene: Scene, frame: int, seen: list[list[int | None]]) -> Picture:
    """The picture of a frame, 0…255, from what is nearest at each pixel."""
    pixels = [(r, c) for r in range(scene["height"]) for c in range(scene["width"])]
    picture = [
        [coloured(scene, frame, r, c, index) for c, index in enumerate(row)] for r, row in enumerate(seen)
    ]
    for _ in range(scene["blur"]):
        picture = blurred(picture)
    for r, c in pixels:
        grain = (hashed(r, c, scene["seed"], frame) >> 61) - 4
        picture[r][c] = [min(max(value + grain, 0), 255) for value in picture[r][c]]
    return picture
