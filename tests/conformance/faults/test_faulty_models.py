"""Models with one fault each, written by `mobileinst faults --write`, and what the judge says of five of
them."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as tree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conformance.cli import app

pytestmark = pytest.mark.usefixtures("small_backbones")

FAULTS = [
    "activation/ReLU6 instead of ReLU",
    "convolution/padded at the end",
    "preprocessing/BGR",
    "resize/corners aligned",
    "weights/int8 per channel",
]
"""Of five categories."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return fault → what the command says of its model."""
    folder = tmp_path_factory.mktemp("written") / "faulty"
    words = ["faults", *FAULTS, "--network", "sparseinst-topformer-tiny", "--write", str(folder)]
    result = CliRunner().invoke(app, [*words, "--json", "-"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    models = {item["fault"]: item for item in json.loads(result.stdout)}
    readme = (folder / "README.md").read_text()
    assert all((folder / item["file"]).is_file() and item["command"] in readme for item in models.values())
    return models


def test_every_fault_asked_for_is_written(written: dict[str, dict[str, Any]]) -> None:
    assert sorted(written) == FAULTS


@pytest.mark.parametrize("fault", FAULTS)
def test_the_judge_names_step_and_mistake_in_every_report(
    written: dict[str, dict[str, Any]], fault: str, tmp_path: Path
) -> None:
    item = written[fault]
    words = shlex.split(item["command"])
    assert words[:2] == ["mobileinst", "verify"]
    paths = {kind: tmp_path / f"report.{kind}" for kind in ("json", "junit", "markdown")}
    options = [word for kind, path in paths.items() for word in (f"--{kind}", str(path))]
    result = CliRunner().invoke(app, [*words[1:], *options], catch_exceptions=False)
    assert result.exit_code == 1, result.output
    report = json.loads(paths["json"].read_text())
    step = report["first_fault"]["step"]
    # Where it was put is the injection's own account.
    assert item["call"] in report["first_fault"]["candidate_nodes"]
    assert step in report["headline"]
    assert fault in report["headline"]
    assert report["headline"] in result.stdout
    assert report["headline"] in Path(words[words.index("--html") + 1]).read_text()
    markdown = paths["markdown"].read_text().replace("\\", "")
    assert report["headline"] in markdown.splitlines()[0]
    assert f"Likely: **{fault}" in markdown
    verdict = tree.parse(paths["junit"]).find(".//testcase[@name='verdict']/failure")
    assert verdict is not None
    assert step in verdict.get("message", "")
    assert fault in verdict.get("message", "")


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    words = [
        "faults",
        "preprocessing/BGR",
        "--network",
        "sparseinst-topformer-tiny",
        "--write",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, words)
    assert "exists and is no empty folder" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
