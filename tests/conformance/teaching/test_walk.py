"""The page of `mobileinst walk` and what stands on it, without a browser."""

from __future__ import annotations

import base64
import html
import json
import re
import sys
import time
import zlib
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from typer.testing import CliRunner

import conformance.cli
from conformance.faults import CATALOGUE
from conformance.teaching import walk_page as page_module
from conformance.teaching.chapters import chapters, function, source
from conformance.teaching.clip import Clip, ages, output, query_scores, record_clip
from conformance.teaching.hand import best_pixel, by_hand
from conformance.teaching.walk_page import walk_page
from conformance.teaching.wrong import SHOWN, gallery
from refimpl import MobileInst, MobileInstConfig, Outputs, Weights
from refimpl.association import associate_similarities
from refimpl.errors import ConfigurationError, FileError, MobileInstError, WeightsError
from refimpl.held_out import held_out_video
from refimpl.inference import PIXEL_DEVIATION, PIXEL_MEAN, postprocess
from refimpl.ops import resize, softmax
from refimpl.scenes import LABELS, render_frame
from refimpl.tracker import is_keyframe
from refimpl.trained import trained_config


@cache
def clip(frames: int = 4) -> Clip:
    """The first frames of a held-out video, seen by the trained network."""
    truth = tuple(render_frame(held_out_video(0), index) for index in range(frames))
    weights = Weights.trained("scenes-tiny")
    pictures = [frame.picture for frame in truth]
    return record_clip(pictures, trained_config("scenes-tiny"), weights, (192, 320), truth)


@cache
def page() -> str:
    """The page of that clip."""
    return walk_page(clip(), "The trained one", LABELS)[0]


def data(text: str, name: str) -> Any:
    """Return the JSON of a script element."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


# The page.


def test_the_arrays_are_those_of_the_run() -> None:
    entries = data(page(), "payload")["arrays"]
    recording = clip().keyframe.recording
    for name, tensor, kind in (
        ("features0", "mask_features", np.float16),
        ("kernels0", "kernels", np.float32),
        ("logits", "masks", np.float32),
    ):
        raw = base64.b64decode(entries[name]["data"])
        assert zlib.crc32(raw) == entries[name]["crc"]
        stored = np.frombuffer(raw, kind).reshape(entries[name]["shape"])
        np.testing.assert_array_equal(stored, output(recording, tensor).astype(kind))


def test_it_asks_nothing_of_the_network_and_is_small() -> None:
    text = page()
    assert len(text.encode()) < 5_000_000
    assert "default-src 'none'" in text
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text) == []
    script = Path(page_module.__file__).with_name("walk.js")
    assert script.stat().st_size <= 60_000


def test_internal_links_lead_somewhere() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', page()))
    links = set(re.findall(r'href="#([^"]+)"', page()))
    assert links
    assert links <= ids
    script = Path(page_module.__file__).with_name("walk.js").read_text()
    assert set(re.findall(r'\$\("([a-z0-9-]+)"\)', script)) <= ids


def test_an_id_stands_once() -> None:
    ids = re.findall(r'\bid="([^"]+)"', page())
    assert sorted(ids) == sorted(set(ids))


def test_what_does_not_fit_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "LIMIT", 900_000)
    text, left_out = walk_page(clip(), "x", LABELS)
    assert left_out[-1].endswith("later frames")
    assert ", ".join(left_out) in text
    assert sum(len(each["data"]) for each in data(text, "payload")["arrays"].values()) < 900_000
    monkeypatch.setattr(page_module, "LIMIT", 330_000)
    text, left_out = walk_page(clip(), "x", LABELS)
    assert len(left_out) == 3  # mistakes, maps and frames
    assert sum(len(each["data"]) for each in data(text, "payload")["arrays"].values()) < 330_000
    assert 'id="gallery"' in text
    monkeypatch.setattr(page_module, "LIMIT", 10_000)
    with pytest.raises(
        ConfigurationError, match=r"one frame of this network takes .* choose a smaller --size"
    ):
        walk_page(clip(), "x", LABELS)


def test_text_from_a_file_ends_no_script() -> None:
    text, _ = walk_page(clip(2), "</script><script>alert(1)</script>", ["</script><b>", *LABELS[1:]])
    assert "<script>alert(1)" not in text
    assert len(re.findall("<script", text)) == 3


def test_kernels_age() -> None:
    measured = ages(clip())
    assert [age for age, _, _ in measured] == [0, 1, 2, 3]
    assert measured[0][1] == 1
    assert all(0.5 < iou <= 1 for _, iou, _ in measured)


# Mistakes.


def test_the_gallery_holds_known_mistakes_seen_and_unseen() -> None:
    assert set(SHOWN) <= CATALOGUE.keys()
    recording = clip().keyframe.recording
    kept = np.flatnonzero(query_scores(recording) > 0.4)
    found = list(gallery(recording, kept))
    assert len(found) >= 20
    assert any(wrong.changed == 0 for wrong in found)
    assert any(wrong.changed > 50 for wrong in found)
    right = output(recording, "masks")
    for wrong in found:
        pixels = (expit(wrong.masks[kept]) > 0.45) != (expit(right[kept]) > 0.45)
        assert wrong.changed == pixels.sum()
        assert not np.array_equal(wrong.before, wrong.after)


# The chapters.


def called_functions() -> set[str]:
    """Return the functions of refimpl that a forward pass calls, without operators and private ones."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_name
        outside = ("refimpl.ops", "refimpl.scope", "refimpl.weights", "refimpl.predictions")
        public = name[0] not in "_<" and "." not in frame.f_code.co_qualname
        if event == "call" and public and module.startswith("refimpl.") and not module.startswith(outside):
            found.add(f"{module}.{name}")

    config = trained_config("scenes-tiny")
    network = MobileInst(config, Weights.trained("scenes-tiny"))
    sys.setprofile(note)
    try:
        network(np.zeros((1, 3, 64, 64), np.float32))
    finally:
        sys.setprofile(None)
    return found


