"""Where a candidate leaves the network: the reference's step as a folder, whatever kind the candidate is."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import onnxruntime
import pytest
import wrong_candidates
from altered_models import (
    align_corners,
    attribute,
    change,
    dropped_relu,
    softmax_axis,
    transposed_weight,
    wrong_pads,
)
from narrow_network import OPTIONS, network, picture
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.plain import NumpyCandidate
from conformance.cli import app
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.reports.report import Fault
from conformance.reproduction.folder import reproduce
from conformance.reproduction.recorded_step import MODEL, RecordedStep, judge_folder
from conformance.reproduction.step_folder import StepFolder
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

STEM = "backbone.tpm.stem.0"


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.output


def commands(folder: Path) -> list[list[str]]:
    lines = (folder / "README.md").read_text().splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("    mobileinst ")]


def arrays(folder: Path, name: str) -> Array:
    array: Array = np.load(folder / f"{name}_0.npy")
    return array


def reproduced(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Judge a wrong candidate with --reproduce; the folder's command must lead with the same step."""
    np.save(tmp_path / "x.npy", picture())
    given = [*OPTIONS, "--input", tmp_path / "x.npy", "--json", tmp_path / "r.json"]
    code, output = invoke("verify", *arguments, *given, "--reproduce", tmp_path / "step")
    assert code == 1, output
    report: dict[str, Any] = json.loads((tmp_path / "r.json").read_text())
    again, output = invoke(*commands(tmp_path / "step")[0], "--json", tmp_path / "again.json")
    assert again == 1, output
    shown: dict[str, Any] = json.loads((tmp_path / "again.json").read_text())
    assert shown["first_fault"]["step"] == report["first_fault"]["step"]
    assert shown["first_fault"]["operation"] == report["first_fault"]["operation"]
    assert f"leaves the reference at {report['first_fault']['step']} " in shown["headline"]
    assert (tmp_path / "step" / "README.md").read_text().startswith(f"# {shown['first_fault']['step']} ")
    truth, bound = (arrays(tmp_path / "step", name) for name in ("truth", "bound"))
    assert truth.shape == bound.shape
    assert np.any(np.abs(arrays(tmp_path / "step", "candidate") - truth) > bound)
    return report


def runtime(folder: Path, model: str, prefix: str = "input") -> Array:
    """Return what ONNX Runtime makes of a model in a folder."""
    session = onnxruntime.InferenceSession(folder / model, providers=["CPUExecutionProvider"])
    feeds = {info.name: np.load(folder / f"{prefix}_{i}.npy") for i, info in enumerate(session.get_inputs())}
    (output,) = session.run(None, feeds)
    result: Array = output
    return result


def saved(path: Path, model: onnx.ModelProto) -> str:
    onnx.save(model, path)
    return str(path)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export(network(), picture())


