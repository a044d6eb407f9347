"""MNN's file read as a graph: what the converter kept of it, and that MNN computes the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import converted_files
import narrow_network
import numpy as np
import onnx
import pytest
from changed_files import changed, with_a_slice_off
from onnx import numpy_helper
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.far_process import FarProcess, Opening
from conformance.candidates.kinds import PHONE_RUNTIMES
from conformance.conversion.mnn_graph import mnn_graph
from conformance.conversion.mnn_model import (
    CONVOLUTIONS,
    SPARSE,
    MnnGrid,
    MnnModel,
    MnnOperator,
    kernel,
    read_mnn,
)
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.reports.report import Report
from refimpl.errors import FileError, ShapeError, UnsupportedOperationError

runtimes = pytest.mark.runtimes
SHAPE = (1, 3, 128, 128)
IMAGES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
SMALL = Path(__file__).parents[2] / "data" / "mnn" / "small.mnn"
"""Of `small`, by MNN 3.6.1: `mobileinst convert small.onnx --to mnn`."""
SMALL8 = SMALL.with_name("small8.mnn")
"""And with ``--precision int8``."""
STATIC = SMALL.with_name("small8-static.mnn")
"""And with ``--precision int8-static``."""
TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
small (float[1, 4, 8, 12] x) => (float[1, 6, 18] y, float[1, 8, 8, 12] z, float[1, 8, 4, 6] mean)
{
  conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1)
  relu = Relu (conv)
  deep = Conv <pads = [2, 0, 1, 2], group = 8> (relu, w2, b2)
  six = Clip (deep, zero, top)
  pool = MaxPool <kernel_shape = [2, 3], strides = [2, 3]> (six)
  mean = AveragePool <kernel_shape = [2, 2], strides = [1, 1], pads = [1, 0, 0, 1]> (six)
  wide = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (pool, , , sides)
  sum = Add (six, wide)
  first, second = Split <axis = 1> (sum, parts)
  root = Sigmoid (first)
  both = Concat <axis = 1> (second, root, six)
  cut = Slice (both, begins, ends, axes, steps)
  rows = Reshape (cut, shape)
  turned = Transpose <perm = [0, 2, 1]> (rows)
  normal = LayerNormalization <axis = -1> (turned, scale, shift)
  logits = MatMul (normal, rows)
  weighed = Softmax <axis = -1> (logits)
  product = MatMul (weighed, w3)
  back = Transpose <perm = [0, 2, 1]> (product)
  gate = HardSigmoid <alpha = 0.2> (back)
  y = Mul (back, gate)
  up = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
       (sum, , scales)
  z = Tanh (up)
}
"""


def small() -> onnx.ModelProto:
    """Return a graph of what networks are made of, a few numbers wide."""
    rng = np.random.default_rng(5)
    drawn = {"w1": (8, 4, 3, 3), "b1": (8,), "w2": (8, 1, 4, 3), "b2": (8,), "scale": (7,), "shift": (7,)}
    weights: dict[str, Any] = {
        name: rng.normal(size=shape) for name, shape in {**drawn, "w3": (18, 6)}.items()
    }
    weights |= {"zero": 0.0, "top": 6.0, "scales": [1.0, 1.0, 2.0, 2.0]}
    whole = {"sides": [1, 8, 4, 6], "parts": [3, 5], "begins": [1, 2], "ends": [4, 16], "axes": [2, 1]}
    whole |= {"steps": [1, 2], "shape": [1, -1, 18]}
    held = {name: np.array(numbers, np.float32) for name, numbers in weights.items()}
    held |= {name: np.array(numbers, np.int64) for name, numbers in whole.items()}
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    return model


def beside_its_source(path: Path, source: onnx.ModelProto | Path) -> Report:
    return converted_files.beside_its_source(path, source, partly=True)


def test_a_small_one_means_what_it_was_made_from() -> None:
    report = beside_its_source(SMALL, small())
    report.raise_on_failure()
    assert len(report.leading.steps) >= 15


def test_one_of_integers_means_what_it_was_made_from() -> None:
    report = beside_its_source(SMALL8, small())
    report.raise_on_failure()
    assert len(report.leading.steps) >= 15
    assert "weights of integers taken as the file has them: 3" in report.tolerance


