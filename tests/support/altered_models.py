"""Mistakes made in an exported model, each returning the name of the step it makes wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from refimpl.ops.operation import Array


def node(model: onnx.ModelProto, operation: str, place: str) -> onnx.NodeProto:
    """Return the one node of an operation in a block."""
    found = [n for n in model.graph.node if n.op_type == operation and n.name.startswith(f"{place}/")]
    assert len(found) == 1, [n.name for n in found]
    return found[0]


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(entry for entry in node.attribute if entry.name == name)


def change(model: onnx.ModelProto, name: str, function: Callable[[Array], Array]) -> None:
    """Replace the values of an initializer."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = np.asarray(function(numpy_helper.to_array(tensor)), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


# Wrong candidates, each with the place where the first fault must be found.

STEM = "backbone.tpm.stem.0"
RESIZE = "mask_decoder.top_down.1"


def changed_kernel(model: onnx.ModelProto) -> str:
    change(model, "mask_decoder.output.1.conv.weight", lambda x: 1.01 * x)
    return "mask_decoder.output.1"


def changed_bias(model: onnx.ModelProto) -> str:
    change(model, "instance_decoder.kernel_head.1.bias", lambda x: 1.01 * x)
    return "instance_decoder.kernel_head.1"


def one_changed_element(model: onnx.ModelProto) -> str:
    def largest(x: Array) -> Array:
        place = np.unravel_index(np.argmax(np.abs(x)), x.shape)
        changed = x.copy()
        changed[place] *= 1.01
        return changed

    change(model, "mask_decoder.output.0.conv.weight", largest)
    return "mask_decoder.output.0"


def align_corners(model: onnx.ModelProto) -> str:
    resizes = [n for n in model.graph.node if n.op_type == "Resize"]
    attribute(resizes[-2], "coordinate_transformation_mode").s = b"align_corners"
    return resizes[-2].name.partition("/")[0]


def asymmetric(model: onnx.ModelProto) -> str:
    resizes = [n for n in model.graph.node if n.op_type == "Resize"]
    attribute(resizes[-1], "coordinate_transformation_mode").s = b"asymmetric"
    return resizes[-1].name.partition("/")[0]


def hard_sigmoid_slope(model: onnx.ModelProto) -> str:
    found = next(n for n in model.graph.node if n.op_type == "HardSigmoid")
    attribute(found, "alpha").f = 0.2
    return found.name.partition("/")[0]


def batch_norm_epsilon(model: onnx.ModelProto) -> str:
    attribute(node(model, "BatchNormalization", STEM), "epsilon").f = 1e-3
    return STEM


def layer_norm_epsilon(model: onnx.ModelProto) -> str:
    found = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
    attribute(found, "epsilon").f = 1e-3
    return found.name.partition("/")[0]


def transposed_weight(model: onnx.ModelProto) -> str:
    change(model, "instance_decoder.kernel_head.0.weight", lambda x: np.ascontiguousarray(x.T))
    return "instance_decoder.kernel_head.0"


def dropped_relu(model: onnx.ModelProto) -> str:
    found = next(
        n for n in model.graph.node if n.op_type == "Relu" and n.name.startswith("instance_decoder.")
    )
    found.op_type = "Identity"
    return found.name.partition("/")[0]


def unbounded_relu6(model: onnx.ModelProto) -> str:
    """A bound that no value reaches is no fault; this one cuts values that are there."""
    found = next(n for n in model.graph.node if n.op_type == "Clip")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    found.input[2] = "half"
    return found.name.partition("/")[0]


def wrong_pads(model: onnx.ModelProto) -> str:
    """All of the padding below and to the right, as TensorFlow does for even sizes."""
    found = node(model, "Conv", f"{STEM}.c")
    pads = attribute(found, "pads")
    assert list(pads.ints) == [1, 1, 1, 1]
    pads.ints[:] = [0, 0, 2, 2]
    return STEM


def softmax_axis(model: onnx.ModelProto) -> str:
    found = next(n for n in model.graph.node if n.op_type == "Softmax")
    attribute(found, "axis").i = 1
    return found.name.partition("/")[0]


def swapped_channels(model: onnx.ModelProto) -> str:
    change(model, f"{STEM}.c.weight", lambda x: x[:, ::-1])
    return STEM


def not_a_number(model: onnx.ModelProto) -> str:
    change(model, "instance_decoder.kernel_head.1.bias", lambda x: np.full_like(x, np.nan))
    return "instance_decoder.kernel_head.1"


FAULTS = [changed_kernel, changed_bias, one_changed_element, align_corners, asymmetric, hard_sigmoid_slope]
FAULTS += [
    batch_norm_epsilon,
    layer_norm_epsilon,
    transposed_weight,
    dropped_relu,
    unbounded_relu6,
    wrong_pads,
]
FAULTS += [softmax_axis, swapped_channels, not_a_number]
