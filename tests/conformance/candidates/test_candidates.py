"""Every kind of candidate, and what the judge says of one that misbehaves."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import pytest
import safetensors.numpy
import wrong_candidates
from narrow_network import CONFIG, OPTIONS, picture, weights
from typer.testing import CliRunner

import refimpl.weights.files
from conformance.bounds import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from conformance.candidates import kinds as candidate_kinds
from conformance.candidates.dumps import DumpCandidate, read_dumps
from conformance.candidates.kinds import Request, make
from conformance.candidates.plain import NumpyCandidate, PythonCandidate
from conformance.candidates.process import IsolatedCandidate
from conformance.cli import app
from conformance.judge.decisions import NEEDED_OUTPUTS
from conformance.judge.network import verify
from refimpl.errors import CandidateError, ConfigurationError, FileError, MobileInstError
from refimpl.ops.operation import Array

REQUEST = Request("", CONFIG, weights())
WRONG = Path(wrong_candidates.__file__)


def judged(candidate: Any) -> Any:
    """Judge on one small picture and return the report."""
    return verify(candidate, CONFIG, weights(), {"scene": picture()})


# --- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [FLOAT32, FLOAT64, FLOAT16, BFLOAT16])
def test_the_network_in_every_precision(storage: Any) -> None:
    report = judged(NumpyCandidate(CONFIG, weights(), storage))
    report.raise_on_failure()
    assert all(row.verdict == "pass" for row in report.inputs[0].steps)


def test_float16_is_too_coarse_for_float32() -> None:
    candidate = NumpyCandidate(CONFIG, weights(), FLOAT16)
    candidate.declaration = NumpyCandidate(CONFIG, weights(), FLOAT32).declaration
    assert judged(candidate).verdict == "fail"


def test_a_callable() -> None:
    assert judged(PythonCandidate(narrow_network.network())).verdict == "pass"
    report = judged(PythonCandidate(wrong_candidates.wrong_bias))
    assert report.verdict == "fail"
    failed = [row.name for row in report.inputs[0].outputs if row.verdict == "fail"]
    assert failed == ["kernels"]


def test_a_callable_that_captures() -> None:
    full = NumpyCandidate(CONFIG, weights())
    report = judged(PythonCandidate(full.run, capture=full.capture))
    report.raise_on_failure()


PACKAGE = """
from conformance.candidates.plain import PythonCandidate
from conformance.candidates.candidate import Candidate
from conformance.bounds import Declaration
from refimpl import MobileInst

class Least(Candidate):
    "The least that a candidate is: how it computes, and what comes out."
    declaration = Declaration()

    def __init__(self, network):
        self.network = network

    def run(self, images):
        return dict(self.network(images).items())

    def capture(self, images):
        return self.run(images)

    captures_all = False

def least(request):
    return Least(MobileInst(request.config, request.weights))

def wrong(request):
    return "no candidate"
"""
POINTS = "[mobileinst.candidates]\nleast = third_party:least\nwrong = third_party:wrong\n"


def test_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves in site-packages: a module and its metadata; found in the judge's and in its own
    process."""
    metadata = tmp_path / "third_party-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(POINTS)
    (tmp_path / "third_party.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, report = run(tmp_path, "--candidate", "least:with options")
    assert (code, report["candidate"]) == (0, "least:with options")
    with pytest.raises(CandidateError, match="the candidate is str, which has no run, capture"):
        make("wrong", REQUEST)
    code, report = run(tmp_path, "--candidate", "wrong")
    assert code == 1
    assert "the candidate is str" in report["headline"]


def test_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "conformance.candidates.kinds:numpy_network", candidate_kinds.GROUP)
    broken = EntryPoint("broken", "no_such_module:thing", candidate_kinds.GROUP)
    monkeypatch.setattr(candidate_kinds, "entry_points", lambda group: [entry, broken])
    candidate = make("mine:float16", REQUEST)
    assert candidate.declaration.storage == FLOAT16
    with pytest.raises(CandidateError, match="'broken' cannot be imported: No module named 'no_such_module'"):
        make("broken", REQUEST)
    with pytest.raises(ConfigurationError, match=r"no candidate 'other'.*onnxruntime.*numpy, mine, broken"):
        make("other", REQUEST)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("numpy:float8", "float8: there is no such format"),
        ("onnxruntime", "name its .onnx file"),
        ("python:somewhere", "FILE.py:NAME"),
        ("python:missing.py:f", "missing.py: there is no such file"),
        (f"python:{WRONG}:absent", "has no 'absent'"),
        ("dumps:missing", "no such folder"),
    ],
)
def test_malformed_options(text: str, message: str) -> None:
    with pytest.raises(MobileInstError, match=message):
        make(text, REQUEST)


