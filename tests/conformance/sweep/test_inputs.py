"""What a sweep goes over: a video's frames in order, the pictures of a COCO ground truth."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, FIELDS, OPTIONS, SIZE, exported, network, weights
from PIL import Image
from typer.testing import CliRunner

import conformance.cli
from conformance.evaluation import coco
from conformance.pictures.picture import coco_results, read_picture, write_picture
from conformance.sweep import sweep
from conformance.sweep.pictures import CHUNK, find_pictures
from conformance.video.frames import open_video
from refimpl.errors import ConfigurationError, FileError
from refimpl.inference import postprocess, preprocess
from refimpl.scenes import render_picture

pytestmark = pytest.mark.usefixtures("small_backbones")

FRAMES = CHUNK + 2
BLANK = """
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("n.onnx")
names = [output.name for output in session.get_outputs()]


def blank(images):
    outputs = dict(zip(names, session.run(names, {"images": images})))
    outputs["masks"] = -np.abs(outputs["masks"]) - 9
    return outputs
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sweep, "CALIBRATED", 2)
    weights().save(tmp_path / "w.npz")
    onnx.save(exported(), tmp_path / "n.onnx")


def reported(*words: str) -> dict[str, Any]:
    """Return the JSON of a command."""
    line = [*words, *OPTIONS, "--weights", "w.npz", "--json", "j.json"]
    result = CliRunner().invoke(conformance.cli.app, line)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    found: dict[str, Any] = json.loads(Path("j.json").read_text())
    return found


def film(count: int) -> None:
    """Write an animation."""
    first, *rest = (Image.fromarray(render_picture(*SIZE, seed)) for seed in range(count))
    first.save("film.gif", save_all=True, append_images=rest)


def test_tracks_are_followed_over_all_frames_of_a_video() -> None:
    film(FRAMES)
    found = reported("sweep", "n.onnx", "--inputs", "film.gif", "--share", "0")
    (tracks,) = (item for item in found["decisions"] if item["kind"] == "track identity")
    assert (tracks["count"], tracks["flips"]) == ((FRAMES - 1) * FIELDS["num_queries"], 0)
    kernels = [
        network(np.float64)(preprocess(frame, sizing=SIZE)[0].astype(np.float32).astype(np.float64)).kernels[
            0
        ]
        for frame in open_video("film.gif").frames()
    ]
    assert tracks["smallest_margin"] == pytest.approx(min(map(margin, kernels, kernels[1:])), rel=1e-6)


def margin(before: Any, after: Any) -> float:
    """Return by how much the best assignment beats the second, all of them tried."""
    lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (before, after)]
    cosines = (before / lengths[0]) @ (after / lengths[1]).T
    rows = np.arange(len(cosines))
    totals = sorted(cosines[rows, list(order)].sum() for order in itertools.permutations(rows))
    return float(totals[-1] - totals[-2])


def test_the_chunks_of_a_video_know_the_frame_before() -> None:
    film(FRAMES)
    frames = list(open_video("film.gif").frames())
    for done in (frozenset[int](), frozenset([0])):
        last = list(find_pictures(Path("film.gif")).in_chunks(done))[-1]
        assert last.before is not None
        np.testing.assert_array_equal(last.before.read(), frames[CHUNK - 1])
        np.testing.assert_array_equal(last.pictures[0].read(), frames[CHUNK])


