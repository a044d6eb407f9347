"""Rendered scenes: reproducible, in agreement with exact geometry, and with pictures like pictures."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from refimpl.errors import ShapeError
from refimpl.scenes import (
    LABELS,
    Oracle,
    Scene,
    Shape,
    identities_of,
    integer_hash,
    make_scene,
    render_frame,
    render_picture,
    render_video,
    value_noise,
)
from refimpl.tracker import frame_masks


def splitmix64(state):
    """SplitMix64's finaliser in Python integers (Steele, Lea, Flood 2014)."""
    mask = (1 << 64) - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


@pytest.mark.parametrize("key", [0, 1, -5, 2**40])
def test_hash_is_splitmix64(key):
    expected = splitmix64(((key % 2**64) + 0x9E3779B97F4A7C15) % 2**64)
    assert int(integer_hash(key)[0]) == expected


def test_the_published_first_output_of_splitmix64():
    """Seed 0 gives 0xE220A8397B1DCDAF first, as in the reference implementation's test vectors."""
    assert int(integer_hash(0)[0]) == 0xE220A8397B1DCDAF


def test_pictures_are_the_same_bits_in_another_process():
    """Fresh process, other hash seed and thread count: nothing but the arguments decides the picture."""
    program = (
        "import hashlib, refimpl.scenes as s; print(hashlib.sha256(s.render_picture(90, 130, 4)).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "7", "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": ":".join(sys.path)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert told.stdout.decode().strip() == hashlib.sha256(render_picture(90, 130, 4)).hexdigest()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (320, 640)])
def test_pictures_have_their_size_and_type(size):
    picture = render_picture(*size)
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8


def test_seeds_give_different_pictures():
    pictures = [render_picture(40, 60, seed).tobytes() for seed in range(20)]
    assert len(set(pictures)) == 20


def test_pictures_look_like_pictures():
    """Not flat, not noise: neighbours agree far better than distant pixels, and no channel is saturated."""
    for seed in range(5):
        picture = render_picture(160, 320, seed).astype(np.float64)
        assert picture.std(axis=(0, 1)).min() > 10
        neighbours = np.abs(np.diff(picture, axis=1)).mean()
        distant = np.abs(picture[:, 100:] - picture[:, :-100]).mean()
        assert 0.5 < neighbours < distant / 3
        assert ((picture == 0) | (picture == 255)).mean() < 0.01


def test_noise_at_lattice_points_is_the_hash():
    """Where the interpolation weight is 0, the noise is the lattice's own value."""
    noise = value_noise(64, 96, 16, (0, 0), 5)
    rows, columns = np.meshgrid(np.arange(4), np.arange(6), indexing="ij")
    assert np.array_equal(noise[::16, ::16], (integer_hash(rows, columns, 5) >> np.uint64(56)).astype(int))


def test_noise_moves_with_its_origin():
    """The same world seen from elsewhere, also at negative coordinates."""
    whole = value_noise(80, 80, 16, (-40, -40), 1)
    assert np.array_equal(whole[10:60, 25:70], value_noise(50, 45, 16, (-30, -15), 1))


def one_shape(label, radius=20.0, at=(32.0, 40.0), size=(64, 80)):
    margin = int(16 * radius) + 16
    phase = tuple(int(16 * place) + margin for place in at)
    shape = Shape(label, (200, 50, 50), int(16 * radius), 0, phase, (0, 0), (10**6, 10**6), 3)
    return render_frame(Scene(*size, 0, (shape,))).masks[0]


def test_a_disc_has_the_pixels_of_the_equation():
    y, x = np.mgrid[:64, :80] + 0.5
    assert np.array_equal(one_shape(0), (y - 32) ** 2 + (x - 40) ** 2 <= 20**2)


@pytest.mark.parametrize(
    ("label", "area"),
    [(0, np.pi), (1, 4 * 600 * 829 / 1024**2), (2, 3 * 3**0.5 / 4), (3, 3 * 3**0.5 / 2)],
)
def test_shapes_have_the_area_of_their_formula(label, area):
    """Disc πr², box, equilateral triangle and regular hexagon in the circle of radius r."""
    mask = one_shape(label, 200.0, (300.0, 300.0), (600, 600))
    assert mask.sum() == pytest.approx(area * 200**2, rel=5e-3)


def test_frames_agree_with_their_video():
    scene = make_scene(48, 64, 3)
    for index, frame in enumerate(render_video(5, 48, 64, 3)):
        alone = render_frame(scene, index)
        assert np.array_equal(frame.picture, alone.picture)
        assert np.array_equal(frame.masks, alone.masks)


def test_masks_are_disjoint_and_occlude():
    for frame in render_video(10, 96, 128, 2):
        assert frame.masks.sum(axis=0).max() <= 1
        assert frame.labels.max() < len(LABELS)
    occluded = [
        (frame.masks.sum(axis=(1, 2)) == 0).any()
        for seed in range(3)
        for frame in render_video(40, 48, 64, seed)
    ]
    assert any(occluded)
    assert not all(occluded)


def test_instances_enter_and_leave_and_never_return():
    """An identity that has left its path is not seen again, and new ones take its place."""
    shown, gone = set(), set()
    scene = make_scene(48, 64, 1)
    for index in range(120):
        identities = set(render_frame(scene, index).identities.tolist())
        assert not identities & gone
        gone |= shown - identities
        shown |= identities
    assert gone
    assert shown == set(identities_of(scene, 120).tolist())


def test_blur_smooths_and_keeps_the_mean():
    sharp, soft = (render_frame(make_scene(64, 96, 1, blur=blur)).picture.astype(float) for blur in (0, 4))
    assert np.abs(np.diff(soft, axis=1)).mean() < np.abs(np.diff(sharp, axis=1)).mean()
    assert soft.mean() == pytest.approx(sharp.mean(), abs=0.5)


def test_the_camera_moves_the_background():
    """One pixel per frame: frame 8 shows 8 pixels further left what frame 0 showed, but for the light."""
    still = make_scene(64, 96, 1, shapes=0, camera=(0, 16), blur=0)
    first, later = (render_frame(still, frame).picture.astype(float) for frame in (0, 8))
    aligned = np.abs(first[:, 8:] - later[:, :-8]).mean()
    assert aligned < 0.7 * np.abs(first - later).mean()


@pytest.mark.parametrize("options", [(0, 5, {}), (5, -1, {}), (5, 5, {"shapes": -1}), (5, 5, {"blur": -1})])
def test_impossible_scenes_are_refused(options):
    height, width, rest = options
    with pytest.raises(ShapeError, match="at least"):
        make_scene(height, width, **rest)


@pytest.mark.parametrize("stride", [1, 4])
def test_oracle_products_are_the_truth(stride):
    """sign(kernel · features) is the visible mask at stride 1, and its coverage's majority at stride 4."""
    scene = make_scene(64, 96, 2)
    oracle = Oracle(scene, 8, stride=stride, spare=2)
    for index in (0, 7):
        tensors, truth = oracle.keyframe(index), render_frame(scene, index)
        logits = frame_masks(tensors.kernels, tensors.mask_features)
        owner = (tensors.kernels @ oracle.codes.T).argmax(axis=1)
        for logit, code in zip(logits, owner, strict=True):
            identity = oracle.identities[code] if code < len(oracle.identities) else -1
            where = np.flatnonzero(truth.identities == identity)
            mask = truth.masks[where[0]] if len(where) else np.zeros((64, 96), bool)
            coverage = uniform_filter(mask.astype(float), stride, origin=-(stride // 2))[::stride, ::stride]
            assert np.allclose(logit, 12 * (2 * coverage - 1), atol=1e-9)


def test_the_oracle_shuffles_its_queries():
    oracle = Oracle(make_scene(32, 32, 0), 5)
    owners = [tuple((oracle.keyframe(i).kernels @ oracle.codes.T).argmax(axis=1)) for i in range(5)]
    assert len(set(owners)) > 1
    assert {tuple(sorted(owner)) for owner in owners} == {tuple(range(len(owners[0])))}


@pytest.mark.parametrize("options", [{"dimension": 4}, {"stride": 5}])
def test_impossible_oracles_are_refused(options):
    with pytest.raises(ShapeError, match="give at least"):
        Oracle(make_scene(32, 32, 0), 5, **options)
