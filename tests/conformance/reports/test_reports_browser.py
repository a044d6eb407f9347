"""The HTML report in headless Chromium: it opens offline, shows the fault, answers clicks, fits a phone."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import conformance
from conformance.graph import onnx_export
from conformance.pictures.inputs import rendered_input
from conformance.reports.html_report import html_report
from refimpl import MobileInst, MobileInstConfig, Weights

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402

pytestmark = pytest.mark.runtimes

PHONE = (390, 844)
DESKTOP = (1280, 2000)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a model whose first hard sigmoid has Keras's slope."""
    config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
    weights = Weights.seeded(config, seed=0)
    scenes = rendered_input((64, 96))
    model = onnx_export.export(MobileInst(config, weights), *scenes.values())
    node = next(node for node in model.graph.node if node.op_type == "HardSigmoid")
    next(attribute for attribute in node.attribute if attribute.name == "alpha").f = 0.2
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_report(conformance.verify(model, config, weights, scenes, name="wrong.onnx")))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium without a network."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.execute_cdp_cmd("Network.enable", {})
    conditions = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, page: Path) -> Callable[[tuple[int, int], str], Any]:
    """Return a function that opens the page at a size, in a colour scheme."""

    def open_page(size: tuple[int, int], scheme: str) -> Any:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(page.as_uri())
        return browser

    return open_page


def test_both_sides_of_the_fault_are_drawn(opened: Callable[..., Any]) -> None:
    driver = opened(DESKTOP, "light")
    drawings = driver.find_elements(By.CSS_SELECTOR, "#subgraphs svg")
    assert len(drawings) == 2
    assert all("HardSigmoid" in drawing.text for drawing in drawings)


def test_it_opens_offline_without_a_complaint(opened: Callable[..., Any], page: Path) -> None:
    driver = opened(DESKTOP, "light")
    assert driver.title.startswith("FAIL")
    assert driver.get_log("browser") == []
    requested = [
        entry["message"]
        for entry in driver.get_log("performance")
        if 'requestWillBeSent"' in entry["message"]
    ]
    assert any(page.name in message for message in requested)
    assert not [message for message in requested if '"url":"http' in message]


def test_the_faulty_box_is_marked_and_a_click_shows_its_steps(opened: Callable[..., Any]) -> None:
    driver = opened(DESKTOP, "light")
    marked = driver.find_element(By.CSS_SELECTOR, ".box:has(.first)")
    assert "mask_decoder.enhancer.0" in marked.get_attribute("aria-label")
    assert "fail" in marked.get_attribute("class")
    marked.click()
    failing = driver.find_elements(By.CSS_SELECTOR, "#chosen tbody tr.failed td:first-child")
    assert "mask_decoder.enhancer.0/HardSigmoid" in [cell.text.replace("\n", "") for cell in failing]
    names = driver.find_elements(By.CSS_SELECTOR, "#chosen tbody td:first-child")
    assert all(name.text.replace("\n", "").startswith("mask_decoder.enhancer.0") for name in names)
    marked.click()
    assert not driver.find_element(By.ID, "chosen").is_displayed()


def test_hovering_shows_a_step(opened: Callable[..., Any]) -> None:
    driver = opened(DESKTOP, "light")
    column = driver.find_elements(By.CSS_SELECTOR, "#depth .column rect")[3]
    webdriver.ActionChains(driver).move_to_element(column).perform()
    tip = driver.find_element(By.ID, "tip")
    assert tip.is_displayed()
    assert tip.text.splitlines()[0].startswith("backbone.")
    assert "introduced" in tip.text


