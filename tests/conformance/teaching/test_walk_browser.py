"""The page of `mobileinst walk` in headless Chromium, offline: by mouse, by keyboard, without JavaScript."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless import DESKTOP, PHONE, chromium, show_as

from conformance.teaching.chapters import chapters
from conformance.teaching.clip import Clip, output, query_scores, record_clip
from conformance.teaching.walk_page import walk_page
from refimpl import Weights
from refimpl.association import associate
from refimpl.held_out import held_out_video
from refimpl.ops.operation import Array
from refimpl.scenes import LABELS, render_frame
from refimpl.trained import trained_config

pytest.importorskip("selenium")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.runtimes

FRAMES = 8
ROOT = Path(__file__).parents[3]
AXE = Path(os.environ.get("AXE_CORE", ROOT / "build/node_modules/axe-core/axe.min.js"))
"""Deque's checker of accessibility, which .ci/run installs."""


@pytest.fixture(scope="module")
def clip() -> Clip:
    """The first frames of a held-out video."""
    truth = tuple(render_frame(held_out_video(0), index) for index in range(FRAMES))
    pictures = [frame.picture for frame in truth]
    config, weights = trained_config("scenes-tiny"), Weights.trained("scenes-tiny")
    return record_clip(pictures, config, weights, (192, 320), truth)


