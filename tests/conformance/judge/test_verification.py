"""Right candidates pass, wrong ones fail where they are wrong; made from our own export, without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from altered_models import (
    FAULTS,
    change,
    not_a_number,
)
from narrow_network import OPTIONS, network, picture, weights
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from conformance.cli import app
from conformance.graph.onnx_export import export

pytestmark = pytest.mark.usefixtures("small_backbones")

OUTPUTS = ["class_logits", "objectness", "kernels", "mask_features", "masks", "global_queries"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights and inputs."""
    folder = tmp_path_factory.mktemp("verification")
    weights().save(folder / "w.safetensors")
    np.save(folder / "x.npy", picture())
    np.save(folder / "other.npy", np.random.default_rng(1).standard_normal((1, 3, 64, 96)).astype(np.float32))
    np.save(folder / "two.npy", picture(2))
    return folder


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export(network(), picture())


@pytest.fixture
def model(exported: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(exported)
    return copy


def judge(folder: Path, model: onnx.ModelProto, *inputs: str) -> dict[str, Any]:
    """Verify a model as a user would and return the report, whose verdict agrees with the exit code."""
    onnx.save(model, folder / "it.onnx")
    given = [argument for name in inputs or ("x.npy",) for argument in ("--input", str(folder / name))]
    options = [*OPTIONS, "--weights", str(folder / "w.safetensors"), "--json", str(folder / "r.json")]
    result = CliRunner().invoke(app, ["verify", str(folder / "it.onnx"), *options, *given])
    assert result.exit_code in (0, 1), (result.output, result.exception)
    report: dict[str, Any] = json.loads((folder / "r.json").read_text())
    assert report["verdict"] == ("pass" if result.exit_code == 0 else "fail")
    return report


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_where_it_is(
    folder: Path, model: onnx.ModelProto, fault: Callable[[onnx.ModelProto], str]
) -> None:
    place = fault(model)
    report = judge(folder, model)
    assert report["verdict"] == "fail"
    step = report["first_fault"]["step"]
    assert step == place or step.startswith((f"{place}/", f"{place}.")) or place.startswith(f"{step}."), (
        step,
        place,
    )
    (row,) = [row for row in report["steps"] if row["name"] == step]
    assert row["verdict"] == "fail"
    # Whatever comes before is right.
    before = report["steps"][: report["steps"].index(row)]
    assert all(earlier["verdict"] != "fail" for earlier in before)


def test_nan_is_never_equal(folder: Path, model: onnx.ModelProto) -> None:
    not_a_number(model)
    report = judge(folder, model)
    rows = {row["name"]: row for row in report["outputs"]}
    assert rows["kernels"]["verdict"] == rows["masks"]["verdict"] == "fail"
    assert rows["class_logits"]["verdict"] == "pass"
    assert not isinstance(rows["masks"]["max_abs_error"], float) or not np.isfinite(
        rows["masks"]["max_abs_error"]
    )


# Right candidates in other clothes.


def renamed(model: onnx.ModelProto, prefix: str = "t") -> onnx.ModelProto:
    """Give every tensor and node but the input another name."""
    names = {"": "", model.graph.input[0].name: "pixel_values"}
    for tensor in model.graph.initializer:
        tensor.name = names.setdefault(tensor.name, f"{prefix}{len(names)}")
    for entry in model.graph.node:
        entry.name = ""
        entry.input[:] = [names.setdefault(name, f"{prefix}{len(names)}") for name in entry.input]
        entry.output[:] = [names.setdefault(name, f"{prefix}{len(names)}") for name in entry.output]
    for info in (*model.graph.input, *model.graph.output):
        info.name = names[info.name]
    del model.graph.value_info[:]
    return model


def test_names_do_not_matter(folder: Path, model: onnx.ModelProto) -> None:
    report = judge(folder, renamed(model))
    assert report["verdict"] == "pass"
    assert [row["name"] for row in report["outputs"]] == OUTPUTS
    assert all(row["candidate"].startswith("t") for row in report["outputs"])
    assert all(row["candidate"] is not None for row in report["steps"])


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_DISABLE_ALL"])
def test_a_graph_that_onnx_runtime_has_optimised_passes(
    folder: Path, model: onnx.ModelProto, level: str
) -> None:
    """At the basic level, batch norms are folded into convolutions and constants computed."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(folder / "optimised.onnx")
    norms = [entry for entry in optimised.graph.node if entry.op_type == "BatchNormalization"]
    assert (not norms) == (level == "ORT_ENABLE_BASIC")
    assert judge(folder, optimised)["verdict"] == "pass"


def test_permuted_outputs_pass_by_name_and_by_value(folder: Path, model: onnx.ModelProto) -> None:
    order = [model.graph.output[place] for place in (4, 2, 0, 5, 3, 1)]
    reordered = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in order]
    del model.graph.output[:]
    model.graph.output.extend(reordered)
    assert judge(folder, model)["verdict"] == "pass"
    assert judge(folder, renamed(model))["verdict"] == "pass"


def test_outputs_of_the_names_of_others_fail(folder: Path, model: onnx.ModelProto) -> None:
    """Kernels under the name of the global queries and the reverse: of one shape, both wrong."""
    swap = {"kernels": "global_queries", "global_queries": "kernels"}
    for entry in model.graph.node:
        entry.input[:] = [swap.get(name, name) for name in entry.input]
        entry.output[:] = [swap.get(name, name) for name in entry.output]
    report = judge(folder, model)
    assert report["verdict"] == "fail"
    assert {row["name"] for row in report["outputs"] if row["verdict"] == "fail"} == set(swap)


def test_a_missing_output_is_reported_absent(folder: Path, model: onnx.ModelProto) -> None:
    del model.graph.output[5]
    report = judge(folder, model)
    assert report["verdict"] == "pass"
    assert {row["name"]: row["verdict"] for row in report["outputs"]}["global_queries"] == "absent"


def test_dropout_left_on_is_named(folder: Path, model: onnx.ModelProto) -> None:
    """A runtime that seeds itself alike would repeat it; users' would not."""
    place, softmax = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "Softmax")
    made, softmax.output[0] = softmax.output[0], "kept"
    given = [numpy_helper.from_array(np.float32(0.1), "ratio"), numpy_helper.from_array(np.True_, "training")]
    model.graph.initializer.extend(given)
    dropout = helper.make_node("Dropout", ["kept", "ratio", "training"], [made], name="left on")
    model.graph.node.insert(place + 1, dropout)
    report = judge(folder, model)
    assert report["verdict"] == "fail"
    assert any("'left on' is random, as in training" in problem for problem in report["problems"])