@pytest.fixture
def model(exported: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(exported)
    return copy


def test_the_two_models_side_by_side(tmp_path: Path, model: onnx.ModelProto) -> None:
    """The step of the reference and that of the candidate differ in what is wrong, and in nothing else."""
    align_corners(model)
    report = reproduced(tmp_path, saved(tmp_path / "it.onnx", model))
    folder = tmp_path / "step"
    for name in ("step", "candidate"):
        onnx.checker.check_model(onnx.load(folder / f"{name}.onnx"), full_check=True)
    (right,), (wrong,) = (onnx.load(folder / f"{name}.onnx").graph.node for name in ("step", "candidate"))
    assert right.op_type == wrong.op_type == "Resize"
    modes = [attribute(node, "coordinate_transformation_mode").s for node in (right, wrong)]
    assert modes == [b"half_pixel", b"align_corners"]
    truth, bound = arrays(folder, "truth"), arrays(folder, "bound")
    assert np.all(np.abs(runtime(folder, "step.onnx") - truth) <= bound)
    np.testing.assert_allclose(
        runtime(folder, "candidate.onnx", "candidate_input"), arrays(folder, "candidate"), rtol=1e-5
    )
    assert report["diagnoses"][0]["fault"] in (folder / "README.md").read_text()
    assert "resize/corners aligned" in json.loads((tmp_path / "again.json").read_text())["headline"]
    code, output = invoke(*commands(folder)[1])
    assert code == 0, output


@pytest.mark.parametrize("fault", [transposed_weight, wrong_pads, dropped_relu, softmax_axis])
def test_a_tensor_is_compared_with_its_own_step(tmp_path: Path, model: onnx.ModelProto, fault: Any) -> None:
    """Where a tensor before or after is nearer by value, the operators tell which is meant."""
    fault(model)
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
    report = verify(candidate, narrow_network.CONFIG, narrow_network.weights(), {"x": picture()})
    assert reproduce(tmp_path / "step", report, candidate, network(np.float64), picture())
    assert judge_folder(tmp_path / "step").verdict == "fail"
    right, wrong = (onnx.load(tmp_path / "step" / name).graph for name in ("step.onnx", "candidate.onnx"))
    changed = {"Relu": "Identity"} if fault is dropped_relu else {}
    assert [changed.get(n.op_type, n.op_type) for n in right.node] == [n.op_type for n in wrong.node]
    assert [n.name for n in right.node] == [n.name for n in wrong.node]
    assert right.output[0].name == wrong.output[0].name


def test_what_only_the_file_says_is_no_step_of_the_run(tmp_path: Path, model: onnx.ModelProto) -> None:
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
    report = verify(candidate, narrow_network.CONFIG, narrow_network.weights(), {"x": picture()})
    (item,) = report.inputs
    fault = Fault(item.steps[0].name, item.steps[0].operation, "meaning", ())
    said = replace(report, inputs=[replace(item, first_fault=fault)])
    assert reproduce(tmp_path / "step", said, candidate, network(np.float64), picture()) is None
    assert not (tmp_path / "step").exists()


def test_several_steps_between_captured_tensors(tmp_path: Path, model: onnx.ModelProto) -> None:
    """A convolution before its batch norm is not compared: the folder has both, and the changed weight."""
    change(model, f"{STEM}.c.weight", lambda x: np.float32(1.01) * x)
    reproduced(tmp_path, saved(tmp_path / "it.onnx", model))
    folder = tmp_path / "step"
    step = onnx.load(folder / "step.onnx")
    assert [node.op_type for node in step.graph.node][:2] == ["Conv", "BatchNormalization"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in step.graph.initializer}
    np.testing.assert_array_equal(weights[f"{STEM}.c.weight"], narrow_network.weights()[f"{STEM}.c.weight"])
    np.testing.assert_array_equal(np.load(folder / "input_0.npy"), picture())
    assert np.all(np.abs(runtime(folder, "step.onnx") - arrays(folder, "truth")) <= arrays(folder, "bound"))


def test_a_candidate_in_another_layout(tmp_path: Path) -> None:
    """Dumps in NHWC: what is written is in the reference's layout."""
    full = NumpyCandidate(narrow_network.CONFIG, narrow_network.weights())
    inner = {name: array for name, array in full.capture(picture()).items() if "/" not in name}
    inner["backbone.tpm.layer4"] = inner["backbone.tpm.layer4"] * np.float32(1.5)
    (tmp_path / "dumps").mkdir()
    for name, array in inner.items():
        laid_out = np.moveaxis(array, 1, -1) if array.ndim == 4 and name != "backbone.tpm.layer4" else array
        np.save(tmp_path / "dumps" / f"{name}.npy", np.ascontiguousarray(laid_out))
    for name, array in full.run(picture()).items():
        np.save(tmp_path / "dumps" / f"{name}.npy", array)
    report = reproduced(tmp_path, "--candidate", f"dumps:{tmp_path / 'dumps'}")
    folder = tmp_path / "step"
    assert report["first_fault"]["step"] == "backbone.tpm.layer4"
    assert not (folder / "candidate.onnx").exists()
    np.testing.assert_array_equal(arrays(folder, "candidate"), inner["backbone.tpm.layer4"])
    for place, info in enumerate(onnx.load(folder / "step.onnx").graph.input):
        np.testing.assert_array_equal(np.load(folder / f"input_{place}.npy"), inner[info.name])
    computed = runtime(folder, "step.onnx")
    np.testing.assert_allclose(1.5 * computed, arrays(folder, "candidate"), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("published_backbones")
def test_a_callable_of_which_only_outputs_are_known(tmp_path: Path) -> None:
    """The whole network up to the output, judged by the envelope."""
    path = f"{wrong_candidates.__file__}:wrong_bias"
    reproduced(tmp_path, "--candidate", f"python:{path}")
    folder = tmp_path / "step"
    assert json.loads((folder / "step.json").read_text())["envelope"] < 0.01
    np.testing.assert_allclose(
        runtime(folder, "step.onnx") + np.float32(0.01), arrays(folder, "candidate"), atol=1e-4
    )


def test_a_candidate_without_such_a_tensor(tmp_path: Path) -> None:
    """A folder whose candidate holds nothing like the step fails all the same."""
    note = RecordedStep("network", "y", "Relu", "float32", "float32", "cpu")
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"], name="relu")],
            "step",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, 3))],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (2, 3))],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    feeds = {"x": np.asarray([[1, -2, 3], [0, -1, 4]], np.float32)}
    folder = StepFolder(note, {MODEL: model})
    folder.add_operands(MODEL, ["x"], feeds)
    folder.write(tmp_path / "step")
    report = judge_folder(tmp_path / "step")
    assert (report.verdict, report.leading.nodes[0].candidate) == ("fail", None)
    for factor, verdict in ((1, "pass"), (1 + 1e-6, "fail")):
        np.save(tmp_path / "step" / "candidate_0.npy", np.maximum(feeds["x"], 0) * np.float32(factor))
        assert judge_folder(tmp_path / "step").verdict == verdict


