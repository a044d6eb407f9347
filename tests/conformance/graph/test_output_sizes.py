"""A small file that asks for a huge result is refused by the name of the node, before memory is taken."""

from __future__ import annotations

import resource

import numpy as np
import onnx
import pytest
from onnx import parser

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from refimpl.errors import ShapeError

HUGE = {
    "ConvTranspose": ("1,1,4,4", "<float[1,1,1,1] w={1}> { y = ConvTranspose<strides=[60000,60000]>(x,w) }"),
    "Conv": ("1,1,4,4", "<float[1,1,1,1] w={1}> { y = Conv<pads=[60000,60000,0,0]>(x,w) }"),
    "MaxPool": (
        "1,1,4,4",
        "{ y = MaxPool<kernel_shape=[3,3], strides=[60000,60000], pads=[60000,60000,60000,60000]>(x) }",
    ),
    "Einsum": ("4000", '{ y = Einsum<equation="i,j,k->ijk">(x,x,x) }'),
    "Gather": (
        "2,60000",
        "<int64[1,1] i={0}, int64[2] s={1,40000}> { n = Expand(i,s) y = Gather<axis=0>(x,n) }",
    ),
    "Expand": ("1", "<int64[2] s={100000,100000}> { y = Expand(x,s) }"),
    "Tile": ("4", "<int64[1] s={2000000000}> { y = Tile(x,s) }"),
    "Resize": ("1,1,4,4", "<float[4] s={1,1,30000,30000}> { y = Resize(x,,s) }"),
    "Pad": ("1,1,4,4", "<int64[8] s={0,0,60000,60000,0,0,0,0}> { y = Pad(x,s) }"),
    "MatMul": ("100000,1", "{ t = Transpose<perm=[1,0]>(x) y = MatMul(x,t) }"),
    "Add": ("100000,1", "{ t = Transpose<perm=[1,0]>(x) y = Add(x,t) }"),
    "OneHot": ("1", "<int64[1] d={2000000000}, float[2] v={0,1}, int64[2] i={0,1}> { y = OneHot(i,d,v) }"),
    "Range": ("1", "<int64 a={0}, int64 b={4000000000}, int64 c={1}> { y = Range(a,b,c) }"),
    "ConstantOfShape": ("1", "<int64[1] s={4000000000}> { y = ConstantOfShape(s) }"),
    "Concat": (
        "4",
        "{ a0 = Relu(x) "
        + " ".join(f"a{i + 1} = Concat<axis=0>(a{i},a{i})" for i in range(30))
        + " y = Relu(a30) }",
    ),
}


def graph_of(shape: str, body: str) -> OnnxGraph:
    text = f'<ir_version: 8, opset_import: ["": 20]> g (float[{shape}] x) => (float y) {body}'
    model = parser.parse_model(text)
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    return OnnxGraph.load(model)


def test_numbers_beyond_float32_are_a_verdict_without_a_warning() -> None:
    graph = graph_of("3", "{ t = Mul(x,x) u = Mul(t,t) y = Sub(u,t) }")
    assert verify_graph(OnnxRuntimeGraph(graph), {"x": np.full(3, 1e30, np.float32)}).verdict == "fail"


@pytest.mark.parametrize("operator", [name for name in HUGE if name != "Concat"])
def test_a_huge_result_is_refused_before_it_is_made(operator: str) -> None:
    shape, body = HUGE[operator]
    x = np.zeros(tuple(map(int, shape.split(","))), np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ShapeError, match=rf"\({operator}\) asks for \d+ elements"):
        verify_graph(OnnxRuntimeGraph(graph_of(shape, body)), {"x": x})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_results_that_are_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.graph.output_sizes.MOST_ELEMENTS", 2**14)
    monkeypatch.setattr("conformance.graph.output_sizes.MOST_IN_ALL", 2**15)
    shape, body = HUGE["Concat"]
    with pytest.raises(ShapeError, match=r"'a13/Concat' \(Concat\) asks for 32768 elements"):
        verify_graph(OnnxRuntimeGraph(graph_of(shape, body)), {"x": np.zeros(4, np.float32)})