def _with_probabilities(model: onnx.ModelProto, of: str) -> None:
    model.graph.node.append(helper.make_node("Exp", [of], ["probabilities"], name="probabilities"))
    model.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None))


def test_a_further_output_is_said_not_to_be_judged(folder: Path, model: onnx.ModelProto) -> None:
    _with_probabilities(model, "masks")
    report = judge(folder, model)
    assert report["verdict"] == "pass"
    remarks = report["inputs"][0]["remarks"]
    assert any("probabilities" in remark and "not judged" in remark for remark in remarks)


@pytest.mark.parametrize("operation", ["Log", "Sqrt", "Reciprocal"])
def test_a_further_output_may_be_infinite(folder: Path, model: onnx.ModelProto, operation: str) -> None:
    """It is not judged; its numbers are its maker's own."""
    model.graph.node.append(helper.make_node("Relu", ["masks"], ["shown"]))
    model.graph.node.append(helper.make_node("Neg", ["shown"], ["below"]))
    model.graph.node.append(helper.make_node(operation, ["below"], ["further"]))
    model.graph.output.append(helper.make_tensor_value_info("further", TensorProto.FLOAT, None))
    report = judge(folder, model)
    assert report["verdict"] == "pass", report["problems"]


def test_dropout_in_a_branch_is_named(folder: Path, model: onnx.ModelProto) -> None:
    place, softmax = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "Softmax")
    made, softmax.output[0] = softmax.output[0], "kept"
    given = {"ratio": np.float32(0.1), "training": np.True_, "always": np.True_}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in given.items())
    branches = {}
    for name, node in {
        "then_branch": helper.make_node("Dropout", ["kept", "ratio", "training"], ["a"], name="left on"),
        "else_branch": helper.make_node("Identity", ["kept"], ["b"]),
    }.items():
        out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [out])
    model.graph.node.insert(place + 1, helper.make_node("If", ["always"], [made], name="choice", **branches))
    report = judge(folder, model)
    assert report["verdict"] == "fail"
    assert any("'choice'" in problem and "is random" in problem for problem in report["problems"])


@pytest.mark.parametrize("name", ["masks", "kernels"])
def test_an_output_in_place_of_another_fails(folder: Path, model: onnx.ModelProto, name: str) -> None:
    """Of one that is needed, or of one's size: it may be meant for it."""
    _with_probabilities(model, name)
    outputs = [info for info in model.graph.output if info.name != name]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    report = judge(folder, model)
    assert report["verdict"] == "fail"
    wrong = [row["candidate"] for row in report["outputs"] if row["verdict"] == "fail"]
    assert wrong == ["probabilities"] or any("probabilities" in problem for problem in report["problems"])


