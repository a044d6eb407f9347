"""ExecuTorch's programs of integers, by XNNPACK's quantiser: read, and judged by what they mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from changed_files import changed
from converted_files import with_slice_multiplied
from executorch_files import SMALL, W, meaning, small

from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.integer_graph import integer_graph
from conformance.candidates.kinds import PHONE_RUNTIMES
from conformance.conversion import xnnpack_graph, xnnpack_model
from conformance.conversion.executorch_model import read_executorch
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_beside
from conformance.judge.any_graph import verify_graph
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError, FileError, UnsupportedOperationError

runtimes = pytest.mark.runtimes
SMALL8 = SMALL.with_name("small8.pte")
"""Of `small`, by ExecuTorch 1.5.1: ``convert small.onnx --to executorch --precision int8-static``."""
XNNPACK8 = SMALL.with_name("small8-xnnpack.pte")
"""And with ``--delegate xnnpack``."""
DELEGATES = {SMALL8: "portable", XNNPACK8: "xnnpack"}
X = np.random.default_rng(3).uniform(size=(1, 4, 8, 12)).astype(np.float32)


def integers(path: Path) -> dict[tuple[int, ...], Any]:
    """Return the constants of 8 bits by their shape."""
    held = read_executorch(path).constants.values()
    return {array.shape: array for array in held if array.dtype == np.int8 and array.ndim == 4}


@pytest.mark.parametrize("name", ["w1", "w2"])
def test_weights_are_the_nearest_of_127_steps_of_their_channels_largest(name: str) -> None:
    """By NumPy, from the graph's weights."""
    rows = W[name].reshape(len(W[name]), -1).astype(np.float64)
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    apart = np.abs(integers(SMALL8)[W[name].shape].reshape(rows.shape) - rows / step)
    assert apart.max() < 0.5 + 1e-4


@pytest.mark.parametrize("path", DELEGATES)
def test_what_it_means_is_near_to_its_source(path: Path) -> None:
    """Eighteen results are integers, and what is made of them is within a tenth of the floats."""
    graph = OnnxGraph.load(meaning(read_executorch(path)))
    made = [node.outputs[0] for node in graph.nodes if node.op_type == "QuantizeLinear"]
    assert len(made) == 18
    own = EvaluatedGraph(graph).run({"x": X})
    for name, right in EvaluatedGraph(OnnxGraph.load(small())).run({"x": X}).items():
        assert np.abs(own[name] - right).max() < 0.1 * np.abs(right).max(), name


def test_both_delegates_are_handed_the_same_integers() -> None:
    """XNNPACK's file, where maps have their channels last, means what the other does, to a rounding."""
    first, second = (EvaluatedGraph(OnnxGraph.load(meaning(read_executorch(each)))) for each in DELEGATES)
    ours, theirs = first.run({"x": X}), second.run({"x": X})
    for name in ours:
        assert np.abs(ours[name] - theirs[name]).max() < 1e-6, name


