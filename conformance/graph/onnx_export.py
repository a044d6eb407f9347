"""ONNX export from a recording: the operations that ran, written down as nodes. No PyTorch is needed."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from conformance.files import atomic_write
from conformance.graph.large_models import SMALL
from refimpl import Network, Recording, Step, __version__, record
from refimpl.blank import BLANK
from refimpl.errors import ConfigurationError
from refimpl.maskrcnn import LEVELS, RegionOutputs, region_heads
from refimpl.model import KernelReuse
from refimpl.ops.operation import Array
from refimpl.recording import record_call
from refimpl.scope import Scope

OPSET = 17
IR_VERSION = 8
REDUCE_MEAN_AXES_INPUT = 18
"""Operator set since which ReduceMean takes its axes as an input; before, they are an attribute."""


def export(model: Network, images: Array) -> onnx.ModelProto:
    """Return a forward pass of ``model`` on ``images`` as a checked ONNX model of static shapes.

    Parameters
    ----------
    model
        The network; its weights' dtype becomes the model's.
    images
        An input (B, 3, H, W) of the shape wanted; the values do not matter.
    """
    return to_onnx(record(model, images, operations=BLANK), name="mobileinst")


def export_reuse(model: Network, images: Array) -> onnx.ModelProto:
    """Return the graph of the frames between keyframes: `KernelReuse`, the kernels (B, N, dim) an input."""
    shape = (len(images), model.config.num_queries, model.config.dim)
    reuse = KernelReuse(model, np.zeros(shape, images.dtype))
    return to_onnx(record(reuse, images, operations=BLANK), name="mobileinst_reuse", free=("kernels",))


def export_regions(model: Network, images: Array, count: int) -> onnx.ModelProto:
    """Return Mask R-CNN's second stage, `refimpl.maskrcnn.region_heads`: levels and regions are its inputs.

    Parameters
    ----------
    model
        Whose heads.
    images
        An input (1, 3, H, W) of the first stage, of the shape wanted.
    count
        How many regions.

    Raises
    ------
    ConfigurationError
        The network has no second stage.
    """
    if model.config.architecture != "maskrcnn":
        raise ConfigurationError(
            f"{model.config.architecture} has no second stage; --regions is for Mask R-CNN"
        )
    inputs = {
        f"level{number}": np.zeros(
            (1, model.config.dim, *(-(-side // 2**number) for side in images.shape[2:])), images.dtype
        )
        for number in LEVELS
    }
    inputs["regions"] = np.ones((count, 4), images.dtype)
    weights = {name: array for name, array in model.weights.items() if name.startswith("roi_heads.")}

    def heads(given: dict[str, Array]) -> RegionOutputs:
        *levels, regions = given.values()
        return region_heads(levels, regions, Scope(weights), model.config)

    return to_onnx(record_call(heads, inputs, weights), name="maskrcnn_regions")


def to_onnx(
    recording: Recording, name: str, opset: int = OPSET, free: Collection[str] = ()
) -> onnx.ModelProto:
    """Return a recording as an ONNX model, checked with full shape inference.

    Weights and literals are initializers under their own names, but for the weights named in ``free``, which
    are inputs; every tensor bears its name in the recording, the outputs the names of their fields.
    """
    renamed = {tensor: output for output, tensor in recording.outputs.items()}
    nodes = [_node(step, renamed, recording, opset) for step in recording.steps]
    held = {tensor for node in nodes for tensor in node.input}.difference(free)
    kept = [tensor for tensor in [*recording.weights, *recording.constants] if tensor in held]
    arrays = {tensor: recording.tensors[tensor] for tensor in kept}
    given = {**recording.inputs, **{tensor: tensor for tensor in recording.weights if tensor in free}}
    inputs = [_value(label, recording.tensors[tensor]) for label, tensor in given.items()]
    outputs = [_value(label, recording.tensors[tensor]) for label, tensor in recording.outputs.items()]
    return _checked(nodes, name, inputs, outputs, arrays, opset)


def _checked(
    nodes: list[onnx.NodeProto],
    name: str,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    arrays: dict[str, Array],
    opset: int,
) -> onnx.ModelProto:
    """Return the model, its shapes inferred; what is large is no more than declared until that is done.

    Every check and inference copies the whole message.
    """
    small = [numpy_helper.from_array(array, key) for key, array in arrays.items() if array.nbytes <= SMALL]
    large = [_value(key, array) for key, array in arrays.items() if array.nbytes > SMALL]
    model = helper.make_model(
        helper.make_graph(nodes, name, [*inputs, *large], outputs, small),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="mobileinst-reference",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    del model.graph.input[len(inputs) :]
    del model.graph.initializer[:]
    for key, array in arrays.items():
        dtype = _onnx_dtype(array.dtype)
        model.graph.initializer.add(name=key, data_type=dtype, dims=array.shape, raw_data=array.tobytes())
    return model


def save(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write an ONNX file, whole or not at all.

    Raises
    ------
    FileError
        The place cannot be written.
    """
    with atomic_write(path) as temporary:
        onnx.save(model, temporary)


def _node(step: Step, renamed: dict[str, str], recording: Recording, opset: int) -> onnx.NodeProto:
    inputs = [renamed.get(tensor, tensor) for tensor in step.inputs]
    while inputs and not inputs[-1]:
        inputs.pop()
    attributes = {key: value for key, value in step.attributes.items() if value is not None}
    if step.operation == "ReduceMean" and opset < REDUCE_MEAN_AXES_INPUT and len(inputs) > 1:
        attributes["axes"] = recording.tensors[inputs.pop()].tolist()
    outputs = [renamed.get(tensor, tensor) for tensor in step.outputs]
    return helper.make_node(step.operation, inputs, outputs, name=step.name, **attributes)


def _value(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _onnx_dtype(array.dtype), array.shape)


def _onnx_dtype(dtype: np.dtype[Any]) -> TensorProto.DataType:
    return helper.np_dtype_to_tensor_dtype(dtype)
