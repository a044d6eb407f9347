"""Faults put into correct networks are detected, found at the step, and named; correct implementations
pass."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from conformance.cli import app, options
from conformance.cli.terminal import PlainConsole
from conformance.evidence.baselines import alarms
from conformance.evidence.false_alarms import ILL_CONDITIONED, CorrectRun, judge_one
from conformance.evidence.fault_score import Task, anonymous, case, score, trial
from conformance.faults import CATALOGUE, injected, injections
from conformance.graph.onnx_graph import OnnxGraph, evaluate

pytestmark = pytest.mark.usefixtures("small_backbones")

MODEL = "sparseinst-topformer-tiny"
"""The quickest to judge."""


def test_the_catalogue_says_what_happens_and_where_it_is_documented() -> None:
    assert len(CATALOGUE) >= 60
    for name, fault in CATALOGUE.items():
        assert name == f"{fault.category}/{name.partition('/')[2]}"
        assert len(fault.happens) > 10
        assert re.search(r", https://\S+$|\(\d{4}\)", fault.source), f"{name}: neither a link nor a paper"
        assert fault.source.count("https://") <= 1


def test_the_catalogue_is_printed_within_80_columns_and_its_addresses_unbroken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "console", PlainConsole(width=80))
    lines = CliRunner().invoke(app, ["faults", "--list"]).output.splitlines()
    addresses = [line.strip() for line in lines if line.startswith("  https://")]
    assert addresses == [f"https://{fault.source.partition('https://')[2]}" for fault in CATALOGUE.values()]
    assert all(len(line) <= 80 for line in lines if "https://" not in line)


def test_every_fault_that_fits_gives_a_valid_model() -> None:
    chosen = case(MODEL)
    for fault in CATALOGUE.values():
        for injection in injections(fault, chosen.graph)[:1]:
            model = injected(chosen.model, injection)
            onnx.checker.check_model(model)
            assert set(OnnxGraph.load(model).outputs) == set(chosen.recording.outputs)


def test_an_injected_epsilon_is_that_of_the_formula() -> None:
    chosen = case(MODEL)
    first = injections(CATALOGUE["normalization/batch norm epsilon"], chosen.graph)[0]
    assert first.variant.detail == "epsilon = 0.001"
    faulty = OnnxGraph.load(injected(chosen.model, first))
    output, (x, *names) = first.call.outputs[0], first.call.inputs
    tensors = evaluate(faulty, {"images": chosen.images}, np.float64)
    scale, bias, mean, variance = (chosen.weights[name].astype(np.float64)[:, None, None] for name in names)
    expected = (tensors[x] - mean) / np.sqrt(variance + 1e-3) * scale + bias
    np.testing.assert_allclose(tensors[output], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "fault",
    [
        "decoder/concatenated in another order",
        "normalization/batch norm epsilon",
        "preprocessing/BGR",
        "convolution/bias missing",
        "postprocessing/sigmoid already applied",
    ],
)
def test_a_fault_is_detected_localised_and_named(fault: str) -> None:
    result = trial(Task(MODEL, fault, 0))
    assert not result.harmless
    assert result.detected
    assert result.blamed == result.expected
    assert fault in result.diagnoses


def test_the_score_counts_harmless_faults_apart() -> None:
    result = trial(Task(MODEL, "activation/ReLU6 instead of ReLU", 0))
    figures = score([result])
    assert (figures.faults, figures.harmless) == ((0, 1) if result.harmless else (1, 0))


@pytest.mark.parametrize("implementation", ["shuffled", "float16 storage"])
def test_a_correct_implementation_passes(implementation: str) -> None:
    outcome = judge_one(CorrectRun(MODEL, implementation, seed=0))
    assert outcome is not None
    assert outcome.headline is None


@pytest.mark.usefixtures("published_backbones")
def test_an_ill_conditioned_network_passes_though_its_outputs_are_off_by_percents() -> None:
    outcome = judge_one(CorrectRun(ILL_CONDITIONED, "blocked", seed=0))
    assert outcome is not None
    assert outcome.headline is None
    assert outcome.deviation > 0.005
    assert all(outcome.baselines.values())


@pytest.mark.parametrize("implementation", ["float16 storage", "folded, float16 storage"])
def test_it_passes_even_where_no_digit_is_left(implementation: str) -> None:
    """Of float16's 11 bits the network loses 12: its outputs are noise, and still no step is wrong."""
    outcome = judge_one(CorrectRun(ILL_CONDITIONED, implementation, seed=1))
    assert outcome is not None
    assert outcome.headline is None
    assert outcome.deviation > 0.5


