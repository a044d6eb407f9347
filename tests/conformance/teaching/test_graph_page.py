"""`mobileinst explain MODEL.onnx`: any graph as a table of layers, and drawn, in headless Chromium."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from headless import DESKTOP, PHONE, chromium, show_as
from onnx import TensorProto, helper
from typer.testing import CliRunner

import conformance.cli
from conformance.teaching.graph_layers import attributes_text
from conformance.teaching.graph_page import HEIGHT, WIDTH, _rows

ROOT = Path(__file__).parents[3]
AXE = Path(os.environ.get("AXE_CORE", ROOT / "build/node_modules/axe-core/axe.min.js"))


def explained(model: onnx.ModelProto, folder: Path, *words: str) -> dict[str, Any]:
    """Return what the command writes of a model."""
    onnx.save(model, folder / "m.onnx")
    given = ["explain", str(folder / "m.onnx"), *words, "--json", str(folder / "m.json")]
    run = CliRunner().invoke(conformance.cli.app, given)
    assert run.exit_code == 0, run.output
    return dict(json.loads((folder / "m.json").read_text()))


def test_shapes_are_those_that_onnx_infers(tmp_path: Path) -> None:
    model = onnx_models.residual_network()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32]))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    wanted = {
        info.name: [side.dim_value for side in info.type.tensor_type.shape.dim]
        for info in (*inferred.value_info, *inferred.output)
    }
    steps = {step["name"]: step for step in explained(model, tmp_path)["steps"]}
    for node in model.graph.node:
        assert steps[node.name]["output_shape"] == wanted[node.output[0]]


def test_counts_of_a_convolution(tmp_path: Path) -> None:
    model = onnx_models.leaky_network(2)
    content = explained(model, tmp_path)
    # 8 channels of 3×3 over 3, then over 8 channels, at 16×16 places, and a bias each.
    assert [step["macs"] for step in content["steps"]] == [8 * 27 * 256, 0, 8 * 72 * 256, 0]
    assert [step["parameters"] for step in content["steps"]] == [8 * 27 + 8, 0, 8 * 72 + 8, 0]
    assert content["totals"]["macs"] == sum(part["macs"] for part in content["parts"])


def test_the_network_as_a_graph_costs_what_it_costs(tmp_path: Path) -> None:
    """The counts of the network's own table, which are checked against the paper's."""
    run = CliRunner().invoke(
        conformance.cli.app,
        ["export", str(tmp_path / "n.onnx"), "--model", "topformer-tiny", "--size", "64x96", "--fold"],
    )
    assert run.exit_code == 0, run.output
    own = CliRunner().invoke(
        conformance.cli.app, ["explain", "--model", "topformer-tiny", "--size", "64x96", "--json", "-"]
    )
    content = explained(onnx.load(tmp_path / "n.onnx"), tmp_path)
    assert content["totals"]["macs"] == json.loads(own.stdout)["totals"]["macs"]
    assert {part["part"] for part in content["parts"]} >= {"backbone", "mask_decoder", "instance_decoder"}


def test_a_node_of_an_unknown_operator_is_said(tmp_path: Path) -> None:
    model = onnx_models.with_type(TensorProto.FLOAT, "Relu")
    inner = helper.make_node(
        "MaxUnpool", ["m", "i"], ["u"], name="unknown", kernel_shape=[2, 2], strides=[2, 2]
    )
    pool = helper.make_node("MaxPool", ["x"], ["m", "i"], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    end = helper.make_node("Relu", ["u"], ["y"], name="end")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])
    graph = helper.make_graph([pool, inner, end], "g", [x], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = explained(model, tmp_path)
    known = {step["name"] for step in content["steps"]}
    assert known | set(content["unknown"]) == {"pool", "unknown", "end"}


def test_options_of_a_graph_beside_a_converted_model(tmp_path: Path) -> None:
    (tmp_path / "m.tnnproto").write_text("")
    words = ["explain", str(tmp_path / "m.tnnproto"), "--all-steps"]
    run = CliRunner().invoke(conformance.cli.app, words)
    assert run.exit_code != 0
    assert "no effect on a converted model" in f"{run.output} {run.exception}"


def test_rows_stand_below_what_they_are_computed_from() -> None:
    random = np.random.default_rng(0)
    for count in (1, 2, 30, 80):
        edges = sorted({(int(random.integers(last)), last) for last in range(1, count) for _ in range(3)})
        order = random.permutation(count)
        shuffled = [(int(order[a]), int(order[b])) for a, b in edges]
        rows = _rows(count, shuffled)
        assert all(rows[first] < rows[last] for first, last in shuffled)
        assert min(rows) >= 0


def test_attributes_in_one_line() -> None:
    given = {"kernel_shape": [3, 3], "alpha": 0.2, "mode": "linear", "value": np.zeros((2, 3), np.float32)}
    assert attributes_text(given) == "kernel_shape=[3,3], alpha=0.2, mode=linear, value=float32[2×3]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a transformer."""
    folder = tmp_path_factory.mktemp("graph")
    explained(onnx_models.transformer(), folder, "--html", str(folder / "m.html"))
    return folder / "m.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a network."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def opened(driver: Any, page: Path, *, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
    """Open the page at the beginning."""
    show_as(driver, size, scheme)
    driver.get("about:blank")
    driver.get(page.as_uri())
    assert driver.execute_script("return document.documentElement.dataset.ready") == "yes"
    return driver


@pytest.mark.runtimes
class TestInChromium:
    def test_every_node_is_drawn_and_none_upon_another(self, browser: Any, page: Path) -> None:
        driver = opened(browser, page)
        places = driver.execute_script("return nodes.map(node => [node.x, node.y])")
        nodes = onnx_models.transformer().graph.node
        assert len(places) == len(nodes) + 2
        for place, (x, y) in enumerate(places):
            for other_x, other_y in places[:place]:
                assert abs(x - other_x) >= WIDTH or abs(y - other_y) >= HEIGHT

    def test_a_click_shows_what_a_node_is(self, browser: Any, page: Path) -> None:
        driver = opened(browser, page)
        softmax = next(node for node in onnx_models.transformer().graph.node if node.op_type == "Softmax")
        driver.find_element("id", "find").send_keys(f"{softmax.name}\n")
        card = driver.find_element("id", "card").text
        assert softmax.name in card
        assert "axis=-1" in card
        assert softmax.input[0] in card
        assert driver.find_element("id", "hits").text == "1 found"
        # What it is computed from is a click away, and on the page as a place of its own.
        driver.find_element("css selector", "#card button").click()
        assert driver.find_element("css selector", "#card h2").text == "Div"
        driver.refresh()
        assert driver.find_element("css selector", "#card h2").text == "Div"

    def test_mouse_and_keys_move_and_zoom(self, browser: Any, page: Path) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        driver = opened(browser, page)

        def view() -> list[float]:
            return [
                float(x) for x in driver.find_element("id", "drawing").get_dom_attribute("viewBox").split()
            ]

        stage, before = driver.find_element("id", "stage"), view()
        ActionChains(driver).drag_and_drop_by_offset(stage, 80, 60).perform()
        moved = view()
        assert moved[0] < before[0]
        assert moved[1] < before[1]
        assert moved[2:] == before[2:]
        driver.find_element("id", "in").click()
        assert view()[2] < moved[2]
        stage.send_keys("0")
        whole = view()
        stage.send_keys(Keys.ARROW_DOWN)
        assert driver.find_element("css selector", "#card h2").text == "Input"
        stage.send_keys(Keys.ARROW_DOWN)
        assert driver.find_element("css selector", "#card h2").text != "Input"
        assert view() != whole

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing(self, browser: Any, page: Path, scheme: str) -> None:
        driver = opened(browser, page, scheme=scheme)
        driver.execute_script(AXE.read_text(encoding="utf-8"))
        found = driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
            ".then(result => done(result.violations.map(each => [each.id, each.nodes.map(n => n.html)])))"
        )
        assert found == []

    def test_a_phone_needs_no_scrolling_sideways(self, browser: Any, page: Path) -> None:
        driver = opened(browser, page, size=PHONE)
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert driver.execute_script(wide) <= 0

    def test_nothing_is_asked_of_a_network_and_nothing_fails(self, browser: Any, page: Path) -> None:
        driver = opened(browser, page)
        driver.get_log("browser"), driver.get_log("performance")
        opened(browser, page)
        assert driver.get_log("browser") == []
        asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        urls = [
            entry["params"]["request"]["url"]
            for entry in asked
            if entry["method"] == "Network.requestWillBeSent"
        ]
        assert all(url.startswith(("file:", "data:", "about:")) for url in urls)

    def test_names_from_the_file_are_text(self, tmp_path: Path, browser: Any) -> None:
        model = onnx_models.leaky_network(1)
        model.graph.node[0].name = "</script><script>document.title='taken'</script>"
        explained(model, tmp_path, "--html", str(tmp_path / "m.html"))
        driver = opened(browser, tmp_path / "m.html")
        assert driver.title == "m.onnx"
        driver.find_element("id", "find").send_keys("script\n")
        assert "document.title" in driver.find_element("id", "card").text


@pytest.mark.runtimes
def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "igraph", None)
    onnx.save(onnx_models.leaky_network(1), tmp_path / "m.onnx")
    words = ["explain", str(tmp_path / "m.onnx"), "--html", str(tmp_path / "m.html")]
    run = CliRunner().invoke(conformance.cli.app, words)
    assert "mobileinst-reference[drawing]" in f"{run.output} {run.exception}"
    assert not (tmp_path / "m.html").exists()
