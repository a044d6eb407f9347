"""LiteRT's file read as a graph: what the converter kept of it, and that LiteRT computes the same."""

from __future__ import annotations

from pathlib import Path

import narrow_network
import numpy as np
import onnx
import pytest
from converted_files import beside_its_source, read, with_slice_multiplied
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.kinds import PHONE_RUNTIMES
from conformance.conversion.litert_graph import litert_graph
from conformance.conversion.litert_model import LitertModel, LitertOperator, read_litert
from conformance.graph.onnx_export import export
from refimpl.errors import ShapeError, UnsupportedOperationError

runtimes = pytest.mark.runtimes
SHAPE = (1, 3, 128, 128)
IMAGES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network's ``.tflite``; the ONNX file lies beside it."""
    folder = tmp_path_factory.mktemp("litert")
    onnx.save(export(narrow_network.network(), IMAGES), folder / "m.onnx")
    return convert(CONVERTERS["litert"], folder / "m.onnx", folder / "m.tflite")[0]


@runtimes
def test_a_converted_network_means_what_it_was_made_from(tflite: Path) -> None:
    beside_its_source(tflite, tflite.with_suffix(".onnx")).raise_on_failure()


@runtimes
def test_litert_computes_what_its_file_is_read_as(tflite: Path) -> None:
    """Every tensor that both have, in LiteRT's own kernels and by our evaluation of the graph."""
    own = PHONE_RUNTIMES["litert"].candidate(f"{tflite},xnnpack=off").capture(IMAGES)
    graph = read(tflite, tflite.with_suffix(".onnx"))[0]
    ours = EvaluatedGraph(graph).capture({"images": IMAGES})
    shared = own.keys() & ours.keys()
    assert len(shared) > 200
    for name in shared:
        assert own[name].shape == ours[name].shape, name
        assert np.abs(own[name] - ours[name]).max() <= 1e-3 * max(np.abs(ours[name]).max(), 1e-3), name


@runtimes
def test_a_weight_changed_on_the_way_is_found(tflite: Path, tmp_path: Path) -> None:
    content = bytearray(tflite.read_bytes())
    model = read_litert(tflite)
    head = next(each for each in model.operators if model.outputs["kernels"] in each.outputs)
    before = content.find(model.constants[head.inputs[1]].tobytes())
    assert before > 0
    changed = np.frombuffer(bytes(content[before : before + 64]), np.float32) * np.float32(1.05)
    content[before : before + 64] = changed.tobytes()
    (tmp_path / "m.tflite").write_bytes(content)
    report = beside_its_source(tmp_path / "m.tflite", tflite.with_suffix(".onnx"))
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == "kernels"


@pytest.fixture(scope="module")
def integers(tflite: Path) -> Path:
    """The same with weights of int8."""
    return convert(CONVERTERS["litert"], tflite.with_suffix(".onnx"), tflite.with_name("m8.tflite"), "int8")[
        0
    ]


@runtimes
def test_integer_weights_are_roundings_of_their_source(tflite: Path, integers: Path) -> None:
    """Those, too, into which its converter folds a layer norm, and queries that it multiplies first."""
    report = beside_its_source(integers, tflite.with_suffix(".onnx"))
    report.raise_on_failure()
    assert sum(row.verdict == "pass" for row in report.leading.steps) > 150
    assert all(row.verdict == "pass" for row in report.leading.outputs)


@runtimes
@pytest.mark.parametrize(
    "weight", ["mask_decoder.lateral.1.conv.weight", "instance_decoder.kernel_head.0.weight"]
)
def test_integer_weights_of_another_source_are_named(tflite: Path, integers: Path, weight: str) -> None:
    source = with_slice_multiplied(tflite.with_suffix(".onnx"), weight, 1.05)
    assert f"weight {weight} is 0.9" in beside_its_source(integers, source).headline()


@runtimes
@pytest.mark.parametrize("precision", ["float32", "int8-static"])
def test_the_command_takes_a_tflite(tflite: Path, tmp_path: Path, precision: str) -> None:
    """One of integers throughout, too."""
    source = tflite.with_suffix(".onnx")
    path = convert(CONVERTERS["litert"], source, tmp_path / "m.tflite", precision)[0]
    line = ["verify", str(path), "--against", str(source), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output


def one_operator(kind: str, **options: object) -> LitertModel:
    """Return a model of an operator on (1, 4, 4, 2), with a list of sides as its second operand."""
    operator = LitertOperator(kind, (0, 1), (2,), options)
    shapes = [(1, 4, 4, 2), (2,), (1, 8, 8, 2)]
    return LitertModel([operator], ["x", "sides", "y"], shapes, {1: np.array([8, 8])}, {}, {"x": 0}, {"y": 2})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (one_operator("FROBNICATE"), "y: what FROBNICATE means is not written down"),
        (one_operator("SOFTMAX", beta=2.0), "beta 2.0 is not written down"),
        (
            one_operator("RESIZE_NEAREST_NEIGHBOR", halfPixelCenters=True, alignCorners=False),
            "nearest neighbours by half_pixel",
        ),
        (one_operator("RELU", fusedActivationFunction=5), "its activation is not written down"),
    ],
)
def test_what_is_not_known_is_named(model: LitertModel, said: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=said):
        litert_graph(model, {"x": (1, 2, 4, 4)}, ["y"])


def test_a_source_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"takes \(1, 4, 4, 2\), its source \(1, 4, 4, 3\)"):
        litert_graph(one_operator("RELU"), {"x": (1, 4, 4, 3)}, ["y"])
