"""Reports of a verification: HTML, JUnit XML, Markdown, JSON by its schema, and what a failing test says."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shlex
import xml.etree.ElementTree as tree
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import conformance
from conformance.cli import app
from conformance.graph import onnx_export
from conformance.judge.decisions import decision_of
from conformance.judge.detail import detail_of
from conformance.pictures.inputs import rendered_input
from conformance.reports.architecture_figure import architecture_figure
from conformance.reports.decision_charts import FLIPPED, INSIDE, OUTSIDE, TIED, margin_chart, mask_pictures
from conformance.reports.html_report import html_report, linked, marked, used
from conformance.reports.junit_report import junit_report
from conformance.reports.markdown_report import markdown_report
from conformance.reports.report import (
    Comparison,
    Decision,
    Diagnosis,
    Fault,
    InputReport,
    PlacedNode,
    Report,
    _plain,
)
from refimpl import MobileInst, MobileInstConfig, Weights, record
from refimpl.errors import CandidateError, ConfigurationError, ShapeError, VerificationError

pytestmark = pytest.mark.usefixtures("small_backbones")

pytest_plugins = ["pytester"]

CONFIG = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
SLOPE = "mask_decoder.enhancer.0/HardSigmoid"
HOSTILE = '</script><script>alert(1)</script>\x00 | `x` "&'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, an input, our own export of them, and one whose first hard sigmoid has Keras's slope."""
    folder = tmp_path_factory.mktemp("reports")
    weights = Weights.seeded(CONFIG, seed=0)
    weights.save(folder / "w.safetensors")
    (images,) = rendered_input((64, 96)).values()
    np.save(folder / "x.npy", images)
    model = onnx_export.export(MobileInst(CONFIG, weights), images)
    onnx.save(model, folder / "good.onnx")
    node = next(node for node in model.graph.node if node.op_type == "HardSigmoid")
    next(attribute for attribute in node.attribute if attribute.name == "alpha").f = 0.2
    onnx.save(model, folder / "bad.onnx")
    return folder


@pytest.fixture(scope="module")
def good(folder: Path) -> Report:
    return conformance.verify(folder / "good.onnx", CONFIG, folder / "w.safetensors", folder / "x.npy")


@pytest.fixture(scope="module")
def bad(folder: Path) -> Report:
    return conformance.verify(folder / "bad.onnx", CONFIG, folder / "w.safetensors", folder / "x.npy")


def row(name: str, **values: object) -> Comparison:
    """A comparison of a candidate right to the last bit, but for the values given."""
    plain = Comparison(name, "Conv", name, (1, 2, 3, 4), 0.0, 0.0, (0, 0, 0, 0), 0.0, 0.0, 0.0, "pass")
    return dataclasses.replace(plain, **values)  # type: ignore[arg-type]


def report_of(**values: object) -> Report:
    """A report of one input."""
    plain = InputReport("x", (1, 3, 64, 64), "0" * 64, [], [], [], None)
    return Report([dataclasses.replace(plain, **values)], "it.onnx", {}, "nothing")  # type: ignore[arg-type]


# A report whose names come from a file made to harm its reader, and where nothing is finite.
HOSTILE_REPORT = report_of(
    name=HOSTILE,
    outputs=[row(HOSTILE, verdict="fail", utilisation=float("inf"), max_abs_error=float("nan"))],
    steps=[
        row(
            HOSTILE, verdict="fail", detail=detail_of(HOSTILE, np.full((3, 4), np.nan), np.zeros((3, 4)), 0.0)
        )
    ],
    first_fault=Fault(HOSTILE, HOSTILE, "network", (HOSTILE,)),
    problems=[HOSTILE],
    diagnoses=[Diagnosis(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.5, HOSTILE)],
    subgraphs={
        side: [PlacedNode(HOSTILE, HOSTILE, (HOSTILE,), (HOSTILE,))] for side in ("reference", "candidate")
    },
)
UNUSUAL = {
    "nothing compared": report_of(),
    "hostile": HOSTILE_REPORT,
    "graph only": report_of(
        nodes=[row("a"), row("b", verdict="not judged", utilisation=None, tolerance=None)]
    ),
    "other names": report_of(steps=[row(f"encoder.stage{number}.conv") for number in range(40)]),
    "scalar": report_of(steps=[row("masks", shape=(), worst_index=())]),
    "decisions": report_of(
        decisions=[
            decision_of(
                "labels",
                np.array([True, True, False, False]),
                np.array([True, False, False, True]),
                np.array([0.5, 3.0, np.inf, 0.0]),
                np.inf,
                "logits",
            ),
            Decision("mask pixels", 0, 0, 0, None, None, 1.0, "logits"),
            Decision("track identity", 0, 0, 0, None, None, not_judged=HOSTILE),
        ]
    ),
    "absent": report_of(outputs=[Comparison("masks", "masks", None, (1,), *[None] * 6, "absent")]),
}


