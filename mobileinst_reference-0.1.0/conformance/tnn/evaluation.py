"""A TNN graph evaluated on the operations of `refimpl`, in any float dtype: what the converted files *mean*.

TNN's own rules where they differ from ONNX's: resizing always follows the ratio of the sizes (half-pixel
centres for bilinear, ⌊i · in / out⌋ for nearest), average pooling never counts padding, SAME and VALID
override the pads, and scalars of the proto are float32 numbers of 6 digits. Source: TNN's layer sources;
checked against outputs of the real runtime.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from conformance.graph.evaluation import as_tuple, run
from conformance.tnn import layers
from conformance.tnn.graph import TnnGraph
from conformance.tnn.model import RawBuffer
from conformance.tnn.proto import Layer
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError
from refimpl.ops.operation import OPERATIONS, active_interceptor

Array = NDArray[Any]
Constants = Mapping[str, Array]
Operands = tuple[Array, ...]


def evaluate(graph: TnnGraph, inputs: Mapping[str, Array], dtype: DTypeLike = np.float64) -> dict[str, Array]:
    """Compute every blob of ``graph``.

    Parameters
    ----------
    graph
        The graph.
    inputs
        One array per input, of the declared shape.
    dtype
        The arithmetic: float64 for the truth, float32 for a candidate.

    Returns
    -------
    dict
        Blob name → array; inputs and the constant map included.

    Raises
    ------
    ShapeError
        An input is missing, unknown or of another shape; or shapes inside the graph do not fit, naming the
        layer.
    UnsupportedOperationError
        A form of a layer that is not evaluated.
    """
    return evaluate_layers(graph, checked_inputs(graph, inputs, dtype), dtype)


def evaluate_layers(graph: TnnGraph, blobs: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Compute every blob from the inputs, which may be recorded tensors."""
    constants = {name: _numbers(buffer, dtype) for name, buffer in graph.constants.items()}
    return run(graph.proto.layers, {**blobs, **constants}, partial(evaluate_layer, graph))


def evaluate_layer(graph: TnnGraph, layer: Layer, operands: Operands) -> Operands:
    """Compute the outputs of one layer from its operands, in their dtype (errors: those of `evaluate`)."""
    if layer.type == "Gather" and not operands:
        raise UnsupportedOperationError(
            f"Gather {layer.name!r} has constant data and indices; fold it in the source"
        )
    try:
        result = _EVALUATORS[layer.type](layer, operands, _constants(graph, layer, operands))
    except UnsupportedOperationError:
        raise
    except (MobileInstError, ValueError, IndexError) as error:
        shapes = [operand.shape for operand in operands]
        raise ShapeError(
            f"{layer.type} {layer.name!r} cannot take operands of shapes {shapes}: {error}"
        ) from error
    outputs = as_tuple(result)
    if len(outputs) != len(layer.outputs):
        raise FileError(
            f"{layer.type} {layer.name!r} makes {len(outputs)} blobs, the proto lists {len(layer.outputs)}"
        )
    return outputs


def magnitude(graph: TnnGraph, layer: Layer, operands: Operands, results: Operands) -> Array:
    """Return how large the numbers are that a layer adds up, per output element: the scale of its rounding.

    For linear layers, the layer on absolute operands and constants (abs(W) ∗ abs(x) + abs(b)); for others the
    largest number among operands and results.
    """
    if layer.type not in _LINEAR:
        largest = max(float(np.abs(array).max(initial=0)) for array in (*operands, *results))
        return np.full((), largest)
    plain = layer
    if isinstance(layer.parameters, layers.Convolution | layers.Convolution1D):
        without = dataclasses.replace(layer.parameters, activation=layers.NO_ACTIVATION)
        plain = dataclasses.replace(layer, parameters=without)
    evaluator = _EVALUATORS["Add" if layer.type == "Sub" else layer.type]
    absolute = {role: np.abs(values) for role, values in _constants(graph, layer, operands).items()}
    return cast(Array, evaluator(plain, tuple(np.abs(operand) for operand in operands), absolute))


def _constants(graph: TnnGraph, layer: Layer, operands: Operands) -> dict[str, Array]:
    resource = graph.resources.get(layer.name)
    dtype = operands[0].dtype
    return {} if resource is None else {role: _numbers(v, dtype) for role, v in resource.buffers.items()}


