"""Two graphs of one meaning, or not: before and after optimisers that we did not write, right and altered."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnx_models
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from typer.testing import CliRunner

from conformance.cli import app
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from conformance.pictures.graph_inputs import graph_inputs
from conformance.reports.report import Report
from refimpl.errors import FileError, ShapeError

MODELS = {"residual": onnx_models.residual_network(), "mobile": onnx_models.mobile_network()}
LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


def optimised(model: onnx.ModelProto, level: str, folder: Path) -> onnx.ModelProto:
    """Return what ONNX Runtime's optimisers make of a model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def judged(after: onnx.ModelProto, before: onnx.ModelProto) -> Report:
    graph = OnnxGraph.load(before)
    shapes = ["2x3x32x32"] if any(isinstance(n, str) for n in graph.declared["x"].shape or ()) else []
    feeds = graph_inputs(graph, shapes=shapes)
    loud = {name: array * np.array(30, array.dtype) for name, array in feeds.items()}
    return verify_against(
        OnnxGraph.load(after), graph, {"quiet": feeds, "loud": loud}, names=("after", "before")
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", MODELS)
def test_an_optimised_graph_means_the_same(name: str, level: str, tmp_path: Path) -> None:
    after = optimised(MODELS[name], level, tmp_path)
    assert [node.op_type for node in after.graph.node] != [node.op_type for node in MODELS[name].graph.node]
    report = judged(after, MODELS[name])
    report.raise_on_failure()
    for item in report.inputs:
        assert {row.verdict for row in (*item.steps, *item.outputs)} == {"pass"}


@pytest.mark.runtimes
@pytest.mark.parametrize("tool", ["onnxsim", "onnxslim", "onnxoptimizer"])
@pytest.mark.parametrize("name", MODELS)
def test_a_simplified_graph_means_the_same(name: str, tool: str) -> None:
    module = importlib.import_module(tool)
    makers: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
        "onnxsim": lambda model: module.simplify(model)[0],
        "onnxslim": lambda model: module.slim(model),
        "onnxoptimizer": lambda model: module.optimize(model, module.get_fuse_and_elimination_passes()),
    }
    after = makers[tool](copy.deepcopy(MODELS[name]))
    judged(after, MODELS[name]).raise_on_failure()
    altered = changed(after, lambda name, array: array * 1.0001 if array.ndim == 4 else array)
    assert judged(altered, MODELS[name]).verdict == "fail"


