"""What ONNX Runtime's own quantiser makes of a network, beside it: its noise, and one scale altered."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnx_models
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from typer.testing import CliRunner

from conformance.cli import app
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.quantised_against import verify_quantised
from conformance.pictures.graph_inputs import graph_inputs
from conformance.reports.report import Report

FLOAT = onnx_models.mobile_network()
GRAPH = OnnxGraph.load(FLOAT)
FEEDS = graph_inputs(GRAPH)


class Inputs(CalibrationDataReader):
    """What ranges are taken from."""

    def __init__(self) -> None:
        self.left = iter([graph_inputs(GRAPH, seed=seed) for seed in range(8)])

    def get_next(self) -> Any:
        return next(self.left, None)


def statically(form: QuantFormat) -> Callable[[Path, Path], None]:
    def quantise(source: Path, target: Path) -> None:
        quantize_static(source, target, Inputs(), quant_format=form, per_channel=True)

    return quantise


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "QDQ": statically(QuantFormat.QDQ),
    "operators": statically(QuantFormat.QOperator),
    "dynamic": quantize_dynamic,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    folder = tmp_path_factory.mktemp("quantised")
    onnx.save(FLOAT, folder / "float.onnx")
    logging.disable(logging.WARNING)
    found = {}
    for name, way in WAYS.items():
        way(folder / "float.onnx", folder / f"{name}.onnx")
        found[name] = onnx.load(folder / f"{name}.onnx")
    logging.disable(logging.NOTSET)
    return found


def judged(model: onnx.ModelProto) -> Report:
    return verify_quantised(OnnxGraph.load(model), GRAPH, FEEDS, label="random", names=("quantised", "float"))


@pytest.mark.parametrize("way", WAYS)
def test_the_quantisers_own_noise_is_as_its_scales_let_expect(
    way: str, models: dict[str, onnx.ModelProto]
) -> None:
    report = judged(models[way])
    report.raise_on_failure()
    rows = [row for row in report.leading.steps if row.noise]
    assert len(rows) >= 25
    assert "quantisation's own error" in report.leading.remarks[0]
    # Uniform roundings have a twelfth of their step squared: so predicted, and so measured.
    off = [
        row.noise.introduced - row.noise.expected for row in rows if row.noise and row.noise.expected < 200
    ]
    assert abs(float(np.median(off))) < 1


def changed(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], Any]) -> onnx.ModelProto:
    """Return a model with one constant changed."""
    other = copy.deepcopy(model)
    tensor = next(tensor for tensor in other.graph.initializer if tensor.name == name)
    before = numpy_helper.to_array(tensor)
    after = np.asarray(change(before.copy())).astype(before.dtype).reshape(before.shape)
    tensor.CopyFrom(numpy_helper.from_array(after, name))
    return other


def swapped(scales: np.ndarray) -> np.ndarray:
    scales[[2, 5]] = scales[[5, 2]]
    return scales


def larger(scales: np.ndarray) -> np.ndarray:
    scales[3] *= 1.5
    return scales


MISTAKES: dict[str, tuple[str, Callable[[np.ndarray], Any], str, str]] = {
    "scales of two channels exchanged": ("w12_scale", swapped, "conv_12", "channel 2: its scale is"),
    "and it is said whose it is": ("w12_scale", swapped, "conv_12", "that of channel 5"),
    "the scale of one channel": ("w18_scale", larger, "conv_16", "channel 3: its scale is 1.5"),
    "a zero point": ("w18_zero_point", lambda x: x + 3, "conv_16", "its zero point is 3 too large"),
    "the scale of a bias": ("w19_quantized_scale", lambda x: 1.5 * x, "conv_16", "its scale is 1.5"),
    "half of a range": ("conv_16_scale", lambda x: x / 2, "conv_16", "cuts off 2.2% of its numbers"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_a_scale_is_named(what: str, models: dict[str, onnx.ModelProto]) -> None:
    name, change, step, said = MISTAKES[what]
    report = judged(changed(models["QDQ"], name, change))
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == step
    assert said in report.leading.likely


def test_integers_that_are_read_otherwise_than_written(models: dict[str, onnx.ModelProto]) -> None:
    model = copy.deepcopy(models["QDQ"])
    reader = next(node for node in model.graph.node if node.input[0] == "conv_16_QuantizeLinear_Output")
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "conv_16_scale")
    other = numpy_helper.to_array(scale) * np.float32(1.02)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(other, np.float32), "own"))
    reader.input[1] = "own"
    report = judged(model)
    assert report.verdict == "fail"
    assert "conv_16_DequantizeLinear reads it with 1.02 × its scale" in report.leading.likely


def test_json_follows_its_schema(models: dict[str, onnx.ModelProto]) -> None:
    schema = json.loads(files("conformance.reports").joinpath("report_schema.json").read_text())
    report = judged(changed(models["QDQ"], "w12_scale", swapped))
    jsonschema.validate(json.loads(json.dumps(report.to_json(), allow_nan=False)), schema)


def test_on_the_command_line(
    models: dict[str, onnx.ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(FLOAT, "float.onnx")
    onnx.save(models["QDQ"], "right.onnx")
    onnx.save(changed(models["QDQ"], "w12_scale", swapped), "wrong.onnx")
    right, wrong = (
        CliRunner().invoke(app, ["verify", name, "--against", "float.onnx"])
        for name in ("right.onnx", "wrong.onnx")
    )
    assert (right.exit_code, wrong.exit_code) == (0, 1)
    assert "Signal to noise in dB" in right.stdout
    assert "costs most, alone: " in right.stdout
    assert "that of channel 5" in " ".join(wrong.stdout.split())
