"""A sweep on Dask's workers: the same rows, whoever dies in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import numpy as np
import pytest
from narrow_network import CONFIG, OPTIONS, SIZE, weights
from sweep_folder import fill

from conformance.candidates.child_process import python_command, safe_environment
from conformance.candidates.kinds import Request
from conformance.sweep import pools
from conformance.sweep.pools import DaskPool, StationPlugin, dask_pool, station_of
from conformance.sweep.rows import read_rows
from conformance.sweep.station import Setup, model_hash, project_hash
from refimpl.errors import ConfigurationError

pytestmark = pytest.mark.runtimes

COUNT, FEW = 32, 4
LONGEST = 500.0
"""Seconds that a sweep may take on a busy machine."""
MAIN = "from conformance.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network, and pictures."""
    place = tmp_path_factory.mktemp("sweep")
    fill(place, COUNT)
    return place


def started(folder: Path, *words: str, model: Sequence[str] = ("n.onnx",)) -> subprocess.Popen[str]:
    """Start a sweep."""
    line = [
        "sweep",
        *model,
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


SLOW = """
import os
import time
import onnxruntime

session = onnxruntime.InferenceSession("n.onnx")
names = [output.name for output in session.get_outputs()]


def slow(images):
    time.sleep(0.1)
    return dict(zip(names, session.run(names, {"images": images})))


def wrong(images):
    outputs = slow(images)
    return {**outputs, "masks": outputs["masks"] + 1}


def deadly(images):
    os.kill(os.getppid(), 9)
"""


@contextmanager
def scheduled(folder: Path, workers: int = 1) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Give a scheduler's address and process, and workers to it."""
    said_at = folder / "of a few.json"
    said_at.unlink(missing_ok=True)
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    with ExitStack() as stack:
        words = ("distributed.cli.dask_scheduler", "--scheduler-file", str(said_at), *options)
        scheduler = stack.enter_context(background(*words))
        for _ in range(workers):
            stack.enter_context(worker_of(address(said_at)))
        yield address(said_at), scheduler


def worker_of(where: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run a worker until the block ends."""
    return background("distributed.cli.dask_worker", where, "--nthreads", "1", "--no-dashboard", "--no-nanny")


def given(folder: Path, name: str, where: str, *words: str) -> subprocess.Popen[str]:
    """Start a sweep of a slow candidate on a scheduler's workers, and a few pictures."""
    few = folder / "few"
    few.mkdir(exist_ok=True)
    for number in range(FEW):
        shutil.copy(folder / "pictures" / f"{number}.png", few)
    (folder / "s.py").write_text(SLOW.replace("n.onnx", str(folder / "n.onnx")))
    about = ["--candidate", f"python:{folder}/s.py:{name}", "--size", "64x96", "--scheduler", where]
    return started(folder, *about, "--inputs", "few", "--output", name, *words, model=())


def test_two_sweeps_at_once_on_one_scheduler_are_apart(folder: Path) -> None:
    with scheduled(folder) as (where, _):
        right, wrong = (given(folder, name, where) for name in ("slow", "wrong"))
        codes = [ended(process) for process in (right, wrong)]
    assert [code for code, _ in codes] == [0, 1], codes
    verdicts = [{row["verdict"] for row in rows_of(folder / name, "pictures")} for name in ("slow", "wrong")]
    assert verdicts == [{"pass"}, {"fail"}]


def test_a_scheduler_killed_before_there_are_rows_is_named(folder: Path) -> None:
    with scheduled(folder) as (where, scheduler):
        process = given(folder, "slow", where, "--output", "early")
        while not (folder / "early" / "parts").is_dir():
            assert process.poll() is None
            time.sleep(0.05)
        scheduler.kill()
        code, said = ended(process)
    assert code == 2, said
    assert "the scheduler is gone" in said
    assert "Traceback" not in said


def test_workers_that_die_of_a_picture_are_named(folder: Path) -> None:
    (folder / "s.py").write_text(SLOW)
    words = ("--candidate", "python:s.py:deadly", "--size", "64x96", "--workers", "1", "--output", "dead")
    code, said = ended(started(folder, *words, model=()))
    assert code == 2, said
    assert "workers died of" in said


def test_no_worker_that_is_left_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL", "ASK", "WORKERS"):
        monkeypatch.setattr(pools, name, 0.01)
    pool = DaskPool(SimpleNamespace(nthreads=dict), Setup("", Request("", CONFIG, {}), SIZE, LONGEST, 0.0))
    with pytest.raises(ConfigurationError, match="no worker is left; finished rows are kept"):
        pool._wait(lambda: False)


def test_a_server_that_never_answers_is_no_scheduler(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = "tcp://{}:{}".format(*server.getsockname())
        code, said = ended(started(folder, "--scheduler", where, "--output", "none"))
    assert code == 2
    assert f"no scheduler answers at {where}" in said


def test_a_worker_that_joins_later_with_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup("numpy:float32", Request("", CONFIG, dict(weights())), SIZE, LONGEST, 0.0)
    plugin = StationPlugin(setup, "mobileinst-of-this-sweep")
    worker = SimpleNamespace(periodic_callbacks={}, plugins={plugin.name: plugin})
    with pytest.raises(ConfigurationError, match="another version"):
        plugin.setup(worker)
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    with pytest.raises(ConfigurationError, match="another version"):
        station_of(plugin.name)


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