def changed(model: onnx.ModelProto, change: Callable[[str, np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """Return a model with its floating-point constants changed."""
    other = copy.deepcopy(model)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            tensor.CopyFrom(
                numpy_helper.from_array(change(tensor.name, array.copy()).astype(array.dtype), tensor.name)
            )
    return other


def with_attribute(model: onnx.ModelProto, op_type: str, name: str, value: object) -> onnx.ModelProto:
    """Return a model whose first node of an operator has another attribute."""
    other = copy.deepcopy(model)
    node = next(node for node in other.graph.node if node.op_type == op_type)
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    return other


def one_element(wanted: str) -> Callable[[str, np.ndarray], np.ndarray]:
    def change(name: str, array: np.ndarray) -> np.ndarray:
        if name.endswith(wanted):
            array.flat[array.size // 2] *= 1.01
        return array

    return change


ALTERED: dict[str, tuple[str, Callable[[onnx.ModelProto], onnx.ModelProto], str, str]] = {
    "a folded weight, one element by 1 %": (
        "residual",
        lambda model: changed(model, one_element("_w12")),
        "batchnormalization_8",
        "at [4, 0, 0, 0]",
    ),
    "a folded bias by 1e-5": (
        "residual",
        lambda model: changed(model, lambda name, x: x * 1.00001 if name.endswith("BN_B_w26") else x),
        "batchnormalization_15",
        "is 1.00001 × yours",
    ),
    "padding": (
        "residual",
        lambda model: with_attribute(model, "MaxPool", "pads", [0, 0, 2, 2]),
        "maxpool_3",
        "pads is [0, 0, 2, 2]; the reference has [1, 1, 1, 1]",
    ),
    "the wrong axis": (
        "residual", lambda model: with_attribute(model, "Softmax", "axis", 0), "softmax_23", "wrong axis"
    ),
    "the slope of a hard sigmoid": (
        "mobile", lambda model: with_attribute(model, "HardSigmoid", "alpha", 0.2), "hardswish_1", "0.2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_graph_is_found_out_where_it_is_altered(what: str, tmp_path: Path) -> None:
    name, alter, step, said = ALTERED[what]
    report = judged(alter(optimised(MODELS[name], "extended", tmp_path)), MODELS[name])
    assert report.verdict == "fail"
    fault = report.leading.first_fault
    assert fault is not None
    assert fault.step == step
    assert fault.candidate_nodes
    assert fault.reference_nodes
    assert said in report.leading.likely


NORM = [
    ("ReduceMean", ["total"], "mean"),
    ("Sub", ["total", "mean"], "centred"),
    ("Mul", ["centred", "centred"], "squares"),
    ("ReduceMean", ["squares"], "variance"),
    ("Add", ["variance", "epsilon"], "enough"),
    ("Sqrt", ["enough"], "deviation"),
    ("Div", ["centred", "deviation"], "y"),
]


def normed(*calls: tuple[str, list[str], str]) -> onnx.ModelProto:
    """Return the graph of some calls on ``x`` (8, 16): operator, operands, result."""
    rng = np.random.default_rng(0)
    bias, table = (rng.normal(size=16).astype(np.float32) for _ in range(2))
    weight = rng.normal(size=(16, 16))
    held = {
        "weight": (weight - weight.mean(axis=1, keepdims=True)).astype(np.float32),
        "bias": bias,
        "table": table / 10,
        "both": bias + table / 10,
        "wrong": np.float32(1.05) * bias,
        "epsilon": np.float32(1e-5),
        "ones": np.ones(16, np.float32),
    }
    helper = onnx.helper
    nodes = [
        helper.make_node(kind, operands, [made], made, **({"axes": [1]} if kind == "ReduceMean" else {}))
        for kind, operands, made in calls
    ]
    used = {name for _, operands, _ in calls for name in operands}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (8, 16)) for name in "xy"]
    constants = [numpy_helper.from_array(np.asarray(held[name]), name) for name in held if name in used]
    graph = helper.make_graph(nodes, "normed", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_missing_sum_is_not_taken_for_what_is_computed_of_it() -> None:
    """(x + b) + c as x + (b + c), then a norm in its parts, of which one is near to x + b."""
    product = ("MatMul", ["x", "weight"], "product")
    before = normed(
        product,
        ("Add", ["product", "bias"], "biased"),
        ("Add", ["biased", "table"], "total"),
        ("LayerNormalization", ["total", "ones"], "y"),
    )
    report = judged(normed(product, ("Add", ["product", "both"], "total"), *NORM), before)
    report.raise_on_failure()
    assert {row.verdict for row in report.leading.steps if row.name == "biased"} == {"absent"}


def test_a_wrong_bias_is_blamed_on_the_sum_where_the_product_is_not_apart() -> None:
    """One node makes both: its result is nearer to the sum than to the product."""
    before = normed(
        ("MatMul", ["x", "weight"], "product"),
        ("Add", ["product", "bias"], "biased"),
        ("Relu", ["biased"], "y"),
    )
    report = judged(normed(("Gemm", ["x", "weight", "wrong"], "sum"), ("Relu", ["sum"], "y")), before)
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step == "biased"


def test_inputs_of_other_names_go_by_their_order() -> None:
    after = copy.deepcopy(MODELS["mobile"])
    after.graph.input[0].name = "pixels"
    for node in after.graph.node:
        node.input[:] = ["pixels" if name == "x" else name for name in node.input]
    judged(after, MODELS["mobile"]).raise_on_failure()


def test_a_graph_in_half_precision_may_be_off_by_its_roundings() -> None:
    judged(onnx_models.mobile_network(np.float16), MODELS["mobile"]).raise_on_failure()
    wrong = changed(
        onnx_models.mobile_network(np.float16), lambda name, array: array * 1.01 if name == "w18" else array
    )
    assert judged(wrong, MODELS["mobile"]).verdict == "fail"


def test_a_graph_with_other_inputs_is_of_another_model() -> None:
    after = copy.deepcopy(MODELS["mobile"])
    after.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(ShapeError, match="different models"):
        judged(after, MODELS["mobile"])


def test_json_follows_its_schema() -> None:
    wrong = with_attribute(MODELS["mobile"], "LeakyRelu", "alpha", 0.2)
    schema = json.loads(files("conformance.reports").joinpath("report_schema.json").read_text())
    report = json.dumps(judged(wrong, MODELS["mobile"]).to_json(), allow_nan=False)
    jsonschema.validate(json.loads(report), schema)


def test_a_lost_output_is_told() -> None:
    after = copy.deepcopy(MODELS["residual"])
    del after.graph.output[0]
    assert "it gives no output" in judged(after, MODELS["residual"]).headline()


CASES = Path(__file__).parents[4] / "shared" / "data" / "onnx-cases"


@pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/data")
def written(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')


BESIDE = {
    "nothing": ("", ""),
    "a result": (", float[2,3] z", "z = Relu(x)"),
    "an input": (", float[2,3] x", ""),
}
"""What is beside an output → how that is declared, and made."""


@pytest.mark.parametrize("beside", BESIDE)
def test_an_output_that_was_folded_to_a_constant(beside: str) -> None:
    declared, made = BESIDE[beside]
    outputs = f"(float[2,3] x) => (float[2,1] y{declared})"
    before = written(f"{outputs} {{ {made} m = ReduceMean<axes = [1]>(x)  y = Softmax(m) }}")
    judged(written(f"{outputs} <float[2,1] y = {{1, 1}}> {{ {made} }}"), before).raise_on_failure()
    assert judged(written(f"{outputs} <float[2,1] y = {{1.1, 1}}> {{ {made} }}"), before).verdict == "fail"


def test_padding_that_was_moved_into_a_pool_shows_without_input_of_its_own() -> None:
    """Zeros are larger than a window of negative numbers; a maximum pool's own padding is not."""
    files = (str(CASES / f"converter_pad_maxpool_{each}.onnx") for each in ("after", "before"))
    result = CliRunner().invoke(app, ["verify", next(files), "--against", next(files), "--no-cache"])
    assert result.exit_code == 1
    assert "at        y (MaxPool)" in result.stdout


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(MODELS["mobile"], "before.onnx")
    onnx.save(optimised(MODELS["mobile"], "extended", tmp_path), "after.onnx")
    onnx.save(with_attribute(onnx.load("after.onnx"), "LeakyRelu", "alpha", 0.2), "wrong.onnx")
    runs = {
        name: CliRunner().invoke(app, ["verify", name, "--against", "before.onnx"])
        for name in ("after.onnx", "wrong.onnx")
    }
    assert runs["after.onnx"].exit_code == 0
    assert runs["after.onnx"].stdout.splitlines()[0] == "PASS  after.onnx means what before.onnx does"
    assert runs["wrong.onnx"].exit_code == 1
    said = runs["wrong.onnx"].stdout.splitlines()[:10]
    assert said[0] == "FAIL  wrong.onnx does not mean what before.onnx does"
    assert all(len(line) <= 80 for line in said)
    assert "leakyrelu_26_node: alpha is 0.2; the reference has 0.1" in " ".join(" ".join(said).split())
    refused = CliRunner().invoke(app, ["verify", "missing.onnx", "--against", "before.onnx"])
    assert isinstance(refused.exception, FileError)


PADDED = {
    "rows first": "p = Pad (x, pads) y = Conv (p, w)",
    "channels first, then turned": """
        t = Transpose <perm = [0, 2, 3, 1]> (x)
        p = Pad (t, pads)
        u = Transpose <perm = [0, 3, 1, 2]> (p)
        y = Conv (u, w)""",
}
"""How a Pad may stand before a convolution."""


@pytest.mark.parametrize("where", PADDED)
@pytest.mark.parametrize("rows", [1, 2])
def test_a_pad_before_a_convolution_is_what_it_pads(where: str, rows: int) -> None:
    """So that where a weight is wrong nothing is said of padding; and where padding is, that."""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    ends = "(float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y)"
    before = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g {ends} {{ y = Conv <pads = [1, 1, 1, 1]> (x, w) }}'
    )
    after = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g {ends} {{ {PADDED[where]} }}'
    )
    sides = [0, 0, rows, 1, 0, 0, 2 - rows, 1]
    sides = sides if "t =" not in PADDED[where] else [0, rows, 1, 0, 0, 2 - rows, 1, 0]
    before.graph.initializer.append(numpy_helper.from_array(kernel, "w"))
    after.graph.initializer.append(numpy_helper.from_array(kernel * np.float32(1.2 - 0.2 * (rows - 1)), "w"))
    after.graph.initializer.append(numpy_helper.from_array(np.array(sides), "pads"))
    report = judged(after, before)
    assert report.verdict == "fail"
    said = " ".join([report.headline(), *report.leading.evidence])
    assert ("pads" in said) == (rows == 2)


HEAD = '<ir_version: 8, opset_import: ["" : 17]> g'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(float[4] a, float[4] b) => (float[4] y) { y = Sub(a, b) }", []),
        ("(float[4] b, float[4] a) => (float[4] y) { y = Sub(a, b) }", []),
        ("(float[4] b, float[4] c) => (float[4] y) { y = Sub(c, b) }", []),
        ("(float[4] p, float[4] q) => (float[4] y) { y = Sub(p, q) }", ["p for a, q for b"]),
    ],
)
def test_inputs_are_paired_by_names_and_the_rest_in_order(text: str, said: list[str]) -> None:
    right = OnnxGraph.load(
        parser.parse_model(f"{HEAD} (float[4] a, float[4] b) => (float[4] y) {{ y = Sub(a, b) }}")
    )
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(4).astype(np.float32) for name in ("a", "b")}
    report = verify_against(OnnxGraph.load(parser.parse_model(f"{HEAD} {text}")), right, {"drawn": feeds})
    assert report.verdict == "pass", report.headline()
    found = [remark for remark in report.inputs[0].remarks if "by their order" in remark]
    assert [text in remark for text, remark in zip(said, found, strict=True)] == [True] * len(said)
