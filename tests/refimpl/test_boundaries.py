"""Cases at the edges of what other tests try: each is one that a mutant of the reference has survived."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from onnx import defs
from onnx.helper import get_attribute_value

from refimpl import MobileInst, MobileInstConfig, Weights, ops
from refimpl.errors import MobileInstError, ShapeError, WeightsError
from refimpl.hard_scenes import make_hard_scene
from refimpl.model import KernelReuse
from refimpl.ops.operation import OPERATIONS, Trait
from refimpl.scenes import render_frame
from refimpl.topformer import TOPFORMERS
from refimpl.weights import files
from refimpl.weights.check import LONGEST_LINE, check_weights

# --- operations -------------------------------------------------------------------------------------


def test_what_moves_or_selects_is_exact_and_what_sums_rounds() -> None:
    for trait, implied in (
        (Trait.MOVES, Trait.EXACT),
        (Trait.VIEWS, Trait.MOVES),
        (Trait.SELECTS, Trait.EXACT),
        (Trait.SUMS, Trait.ROUNDS),
        (Trait.PRODUCTS, Trait.SUMS),
    ):
        assert implied in trait
    assert Trait.MOVES not in Trait.SELECTS
    assert Trait.ROUNDS not in Trait.MOVES | Trait.VIEWS | Trait.SELECTS


@pytest.mark.parametrize("name", ["HardSigmoid", "LeakyRelu", "Elu"])
def test_defaults_are_onnxs(name: str) -> None:
    """ONNX's own schema says what an attribute is that is not given."""
    schema = defs.get_schema(name)
    defaults = {key: get_attribute_value(each.default_value) for key, each in schema.attributes.items()}
    x = np.linspace(-4, 4, 17)
    assert np.allclose(OPERATIONS[name](x), OPERATIONS[name](x, **defaults), rtol=1e-6)
    wrong = {key: -value for key, value in defaults.items()}
    assert not np.allclose(OPERATIONS[name](x), OPERATIONS[name](x, **wrong), rtol=1e-6)


