"""Runs by a real process that plays TNNTest's traps: what is right comes back, what is not is named."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tnn_data import file, graph, graph_names, inputs, naive_outputs, unpacked

from conformance.cli import main
from conformance.tnn.adb import AdbRunner
from conformance.tnn.batch import run_batch
from conformance.tnn.runner import LocalRunner, Settings, found_arithmetic
from conformance.tnn.text import read_output
from refimpl.errors import CandidateError, ConfigurationError, FileError

HERE = Path(__file__).parents[2] / "support"
PROGRAM = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'tnn_stand_in.py'))}"


@pytest.fixture
def trap(monkeypatch):
    """Choose the model and the trap of the stand-in."""

    def choose(name: str, mode: str = "") -> None:
        monkeypatch.setenv("STAND_IN_ONNX", str(file(name, ".onnx")))
        monkeypatch.setenv("STAND_IN_MODE", mode)

    return choose


def run(name: str, runner=None, settings: Settings | None = None):
    runner = runner or LocalRunner.parse(PROGRAM)
    return runner.run(file(name, ".tnnproto"), inputs(name), settings or Settings(timeout=30))


@pytest.mark.parametrize("name", ["mha", "multi_io"])
def test_a_run_gives_the_outputs_of_the_other_library(name, trap):
    trap(name)
    found = run(name)
    assert (found.arithmetic, "cost" in found.log, found.seconds > 0) == ("float32", True, True)
    for output, values in naive_outputs(name).items():
        np.testing.assert_allclose(found.outputs[output], values, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("error", r"exited with 0 and said 'E/tnn: .*empty implemented_layouts.*'; a layer has no kernel"),
        ("silent", "no output although it exited with 0"),
        ("status", "exited with 3"),
        ("crash", "exited with -6"),
        ("short", "too short"),
        ("renamed", r"outputs \['z'\], the graph has \['y'\]"),
        ("integers", "integers"),
        ("half", "HIGH on ARM is float32, the outputs have the errors of float16"),
    ],
)
def test_traps_are_named(mode, message, trap):
    trap("mha", mode)
    with pytest.raises((CandidateError, FileError), match=message):
        run("mha", settings=Settings("ARM", "HIGH", timeout=30))


def test_a_program_that_hangs_is_ended_with_all_it_started(trap):
    trap("mha", "hang")
    start = time.monotonic()
    wrapped = LocalRunner(("sh", "-c", f'{PROGRAM} "$@"; true', "sh"))
    with pytest.raises(CandidateError, match=r"no answer within 2 s, stopped; its log: loading"):
        run("mha", wrapped, Settings(timeout=2))
    assert time.monotonic() - start < 10


def test_nan_is_a_value_and_not_a_failure_of_the_run(trap):
    trap("mha", "nan")
    assert np.isnan(run("mha").outputs["y"].ravel()[-1])


def test_precision_asked_for_and_found(trap):
    trap("mha", "half")
    assert run("mha", settings=Settings("ARM", "AUTO", timeout=30)).arithmetic == "reduced"
    trap("mha")
    # A CPU without float16 gives float32, and says nothing.
    assert run("mha", settings=Settings("ARM", "AUTO", timeout=30)).arithmetic == "float32"


@pytest.mark.parametrize("name", graph_names())
def test_the_real_device_s_arithmetic_is_recognised(name):
    found = {
        precision: found_arithmetic(
            graph(name), inputs(name), read_output(unpacked("arm") / "ops" / f"{name}.ARM_{precision}.out")
        )
        for precision in ("HIGH", "AUTO")
    }
    assert found["HIGH"] == "float32"
    if name in ("mha", "conv3x3_c64", "gemm", "layernorm_decomp", "bn_alone", "avgpool2", "sigmoid"):
        assert found["AUTO"] == "reduced"


def test_flags_of_the_command_stand(trap, monkeypatch, tmp_path):
    trap("gemm")
    monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
    runner = LocalRunner.parse(PROGRAM + " -dt ARM -pr AUTO")
    found = run("gemm", runner)
    call = (tmp_path / "calls").read_text()
    assert (call.count("-dt"), call.count("-pr"), "-dt ARM -pr AUTO" in call) == (1, 1, True)
    assert (found.settings.device, found.settings.arithmetic) == ("ARM", "float16")
    for bad in ("", "'unclosed"):
        with pytest.raises(ConfigurationError, match="command"):
            LocalRunner.parse(bad)
    for settings in ({"device": "X87"}, {"precision": "MAX"}, {"threads": 0}, {"timeout": 0}):
        with pytest.raises(ConfigurationError):
            Settings(**settings)


def test_programs_that_cannot_run_are_named(tmp_path):
    with pytest.raises(CandidateError, match="absent: cannot be started: No such file"):
        run("mha", LocalRunner((str(tmp_path / "absent"),)))
    foreign = tmp_path / "TNNTest"
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    with pytest.raises(CandidateError, match="Permission denied"):
        run("mha", LocalRunner((str(foreign),)))
    foreign.chmod(0o755)
    with pytest.raises(CandidateError, match=r"format error; the binary is for another architecture"):
        run("mha", LocalRunner((str(foreign),)))


def test_every_run_has_its_own_folder_and_leaves_nothing(trap, tmp_path):
    trap("gemm")
    (tmp_path / "out.txt").write_bytes(file("gemm", ".NAIVE.out").read_bytes())
    run("gemm", LocalRunner.parse(PROGRAM, tmp_path))
    trap("gemm", "silent")
    with pytest.raises(CandidateError, match="no output"):  # the old output beside it is not read
        run("gemm", LocalRunner.parse(PROGRAM, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    with pytest.raises(FileError, match="no folder for a run"):
        run("gemm", LocalRunner.parse(PROGRAM, tmp_path / "absent"))


class Counting:
    """A runner that gives the real outputs, and fails at one of its calls."""

    def __init__(self, fails_at: int = 0) -> None:
        self.calls, self.fails_at = 0, fails_at

    def run(self, proto, values, settings):
        self.calls += 1
        if self.calls == self.fails_at:
            raise CandidateError("lost")
        return type("Run", (), {"outputs": {"y": values["x"] * 2}})()


def test_a_batch_goes_on_where_it_stopped(tmp_path):
    proto = file("gemm", ".tnnproto")
    batch = [{"x": np.full((4, 16), float(index), np.float32)} for index in range(4)]
    runner = Counting(fails_at=3)
    with pytest.raises(CandidateError, match="lost"):
        run_batch(runner, proto, batch, tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "00000.txt",
        "00001.txt",
        "batch.json",
    ]
    results = run_batch(runner, proto, batch, tmp_path / "b")
    assert runner.calls == 5
    np.testing.assert_array_equal([found["y"][0, 0] for found in results], [0, 2, 4, 6])
    assert len(run_batch(runner, proto, [*batch, batch[0]], tmp_path / "b")) == 5
    assert runner.calls == 6
    for other in (
        lambda: run_batch(runner, proto, batch[::-1], tmp_path / "b"),
        lambda: run_batch(runner, proto, batch, tmp_path / "b", Settings("ARM")),
        lambda: run_batch(runner, file("mha", ".tnnproto"), batch, tmp_path / "b"),
    ):
        with pytest.raises(FileError, match="another model, of other inputs"):
            other()
    (tmp_path / "b" / "batch.json").write_text("{")
    with pytest.raises(FileError, match="no description"):
        run_batch(runner, proto, batch, tmp_path / "b")


# --- on a phone -----------------------------------------------------------------------------------


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A device in a folder, its adb, and where its traps are set."""
    device, traps = tmp_path / "device", tmp_path / "traps"
    (device / "data/local/tmp").mkdir(parents=True)
    traps.mkdir()
    monkeypatch.setenv("ADB_DEVICE", str(device))
    monkeypatch.setenv("ADB_TRAPS", str(traps))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    adb = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(HERE / 'adb_stand_in.py'))}"
    for name, program in {"adb": adb, "TNNTest": PROGRAM}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
    (tmp_path / "adb").chmod(0o755)
    (tmp_path / "libTNN.so").write_bytes(b"library")
    return tmp_path