@pytest.mark.parametrize(
    ("model", "fault", "call"),
    [
        ("topformer-base", "decoder/residual missing", "backbone.tpm.layer4/Add"),
        ("sparseinst-topformer-tiny", "activation/missing", "encoder.ppm/Relu_2"),
        ("topformer-tiny", "layout/flattened column by column", "instance_decoder.global_decoder/Reshape"),
        (
            "topformer-tiny",
            "layout/flattened column by column",
            "backbone.trans.transformer_blocks.0.attn/Reshape",
        ),
    ],
)
def test_a_fault_that_hides_behind_the_next_step_is_localised(model: str, fault: str, call: str) -> None:
    """A step left out, and rows taken for columns, show only in what is computed of them."""
    places = [item.call.name for item in injections(CATALOGUE[fault], case(model).graph)]
    result = trial(Task(model, fault, places.index(call)))
    assert result.blamed == result.expected
    assert fault in result.diagnoses


@pytest.mark.parametrize(
    "fault", ["quantization/float16 storage", "postprocessing/ReLU after the last layer"]
)
def test_what_is_done_to_an_output_last_is_seen(fault: str) -> None:
    """Nothing is computed of an output, and its noise envelope is wider than a rounding to float16."""
    model = "topformer-tiny"
    calls = [item.call.name for item in injections(CATALOGUE[fault], case(model).graph)]
    last = "masks/MatMul" if fault.startswith("quantization") else calls[-1]
    result = trial(Task(model, fault, calls.index(last)))
    assert result.detected
    assert result.blamed == result.expected
    assert fault in result.diagnoses


def test_names_are_no_hint() -> None:
    model = case(MODEL).model
    renamed = anonymous(model)
    before, after = ({name for node in m.graph.node for name in node.output} for m in (model, renamed))
    assert before & after == {output.name for output in model.graph.output}
    images = case(MODEL).images
    runs = [
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"images": images})
        for m in (model, renamed)
    ]
    for first, second in zip(*runs, strict=True):
        assert np.array_equal(first, second)


def test_the_baselines_are_those_of_their_libraries() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(1000)
    for error in (0.0, 1e-7, 1e-5, 1e-3):
        values = (reference + error).astype(np.float32)
        found = alarms({"y": values}, {"y": reference})
        expected = reference.astype(np.float32)
        assert found["NumPy"] is not bool(np.allclose(values, expected))
        try:
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-7)
        except AssertionError:
            assert found["ONNX"]
        else:
            assert not found["ONNX"]


def test_the_command_prints_the_score(tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    arguments = ["faults", "decoder/masks", "--network", MODEL, "--per-fault", "1", "--pictures", "0"]
    result = CliRunner().invoke(app, [*arguments, "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "localised" in result.output
    written = json.loads(file.read_text())
    assert written["score"]["detected"] == written["score"]["faults"]


@pytest.mark.parametrize("arguments", [["nothing/like this"], ["--network", "no-network"]])
def test_unknown_names_are_refused(arguments: list[str]) -> None:
    from refimpl.errors import ConfigurationError

    result = CliRunner().invoke(app, ["faults", *arguments])
    assert isinstance(result.exception, ConfigurationError)


def test_the_document_lists_the_catalogue() -> None:
    text = (Path(__file__).parents[3] / "docs" / "faults.md").read_text(encoding="utf-8")
    text = text.replace("\n  ", " ")
    rows = re.findall(r"^\* \*\*(.+?)\*\* \((.+?)\): (.+?) \*Source:\* (.+)$", text, re.MULTILINE)
    assert rows == [
        (name, ", ".join(fault.operators), fault.happens, fault.source) for name, fault in CATALOGUE.items()
    ]
