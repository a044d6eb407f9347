"""Rendered scenes: pictures and short videos with ground-truth instances, the same bits on every machine.

Everything drawn is integer arithmetic on integer hashes: no random generator, no transcendental function, so
that no rounding can flip a pixel. Positions are in 1/16 pixel. A scene is a lit, textured background and
shapes in depth order, each with its own colour, texture, motion and identity; a shape that has left enters
again as a new instance. `Oracle` stands in for the network: kernels and mask features whose products are the
truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import ShapeError
from refimpl.tracker import KeyframeTensors

Array = NDArray[Any]

LABELS = ("disc", "box", "triangle", "hexagon")
"""Name of each class label of a scene."""

SUBPIXEL = 16
# Corners in 1/1024 of the circumscribed radius; a disc has none.
_CORNERS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((-600, -829), (-600, 829), (600, 829), (600, -829)),
    2: ((-1024, 0), (512, 887), (512, -887)),
    3: ((-1024, 0), (-512, 887), (512, 887), (1024, 0), (512, -887), (-512, -887)),
}
# Rotations by Pythagorean triples: exact in integers.
_TURNS = ((1, 0, 1), (4, 3, 5), (3, 4, 5), (12, 5, 13), (5, 12, 13), (15, 8, 17), (24, 7, 25), (21, 20, 29))


@dataclass(frozen=True)
class Shape:
    """One moving shape; positions, velocities and the radius are (row, column) in 1/16 pixel.

    ``phase`` is where on its path the shape is in frame 0; ``span``: the path's length, after which it wraps.
    """

    label: int
    colour: tuple[int, int, int]
    radius: int
    turn: int
    phase: tuple[int, int]
    velocity: tuple[int, int]
    span: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Scene:
    """A video to be rendered.

    Shapes from the farthest to the nearest, the camera's velocity (1/16 pixel per frame) and the number of
    passes of the 3×3 blur.
    """

    height: int
    width: int
    seed: int
    shapes: tuple[Shape, ...]
    camera: tuple[int, int] = (0, 0)
    blur: int = 1

    def camera_at(self, frame: int) -> tuple[int, int]:
        """Return where the camera is in a frame, (row, column) in 1/16 pixel."""
        return frame * self.camera[0], frame * self.camera[1]

    def shape_at(self, index: int, frame: int) -> Shape:
        """Return shape ``index`` as it is in a frame; only hard scenes change their shapes."""
        return self.shapes[index]


@dataclass(frozen=True)
class Frame:
    """One rendered frame and its ground truth, one entry per shape, visible or not.

    picture: (H, W, 3) uint8; masks: (shapes, H, W) bool, visible pixels only, pairwise disjoint; labels and
    identities: (shapes,) int64. An identity is never used again once its instance has left.
    """

    picture: Array
    masks: Array
    labels: Array
    identities: Array


def integer_hash(*keys: Array | int) -> Array:
    """Mix integers into well-spread 64-bit values (the finaliser of SplitMix64, Steele et al. 2014).

    Parameters
    ----------
    *keys : int or integer arrays that broadcast together.

    Returns
    -------
    Array, uint64.
    """
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = (state ^ np.asarray(key, np.int64).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def choose(low: int, high: int, *keys: int) -> int:
    """Choose an integer in [low, high], decided by the keys."""
    return low + int(integer_hash(*keys)[0] % np.uint64(max(high - low, 0) + 1))


def _weights(start: int, count: int, cell: int) -> tuple[int, Array, Array]:
    """First lattice index, index of each pixel's cell, and its smooth-step weight out of 256."""
    cells, offset = np.divmod(start + np.arange(count), cell)
    return (
        int(cells[0]),
        cells - cells[0],
        (256 * offset**2 * (3 * cell - 2 * offset) // cell**3).astype(np.int32),
    )


def value_noise(height: int, width: int, cell: int, origin: tuple[int, int], seed: int) -> Array:
    """Smooth noise (height, width) int32 in 0…255, its lattice ``cell`` pixels wide, seen from ``origin``."""
    top, row, down = _weights(origin[0], height, cell)
    left, column, across = _weights(origin[1], width, cell)
    rows = top + np.arange(row[-1] + 2)[:, None]
    lattice = (integer_hash(rows, left + np.arange(column[-1] + 2), seed) >> np.uint64(56)).astype(np.int32)
    vertical = lattice[row] * (256 - down)[:, None] + lattice[row + 1] * down[:, None]
    return (vertical[:, column] // 256 * (256 - across) + vertical[:, column + 1] // 256 * across) // 256


def _texture(height: int, width: int, origin: tuple[int, int], seed: int, cell: int) -> Array:
    """Three octaves of noise, (height, width) int32 in about −128…127."""
    octaves = [value_noise(height, width, max(cell >> 2 * i, 1), origin, seed + i) for i in range(3)]
    return (4 * octaves[0] + 2 * octaves[1] + octaves[2]) // 7 - 128


def make_scene(
    height: int,
    width: int,
    seed: int = 0,
    *,
    shapes: int = 7,
    camera: tuple[int, int] | None = None,
    blur: int = 1,
) -> Scene:
    """Draw up a scene: what is in it and how it moves follow from the seed alone.

    Parameters
    ----------
    height, width : int
        Size of the frames in pixels, at least 1.
    seed : int
    shapes : int
        Number of shapes on their paths at any time.
    camera : (rows, columns) per frame in 1/16 pixel; None lets the seed choose.
    blur : int
        Passes of the 3×3 binomial blur.

    Raises
    ------
    ShapeError
        A size below 1, or a negative count.
    """
    if height < 1 or width < 1 or shapes < 0 or blur < 0:
        raise ShapeError(
            f"a scene of {height}×{width} pixels, {shapes} shapes and {blur} blur passes was asked for; "
            "give a height and width of at least 1, and counts of at least 0"
        )
    drift = camera or (choose(-8, 8, seed, 1), choose(-24, 24, seed, 2))
    return Scene(
        height, width, seed, tuple(_shape(height, width, seed, i) for i in range(shapes)), drift, blur
    )


def _shape(height: int, width: int, seed: int, index: int) -> Shape:
    """Shape ``index`` of a scene; nearer ones (later) are smaller, so that they do not hide all others."""

    def pick(low: int, high: int, key: int) -> int:
        return choose(low, high, seed, 100 + index, key)

    size = SUBPIXEL * min(height, width)
    radius = pick(max(size // 10, 1), max(size // (4 + index // 3), 1), 0)
    span = (SUBPIXEL * height + 2 * radius + 32, SUBPIXEL * width + 2 * radius + 32)
    return Shape(
        label=index % len(LABELS),
        colour=(pick(40, 235, 1), pick(40, 235, 2), pick(40, 235, 3)),
        radius=radius,
        turn=pick(0, len(_TURNS) - 1, 4),
        phase=(pick(span[0] // 4, 3 * span[0] // 4, 5), pick(0, span[1], 6)),
        velocity=(pick(-size // 160, size // 160, 7), pick(-size // 40, size // 40, 8)),
        span=span,
        seed=pick(0, 1 << 30, 9),
    )


def _place(scene: Scene, shape: Shape, frame: int) -> tuple[int, int, int]:
    """Row and column of the centre (1/16 pixel), and how often the path has been wrapped."""
    margin = shape.radius + 16
    camera = scene.camera_at(frame)
    row = shape.phase[0] + frame * shape.velocity[0] - camera[0]
    column = shape.phase[1] + frame * shape.velocity[1] - camera[1]
    laps = abs(row // shape.span[0]) * 1024 + abs(column // shape.span[1])
    return row % shape.span[0] - margin, column % shape.span[1] - margin, laps


def _inside(shape: Shape, down: Array, across: Array) -> Array:
    """Which points, (h, 1) rows and (w,) columns from the centre in 1/16 pixel, the shape covers."""
    if shape.label not in _CORNERS:
        return down**2 + across**2 <= shape.radius**2
    cosine, sine, length = _TURNS[shape.turn]
    corners = [(cosine * y - sine * x, sine * y + cosine * x) for y, x in _CORNERS[shape.label]]
    inside = np.ones(np.broadcast_shapes(down.shape, across.shape), bool)
    scale = 1024 * length
    for (y0, x0), (y1, x1) in zip(corners, corners[1:] + corners[:1], strict=True):
        side = (x1 - x0) * (scale * down - y0 * shape.radius) - (y1 - y0) * (
            scale * across - x0 * shape.radius
        )
        inside &= side >= 0
    return inside


def _background(scene: Scene, frame: int) -> Array:
    """The lit, textured background (H, W, 3) int32; its texture moves with the camera."""
    row, column = scene.camera_at(frame)
    origin = (row // SUBPIXEL, column // SUBPIXEL)
    texture = _texture(scene.height, scene.width, origin, choose(0, 1 << 30, scene.seed, 3), 64)
    down = np.arange(scene.height, dtype=np.int32)[:, None] * 256 // scene.height
    across = np.arange(scene.width, dtype=np.int32) * 256 // scene.width
    picture = np.empty((scene.height, scene.width, 3), np.int32)
    for channel in range(3):
        corner = [choose(50, 200, scene.seed, 10 + channel, i) for i in range(3)]
        light = corner[0] + ((corner[1] - corner[0]) * down + (corner[2] - corner[0]) * across) // 512
        picture[..., channel] = light + texture * (12 + 2 * channel) // 32
    return picture


def _blurred(picture: Array) -> Array:
    """One pass of the 3×3 binomial blur, the border repeated."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), "edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) // 16


def _pixels(centre: int, radius: int, length: int) -> Array:
    """Indices, along one side of the frame, of the pixels a shape may cover."""
    first, last = np.clip([(centre - radius) // SUBPIXEL, (centre + radius) // SUBPIXEL + 1], 0, length)
    return np.arange(first, last, dtype=np.int64)


def _cover(scene: Scene, shape: Shape, frame: int, picture: Array | None) -> tuple[Array, int]:
    """Mask of one shape and its lap; the shape is painted over ``picture`` unless that is None."""
    row, column, laps = _place(scene, shape, frame)
    rows, columns = _pixels(row, shape.radius, scene.height), _pixels(column, shape.radius, scene.width)
    mask = np.zeros((scene.height, scene.width), bool)
    if not len(rows) or not len(columns):
        return mask, laps
    down = (rows * SUBPIXEL + SUBPIXEL // 2 - row)[:, None]
    inside = _inside(shape, down, columns * SUBPIXEL + SUBPIXEL // 2 - column)
    region = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask[region] = inside
    if picture is not None:
        origin = (int(rows[0]) - row // SUBPIXEL, int(columns[0]) - column // SUBPIXEL)
        texture = _texture(len(rows), len(columns), origin, shape.seed, 16)
        # Lit from above, so that the inside of a shape is no flat colour.
        shade = texture * 5 // 16 - (down * 32 // shape.radius).astype(np.int32)
        picture[region][inside] = np.asarray(shape.colour, np.int32) + shade[inside][:, None]
    return mask, laps


def _compose(scene: Scene, frame: int, picture: Array | None) -> tuple[Array, Array, Array]:
    """Masks (visible pixels), labels and identities of all shapes; painted over ``picture`` unless None."""
    masks = np.zeros((len(scene.shapes), scene.height, scene.width), bool)
    identities = np.zeros(len(scene.shapes), np.int64)
    for index in range(len(scene.shapes)):
        masks[index], laps = _cover(scene, scene.shape_at(index, frame), frame, picture)
        masks[:index] &= ~masks[index]
        identities[index] = index + laps * len(scene.shapes)
    return masks, np.array([shape.label for shape in scene.shapes], np.int64), identities


def render_frame(scene: Scene, frame: int = 0) -> Frame:
    """Render frame ``frame`` of a scene with its ground truth.

    Returns
    -------
    Frame
        The picture, uint8, and per shape the mask of its visible pixels, its label and its identity.
    """
    picture = _background(scene, frame)
    truth = _compose(scene, frame, picture)
    for _ in range(scene.blur):
        picture = _blurred(picture)
    grain = integer_hash(np.arange(scene.height)[:, None], np.arange(scene.width), scene.seed, frame)
    picture += (grain >> np.uint64(61)).astype(np.int32)[..., None] - 4
    return Frame(np.clip(picture, 0, 255).astype(np.uint8), *truth)


def render_truth(scene: Scene, frame: int = 0) -> tuple[Array, Array, Array]:
    """Masks, labels and identities of `render_frame`, without painting the picture."""
    return _compose(scene, frame, None)


def render_picture(height: int, width: int, seed: int = 0) -> Array:
    """Render one picture of textured shapes, equal to the last bit on every machine.

    Parameters
    ----------
    height, width : int
        Size in pixels, at least 1.
    seed : int
        Decides what is seen.

    Returns
    -------
    Array, (height, width, 3) uint8
        RGB.
    """
    return render_frame(make_scene(height, width, seed)).picture


def render_video(
    frames: int,
    height: int,
    width: int,
    seed: int = 0,
    *,
    shapes: int = 7,
    camera: tuple[int, int] | None = None,
    blur: int = 1,
) -> Iterator[Frame]:
    """Render a video frame by frame, in constant memory; the parameters are those of `make_scene`."""
    scene = make_scene(height, width, seed, shapes=shapes, camera=camera, blur=blur)
    for frame in range(frames):
        yield render_frame(scene, frame)


LOGIT = 12.0
"""Mask logit of the oracle inside an instance; its negative outside."""


def identities_of(scene: Scene, frames: int) -> Array:
    """Identities on their paths at any time in the first ``frames`` frames, ascending, int64."""
    count = len(scene.shapes)
    found = {
        index + count * _place(scene, scene.shape_at(index, frame), frame)[2]
        for index in range(count)
        for frame in range(frames)
    }
    return np.array(sorted(found), np.int64)


class Oracle:
    """A network that knows the truth about a scene, so that a tracker can be tested apart from the network.

    Each identity of the video owns one direction of kernel space; kernels · mask features gives ±`LOGIT`.
    Queries are shuffled anew in every frame, as a network may.

    Parameters
    ----------
    scene : Scene
    frames : int
        Length of the video: every identity in it gets a query, absent ones score low.
    dimension : int
        Channels of kernels and mask features; at least identities + ``spare``.
    spare : int
        Queries of nothing: low score, empty mask.
    duplicates : int
        Second queries for the first identities, at a lower score and a kernel 0.1 away.
    noise : float
        Standard deviation of the kernel noise of each frame, relative to the unit norm.
    stride : int
        Pixels per cell of the mask features; 1 reproduces the ground truth exactly.
    seed : int

    Raises
    ------
    ShapeError
        Too few channels for the identities, or a stride that does not divide the frame.
    """

    def __init__(
        self,
        scene: Scene,
        frames: int,
        *,
        dimension: int = 64,
        spare: int = 3,
        duplicates: int = 0,
        noise: float = 0.0,
        stride: int = 8,
        seed: int = 0,
    ) -> None:
        self.scene, self.stride, self.noise, self.seed = scene, stride, noise, seed
        self.identities = identities_of(scene, frames)
        self.duplicates, self.spare = min(duplicates, len(self.identities)), spare
        needed = len(self.identities) + spare
        if dimension < needed or scene.height % stride or scene.width % stride:
            raise ShapeError(
                f"oracle with {dimension} channels and stride {stride} for {needed} queries of "
                f"{scene.height}×{scene.width} frames: give at least {needed} channels and a stride that "
                "divides both sides"
            )
        gaussian = self._random(0).standard_normal((dimension, dimension))
        self.codes = np.linalg.qr(gaussian)[0][:needed]

    def _random(self, key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, key])

    def mask_features(self, frame: int) -> Array:
        """Mask features of a frame, (dimension, H / stride, W / stride) float64."""
        masks, _, identities = render_truth(self.scene, frame)
        coverage = np.zeros((len(self.codes), *np.floor_divide(masks.shape[1:], self.stride)))
        coverage[np.searchsorted(self.identities, identities)] = _area_mean(masks, self.stride)
        return np.einsum("nd,nhw->dhw", self.codes, LOGIT * (2 * coverage - 1), optimize=True)

    def keyframe(self, frame: int) -> KeyframeTensors:
        """All tensors of a frame, its queries in an order that differs from frame to frame."""
        random = self._random(frame + 1)
        masks, _, identities = render_truth(self.scene, frame)
        present = np.isin(self.identities, identities[masks.any(axis=(1, 2))])
        scores = np.concatenate([present, np.zeros(self.spare, bool), present[: self.duplicates]])
        second = self.codes[: self.duplicates] + 0.1 * self.codes[-1]
        kernels = np.concatenate([self.codes, second])
        kernels = kernels + self.noise / np.sqrt(kernels.shape[1]) * random.standard_normal(kernels.shape)
        order = random.permutation(len(kernels))
        return KeyframeTensors(
            class_logits=self._class_logits(scores)[order],
            objectness=np.where(scores, 6.0, -6.0)[order, None],
            kernels=kernels[order],
            mask_features=self.mask_features(frame),
        )

    def _class_logits(self, present: Array) -> Array:
        """Logits (N, classes): high for the label of a present identity, a little less so for duplicates."""
        logits = np.full((len(present), len(LABELS)), -6.0)
        count = len(self.scene.shapes)
        owners = np.concatenate([self.identities, np.zeros(self.spare, np.int64), self.identities])
        labels = np.array([self.scene.shapes[identity % count].label for identity in owners])
        rows = np.flatnonzero(present)
        logits[rows, labels[rows]] = np.where(rows < len(self.codes), 6.0, 2.0)
        return logits


def _area_mean(masks: Array, stride: int) -> Array:
    """Covered share of each stride × stride cell, (n, H / stride, W / stride) float64."""
    count, height, width = masks.shape
    return masks.reshape(count, height // stride, stride, width // stride, stride).mean(axis=(2, 4))
