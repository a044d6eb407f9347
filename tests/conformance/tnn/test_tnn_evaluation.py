"""A TNN graph in float64 is what the real runtime computed; rules it has not shown are ONNX Runtime's."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tnn_data import graph, graph_names, inputs, naive_outputs

from conformance.tnn.evaluation import evaluate
from conformance.tnn.graph import TnnGraph, join
from conformance.tnn.model import Model, RawBuffer, Resource
from conformance.tnn.proto import MAGIC_V1, parse_proto
from refimpl.errors import MobileInstError, ShapeError, UnsupportedOperationError

TEXT = 5.1e-7  # half of the last of the six decimals in the runtime's text


#: Of these TNNTest wrote no output.
NO_OUTPUT = {"more/einsum", "more/pad_edge"}


@pytest.mark.parametrize("name", sorted({*graph_names(), *graph_names("more")} - NO_OUTPUT))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_evaluation_is_what_the_runtime_computed(name, dtype):
    blobs, expected = evaluate(graph(name), inputs(name), dtype), naive_outputs(name)
    assert set(blobs) == set(graph(name).proto.blobs)
    assert sorted(expected) == sorted(graph(name).proto.outputs)
    for output, array in expected.items():
        assert blobs[output].dtype == dtype
        assert blobs[output].shape == array.shape
        # Honest float32 error of these layers is up to 1e-5 on values of 8; another rule is off by 1e-2.
        bound = TEXT + 2e-6 * np.abs(blobs[output]).max()
        np.testing.assert_allclose(array, blobs[output], rtol=0, atol=bound)


def one_layer(line: str, dims: tuple[int, ...], blobs: str = "x y", **buffers: np.ndarray) -> TnnGraph:
    """Return a graph of one layer, ``line`` without its closing, that reads ``x`` and writes ``y``."""
    names = blobs.split()
    shape = " ".join(map(str, dims))
    lines = (f"1 {len(names)} 1 4206624772", f"x {len(dims)} {shape} 0", blobs, "y", "1", line)
    text = "".join(f'"{words} ,"\n' for words in lines)
    held = {role: RawBuffer(values) for role, values in buffers.items()}
    layer_type, name = line.split()[:2]
    resources = (Resource(layer_type, name, held, 1),) if held else ()
    return join(parse_proto(text.encode(), "proto"), Model(resources), "test")


def onnx_run(operator: str, x: np.ndarray, *constants: np.ndarray, **attributes) -> np.ndarray:
    """Return what ONNX Runtime computes for one operator in float32."""
    names = [f"c{index}" for index in range(len(constants))]
    node = helper.make_node(operator, ["x", *names], ["y"], **attributes)
    initializers = [
        onnx.numpy_helper.from_array(value, name) for name, value in zip(names, constants, strict=True)
    ]
    x_info = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    y_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    found = helper.make_graph([node], "g", [x_info], [y_info], initializers)
    model = helper.make_model(found, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (2, 1)])
@pytest.mark.parametrize(("pad_type", "rule"), [(0, "SAME_UPPER"), (1, "VALID")])
def test_pad_types_are_those_of_tensorflow(kernel, stride, pad_type, rule):
    x, weight, bias = random(1, 4, 9, 12), random(6, 2, kernel, kernel, seed=1), random(6, seed=2)
    numbers = f"2 2 6 {kernel} {kernel} {stride} {stride} 0 0 1 {pad_type} 1 1 0"
    found = one_layer(f"Convolution c 1 1 x y {numbers}", x.shape, weight=weight, bias=bias)
    attributes = {"strides": [stride] * 2, "group": 2, "auto_pad": rule}
    expected = onnx_run("Conv", x, weight, bias, **attributes)
    np.testing.assert_allclose(evaluate(found, {"x": x})["y"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil", [0, 1])
def test_pooling_is_onnx_pooling_that_never_counts_padding(kind, ceil):
    x = random(1, 2, 9, 10)
    number = int(kind == "AveragePool")
    found = one_layer(f"Pooling p 1 1 x y {number} 3 3 2 2 1 1 -1 -1 -1 {ceil} 0 0 0", x.shape)
    expected = onnx_run(kind, x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=ceil)
    np.testing.assert_allclose(evaluate(found, {"x": x})["y"], expected, atol=1e-6)


def test_upsampling_by_a_scale_follows_the_ratio_of_the_sizes():
    x = random(1, 2, 10, 13)
    found = one_layer("Upsample u 1 1 x y 2 1.7 1.7 0", x.shape)
    sizes = np.array([1, 2, 17, 22])
    empty = np.zeros(0, np.float32)
    expected = onnx_run(
        "Resize", x, empty, empty, sizes, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    np.testing.assert_allclose(evaluate(found, {"x": x})["y"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "reference"), [(1, lambda y: np.maximum(y, 0)), (2, lambda y: np.clip(y, 0, 6))]
)
def test_absorbed_activations(activation, reference):
    x, weight = 4 * random(1, 3, 5, 5), random(4, 3, 1, 1, seed=1)
    line = "Convolution c 1 1 x y 1 3 4 1 1 1 1 0 0 0 -1 1 1 "
    plain = evaluate(one_layer(line + "0", x.shape, weight=weight), {"x": x})["y"]
    absorbed = evaluate(one_layer(line + str(activation), x.shape, weight=weight), {"x": x})["y"]
    np.testing.assert_array_equal(absorbed, reference(plain))
    assert not np.array_equal(absorbed, plain)


def test_silu_convolution1d_instance_norm_and_einsum_against_onnx_runtime():
    x, weight = random(1, 4, 9), random(6, 2, 3, seed=1)
    found = one_layer("Convolution1D c 1 1 x y 2 2 6 3 2 1 1 0 -1 1 256", x.shape, weight=weight)
    expected = onnx_run("Conv", x, weight, strides=[2], pads=[1, 1], group=2)
    np.testing.assert_allclose(evaluate(found, {"x": x})["y"], expected / (1 + np.exp(-expected)), atol=1e-6)

    image, scale, bias = random(1, 3, 4, 5), random(3, seed=1), random(3, seed=2)
    found = one_layer("InstBatchNormCxx n 1 1 x y 3 1e-05", image.shape, scale=scale, bias=bias)
    expected = onnx_run("InstanceNormalization", image, scale, bias, epsilon=1e-5)
    np.testing.assert_allclose(evaluate(found, {"x": image})["y"], expected, atol=1e-5)

    found = one_layer("Einsum e 2 1 x x y bij;bkj->bik", x.shape)
    np.testing.assert_allclose(evaluate(found, {"x": x})["y"], np.matmul(x, x.swapaxes(1, 2)), atol=1e-5)


@pytest.mark.parametrize("name", ["mha", "se_hsig_mul", "gemm", "bn_alone"])
def test_half_constants_are_the_rounded_float_ones(name):
    found = graph(name)

    def half(resource: Resource) -> Resource:
        held = {k: RawBuffer(v.values.astype(np.float16), 1) for k, v in resource.buffers.items()}
        return dataclasses.replace(resource, buffers=held)

    model = dataclasses.replace(found.model, resources=tuple(half(item) for item in found.model.resources))
    full, rounded = (evaluate(item, inputs(name)) for item in (found, join(found.proto, model, "half")))
    for output in found.proto.outputs:
        error = np.abs(rounded[output] - full[output]).max()
        assert 0 < error < 0.02 * np.abs(full[output]).max()


@pytest.mark.parametrize("name", ["conv_bn_relu6", "gemm", "dwconv_s2", "convtranspose2", "add_const_c"])
def test_a_version_1_model_without_dims_means_the_same(name):
    found = graph(name)

    def flat(resource: Resource) -> Resource:
        held = {role: RawBuffer(buffer.values.ravel()) for role, buffer in resource.buffers.items()}
        return dataclasses.replace(resource, buffers=held)

    model = dataclasses.replace(
        found.model, magic=MAGIC_V1, resources=tuple(map(flat, found.model.resources))
    )
    old = join(dataclasses.replace(found.proto, magic=MAGIC_V1), model, "v1")
    np.testing.assert_array_equal(evaluate(old, inputs(name))["y"], evaluate(found, inputs(name))["y"])


def test_bad_inputs_and_shapes_are_named():
    x = np.zeros((1, 4, 10, 8))
    with pytest.raises(ShapeError, match=r"inputs \['q'\]"):
        evaluate(graph("transpose_4d"), {"q": x})
    with pytest.raises(ShapeError, match="takes"):
        evaluate(graph("transpose_4d"), {"x": x})
    with pytest.raises(ShapeError, match="MatMul 'm'"):
        evaluate(
            one_layer("MatMul m 1 1 x y 1", (2, 3), constant=np.zeros((2, 3), np.float32)),
            {"x": np.zeros((2, 3))},
        )
    with pytest.raises(UnsupportedOperationError, match="transposed"):
        evaluate(
            one_layer("InnerProduct i 1 1 x y 3 0 1 1", (2, 3), weight=np.zeros((3, 3), np.float32)),
            {"x": np.ones((2, 3))},
        )
    with pytest.raises(MobileInstError, match="SplitV 's'"):
        evaluate(one_layer("SplitV s 1 2 x a y 1 3 1 1 1", (2, 3), "a x y"), {"x": np.ones((2, 3))})
