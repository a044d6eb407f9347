"""Exit code 1 means "does not conform" and nothing else: bad input is a named error, our own fault is 70."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_examples import MODES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from narrow_network import OPTIONS, exported
from onnx import TensorProto, helper

from conformance.bounds.worst_element import absolute_error
from conformance.cli import main
from conformance.cli.options import MOST_SEED
from conformance.evaluation.coco import evaluate_files
from conformance.graph.onnx_graph import OnnxGraph
from conformance.reproduction.recorded_step import judge_folder
from refimpl.errors import MobileInstError
from refimpl.ops import OPERATIONS

pytestmark = pytest.mark.usefixtures("small_backbones")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run `mobileinst` in this process; return the exit code and what stands on standard error."""

    def call(*arguments: Any) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mobileinst", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return call


ERRORS = [
    ZeroDivisionError("division\nby zero"),
    KeyError("k"),
    AttributeError("None has no attribute"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    OverflowError("too large"),
    IndexError("\x1b[31mred"),
    SyntaxError("bad"),
    AssertionError(),
    StopIteration(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_nobody_foresaw_is_70_in_one_line(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("conformance.cli.options.seeded_weights", failing)
    code, said = run("verify", *OPTIONS, "--size", "64x96")
    assert code == 70
    assert said.count("\n") == 1
    assert "\x1b" not in said
    for word in (type(error).__name__, ".py:", "please report"):
        assert word in said


NEED_A_PLACE = ["lint", "export", "derive", "golden judge", "golden export", "golden train", "golden curve"]
NEEDED = {**{name: ["it"] for name in NEED_A_PLACE}, "convert": ["it", "--to", "ncnn"]}
"""Command → what it cannot do without."""


@pytest.mark.parametrize("name", sorted(set(MODES.values())))
def test_no_command_lets_an_error_become_a_verdict(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def failing(*_: Any) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr("conformance.cli.job._filled", failing)
    assert run(*name.split(), *NEEDED.get(name, []))[0] == 70


@pytest.mark.parametrize(
    "words",
    [("faults", "--workers"), ("sweep", "--workers"), ("golden", "train", "x", "--threads")],
    ids=" ".join,
)
def test_more_processes_or_threads_than_any_machine_has_are_refused(
    words: tuple[str, ...], run: Callable[..., tuple[int, str]]
) -> None:
    code, said = run(*words, 1025)
    assert code == 2
    assert f"Invalid value for '{words[-1]}'" in said


@pytest.mark.parametrize("words", [("explain", "--list"), ("--help",), ("verify", "--help")], ids=" ".join)
def test_a_reader_that_is_gone_is_no_verdict(words: tuple[str, ...]) -> None:
    """As under ``| head -0``."""
    program = "from conformance.cli import main; main()"
    reading, writing = os.pipe()
    os.close(reading)
    finished = subprocess.run(
        [sys.executable, "-c", program, *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert finished.returncode == 141
    assert finished.stderr == ""


@pytest.mark.parametrize(("streams", "code"), [(">&-", 0), (">&- 2>&-", 0), ("2>&-", 0), ("> /dev/full", 2)])
def test_streams_that_take_nothing_are_no_verdict(streams: str, code: int) -> None:
    program = shlex.join(
        [sys.executable, "-c", "from conformance.cli import main; main()", "explain", "--list"]
    )
    assert (
        subprocess.run(f"{program} {streams}", shell=True, check=False, capture_output=True).returncode
        == code
    )


@pytest.mark.parametrize("name", sorted(set(MODES.values())))
def test_no_seed_is_too_large_but_by_name(run: Callable[..., tuple[int, str]], name: str) -> None:
    code, said = run(*name.split(), *NEEDED.get(name, []), "--seed", str(10**20))
    assert code == 2
    assert str(MOST_SEED) in said or "No such option" in said


def test_a_name_is_given_once(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    onnx.save(exported(), tmp_path / "n.onnx")
    model = ["verify", tmp_path / "n.onnx", "--candidate"]
    for words in (
        ["verify", *OPTIONS, "--set", "dim=64"],
        ["verify", *OPTIONS, "--weights", "scenes-tiny", "--set", "dim=64"],
        ["convert", "pytorch:a.py:b", "--to", "ncnn", "--shape", "x=1x3x8x8", "--shape", "x=1x3x4x4"],
        [*model, "onnxruntime:level=all,level=basic"],
        [*model, "qnn:htp_arch=73,soc_model=43,htp_arch=75"],
    ):
        code, said = run(*words)
        assert (code, "twice" in said) == (2, True), said


def test_the_largest_seed_is_one(run: Callable[..., tuple[int, str]]) -> None:
    assert run("verify", *OPTIONS, "--size", "64x96", "--no-cache", "--seed", MOST_SEED) == (0, "")


def test_a_name_that_is_no_text_is_shown_and_written(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    model = tmp_path / os.fsdecode(b"n\xff.onnx")
    onnx.save(exported(), model)
    reports = {kind: tmp_path / os.fsdecode(b"r\xff." + kind.encode()) for kind in ("html", "json")}
    reports |= {"junit": tmp_path / "r.xml", "markdown": tmp_path / "r.md"}
    words = [word for kind, path in reports.items() for word in (f"--{kind}", path)]
    assert run("verify", model, *OPTIONS, "--size", "64x96", *words)[0] == 0
    for path in reports.values():
        text = path.read_text("utf-8").replace(r"\\", "\\")
        assert r"n\udcff.onnx" in text or "n\ufffd.onnx" in text


@pytest.mark.runtimes
def test_a_graph_whose_name_is_no_text_is_drawn(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    model, page = tmp_path / os.fsdecode(b"n\xff.onnx"), tmp_path / os.fsdecode(b"r\xff.html")
    onnx.save(exported(), model)
    assert run("explain", model, "--html", page)[0] == 0
    assert r"n\udcff.onnx" in page.read_text("utf-8").replace(r"\\", "\\")


def test_a_terminal_without_all_signs_is_shown_what_it_has() -> None:
    program = [sys.executable, "-c", "from conformance.cli import main; main()"]
    told = {
        encoding: subprocess.run(
            [*program, "explain", "--model", "topformer-tiny", "--size", "64x96"],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        for encoding in ("ascii", "utf-8")
    }
    assert [each.returncode for each in told.values()] == [0, 0]
    assert "3×3" in told["utf-8"].stdout.decode()
    assert r"3\xd73" in told["ascii"].stdout.decode("ascii")


# Readers, each by changing one thing in what it reads.


def places(document: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a document."""
    yield here
    if isinstance(document, dict | list):
        inner = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in inner:
            yield from places(value, (*here, key))


def changed(document: Any, where: tuple[Any, ...], value: Any) -> Any:
    """Return a document with another value at one place."""
    if not where:
        return value
    other = copy.deepcopy(document)
    inner = other
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    return other


STEP = {
    "question": "network",
    "step": "y",
    "operation": "MatMul",
    "arithmetic": "float32",
    "storage": "float32",
    "runtime": "cpu",
    "envelope": None,
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as --reproduce writes it, of a right MatMul."""
    folder = tmp_path_factory.mktemp("recorded")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    w = np.ones((3, 2), np.float32)
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (2, 3)), ("y", (2, 2)))
    ]
    weight = onnx.numpy_helper.from_array(w, "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", infos[:1], infos[1:], [weight]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "step.onnx")
    np.save(folder / "input_0.npy", x)
    np.save(folder / "candidate_0.npy", x @ w)
    (folder / "step.json").write_text(json.dumps(STEP))
    return folder


def test_the_step_is_right_before_it_is_changed(recorded: Path) -> None:
    assert judge_folder(recorded).verdict == "pass"


@MANY
@given(where=st.sampled_from(list(places(STEP))), value=JSON)
def test_a_changed_step_is_judged_or_refused(recorded: Path, where: tuple[Any, ...], value: Any) -> None:
    (recorded / "step.json").write_text(json.dumps(changed(STEP, where, value)))
    try:
        report = judge_folder(recorded)
    except MobileInstError:
        return
    finally:
        (recorded / "step.json").write_text(json.dumps(STEP))
    assert report.verdict in ("pass", "fail")


@pytest.mark.parametrize("envelope", [float("nan"), float("inf"), -1.0, True, "0.1", [0.1], 10**400])
def test_an_envelope_that_is_no_distance_is_refused(recorded: Path, envelope: Any) -> None:
    (recorded / "step.json").write_text(json.dumps({**STEP, "envelope": envelope}))
    try:
        with pytest.raises(MobileInstError, match=r"step\.json"):
            judge_folder(recorded)
    finally:
        (recorded / "step.json").write_text(json.dumps(STEP))


RLE = {"size": [4, 6], "counts": [10, 4, 10]}
TRUTH = {
    "images": [{"id": 1, "height": 4, "width": 6}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "area": 4,
            "bbox": [0, 0, 1, 1],
            "segmentation": RLE,
        }
    ],
}
RESULTS = [{"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": RLE}]


@MANY
@given(data=st.data(), value=JSON)
def test_a_changed_truth_or_result_is_evaluated_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    documents: dict[str, Any] = {"truth.json": TRUTH, "results.json": RESULTS}
    name = data.draw(st.sampled_from(list(documents)))
    where = data.draw(st.sampled_from(list(places(documents[name]))))
    documents[name] = changed(documents[name], where, value)
    for file, document in documents.items():
        (folder / file).write_text(json.dumps(document))
    with contextlib.suppress(MobileInstError):
        assert np.isfinite(evaluate_files(folder / "truth.json", folder / "results.json").stats).all()


@pytest.mark.parametrize("crowd", [{}, [], "1", 2, -1, None, 0.5])
def test_a_crowd_that_is_neither_0_nor_1_is_named(tmp_path: Path, crowd: Any) -> None:
    truth = changed(TRUTH, ("annotations", 0, "iscrowd"), crowd)
    for name, document in (("t.json", truth), ("r.json", RESULTS)):
        (tmp_path / name).write_text(json.dumps(document))
    with pytest.raises(MobileInstError, match=r"t\.json: annotations\[0\]: iscrowd"):
        evaluate_files(tmp_path / "t.json", tmp_path / "r.json")


# Graphs.


def graph_of(node: onnx.NodeProto, names: list[str]) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 3, 3]) for name in names]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "g", infos, [out]), ir_version=8)
    model.opset_import[0].version = 17
    return model


OPSET_17 = {
    schema.name
    for schema in onnx.defs.get_all_schemas_with_history()
    if schema.domain == "" and schema.since_version <= 17
}


# Range without a step goes by 1.
@pytest.mark.parametrize("operation", sorted(OPSET_17.intersection(OPERATIONS) - {"Range"}))
def test_an_operation_whose_operands_are_absent_is_refused_or_takes_none(operation: str) -> None:
    """By ONNX's own word on which operands an operation needs."""
    schema = onnx.defs.get_schema(operation, 17)
    needed = [
        i
        for i, each in enumerate(schema.inputs)
        if each.option == onnx.defs.OpSchema.FormalParameterOption.Single
    ]
    names = [f"i{index}" for index in range(max(len(needed), 1))]
    for absent in needed:
        operands = ["" if index == absent else name for index, name in enumerate(names)]
        with pytest.raises(MobileInstError):
            OnnxGraph.load(graph_of(helper.make_node(operation, operands, ["y"]), names))


def test_an_open_axis_written_as_minus_one_is_open() -> None:
    model = graph_of(helper.make_node("Relu", ["x"], ["y"]), ["x"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert OnnxGraph.load(model).declared["x"].shape == (None, 1, 3, 3)


@pytest.mark.parametrize("shape", [(), (1,), (2, 1)])
def test_an_error_that_is_nan_is_infinite_whatever_the_rank(shape: tuple[int, ...]) -> None:
    values = np.full(shape, np.nan, np.float32)
    assert np.all(absolute_error(values, np.zeros(shape)) == np.inf)
    assert np.all(absolute_error(values, np.full(shape, np.nan)) == 0)