def adb_runner(phone: Path, **keywords) -> AdbRunner:
    return AdbRunner(phone / "TNNTest", [phone / "libTNN.so"], **keywords)


def left_on(phone: Path) -> list[str]:
    return [path.name for path in (phone / "device/data/local/tmp").iterdir()]


def test_a_run_on_a_phone_leaves_nothing_there(phone, trap):
    trap("gemm")
    with adb_runner(phone, serial="phone") as runner:
        for _ in range(2):
            found = run("gemm", runner, Settings("ARM", "HIGH", timeout=30))
            np.testing.assert_allclose(found.outputs["y"], naive_outputs("gemm")["y"], atol=1e-5)
        (folder,) = (phone / "device/data/local/tmp").iterdir()
        assert sorted(path.name for path in folder.iterdir()) == ["TNNTest", "libTNN.so"]
    assert left_on(phone) == []


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("error", "on the device: TNNTest exited with 0 and said 'E/tnn"),
        ("silent", "on the device: no output"),
        ("short", "too short"),
        ("half", "the errors of float16"),
        ("status", "exited with 3"),
    ],
)
def test_traps_on_a_phone_are_named_and_cleaned_up(mode, message, phone, trap):
    trap("mha", mode)
    with pytest.raises((CandidateError, FileError), match=message), adb_runner(phone) as runner:
        run("mha", runner, Settings("ARM", "HIGH", timeout=30))
    assert left_on(phone) == []


