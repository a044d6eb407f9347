"""What Mask R-CNN's first stage becomes, beside loops over single anchors, boxes and pixels."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
from rival_networks import drawn_weights, narrow

from conformance.graph.onnx_export import export_regions
from refimpl import Network
from refimpl.errors import ConfigurationError, NonFiniteError, ShapeError
from refimpl.inference import Placement
from refimpl.maskrcnn import ProposalOutputs, classified_regions, least_area, masked_regions, region_heads
from refimpl.ops.operation import Array
from refimpl.scope import Scope
from refimpl.two_stage import anchors, clipped, decoded, level_of, maskrcnn_instances, paste, proposals

SIZES = ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))
PADDED = (64, 96)
COUNT = 3 * sum(height * width for height, width in SIZES)
WHOLE = Placement.unscaled(*PADDED)


def test_anchors_are_those_of_loops() -> None:
    expected = []
    for (height, width), side in zip(SIZES, (32, 64, 128, 256, 512), strict=True):
        for y in range(height):
            for x in range(width):
                for ratio in (0.5, 1, 2):
                    w, h = side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2
                    place = x * (96 // width), y * (64 // height)
                    expected.append(
                        [place[0] - round(w), place[1] - round(h), place[0] + round(w), place[1] + round(h)]
                    )
    np.testing.assert_array_equal(np.concatenate(anchors(PADDED, SIZES)), expected)


def test_boxes_by_hand() -> None:
    box = np.array([[10.0, 20, 30, 60]])
    np.testing.assert_allclose(decoded(np.zeros((1, 4)), box, (10, 10, 5, 5)), box)
    moved = decoded(np.array([[5.0, -10, 5 * math.log(2), 0]]), box, (10, 10, 5, 5))
    np.testing.assert_allclose(moved, [[10, -20, 50, 20]])
    grown = decoded(np.array([[0, 0, 99.0, 0]]), box, (1, 1, 1, 1))  # not beyond a factor of 1000/16
    np.testing.assert_allclose(grown, [[20 - 625, 20, 20 + 625, 60]])
    np.testing.assert_array_equal(clipped(grown, (50, 40)), [[0, 20, 40, 50]])


@pytest.mark.parametrize(
    ("side", "level"), [(1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (9000, 3)]
)
def test_larger_regions_are_sampled_on_coarser_levels(side: int, level: int) -> None:
    assert level_of(np.array([[5.0, 7, 5 + side, 7 + side]])).tolist() == [level]


def outputs_of(found: dict[int, float]) -> ProposalOutputs:
    """The first stage with these objectness logits at some anchors, and nothing changed."""
    objectness = np.full((1, COUNT, 1), -50.0)
    for place, logit in found.items():
        objectness[0, place] = logit
    levels = (np.zeros((1, 8, *size)) for size in SIZES[:4])
    return ProposalOutputs(objectness, np.zeros((1, COUNT, 4)), *levels)


def test_proposals_are_suppressed_within_a_level() -> None:
    first, second = 3 * (8 * 24 + 12) + 1, 3 * (8 * 24 + 13) + 1  # neighbours, of side 32
    coarse = 3 * (16 * 24 + 4 * 12 + 6) + 1  # the same place, of side 64
    outputs = outputs_of({first: 3.0, second: 2.0, coarse: 1.0})
    regions = proposals({name: array[0] for name, array in outputs.items()}, WHOLE)
    assert regions[:2].tolist() == [[32, 16, 64, 48], [16, 0, 80, 64]]
    assert [36, 16, 68, 48] not in regions.tolist()  # IoU 28/36
    assert (regions[:, 2:] > regions[:, :2]).all()
    assert (regions >= 0).all()
    assert (regions <= [96, 64, 96, 64]).all()


def test_a_mask_is_pasted_pixel_by_pixel() -> None:
    mask, box = np.random.default_rng(0).random((28, 28)), np.array([3.2, -4.0, 21.7, 9.5])
    padded = np.pad(mask, 1)
    x0, x1, y0, y1 = (
        int((box[i] + box[i + 2]) / 2 + sign * (box[i + 2] - box[i]) / 2 * 30 / 28)
        for i in (0, 1)
        for sign in (-1, 1)
    )
    width, height = x1 - x0 + 1, y1 - y0 + 1
    rows = np.clip((np.arange(height) + 0.5) * 30 / height - 0.5, 0, 29)
    columns = np.clip((np.arange(width) + 0.5) * 30 / width - 0.5, 0, 29)
    found = paste(mask, box, (12, 20))
    for y in range(12):
        for x in range(20):
            inside = x0 <= x <= x1 and y0 <= y <= y1
            line = [np.interp(columns[x - x0], range(30), row) for row in padded] if inside else []
            assert found[y, x] == (inside and np.interp(rows[y - y0], range(30), line) > 0.5)


def drawn_regions(network: Network) -> tuple[dict[str, Array], Array]:
    """Levels, and regions of all of them, one beyond the edges, one of less than a pixel, one at a limit."""
    rng = np.random.default_rng(1)
    levels = {
        f"level{i + 2}": rng.normal(size=(1, network.config.dim, *size)) for i, size in enumerate(SIZES[:4])
    }
    corners = rng.uniform(-20, 60, (7, 2))
    sides = [[20, 30], [120, 130], [230, 250], [500, 460], [112, 112], [300, 100], [0.3, 0.4]]
    return levels, np.concatenate([corners, corners + sides], axis=1)


@pytest.fixture(scope="module")
def heads() -> Network:
    config = narrow("maskrcnn-r50")
    return Network(config, drawn_weights(config))


def test_heads_in_one_graph_are_those_of_each_level(heads: Network) -> None:
    levels, regions = drawn_regions(heads)
    w, maps = Scope(heads.weights), list(levels.values())
    level = level_of(regions)
    assert set(level) == {0, 1, 2, 3}
    order, by_level = np.argsort(level, kind="stable"), [regions[level == i] for i in range(4)]
    whole = region_heads(maps, regions, w, heads.config)
    logits, boxes = classified_regions(maps, by_level, w, heads.config)
    np.testing.assert_array_equal(whole.class_logits[order], logits)
    np.testing.assert_array_equal(whole.boxes[order], boxes)
    np.testing.assert_array_equal(whole.masks[order], masked_regions(maps, by_level, w, heads.config))


@pytest.mark.parametrize("place", [1, 2, 3])
def test_areas_change_levels_where_sides_do(place: int) -> None:
    side = 56.0 * 2**place
    for dtype in (np.float32, np.float64):
        around = np.asarray([side * (1 - 1e-5), side, side * (1 + 1e-5)], dtype)
        boxes = np.stack([0 * around, 0 * around, around, around], axis=1)
        expected = level_of(boxes) >= place
        np.testing.assert_array_equal(around * around >= dtype(least_area(place)), expected)
        assert expected.tolist() == [False, True, True]


def test_the_heads_export(heads: Network) -> None:
    levels, regions = drawn_regions(heads)
    inputs = {**levels, "regions": regions}
    weights = {name: array.astype(np.float32) for name, array in heads.weights.items()}
    narrowed = Network(heads.config, weights)
    model = export_regions(narrowed, np.zeros((1, 3, *PADDED), np.float32), len(regions))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {name: x.astype(np.float32) for name, x in inputs.items()}
    maps = [given[name] for name in levels]
    wide = region_heads(list(levels.values()), regions, Scope(heads.weights), heads.config)
    single = dict(region_heads(maps, given["regions"], Scope(weights), heads.config).items())
    for (name, expected), found in zip(wide.items(), session.run(list(single), given), strict=True):
        noise = np.abs(single[name] - expected).max()
        assert np.abs(found - expected).max() <= 16 * noise


def test_only_mask_rcnn_has_regions_to_export() -> None:
    config = narrow("yolact-topformer-base")
    with pytest.raises(ConfigurationError, match="no second stage"):
        export_regions(Network(config, drawn_weights(config)), np.zeros((1, 3, *PADDED)), 3)


def test_outputs_that_do_not_fit() -> None:
    config = narrow("maskrcnn-r50")
    network = Network(config, drawn_weights(config))
    outputs = outputs_of({})
    with pytest.raises(ShapeError, match="is not that of"):
        proposals({name: array[0, :9] for name, array in outputs.items()}, WHOLE)
    outputs.boxes[0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="boxes"):
        maskrcnn_instances(network, outputs, WHOLE)
