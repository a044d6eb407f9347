"""`--interpreter`: a runtime's process under another Python, and far sides that misbehave."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, OPTIONS, exported, picture, weights
from onnx import TensorProto, helper

import conformance.cli
from conformance.candidates import far_process, far_side
from conformance.candidates.far_process import FarProcess, Opening
from conformance.candidates.kinds import Request, make
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from refimpl.errors import ConfigurationError, MissingDependencyError, MobileInstError, ProcessError

# A shell joins the words and takes them apart again, as the one behind ssh does.
AS_SSH = ("sh", "-c", 'exec sh -c "$*"', "ssh", sys.executable)
AS_ENV = ("env", "-i", "PATH=/usr/bin:/bin", sys.executable)
X = {"x": np.arange(-3, 3, dtype=np.float32).reshape(2, 3)}


def small() -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def opening(tmp_path: Path) -> Opening:
    onnx.save(small(), tmp_path / "m.onnx")
    said = {"level": "ORT_ENABLE_ALL", "threads": 1, "disabled": []}
    return Opening("onnxruntime", "onnxruntime", [tmp_path / "m.onnx"], said)


@pytest.mark.parametrize("ending", ["close", "kill", "refuse"])
def test_nothing_is_left_behind(
    opening: Opening, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    process = FarProcess(opening, (), 60)
    process.ask("run", X)
    assert process.started is not None
    assert [*place.rglob("m.onnx")]
    if ending == "kill":
        process.started.process.kill()
    if ending != "close":
        with pytest.raises(MobileInstError):
            process.ask("run", X if ending == "kill" else {"nothing": X["x"]})
    process.close()
    assert not [*place.iterdir()]


def stand_in(folder: Path, program: str) -> tuple[str, ...]:
    """Return an interpreter that runs a program of ours, whatever it is told."""
    path = folder / "stand_in.py"
    path.write_text(program)
    return sys.executable, "-u", str(path)


@pytest.mark.parametrize("interpreter", [(), (sys.executable,), AS_ENV, AS_SSH])
def test_it_computes_what_the_runtime_here_does(opening: Opening, interpreter: tuple[str, ...]) -> None:
    process = FarProcess(opening, interpreter, 60)
    _, found = process.ask("run", X)
    here = OnnxRuntimeGraph(OnnxGraph.load(small())).run(X)
    assert found.keys() == here.keys() == {"y"}
    np.testing.assert_array_equal(found["y"], here["y"])
    process.close()


def test_the_network_is_judged_elsewhere_as_it_is_here(tmp_path: Path) -> None:
    onnx.save(exported(), tmp_path / "m.onnx")
    reports = [
        verify(
            make("onnxruntime", Request("", CONFIG, weights(), tmp_path / "m.onnx", interpreter=words)),
            CONFIG,
            weights(),
            {"x": picture()},
        )
        for words in ((), AS_ENV)
    ]
    here, there = ([(row.name, row.verdict) for row in report.leading.steps] for report in reports)
    assert here == there
    assert {report.verdict for report in reports} == {"pass"}


def test_what_is_sent_is_one_file_that_needs_nothing_of_ours() -> None:
    path = Path(far_side.__file__)
    ended = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import sys; exec(open(sys.argv[1]).read()); print(sorted(RUNTIMES))",
            path,
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": ""},
    )
    assert "refimpl" not in path.read_text()
    assert "import conformance" not in path.read_text()
    assert ended.returncode == 0, ended.stderr


def test_arrays_of_every_kind_pass_as_they_are(tmp_path: Path) -> None:
    kinds = ("?", "<i1", "<u2", "<i4", ">i8", "<f2", "<f4", ">f8")
    given = {code: np.arange(6).reshape(2, 3).astype(code)[:, ::-1] for code in kinds}
    given |= {"scalar": np.array(3.5), "none": np.zeros((0, 4), np.float32)}
    with (tmp_path / "frame").open("wb+") as stream:
        far_side.write_frame(stream, {}, given, [("a", b"b\n")], far_side.MARK)
        stream.seek(0)
        line = stream.readline()
        said = far_process.parse_json(line[len(far_side.MARK) :], "frame", far_process.SCHEMA)
        assert far_side.read_exactly(stream, 2) == b"b\n"
        found = far_side.read_arrays(stream, said["arrays"])
    assert found.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("<")


ANSWERS = "import sys; s = sys.stdin.buffer; s.read(int(s.readline()))\nmark = b'mobileinst '\n"
READY = ANSWERS + "sys.stdout.buffer.write(mark + b'{\"arrays\": []}\\n'); sys.stdout.flush()\ns.readline()\n"


def says(line: str) -> str:
    return f"{ANSWERS}sys.stdout.buffer.write(mark + {line.encode()!r} + b'\\n')\n"


HOSTILE = {
    "rubbish": ("print('Welcome to your phone!')\nimport time; time.sleep(99)", "no answer: 'Welcome to"),
    "steers the terminal": ("print('\\x1b[2J')\nimport time; time.sleep(99)", r"no answer: '\\x1b\[2J'"),
    "no end of a line": ("import sys\nwhile True: sys.stdout.write('y' * 65536)", "no answer: 'yyyy"),
    "no JSON": (says("{"), "no answer: .*not JSON"),
    "other JSON": (says('{"arrays": 3}'), "no answer: .*arrays"),
    "objects": (says('{"arrays": [["a", "|O8", [1]]]}'), "no answer: .*arrays"),
    "negative": (says('{"arrays": [["a", "<f4", [-1]]]}'), "no answer: .*arrays"),
    "more than there is": (says('{"arrays": [["a", "<f4", [4000000000]]]}'), "announces 16000000000 bytes"),
    "twice": (says('{"arrays": [["a", "<f4", [0]], ["a", "<f4", [0]]]}'), "under 1 names"),
    "cut off": (says('{"arrays": [["a", "<f4", [9]]]}'), "ended with status 0"),
    "dies": (ANSWERS + "import os; os.abort()", "was ended by SIGABRT"),
    "dies later": (READY + "sys.exit('no memory')", "ended with status 1: no memory"),
    "hangs": ("import time; time.sleep(99)", "it hangs: no answer within 3 s"),
    "hangs later": (READY + "import time; time.sleep(99)", "it hangs: no answer within 3 s"),
    "hangs without reading": (
        READY.replace("s.readline()", "") + "import time; time.sleep(99)",
        "it hangs: no answer within 3 s",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_far_side_that_misbehaves_is_named(
    opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    program, said = HOSTILE[kind]
    # Only what hangs has little time: a busy machine is no failure.
    limit = 3.0 if "hangs" in said else 300.0
    monkeypatch.setattr(far_process, "STARTING", limit)
    process = FarProcess(opening, stand_in(tmp_path, program), limit)
    with pytest.raises(ProcessError, match=said) as caught:
        process.open()
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert process.started is None


def test_an_error_of_a_kind_that_is_none_of_ours_is_still_one(opening: Opening, tmp_path: Path) -> None:
    program = says('{"arrays": [], "error": "SystemExit", "says": "left\\u001b"}')
    with pytest.raises(ProcessError, match=r"left\\x1b"):
        FarProcess(opening, stand_in(tmp_path, program), 30).open()


def test_what_is_not_there_is_named(opening: Opening, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'no-such-python' cannot be started: No such file"):
        FarProcess(opening, ("no-such-python",)).open()
    bare = (sys.executable, "-S", "-I")
    with pytest.raises(MissingDependencyError, match=r"has no NumPy.*No module named 'numpy'"):
        FarProcess(opening, bare, 60).open()
    other = Opening("onnxruntime", "no_such_runtime", opening.files, opening.options)
    with pytest.raises(MissingDependencyError, match="no_such_runtime is not installed in --interpreter"):
        FarProcess(other, (sys.executable,), 60).open()


def test_a_model_that_the_runtime_refuses(opening: Opening) -> None:
    opening.files[0].write_bytes(b"no model")
    with pytest.raises(MobileInstError, match=r"m\.onnx: ONNX Runtime refuses it"):
        FarProcess(opening, (sys.executable,), 60).open()


def test_after_its_end_it_is_started_anew(opening: Opening) -> None:
    process = FarProcess(opening, (sys.executable,), 60)
    process.ask("run", X)
    assert process.started is not None
    process.started.process.kill()
    with pytest.raises(ProcessError, match="was ended by SIGKILL"):
        process.ask("run", X)
    np.testing.assert_array_equal(process.ask("run", X)[1]["y"], np.maximum(X["x"], 0))


def test_the_process_ends_with_what_refers_to_it() -> None:
    graph = runtime_graph(OnnxGraph.load(small()), interpreter=(sys.executable,))
    graph.run(X)
    (kept,) = graph.kept.values()  # type: ignore[attr-defined]
    process = kept.process.started.process
    del graph, kept
    gc.collect()
    assert process.poll() is not None


def test_another_provider_is_not_asked_for(tmp_path: Path) -> None:
    onnx.save(exported(), tmp_path / "m.onnx")
    request = Request("", CONFIG, weights(), tmp_path / "m.onnx", interpreter=AS_ENV)
    with pytest.raises(ConfigurationError):
        make("onnxruntime:provider=NoneExecutionProvider", request)


@pytest.mark.parametrize(
    ("candidate", "interpreter", "said"),
    [
        ("onnxruntime", "", "--interpreter is empty"),
        ("onnxruntime", "'ssh", "No closing quotation"),
        ("onnxruntime", "no-such-python", "cannot be started"),
        ("numpy", "python", "--interpreter has no effect on --candidate numpy"),
    ],
)
def test_the_command_ends_with_2_and_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    candidate: str,
    interpreter: str,
    said: str,
) -> None:
    onnx.save(exported(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", picture())
    model = [] if candidate == "numpy" else [str(tmp_path / "m.onnx")]
    line = ["verify", *model, *OPTIONS, "--input", str(tmp_path / "x.npy"), "--candidate", candidate]
    monkeypatch.setattr(sys, "argv", ["mobileinst", *line, "--interpreter", interpreter])
    with pytest.raises(SystemExit) as caught:
        conformance.cli.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_process_that_ends_is_no_verdict(tmp_path: Path) -> None:
    """What was found until then is kept; exit code 2."""
    onnx.save(exported(), tmp_path / "m.onnx")
    ends = (sys.executable, "-c", "raise SystemExit(3)")
    request = Request("", CONFIG, weights(), tmp_path / "m.onnx", interpreter=ends)
    report = verify(make("onnxruntime", request), CONFIG, weights(), {"x": picture()})
    assert report.exit_code == 2
    assert report.headline().startswith("NOT JUDGED")
    assert "ended with status 3" in report.headline()


@pytest.mark.runtimes
def test_a_phones_runtime_elsewhere(tmp_path: Path) -> None:
    onnx.save(exported(), tmp_path / "m.onnx")
    request = Request("", CONFIG, weights(), tmp_path / "m.onnx", interpreter=AS_ENV)
    report = verify(make("openvino", request), CONFIG, weights(), {"x": picture()})
    report.raise_on_failure()
