"""Faults of the weights: their format, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.bounds import BFLOAT16, FLOAT16
from conformance.faults.catalogue import Site, Variant, fault
from refimpl.ops.operation import Array

_PRODUCTS = ("Conv", "MatMul", "Gemm")
_QUANTIZATION = (
    "Krishnamoorthi, Quantizing deep convolutional networks (2018), §3, https://arxiv.org/abs/1806.08342"
)


def _weight(site: Site) -> Array | None:
    weight = site.constant(1)
    return weight.astype(np.float64) if weight is not None and weight.ndim >= 2 and weight.any() else None


@fault(
    "weights/float16",
    *_PRODUCTS,
    source="TNN, -half: weights stored as float16, "
    "https://github.com/Tencent/TNN/blob/master/doc/en/user/convert_en.md",
)
def half(site: Site) -> Iterator[Variant]:
    """Weights rounded to float16."""
    weight = _weight(site)
    if weight is not None:
        yield site.fed("rounded", {1: FLOAT16.rounded(weight)})


@fault(
    "weights/bfloat16",
    *_PRODUCTS,
    source="TNN, precision LOW: bfloat16 on ARM, "
    "https://github.com/Tencent/TNN/blob/master/include/tnn/core/common.h",
)
def brain_half(site: Site) -> Iterator[Variant]:
    """Weights rounded, or truncated, to bfloat16."""
    weight = _weight(site)
    if weight is not None:
        yield site.fed("rounded", {1: BFLOAT16.rounded(weight)})
        bits = weight.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        yield site.fed("truncated", {1: bits.view(np.float32).astype(np.float64)})


@fault("weights/int8 per tensor", *_PRODUCTS, source=_QUANTIZATION)
def int8_per_tensor(site: Site) -> Iterator[Variant]:
    """Weights rounded to 8 bits with one scale."""
    weight = _weight(site)
    if weight is not None:
        yield site.fed("symmetric", {1: _levels(weight, np.abs(weight).max() / 127)})


@fault("weights/int8 per channel", *_PRODUCTS, source=_QUANTIZATION)
def int8_per_channel(site: Site) -> Iterator[Variant]:
    """Weights rounded to 8 bits with a scale for each output channel."""
    weight = _weight(site)
    if weight is not None:
        axes = tuple(range(1, weight.ndim)) if site.call.op_type == "Conv" else (0,)
        largest = np.abs(weight).max(axis=axes, keepdims=True)
        yield site.fed("symmetric", {1: _levels(weight, np.where(largest > 0, largest, 1) / 127)})


@fault(
    "weights/int8 scale of another channel",
    *_PRODUCTS,
    source="Core AI: a negative axis off by one picks another channel's scale, "
    "https://github.com/apple/coreai-torch/pull/24",
)
def int8_wrong_scale(site: Site) -> Iterator[Variant]:
    """8-bit weights multiplied with the neighbouring channel's scale."""
    weight = _weight(site)
    if weight is not None and site.call.op_type == "Conv" and len(weight) > 1:
        largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
        scale = np.where(largest > 0, largest, 1) / 127
        yield site.fed("by one", {1: np.round(weight / scale) * np.roll(scale, 1, axis=0)})


@fault(
    "weights/zero point off by one",
    *_PRODUCTS,
    source="ONNX Runtime: zero point 127 instead of 128, "
    "https://github.com/microsoft/onnxruntime/issues/25823",
)
def zero_point(site: Site) -> Iterator[Variant]:
    """8-bit weights shifted by one level."""
    weight = _weight(site)
    if weight is not None:
        low, high = min(weight.min(), 0.0), max(weight.max(), 0.0)
        scale = (high - low) / 255
        yield site.fed("one level", {1: _levels(weight, scale) + scale})


def _levels(weight: Array, scale: Array | float) -> Array:
    return np.clip(np.round(weight / scale), -255, 255) * scale


@fault(
    "weights/of another layer",
    *_PRODUCTS,
    source="Keras: weights loaded by order, not by name, https://github.com/keras-team/keras/issues/10777",
)
def stale(site: Site) -> Iterator[Variant]:
    """Weights of another layer with the same shape."""
    weight = _weight(site)
    if weight is None:
        return
    turned = site.call.op_type == "MatMul"
    for name in site.graph.weights:
        other = site.graph.constants[name]
        other = other.T if turned and other.ndim == 2 else other
        if other.shape == weight.shape and not np.array_equal(other, weight):
            yield site.fed(name, {1: np.ascontiguousarray(other)})


@fault(
    "weights/norm of another layer",
    "BatchNormalization",
    "LayerNormalization",
    source="tfjs-converter: another order of weights than assumed, seen with batch norms, "
    "https://github.com/tensorflow/tfjs-converter/pull/178",
)
def stale_norm(site: Site) -> Iterator[Variant]:
    """γ of another norm with as many channels."""
    scale = site.constant(1)
    if scale is None:
        return
    for call in site.graph.nodes:
        other = site.graph.constants.get(call.inputs[1]) if call.op_type == site.call.op_type else None
        if other is not None and other.shape == scale.shape and not np.array_equal(other, scale):
            yield site.fed(call.inputs[1], {1: other})


@fault(
    "weights/channels reordered",
    "Conv",
    source="Pool & Yu, Channel Permutations for N:M Sparsity (2021): neighbours follow, "
    "https://openreview.net/forum?id=WAO1STUPWPP",
)
def channels_reordered(site: Site) -> Iterator[Variant]:
    """Input channels of the weights are in reversed order."""
    weight = _weight(site)
    if weight is not None and weight.ndim == 4 and weight.shape[1] > 3:
        yield site.fed("reversed", {1: np.ascontiguousarray(weight[:, ::-1])})