@pytest.mark.parametrize("size", [(2, 5), (3, 2, 5)])
def test_top_k_is_along_the_last_axis(size: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(size)
    values, _ = ops.top_k(x, 2)
    assert np.array_equal(values, -np.sort(-x, axis=-1)[..., :2])


@pytest.mark.parametrize("limit", [3, 3.5, 4, 4.01])
@pytest.mark.parametrize("step", [1, 0.5, 2])
def test_a_range_ends_below_its_limit(limit: float, step: float) -> None:
    made = ops.arange(np.float32(1), np.float32(limit), np.float32(step))
    assert np.array_equal(made, np.arange(1, limit, step, dtype=np.float32))


@pytest.mark.parametrize("delta", [1, -1])
def test_a_range_that_is_over_before_it_begins_is_empty(delta: int) -> None:
    assert ops.arange(np.int64(0), np.int64(-5 * delta), np.int64(delta)).shape == (0,)


@pytest.mark.parametrize(("a", "b"), [(7, -2), (-7, 2), (-7, -2), (7, -1), (-6, 3)])
def test_integers_are_divided_towards_zero(a: int, b: int) -> None:
    assert ops.div(np.int32(a), np.int32(b)) == int(a / b)


@pytest.mark.parametrize("axis", [2, 3, 7, -3])
def test_an_axis_that_is_not_there_is_named(axis: int) -> None:
    with pytest.raises(ShapeError, match="expected axes of an array"):
        ops.resize(np.zeros((2, 3)), scales=np.array([2.0]), axes=[axis])


@pytest.mark.parametrize("size", [3, 5, 9])
def test_tensorflow_half_pixels_at_any_scale(size: int) -> None:
    x = np.arange(4, dtype=np.float32)
    places = np.floor((np.arange(size) + 0.5) * 4 / size).astype(int)
    mode = "tf_half_pixel_for_nn"
    made = ops.resize(x, sizes=np.array([size]), coordinate_transformation_mode=mode, nearest_mode="floor")
    assert np.array_equal(made, x[np.minimum(places, 3)])


def test_a_region_is_not_kept_where_none_is_given() -> None:
    """An empty region is the whole."""
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    scales = np.array([2.0, 1.5])
    with_none = ops.resize(x, scales=scales, coordinate_transformation_mode="tf_crop_and_resize")
    whole = ops.resize(
        x, np.array([0, 0, 1, 1.0]), scales=scales, coordinate_transformation_mode="tf_crop_and_resize"
    )
    assert np.array_equal(with_none, whole)


# --- networks and weights ---------------------------------------------------------------------------

PUBLISHED = {
    "topformer-tiny": "3,1,16,1 3,4,16,2 3,3,16,1 5,3,32,2 5,3,32,1 3,3,64,2 3,3,64,1 5,6,96,2 5,6,96,1",
    "topformer-small": "3,1,16,1 3,4,24,2 3,3,24,1 5,3,48,2 5,3,48,1 3,3,96,2 3,3,96,1 5,6,128,2 5,6,128,1 "
    "3,6,128,1",
    "topformer-base": "3,1,16,1 3,4,32,2 3,3,32,1 5,3,64,2 5,3,64,1 3,3,128,2 3,3,128,1 5,6,160,2 5,6,160,1 "
    "3,6,160,1",
}
"""Kernel, expansion, channels, stride: https://github.com/hustvl/TopFormer, ``local_configs``."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rows_are_the_published_ones(name: str) -> None:
    rows = tuple(tuple(map(int, row.split(","))) for row in PUBLISHED[name].split())
    assert TOPFORMERS[name].rows == rows


def test_kernels_of_two_axes_are_refused() -> None:
    config = MobileInstConfig.preset("topformer-tiny", dim=16, num_queries=3, num_classes=2)
    network = MobileInst(config, Weights.seeded(config, 0))
    with pytest.raises(ShapeError, match=r"kernels have shape \(3, 16\)"):
        KernelReuse(network, np.zeros((3, 16)))
    KernelReuse(network, np.zeros((1, 3, 16)))


def test_several_misshapen_weights_of_a_block_are_one_short_line() -> None:
    """Their shapes alone, the given and the expected; a line that grows too long is cut."""
    shapes = {f"block.{i}": (2, 3) for i in range(3)} | {f"long.{i:09d}": (2,) for i in range(40)}
    given = {name: np.zeros((3, 2) if name.startswith("block") else (1,), np.float32) for name in shapes}
    with pytest.raises(WeightsError) as raised:
        check_weights(given, shapes)
    lines = str(raised.value).split("\n  ")[1:]
    parts = ", ".join(f"{i} (3, 2) instead of (2, 3)" for i in range(3))
    assert f"block, 3 weights: {parts}" in lines
    assert max(map(len, lines)) == LONGEST_LINE + len("…")


def test_both_infinities_are_infinite_unless_one_is_left_out() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0])
    assert OPERATIONS["IsInf"](x).tolist() == [True, True, False, False]
    assert OPERATIONS["IsInf"](x, detect_positive=0).tolist() == [False, True, False, False]
    assert OPERATIONS["IsInf"](x, detect_negative=0).tolist() == [True, False, False, False]


def test_what_is_deflated_as_arrays_are_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the limit below which nothing is asked: a ratio of ten is no bomb."""
    monkeypatch.setattr(files, "LARGEST_INFLATED", 0)
    array = np.random.default_rng(0).integers(0, 4, 4000).astype(np.float32)
    np.savez_compressed(tmp_path / "w.npz", a=array)
    assert np.array_equal(files.read_arrays(tmp_path / "w.npz")["a"], array)


def test_a_misspelt_field_leads_to_the_nearest() -> None:
    with pytest.raises(MobileInstError, match="did you mean 'num_queries'"):
        MobileInstConfig.preset("topformer-tiny", num_querys=3)


# --- scenes -----------------------------------------------------------------------------------------

SCENES = {
    0: "ae4f88d465260840",
    1: "a5ff33233d0f5093",
    2: "e7bf3910b7b5c8e5",
    3: "2f98f31c9dfb63c1",
    4: "9c48723a6e85303f",
    5: "09ab54d64e9c6098",
    6: "61e7c908f27fd910",
    7: "38c4dc752515d398",
    8: "7b1debb6695fefc3",
    9: "d1e38c99f336bf2b",
    10: "6eac838a51dd895f",
    11: "794daa9446a032fd",
}
"""Seed → SHA-256 of a hard scene: what was trained and published on them must stay what it was."""


@pytest.mark.parametrize("seed", SCENES)
def test_published_scenes_stay(seed: int) -> None:
    assert digest(seed) == SCENES[seed]


def digest(seed: int) -> str:
    """Return a hash of the shapes of a hard scene and of the picture, in three frames."""
    scene = make_hard_scene(48, 72, seed)
    found = hashlib.sha256()
    for frame in (0, 9, 35):
        shapes = [scene.shape_at(index, frame) for index in range(len(scene.shapes))]
        found.update(str((shapes, tuple(map(int, scene.camera_at(frame))))).encode())
        found.update(np.ascontiguousarray(render_frame(scene, frame).picture).tobytes())
    return found.hexdigest()[:16]