def test_options_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "XnnpackExecutionProvider"
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [other, "CPUExecutionProvider"])
    text = f"level=basic,threads=2,disabled=GeluFusion+ConvActivationFusion,provider={other},some=thing"
    options = candidate_kinds.runtime_options(text, 0)
    assert (options.level, options.threads) == ("basic", 2)
    assert options.disabled_optimizers == ("GeluFusion", "ConvActivationFusion")
    assert options.provider_options == {"some": "thing"}
    for wrong in ("level=most", "threads=many", "provider=NoSuchProvider", "thread=2"):
        named = "thread" if wrong == "thread=2" else wrong.partition("=")[2]
        with pytest.raises(ConfigurationError, match=named):
            candidate_kinds.runtime_options(wrong, 0)


# --- dumps ----------------------------------------------------------------------------------------


@pytest.fixture
def tensors() -> dict[str, Array]:
    """What a correct run would have dumped."""
    full = NumpyCandidate(CONFIG, weights())
    inner = {name: array for name, array in full.capture(picture()).items() if "/" not in name}
    return {**inner, **full.run(picture())}


def write(folder: Path, tensors: dict[str, Array], kind: str) -> Path:
    """Write dumps in one of the formats."""
    folder.mkdir()
    if kind == "npz":
        np.savez(folder / "run.npz", **tensors)
    elif kind == "safetensors":
        plain = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        safetensors.numpy.save_file(plain, folder / "run.safetensors")
    for name, array in tensors.items():
        if kind == "npy":
            np.save(folder / f"{name}.npy", array)
        elif kind == "txt":
            head = f"# {' '.join(map(str, array.shape))}\n" if name != "kernels" else ""
            numbers = "\n".join(f"{value:.9g}" for value in array.ravel().tolist())
            (folder / f"{name}.txt").write_text(head + numbers)
    return folder


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors", "txt"])
def test_dumps(tmp_path: Path, tensors: dict[str, Array], kind: str) -> None:
    if kind == "txt":
        tensors = {name: tensors[name] for name in ("class_logits", "objectness", "masks", "kernels")}
    folder = write(tmp_path / "dumps", tensors, kind)
    report = judged(make(f"dumps:{folder}", REQUEST))
    report.raise_on_failure()


