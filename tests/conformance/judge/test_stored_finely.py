"""One cast to float16 loosens the bound of what it rounds, and no other: mistakes elsewhere are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, exported, picture, weights
from onnx import TensorProto, helper, numpy_helper, parser

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.narrow import narrow_tensors
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from conformance.judge.any_graph import verify_graph
from conformance.judge.network import verify
from conformance.reports.report import Report
from conformance.reproduction.folder import reproduce
from conformance.reproduction.recorded_step import judge_folder
from refimpl import MobileInst
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

NARROW = TensorProto.FLOAT16
HIDDEN = 1.0003
"""A factor that float16's rounding hides, and float32's does not."""


def cast_outputs(model: onnx.ModelProto) -> None:
    """Give every output in float16, as is done to save bandwidth."""
    for output in model.graph.output:
        if output.type.tensor_type.elem_type == TensorProto.FLOAT:
            rename(model, output.name, f"{output.name}_wide")
            node = helper.make_node("Cast", [f"{output.name}_wide"], [output.name], to=NARROW)
            model.graph.node.append(node)
            output.type.tensor_type.elem_type = NARROW


def cast_input(model: onnx.ModelProto) -> None:
    """Round the pictures."""
    (given,) = model.graph.input
    for node in model.graph.node:
        node.input[:] = ["rounded" if name == given.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", ["half"], ["rounded"], to=TensorProto.FLOAT))
    model.graph.node.insert(0, helper.make_node("Cast", [given.name], ["half"], to=NARROW))


def cast_within(model: onnx.ModelProto, code: int = NARROW) -> None:
    """Round one tensor in the middle of the network."""
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    node = sums[len(sums) // 2]
    place, name = list(model.graph.node).index(node), node.output[0]
    node.output[0] = "wide"
    model.graph.node.insert(place + 1, helper.make_node("Cast", ["narrow"], [name], to=TensorProto.FLOAT))
    model.graph.node.insert(place + 1, helper.make_node("Cast", ["wide"], ["narrow"], to=code))


def cast_to_bfloat16(model: onnx.ModelProto) -> None:
    """Round one tensor to bfloat16."""
    cast_within(model, TensorProto.BFLOAT16)


def compress_kernels(model: onnx.ModelProto) -> None:
    """Store the kernels of convolutions, all but one, in float16, and cast them where they are used."""
    for tensor in [each for each in model.graph.initializer if len(each.dims) == 4][:-1]:
        node = helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT)
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{tensor.name}_half"))
        model.graph.node.insert(0, node)


def rename(model: onnx.ModelProto, name: str, other: str) -> None:
    """Give a tensor another name wherever nodes say it."""
    for node in model.graph.node:
        node.input[:] = [other if each == name else each for each in node.input]
        node.output[:] = [other if each == name else each for each in node.output]


WAYS: Sequence[Callable[[onnx.ModelProto], None]] = (
    cast_outputs,
    cast_input,
    cast_within,
    cast_to_bfloat16,
    compress_kernels,
)


def model_of(way: Callable[[onnx.ModelProto], None], factor: float = 1.0) -> onnx.ModelProto:
    """Return the export with the last kernel a factor off, written in a way."""
    model = exported()
    tensor = [each for each in model.graph.initializer if len(each.dims) == 4][-1]
    wrong = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    way(model)
    return model


def judged(model: onnx.ModelProto) -> Report:
    """Return the verdict beside the network."""
    return verify(OnnxRuntimeCandidate(OnnxGraph.load(model)), CONFIG, weights(), {"picture": picture()})


def beside_its_source(model: onnx.ModelProto) -> Report:
    """Return the verdict on the file beside the export it was made of."""
    source = OnnxGraph.load(exported())
    return verify_against(OnnxGraph.load(model), source, {"picture": {"images": picture()}})


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("verdict", [judged, beside_its_source])
def test_what_is_right_passes(
    verdict: Callable[[onnx.ModelProto], Report], way: Callable[[onnx.ModelProto], None]
) -> None:
    assert verdict(model_of(way)).verdict == "pass"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("verdict", [judged, beside_its_source])
def test_a_mistake_less_than_float16_rounds_is_found_where_nothing_is_float16(
    verdict: Callable[[onnx.ModelProto], Report], way: Callable[[onnx.ModelProto], None]
) -> None:
    report = verdict(model_of(way, HIDDEN))
    assert report.verdict == "fail"
    assert f"{HIDDEN:g} × yours" in report.headline()


class Careless(OnnxRuntimeGraph):
    """ONNX Runtime, with what a convolution makes a little off."""

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        tensors = super().capture(feeds)
        return {**tensors, "c": tensors["c"] * np.float32(HIDDEN)}


@pytest.mark.parametrize(("runtime", "verdict"), [(OnnxRuntimeGraph, "pass"), (Careless, "fail")])
def test_a_node_is_judged_by_what_it_is_stored_in(runtime: type[OnnxRuntimeGraph], verdict: str) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) =>
        (float[1, 4, 6, 6] c, float16[1, 4, 6, 6] y) { c = Conv(x, w) r = Relu(c) y = Cast<to = 10>(r) }"""
    random = np.random.default_rng(0)
    shapes = {"x": (1, 3, 8, 8), "w": (4, 3, 3, 3)}
    feeds = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    candidate = runtime(OnnxGraph.load(parser.parse_model(text)), RuntimeOptions(threads=1))
    report = verify_graph(candidate, feeds)
    assert {row.name: row.verdict for row in report.inputs[0].nodes}["c"] == verdict
    assert "stored as float16 where the graph says so, else as float32" in report.tolerance


def test_narrow_tensors_are_those_that_onnx_infers() -> None:
    for way in WAYS:
        model = model_of(way)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        codes = {each.name: each.data_type for each in inferred.initializer}
        infos = (*inferred.input, *inferred.value_info, *inferred.output)
        codes |= {each.name: each.type.tensor_type.elem_type for each in infos}
        wanted = {name for name, code in codes.items() if code in (NARROW, TensorProto.BFLOAT16)}
        assert narrow_tensors(OnnxGraph.load(model)) == wanted
        assert wanted


def test_it_is_shown_again_by_itself(tmp_path: Path) -> None:
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model_of(cast_outputs, HIDDEN)))
    report = verify(candidate, CONFIG, weights(), {"picture": picture()})
    reference = MobileInst(CONFIG, weights().astype(np.float64))
    assert reproduce(tmp_path / "step", report, candidate, reference, picture())
    again = judge_folder(tmp_path / "step")
    assert again.verdict == "fail"
    assert f"{HIDDEN:g} × the right one" in " ".join(again.inputs[0].evidence)
