"""Numbers that an input or rounding hides are read in the candidate's nodes; right ones pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, exported, picture, weights
from onnx import helper, numpy_helper, parser
from onnxruntime.transformers.float16 import convert_float_to_float16

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from conformance.judge.network import verify
from conformance.reports.report import Report
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((1, 3, 8, 8)).astype(np.float32)
DEAD = np.array([0.1, -100, 0.2, 0.3], np.float32)
"""Biases of which the second lets nothing through."""
NUMBERS: dict[str, Array] = {
    "w": (RANDOM.standard_normal((4, 3, 3, 3)) / 5).astype(np.float32),
    "b": DEAD,
    "v": (RANDOM.standard_normal((2, 4, 1, 1)) / 2).astype(np.float32),
    "scale": RANDOM.uniform(0.5, 2, 3).astype(np.float32),
    "shift": RANDOM.standard_normal(3).astype(np.float32),
    "mean": RANDOM.standard_normal(3).astype(np.float32),
    "variance": RANDOM.uniform(0.5, 2, 3).astype(np.float32),
    "half": np.float32(0.5),
    "limit": np.float32(7.25),
}


def graph(body: str, outputs: str = "float[1, 2, 6, 6] y", **numbers: Array) -> OnnxGraph:
    """Return the graph of a text, whose constants are in `NUMBERS`, but for those given."""
    head = f'<ir_version: 8, opset_import: ["" : 17]> graph (float[1, 3, 8, 8] x) => ({outputs})'
    model = parser.parse_model(f"{head} {{ {body} }}")
    used = {name for node in model.graph.node for name in node.input}
    for name, array in {**NUMBERS, **numbers}.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return OnnxGraph.load(model)


def verdict(candidate: OnnxGraph, reference: OnnxGraph, x: Array = X) -> tuple[str, str]:
    """Return the verdict on a graph beside another, and what is said of it."""
    report = verify_against(candidate, reference, {"x": {"x": x}})
    return report.verdict, " ".join(report.inputs[0].problems)


CONVOLUTIONS = "c = Conv(x, w, b) r = Relu(c) y = Conv(r, v)"


def scaled(place: int, factor: float) -> Array:
    """Return the second kernel, of which an input channel is a factor off."""
    array = NUMBERS["v"].copy()
    array[:, place] *= factor
    return array


@pytest.mark.parametrize("factor", [1.0, 1.01, 0.0])
def test_a_kernel_that_zeros_go_into(factor: float) -> None:
    found, said = verdict(graph(CONVOLUTIONS, v=scaled(1, np.float32(factor))), graph(CONVOLUTIONS))
    assert found == ("pass" if factor == 1 else "fail"), said
    assert factor == 1 or "1 of 4 input channels" in said


COMPARED = "g = Greater(x, limit) f = Cast<to = 1>(g) y = Mul(f, half)"


@pytest.mark.parametrize("limit", [7.25, 7.5, -7.25])
@pytest.mark.parametrize("operator", ["Greater", "GreaterOrEqual", "Less"])
def test_a_threshold_that_no_number_is_near(operator: str, limit: float) -> None:
    body = COMPARED.replace("Greater", operator)
    reference = graph(body, "float[1, 3, 8, 8] y")
    assert np.abs(X).max() < 7
    found, said = verdict(graph(body, "float[1, 3, 8, 8] y", limit=np.float32(limit)), reference)
    assert found == ("pass" if limit == 7.25 else "fail"), said


SELECTED = """
    flat = Reshape(x, sizes) boxes = Slice(flat, zero, four, two) first = Slice(flat, zero, one, two)
    scores = Transpose<perm = [0, 2, 1]>(first) kept = NonMaxSuppression(boxes, scores, most, overlap, least)
    f = Cast<to = 1>(kept) y = Mul(f, half)