def test_boxes_do_not_overlap_nor_do_labels_leave_them(opened: Callable[..., Any]) -> None:
    driver = opened(DESKTOP, "light")
    script = """return [...document.querySelectorAll('#network .box')].map(box => {
        const rect = box.querySelector('rect').getBoundingClientRect();
        const label = box.querySelector('text').getBoundingClientRect();
        return [rect.left, rect.top, rect.right, rect.bottom, label.left, label.right];
    })"""
    boxes = driver.execute_script(script)
    assert len(boxes) > 30
    for number, (left, top, right, bottom, start, end) in enumerate(boxes):
        assert left <= start
        assert end <= right
        for other in boxes[number + 1 :]:
            assert other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top


def test_words_in_charts_do_not_cover_each_other(opened: Callable[..., Any]) -> None:
    driver = opened(DESKTOP, "light")
    script = """return [...document.querySelectorAll('svg')].flatMap(svg => {
        const texts = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
        const beside = (a, b) => a.right < b.left + 1 || b.right < a.left + 1;
        const above = (a, b) => a.bottom < b.top + 4 || b.bottom < a.top + 4;
        return texts.flatMap(([one, a], place) => texts.slice(place + 1)
            .filter(([, b]) => !beside(a, b) && !above(a, b)).map(([other]) => [one, other]));
    })"""
    assert driver.execute_script(script) == []
    assert len(driver.find_elements(By.CSS_SELECTOR, "#decisions svg")) == 4


def test_the_mask_that_differs_most_is_shown_with_its_flips(opened: Callable[..., Any]) -> None:
    driver = opened(DESKTOP, "light")
    pictures = driver.find_elements(By.CSS_SELECTOR, "#decisions .masks img")
    assert len(pictures) == 3
    assert all(picture.get_property("naturalWidth") == 12 for picture in pictures)
    assert all(picture.size["width"] > 200 for picture in pictures)


def test_a_phone_shows_the_fault_first(opened: Callable[..., Any]) -> None:
    """The wide figure is scrolled to the box at fault."""
    driver = opened(PHONE, "light")
    place = driver.find_element(By.CSS_SELECTOR, "#network .first").rect
    left = place["x"] - driver.execute_script("return scrollX")
    assert 0 <= left <= PHONE[0] - place["width"]


def test_it_fits_a_phone(opened: Callable[..., Any]) -> None:
    driver = opened(PHONE, "light")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(opened: Callable[..., Any], scheme: str) -> None:
    """WCAG AA: text has a contrast of at least 4.5 with what is behind it."""
    driver = opened(DESKTOP, scheme)
    script = """
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (!colour.endsWith(', 0)')) return colour;
        }
    };
    const all = [...document.querySelectorAll('h1, h2, p, td, th, .verdict, pre')];
    const texts = all.filter(e => e.offsetParent).map(e => [getComputedStyle(e).color, behind(e)]);
    const fill = (box, part) => getComputedStyle(box.querySelector(part)).fill;
    const boxes = [...document.querySelectorAll('.box')];
    return texts.concat(boxes.map(box => [fill(box, 'text'), fill(box, 'rect')]));
    """
    pairs = {tuple(pair) for pair in driver.execute_script(script)}
    assert len(pairs) > 5
    assert {pair: contrast(*pair) for pair in pairs if contrast(*pair) < 4.5} == {}


def contrast(one: str, other: str) -> float:
    """Contrast of two CSS colours, 1 to 21 (WCAG 2.1)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``."""
    channels = np.array([float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screenshot_shows_the_network_in_its_colours(opened: Callable[..., Any], scheme: str) -> None:
    driver = opened(DESKTOP, scheme)
    network = driver.find_element(By.CSS_SELECTOR, "#network svg")
    pixels = np.array(Image.open(io.BytesIO(network.screenshot_as_png)).convert("RGB"))
    colours = {tuple(int(c) for c in colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    script = "return [...document.querySelectorAll('.box rect')].map(rect => getComputedStyle(rect).fill)"
    fills = {tuple(int(part) for part in fill[4:-1].split(",")) for fill in driver.execute_script(script)}
    assert len(fills) >= 3
    assert fills <= colours
    corner = int(pixels[-1, 0].sum())
    assert corner > 600 if scheme == "light" else corner < 150