def checked_inputs(graph: TnnGraph, inputs: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Return the inputs in the arithmetic's dtype; raise `ShapeError` unless they are those of the graph."""
    declared = {declaration.name: declaration.dims for declaration in graph.proto.inputs}
    if set(inputs) != set(declared):
        raise ShapeError(f"inputs {sorted(inputs)}, the graph takes {sorted(declared)}")
    for name, dims in declared.items():
        if np.shape(inputs[name]) != dims:
            raise ShapeError(f"input {name!r} has shape {np.shape(inputs[name])}, the graph takes {dims}")
    return {name: np.asarray(inputs[name]).astype(dtype) for name in declared}


def _numbers(buffer: RawBuffer, dtype: DTypeLike) -> Array:
    """Return a constant in the arithmetic's dtype; integers (indices) stay integers."""
    numbers = buffer.numbers()
    return numbers.astype(dtype) if np.issubdtype(numbers.dtype, np.floating) else numbers


def _scalar(value: float) -> float:
    """Return the float32 number TNN parses from the text."""
    return float(np.float32(value))


def _call(name: str, *operands: Any, **attributes: Any) -> Any:
    """Compute one operation; like the network's, the calls can be intercepted."""
    interceptor = active_interceptor()
    if interceptor is None:
        return OPERATIONS[name](*operands, **attributes)
    return interceptor.call(name, operands, attributes)


def same_pads(size: tuple[int, ...], extent: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the pads of TNN's pad type SAME: output ⌈size / stride⌉, the odd element at the end."""
    total = [
        max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(size, extent, strides, strict=True)
    ]
    return (*(amount // 2 for amount in total), *(amount - amount // 2 for amount in total))


def _pads(
    pad_type: int, pads: tuple[int, ...], x: Array, extent: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...]:
    if pad_type == layers.SAME_PADS:
        return same_pads(x.shape[2:], extent, strides)
    return pads + pads if pad_type == layers.EXPLICIT_PADS else (0,) * (2 * len(pads))


def _activated(x: Array, activation: int | None) -> Array:
    if activation == layers.RELU:
        return cast(Array, _call("Relu", x))
    if activation == layers.RELU6:
        return cast(Array, _call("Clip", x, 0.0, 6.0))
    if activation == layers.SILU:
        return cast(Array, _call("Mul", x, _call("Sigmoid", x)))
    return x


def _geometry(given: layers.Convolution | layers.Convolution1D) -> dict[str, tuple[int, ...]]:
    if isinstance(given, layers.Convolution1D):
        return {
            "kernel": (given.kernel,),
            "strides": (given.stride,),
            "pads": (given.pad,),
            "dilations": (given.dilation,),
        }
    return {
        "kernel": (given.kernel_h, given.kernel_w),
        "strides": (given.stride_h, given.stride_w),
        "pads": (given.pad_h, given.pad_w),
        "dilations": (given.dilation_h, given.dilation_w),
    }


def _convolution(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast("layers.Convolution | layers.Convolution1D", layer.parameters)
    geometry, (x,) = _geometry(given), operands
    kernel, strides, dilations = geometry["kernel"], geometry["strides"], geometry["dilations"]
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    pads = _pads(given.pad_type, geometry["pads"], x, extent, strides)
    weight = constants["weight"].reshape(given.output_channels, given.channels_per_group, *kernel)
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": given.group}
    return _activated(_call("Conv", x, weight, constants.get("bias"), **attributes), given.activation)


def _deconvolution(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(layers.Convolution, layer.parameters)
    if given.pad_type != layers.EXPLICIT_PADS:
        raise UnsupportedOperationError(
            f"Deconvolution {layer.name!r} with pad type {given.pad_type}; give explicit pads"
        )
    geometry, (x,) = _geometry(given), operands
    weight = constants["weight"].reshape(x.shape[1], -1, *geometry["kernel"])
    pads = geometry["pads"] * 2
    attributes = {"strides": geometry["strides"], "dilations": geometry["dilations"], "group": given.group}
    result = _call("ConvTranspose", x, weight, constants.get("bias"), pads=pads, **attributes)
    return _activated(result, given.activation)


def _pooling(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(layers.Pooling, layer.parameters), operands
    if given.adaptive:
        return _adaptive_pooling(layer, given, x)
    average = given.type == layers.AVERAGE_POOLING
    if given.is_global:
        return cast(Array, _call("GlobalAveragePool" if average else "GlobalMaxPool", x))
    kernel, strides = (given.kernel_h, given.kernel_w), (given.stride_h, given.stride_w)
    pads = _pads(given.pad_type, (given.pad_h, given.pad_w), x, kernel, strides)
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": given.ceil}
    return cast(Array, _call("AveragePool" if average else "MaxPool", x, **attributes))


def _adaptive_pooling(layer: Layer, given: layers.Pooling, x: Array) -> Array:
    size = (given.output_h or 0, given.output_w or 0)
    if given.type != layers.AVERAGE_POOLING or min(size) < 1:
        raise UnsupportedOperationError(
            f"Pooling {layer.name!r}: only adaptive average pooling to a given size is read"
        )
    from refimpl.ops.pooling import adaptive_average_pool

    return adaptive_average_pool(x, size)


def upsampled_size(given: layers.Upsample, x: Array) -> tuple[int, int]:
    """Return height and width of an Upsample's output."""
    if given.output_h is not None and given.output_w is not None:
        return given.output_h, given.output_w
    # TNN rounds where ONNX floors, and the product is a float32 one.
    scales = np.asarray([given.scale_h, given.scale_w], np.float32)
    height, width = (
        np.floor(np.asarray(x.shape[2:], np.float32) * scales + np.float32(0.5)).astype(int).tolist()
    )
    return height, width


def _upsample(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(layers.Upsample, layer.parameters), operands
    sizes = (*x.shape[:2], *upsampled_size(given, x))
    if given.mode == layers.NEAREST:
        rule = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        coordinates = "align_corners" if given.align_corners else "half_pixel"
        rule = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    return cast(Array, _call("Resize", x, None, None, sizes, **rule))


def _inner_product(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, (x,) = cast(layers.InnerProduct, layer.parameters), operands
    if given.transpose:
        raise UnsupportedOperationError(
            f"InnerProduct {layer.name!r} has a transposed weight; use MatMul in the source"
        )
    axis = given.axis % x.ndim
    rows = _call("Reshape", x, (math.prod(x.shape[:axis]), -1))
    weight = constants["weight"].reshape(given.outputs, -1)
    product = _call("Gemm", rows, weight, constants["bias"] if given.bias else None, transB=1)
    shape = (*x.shape[:axis], given.outputs, *(1,) * (x.ndim - axis - 1))
    return cast(Array, _call("Reshape", product, shape))


def _with_constant(layer: Layer, operands: Operands, constants: Constants) -> Operands:
    """Put the layer's own constant where the parameters say."""
    given = cast(layers.Binary, layer.parameters)
    if given.has_constant and len(operands) == 1:
        operand = _aligned_constant(constants["constant"], operands[0], layer)
        return (operand, operands[0]) if given.constant_operand == 0 else (operands[0], operand)
    if given.has_constant or len(operands) != 2:
        raise FileError(
            f"{layer.type} {layer.name!r} has {len(operands)} inputs and its constant operand is "
            f"{given.constant_operand}"
        )
    return operands


def _aligned_constant(constant: Array, x: Array, layer: Layer) -> Array:
    """Give a constant of a version-1 file, which has no dims, the shape TNN infers."""
    if constant.ndim != 1 or layer.type == "MatMul" or x.ndim < 2 or constant.size == 1:
        return constant
    for shape in ((x.shape[1], *(1,) * (x.ndim - 2)), x.shape[1:], x.shape[2:]):
        if constant.size == math.prod(shape):
            return constant.reshape(shape)
    return constant


def _binary(operation: str) -> Callable[[Layer, Operands, Constants], Array]:
    def evaluate_binary(layer: Layer, operands: Operands, constants: Constants) -> Array:
        return cast(Array, _call(operation, *_with_constant(layer, operands, constants)))

    return evaluate_binary


def _unary(operation: str, *arguments: float) -> Callable[[Layer, Operands, Constants], Array]:
    return lambda layer, operands, constants: cast(Array, _call(operation, operands[0], *arguments))


def _concat(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return cast(Array, _call("Concat", *operands, axis=cast(layers.Axis, layer.parameters).axis))


def _softmax(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return cast(Array, _call("Softmax", operands[0], axis=cast(layers.Axis, layer.parameters).axis))


def _split(layer: Layer, operands: Operands, constants: Constants) -> Operands:
    given = cast(layers.SplitV, layer.parameters)
    return tuple(_call("Split", operands[0], np.asarray(given.sizes), axis=given.axis))


def _reduce_mean(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(layers.Reduce, layer.parameters)
    return cast(Array, _call("ReduceMean", operands[0], given.axes, keepdims=given.keepdims))


def _permute(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return cast(Array, _call("Transpose", operands[0], perm=cast(layers.Permute, layer.parameters).order))


def _axes(operation: str) -> Callable[[Layer, Operands, Constants], Array]:
    return lambda layer, operands, constants: cast(
        Array, _call(operation, operands[0], cast(layers.Axes, layer.parameters).axes)
    )


def _gather(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given, left = cast(layers.Gather, layer.parameters), list(operands)
    data = constants["data"] if given.data_constant else left.pop(0)
    indices = constants["indices"] if given.indices_constant else left.pop(0)
    # Indices are numbers like others in TNN; the view is of the plain array also while recording.
    whole = indices.view(np.ndarray).astype(np.int64)
    return cast(Array, _call("Gather", data, whole, axis=given.axis))


def _reshape(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(layers.Reshape, layer.parameters)
    if given.type or given.axis:
        raise UnsupportedOperationError(
            f"Reshape {layer.name!r} of type {given.type} from axis {given.axis}: only ONNX's row-major one, "
            "type 0 from axis 0, is evaluated"
        )
    return cast(Array, _call("Reshape", operands[0], given.dims))


def _slice(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(layers.StridedSliceV2, layer.parameters)
    return cast(Array, _call("Slice", operands[0], given.begins, given.ends, given.axes, given.strides))


def _hard_sigmoid(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(layers.HardSigmoid, layer.parameters)
    return cast(
        Array, _call("HardSigmoid", operands[-1], alpha=_scalar(given.alpha), beta=_scalar(given.beta))
    )


def _hard_swish(layer: Layer, operands: Operands, constants: Constants) -> Array:
    return cast(Array, _call("Mul", operands[0], _hard_sigmoid(layer, operands, constants)))


def _clip(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(layers.Clip, layer.parameters)
    low, high = (np.asarray(_scalar(v), operands[0].dtype) for v in (given.minimum, given.maximum))
    return cast(Array, _call("Min", _call("Max", operands[0], low), high))


def _batch_norm(layer: Layer, operands: Operands, constants: Constants) -> Array:
    (x,) = operands
    scale, bias = (constants[role].reshape(-1, *(1,) * (x.ndim - 2)) for role in ("scale", "bias"))
    return cast(Array, _call("Add", _call("Mul", x, scale), bias))


def _layer_norm(layer: Layer, operands: Operands, constants: Constants) -> Array:
    given = cast(layers.LayerNorm, layer.parameters)
    x, scale, bias = operands
    attributes = {"axis": -given.reduced_dims, "epsilon": _scalar(given.epsilon)}
    normalised = _call("LayerNormalization", x, np.ones(scale.shape, scale.dtype), None, **attributes)
    return cast(Array, _call("Add", _call("Mul", normalised, scale), bias))


def _instance_norm(layer: Layer, operands: Operands, constants: Constants) -> Array:
    epsilon = _scalar(cast(layers.InstanceNorm, layer.parameters).epsilon)
    (x,) = operands
    rows = _call("Reshape", x, (*x.shape[:2], -1))
    normalised = _call(
        "LayerNormalization", rows, np.ones(rows.shape[2:], rows.dtype), None, axis=2, epsilon=epsilon
    )
    scale, bias = (constants[role].reshape(-1, *(1,) * (x.ndim - 2)) for role in ("scale", "bias"))
    return cast(Array, _call("Add", _call("Mul", _call("Reshape", normalised, x.shape), scale), bias))


def _einsum(layer: Layer, operands: Operands, constants: Constants) -> Array:
    equation = cast(layers.Einsum, layer.parameters).equation.replace(";", ",")
    return cast(Array, _call("Einsum", *operands, equation=equation))


_LINEAR = (
    "Convolution",
    "Convolution1D",
    "Deconvolution",
    "InnerProduct",
    "MatMul",
    "Add",
    "Sub",
    "BatchNormCxx",
    "Einsum",
)

_EVALUATORS: dict[str, Callable[[Layer, Operands, Constants], Array | Operands]] = {
    "Convolution": _convolution,
    "Convolution1D": _convolution,
    "Deconvolution": _deconvolution,
    "Pooling": _pooling,
    "Upsample": _upsample,
    "InnerProduct": _inner_product,
    "MatMul": _binary("MatMul"),
    "Add": _binary("Add"),
    "Sub": _binary("Sub"),
    "Mul": _binary("Mul"),
    "Div": _binary("Div"),
    "SoftmaxCaffe": _softmax,
    "Concat": _concat,
    "SplitV": _split,
    "ReduceMean": _reduce_mean,
    "Permute": _permute,
    "Squeeze": _axes("Squeeze"),
    "Unsqueeze": _axes("Unsqueeze"),
    "Gather": _gather,
    "Reshape": _reshape,
    "StridedSliceV2": _slice,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Clip": _clip,
    "ReLU": _unary("Relu"),
    "ReLU6": _unary("Clip", 0.0, 6.0),
    "Sigmoid": _unary("Sigmoid"),
    "GELU": _unary("Gelu"),
    "BatchNormCxx": _batch_norm,
    "LayerNorm": _layer_norm,
    "InstBatchNormCxx": _instance_norm,
    "Einsum": _einsum,
}