def test_a_hanging_program_is_ended_on_the_phone_too(phone, trap):
    trap("gemm", "hang")
    with adb_runner(phone) as runner:
        with pytest.raises(CandidateError, match="no answer within 2 s"):
            run("gemm", runner, Settings("ARM", timeout=2))
        (folder,) = (phone / "device/data/local/tmp").iterdir()
        assert sorted(path.name for path in folder.iterdir()) == ["TNNTest", "libTNN.so"]


@pytest.mark.parametrize("call", [2, 3, 6, 9, 12, 15])
def test_a_disconnection_at_any_call_is_retried(call, phone, trap):
    trap("gemm", "silent")  # the run itself is not what is tested here
    (phone / "traps" / f"lose-{call}").touch()
    with pytest.raises(CandidateError, match="no output"), adb_runner(phone) as runner:
        run("gemm", runner, Settings("ARM", timeout=30))
    assert int((phone / "traps/calls").read_text()) > 15


def test_a_device_that_stays_away_is_named(phone, trap):
    trap("gemm")
    with adb_runner(phone, retries=1) as runner:
        calls = int((phone / "traps/calls").read_text())
        for call in range(calls + 3, calls + 20):
            (phone / "traps" / f"lose-{call}").touch()
        with pytest.raises(CandidateError, match=r"went away 2 times: adb: device 'phone' not found"):
            run("gemm", runner, Settings("ARM", timeout=30))
        for path in (phone / "traps").glob("lose-*"):
            path.unlink()
    assert left_on(phone) == []


@pytest.mark.parametrize(
    ("flag", "keywords", "message"),
    [
        ("absent", {}, "no devices/emulators found; connect the phone"),
        ("several", {}, "more than one device/emulator; name one with --serial"),
        ("full", {}, "No space left on device; free space"),
        ("cut", {}, "bytes on the device, .* were pushed"),
        ("none", {"serial": "other"}, "'other' not found"),
        ("none", {"adb": "adb-absent"}, "adb-absent: cannot be started"),
    ],
)
def test_devices_that_cannot_be_used_are_named(flag, keywords, message, phone):
    (phone / "traps" / flag).touch()
    with pytest.raises(CandidateError, match=message), adb_runner(phone, **keywords):
        pass


def test_the_command_line_runs_on_a_phone(phone, trap, capsys, monkeypatch):
    trap("gemm", "half")
    given = ["--adb", "--serial", "phone", "--library", str(phone / "libTNN.so"), "--json", "-"]
    command = ["--runner", f"{phone / 'TNNTest'} -dt ARM -pr AUTO"]
    monkeypatch.setattr(
        sys, "argv", ["mobileinst", "verify", str(file("gemm", ".tnnproto")), *command, *given]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (stop.value.code, found["arithmetic"], found["found"]) == (0, "float16", "reduced")
    assert left_on(phone) == []


def test_a_missing_binary_is_named(tmp_path):
    with pytest.raises(FileError, match="no such file; give TNNTest"):
        AdbRunner(tmp_path / "TNNTest")