def test_hidden_files_are_no_dumps(tmp_path: Path, tensors: dict[str, Array]) -> None:
    folder = write(tmp_path / "dumps", tensors, "npy")
    for name in (".DS_Store", "._masks.npy"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert read_dumps(folder).keys() == tensors.keys()


def test_a_wrong_dump_is_named(tmp_path: Path, tensors: dict[str, Array]) -> None:
    tensors["backbone.tpm.layer3"] = tensors["backbone.tpm.layer3"] * np.float32(1.5)
    folder = write(tmp_path / "dumps", tensors, "npy")
    report = judged(make(f"dumps:{folder}", REQUEST))
    assert report.inputs[0].first_fault.step == "backbone.tpm.layer3"


def test_what_is_captured_is_what_is_shipped() -> None:
    """The third call may not be right where the first was wrong, or the other way round."""
    calls: list[int] = []

    def capture(images: Array) -> dict[str, Array]:
        calls.append(1)
        outputs = {name: np.asarray(array) for name, array in narrow_network.network()(images).items()}
        return {name: array + np.float32(0.5) for name, array in outputs.items()}

    report = judged(PythonCandidate(lambda images: dict(narrow_network.network()(images).items()), capture))
    assert calls
    assert report.verdict == "fail"
    assert "is another when its tensors are captured" in report.headline()


def test_every_output_in_a_dump_is_judged(tmp_path: Path, tensors: dict[str, Array]) -> None:
    report = judged(make(f"dumps:{write(tmp_path / 'dumps', tensors, 'npy')}", REQUEST))
    assert {row.verdict for row in report.inputs[0].outputs} == {"pass"}
    tensors["mask_features"] = tensors["mask_features"] + np.float32(0.1)
    report = judged(make(f"dumps:{write(tmp_path / 'wrong', tensors, 'npy')}", REQUEST))
    (row,) = [row for row in report.inputs[0].outputs if row.name == "mask_features"]
    assert row.verdict == "fail"


INSIDE = "backbone.tpm.layer3"


@pytest.mark.parametrize("kept", [True, False], ids=["names kept", "names lost"])
@pytest.mark.parametrize("content", [0.0, 7.0, np.nan, np.inf, "stale"])
def test_intermediates_that_are_not_the_networks(
    tmp_path: Path, tensors: dict[str, Array], content: float | str, kept: bool
) -> None:
    """A tensor that fits nothing is said; with its name known it fails, and with NaN in it in any case."""
    outputs = {name: tensors[name] for name in NEEDED_OUTPUTS}
    right = tensors[INSIDE]
    stale = np.random.default_rng(0).standard_normal(right.shape).astype(np.float32)
    wrong = stale if content == "stale" else np.full_like(right, content)
    folder = write(tmp_path / "dumps", {**outputs, (INSIDE if kept else "blob 12"): wrong}, "npy")
    report = judged(make(f"dumps:{folder}", REQUEST))
    (item,) = report.inputs
    if kept:
        assert (report.verdict, item.first_fault.step) == ("fail", INSIDE)
    elif np.isfinite(wrong).all():
        assert report.verdict == "pass"
        assert "outputs only, nothing inside was judged" in report.headline()
        remark, one_run = item.remarks
        assert one_run.startswith("outputs of one run only")
        assert (
            "1 of 1 tensors that it shows are like none of the network's, and not judged: blob 12" in remark
        )
        assert ("all " in remark) == (content != "stale")
    else:
        assert f"its tensor 'blob 12' has {wrong.size} of {wrong.size} numbers that are NaN or infinite" in (
            report.headline()
        )


def test_refused_dumps(tmp_path: Path, tensors: dict[str, Array]) -> None:
    outputs = {name: tensors[name] for name in NEEDED_OUTPUTS}
    masks = outputs["masks"]
    swapped = masks.byteswap().view(np.float32)
    cases: dict[str, tuple[dict[str, Array], str]] = {
        "missing": ({"masks": masks}, "missing class_logits, objectness"),
        "dtype": ({**outputs, "masks": masks.astype(np.float64)}, "'masks' is of float64; expected float32"),
        "integers": ({**outputs, "masks": masks.astype(np.int32)}, "'masks' is of int32; expected float32"),
        "order": ({**outputs, "masks": masks.astype(">f4")}, "'masks' is of byte order '>'"),
        "swapped": ({**outputs, "masks": swapped}, "bytes are in reverse order"),
        "empty": ({}, "has no dumps"),
    }
    for name, (arrays, message) in cases.items():
        folder = write(tmp_path / name, arrays, "npy")
        with pytest.raises(FileError, match=message):
            DumpCandidate(folder, NEEDED_OUTPUTS)
    folder = write(tmp_path / "extra", outputs, "npy")
    (folder / "notes.md").write_text("by hand")
    with pytest.raises(FileError, match=r"notes.md: an extra file"):
        DumpCandidate(folder, NEEDED_OUTPUTS)
    (folder / "notes.md").unlink()
    np.savez(folder / "again.npz", masks=masks)
    with pytest.raises(FileError, match="extra file: another holds tensor 'masks'"):
        DumpCandidate(folder, NEEDED_OUTPUTS)
    (folder / "again.npz").unlink()
    (folder / "torn.txt").write_text("# 2 2\n1 2 3")
    with pytest.raises(FileError, match=r"torn.txt: is no text of numbers"):
        DumpCandidate(folder, NEEDED_OUTPUTS)


def header(shape: tuple[int, ...]) -> bytes:
    """Return what stands before the numbers of an array in a .npy file."""
    stream = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def test_refused_files_of_dumps(tmp_path: Path, tensors: dict[str, Array]) -> None:
    """Nothing is allocated, unpickled or left out because a file says so."""
    outputs = {name: tensors[name] for name in NEEDED_OUTPUTS}
    huge = header((10**9, 10**4)) + bytes(16)

    def refused(name: str, message: str, change: Callable[[Path], object]) -> None:
        folder = write(tmp_path / name, outputs, "npy")
        change(folder)
        with pytest.raises(FileError, match=message):
            DumpCandidate(folder, NEEDED_OUTPUTS)

    def archived(name: str, content: bytes) -> Callable[[Path], object]:
        def add(folder: Path) -> None:
            with zipfile.ZipFile(folder / "more.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                archive.writestr(name, content)

        return add

    def twice(folder: Path) -> None:
        for name in ("extra.npy", "extra"):
            archived(name, header((1,)) + bytes(4))(folder)

    refused("npy", "claims shape", lambda folder: (folder / "masks.npy").write_bytes(huge))
    refused("npz", "claims shape", archived("extra.npy", huge))
    refused("twice", "holds 'extra' more than once", twice)
    unpickled = np.asarray([{}, None], object)
    refused("objects", "Python objects", lambda folder: np.save(folder / "masks.npy", unpickled))
    refused("objects_npz", "Python objects", lambda folder: np.savez(folder / "more.npz", extra=unpickled))
    refused("folder", "no regular file", lambda folder: (folder / "more.npy").mkdir())


def test_an_archive_that_inflates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandfold, as zeros do: refused from a size on, before it is inflated."""
    monkeypatch.setattr(refimpl.weights.files, "LARGEST_INFLATED", 2**16)
    np.savez_compressed(tmp_path / "small.npz", a=np.zeros(2**13, np.float32))
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**20, np.float32))
    assert refimpl.weights.read_arrays(tmp_path / "small.npz")["a"].shape == (2**13,)
    with pytest.raises(FileError, match=r"a\.npy inflates \d+ bytes to 4194432"):
        refimpl.weights.read_arrays(tmp_path / "bomb.npz")


def test_dumps_that_are_not_finite_are_not_reversed(tmp_path: Path, tensors: dict[str, Array]) -> None:
    outputs = {name: tensors[name] for name in NEEDED_OUTPUTS}
    outputs["masks"] = np.full_like(outputs["masks"], np.nan)
    report = judged(make(f"dumps:{write(tmp_path / 'nan', outputs, 'npy')}", REQUEST))
    assert "its output 'masks' has 480 of 480 numbers that are NaN" in report.headline()


def test_dumps_of_another_input(tmp_path: Path, tensors: dict[str, Array]) -> None:
    outputs = {name: tensors[name] for name in NEEDED_OUTPUTS}
    same, other = ({**outputs, "images": picture() + np.float32(shift)} for shift in (0, 1))
    assert judged(make(f"dumps:{write(tmp_path / 'same', same, 'npy')}", REQUEST)).verdict == "pass"
    report = judged(make(f"dumps:{write(tmp_path / 'other', other, 'npy')}", REQUEST))
    assert "of another input" in report.headline()


# --- misbehaviour ---------------------------------------------------------------------------------

HEADLINES = {
    "raises": "it crashes: ValueError: no such tensor",
    "not_finite": "its output 'masks' has 1 of 480 numbers that are NaN or infinite",
    "wrong_shape": "its output 'masks' (1, 5, 7, 12)",
    "too_few": "it gives no output 'masks'",
    "not_repeatable": "it is not repeatable: two runs on the same input differ in output 'class_logits'",
    "rewrites_its_input": "it rewrites its input",
    "no_arrays": "its outputs are not arrays of numbers: masks is <U4",
    "raises_our_error": "it crashes: ShapeError",
}


@pytest.mark.parametrize("name", HEADLINES)
def test_misbehaviour_is_the_headline(name: str) -> None:
    report = judged(PythonCandidate(getattr(wrong_candidates, name)))
    assert report.verdict == "fail"
    assert HEADLINES[name] in report.headline()


def test_another_process() -> None:
    candidate = IsolatedCandidate(f"python:{WRONG}:right", REQUEST, timeout=60)
    try:
        judged(candidate).raise_on_failure()
        assert not candidate.captures_all
    finally:
        candidate.close()


def test_another_process_captures() -> None:
    candidate = IsolatedCandidate("numpy:float16", REQUEST)
    try:
        assert candidate.declaration.storage == FLOAT16
        assert candidate.captures_all
        report = judged(candidate)
        report.raise_on_failure()
        assert all(row.candidate is not None for row in report.inputs[0].steps)
        own = candidate.own_graph(picture())
        assert own is not None
        assert own.names_between(set(), "backbone.tpm.stem.0")[-1] == "backbone.tpm.stem.0"
    finally:
        candidate.close()


def run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and report."""
    np.save(tmp_path / "x.npy", picture())
    options = [*OPTIONS, "--input", str(tmp_path / "x.npy"), "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(app, ["verify", *options, *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, json.loads((tmp_path / "r.json").read_text())


@pytest.mark.parametrize(
    ("name", "headline", "wanted"),
    [
        ("dies", "it crashes: its process was ended by SIGABRT", 2),
        ("leaves", "it crashes: its process ended with status 3", 2),
        ("hangs", "it hangs: no answer within 4 s", 2),
        ("raises", "it crashes: ValueError", 1),
        ("rewrites_its_input", "it rewrites its input", 1),
    ],
)
def test_the_command_survives(tmp_path: Path, name: str, headline: str, wanted: int) -> None:
    # Only what hangs has little time: a busy machine is no failure.
    timeout = "4" if name == "hangs" else "60"
    code, report = run(tmp_path, "--candidate", f"python:{WRONG}:{name}", "--timeout", timeout)
    assert code == wanted
    assert headline in report["headline"]


def test_the_process_has_its_streams_to_itself() -> None:
    candidate = IsolatedCandidate(f"python:{WRONG}:reads_the_questions", REQUEST, timeout=60)
    try:
        assert set(candidate.run(picture())) >= set(NEEDED_OUTPUTS)
    finally:
        candidate.close()
    candidate = IsolatedCandidate(f"python:{WRONG}:interrupts", REQUEST, timeout=60)
    try:
        with pytest.raises(CandidateError, match="it crashes: KeyboardInterrupt"):
            candidate.run(picture())
    finally:
        candidate.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [("nothing:x", ConfigurationError), ("numpy:float8", ConfigurationError), ("dumps:missing", FileError)],
)
def test_bad_usage_is_no_verdict_in_another_process_either(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        IsolatedCandidate(text, REQUEST, timeout=60)


def test_what_cannot_be_made_fails(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import os; os.abort()")
    code, report = run(tmp_path, "--candidate", f"python:{path}:f")
    assert code == 2
    assert "it crashes: its process was ended by SIGABRT" in report["headline"]


def test_the_command_on_the_network_in_float16(tmp_path: Path) -> None:
    code, report = run(tmp_path, "--candidate", "numpy:float16")
    assert code == 0
    assert report["candidate"] == "numpy:float16"
