"""`mobileinst cache`: shows what is kept, and removes that and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import narrow_network
import numpy as np
import pytest
from typer.testing import CliRunner

from conformance.bounds import Declaration
from conformance.cli import app
from conformance.judge.envelope_cache import cached_envelope
from conformance.judge.weights_cache import seeded_weights
from refimpl import record

pytestmark = pytest.mark.usefixtures("small_backbones")


def cache(*words: str) -> str:
    done = CliRunner().invoke(app, ["cache", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mobileinst"


def test_an_empty_cache(folder: Path) -> None:
    assert cache() == f"{folder}: 0 files, 0.0 MB\n"
    assert cache("--clear") == f"{folder}: 0 files, 0.0 MB, removed\n"
    assert not folder.exists()


def test_what_verdicts_keep_is_shown_and_removed_and_nothing_else(folder: Path) -> None:
    images = narrow_network.picture().astype(np.float64)
    seeded_weights(narrow_network.CONFIG, 0, folder)
    cached_envelope(record(narrow_network.network(np.float64), images), Declaration(), folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    (folder / "mine.json").write_text("{}")
    shown = json.loads(cache("--json", "-"))
    assert shown == {"folder": str(folder), "files": 2, "bytes": size, "cleared": False}
    assert json.loads(cache("--clear", "--json", "-")) == {**shown, "cleared": True}
    assert [path.name for path in folder.iterdir()] == ["mine.json"]
