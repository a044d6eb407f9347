"""From frames to results: the oracle reaches AP 1, and an interrupted video ends as an uninterrupted one."""

import json

import numpy as np
import pytest

from conformance.evaluation import ytvis
from conformance.video.results import TrackLog, picture_masks, scene_ground_truth, video_results
from refimpl.errors import FileError
from refimpl.inference import Placement, postprocess
from refimpl.scenes import Oracle, make_scene
from refimpl.tracker import Tracker, track_video

SCENE, FRAMES = make_scene(64, 96, 4), 12
PLACEMENT = Placement.unscaled(64, 96)


def run(folder, interval, start=None, stop=FRAMES):
    """Track frames of the scene up to ``stop``, from the log's state."""
    log = TrackLog(folder)
    tracker = Tracker(interval, state=start)
    frames = range(tracker.state.frame, stop)
    for tracked in track_video(frames, Oracle(SCENE, FRAMES, stride=1), tracker):
        log.append(tracked, picture_masks(tracked.mask_logits, PLACEMENT), tracker.state, 0.0)
    return log, tracker.state


@pytest.mark.parametrize("interval", [1, 3])
def test_oracle_kernels_reach_ap_one(tmp_path, interval):
    log, state = run(tmp_path, interval)
    (tmp_path / "gt.json").write_text(json.dumps(scene_ground_truth([SCENE], FRAMES)))
    (tmp_path / "dt.json").write_text(json.dumps(video_results(log, state, 1)))
    stats = ytvis.evaluate_files(tmp_path / "gt.json", tmp_path / "dt.json").stats
    assert stats[[0, 1, 2, 8]].tolist() == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize("stop", [1, 4, 5, 6])
def test_an_interrupted_video_ends_as_an_uninterrupted_one(tmp_path, stop):
    """Stopped after any frame, and in the middle of writing the next."""
    whole, state = run(tmp_path / "whole", 3)
    expected = video_results(whole, state, 1)
    log, _ = run(tmp_path / "parts", 3, stop=stop)
    with (tmp_path / "parts" / "frames.jsonl").open("a") as file:
        file.write('{"frame": 99, "segm')
    log, state = run(tmp_path / "parts", 3, start=log.resume())
    assert video_results(log, state, 1) == expected
    assert [record["frame"] for record in log.records()] == list(range(FRAMES))


def test_nothing_to_resume(tmp_path):
    assert TrackLog(tmp_path).resume() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"frame": 1}'])
def test_a_broken_state_is_named(tmp_path, text):
    run(tmp_path, 3, stop=2)
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(FileError, match=r"state\.json"):
        TrackLog(tmp_path).resume()


def test_missing_frames_are_named(tmp_path):
    run(tmp_path, 3, stop=5)
    (tmp_path / "frames.jsonl").write_text("")
    with pytest.raises(FileError, match=r"frames\.jsonl: 0 frames of 4"):
        TrackLog(tmp_path).resume()


def test_masks_are_those_of_image_inference():
    """The same resizing, cropping and thresholding as for single pictures."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((5, 8, 12)) - np.arange(5)[:, None, None]
    placement = Placement((50, 70), (60, 84), (64, 96))

    class Outputs:
        class_logits = np.full((1, 5, 2), 9.0)
        objectness = np.full((1, 5, 1), 9.0)
        masks = logits[None]

    assert np.array_equal(picture_masks(logits, placement), postprocess(Outputs(), placement).masks)
