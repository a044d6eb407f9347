"""Hard scenes: pixel by pixel against Python's own integers, and against SciPy's and NumPy's waves."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.signal import sawtooth

from golden.sources import painter
from refimpl.errors import ShapeError
from refimpl.hard_scenes import WAVE, folded, make_hard_scene, triangle_wave
from refimpl.scenes import render_frame, render_truth

SIZE = (24, 36)


def still(scene, frame):
    """The scene in one frame, as the painter takes it: all that has moved is in the phase."""
    shapes = [asdict(scene.shape_at(index, frame)) for index in range(len(scene.shapes))]
    for shape in shapes:
        phase, velocity = shape["phase"], shape["velocity"]
        shape["phase"] = [p + frame * v for p, v in zip(phase, velocity, strict=True)]
        shape["velocity"] = [0, 0]
    camera = list(scene.camera_at(frame))
    return {
        "height": scene.height,
        "width": scene.width,
        "seed": scene.seed,
        "blur": scene.blur,
        "shapes": shapes,
        "camera": camera,
    }


@pytest.mark.parametrize(("seed", "frame"), [(0, 0), (1, 1), (2, 7), (3, 20), (4, 35)])
def test_masks_are_the_painters(seed: int, frame: int) -> None:
    scene = make_hard_scene(*SIZE, seed)
    masks, _, identities = render_truth(scene, frame)
    drawn = still(scene, frame)
    seen = [[painter.nearest(drawn, 1, r, c) for c in range(SIZE[1])] for r in range(SIZE[0])]
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, [[at == index for at in row] for row in seen])
        assert identities[index] == painter.identity(drawn, index, 1)


@pytest.mark.parametrize("seed", [5, 6])
def test_the_picture_of_a_shaken_camera_is_the_painters(seed: int) -> None:
    scene = make_hard_scene(*SIZE, seed)
    assert scene.camera_at(1) != scene.camera
    drawn = still(scene, 1)
    seen = [[painter.nearest(drawn, 1, r, c) for c in range(SIZE[1])] for r in range(SIZE[0])]
    np.testing.assert_array_equal(render_frame(scene, 1).picture, painter.painted(drawn, 1, seen))


def test_walks_turn_back_as_symmetric_padding_does() -> None:
    span = 7
    walk = np.pad(np.arange(span), (3 * span, 3 * span), "symmetric")
    assert [folded(position, span) for position in range(-3 * span, 4 * span)] == walk.tolist()


@pytest.mark.parametrize("period", [24, 51, 72])
def test_changes_go_back_and_forth_as_a_triangle(period: int) -> None:
    times = np.arange(3 * period)
    triangle = WAVE * (sawtooth(2 * np.pi * times / period, width=0.5) + 1) / 2
    ours = np.array([triangle_wave(int(time), period) for time in times])
    assert np.all((ours <= triangle + 1e-6) & (triangle - 1 - 1e-6 <= ours))


def test_what_makes_tracking_hard_is_there() -> None:
    """Over 60 scenes: each difficulty occurs, and is what its name says."""
    found = set()
    for seed in range(60):
        scene = make_hard_scene(128, 192, seed)
        masks = [render_truth(scene, frame) for frame in range(0, 36, 5)]
        areas = np.array([one[0].sum(axis=(1, 2)) for one in masks])
        labels = masks[0][1]
        found |= {"alike"} if len(set(labels)) < len(labels) else set()
        found |= (
            {"shake"} if scene.camera_at(1) != tuple(2 * c for c in scene.camera) and scene.shake else set()
        )
        for index, change in enumerate(scene.changes):
            shapes = [scene.shape_at(index, frame) for frame in range(36)]
            found |= {"scale"} if len({shape.radius for shape in shapes}) > 1 else set()
            found |= {"colour"} if len({shape.colour for shape in shapes}) > 1 else set()
            found |= {"turn"} if len({shape.turn for shape in shapes}) > 1 else set()
            found |= {"fast"} if abs(scene.shapes[index].velocity[1]) > 16 * 4 else set()
            gone = np.flatnonzero(areas[:, index] == 0)
            back = len(gone) and areas[0, index] > 100 and (areas[gone[0] :, index] > 100).any()
            same = len({int(one[2][index]) for one in masks}) == 1
            found |= {"returns"} if back and same and change.returns else set()
        alone = [np.count_nonzero(_alone(scene, i)) for i in range(len(scene.shapes))]
        found |= {"occlusion"} if any(0 < a < b for a, b in zip(areas[0], alone, strict=True)) else set()
    assert found == {"alike", "shake", "scale", "colour", "turn", "fast", "returns", "occlusion"}


def _alone(scene, index):
    """The mask of a shape with nothing in front of it."""
    from dataclasses import replace

    only = replace(scene, shapes=(scene.shapes[index],), changes=(scene.changes[index],))
    return render_truth(only, 0)[0][0]


def test_a_returning_shape_keeps_its_identity_for_ever() -> None:
    scene = next(s for s in (make_hard_scene(64, 96, seed) for seed in range(50)) if s.changes[0].returns)
    seen = [render_truth(scene, frame) for frame in range(0, 600, 3)]
    assert len({int(identities[0]) for _, _, identities in seen}) == 1


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="0×5"):
        make_hard_scene(0, 5)