"""


def suppressing(overlap: float, least: float, most: int) -> OnnxGraph:
    """Return a graph that keeps boxes."""
    sizes = {"sizes": [1, -1, 4], "zero": [0], "one": [1], "two": [2], "four": [4], "most": [most]}
    numbers = {name: np.array(value, np.int64) for name, value in sizes.items()}
    thresholds = {"overlap": np.array([overlap], np.float32), "least": np.array([least], np.float32)}
    return graph(SELECTED, "float[n, 3] y", **numbers, **thresholds)


@pytest.mark.parametrize("given", [(0.5, -9.0, 100), (0.5001, -9.0, 100), (0.5, -9.5, 100), (0.5, -9.0, 47)])
def test_what_suppresses_boxes(given: tuple[float, float, int]) -> None:
    """There are 48 boxes: to keep 100 is to keep all."""
    right = suppressing(0.5, -9.0, 48)
    found, said = verdict(suppressing(*given), right)
    assert found == ("pass" if given == (0.5, -9.0, 100) else "fail"), said


NORM = "n = BatchNormalization<epsilon = 0.001>(x, scale, shift, mean, variance) y = Mul(n, half)"


def as_scale_and_shift() -> dict[str, Array]:
    """Return a batch norm's constants as simplifiers write them: without mean and variance."""
    factor = NUMBERS["scale"].astype(np.float64) / np.sqrt(NUMBERS["variance"].astype(np.float64) + 1e-3)
    return {
        "scale": (factor * np.sqrt(1 + 1e-3)).astype(np.float32),
        "shift": (NUMBERS["shift"] - NUMBERS["mean"] * factor).astype(np.float32),
        "mean": np.zeros(3, np.float32),
        "variance": np.ones(3, np.float32),
    }


def test_a_batch_norm_has_many_ways() -> None:
    reference = graph(NORM, "float[1, 3, 8, 8] y")
    assert verdict(graph(NORM, "float[1, 3, 8, 8] y", **as_scale_and_shift()), reference) == ("pass", "")


ATTRIBUTES = [
    ("m = Mod<fmod = 1>(x, limit) y = Mul(m, half)", "fmod = 1", "fmod = 0"),
    ("i = ArgMax<axis = 1, select_last_index = 0>(x) f = Cast<to = 1>(i) y = Mul(f, half)", "x = 0", "x = 1"),
    ("e = ThresholdedRelu<alpha = 0.5>(x) y = Mul(e, half)", "0.5", "0.6"),
    ("e = Shrink<lambd = 0.5>(x) y = Mul(e, half)", "0.5", "0.6"),
]


@pytest.mark.parametrize(("body", "right", "wrong"), ATTRIBUTES, ids=lambda text: text[:12])
def test_an_attribute_that_no_number_tells(body: str, right: str, wrong: str) -> None:
    """None of these numbers is below one, and no two are equal."""
    graphs = [graph(body.replace(right, each), "float[1, n, 8, 8] y") for each in (right, wrong)]
    assert verdict(graphs[0], graphs[0], 1 + np.abs(X))[0] == "pass"
    found, said = verdict(graphs[1], graphs[0], 1 + np.abs(X))
    assert found == "fail", said


def in_float16(change: Callable[[onnx.ModelProto], None]) -> Report:
    """Return the verdict on the network in float16, changed before it was converted."""
    model = exported()
    change(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that float16 makes zero
        made = convert_float_to_float16(model, keep_io_types=True)
    assert isinstance(made, onnx.ModelProto)
    return verify(OnnxRuntimeCandidate(OnnxGraph.load(made)), CONFIG, weights(), {"picture": picture()})


def another_epsilon(model: onnx.ModelProto) -> None:
    """Have one layer norm add three times as much."""
    node = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("epsilon", 3e-5))


def another_kernel(model: onnx.ModelProto) -> None:
    """Have a slice of one kernel larger by five roundings to float16."""
    tensor = [each for each in model.graph.initializer if len(each.dims) == 4][-1]
    array = numpy_helper.to_array(tensor).copy()
    array[0] *= np.float32(1 + 5 * 2**-11)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@pytest.mark.parametrize(
    ("change", "said"),
    [(another_epsilon, "epsilon is 3e-05"), (another_kernel, "in 1 of 32 output channels")],
)
def test_what_float16_hides(change: Callable[[onnx.ModelProto], None], said: str) -> None:
    report = in_float16(change)
    assert report.verdict == "fail"
    assert said in " ".join(report.inputs[0].problems)


def test_float16_itself_passes() -> None:
    report = in_float16(lambda model: None)
    assert report.verdict == "pass", report.headline()
