"""`lint --target` for the runtimes of phones: what their own converters and lists of operators say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import LITERT, MNN, convert
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.aten_kernels import kernels_missing
from conformance.judge.target_lint import TARGETS, lint_for_target
from refimpl.errors import FileError, MissingDependencyError

pytestmark = pytest.mark.runtimes


def lint(model: onnx.ModelProto, folder: Path, target: str) -> tuple[int, list[dict[str, Any]], str]:
    """Return the exit code, the findings of a model, and what says so."""
    onnx.save(model, folder / "m.onnx")
    words = ["lint", str(folder / "m.onnx"), "--target", target, "--json", str(folder / "f.json")]
    run = CliRunner().invoke(conformance.cli.app, words)
    content = json.loads((folder / "f.json").read_text())
    return run.exit_code, content["findings"], content["said_by"]


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Return a model of x and y, 1×3×8×8, with a few constants."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 8, 8]), ("y", None))
    ]
    constants = {
        "one": np.int64(1),
        "axes": np.array([2, 3]),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "three": np.ones(3, np.float32),
        "flag": np.array([True]),
    }
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    made = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def within_a_branch(op_type: str) -> onnx.ModelProto:
    """Return a model whose operator stands in the branch of an If."""
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node(op_type, ["x"], ["out"], name="inner")], "g", [], [out])
    return graph(helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner, name="if"))


@pytest.mark.parametrize("target", TARGETS)
def test_a_right_export_passes(target: str, tmp_path: Path) -> None:
    # ncnn takes a matrix of one row, which the network's pooling has at this size, for a vector.
    own = target != "ncnn"
    model = (
        export(narrow_network.network(), narrow_network.picture()) if own else onnx_models.leaky_network(3)
    )
    code, findings, said_by = lint(model, tmp_path, target)
    assert (code, findings) == (0, [])
    assert said_by.split()[0] == TARGETS[target].package


LACKING = {
    "ncnn": [helper.make_node("Hardmax", ["x"], ["h"], name="n"), helper.make_node("Relu", ["h"], ["y"])],
    "mnn": [helper.make_node("Hardmax", ["x"], ["y"], name="n")],
    "litert": [helper.make_node("Hardmax", ["x"], ["h"], name="n"), helper.make_node("Relu", ["h"], ["y"])],
    "openvino": [helper.make_node("LpPoolOfAnother", ["x"], ["y"], name="n", domain="some.where")],
}


@pytest.mark.parametrize("target", LACKING)
def test_what_a_target_lacks_fails(target: str, tmp_path: Path) -> None:
    code, findings, _ = lint(graph(*LACKING[target]), tmp_path, target)
    assert code == 1
    assert {found["severity"] for found in findings} == {"fails"}
    named = " ".join(found["node"] + found["happens"] for found in findings)
    assert any(node.op_type in named for node in LACKING[target])


def test_the_lists_say_what_the_converter_does(tmp_path: Path) -> None:
    model = graph(*LACKING["mnn"])
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(FileError):
        convert(MNN, tmp_path / "m.onnx", tmp_path / "m.mnn")


def test_branches_are_looked_into(tmp_path: Path) -> None:
    _, findings, _ = lint(within_a_branch("Hardmax"), tmp_path, "mnn")
    assert [found["node"] for found in findings] == ["Hardmax 'inner'"] * 2


def test_litert_torch_is_given_no_branches(tmp_path: Path) -> None:
    _, findings, _ = lint(within_a_branch("Relu"), tmp_path, "litert")
    assert [(found["node"], found["severity"]) for found in findings] == [("model", "fails")]
    assert "If" in findings[0]["happens"]


def test_another_meaning_in_ncnn_is_found_by_comparing(tmp_path: Path) -> None:
    """The axes of a sum are lost on the way."""
    total = helper.make_node("ReduceSum", ["x", "axes"], ["s"], name="total", keepdims=1)
    model = graph(total, helper.make_node("Mul", ["x", "s"], ["y"], name="scaled"))
    code, findings, _ = lint(model, tmp_path, "ncnn")
    assert code == 1
    assert [found["severity"] for found in findings] == ["changes the meaning"]


def test_operators_without_a_kernel_are_named_by_node() -> None:
    model = graph(
        helper.make_node("Sigmoid", ["x"], ["s"], name="gate"),
        helper.make_node("ReduceMean", ["s"], ["m"], name="mean", axes=[2, 3]),
        helper.make_node("Mul", ["s", "m"], ["y"], name="scaled"),
    )
    findings = kernels_missing(OnnxGraph.load(model), {"mul", "sigmoid"})
    assert [(found.node, found.severity) for found in findings] == [("ReduceMean 'mean'", "fails")]
    assert findings[0].happens == "there is no portable kernel of mean"


def test_what_is_not_translated_is_no_failure(tmp_path: Path) -> None:
    code, findings, _ = lint(
        graph(helper.make_node("Hardmax", ["x"], ["y"], name="n")), tmp_path, "executorch"
    )
    assert code == 0
    assert [found["severity"] for found in findings] == ["not judged"]


def test_quantised_models_are_looked_through(tmp_path: Path) -> None:
    code, findings, _ = lint(onnx_models.quantised_network(), tmp_path, "mnn")
    assert code == 0
    # Its converter lists and takes them; what it makes of them is not written down here.
    assert [(finding["rule"], finding["severity"]) for finding in findings] == [("meaning", "not judged")]


def test_a_pooling_that_names_no_strides_has_none_in_mnn(tmp_path: Path) -> None:
    node = helper.make_node("AveragePool", ["x"], ["y"], name="n", kernel_shape=[2, 2])
    code, findings, _ = lint(graph(node), tmp_path, "mnn")
    assert code == 1
    assert "strides is (0, 0)" in findings[0]["happens"]


def test_what_litert_torch_is_not_given_is_named_by_node(tmp_path: Path) -> None:
    """As its conversion says of them: quantised models are not put in PyTorch's words."""
    model = onnx_models.quantised_network()
    _, findings, _ = lint(model, tmp_path, "litert")
    with pytest.raises(FileError, match="not translated to PyTorch: ") as refused:
        convert(LITERT, tmp_path / "m.onnx", tmp_path / "m.tflite")
    lacking = str(refused.value).partition("PyTorch: ")[2].split(", ")
    named = [f"{node.op_type} {node.name!r}" for node in model.graph.node if node.op_type in lacking]
    assert [found["node"] for found in findings] == named
    assert named


def test_a_missing_list_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(graph(*LACKING["litert"]), tmp_path / "m.onnx")
    monkeypatch.setitem(TARGETS, "litert", replace(TARGETS["litert"], module="no_such"))
    with pytest.raises(MissingDependencyError, match=r"pip install 'mobileinst-reference\[litert\]'"):
        lint_for_target("litert", tmp_path / "m.onnx")
