"""Files of integers throughout beside their source: ExecuTorch's, and graphs of ONNX Runtime's quantiser."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from converted_files import with_slice_multiplied
from executorch_files import SHOWN, SMALL, small
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.unrounded import rounds_only, unrounded, verify_unrounded
from conformance.reports.report import Report
from refimpl.ops.operation import Array

SMALL8, XNNPACK8 = SMALL.with_name("small8.pte"), SMALL.with_name("small8-xnnpack.pte")
"""By ExecuTorch 1.5.1: ``convert small.onnx --to executorch --precision int8-static``, and ``--delegate``."""
DYNAMIC, XNNPACK_DYNAMIC = (
    SMALL.with_name("small8-dynamic.pte"),
    SMALL.with_name("small8-dynamic-xnnpack.pte"),
)
"""And with ``--precision int8-dynamic``."""
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4, 12, 16] x) => (float[1, 20] y)
{
  first = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  bent = Tanh (first)
  second = Conv (bent, w2, b2)
  sum = Add (bent, second)
  mean = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (sum)
  flat = Reshape (mean, sides)
  product = MatMul (flat, w3)
  y = Add (product, b3)
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    onnx.save(small(), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def verified(file: Path, source: Path, *more: str) -> tuple[int, str]:
    """Return what the command answers, and prints."""
    line = ["verify", str(file), "--against", str(source), "--no-cache", *more]
    result = CliRunner().invoke(conformance.cli.app, line, env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.mark.parametrize("file", [SMALL8, XNNPACK8, DYNAMIC, XNNPACK_DYNAMIC])
def test_a_right_file_passes_on_any_input(file: Path, source: Path) -> None:
    code, said = verified(file, source)
    assert code == 0, said
    assert "on 3 inputs; 15 of 15 steps judged" in said


@pytest.mark.parametrize("file", [SMALL8, XNNPACK8, DYNAMIC, XNNPACK_DYNAMIC])
@pytest.mark.parametrize("weight", ["w1", "w2", "w3"])
def test_another_weight_is_named(file: Path, source: Path, weight: str) -> None:
    onnx.save(with_slice_multiplied(source, weight, 1.05), source)
    code, said = verified(file, source)
    assert code == 1
    assert f"at        {SHOWN.get(weight, 'product')} (" in said


@pytest.mark.parametrize("file", [SMALL8, DYNAMIC])
@pytest.mark.parametrize(
    ("node", "attribute", "value"),
    [
        ("gate", "alpha", 0.21),
        ("normal", "epsilon", 0.1),
        ("weighed", "axis", 1),
        ("mean", "count_include_pad", 0),
    ],
)
def test_another_attribute_is_named(
    source: Path, file: Path, node: str, attribute: str, value: object
) -> None:
    model = onnx.load(source)
    (made,) = (each for each in model.graph.node if node in each.output)
    kept = [each for each in made.attribute if each.name != attribute]
    del made.attribute[:]
    made.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])
    onnx.save(model, source)
    code, said = verified(file, source)
    assert code == 1, said
    assert f"at        {node} (" in said


def test_on_an_input_of_its_kind_it_is_said_what_integers_leave(source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(3).uniform(size=(1, 4, 8, 12)).astype(np.float32))
    code, said = verified(SMALL8, source, "--input", f"x={tmp_path / 'x.npy'}")
    assert code == 0, said
    assert "signal to noise with integers: y 22" in said


X = {"x": np.random.default_rng(1).normal(size=(1, 4, 12, 16)).astype(np.float32)}


class Inputs(CalibrationDataReader):
    """What ranges are taken from."""

    def __init__(self) -> None:
        self.left = iter([X])

    def get_next(self) -> Any:
        return next(self.left, None)


def plain() -> onnx.ModelProto:
    """Return a network of floats."""
    rng = np.random.default_rng(0)
    shapes = {
        "w1": (32, 4, 3, 3),
        "b1": (32,),
        "w2": (32, 32, 1, 1),
        "b2": (32,),
        "w3": (384, 20),
        "b3": (20,),
    }
    model = onnx.parser.parse_model(TEXT)
    held = {name: rng.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in shapes.items()}
    held["sides"] = np.array([1, 384])
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    return model


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """The network as ONNX Runtime quantises it, in both forms."""
    folder = tmp_path_factory.mktemp("quantised")
    onnx.save(plain(), folder / "float.onnx")
    logging.disable(logging.WARNING)
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        told: dict[str, Any] = {"quant_format": form, "per_channel": True}
        quantize_static(folder / "float.onnx", folder / f"{form.name}.onnx", Inputs(), **told)
    logging.disable(logging.NOTSET)
    return {form: onnx.load(folder / f"{form}.onnx") for form in ("QDQ", "QOperator")}


def judged(model: onnx.ModelProto) -> Report:
    """Judge a model beside the network, its ranges on what they were taken from."""
    return verify_unrounded(OnnxGraph.load(model), OnnxGraph.load(plain()), {"x": X}, ranged=True)


def test_what_another_quantiser_makes_is_the_network_but_for_rounding(
    quantised: dict[str, onnx.ModelProto],
) -> None:
    report = judged(quantised["QDQ"])
    report.raise_on_failure()
    assert all(row.verdict == "pass" for row in report.leading.outputs)
    assert "signal to noise with integers: y" in report.leading.remarks[-1]


def changed(model: onnx.ModelProto, name: str, change: Callable[[Array], Array]) -> onnx.ModelProto:
    """Return a model with a constant changed."""
    other = copy.deepcopy(model)
    (held,) = (each for each in other.graph.initializer if each.name == name)
    before = numpy_helper.to_array(held)
    held.CopyFrom(numpy_helper.from_array(np.asarray(change(before.copy()), before.dtype), name))
    return other


def exchanged(scales: Array) -> Array:
    scales[[2, 5]] = scales[[5, 2]]
    return scales


MISTAKES: dict[str, tuple[str, Callable[[Array], Array], str]] = {
    "two channels' scales": ("w1_scale", exchanged, "in 2 of 32 output channels, the first 2"),
    "a weight's zero point": ("w2_zero_point", lambda x: x + 3, "second"),
    "a bias's scale": ("b2_quantized_scale", lambda x: 1.5 * x, "second"),
    "half of a range": ("sum_scale", lambda x: x / 2, "the range of sum_QuantizeLinear"),
}
"""What is wrong → constant of ONNX Runtime's, how it is changed, what is said."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_scale_or_zero_point_is_named(quantised: dict[str, onnx.ModelProto], mistake: str) -> None:
    name, change, said = MISTAKES[mistake]
    report = judged(changed(quantised["QDQ"], name, change))
    assert report.verdict == "fail"
    assert said in report.headline()