class Page(HTMLParser):
    """Collects what a page loads (a link is only followed by its reader) and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.scripts = 0
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.references += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "action") and (tag, name) != ("a", "href")
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_fault_is_found_where_it_was_put(good: Report, bad: Report) -> None:
    assert good.verdict == "pass"
    assert bad.leading.first_fault is not None
    assert bad.leading.first_fault.step == SLOPE


@pytest.mark.parametrize("name", ["good", "bad", *UNUSUAL])
def test_records_are_as_the_library_has_them(name: str, request: pytest.FixtureRequest) -> None:
    report = UNUSUAL[name] if name in UNUSUAL else request.getfixturevalue(name)
    for each in report.inputs:
        assert _plain(each) == dataclasses.asdict(each)


@pytest.mark.parametrize("name", ["good", "bad", *UNUSUAL])
def test_json_follows_its_schema(name: str, request: pytest.FixtureRequest) -> None:
    report = UNUSUAL[name] if name in UNUSUAL else request.getfixturevalue(name)
    schema = json.loads(files("conformance.reports").joinpath("report_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(report.to_json(), allow_nan=False)), schema)


@pytest.mark.parametrize("name", ["good", "bad", *UNUSUAL])
def test_the_page_needs_nothing_from_elsewhere(name: str, request: pytest.FixtureRequest) -> None:
    report = UNUSUAL[name] if name in UNUSUAL else request.getfixturevalue(name)
    text = html_report(report)
    page = Page(text)
    assert all(reference.startswith("data:") for reference in page.references)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert page.scripts == 1
    assert len(text.encode()) < 1_000_000
    assert report.headline().replace("\x00", "") in "".join(page.text).replace("\x00", "").replace(
        "\ufffd", ""
    )


def test_the_page_shows_the_fault(bad: Report) -> None:
    text = html_report(bad)
    boxes = re.findall(r'<g class="box (\w+)"[^>]*data-tip="([^"\n]+)', text)
    failing = [name for shade, name in boxes if shade == "fail"]
    assert failing[0] == "mask_decoder.enhancer.0"
    assert "backbone.tpm.stem" not in failing
    assert f"first fault: {SLOPE}" in text
    assert "The first failing tensor" in text
    assert bad.command is not None
    assert bad.command in text


def test_every_step_is_in_a_box(good: Report) -> None:
    text = html_report(good)
    table = text[text.index('id="steps"') : text.index('id="nodes"')]
    assert table.count("<tr data-box=") == len(good.leading.steps)


def test_the_detail_counts_every_element(bad: Report) -> None:
    failing = next(step for step in bad.leading.steps if step.verdict == "fail")
    assert failing.detail is not None
    counted = failing.detail.exact + sum(failing.detail.histogram) + failing.detail.unbounded
    assert counted == np.prod(failing.shape)


def test_the_map_keeps_a_single_wrong_element() -> None:
    values = np.zeros((2, 3, 200, 1000))
    values[1, 2, 150, 777] = 0.25
    detail = detail_of("x", values, np.zeros_like(values), 1.0)
    error_map = np.array(detail.error_map)
    assert error_map.shape == (64, 64)
    assert np.argwhere(error_map).tolist() == [[150 * 64 // 200, 777 * 64 // 1000]]
    assert error_map.max() == 0.25
    assert detail.exact == values.size - 1
    used = detail.histogram.index(1)
    assert detail.edges[used] <= np.log10(0.25) <= detail.edges[used + 1]


def test_junit_counts_what_it_holds(bad: Report) -> None:
    root = tree.fromstring(junit_report(bad))
    leading = bad.leading
    rows = leading.outputs + leading.steps + leading.nodes
    cases = len(rows) + len(leading.decisions) + 1
    assert len(root.findall(".//testcase")) == cases == int(root.get("tests", ""))
    failed = [
        f"{case.get('name')}" for case in root.findall(".//testcase") if case.find("failure") is not None
    ]
    flipped = [decision.kind for decision in leading.decisions if decision.flips]
    assert failed == [row.name for row in rows if row.verdict == "fail"] + [*flipped, "verdict"]
    assert len(failed) == int(root.get("failures", ""))
    for suite in root:
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
    message = next(
        failure.get("message", "") for failure in root.iter("failure") if SLOPE in failure.get("message", "")
    )
    assert "error" in message
    assert "worst element" in message


@pytest.mark.parametrize("name", UNUSUAL)
def test_junit_is_well_formed_whatever_tensors_are_called(name: str) -> None:
    root = tree.fromstring(junit_report(UNUSUAL[name]))
    assert len(list(root.iter("testcase"))) > 0


def test_markdown_says_what_matters(good: Report, bad: Report) -> None:
    assert "PASS" in markdown_report(good).splitlines()[0]
    text = markdown_report(bad)
    assert "FAIL" in text.splitlines()[0]
    assert f"| `{SLOPE}` |" in text
    assert bad.command is not None
    assert bad.command in text
    for decision in bad.decisions:
        assert f"| {decision.kind} | {decision.count} | {decision.flips} | {decision.ties} |" in text


def test_every_report_shows_what_flips() -> None:
    """One label flips for no reason rounding has, one is tied, two agree."""
    report = UNUSUAL["decisions"]
    assert report.verdict == "fail"
    assert report.headline().endswith("outputs labels")
    assert "| labels | 4 | 1 | 1 |" in markdown_report(report)
    failures = tree.fromstring(junit_report(report)).findall(".//testcase[@name='labels']/failure")
    assert [failure.get("message", "").partition(":")[0] for failure in failures] == ["1 of 4 labels flipped"]
    assert "1 flipped, 1 tied" in report.failure_message()
    page = html_report(report)
    assert re.findall(r'data-tip="(\d+) (agreed|tied|flipped):', page) != []
    assert "not judged" in page


def test_a_margin_chart_holds_every_decision() -> None:
    (labels, *_) = UNUSUAL["decisions"].to_json()["decisions"]
    chart = margin_chart(labels["histogram"])
    assert chart is not None
    counted = dict.fromkeys(("agreed", "tied", "flipped"), 0)
    for x, y, width, height, series, said in chart.bars:
        assert 0 <= x <= x + width <= 300
        assert 0 <= y <= y + height <= 112.01
        counted[series] += int(said.split()[0])
    assert counted == {"agreed": 2, "tied": 1, "flipped": 1}


def test_masks_are_drawn_pixel_by_pixel() -> None:
    pictures = mask_pictures({"image": 0, "query": 3, "iou": 0.4, "rows": [".#-", "+<>"]})
    assert pictures is not None
    drawn = [pixels_of(uri) for uri in (pictures.reference, pictures.candidate, pictures.flips)]
    out, inside, flip, tie = OUTSIDE, INSIDE, FLIPPED, TIED
    assert drawn[0] == [[out, inside, inside], [out, inside, out]]
    assert drawn[1] == [[out, inside, out], [inside, out, inside]]
    assert [drawn[2][0][2], *drawn[2][1]] == [flip, flip, tie, tie]
    assert (pictures.flipped, pictures.tied) == (2, 2)


def pixels_of(uri: str) -> list[list[tuple[int, int, int]]]:
    """Return the colours of a picture in a data URI."""
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    return [[tuple(map(int, colour)) for colour in line] for line in pixels]


def test_what_passes_never_looks_like_more_than_its_bound() -> None:
    shown = {None: "–", 0.0: "0", 0.123: "0.12", 0.996: "0.99", 1.0: "1.0", 1.0001: "1.1", 265.4: "2.7e+02"}
    assert {value: used(value) for value in shown} == shown


def test_backticks_of_the_catalogue_become_code() -> None:
    assert str(marked("a `b < c` d")) == "a <code>b &lt; c</code> d"


def test_the_address_of_a_source_becomes_a_link() -> None:
    assert str(linked("a < b, https://c.d/e")) == 'a &lt; b, <a href="https://c.d/e">https://c.d/e</a>'
    assert str(linked("Vaswani et al. (2017)")) == "Vaswani et al. (2017)"


@pytest.mark.parametrize("name", UNUSUAL)
def test_markdown_tables_keep_their_columns(name: str) -> None:
    lines = markdown_report(UNUSUAL[name]).splitlines()
    tables = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
    assert set(tables) <= {8, 9}
    assert "<script>" not in re.sub(r"\\<|`[^`]*`", "", "\n".join(lines))


def test_the_command_line_writes_them_all(folder: Path, tmp_path: Path) -> None:
    words = [
        "verify",
        str(folder / "bad.onnx"),
        "--model",
        "topformer-tiny",
        "--set",
        "dim=32",
        "--set",
        "num_queries=5",
    ]
    words += ["--weights", str(folder / "w.safetensors"), "--input", str(folder / "x.npy")]
    outputs = {kind: tmp_path / f"report.{kind}" for kind in ("html", "junit", "markdown", "json")}
    reports = [word for kind, path in outputs.items() for word in (f"--{kind}", str(path))]
    result = CliRunner().invoke(app, [*words, *reports])
    assert result.exit_code == 1, result.output
    command = json.loads(outputs["json"].read_text())["command"]
    assert command.startswith("mobileinst verify ")
    # Its own words, in any order: what it is run again with is what it was run with.
    assert all(word in command for word in words[1:])
    assert command in outputs["markdown"].read_text()
    assert "<!doctype html>" in outputs["html"].read_text()
    tree.parse(outputs["junit"])


def test_the_documented_commands_are_those_of_the_program() -> None:
    documents = Path(__file__).parents[3] / "docs"
    command = get_command(app)
    options = {
        name: {option for parameter in each.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, each in command.commands.items()  # type: ignore[attr-defined]
    }
    joined = re.sub(
        r"\\\n|\n +(?=--)",
        " ",
        "\n".join((documents / name).read_text() for name in ("ci.md", "judge.md", "faults.md")),
    )
    used = re.findall(r"mobileinst (\w+)([^\n`]*)", joined)
    given = [
        (name, option) for name, rest in used if name in options for option in re.findall(r"--[a-z-]+", rest)
    ]
    assert len(given) > 10
    assert [pair for pair in given if pair[1] not in options[pair[0]]] == []


def test_the_command_of_files_repeats_the_verdict(bad: Report) -> None:
    assert bad.command is not None
    result = CliRunner().invoke(app, [*shlex.split(bad.command)[1:], "--json", "-"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["first_fault"]["step"] == SLOPE


def test_a_failed_report_raises_what_a_test_should_say(good: Report, bad: Report) -> None:
    good.raise_on_failure()
    with pytest.raises(VerificationError) as caught:
        bad.raise_on_failure()
    lines = str(caught.value).splitlines()
    assert lines[0] == bad.headline()
    assert any(line.split()[:1] == [SLOPE] for line in lines)
    assert lines[-1].endswith(bad.command or "?")


def test_verify_says_what_it_cannot_use() -> None:
    weights = Weights.seeded(CONFIG, seed=0)
    with pytest.raises(CandidateError, match="which has no run, capture"):
        conformance.verify(object(), CONFIG, weights, np.zeros((1, 3, 64, 64)))  # type: ignore[arg-type]
    model = onnx_export.export(MobileInst(CONFIG, weights), np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(ConfigurationError, match="expected a MobileInstConfig"):
        conformance.verify(model, None, weights, np.zeros((1, 3, 64, 64)))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="no inputs"):
        conformance.verify(model, CONFIG, weights, {})


PLUGIN_TEST = """
from refimpl import MobileInstConfig
CONFIG = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)

