"""Where nothing bounds the rounding, or it may be larger than what it changes, nothing is said to pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, picture, weights
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from conformance.bounds import FLOAT16
from conformance.bounds.allowances import ONNX_RUNTIME, RUNTIMES, onnx_runtime
from conformance.bounds.declaration import Declaration
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.candidates.plain import PythonCandidate
from conformance.cli import app
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.alignment import CandidateTensors
from conformance.judge.any_graph import verify_graph
from conformance.judge.network import verify
from conformance.judge.replay import Replay
from conformance.judge.steps import compare_steps
from conformance.judge.wrong_tensor import Around
from refimpl import MobileInst, ops
from refimpl.ops.operation import Array
from refimpl.recording import record_call

pytestmark = pytest.mark.usefixtures("small_backbones")


def graph(nodes: list[onnx.NodeProto], shape: tuple[int, ...], **constants: Array) -> OnnxGraph:
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    return OnnxGraph.load(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))


def layer_norm(size: int) -> OnnxGraph:
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"], axis=-1)
    return graph([node], (2, size), s=np.ones(size), b=np.zeros(size))


class OnePass(OnnxRuntimeGraph):
    """A runtime whose variance is E[x²] − E[x]² in float32, as ONNX Runtime's was before 1.27."""

    def _run(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: Any) -> dict[str, Array]:
        (x,) = feeds.values()
        mean = x.mean(axis=-1, keepdims=True, dtype=np.float32)
        square = np.square(x).mean(axis=-1, keepdims=True, dtype=np.float32)
        deviation = np.sqrt(np.maximum(square - mean * mean, 0) + np.float32(1e-5))
        return {"y": (x - mean) / deviation}


@pytest.mark.parametrize("offset", [0, 3, 1234, 40000])
@pytest.mark.parametrize("size", [4, 64, 256])
def test_two_passes_are_judged_at_any_offset(offset: int, size: int) -> None:
    x = (offset + np.random.default_rng(0).standard_normal((2, size))).astype(np.float32)
    report = verify_graph(OnnxRuntimeGraph(layer_norm(size)), {"x": x})
    assert report.verdict == "pass"
    assert {row.verdict for row in report.leading.nodes} == {"pass"}


@pytest.mark.parametrize(("offset", "size"), [(1234, 4), (1234, 64), (5000, 16)])
def test_a_variance_that_cancels_fails_at_the_node(offset: int, size: int) -> None:
    x = (offset + np.random.default_rng(0).standard_normal((2, size))).astype(np.float32)
    report = verify_graph(OnePass(layer_norm(size)), {"x": x})
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.operation == "LayerNormalization"


def unbounded() -> OnnxGraph:
    """A product of so many numbers that float32's partial products may leave its range."""
    return graph([helper.make_node("ReduceProd", ["x"], ["y"], axes=[1], keepdims=1)], (2, 400))


FAR = {"x": np.random.default_rng(0).permuted(np.tile([3, 1 / 3], (2, 200)), axis=1).astype(np.float32)}
"""Their product is 1; the product of those above 1 is beyond float32."""


@pytest.mark.parametrize("factor", [1.0, 1.16])
def test_without_a_bound_nothing_passes_and_nothing_fails(factor: float) -> None:
    class Off(OnnxRuntimeGraph):
        def _run(self, *given: Any) -> dict[str, Array]:
            return {name: array * np.float32(factor) for name, array in super()._run(*given).items()}

    report = verify_graph(Off(unbounded()), FAR)
    item = report.leading
    assert [row.verdict for row in (*item.nodes, *item.outputs)] == ["not judged"] * 2
    assert (report.verdict, report.exit_code) == ("not judged", 2)
    assert report.headline().startswith("NOT JUDGED")
    with pytest.raises(Exception, match="NOT JUDGED"):
        report.raise_on_failure()


@pytest.mark.parametrize("seed", range(4))
def test_an_infinity_that_rounding_may_make_or_not_judges_nothing(seed: int) -> None:
    chain = ["Sub", "Div", "Cos", "Mul", "Exp", "Exp"]
    constants = {"Sub": "far", "Div": "three", "Mul": "huge"}
    names = ["x", *(f"t{place}" for place in range(len(chain) - 1)), "y"]
    nodes = [
        helper.make_node(
            operator,
            [names[place], *([constants[operator]] if operator in constants else [])],
            [names[place + 1]],
        )
        for place, operator in enumerate(chain)
    ]
    made = graph(nodes, (3, 5), far=1e9, three=3, huge=1e6)
    x = 1e4 * np.random.default_rng(seed).standard_normal((3, 5)).astype(np.float32)
    (item,) = verify_graph(OnnxRuntimeGraph(made), {"x": x}).inputs
    assert [row.verdict for row in item.outputs] == ["not judged"]
    assert item.verdict != "fail"


