"""ONNX models that have nothing to do with the network: what any user of a runtime may bring."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from refimpl.ops.operation import Array


class GraphBuilder:
    """Makes a graph node by node, with seeded weights of one float dtype."""

    def __init__(self, dtype: Any = np.float32, seed: int = 0) -> None:
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, which is named after it."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"{name}_node", **attributes))
        return name

    def weight(self, array: Array | float) -> str:
        """Add an initializer; floats take the graph's dtype."""
        values = np.asarray(array)
        values = values.astype(self.dtype) if values.dtype.kind == "f" else values
        self.tensors.append(numpy_helper.from_array(values, f"w{len(self.tensors)}"))
        return self.tensors[-1].name

    def normal(self, *shape: int, spread: float = 1.0) -> str:
        """Add an initializer of normally distributed numbers."""
        return self.weight(self.rng.standard_normal(shape) * spread)

    def conv(self, x: str, out: int, channels: int, size: int, stride: int = 1, group: int = 1) -> str:
        """Convolution with bias, padded to keep the size."""
        fan_in = channels // group * size**2
        weight = self.normal(out, channels // group, size, size, spread=(2 / fan_in) ** 0.5)
        pad = size // 2
        return self.node(
            "Conv", x, weight, self.normal(out, spread=0.1), pads=[pad] * 4, strides=[stride] * 2, group=group
        )

    def norm(self, x: str, channels: int) -> str:
        """Batch normalisation."""
        shift, mean = (self.normal(channels, spread=0.2) for _ in range(2))
        scale, variance = (self.weight(self.rng.uniform(0.5, 1.5, channels)) for _ in range(2))
        return self.node("BatchNormalization", x, scale, shift, mean, variance)

    def model(self, inputs: dict[str, list[Any]], *outputs: str, opset: int = 17) -> onnx.ModelProto:
        """Return the model; inputs are of the graph's dtype."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        declared = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", declared, results, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def residual_network(dtype: Any = np.float32) -> onnx.ModelProto:
    """ResNet-like: stem, pooling, two residual blocks, one with a projection, Gemm, Softmax; dynamic axes."""
    build = GraphBuilder(dtype)
    x = build.node("Relu", build.norm(build.conv("x", 8, 3, 7, stride=2), 8))
    x = build.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for channels, out, stride in ((8, 8, 1), (8, 16, 2)):
        main = build.node("Relu", build.norm(build.conv(x, out, channels, 3, stride), out))
        main = build.norm(build.conv(main, out, out, 3), out)
        shortcut = x if stride == 1 else build.norm(build.conv(x, out, channels, 1, stride), out)
        x = build.node("Relu", build.node("Add", main, shortcut))
    x = build.node("Flatten", build.node("GlobalAveragePool", x))
    logits = build.node("Gemm", x, build.normal(10, 16, spread=0.3), build.normal(10), transB=1)
    return build.model({"x": ["batch", 3, "height", "width"]}, logits, build.node("Softmax", logits, axis=1))


def mobile_network(dtype: Any = np.float32) -> onnx.ModelProto:
    """MobileNetV3-like: inverted residuals, depthwise, hard swish, squeeze-and-excite; two inputs."""
    build = GraphBuilder(dtype, seed=1)
    x = build.node("HardSwish", build.conv("x", 8, 3, 3, stride=2))
    for stride in (1, 2):
        wide = build.node("Clip", build.conv(x, 24, 8, 1), build.weight(0.0), build.weight(6.0))
        wide = build.node("HardSwish", build.conv(wide, 24, 24, 3, stride, group=24))
        pooled = build.node("ReduceMean", wide, axes=[2, 3], keepdims=1)
        gate = build.node("Relu", build.conv(pooled, 6, 24, 1))
        gate = build.node("HardSigmoid", build.conv(gate, 24, 6, 1), alpha=1 / 6, beta=0.5)
        narrow = build.conv(build.node("Mul", wide, gate), 8, 24, 1)
        x = build.node("Add", x, narrow) if stride == 1 else narrow
    x = build.node("Add", x, "offset")
    x = build.node("Sigmoid", build.node("LeakyRelu", x, alpha=0.1))
    return build.model({"x": [1, 3, 32, 32], "offset": [8, 1, 1]}, x)


def leaky_network(layers: int) -> onnx.ModelProto:
    """Return convolutions, each with a leaky ReLU after it."""
    build = GraphBuilder()
    x = "x"
    for place in range(layers):
        x = build.node("LeakyRelu", build.conv(x, 8, 8 if place else 3, 3), alpha=0.2)
    return build.model({"x": [1, 3, 16, 16]}, x)


def quantised_network() -> onnx.ModelProto:
    """Two int8 convolutions in QDQ form, one per channel, and a float head."""
    build = GraphBuilder(seed=2)
    x = "x"
    for channels, out, axis in ((3, 8, 0), (8, 8, None)):
        scales = build.rng.uniform(0.002, 0.004, out if axis == 0 else ())
        weight = build.weight(build.rng.integers(-127, 128, (out, channels, 3, 3)).astype(np.int8))
        point = build.weight(np.zeros_like(scales, np.int8))
        options = {} if axis is None else {"axis": axis}
        weight = build.node("DequantizeLinear", weight, build.weight(scales), point, **options)
        scale, zero = build.weight(0.03), build.weight(np.uint8(128))
        x = build.node("DequantizeLinear", build.node("QuantizeLinear", x, scale, zero), scale, zero)
        x = build.node("Relu", build.node("Conv", x, weight, build.normal(out, spread=0.1), pads=[1] * 4))
    return build.model({"x": [1, 3, 16, 16]}, build.node("GlobalAveragePool", x))


def with_type(kind: int, op_type: str, **attributes: Any) -> onnx.ModelProto:
    """Return a graph of one node with an input of another type, of 2×3."""
    node = helper.make_node(op_type, ["x"], ["y"], name="node", **attributes)
    given = helper.make_tensor_value_info("x", kind, [2, 3])
    graph = helper.make_graph([node], "graph", [given], [onnx.ValueInfoProto(name="y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FLOAT, INT8, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64, TensorProto.BOOL


def transformer(width: int = 32, heads: int = 4) -> onnx.ModelProto:
    """Two layers of attention and a perceptron with GELU, written out as exporters do."""
    build = GraphBuilder()
    x = "x"
    for _ in range(2):
        x = _normalised(build, build.node("Add", _attention(build, x, width, heads), x), width)
        hidden = _gelu(build, _affine(build, x, width, 4 * width))
        x = _normalised(build, build.node("Add", _affine(build, hidden, 4 * width, width), x), width)
    return build.model({"x": [2, 7, width]}, x)


def _normalised(build: GraphBuilder, x: str, width: int) -> str:
    scale, shift = build.weight(build.rng.uniform(0.5, 1.5, width)), build.normal(width, spread=0.1)
    return build.node("LayerNormalization", x, scale, shift, axis=-1)


def _affine(build: GraphBuilder, x: str, width: int, out: int) -> str:
    product = build.node("MatMul", x, build.normal(width, out, spread=width**-0.5))
    return build.node("Add", product, build.normal(out, spread=0.1))


def _attention(build: GraphBuilder, x: str, width: int, heads: int) -> str:
    depth = width // heads
    shape = build.weight(np.array([0, 0, heads, depth]))
    parts = [build.node("Reshape", _affine(build, x, width, width), shape) for _ in range(3)]
    query, value = (build.node("Transpose", parts[place], perm=[0, 2, 1, 3]) for place in (0, 2))
    key = build.node("Transpose", parts[1], perm=[0, 2, 3, 1])
    logits = build.node("Div", build.node("MatMul", query, key), build.weight(np.float32(depth**0.5)))
    mixed = build.node("MatMul", build.node("Softmax", logits, axis=-1), value)
    joined = build.node("Transpose", mixed, perm=[0, 2, 1, 3])
    return _affine(build, build.node("Reshape", joined, build.weight(np.array([0, 0, width]))), width, width)


def _gelu(build: GraphBuilder, x: str) -> str:
    root, one, half = (build.weight(np.float32(number)) for number in (2**0.5, 1, 0.5))
    gate = build.node("Add", build.node("Erf", build.node("Div", x, root)), one)
    return build.node("Mul", build.node("Mul", x, gate), half)