@pytest.mark.runtimes
def test_the_frames_before_one_that_is_broken_are_judged() -> None:
    import av

    with av.open("film.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for seed in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(render_picture(*SIZE, seed), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    held = bytearray(Path("film.mp4").read_bytes())
    hurt = held.find(b"mdat") + (len(held) - held.find(b"mdat")) * 2 // 3
    held[hurt : hurt + 400] = bytes(400)
    Path("film.mp4").write_bytes(held)
    found = reported("sweep", "n.onnx", "--inputs", "film.mp4", "--share", "0")
    broken = [each["picture"] for each in found["failures"]]
    assert 1 <= len(broken) < FRAMES
    assert broken == [f"frame {number}" for number in range(FRAMES - len(broken), FRAMES)]
    assert found["verdicts"] == {"pass": FRAMES - len(broken), "not judged": len(broken)}
    assert f"film.mp4: {broken[0]} cannot be read" in found["failures"][-1]["says"]
    assert "--count" not in found["failures"][0]["says"]
    assert {each["command"] for each in found["failures"]} == {""}


def test_frames_that_a_video_does_not_have_are_named() -> None:
    film(FRAMES)
    video = find_pictures(Path("film.gif"))
    longer = replace(video, names=[*video.names, "frame x"])
    *_, last = longer.in_chunks()
    assert [picture.fault for picture in last.pictures] == ["", "", "the video ends before it"]


def truth_of(names: list[str]) -> dict[str, Any]:
    """Return a ground truth made of what the reference sees."""
    results = [each for place, name in enumerate(names) for each in seen(name, place + 1)]
    sizes = [
        {"id": place + 1, "file_name": name, "height": 64, "width": 96} for place, name in enumerate(names)
    ]
    annotations = [
        {**each, "id": number + 1, "iscrowd": 0, "area": 50} for number, each in enumerate(results[::2])
    ]
    categories = [{"id": label + 1, "name": str(label)} for label in range(CONFIG.num_classes)]
    return {"images": sizes, "annotations": annotations, "categories": categories}


def seen(name: str, identity: int) -> list[dict[str, Any]]:
    """Return what the reference sees on a picture, as COCO's results."""
    images, placement = preprocess(read_picture(name), sizing=SIZE)
    outputs = network(np.float64)(images.astype(np.float32).astype(np.float64))
    return coco_results(postprocess(outputs, placement), identity, range(1, CONFIG.num_classes + 1))


def test_average_precision_is_that_of_cocos_own_evaluation() -> None:
    names = ["0.png", "1\\a\n.png", "2.png"]
    for seed, name in enumerate(names):
        write_picture(name, render_picture(*SIZE, seed))
    document = truth_of(names)
    Path("truth.json").write_text(json.dumps(document))
    results = [each for place, name in enumerate(names) for each in seen(name, place + 1)]
    Path("results.json").write_text(json.dumps(results))
    wanted = coco.evaluate_files("truth.json", "results.json").stats
    assert 0 < wanted[0] < 1
    right = reported("sweep", "n.onnx", "--inputs", "truth.json", "--share", "0", "--output", "right")
    np.testing.assert_allclose(right["precision"]["reference"], wanted, atol=1e-12)
    np.testing.assert_allclose(right["precision"]["candidate"], wanted, atol=1e-3)
    Path("c.py").write_text(BLANK)
    blind = reported(
        "sweep",
        "--candidate",
        "python:c.py:blank",
        "--inputs",
        "truth.json",
        "--size",
        "64x96",
        "--output",
        "blind",
    )
    assert blind["verdict"] == "fail"
    Path("truth.json").write_text(json.dumps({**document, "annotations": document["annotations"][1:]}))
    with pytest.raises(ConfigurationError, match="another pictures"):
        reported("sweep", "n.onnx", "--inputs", "truth.json", "--share", "0", "--output", "right", "--resume")
    np.testing.assert_allclose(blind["precision"]["reference"], wanted, atol=1e-12)
    assert blind["precision"]["candidate"][0] == 0


def test_a_ground_truth_that_does_not_fit_is_named() -> None:
    write_picture("0.png", render_picture(*SIZE, 0))
    document = truth_of(["0.png"])
    lines = ("sweep", "n.onnx", "--inputs", "truth.json")
    Path("truth.json").write_text(
        json.dumps({**document, "categories": document["categories"] + [{"id": 99}]})
    )
    with pytest.raises(ConfigurationError, match="8 categories, the network 7 classes"):
        reported(*lines)
    image = {key: value for key, value in document["images"][0].items() if key != "file_name"}
    Path("truth.json").write_text(json.dumps({**document, "images": [image]}))
    with pytest.raises(FileError, match="image 1 has no file_name"):
        reported(*lines)
    (image,) = document["images"]
    Path("truth.json").write_text(json.dumps({**document, "images": [image, {**image, "id": 2}]}))
    with pytest.raises(FileError, match=r"more than one image has the file_name '0\.png'"):
        reported(*lines)
    write_picture("0.png", render_picture(64, 128, 0))
    Path("truth.json").write_text(json.dumps(document))
    with pytest.raises(FileError, match="none of the 1 pictures can be read"):
        reported(*lines)
