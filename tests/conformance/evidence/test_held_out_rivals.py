"""The rivals on held-out videos: what they are given, and what is written of it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from narrow_network import CONFIG
from pycocotools import mask as coco_mask

from conformance.evaluation import ytvis
from conformance.evidence import held_out as measured
from conformance.evidence.held_out_rivals import (
    boxes_of,
    found_frame,
    network_source,
    oracle_source,
    track_results,
)
from conformance.evidence.held_out_videos import follow_videos
from conformance.evidence.ways_of_tracking import Way
from refimpl import MobileInst, Weights, held_out
from refimpl.rivals import RIVALS

FRAMES = 4


@given(arrays(bool, st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4))))
def test_boxes_are_those_of_pycocotools(masks):
    expected = [coco_mask.toBbox(coco_mask.encode(np.asfortranarray(m.astype(np.uint8)))) for m in masks]
    found = boxes_of(masks)
    found[:, 2:] -= found[:, :2]
    assert found.tolist() == [one.tolist() for one in expected]


@pytest.fixture(scope="module")
def model():
    config = replace(CONFIG, num_classes=4)
    return MobileInst(config, Weights.seeded(config, 3).astype(np.float32))


def test_the_papers_association_by_this_way_is_the_trackers_at_interval_one(model):
    """SparseInst-VIS, assumed to be kernel association at T = 1: the same results as `Tracker` gives."""
    source, scene = network_source(model), held_out.held_out_video(0)
    frames = [found_frame(source.tensors(scene, frame)) for frame in range(FRAMES)]
    found = track_results(frames, RIVALS["sparseinst-vis"](), 1)
    expected = follow_videos(model, [Way(1)], 1, FRAMES)[Way(1)].results
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], rel=1e-6)
        assert {**one, "score": 0} == {**other, "score": 0}


def test_of_two_detections_of_one_identity_the_last_is_written(model):
    source, scene = network_source(model), held_out.held_out_video(0)
    frame = found_frame(source.tensors(scene, 0))

    class Everyone:
        every_query = True

        def identify(self, found):
            return np.zeros(len(found), int)

    (result,) = track_results([frame], Everyone(), 7)
    assert result["segmentations"] == [frame.shown[-1]]
    assert result["score"] == pytest.approx(frame.scores[-1].max())


@pytest.mark.parametrize("name", ["masktrack-rcnn", "crossvis", "idol"])
def test_the_oracles_objects_are_found_and_followed(name):
    """One track for each instance of the truth: AR with one result per video and object is AP's."""
    source = oracle_source()
    scene = held_out.held_out_video(1)
    frames = [found_frame(source.tensors(scene, frame), source.gain) for frame in range(held_out.FRAMES)]
    truth = {**measured.video_truth(2)}
    truth["videos"] = [truth["videos"][1]]
    truth["annotations"] = [one for one in truth["annotations"] if one["video_id"] == 2]
    figures = ytvis.evaluate(
        annotations := ytvis.parse_ground_truth(truth),
        ytvis.parse_results(track_results(frames, RIVALS[name](), 2), annotations),
    ).to_json()
    # Masks are cells of 8 pixels: all are found at an IoU of one half.
    assert figures["named"]["AP50"] == pytest.approx(1)