def kernels(path: Path) -> list[Any]:
    return [kernel(each).numbers for each in read_mnn(path).operators if each.kind in CONVOLUTIONS]


def test_integers_stand_for_the_nearest_of_256_numbers_of_their_channels_range() -> None:
    """By NumPy, from the graph's weights: the least number, and a 255th of the range times a whole one."""
    held = {array.shape: array for array in kernels(SMALL8)}
    for weight in (drawn("w1"), drawn("w2"), drawn("w3").T[..., None, None]):
        rows = weight.reshape(len(weight), -1).astype(np.float64)
        least, most = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
        step = (most - least) / 255
        wanted = least + np.rint((rows - least) / step) * step
        apart = np.abs(held[weight.shape].reshape(rows.shape) - wanted)
        assert (apart <= 1e-6 * np.abs(rows).max()).all()


def places(operator: MnnOperator, name: str) -> bytes:
    """Return how a list of numbers that an operator is told lies in the file."""
    return np.ascontiguousarray(operator.told[name]).tobytes()


def floats(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


def wholes(*numbers: int) -> bytes:
    return np.array(numbers, "<i4").tobytes()


def drawn(name: str) -> Any:
    """Return a weight of the small graph."""
    held = {tensor.name: tensor for tensor in small().graph.initializer}
    return numpy_helper.to_array(held[name])


CHANGES: dict[str, tuple[bytes, bytes, str]] = {
    "weight": (drawn("w1").tobytes()[:96], (drawn("w1").ravel()[:24] * np.float32(1.05)).tobytes(), "conv"),
    "bias": (drawn("b1").tobytes(), drawn("b2").tobytes(), "conv"),
    "kernel order": (drawn("w2").tobytes(), drawn("w2").swapaxes(2, 3).tobytes(), "deep"),
    "pads": (wholes(2, 0, 1, 2), wholes(1, 0, 2, 2), "deep"),
    "pads that do not fit": (wholes(2, 0, 1, 2), wholes(1, 1, 1, 2), "deep"),
    "average": (wholes(4, 1, 0, 0, 1), wholes(4, 0, 0, 1, 1), "mean"),
    "parts": (wholes(3, 5), wholes(5, 3), "logits"),
    "scale": (drawn("scale").tobytes(), drawn("shift").tobytes(), "normal"),
    "slope": (floats(0.2), floats(1 / 6), "gate"),
}
"""What is changed in the file → bytes, others, and the step that it shows at."""


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_named_where_it_is(tmp_path: Path, kind: str) -> None:
    *change, step = CHANGES[kind]
    report = beside_its_source(changed(SMALL, tmp_path, *change), small())
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == step


def bits(channel: Any) -> bytes:
    """Return the 256 numbers that a channel's weights were rounded to, as the file has them of each."""
    least, most = channel.min(), channel.max()
    return np.round((channel.ravel() - least) / ((most - least) / np.float32(255))).astype(np.uint8).tobytes()


@pytest.mark.parametrize(("name", "step"), [("w1", "conv"), ("w2", "deep")])
def test_a_change_of_integers_is_named_where_it_is(tmp_path: Path, name: str, step: str) -> None:
    """All of one channel: three steps more of each that has room for them."""
    own = bits(drawn(name)[1])
    other = np.minimum(np.frombuffer(own, np.uint8).astype(int) + 3, 255).astype(np.uint8).tobytes()
    report = beside_its_source(changed(SMALL8, tmp_path, own, other), small())
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == step
    headline = report.headline()
    assert f"weight {name} is " in headline
    assert "× yours in 1 of 8 output channels: 1: more than rounding to integers" in headline


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b"\x02\x08\0\x24\0\0", b"\x02\xff\xff\x24\0\0", "2359260 numbers of 8 bits in"),
        (b"\x02\x08\0\x24\0\0", b"\x02\x08\0\x25\0\0", "it is malformed"),
        (b"\x02\x08\0\x24\0\0", b"\xff\x08\0\x24\0\0", "it is malformed"),
    ],
)
def test_integers_that_are_not_there_are_named(
    tmp_path: Path, before: bytes, after: bytes, said: str
) -> None:
    path = changed(SMALL8, tmp_path, before, after)
    with pytest.raises(FileError, match=said):
        mnn_graph(read_mnn(path), {"x": (1, 4, 8, 12)}, ["y", "z", "mean"])