def test_every_function_that_the_network_calls_has_a_chapter() -> None:
    taught = {name for chapter in chapters() for name in chapter.functions}
    assert called_functions() - taught == set()
    assert len(called_functions()) > 30


def test_named_functions_are_there() -> None:
    for chapter in chapters():
        for name in chapter.functions:
            assert callable(function(name))
            where, text = source(name)
            assert text.strip()
            assert re.fullmatch(r"[a-z_/]+\.py:\d+", where)


@pytest.mark.parametrize("place", range(11))
def test_each_chapter_has_a_number_by_hand(place: int) -> None:
    lines = by_hand(place, clip())
    assert re.search(r"\d\.\d{3}", lines)
    shown = re.search(rf'<pre id="number-{place}"[^>]*>(.*?)</pre>', page(), re.DOTALL)
    assert shown
    assert html.unescape(shown[1]) == lines


def test_leads_are_short_enough_to_read() -> None:
    for chapter in chapters():
        assert 80 <= len(chapter.lead.split()) <= 150, chapter.question


def test_the_answers_are_the_references() -> None:
    greedy = np.array([[0.9, 0.8, 0.0], [0.8, 0.1, 0.0], [0.0, 0.0, 0.5]])
    enlarged = resize(
        np.array([[[[0.0, 16.0], [32.0, 48.0]]]]),
        None,
        None,
        (1, 1, 4, 4),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    logits = np.log(np.array([0.81, 0.64]) / (1 - np.array([0.81, 0.64])))
    sure = np.full((1, 1, 2, 2), np.log(9.0))
    scored = Outputs(logits[None, None, :1], logits[None, None, 1:], sure, sure, sure)
    found = postprocess(scored, clip().keyframe.placement)
    answers = [
        2 * -1.5,
        (200 - PIXEL_MEAN[0]) / PIXEL_DEVIATION[0],
        9 * 64 * 24 * 40,
        softmax(np.array([1000.0, 1001.0]))[1],
        enlarged[0, 0, 1, 1],
        4 / np.sqrt(8),
        found.scores[0],
        sum(is_keyframe(frame, 6) for frame in range(25)),
        associate_similarities(greedy).total,
        0.5**0.8 * 0.25**0.2,
        64 * 2**-24 / (1 - 64 * 2**-24) * 20,
    ]
    for chapter, answer in zip(chapters(), answers, strict=True):
        assert chapter.answer == pytest.approx(answer, rel=1e-5)
        for name, wrong in chapter.wrong.items():
            assert abs(wrong - answer) > 0.01 * abs(answer), name
    assert associate_similarities(greedy, "greedy").total == pytest.approx(1.5)


def test_named_mistakes_are_in_the_catalogue() -> None:
    named = {name.partition(":")[0] for chapter in chapters() for name in chapter.wrong if "/" in name}
    assert named
    assert named <= CATALOGUE.keys()


def test_the_default_cell_is_in_its_mask() -> None:
    recording = clip().keyframe.recording
    query, row, column = best_pixel(recording)
    assert output(recording, "masks")[query, row, column] > 0
    assert query_scores(recording)[query] > 0.4


# The command.


def test_bad_input_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "no.png").write_text("no picture")
    Weights.seeded(MobileInstConfig.preset("topformer-small"), 0).save(tmp_path / "other.npz")
    cases: list[tuple[list[str], type[MobileInstError]]] = [
        ([str(tmp_path / "missing.png")], FileError),
        ([str(tmp_path / "empty.png")], FileError),
        ([str(tmp_path / "no.png")], FileError),
        (["--weights", str(tmp_path / "other.npz"), "--model", "topformer-tiny"], WeightsError),
        (["--model", "sparseinst-topformer-tiny", "--count", "1", "--size", "64x96"], ConfigurationError),
        (["--size", "100x100"], ConfigurationError),
    ]
    for words, error in cases:
        with pytest.raises(error):
            CliRunner().invoke(
                conformance.cli.app,
                ["walk", *words, "--html", str(tmp_path / "w.html")],
                catch_exceptions=False,
            )
        assert not (tmp_path / "w.html").exists()


def test_a_page_is_made_in_less_than_a_minute(tmp_path: Path) -> None:
    begun = time.process_time()
    result = CliRunner().invoke(conformance.cli.app, ["walk", "--html", str(tmp_path / "w.html")])
    assert result.exit_code == 0
    assert re.search(r"\d\.\d MB, 12 frames, in \d+ s", result.output)
    assert time.process_time() - begun < 60
    assert (tmp_path / "w.html").stat().st_size < 5_000_000


@pytest.mark.parametrize("model", ["seaformer-tiny", "table5/fpn-1conv", "table3/global"])
def test_other_networks_have_their_page(model: str, tmp_path: Path) -> None:
    words = ["walk", "--model", model, "--count", "2", "--size", "64x96", "--html", str(tmp_path / "w.html")]
    result = CliRunner().invoke(conformance.cli.app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert 'id="number-5"' in (tmp_path / "w.html").read_text(encoding="utf-8")
