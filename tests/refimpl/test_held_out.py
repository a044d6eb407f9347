"""The held-out split and its measurement: pycocotools on results whose figures are known beforehand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conformance.evaluation import ytvis
from conformance.evaluation.segmentations import mask_overlaps
from conformance.evidence import held_out as measured
from conformance.evidence.carried_objects import Carried, carried_objects
from conformance.evidence.held_out_videos import Way, follow_videos
from refimpl import held_out
from refimpl.errors import ConfigurationError
from refimpl.scenes import render_truth
from refimpl.tracker import TrackedFrame

COUNT = 6


@pytest.fixture(scope="module")
def truth():
    return measured.picture_truth(COUNT)


def as_results(truth, score=1.0):
    keys = ("image_id", "category_id", "segmentation")
    asked = [record for record in truth["annotations"] if not record["iscrowd"]]
    return [{**{key: record[key] for key in keys}, "score": score} for record in asked]


def test_the_truth_is_what_is_rendered(truth) -> None:
    """pycocotools decodes every annotation to the mask of the scene."""
    for image in truth["images"]:
        frame = held_out.held_out_picture(image["id"] - 1)
        mine = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        decoded = [coco_mask.decode(a["segmentation"]).astype(bool) for a in mine]
        visible = [index for index, mask in enumerate(frame.masks) if mask.any()]
        assert [a["category_id"] - 1 for a in mine] == frame.labels[visible].tolist()
        np.testing.assert_array_equal(decoded, frame.masks[visible])
        small = [600 * mask.sum() < mask.size for mask in frame.masks[visible]]
        assert [bool(a["iscrowd"]) for a in mine] == small


def test_the_truth_itself_scores_one_and_nothing_scores_zero(truth) -> None:
    perfect = measured.picture_precision(truth, as_results(truth))
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1, 1, 1))
    assert measured.picture_precision(truth, []).value == 0


def test_a_wrong_label_costs_only_the_figure_with_labels(truth) -> None:
    wrong = [{**r, "category_id": r["category_id"] % 4 + 1} for r in as_results(truth)]
    assert measured.picture_precision(truth, wrong).value < 0.2
    without = measured.picture_precision(*map(measured.without_labels, (truth, wrong)))
    assert without.value == pytest.approx(1)


def test_intervals_are_those_of_cocoeval_on_the_drawn_pictures(truth) -> None:
    """One draw, evaluated by pycocotools as a data set of its own, pictures drawn twice standing twice."""
    results = [r for r in as_results(truth) if r["image_id"] != 2]
    draw = measured._draws(COUNT, 0)[0]
    found = measured.picture_precision(truth, results, seed=0)
    drawn = [
        {**record, "image_id": place, "id": 1000 * place + number, "bbox": [0, 0, 0, 0]}
        for place, index in enumerate(draw, 1)
        for number, record in enumerate(truth["annotations"], 1)
        if record["image_id"] == index + 1
    ]
    seen = [
        {**record, "image_id": place}
        for place, index in enumerate(draw, 1)
        for record in results
        if record["image_id"] == index + 1
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        table = COCO()
        images = [{**truth["images"][0], "id": place} for place in range(1, COUNT + 1)]
        table.dataset = {**truth, "images": images, "annotations": drawn}
        table.createIndex()
        evaluator = COCOeval(table, table.loadRes(seen), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert found.low <= evaluator.stats[0] <= max(found.high, found.value)
    assert found.low < found.value < found.high


def test_videos_score_one_by_their_truth_and_resampling_the_whole_changes_nothing() -> None:
    truth = measured.video_truth(2, frames=6)
    results = [
        {key: a[key] for key in ("video_id", "category_id", "segmentations")} | {"score": 1.0}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    figures, precision = measured.video_precision(truth, results)
    assert figures["stats"][0] == pytest.approx(1)
    assert precision.low == pytest.approx(1)
    annotations = ytvis.parse_ground_truth(truth)
    part = ytvis.parse_results(results[:-1], annotations)
    whole = ytvis.evaluate(annotations, part).stats[0]
    twice = ytvis.resampled_precision(annotations, part, [np.array([0, 1]), np.array([1, 0])])
    assert twice == pytest.approx([whole, whole])


def test_a_track_seen_in_few_frames_is_not_asked_for() -> None:
    truth = measured.video_truth(3)
    for annotation in truth["annotations"]:
        scene = held_out.held_out_video(annotation["video_id"] - 1)
        height, width = held_out.SIZE
        areas = [0 if r is None else int(coco_mask.area(r)) for r in annotation["segmentations"]]
        clear = sum(600 * area >= height * width for area in areas)
        assert annotation["iscrowd"] == int(clear < 4)
        assert scene.height == height


def test_seeds_of_the_split_are_its_own() -> None:
    pictures = {held_out.picture_seed(index) for index in range(held_out.PICTURES)}
    videos = {held_out.video_seed(index) for index in range(held_out.VIDEOS)}
    assert len(pictures) == 200
    assert len(videos) == 60
    assert not pictures & videos
    assert min(pictures | videos) >= held_out.HELD_OUT_FIRST
    with pytest.raises(ConfigurationError, match="pictures 0 to 199"):
        held_out.held_out_picture(200)


def tracked(frame, masks, scores):
    """A keyframe whose slots have these masks, (n, H/8, W/8), and these scores."""
    logits = np.where(masks, 9.0, -9.0)
    scores = np.asarray(scores)[:, None]
    return TrackedFrame(frame, True, logits, scores, scores, np.arange(len(scores)), None)


def blocks(*corners):
    """Masks at an eighth of the split's size with a block of 4 × 4 at each corner."""
    masks = np.zeros((len(corners), held_out.SIZE[0] // 8, held_out.SIZE[1] // 8), bool)
    for mask, (row, column) in zip(masks, corners, strict=True):
        mask[row : row + 4, column : column + 4] = True
    return masks


@pytest.mark.parametrize(
    ("corners", "scores", "queries", "expected"),
    [
        ("ab", (0.9, 0.9), (0, 1), Carried(2, 2, 0, 0, 1, 0)),
        ("ba", (0.9, 0.9), (0, 1), Carried(2, 0, 2, 0, 1, 0)),
        ("ab", (0.9, 0.1), (0, 1), Carried(1, 1, 0, 0, 1, 0)),
        ("ab", (0.9, 0.9), (1, 0), Carried(2, 2, 2, 2, 1, 1)),
        ("ba", (0.9, 0.9), (1, 0), Carried(2, 0, 0, 0, 1, 1)),
    ],
    ids=["stays", "is handed over unseen", "is lost", "is handed over and followed", "is torn away"],
)
def test_what_becomes_of_objects_is_counted(corners, scores, queries, expected) -> None:
    places = {"a": (2, 3), "b": (14, 20)}
    truth = [blocks(*places.values()).repeat(8, axis=1).repeat(8, axis=2)] * 2
    frames = [
        tracked(0, blocks(*places.values()), (0.9, 0.9)),
        tracked(1, blocks(*(places[corner] for corner in corners)), scores),
    ]
    assert carried_objects(frames, [np.arange(2), np.array(queries)], truth) == expected


def test_counts_add_up_and_shares_of_nothing_are_nothing() -> None:
    total = Carried(4, 3, 2, 1, 1, 1) + Carried(4, 1, 0, 0, 1, 0)
    assert total == Carried(8, 4, 2, 1, 2, 1)
    assert total.shares() == {"kept": 0.5, "handed": 0.25, "handed_kept": 0.5, "moved": 0.5}
    assert set(Carried().shares().values()) == {0.0}


def test_overlaps_are_counted_pixels() -> None:
    masks = render_truth(held_out.held_out_video(0), 3)[0]
    others = np.concatenate([render_truth(held_out.held_out_video(0), 6)[0], np.zeros_like(masks[:1])])
    expected = [[(a & b).sum() / max((a | b).sum(), 1) for b in others] for a in masks]
    np.testing.assert_allclose(mask_overlaps(masks, others), expected, rtol=1e-12)
    assert mask_overlaps(masks, others[:0]).shape == (len(masks), 0)


def test_dot_products_prefer_long_kernels() -> None:
    """Where cosine follows the direction, the dot product follows the length."""
    previous, current = np.eye(2), np.array([[1.0, 0.9], [0.0, 0.05]])
    orders = {}
    for dot in (False, True):
        tracker = Way(1, "optimal", dot).tracker()
        for kernels in (previous, current[::-1]):
            tensors = (np.zeros((2, 4)), np.zeros((2, 1)), kernels, np.zeros((2, 1, 1)))
            from refimpl.tracker import KeyframeTensors

            tracker.keyframe(KeyframeTensors(*tensors))
        orders[dot] = tracker.state.queries.tolist()
    assert orders[False] == [1, 0]
    assert set(map(tuple, orders.values())) <= {(1, 0), (0, 1)}


def test_following_needs_only_the_network_and_the_way() -> None:
    from refimpl import MobileInst, MobileInstConfig, Weights

    config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5, num_classes=4)
    followed = follow_videos(MobileInst(config, Weights.seeded(config)), [Way(1), Way(3)], 1, frames=4)
    assert {way.keyframe_interval for way in followed} == {1, 3}
    for way, found in followed.items():
        assert all(len(r["segmentations"]) == 4 for r in found.results)
        assert [one.associations for one in found.carried] == [-(-4 // way.keyframe_interval) - 1]