@pytest.fixture(scope="module")
def page(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page."""
    path = tmp_path_factory.mktemp("page") / "walk.html"
    text, left_out = walk_page(clip, "The trained one", LABELS)
    assert not left_out
    assert len(text.encode()) < 5_000_000
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium without a network."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def opened(
    driver: Any, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light", at: str = ""
) -> Any:
    """Open the page and wait until it is drawn."""
    show_as(driver, size, scheme)
    driver.get("about:blank")
    driver.get(page.as_uri() + at)
    ready = "return document.documentElement.dataset.ready === 'yes'"
    WebDriverWait(driver, 240).until(lambda each: each.execute_script(ready))
    return driver


def value(driver: Any, name: str) -> float:
    """Return the number that stands at an id, in full."""
    return float(driver.find_element(By.ID, name).get_attribute("data-value"))


def logit(clip: Clip, query: int, frame: int, row: int, column: int, keyframe: int | None = None) -> float:
    """Return the logit of what the page ships: kernels in 32 bits, features in 16."""
    start = clip.frames[frame if keyframe is None else keyframe]
    kernel = output(start.recording, "kernels")[query].astype(np.float32).astype(np.float64)
    feature = output(clip.frames[frame].recording, "mask_features")[:, row, column].astype(np.float16)
    return float(kernel @ feature.astype(np.float64))


def set_number(driver: Any, name: str, number: int) -> None:
    """Type a number into a field."""
    field = driver.find_element(By.ID, name)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(str(number))


def set_frame(driver: Any, frame: int) -> None:
    """Move the slider by its keys."""
    slider = driver.find_element(By.ID, "frame")
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT * frame)


def test_it_checks_itself_and_says_nothing_to_the_console(browser: Any, page: Path) -> None:
    browser.get_log("browser")
    browser.get_log("performance")
    driver = opened(browser, page)
    said = driver.find_element(By.ID, "selfcheck")
    assert said.get_attribute("class") == "right"
    assert "✓ 19,200 logits recomputed here" in said.text
    assert driver.get_log("browser") == []
    requests = [
        message["params"]["request"]["url"]
        for entry in driver.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in requests} <= {"file", "data", "about"}
    assert sum(url.startswith("file:") for url in requests) == 1


def test_thirty_cells_by_mouse_and_keyboard(browser: Any, page: Path, clip: Clip) -> None:
    driver = opened(browser, page)
    random = np.random.default_rng(4)
    picture = driver.find_element(By.ID, "picture-button")
    for _ in range(10):
        query, frame, row, column = (int(random.integers(n)) for n in (20, FRAMES, 24, 40))
        set_number(driver, "query", query)
        set_frame(driver, frame)
        set_number(driver, "row", row)
        set_number(driver, "column", column)
        assert value(driver, "logit") == pytest.approx(
            logit(clip, query, frame, row, column), rel=1e-9, abs=1e-9
        )
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
        wide, high = picture.size["width"], picture.size["height"]
        row, column = (int(random.integers(n)) for n in (24, 40))
        place = (int((column + 0.5) * wide / 40 - wide / 2), int((row + 0.5) * high / 24 - high / 2))
        ActionChains(driver).move_to_element_with_offset(picture, *place).click().perform()
        assert value(driver, "logit") == pytest.approx(
            logit(clip, query, frame, row, column), rel=1e-9, abs=1e-9
        )
        picture.send_keys(Keys.ARROW_LEFT if column else Keys.ARROW_RIGHT)
        column += -1 if column else 1
        assert value(driver, "logit") == pytest.approx(
            logit(clip, query, frame, row, column), rel=1e-9, abs=1e-9
        )
    radio = driver.find_element(By.ID, "query-3")
    radio.send_keys(Keys.SPACE)
    assert value(driver, "logit") == pytest.approx(logit(clip, 3, frame, row, column), rel=1e-9, abs=1e-9)
    assert driver.current_url.endswith(f"/q3/f{frame}/r{row}/c{column}")


def test_the_address_leads_to_a_number(browser: Any, page: Path, clip: Clip) -> None:
    driver = opened(browser, page, at="#5/q7/f3/r12/c20")
    assert value(driver, "logit") == pytest.approx(logit(clip, 7, 3, 12, 20), rel=1e-9, abs=1e-9)
    top = driver.execute_script("return document.getElementById('5').getBoundingClientRect().top")
    assert abs(top) < 100


def test_kernels_are_reused_between_keyframes(browser: Any, page: Path, clip: Clip) -> None:
    driver = opened(browser, page, at="#7/q8/f4/r5/c30")
    for interval in (1, 3, 6):
        Select(driver.find_element(By.ID, "interval")).select_by_visible_text(str(interval))
        keyframe = 4 - 4 % interval
        assert value(driver, "logit") == pytest.approx(logit(clip, 8, 4, 5, 30, keyframe), rel=1e-9, abs=1e-9)
        said = driver.find_element(By.ID, "frame-kind").text
        assert said.startswith(
            "Frame 4 is a keyframe" if interval == 1 else f"Frame 4 uses the kernels of frame {keyframe}"
        )


def shipped(clip: Clip, frame: int) -> Array:
    """Return a frame's kernels as the page has them."""
    return output(clip.frames[frame].recording, "kernels").astype(np.float32).astype(np.float64)


def test_the_assignment_is_the_references(browser: Any, page: Path, clip: Clip) -> None:
    driver = opened(browser, page, at="#8/q8/f0/r5/c30")
    Select(driver.find_element(By.ID, "interval")).select_by_visible_text("6")
    for method in ("optimal", "greedy"):
        Select(driver.find_element(By.ID, "method")).select_by_visible_text(method)
        expected = associate(shipped(clip, 0), shipped(clip, 6), method)
        assert value(driver, "total") == pytest.approx(expected.total, abs=1e-9)
        set_number(driver, "track", 4)
        assert value(driver, "cosine") == pytest.approx(
            expected.similarities[4, expected.permutation[4]], abs=1e-9
        )
        if method == "optimal":
            assert value(driver, "margin") == pytest.approx(expected.track_margins[4], abs=1e-9)
    Select(driver.find_element(By.ID, "method")).select_by_visible_text("optimal")
    before = associate(shipped(clip, 0), shipped(clip, 6)).total
    successor = driver.find_element(By.ID, "successor").text
    driver.find_element(By.ID, "shuffle").click()
    assert value(driver, "total") == pytest.approx(before, abs=1e-9)
    assert driver.find_element(By.ID, "successor").text != successor
    driver.find_elements(By.CSS_SELECTOR, "#cosines tr")[3].find_elements(By.TAG_NAME, "td")[5].click()
    assert driver.find_element(By.ID, "track-name").text == "2"


def test_mistakes_are_shown_and_told(browser: Any, page: Path) -> None:
    driver = opened(browser, page)
    choices = Select(driver.find_element(By.ID, "fault"))
    names = [option.text for option in choices.options]
    assert len(names) >= 20
    choices.select_by_visible_text("attention/scale added")
    assert "your eye cannot see this" in driver.find_element(By.ID, "fault-seen").text
    unseen = drawn(driver, "fault-difference")
    choices.select_by_visible_text("preprocessing/BGR")
    assert "mask pixels changed sides" in driver.find_element(By.ID, "fault-seen").text
    assert drawn(driver, "fault-difference") != unseen
    assert drawn(driver, "fault-before") != drawn(driver, "fault-step")


def drawn(driver: Any, canvas: str) -> str:
    """Return what a canvas shows."""
    return str(driver.execute_script(f"return document.getElementById('{canvas}').toDataURL()"))


def test_heads_maps_and_digits(browser: Any, page: Path) -> None:
    driver = opened(browser, page)
    mean = drawn(driver, "attention-global")
    Select(driver.find_element(By.ID, "head")).select_by_value("2")
    assert drawn(driver, "attention-global") != mean
    for chapter in (2, 4):
        first = drawn(driver, f"map-canvas-{chapter}")
        set_number(driver, f"channel-{chapter}", 3)
        assert drawn(driver, f"map-canvas-{chapter}") != first
    Select(driver.find_element(By.ID, "digits")).select_by_visible_text("4")
    assert len(driver.find_element(By.ID, "logit").text.strip("-")) <= 6


def test_exercises_know_right_and_known_wrong_answers(browser: Any, page: Path) -> None:
    driver = opened(browser, page)
    for place, chapter in enumerate(chapters()):
        answers = [(chapter.answer, "✓ Right"), (chapter.answer * 1.37 + 0.0123, "✗ Not yet")]
        answers += [(wrong, "✗ This is a known mistake") for wrong in chapter.wrong.values()]
        for number, said in answers:
            field = driver.find_element(By.ID, f"answer-{place}")
            field.clear()
            field.send_keys(f"{number:.9g}", Keys.ENTER)
            assert driver.find_element(By.ID, f"verdict-{place}").text.startswith(said), (place, number)


def test_a_flipped_byte_turns_the_check_red(browser: Any, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in ("features0", "kernels0", "features5", "logits", "X3", "wrong2"):
        start = text.index('"data": "', text.index(f'"{name}": {{')) + 9
        end = text.index('"', start)
        raw = bytearray(base64.b64decode(text[start:end]))
        raw[len(raw) // 2] ^= 1
        altered = text[:start] + base64.b64encode(bytes(raw)).decode() + text[end:]
        path = tmp_path / "altered.html"
        path.write_text(altered, encoding="utf-8")
        said = opened(browser, path).find_element(By.ID, "selfcheck")
        assert said.get_attribute("class") == "wrong"
        assert "✗" in said.text
        assert name in said.text


def test_another_product_in_the_script_is_noticed(browser: Any, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    right = "return kernel[query * dim + channel] * feature[channel * cells + cell];"
    loop = "made[q * cells + p] += k * feature[c * cells + p];"
    assert text.count(right) == text.count(loop) == 1
    path = tmp_path / "altered.html"
    path.write_text(text.replace(loop, loop.replace("k * f", "k * 1.01 * f")), encoding="utf-8")
    assert "✗" in opened(browser, path).find_element(By.ID, "selfcheck").text


def test_without_javascript_every_number_stands_there(browser: Any, page: Path, clip: Clip) -> None:
    show_as(browser, DESKTOP, "light", scripts=False)
    browser.get("about:blank")
    browser.get(page.as_uri())
    for place in range(11):
        text = browser.find_element(By.ID, f"number-{place}").text
        assert re.search(r"\d\.\d{3}", text), place
    assert not browser.find_element(By.ID, "row").is_displayed()
    assert "Without JavaScript" in browser.find_element(By.TAG_NAME, "main").text
    best = query_scores(clip.keyframe.recording).max()
    assert f"{best:.3f}" in browser.find_element(By.ID, "cards").text
    show_as(browser, DESKTOP, "light")


def test_a_phone_need_not_scroll_sideways(browser: Any, page: Path) -> None:
    driver = opened(browser, page, PHONE)
    widths = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scrolled, there = driver.execute_script(widths)
    assert scrolled <= there


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, page: Path, scheme: str) -> None:
    driver = opened(browser, page, scheme=scheme)
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
        ".then(result => done(result.violations.map(each => [each.id, each.nodes.map(n => n.html)])))"
    )
    assert found == []


def test_nothing_moves_by_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for word in ("@keyframes", "transition:", "animation:", "setInterval", "requestAnimationFrame"):
        assert word not in text


def test_a_picture_of_ones_own_is_a_clip_of_one_frame(browser: Any, tmp_path: Path) -> None:
    picture = render_frame(held_out_video(3), 5).picture[:, :250]
    config, weights = trained_config("scenes-tiny"), Weights.trained("scenes-tiny")
    text, _ = walk_page(record_clip([picture], config, weights, (192, 250)), "one", LABELS)
    path = tmp_path / "one.html"
    path.write_text(text, encoding="utf-8")
    browser.get_log("browser")
    driver = opened(browser, path)
    assert driver.find_element(By.ID, "selfcheck").get_attribute("class") == "right"
    Select(driver.find_element(By.ID, "interval")).select_by_visible_text("3")
    assert driver.get_log("browser") == []
