"""Seeded weights kept between verdicts: found again for the same content only.

Whatever happens to the files or to the processes that write them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import narrow_network
import numpy as np
import pytest
from narrow_network import CONFIG, weights

from conformance.judge import weights_cache
from conformance.judge.weights_cache import seeded_weights
from refimpl import Weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache that holds the weights."""
    seeded_weights(CONFIG, 0, tmp_path / "new" / "cache")
    return tmp_path / "new" / "cache"


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def is_same(one: Weights, other: Weights) -> bool:
    """Tell whether two sets of weights agree in everything."""
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def refuse(*_: object) -> None:
    raise AssertionError("made again")


def test_the_same_content_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights()
    monkeypatch.setattr(Weights, "seeded", refuse)
    assert is_same(seeded_weights(CONFIG, 0, folder), expected)
    for config, seed in ((CONFIG, 1), (replace(CONFIG, num_queries=6), 0)):
        with pytest.raises(AssertionError, match="made again"):
            seeded_weights(config, seed, folder)
    monkeypatch.setattr(weights_cache, "code_key", lambda: "other code")
    with pytest.raises(AssertionError, match="made again"):
        seeded_weights(CONFIG, 0, folder)


def test_what_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than the cache; without one; where it cannot be written."""
    assert is_same(seeded_weights(CONFIG, 0, None), weights())
    monkeypatch.setattr(weights_cache, "MOST_BYTES", 1000)
    assert is_same(seeded_weights(CONFIG, 0, tmp_path), weights())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    assert is_same(seeded_weights(CONFIG, 0, tmp_path / "file"), weights())


def test_a_damaged_file_is_never_believed(folder: Path) -> None:
    path = entry(folder)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    places = [0, 9, 60, length // 2, 8 + length, len(whole) // 2]
    damaged = [whole[:size] for size in (0, 5, 100, 8 + length, len(whole) // 2, len(whole) - 64)]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    damaged.append(whole.replace(b'"shape":[64,16,1,1]', b'"shape":[16,64,1,1]'))
    assert damaged[-1] != whole
    for content in damaged:
        path.write_bytes(content)
        assert is_same(seeded_weights(CONFIG, 0, folder), weights())
        assert path.read_bytes() == whole


def test_the_oldest_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = entry(folder)
    monkeypatch.setattr(weights_cache, "MOST_BYTES", int(2.5 * first.stat().st_size))
    for age, seed in ((300, 0), (200, 1), (100, 2)):
        seeded_weights(CONFIG, seed, folder)
        made = folder / f"{weights_cache._key(CONFIG, seed)}.weights"
        os.utime(made, (time.time() - age,) * 2)
    assert len(list(folder.iterdir())) == 2
    assert not first.exists()


# --- processes ------------------------------------------------------------------------------------

WRITER = """
import signal, sys, time
from pathlib import Path
from narrow_network import CONFIG
from conformance.judge import weights_cache

# Who starts a process in the background may have it ignore the interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
save_file = weights_cache.save_file

def half(arrays, path, metadata):
    save_file(arrays, path, metadata)
    if sys.argv[2] == "slow":
        with open(path, "r+b") as file:
            file.truncate(Path(path).stat().st_size // 2)
        print("writing", flush=True)
        time.sleep(60)

weights_cache.save_file = half
weights_cache.seeded_weights(CONFIG, 0, Path(sys.argv[1]))
"""


def writer(folder: Path, speed: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    paths = [str(Path(narrow_network.__file__).parent), str(Path(weights_cache.__file__).parents[2])]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), speed],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_write_leaves_nothing_to_believe(tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "cache"
    process = writer(folder, "slow")
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(how)
    assert process.wait(30) != 0
    process.stdout.close()
    left = list(folder.iterdir())
    assert all(path.name.startswith(".") for path in left)
    assert how == signal.SIGKILL or left == []
    for path in left:
        os.utime(path, (time.time() - 2 * weights_cache.ABANDONED,) * 2)
    assert is_same(seeded_weights(CONFIG, 0, folder), weights())
    assert not entry(folder).name.startswith(".")


def test_two_processes_write_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    processes = [writer(folder, "fast") for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    assert not entry(folder).name.startswith(".")
    assert is_same(seeded_weights(CONFIG, 0, folder), weights())