def test_an_envelope_wider_than_the_output_judges_nothing() -> None:
    """Float16 arithmetic throughout may move these weights' logits by more than they differ."""
    network = MobileInst(CONFIG, weights())

    def run(images: Array) -> dict[str, Array]:
        return {name: np.asarray(array) for name, array in network(images).items()}

    candidate = PythonCandidate(run, declaration=Declaration(FLOAT16, FLOAT16))
    report = verify(candidate, CONFIG, weights(), {"scene": picture()})
    assert report.verdict != "fail"
    assert "masks" in report.leading.silent
    assert f"outputs {', '.join(report.leading.silent)} cannot tell" in report.headline()
    for row in report.leading.outputs:
        truth = run(picture())[row.name]
        assert row.tolerance is not None
        assert (row.verdict == "not judged") == (row.tolerance > np.ptp(truth)), row.name
    assert not report.decisions


@pytest.mark.parametrize(
    ("version", "ulps"), [("1.18.1", 3.5), ("1.20.1", 3.5), ("1.21.0", 0.5), ("1.32.0", 0.5), ("2.0", 0.5)]
)
def test_allowances_follow_the_version(version: str, ulps: float) -> None:
    runtime = onnx_runtime(version)
    assert runtime.allowances["Sqrt"].ulps == ulps
    assert RUNTIMES[runtime.name] == runtime
    assert not ONNX_RUNTIME.one_pass_variance


def test_the_command_ends_with_2(tmp_path: Path) -> None:
    onnx.save(unbounded().model, tmp_path / "it.onnx")
    np.save(tmp_path / "x.npy", FAR["x"])
    given = [str(tmp_path / "it.onnx"), "--graph-only", "--input", str(tmp_path / "x.npy"), "--no-cache"]
    result = CliRunner().invoke(app, ["verify", *given])
    assert result.exit_code == 2
    assert "NOT JUDGED" in result.output


def test_a_product_is_not_taken_for_its_sum_where_nothing_bounds_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A runtime has the sum only: were it taken for the product, a right sum would lack its bias."""
    random = np.random.default_rng(0)
    weight, bias = 0.1 * random.normal(size=(32, 32)), 0.2 + random.random(32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
        helper.make_node("Add", ["m", "b"], ["s"], "sum"),
        helper.make_node("Add", ["s", "far"], ["y"], "last"),
    ]
    made = graph(nodes, (7, 32), w=weight, b=bias, far=np.float32(5))
    x = random.normal(size=(7, 32)).astype(np.float32)
    run = graph_recording(made, {"x": x})
    drifted = run.tensors["s"] + 0.1 * random.normal(size=(7, 32))
    tensors = {"5": drifted.astype(np.float32), "6": (drifted + 5).astype(np.float32)}
    bound = Replay.bound
    monkeypatch.setattr(Replay, "bound", lambda self, name: np.inf if name in "ms" else bound(self, name))
    monkeypatch.setattr(Replay, "unlike_rounding", lambda *given: None)
    # What is computed of a tensor is found by resemblance, in a deep network by chance.
    monkeypatch.setattr(Around, "explains", lambda *given, nearest: True)
    rows, fault = compare_steps(run, {"y": "6"}, CandidateTensors(tensors), Declaration())
    assert fault is None
    assert not any(row.verdict == "fail" for row in rows)
    (product,) = (row for row in rows if row.name == "m")
    assert product.verdict == "absent"


def test_what_a_softmax_makes_of_anything_tells_nothing_of_what_is_before_it() -> None:
    """The candidate fuses q = s · (x · w + b), and s is wrong: its one tensor is no wrong x · w + b."""
    random = np.random.default_rng(0)
    tokens, keys, values, w = (random.standard_normal((6, 8)) for _ in range(4))
    w, b, s = random.standard_normal((8, 8)) / 8, 0.01 * random.standard_normal(8), np.array(0.3)

    def attention(given: dict[str, Array]) -> dict[str, Array]:
        query = ops.mul(ops.add(ops.mat_mul(given["x"], w), b), s)
        scores = ops.mat_mul(query, 0.01 * keys.T)
        return {"y": ops.mat_mul(ops.softmax(scores, axis=-1), values)}

    run = record_call(attention, {"x": tokens})
    query = 1.05 * s * (tokens @ w + b)
    scores = query @ (0.01 * keys.T)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    made = {"a": query, "b": scores, "c": weights, "d": weights @ values}
    tensors = CandidateTensors({name: array.astype(np.float32) for name, array in made.items()})
    _, fault = compare_steps(run, {"y": "d"}, tensors, Declaration(weights=FLOAT16))
    assert fault is not None
    assert fault.operation == "Mul"
