"""A graph as a PyTorch module computes what ONNX Runtime does, on other inputs than it was made with, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.pytorch_module import module_of
from refimpl.errors import MobileInstError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")

SHAPE = [1, 3, 4, 6]


def model(nodes: Sequence[NodeProto], **constants: Array) -> onnx.ModelProto:
    """Return a checked model of ``x`` and ``y``, which is (1, 3, 4, 6)."""
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, SHAPE) for name in "xy"]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def computes_the_same(made: onnx.ModelProto) -> None:
    """Make a module with one input; compare what it and ONNX Runtime make of another."""
    first, second = np.random.default_rng(0).uniform(0.5, 2.0, (2, *SHAPE)).astype(np.float32)
    module = module_of(OnnxGraph.load(made), {"x": first})
    (wanted,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": second})
    found = module(torch.from_numpy(second))["y"].numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("number_first", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1)])
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_a_constant_may_be_either_operand(operator: str, shape: tuple[int, ...], number_first: bool) -> None:
    names = ["c", "x"] if number_first else ["x", "c"]
    constant = np.full(shape, 1.75, np.float32)
    computes_the_same(model([helper.make_node(operator, names, ["y"])], c=constant))


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Pow"])
@pytest.mark.parametrize("number_first", [True, False])
def test_a_number_that_is_computed_is_none_of_the_file(operator: str, number_first: bool) -> None:
    names = ["m", "x"] if number_first else ["x", "m"]
    mean = helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0)
    computes_the_same(model([mean, helper.make_node(operator, names, ["y"])]))


def test_bounds_may_be_computed_of_the_input() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Clip", ["x", "", "m"], ["y"]),
    ]
    computes_the_same(model(nodes))


def test_a_shape_that_is_computed_is_a_literal() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Reshape", ["t", "s"], ["y"]),
    ]
    computes_the_same(model(nodes))


def official_cases() -> list[tuple[str, onnx.ModelProto, list[Array], list[Array]]]:
    """Return ONNX's own cases of nodes: name, model, inputs and outputs, of arrays."""
    found = []
    for case in load_model_tests(kind="node"):
        for inputs, outputs in case.data_sets:
            if all(isinstance(array, np.ndarray) for array in (*inputs, *outputs)):
                found.append((case.name, case.model, inputs, outputs))
    return found


def test_what_is_translated_computes_what_onnx_says() -> None:
    compared = set()
    for name, made, inputs, outputs in official_cases():
        try:
            graph = OnnxGraph.load(made)
            feeds = dict(zip(graph.inputs, inputs, strict=True))
            module = module_of(graph, feeds)
        except (MobileInstError, ValueError):  # another vocabulary, an optional left out
            continue
        found = module(*(torch.from_numpy(np.array(array)) for array in inputs))
        for output, wanted in zip(graph.outputs, outputs, strict=True):
            given = np.asarray(found[output])
            np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-7, err_msg=name)
            assert given.shape == wanted.shape, name
        compared |= {node.op_type for node in graph.nodes}
    assert len(compared) > 80