SHOWN = {"w1": "conv", "b1": "conv", "w2": "deep", "b2": "deep", "scale": "normal", "shift": "normal"}
"""Weight → the step that it shows at."""


@pytest.mark.parametrize("name", SHOWN)
def test_slices_of_weights_are_named_where_they_are(tmp_path: Path, name: str) -> None:
    weight = drawn(name)
    for other in with_a_slice_off(weight, name):
        path = changed(SMALL, tmp_path, weight.tobytes(), other.tobytes())
        report = beside_its_source(path, small())
        assert report.leading.first_fault is not None
        assert report.leading.first_fault.step == SHOWN[name]


def test_operands_that_do_not_fit_together_are_told(tmp_path: Path) -> None:
    """They fail the verdict, and what is computed before them tells where."""
    before, after, _ = CHANGES["pads that do not fit"]
    onnx.save(small(), tmp_path / "small.onnx")
    path = changed(SMALL, tmp_path, before, after)
    line = ["verify", str(path), "--against", str(tmp_path / "small.onnx"), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 1, result.output
    assert "it cannot be computed: node 'BinaryOp sum" in result.output
    assert "at        deep (Conv)" in result.output


def beside(path: Path, folder: Path, source: onnx.ModelProto) -> tuple[int, str]:
    """Return what the command answers of a file and a source, and prints."""
    onnx.save(source, folder / "source.onnx")
    line = ["verify", str(path), "--against", str(folder / "source.onnx"), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line, env={"COLUMNS": "200"})
    return result.exit_code, result.output


def with_changed(name: str, change: Callable[[Any], Any]) -> onnx.ModelProto:
    """Return the small graph with another constant."""
    model = small()
    (held,) = (each for each in model.graph.initializer if each.name == name)
    held.CopyFrom(numpy_helper.from_array(np.float32(change(numpy_helper.to_array(held))), name))
    return model


def test_one_of_integers_throughout_means_what_it_was_made_from(tmp_path: Path) -> None:
    """Its quantiser leaves a Clip's upper bound to the range, and names no outputs."""
    code, said = beside(STATIC, tmp_path, small())
    assert code == 0, said
    assert "on 3 inputs; 17 of 17 steps judged" in said


@pytest.mark.parametrize(("name", "step"), [*SHOWN.items(), ("w3", "product")])
def test_of_integers_throughout_another_constant_is_named(tmp_path: Path, name: str, step: str) -> None:
    def change(weight: Any) -> Any:
        other = np.array(weight)
        other[:1] *= 1.05
        return other

    code, said = beside(STATIC, tmp_path, with_changed(name, change))
    assert code == 1, said
    assert f"at        {step} (" in said


@pytest.mark.parametrize("top", [2.0, 30.0])
def test_an_upper_bound_is_left_to_the_range_only_where_that_keeps_it(tmp_path: Path, top: float) -> None:
    """The range of its result ends at about 6."""
    code, said = beside(STATIC, tmp_path, with_changed("top", lambda _: top))
    assert (code, "six (Clip)" in said) == ((1, True) if top < 6 else (0, False)), said


def test_a_tensor_is_integers_only_where_it_is_computed_so() -> None:
    model = read_mnn(STATIC)
    assert len(model.grids) >= 5

    def kinds(*said: Any) -> list[str]:
        made = mnn_graph(model, {"x": (1, 4, 8, 12)}, ["y", "z", "mean"], *said)
        return [node.op_type for node in made.graph.node]

    assert "QuantizeLinear" not in kinds(())
    assert kinds({"conv"}).count("QuantizeLinear") == 2  # its operand, and its result
    assert kinds((), {"conv"}).count("QuantizeLinear") == 1


def test_integers_that_are_joined_are_not_cut_off_anew() -> None:
    """As those of a map that coordinates are joined to, of which the whole has the narrower ends."""
    wide, narrow = MnnGrid(0.5, 0, -128, 127), MnnGrid(0.5, 0, -127, 127)
    told = {"way": 0, "activation": 0}
    operators = [
        MnnOperator("Input", "x", (), (0,), {"dims": np.array([1, 2, 2])}),
        MnnOperator("BinaryOp", "sum", (0, 0), (1,), told),
        MnnOperator("Concat", "both", (1, 0), (2,), {"axis": 1}),
        MnnOperator("Permute", "turned", (2,), (3,), {"dims": np.array([0, 2, 1])}),
        MnnOperator("BinaryOp", "last", (3, 3), (4,), told),
    ]
    grids = {0: wide, 1: wide, 3: narrow, 4: MnnGrid(1.0, 0)}
    model = MnnModel(operators, ["x", "sum", "both", "turned", "last"], ["last"], grids)
    graph = OnnxGraph.load(mnn_graph(model, {"x": (1, 2, 2)}, ["last"], {"sum", "last"}))
    found = EvaluatedGraph(graph).run({"x": np.full((1, 2, 2), -40.0, np.float32)})["last"]
    # −64 is −128 halves, where joined to −40, too; of each the last is twice as much.
    np.testing.assert_array_equal(found, [[[-128, -128, -80, -80]] * 2])


@runtimes
def test_kernels_that_are_mostly_zeros_are_read(tmp_path: Path) -> None:
    """Of integers throughout, MNN stores those that are not zero."""
    rng = np.random.default_rng(2)
    w = rng.normal(size=(8, 4, 3, 3)).astype(np.float32) * (rng.random((8, 4, 3, 3)) < 0.06)
    text = (
        TEXT.partition("small (")[0] + "g (float[1, 4, 8, 8] x) => (float[1, 8, 6, 6] y) { y = Conv (x, w) }"
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    path = convert(CONVERTERS["mnn"], tmp_path / "m.onnx", tmp_path / "m.mnn", "int8-static")[0]
    (each,) = (each for each in read_mnn(path).operators if each.kind in CONVOLUTIONS)
    assert each.told["narrowed"]["way"] == SPARSE
    held = kernel(each)
    apart = np.abs(held.numbers - w)
    assert (apart <= 0.5001 * held.steps + 1e-9).all()
    assert (held.numbers[w == 0] == 0).all()


@pytest.mark.parametrize("scale", [np.nan, np.inf, 0.0, -1.0])
def test_a_scale_that_is_none_is_named(tmp_path: Path, scale: float) -> None:
    own = np.array([next(iter(read_mnn(STATIC).grids.values())).scale], "<f4")
    path = changed(STATIC, tmp_path, own.tobytes(), np.array([scale], "<f4").tobytes())
    with pytest.raises(FileError, match=f"integers of scale {scale}"):
        read_mnn(path)


@pytest.mark.parametrize("point", [np.nan, np.inf, 200.0])
def test_a_zero_point_that_is_no_integer_of_a_byte_is_named(tmp_path: Path, point: float) -> None:
    grid = next(each for each in read_mnn(STATIC).grids.values() if each.point not in (0, -127, -128))
    own, other = (np.array([each], "<f4").tobytes() for each in (grid.point, point))
    path = changed(STATIC, tmp_path, own, other)
    with pytest.raises(FileError, match=f"zero point {point}"):
        read_mnn(path)


BROKEN: dict[str, tuple[Any, str]] = {
    "empty": (lambda content: b"", "has 0: cut off or malformed"),
    "half": (lambda content: content[: len(content) // 2], "cut off or malformed"),
    "another": (lambda content: b"TFL3" * 20, "cut off or malformed"),
    "nothing in it": (lambda content: b"\x08\0\0\0\x04\0\x04\0\x04\0\0\0", "it has no operators"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, kind: str) -> None:
    change, said = BROKEN[kind]
    (tmp_path / "m.mnn").write_bytes(change(SMALL.read_bytes()))
    with pytest.raises(FileError, match=said):
        read_mnn(tmp_path / "m.mnn")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"m\.mnn: cannot be read"):
        read_mnn(tmp_path / "m.mnn")


def one_operator(kind: str, **told: Any) -> MnnModel:
    """Return a model of an operator on (1, 4, 4, 2)."""
    given = MnnOperator("Input", "x", (), (0,), {"dims": np.array([1, 4, 4, 2])})
    return MnnModel([given, MnnOperator(kind, "n", (0,), (1,), told)], ["x", "y"], ["y"])


NOTHING = np.zeros(0, np.int64)
WINDOW = {"global": 0, "average": 0, "ceil": 0, "pads": NOTHING, "kernel_x": 1, "kernel_y": 1}
STRIDES = {"stride_x": 1, "stride_y": 1, "pad_mode": 3}
NORM = {"external": NOTHING, "axis": np.array([1]), "group": 1, "root_mean_square": 0}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (one_operator("OpType 99"), "n: what OpType 99 means is not written down"),
        (one_operator("UnaryOp", way=17), "UnaryOp n: UnaryOp 17 is not written down"),
        (one_operator("ConvertTensor", to=1), "a map with its channels last"),
        (one_operator("Pooling", **WINDOW, **STRIDES), "pad mode 3"),
        (one_operator("LayerNorm", **NORM), r"normalising over \[1\] in 1 groups"),
        (one_operator("Slice", axis=0, points=NOTHING, source=1), "a split as of NetSource 1"),
    ],
)
def test_what_is_not_known_is_named(model: MnnModel, said: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=said):
        mnn_graph(model, {"x": (1, 4, 4, 2)}, ["y"])


def test_weights_in_another_file_are_refused() -> None:
    held = read_mnn(SMALL)
    outside = [
        replace(each, told={**each.told, "external": np.array([0, 8, 8])})
        if each.kind == "Convolution"
        else each
        for each in held.operators
    ]
    with pytest.raises(UnsupportedOperationError, match="conv: its weights lie in another file"):
        mnn_graph(replace(held, operators=outside), {"x": (1, 4, 8, 12)}, ["y", "z", "mean"])


def test_an_operator_that_lacks_what_it_should_be_told_is_named() -> None:
    with pytest.raises(FileError, match="BinaryOp n: it is malformed"):
        mnn_graph(one_operator("BinaryOp"), {"x": (1, 4, 4, 2)}, ["y"])


def test_a_source_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"takes \[\(1, 4, 4, 2\)\], its source \[\(1, 4, 4, 3\)\]"):
        mnn_graph(one_operator("TanH"), {"x": (1, 4, 4, 3)}, ["y"])


# --- beside MNN itself ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network's ``.mnn``; the ONNX file lies beside it."""
    folder = tmp_path_factory.mktemp("mnn")
    onnx.save(export(narrow_network.network(), IMAGES), folder / "m.onnx")
    return convert(CONVERTERS["mnn"], folder / "m.onnx", folder / "m.mnn")[0]


@runtimes
def test_a_converted_network_means_what_it_was_made_from(mnn: Path) -> None:
    beside_its_source(mnn, mnn.with_suffix(".onnx")).raise_on_failure()


@runtimes
def test_a_sixth_that_was_halved_is_named(mnn: Path, tmp_path: Path) -> None:
    """With --fp16 weights are compared as halves; a number of the hard sigmoid is none."""
    source = mnn.with_suffix(".onnx")
    path = convert(CONVERTERS["mnn"], source, tmp_path / "m.mnn", "float16")[0]
    report = beside_its_source(path, source)
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step.endswith("HardSigmoid")
    assert "0.166626" in report.headline()


@runtimes
def test_a_network_of_integers_means_what_it_was_made_from(mnn: Path, tmp_path: Path) -> None:
    source = mnn.with_suffix(".onnx")
    path = convert(CONVERTERS["mnn"], source, tmp_path / "m.mnn", "int8")[0]
    report = beside_its_source(path, source)
    report.raise_on_failure()
    assert sum(row.verdict == "pass" for row in report.leading.steps) > 0.9 * len(report.leading.steps)


@runtimes
def test_a_channel_of_tiny_weights_that_became_one_number_is_named(tmp_path: Path) -> None:
    """MNN's converter gives integers only where they stand for steps of more than 1e-6."""
    weight = np.random.default_rng(0).uniform(-1, 1, (8, 16, 3, 3)).astype(np.float32)
    weight[2] *= np.float32(1e-4)
    graph = onnx.parser.parse_graph("g (float[1, 16, 8, 8] x) => (float[1, 8, 6, 6] y) {y = Conv (x, w)}")
    graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(onnx.helper.make_model(graph, ir_version=8), tmp_path / "m.onnx")
    path = convert(CONVERTERS["mnn"], tmp_path / "m.onnx", tmp_path / "m.mnn", "int8")[0]
    assert "in 1 of 8 output channels: 2" in beside_its_source(path, tmp_path / "m.onnx").headline()


WAYS = {
    "int8": ["--weightQuantBits", "8"],
    "symmetric": ["--weightQuantBits", "8", "--weightQuantAsymmetric"],
    "blocks": ["--weightQuantBits", "8", "--weightQuantBlock", "16"],
    "scales of float16": ["--weightQuantBits", "8", "--weightQuantScaleBit", "16"],
    "hqq": ["--weightQuantBits", "8", "--hqq"],
    "4 bits": ["--weightQuantBits", "4"],
    "3 bits": ["--weightQuantBits", "3", "--weightQuantAsymmetric"],
}
"""How integers are written → what MNN's converter is told."""
SAID = {"threads": 1, "precision": "high", "memory": 0, "hints": []}


@runtimes
@pytest.mark.parametrize("way", WAYS)
def test_integers_are_widened_as_mnn_widens_them(tmp_path: Path, way: str) -> None:
    """What a convolution of a picture of one 1 among zeros gives are its numbers, to the last bit."""
    weight = np.random.default_rng(3).normal(size=(24, 32, 1, 1)).astype(np.float32)
    graph = onnx.parser.parse_graph("g (float[32, 32, 1, 1] x) => (float[32, 24, 1, 1] y) {y = Conv (x, w)}")
    graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(onnx.helper.make_model(graph, ir_version=8), tmp_path / "m.onnx")
    told = replace(CONVERTERS["mnn"], precisions={way: WAYS[way]})
    path = convert(told, tmp_path / "m.onnx", tmp_path / "m.mnn", way)[0]
    ones = np.eye(32, dtype=np.float32).reshape(32, 32, 1, 1)
    process = FarProcess(Opening("mnn", "MNN", [path], SAID), (), 100.0)
    process.open()
    (made,) = process.ask("run", {"x": ones})[1].values()
    process.close()
    (held,) = kernels(path)
    assert not np.array_equal(held, weight), "then this shows nothing"
    assert np.array_equal(made.reshape(32, 24).T, held.reshape(24, 32).astype(np.float32))


@runtimes
@pytest.mark.parametrize("which", ["small", "small8", "narrow"])
def test_mnn_computes_what_its_file_is_read_as(mnn: Path, tmp_path: Path, which: str) -> None:
    """Every tensor that both have, in MNN's own kernels and by our evaluation of the graph."""
    files = {"small": SMALL, "small8": SMALL8}
    path, source = (files[which], small()) if which in files else (mnn, mnn.with_suffix(".onnx"))
    graph, before = converted_files.read(path, source)
    ((name, info),) = before.declared.items()
    images = np.random.default_rng(0).normal(size=info.shape).astype(np.float32)
    said = ",weights=int8" if which == "small8" else ""
    own = PHONE_RUNTIMES["mnn"].candidate(f"{path},winograd=off{said}").capture(images)
    ours = EvaluatedGraph(graph).capture({name: images})
    shared = own.keys() & ours.keys()
    assert len(shared) > (10 if which in files else 100)
    for name in shared:
        assert own[name].size == ours[name].size, name
        apart = np.abs(own[name].ravel() - ours[name].ravel()).max()
        assert apart <= 1e-3 * max(np.abs(ours[name]).max(), 1e-3), name


@runtimes
def test_the_command_takes_a_mnn(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "small.onnx")
    path = convert(CONVERTERS["mnn"], tmp_path / "small.onnx", tmp_path / "small.mnn")[0]
    line = ["verify", str(path), "--against", str(tmp_path / "small.onnx"), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output