@pytest.mark.parametrize(("place", "other"), [(1, np.float32(0.05)), (2, np.uint8(3))])
def test_integers_read_otherwise_than_they_were_made_are_other_numbers(
    quantised: dict[str, onnx.ModelProto], place: int, other: Any
) -> None:
    model = copy.deepcopy(quantised["QDQ"])
    (reader,) = (node for node in model.graph.node if node.input[0] == "sum_QuantizeLinear_Output")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(other), "other"))
    reader.input[place] = "other"
    report = judged(model)
    assert report.verdict == "fail"
    assert "mean" in report.headline()


def test_operators_on_integers_are_judged_by_their_noise_alone(quantised: dict[str, onnx.ModelProto]) -> None:
    assert rounds_only(OnnxGraph.load(quantised["QDQ"]))
    assert not rounds_only(OnnxGraph.load(quantised["QOperator"]))
    assert not rounds_only(OnnxGraph.load(plain()))


def test_rounding_without_ends_is_quantisings_own_inside_its_range(
    quantised: dict[str, onnx.ModelProto],
) -> None:
    """As ONNX Runtime's own integers are, on the input that ranges were taken from."""
    graph = OnnxGraph.load(quantised["QDQ"])
    wide, _ = unrounded(graph, whole=False)
    session = onnxruntime.InferenceSession(quantised["QDQ"].SerializeToString())
    (expected,) = session.run(None, X)
    (made,) = EvaluatedGraph(wide).run(X).values()
    assert np.abs(made - expected).max() < 0.02 * np.abs(expected).max()


def parsed(text: str, held: dict[str, Any]) -> OnnxGraph:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(held[name]), name) for name in held)
    return OnnxGraph.load(model)


def test_a_tensor_of_two_clips_is_given_one_bound() -> None:
    """Which two bounds of the source could take in turn."""
    before = parsed(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 8] x) => (float[1, 8] y, float[1, 8] z)'
        "{ r = Relu (x) y = Clip (r, zero, two) z = Clip (r, zero, three) }",
        {"zero": np.float32(0), "two": np.float32(2), "three": np.float32(3)},
    )
    after = parsed(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 8] x) => (float[1, 8] y, float[1, 8] z)'
        "{ r = Relu (x) q = QuantizeLinear (r, scale, point) d = DequantizeLinear (q, scale, point)"
        " y = Identity (d) z = Identity (d) }",
        {"scale": np.float32(2 / 255), "point": np.int8(-128)},
    )
    x = {"x": np.float32([[-1, 0.5, 1, 1.5, 2.5, 3.5, 4.5, 9]])}
    assert verify_unrounded(after, before, {"x": x}).verdict == "fail"


RESIZED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 24, 6] x) => (float[1, 24, 6] y)
{
  grown = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (table, , , sides)
  y = Add (x, grown)
}
"""
INTERPOLATED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 24, 6] x) => (float[1, 24, 6] y)
{
  left = DequantizeLinear (left_integers, left_scale)
  step = DequantizeLinear (step_integers, step_scale)
  share = DequantizeLinear (share_integers, share_scale)
  part = Mul (step, share)
  grown = Add (left, part)
  y = Add (x, grown)
}
"""
TABLE = np.random.default_rng(4).normal(size=(1, 24, 3)).astype(np.float32)


def interpolated(table: Array) -> OnnxGraph:
    """Return a table resized as LiteRT's converter has it: a number, and a share of the way to the next."""
    place = np.clip((np.arange(6) + 0.5) / 2 - 0.5, 0, 2)
    first = np.minimum(place.astype(int), 1)
    parts = {"left": table[..., first], "step": table[..., first + 1] - table[..., first]}
    held: dict[str, Any] = {}
    for name, part in {**parts, "share": np.broadcast_to(place - first, (1, 1, 6))}.items():
        scale = np.float32(np.abs(part).max() / 127)
        held |= {f"{name}_integers": np.rint(part / scale).astype(np.int8), f"{name}_scale": scale}
    return parsed(INTERPOLATED, held)


@pytest.mark.parametrize("factor", [1.0, 1.15])
def test_what_is_computed_of_several_constants_may_be_off_by_the_rounding_of_each(factor: float) -> None:
    table = TABLE.copy()
    table[:, 5:7] *= factor
    x = {"x": np.random.default_rng(5).normal(size=(1, 24, 6)).astype(np.float32)}
    before = parsed(RESIZED, {"table": TABLE, "sides": np.array([1, 24, 6])})
    report = verify_unrounded(interpolated(table), before, {"x": x})
    assert report.verdict == ("pass" if factor == 1 else "fail"), report.headline()
