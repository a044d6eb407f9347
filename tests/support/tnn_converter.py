"""A converter of the few operators our exports for TNN hold, so that a whole network can stand as TNN files.

It follows the tables of the file format; what the files mean is judged by `conformance.tnn`, not here.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from conformance.tnn.graph import TnnGraph, join
from conformance.tnn.layers import LAYER_TYPES
from conformance.tnn.model import Model, RawBuffer, Resource
from conformance.tnn.proto import parse_proto

Array = NDArray[np.float32]


def converted(model: onnx.ModelProto) -> TnnGraph:
    """Return the model as TNN's converter would write it, without its fusions."""
    return _Converter(model).graph()


class _Converter:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        self.infos = (*model.graph.input, *model.graph.value_info, *model.graph.output)
        self.shapes = {x.name: [d.dim_value for d in x.type.tensor_type.shape.dim] for x in self.infos}
        self.resources: list[Resource] = []
        self.mapped: dict[str, RawBuffer] = {}

    def graph(self) -> TnnGraph:
        lines = [self.layer(node) for node in self.model.graph.node]
        inputs = [f"{x.name} 4 {' '.join(map(str, self.shapes[x.name]))} 0" for x in self.model.graph.input]
        names = {name for node in self.model.graph.node for name in (*node.input, *node.output)}
        blobs = sorted(name for name in names if name and (name not in self.constants or name in self.mapped))
        outputs = sorted(x.name for x in self.model.graph.output)
        head = [f"1 {len(blobs)} 1 4206624772", " : ".join(inputs), " ".join(blobs), " ".join(outputs)]
        text = "".join(f'"{line} ,"\n' for line in [*head, f" {len(lines)}", *lines])
        held = Model(tuple(self.resources), constants=self.mapped or None)
        return join(parse_proto(text.encode(), "proto"), held, "converted")

    def layer(self, node: onnx.NodeProto) -> str:
        kind, operands, words = getattr(self, node.op_type)(node, _attributes(node))
        given = " ".join([*operands, *node.output])
        return f"{kind} {node.name} {len(operands)} {len(node.output)} {given} {' '.join(map(str, words))}"

    def keep(self, kind: str, node: onnx.NodeProto, **buffers: Array) -> None:
        held = {role: RawBuffer(np.ascontiguousarray(values)) for role, values in buffers.items()}
        self.resources.append(Resource(kind, node.name, held, LAYER_TYPES[kind].type_id))

    def Conv(self, node, given):
        weight, (top, left, bottom, right) = self.constants[node.input[1]], given["pads"]
        assert (top, left) == (bottom, right)
        bias = {"bias": self.constants[node.input[2]]} if len(node.input) > 2 else {}
        self.keep("Convolution", node, weight=weight, **bias)
        out, per_group, *kernel = weight.shape
        words = [given["group"], per_group, out, *kernel, *given["strides"], top, left, len(bias), -1]
        return "Convolution", node.input[:1], [*words, *given["dilations"], 0]

    def _binary(self, node, kind):
        places = [place for place, name in enumerate(node.input) if name in self.constants]
        if not places:
            return kind, node.input, [-1]
        self.keep(kind, node, constant=self.constants[node.input[places[0]]])
        return kind, [name for name in node.input if name not in self.constants], places

    def Add(self, node, given):
        return self._binary(node, "Add")

    def Mul(self, node, given):
        return self._binary(node, "Mul")

    def MatMul(self, node, given):
        return self._binary(node, "MatMul")

    def Relu(self, node, given):
        return "ReLU", node.input, []

    def Clip(self, node, given):
        low, high = (float(self.constants[name]) for name in node.input[1:])
        return "Clip", node.input[:1], [f"{low:g}", f"{high:g}"]

    def HardSigmoid(self, node, given):
        return "HardSigmoid", node.input, [f"{given['alpha']:g}", f"{given['beta']:g}"]

    def Softmax(self, node, given):
        return "SoftmaxCaffe", node.input, [given["axis"] % len(self.shapes[node.input[0]])]

    def Concat(self, node, given):
        return "Concat", node.input, [given["axis"]]

    def Transpose(self, node, given):
        return "Permute", node.input, [len(given["perm"]), *given["perm"]]

    def Reshape(self, node, given):
        dims = self.constants[node.input[1]].tolist()
        return "Reshape", node.input[:1], [0, len(dims), len(dims), *dims, 0]

    def LayerNormalization(self, node, given):
        for name in node.input[1:]:
            self.mapped[name] = RawBuffer(self.constants[name])
        return "LayerNorm", node.input, [1, f"{given['epsilon']:g}"]

    def Resize(self, node, given):
        assert (given["mode"], given["coordinate_transformation_mode"]) == (b"linear", b"half_pixel")
        return "Upsample", node.input[:1], [2, 0, 0, 0, *self.constants[node.input[3]].tolist()[2:]]

    def _pool(self, node, given, kind):
        top, left, bottom, right = given["pads"]
        assert (top, left) == (bottom, right)
        kernel = [*given["kernel_shape"], *given["strides"], top, left]
        return "Pooling", node.input, [kind, *kernel, -1, -1, -1, given["ceil_mode"], 0, 0, 0]

    def MaxPool(self, node, given):
        return self._pool(node, given, 0)

    def AveragePool(self, node, given):
        return self._pool(node, given, 1)


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