def test_good(mobileinst_verify):
    assert mobileinst_verify({good!r}, CONFIG, {weights!r}, {images!r}).verdict == "pass"

def test_bad(mobileinst_verify):
    mobileinst_verify({bad!r}, CONFIG, {weights!r}, {images!r})

def test_of_another_preset(mobileinst_verify):
    mobileinst_verify({good!r}, "topformer-tiny", {weights!r}, {images!r})
"""


def test_the_fixture_fails_a_test_with_the_report(folder: Path, pytester: pytest.Pytester) -> None:
    names = {"good": "good.onnx", "bad": "bad.onnx", "weights": "w.safetensors", "images": "x.npy"}
    pytester.makepyfile(PLUGIN_TEST.format(**{key: str(folder / name) for key, name in names.items()}))
    run = pytester.runpytest_inprocess("--mobileinst-reports=pages")
    run.assert_outcomes(passed=1, failed=2)
    run.stdout.fnmatch_lines(
        ["FAIL  bad.onnx leaves the reference at *", f"*{SLOPE}*", "*reproduce  mobileinst verify *"]
    )
    run.stdout.fnmatch_lines(["the candidate cannot be judged: the weights do not fit *--set dim=32*"])
    assert "During handling" not in run.stdout.str()
    # No frame of ours, only what is to be done.
    assert not re.search(r"(conformance|refimpl)/\w+\.py", run.stdout.str())
    pages = sorted(path.name for path in (pytester.path / "pages").iterdir())
    assert len(pages) == 2
    assert "test_bad" in pages[0]


@pytest.mark.parametrize(
    "preset", ["seaformer-tiny", "table3/local", "table5/fpn-1conv", "sparseinst-topformer-tiny"]
)
def test_every_kind_of_network_can_be_drawn(preset: str) -> None:
    """Every step once, in boxes that do not overlap and lie within the figure."""
    config = MobileInstConfig.preset(preset)
    recording = record(MobileInst(config, Weights.seeded(config, seed=0)), np.zeros((1, 3, 64, 64)))
    steps = [
        dataclasses.asdict(row(name, shape=recording.tensors[name].shape)) for _, name in recording.results()
    ]
    figure = architecture_figure(steps, (1, 3, 64, 64))
    assert figure is not None
    assert sorted(step["name"] for box in figure.boxes for step in box.steps) == sorted(
        step["name"] for step in steps
    )
    for number, box in enumerate(figure.boxes):
        assert 0 <= box.x <= box.x + box.width <= 1200
        assert 0 <= box.y <= box.y + box.height <= figure.height
        for other in figure.boxes[number + 1 :]:
            beside = box.x + box.width <= other.x or other.x + other.width <= box.x
            assert beside or box.y + box.height <= other.y or other.y + other.height <= box.y


@pytest.mark.parametrize("name", ["good", "bad", *UNUSUAL])
def test_a_report_is_ten_lines_of_80_columns(name: str, request: pytest.FixtureRequest) -> None:
    report = UNUSUAL[name] if name in UNUSUAL else request.getfixturevalue(name)
    lines = str(report).splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(report.verdict.upper())


def test_a_failing_report_says_where_and_why_before_anything_else(bad: Report) -> None:
    said = str(bad)
    assert f"at        {SLOPE} (HardSigmoid)" in said
    assert "coverage  " in said
    assert "likely    " in said
    assert f"<pre>{said.splitlines()[0]}" in bad._repr_html_()
    assert (bad.html(), bad.junit(), bad.markdown()) == (
        html_report(bad),
        junit_report(bad),
        markdown_report(bad),
    )
