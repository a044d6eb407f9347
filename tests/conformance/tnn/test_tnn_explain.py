"""The layer table has the runtime's shapes, the source's constants, and the products of the definitions."""

from __future__ import annotations

import math

import onnx
import pytest
from tnn_data import file, graph, graph_names, naive_outputs

from conformance.tnn.explain import layer_table


@pytest.mark.parametrize("name", graph_names())
def test_shapes_are_the_runtime_s_and_constants_those_of_the_file(name):
    rows = layer_table(graph(name))
    shapes = {blob: shape for row in rows for blob, shape in row.outputs.items()}
    assert [row.name for row in rows] == [layer.name for layer in graph(name).proto.layers]
    for output, array in naive_outputs(name).items():
        assert shapes[output] == array.shape


@pytest.mark.parametrize("name", ["conv3x3_c64", "dwconv_s2", "conv_pad_h1_w0", "gemm", "matmul3d_w"])
def test_constants_are_those_of_the_source(name):
    initializers = onnx.load(file(name, ".onnx")).graph.initializer
    assert sum(row.constants for row in layer_table(graph(name))) == sum(
        math.prod(x.dims) for x in initializers
    )


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("conv3x3_c64", 64 * 24 * 32 * 64 * 9),
        ("dwconv_s2", 16 * 16 * 24 * 9),
        ("convtranspose2", 8 * 6 * 5 * 4 * 4),
        ("gemm", 4 * 24 * 16),
        ("matmul4d_2in", 4 * 10 * 12 * 16),
        ("matmul3d_w", 10 * 24 * 16),
        ("sigmoid", 0),
    ],
)
def test_products_are_counted_by_their_definition(name, products):
    assert sum(row.products for row in layer_table(graph(name))) == products