def test_a_fused_part_of_integers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it rounds within, nothing is shown."""
    monkeypatch.setattr(xnnpack_graph, "_MOVING", frozenset())
    with pytest.raises(UnsupportedOperationError, match="several of XNNPACK's operations on integers in one"):
        meaning(read_executorch(XNNPACK8))


def test_other_ends_of_integers_are_refused(tmp_path: Path) -> None:
    """QuantizeLinear cuts off at those of the type."""
    least = b"\x80" + b"\xff" * 7
    content = SMALL8.read_bytes()
    assert least in content
    (tmp_path / "m.pte").write_bytes(content.replace(least, b"\x81" + b"\xff" * 7))
    with pytest.raises(UnsupportedOperationError, match="integers from -127 to 127 is not written down"):
        meaning(read_executorch(tmp_path / "m.pte"))


@runtimes
@pytest.mark.parametrize(
    ("path", "said", "why"),
    [
        (SMALL8, "", "has weights of int8-static: declare weights=int8-static"),
        (XNNPACK8, ",delegate=xnnpack", "has weights of int8-static: declare weights=int8-static"),
        (SMALL, ",weights=int8-static", "has no weights of int8-static"),
        (SMALL8, ",delegate=xnnpack,weights=int8-static", "hands nothing to XNNPACK"),
    ],
)
def test_integers_are_declared_or_the_file_is_refused(path: Path, said: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        PHONE_RUNTIMES["executorch"].candidate(f"{path}{said}")


DYNAMIC = {
    "portable": SMALL.with_name("small8-dynamic.pte"),
    "xnnpack": SMALL.with_name("small8-dynamic-xnnpack.pte"),
}
"""By delegate: with ``--precision int8-dynamic``."""


def beside(delegate: str, source: onnx.ModelProto) -> Report:
    """Judge a program whose products make integers as they run by a graph."""
    said = f"{DYNAMIC[delegate]},delegate={delegate},weights=int8-dynamic"
    made = PHONE_RUNTIMES["executorch"].candidate(said)
    report = verify_beside(made, OnnxGraph.load(source), {"drawn": {"x": X}})
    made.close()
    return report


@runtimes
@pytest.mark.parametrize("delegate", DYNAMIC)
def test_products_that_make_integers_as_they_run_are_judged(delegate: str) -> None:
    beside(delegate, small()).raise_on_failure()


@runtimes
@pytest.mark.parametrize("delegate", DYNAMIC)
@pytest.mark.parametrize(("weight", "step"), [("w1", "conv"), ("w2", "deep"), ("w3", "product")])
def test_of_such_a_program_another_weight_is_named(
    tmp_path: Path, delegate: str, weight: str, step: str
) -> None:
    onnx.save(small(), tmp_path / "small.onnx")
    fault = beside(delegate, with_slice_multiplied(tmp_path / "small.onnx", weight, 1.05)).leading.first_fault
    assert fault is not None
    assert fault.step == step


def test_a_scale_that_is_found_of_another_tensor_is_refused() -> None:
    program = read_executorch(DYNAMIC["portable"])
    (number,) = (number for number, call in program.calls.items() if "::quantize_per_tensor" in call.kind)
    call = program.calls[number]
    other = replace(call, arguments=(program.inputs[0], *call.arguments[1:]))
    with pytest.raises(UnsupportedOperationError, match="a scale that is computed of another tensor"):
        meaning(replace(program, calls={**program.calls, number: other}))


@runtimes
def test_a_program_with_a_part_that_is_not_read_is_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """As XNNPACK's softmax may not be: what it hands over runs all the same."""
    known = {place: each for place, each in xnnpack_model.FIELDS.items() if each[0] != "Softmax"}
    monkeypatch.setattr(xnnpack_model, "FIELDS", known)
    path = SMALL.with_name("small-xnnpack.pte")
    with pytest.raises(UnsupportedOperationError):
        meaning(read_executorch(path))
    PHONE_RUNTIMES["executorch"].candidate(f"{path},delegate=xnnpack").close()


def judged(path: Path, by: Path) -> Report:
    """Judge what runs a program by what one of the same delegate means."""
    said = f"executorch:weights=int8-static,delegate={DELEGATES.get(by, 'portable')}"
    made, right = (integer_graph(each, said) for each in (path, by))
    made.graph = right.graph
    (name,) = right.graph.inputs
    report = verify_graph(made, {name: X})
    made.close()
    right.close()
    return report


@runtimes
@pytest.mark.parametrize("path", DELEGATES)
def test_a_right_file_passes(path: Path) -> None:
    report = judged(path, path)
    assert report.verdict != "fail", report.headline()
    assert [row.verdict for row in report.leading.nodes] == ["pass"] * 18


@runtimes
@pytest.mark.parametrize("path", DELEGATES)
def test_it_is_converted_so(tmp_path: Path, path: Path) -> None:
    onnx.save(small(), tmp_path / "m.onnx")
    told = CONVERTERS["executorch"], tmp_path / "m.onnx", tmp_path / "m.pte", "int8-static", DELEGATES[path]
    made, own = (read_executorch(each) for each in (convert(*told)[0], path))
    assert [call.kind for call in made.calls.values()] == [call.kind for call in own.calls.values()]
    pairs = zip(integers(told[2]).values(), integers(path).values(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


WRONG = [
    (SMALL8, "w1", (0, 1, 2, 3), "quantized_decomposed::quantize_per_tensor.out_6"),
    (SMALL8, "w2", (0, 1, 2, 3), "quantized_decomposed::quantize_per_tensor.out_9"),
    (XNNPACK8, "w1", (0, 2, 3, 1), "XnnpackBackend_3"),
    (XNNPACK8, "w2", (1, 2, 3, 0), "XnnpackBackend_4"),
]
"""File, weight, the order of its axes there, and the result that it makes."""


@runtimes
@pytest.mark.parametrize(("path", "name", "order", "place"), WRONG)
def test_a_wrong_weight_is_found_where_it_is(
    tmp_path: Path, path: Path, name: str, order: tuple[int, ...], place: str
) -> None:
    """What runs has another weight than what it is judged by."""
    held = integers(SMALL8)[W[name].shape].transpose(order)
    other = np.where(held > 0, held - 20, held + 20).astype(np.int8)
    report = judged(changed(path, tmp_path, held.tobytes(), other.tobytes()), path)
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == place


@runtimes
def test_a_fused_part_is_not_converted_to_integers(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "m.onnx")
    told = CONVERTERS["executorch"], tmp_path / "m.onnx", tmp_path / "m.pte", "int8-static"
    with pytest.raises(FileError, match="is not for delegate=xnnpack-whole"):
        convert(*told, delegate="xnnpack-whole")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
