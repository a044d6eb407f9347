"""A sweep on Dask's workers: the same rows, whoever dies in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow_network import CONFIG, OPTIONS, SIZE, weights
from sweep_folder import fill

from conformance.candidates.child_process import python_command, safe_environment
from conformance.candidates.kinds import Request
from conformance.sweep.pools import dask_pool
from conformance.sweep.rows import read_rows
from conformance.sweep.station import Setup, model_hash, project_hash
from refimpl.errors import ConfigurationError

pytestmark = pytest.mark.runtimes

COUNT = 32
LONGEST = 500.0
"""Seconds that a sweep may take on a busy machine."""
MAIN = "from conformance.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network, and pictures."""
    place = tmp_path_factory.mktemp("sweep")
    fill(place, COUNT)
    return place


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a sweep."""
    line = [
        "sweep",
        "n.onnx",
        *OPTIONS,
        "--weights",
        "w.npz",
        "--inputs",
        "pictures",
        "--share",
        "0.05",
        *words,
    ]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", MAIN, *line],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**safe_environment(), "XDG_CACHE_HOME": str(folder / "cache")},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and what was printed."""
    said, _ = process.communicate(timeout=LONGEST)
    return process.returncode, said


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    return [row for part in read_rows(folder / "parts", table) for row in part]


def begun(folder: Path, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return the pictures that are finished, as soon as there are some."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline and process.poll() is None:
        if found := rows_of(folder, "pictures"):
            return found
        time.sleep(0.05)
    pytest.fail(f"no part was finished: {process.stdout and process.stdout.read()}")


def judged(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what was found, without what it cost."""
    columns = ("picture", "step", "part", "judged", "error", "introduced", "bound", "utilisation", "verdict")
    steps = [tuple(row[name] for name in columns) for row in rows_of(folder, "steps")]
    pictures = [(row["picture"], row["verdict"], row["sha256"]) for row in rows_of(folder, "pictures")]
    return {"steps": steps, "pictures": pictures}


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What this process alone finds."""
    code, said = ended(started(folder, "--output", "whole"))
    assert code == 0, said
    return judged(folder / "whole")


def test_rows_are_parquet_that_others_read(folder: Path, whole: dict[str, list[Any]]) -> None:
    import pyarrow.parquet

    files = sorted(Path(folder, "whole", "parts").glob("*.steps.parquet"))
    tables = [pyarrow.parquet.read_table(file) for file in files]
    assert sum(table.num_rows for table in tables) == len(whole["steps"])
    used = np.concatenate([table["utilisation"].to_numpy(zero_copy_only=False) for table in tables])
    assert np.nanmax(used.astype(np.float64)) <= 1


def test_a_killed_worker_changes_nothing(folder: Path, whole: dict[str, list[Any]]) -> None:
    process = started(folder, "--output", "killed", "--workers", "2")
    victim = int(begun(folder / "killed", process)[0]["worker"])
    os.kill(victim, signal.SIGKILL)
    code, said = ended(process)
    assert code == 0, said
    assert "dashboard http" in said
    assert judged(folder / "killed") == whole
    workers = {row["worker"] for row in rows_of(folder / "killed", "pictures")}
    assert len(workers) >= 2


@contextmanager
def background(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of Dask's until the block ends."""
    process = subprocess.Popen(
        python_command(*words),
        env=safe_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        with suppress(OSError):
            process.kill()
        process.wait()


def address(file: Path) -> str:
    """Return where a scheduler answers, as soon as it says so."""
    deadline = time.monotonic() + LONGEST
    while not (file.exists() and "tcp://" in file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return next(word for word in file.read_text().split('"') if word.startswith("tcp://"))


def test_a_killed_scheduler_is_named_and_the_sweep_goes_on(folder: Path, whole: dict[str, list[Any]]) -> None:
    said_at = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    with background(
        "distributed.cli.dask_scheduler", "--scheduler-file", str(said_at), *options
    ) as scheduler:
        where = address(said_at)
        with background("distributed.cli.dask_worker", where, "--nthreads", "1", "--no-dashboard"):
            process = started(folder, "--output", "lost", "--scheduler", where)
            begun(folder / "lost", process)
            scheduler.kill()
            code, said = ended(process)
    assert code == 2, said
    assert "the scheduler is gone" in said
    kept = len(rows_of(folder / "lost", "pictures"))
    assert 0 < kept < COUNT
    code, said = ended(started(folder, "--output", "lost", "--resume"))
    assert code == 0, said
    assert judged(folder / "lost") == whole


def test_no_scheduler_is_named(folder: Path) -> None:
    code, said = ended(started(folder, "--scheduler", "tcp://127.0.0.1:1", "--output", "none"))
    assert code == 2
    assert "no scheduler answers at tcp://127.0.0.1:1" in said


@pytest.mark.parametrize("other", ["model", "project"])
def test_a_worker_with_another_version_is_refused(folder: Path, other: str) -> None:
    model = folder / "n.onnx"
    setup = Setup(
        "onnxruntime",
        Request("", CONFIG, dict(weights()), model, threads=1),
        SIZE,
        LONGEST,
        0.0,
        model_sha256=model_hash("onnxruntime", model),
        project_sha256=project_hash(),
    )
    wrong = replace(setup, **{f"{other}_sha256": "0" * 64})
    said = "the worker has another .*" + {"model": "n.onnx", "project": "version"}[other]
    with pytest.raises(ConfigurationError, match=said), dask_pool(wrong, 1, None):
        pass
