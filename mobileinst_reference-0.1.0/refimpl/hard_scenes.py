"""Scenes that are hard to follow: what `refimpl.scenes` draws, changing as it moves.

Objects grow and shrink, change colour, rock, cross another of their class and nearly their colour, hide each
other, dash, leave and come back as the same instance; the camera shakes. Integer arithmetic throughout, as in
`refimpl.scenes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from refimpl.errors import ShapeError
from refimpl.scenes import LABELS, SUBPIXEL, Scene, Shape, choose

WAVE = 256
_TURNS_BY_ANGLE = (0, 6, 3, 5, 1, 7, 2, 4)
_LEAST, _MOST = 3, 7
_LONGEST_SHAKE = 24


@dataclass(frozen=True)
class Change:
    """How a shape changes with time, back and forth over ``period`` frames, ``offset`` frames ahead.

    ``shrink``: the radius it loses at most, in 1/16; ``tint``: what its colour gains at most; ``rocks``:
    whether it turns; ``returns``: whether, having left, it comes back as the same instance.
    """

    period: int
    offset: int
    shrink: int
    tint: tuple[int, int, int]
    rocks: bool
    returns: bool


@dataclass(frozen=True)
class HardScene(Scene):
    """A scene whose shapes change, one `Change` for each, and whose camera shakes by up to ``shake``."""

    changes: tuple[Change, ...] = ()
    shake: int = 0

    def camera_at(self, frame: int) -> tuple[int, int]:
        """Return where the camera is in a frame: on its way, and shaken."""
        row, column = super().camera_at(frame)
        shaken = [choose(-self.shake, self.shake, self.seed, 50, frame, axis) for axis in range(2)]
        return row + shaken[0], column + shaken[1]

    def shape_at(self, index: int, frame: int) -> Shape:
        """Return shape ``index`` as it is in a frame."""
        shape, change = self.shapes[index], self.changes[index]
        wave = triangle_wave(frame + change.offset, change.period)
        radius = shape.radius - shape.radius * change.shrink * wave // (16 * WAVE)
        red, green, blue = (
            min(max(colour + tint * wave // WAVE, 20), 240)
            for colour, tint in zip(shape.colour, change.tint, strict=True)
        )
        turn = _TURNS_BY_ANGLE[wave * 7 // WAVE] if change.rocks else shape.turn
        # A smaller shape's margin is narrower: so its centre stays on its path.
        shifted = replace(shape, radius=radius, colour=(red, green, blue), turn=turn)
        return self._moved(shifted, frame, radius - shape.radius, change.returns)

    def _moved(self, shape: Shape, frame: int, shift: int, returns: bool) -> Shape:
        """The shape with its phase shifted; if it returns, on a path that turns back at its ends."""
        if not returns:
            return replace(shape, phase=(shape.phase[0] + shift, shape.phase[1] + shift))
        row, column = (
            max(folded(phase + frame * velocity - drift, span) + shift, 0) + drift
            for phase, velocity, drift, span in zip(
                shape.phase, shape.velocity, self.camera_at(frame), shape.span, strict=True
            )
        )
        return replace(shape, phase=(row, column), velocity=(0, 0))


def triangle_wave(time: int, period: int) -> int:
    """Return 0 … `WAVE`, rising for half a period and falling for the other."""
    time %= period
    return 2 * WAVE * min(time, period - time) // period


def folded(position: int, span: int) -> int:
    """Return where in [0, span) a walk is that turns back at both ends."""
    position %= 2 * span
    return min(position, 2 * span - 1 - position)


def make_hard_scene(height: int, width: int, seed: int = 0) -> HardScene:
    """Draw up a hard scene: how many shapes there are, and what they and the camera do, follow from the seed.

    Parameters
    ----------
    height, width : int
        Size of the frames in pixels, at least 1.
    seed : int

    Raises
    ------
    ShapeError
        A size below 1.
    """
    if height < 1 or width < 1:
        raise ShapeError(f"a scene of {height}×{width} pixels was asked for; give at least 1×1")
    shapes: list[Shape] = []
    for index in range(choose(_LEAST, _MOST, seed, 60)):
        crosses = index % 2 == 1 and choose(0, 1, seed, 61, index) == 0
        shape = _shape(height, width, seed, index)
        shapes.append(_crossing(shape, shapes[-1], seed) if crosses else shape)
    return HardScene(
        height,
        width,
        seed,
        tuple(shapes),
        (choose(-8, 8, seed, 62), choose(-16, 16, seed, 63)),
        1,
        tuple(_change(seed, index) for index in range(len(shapes))),
        choose(0, _LONGEST_SHAKE, seed, 64),
    )


def _shape(height: int, width: int, seed: int, index: int) -> Shape:
    """Shape ``index``, of any class and size, every third of them fast."""

    def pick(low: int, high: int, key: int) -> int:
        return choose(low, high, seed, 200 + index, key)

    size = SUBPIXEL * min(height, width)
    radius = pick(max(size // 9, 1), max(size // 4, 1), 0)
    fastest = size // 20 if pick(0, 2, 10) == 0 else size // 64
    # A quarter more than the frame: what turns back there is out of sight for a while.
    span = (SUBPIXEL * height * 9 // 8 + 2 * radius + 32, SUBPIXEL * width * 5 // 4 + 2 * radius + 32)
    return Shape(
        label=pick(0, len(LABELS) - 1, 11),
        colour=(pick(40, 235, 1), pick(40, 235, 2), pick(40, 235, 3)),
        radius=radius,
        turn=pick(0, 7, 4),
        phase=(pick(span[0] // 4, 3 * span[0] // 4, 5), pick(span[1] // 8, 7 * span[1] // 8, 6)),
        velocity=(pick(-size // 200, size // 200, 7), pick(-fastest, fastest, 8)),
        span=span,
        seed=pick(0, 1 << 30, 9),
    )


def _crossing(shape: Shape, other: Shape, seed: int) -> Shape:
    """The shape as one that looks like ``other`` and comes towards it on nearly the same row."""
    red, green, blue = (
        min(max(value + choose(-16, 16, seed, 65, channel), 40), 235)
        for channel, value in enumerate(other.colour)
    )
    return replace(
        shape,
        label=other.label,
        colour=(red, green, blue),
        phase=(other.phase[0] + shape.radius - other.radius, shape.phase[1]),
        velocity=(other.velocity[0], -other.velocity[1]),
    )


def _change(seed: int, index: int) -> Change:
    """How shape ``index`` changes."""

    def pick(low: int, high: int, key: int) -> int:
        return choose(low, high, seed, 300 + index, key)

    return Change(
        period=pick(24, 72, 0),
        offset=pick(0, 72, 1),
        shrink=pick(0, 6, 2),
        tint=(pick(-60, 60, 3), pick(-60, 60, 4), pick(-60, 60, 5)),
        rocks=pick(0, 1, 6) == 0,
        returns=pick(0, 1, 7) == 0,
    )