def test_a_model_of_other_outputs_only_fails(folder: Path, model: onnx.ModelProto) -> None:
    for info in list(model.graph.output):
        model.graph.node.append(helper.make_node("ReduceMax", [info.name], [f"{info.name}_peak"], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(f"{info.name}_peak", TensorProto.FLOAT, []))
    del model.graph.output[: len(OUTPUTS)]
    report = judge(folder, model)
    assert report["verdict"] == "fail"
    assert all(row["verdict"] != "pass" for row in report["outputs"])


# Inputs.


def test_a_batch_of_two(folder: Path) -> None:
    report = judge(folder, export(network(), picture(2)), "two.npy")
    assert report["verdict"] == "pass"
    assert all(row["shape"][0] == 2 for row in report["outputs"])


def test_a_fault_that_only_one_picture_of_a_batch_shows(folder: Path) -> None:
    """Adding something to the second picture's masks alone."""
    model = export(network(), picture(2))
    last = model.graph.node[-1]
    assert last.output[0] == "masks"
    last.output[0] = "right"
    offset = np.zeros((2, 1, 1, 1), np.float32)
    offset[1] = 0.01
    model.graph.initializer.append(numpy_helper.from_array(offset, "offset"))
    model.graph.node.append(helper.make_node("Add", ["right", "offset"], ["masks"], name="tampering"))
    report = judge(folder, model, "two.npy")
    assert report["verdict"] == "fail"
    (row,) = [row for row in report["outputs"] if row["name"] == "masks"]
    assert row["verdict"] == "fail"
    assert row["worst_index"][0] == 1
    assert row["max_abs_error"] == pytest.approx(0.01, rel=0.01)


def test_several_inputs_are_all_judged(folder: Path, model: onnx.ModelProto) -> None:
    report = judge(folder, model, "x.npy", "other.npy")
    assert [entry["name"] for entry in report["inputs"]] == ["x.npy", "other.npy"]
    assert report["verdict"] == "pass"
    assert len({entry["sha256"] for entry in report["inputs"]}) == 2


@pytest.mark.parametrize("level", [0.0, 1.0, -1.7, 1e-3])
def test_a_flat_picture_is_no_fault(folder: Path, level: float) -> None:
    """Equal operands round equally: that is no bias."""
    flat = np.full((1, 3, 128, 192), level, np.float32)
    np.save(folder / "flat.npy", flat)
    assert judge(folder, export(network(), flat), "flat.npy")["verdict"] == "pass"


def test_a_fault_that_one_input_hides_is_found_by_the_other(folder: Path, model: onnx.ModelProto) -> None:
    """Masks go wrong only where the input is larger than any normalised pixel can be."""
    assert picture().max() < 3 < np.load(folder / "other.npy").max()
    last = model.graph.node[-1]
    assert last.output[0] == "masks"
    last.output[0] = "right"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(3), "limit"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["images"], ["peak"], keepdims=0),
            helper.make_node("Sub", ["peak", "limit"], ["excess"]),
            helper.make_node("Relu", ["excess"], ["offset"]),
            helper.make_node("Add", ["right", "offset"], ["masks"]),
        ]
    )
    report = judge(folder, model, "x.npy", "other.npy")
    assert [entry["verdict"] for entry in report["inputs"]] == ["pass", "fail"]
    assert report["verdict"] == "fail"
    assert {row["name"] for row in report["outputs"] if row["verdict"] == "fail"} == {"masks"}


def test_the_numbers_are_those_of_numpy(folder: Path, model: onnx.ModelProto) -> None:
    """The errors in the report against a comparison of our own, in ONNX Runtime and float64."""
    change(model, "instance_decoder.class_head.bias", lambda x: x + 0.125)
    report = judge(folder, model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = session.run(["class_logits"], {"images": picture()})[0]
    expected = network(np.float64)(picture().astype(np.float64)).class_logits
    (row,) = [row for row in report["outputs"] if row["name"] == "class_logits"]
    difference = np.abs(given - expected)
    assert row["max_abs_error"] == pytest.approx(difference.max(), rel=1e-6)
    assert difference[tuple(row["worst_index"])] == pytest.approx(difference.max(), rel=1e-6)
    assert row["relative_error"] == pytest.approx(difference.max() / np.abs(expected).max(), rel=1e-6)
    assert tuple(row["shape"]) == expected.shape
