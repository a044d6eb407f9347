"""Runs of the reference kept between verdicts: found again for the same content only, whatever happens to the
files or to the processes that write them."""

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
from narrow_network import CONFIG, network, picture, weights

from conformance.candidates.plain import NumpyCandidate
from conformance.judge import recording_cache
from conformance.judge.network import verify
from conformance.judge.recording_cache import cached_recording
from refimpl import MobileInst, Recording, record
from refimpl.model import KernelReuse
from refimpl.ops.operation import Array
from refimpl.topformer import TopFormerSpec

IMAGES = picture().astype(np.float64)


@pytest.fixture(scope="module")
def expected() -> Recording:
    """The run, computed without a cache."""
    return record(network(np.float64), IMAGES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache that holds the run."""
    cached_recording(network(np.float64), IMAGES, tmp_path / "new" / "cache")
    return tmp_path / "new" / "cache"


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def is_same(one: Recording, other: Recording) -> bool:
    """Tell whether two runs agree in everything."""
    fields = ("inputs", "outputs", "weights", "constants", "blocks")
    structure = all(getattr(one, name) == getattr(other, name) for name in fields)
    steps = [(s.name, s.operation, s.inputs, s.outputs, repr(s.attributes)) for s in one.steps]
    others = [(s.name, s.operation, s.inputs, s.outputs, repr(s.attributes)) for s in other.steps]
    return structure and steps == others and _same_tensors(one.tensors, other.tensors)


def _same_tensors(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def refuse(*_: object) -> None:
    raise AssertionError("computed again")


def test_the_same_content_is_found_again(
    folder: Path, expected: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_cache, "_noting", refuse)
    assert is_same(cached_recording(network(np.float64), IMAGES, folder), expected)
    other = weights(np.float64).astype(np.float64)
    name = "instance_decoder.queries"
    changed = {**other, name: np.nextafter(other[name], np.inf)}
    spec = network().spec
    assert isinstance(spec, TopFormerSpec)
    first, second, *rest = spec.rows
    assert first[3] != second[3]
    strided = replace(spec, rows=((*first[:3], second[3]), (*second[:3], first[3]), *rest))
    for model, images in (
        (network(np.float64), np.nextafter(IMAGES, np.inf)),
        (MobileInst(CONFIG, changed), IMAGES),
        (MobileInst(CONFIG, other, strided), IMAGES),
    ):
        with pytest.raises(AssertionError, match="computed again"):
            cached_recording(model, images, folder)


def test_what_is_not_kept(tmp_path: Path, expected: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a network, which its content does not name; what is larger than the cache; without one."""
    full = network(np.float64)
    kernels = np.zeros((1, CONFIG.num_queries, CONFIG.dim))
    cached_recording(KernelReuse(full, kernels), IMAGES, tmp_path)
    assert is_same(cached_recording(full, IMAGES, None), expected)
    monkeypatch.setattr(recording_cache, "MOST_BYTES", 1000)
    assert is_same(cached_recording(full, IMAGES, tmp_path), expected)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    assert is_same(cached_recording(full, IMAGES, tmp_path / "file"), expected)


def test_a_damaged_file_is_never_believed(folder: Path, expected: Recording) -> None:
    path = entry(folder)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    places = [0, 9, 60, length // 2, 8 + length, len(whole) // 2]
    damaged = [whole[:size] for size in (0, 5, 100, 8 + length, len(whole) // 2, len(whole) - 64)]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    damaged.append(whole.replace(b'"shape":[1,16,32,48]', b'"shape":[1,16,48,32]'))
    assert damaged[-1] != whole
    for content in damaged:
        path.write_bytes(content)
        assert is_same(cached_recording(network(np.float64), IMAGES, folder), expected)
        assert path.read_bytes() == whole


def test_the_oldest_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = entry(folder)
    monkeypatch.setattr(recording_cache, "MOST_BYTES", int(2.5 * first.stat().st_size))
    for age, shift in ((300, 0), (200, 1), (100, 2)):
        images = IMAGES + shift
        cached_recording(network(np.float64), images, folder)
        made = folder / f"{recording_cache._key(network(np.float64), images)}.recording"
        os.utime(made, (time.time() - age,) * 2)
    assert len(list(folder.iterdir())) == 2
    assert not first.exists()


# --- processes ------------------------------------------------------------------------------------

WRITER = """
import signal, sys, time
from pathlib import Path
import numpy as np
from narrow_network import network, picture
from conformance.judge import recording_cache

# Who starts a process in the background may have it ignore the interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
save_file = recording_cache.save_file

def half(arrays, path, metadata):
    save_file(arrays, path, metadata)
    if sys.argv[2] == "slow":
        with open(path, "r+b") as file:
            file.truncate(Path(path).stat().st_size // 2)
        print("writing", flush=True)
        time.sleep(60)

recording_cache.save_file = half
recording_cache.cached_recording(network(np.float64), picture().astype(np.float64), Path(sys.argv[1]))
"""


def writer(folder: Path, speed: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    paths = [str(Path(narrow_network.__file__).parent), str(Path(recording_cache.__file__).parents[2])]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), speed],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_write_leaves_nothing_to_believe(
    tmp_path: Path, expected: Recording, how: signal.Signals
) -> None:
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
        os.utime(path, (time.time() - 2 * recording_cache.ABANDONED,) * 2)
    assert is_same(cached_recording(network(np.float64), IMAGES, folder), expected)
    assert not entry(folder).name.startswith(".")


def test_two_processes_write_the_same(tmp_path: Path, expected: Recording) -> None:
    folder = tmp_path / "cache"
    processes = [writer(folder, "fast") for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    assert not entry(folder).name.startswith(".")
    assert is_same(cached_recording(network(np.float64), IMAGES, folder), expected)


def test_a_second_verdict_is_the_first(tmp_path: Path) -> None:
    reports = [
        verify(NumpyCandidate(CONFIG, weights()), CONFIG, weights(), {"x": picture()}, cache=tmp_path)
        for _ in range(2)
    ]
    assert len(list(tmp_path.glob("*.recording"))) == len(list(tmp_path.glob("*.json"))) == 1
    assert reports[0].to_json() == reports[1].to_json()