def test_what_cannot_be_reproduced_leaves_the_verdict(tmp_path: Path) -> None:
    """A candidate that fails when it is run once more; a folder that cannot be made."""
    np.save(tmp_path / "x.npy", picture())
    (tmp_path / "tired.py").write_text(
        "import wrong_candidates\ncalls = []\n"
        "def tired(images):\n"
        "    calls.append(None)\n"
        "    if len(calls) > 3:\n"
        "        raise RuntimeError('no more')\n"
        "    return wrong_candidates.wrong_bias(images)\n"
    )
    (tmp_path / "file").write_text("in the way")
    given = [*OPTIONS, "--input", tmp_path / "x.npy", "--json", tmp_path / "r.json"]
    for kind, folder in (
        ("tired.py:tired", "step"),
        (wrong_candidates.__file__ + ":wrong_bias", "file/step"),
    ):
        candidate = f"python:{tmp_path / kind}"
        code, output = invoke("verify", *given, "--candidate", candidate, "--reproduce", tmp_path / folder)
        assert code == 1, output
        assert not (tmp_path / "step").exists()
        assert json.loads((tmp_path / "r.json").read_text())["outputs"]


def test_damaged_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, text in (("empty", None), ("torn", "{"), ("list", "[]"), ("other", '{"step": "a"}')):
        (tmp_path / folder).mkdir(exist_ok=True)
        if text is not None:
            (tmp_path / folder / "step.json").write_text(text)
        with pytest.raises(Exception, match=r"step\.json"):
            CliRunner().invoke(app, ["verify", "--recorded", str(tmp_path / folder)], catch_exceptions=False)


def test_a_folder_in_use_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(app, ["verify", "--reproduce", str(tmp_path)])
    assert "no empty folder" in str(result.exception)
