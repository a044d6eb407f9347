"""Names in other people's files are shown and never obeyed: by the terminal, by rich, by Markdown."""

from __future__ import annotations

import functools
import io
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from narrow_network import CONFIG, picture, weights
from onnx import TensorProto, helper
from rich.table import Table

from conformance.candidates.plain import NumpyCandidate
from conformance.cli import main
from conformance.cli.terminal import PlainConsole, coloured, working
from conformance.faults import CATALOGUE
from conformance.judge.network import verify
from conformance.reports.markdown_report import markdown_report
from conformance.reports.printable import printable
from conformance.reports.report import Report

pytestmark = pytest.mark.usefixtures("small_backbones")

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "[/bold]t",
    "[bold red]t[/]",
    "[link=file:///etc/passwd]t",
    ":smile:",
    "a\nPASS  everything",
    "a\rPASS",
    "a\b\b\bb",
    "\u202egnp.exe",
    "a\u2028b\u0085c",
    "\t",
    "\ud800",
]
STEERING = {"Cc", "Cf", "Zl", "Zp", "Cs"}


def steers(text: str) -> bool:
    return any(unicodedata.category(char) in STEERING for char in text)


@given(st.text())
def test_nothing_shown_steers_and_nothing_harmless_is_changed(text: str) -> None:
    assert not steers(printable(text))
    assert all(char in printable(text) for char in text if char.isprintable())


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])))
def test_what_steers_nothing_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_the_console_shows_a_name_wherever_it_stands(name: str) -> None:
    out = io.StringIO()
    console = PlainConsole(file=out, width=200, force_terminal=False)
    table = Table(name, title=name)
    table.add_row(name)
    table.add_row(coloured(name, "red"))
    console.print(table)
    console.print(f"the tensor {name}")
    lines = out.getvalue().splitlines()
    assert len(lines) == 8  # three of them the frame
    assert not any(steers(line) for line in lines)
    assert sum(printable(name).rstrip() in line for line in lines) == 5


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_may_be_what_is_being_done(name: str) -> None:
    with working(name) as progress:
        progress(name)


def hostile_model(name: str) -> onnx.ModelProto:
    """Return a graph whose tensors and nodes bear a name."""
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, [2]) for each in (f"x{name}", f"y{name}"))
    node = helper.make_node("Relu", [x.name], [y.name], name=name)
    graph = helper.make_graph([node], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "\ud800"], ids=ascii)
def test_a_verdict_on_a_graph_shows_its_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(hostile_model(name), tmp_path / "m.onnx")
    # A verdict stands in the first line and, in one line, in the last.
    for words, codes, verdicts in (
        (["verify", "--graph-only"], {0}, 2),
        (["lint"], {0, 1}, 1),
        (["verify"], {2}, 1),
    ):
        monkeypatch.setattr(sys, "argv", ["mobileinst", words[0], str(tmp_path / "m.onnx"), *words[1:]])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code in codes
        said = capsys.readouterr()
        assert not any(steers(line) for line in (said.out + said.err).split("\n"))
        lines = (said.out + said.err).split("\n")
        assert sum(line.startswith(("PASS", "FAIL", "error")) for line in lines) == verdicts


# Markdown.


@functools.cache
def verdict() -> Report:
    return verify(NumpyCandidate(CONFIG, weights()), CONFIG, weights(), {"x": picture()})


def report_of(name: str) -> Report:
    """Return a verdict in which a name stands wherever a file's name or a tensor's does."""
    found = verdict()
    steps = [replace(row, name=name, verdict="fail") for row in found.leading.steps[:3]]
    outputs = [replace(row, name=name) for row in found.leading.outputs]
    item = replace(found.leading, name=name, steps=steps, outputs=outputs, problems=[name])
    second = replace(item, name=f"{name} (2)")
    return Report([item, second], name, found.model, found.tolerance, command=f"mobileinst verify {name}")


def shape_of(text: str) -> list[str]:
    """Return what a Markdown parser makes of a text: its blocks, without the words."""
    return [token.type for token in MarkdownIt("gfm-like", {"linkify": False}).parse(text)]


@pytest.mark.parametrize(
    "name",
    [*HOSTILE, "a\n## PASS", "```\n# b", "a|b", "<script>", "- a", "1. a", "    a", "# a", "a\n\n| b |"],
    ids=ascii,
)
def test_a_name_does_not_break_out_of_markdown(name: str) -> None:
    plain, hostile = markdown_report(report_of("plain")), markdown_report(report_of(name))
    assert shape_of(hostile) == shape_of(plain)
    assert not steers(hostile.replace("\n", ""))


def test_the_catalogue_is_text() -> None:
    """What we write ourselves needs no escape, so nobody looks for one."""
    for fault in CATALOGUE.values():
        assert printable(fault.happens) == fault.happens
