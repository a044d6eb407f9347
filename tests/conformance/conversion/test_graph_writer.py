"""Nodes and constants on their way into a graph."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from conformance.conversion.graph_writer import GraphWriter


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 1, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_a_constant_keeps_its_shape(shape: tuple[int, ...], dtype: type) -> None:
    """A number that became a list of one would keep the axis from which Gather takes it."""
    writer = GraphWriter()
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    writer.constant(np.asarray(array).T)
    (held,) = writer.initializers
    np.testing.assert_array_equal(numpy_helper.to_array(held), array.T)
    assert numpy_helper.to_array(held).shape == shape[::-1]
