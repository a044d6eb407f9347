"""Faults of the weights: their format, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.bounds import BFLOAT16, FLOAT16
from conformance.faults.catalogue import Site, Variant, fault
from refimpl.ops.operation import Array

_PRODUCTS = ("Conv", "MatMul", "Gemm")
_QUANTIZATION = "Krishnamoorthi, Quantizing deep convolutional networks (2018), §3"


def _weight(site: Site) -> Array | None:
    weight = site.constant(1)
    return weight.astype(np.float64) if weight is not None and weight.ndim >= 2 and weight.any() else None


@fault(
    "weights/float16",
    *_PRODUCTS,
    source="TNN: half models (data_type 1) store weights as float16; onnxconverter-common float16",
)
def half(site: Site) -> Iterator[Variant]:
    """Weights rounded to float16."""
    weight = _weight(site)
    if weight is not None:
        yield site.fed("rounded", {1: FLOAT16.rounded(weight)})


@fault(
    "weights/bfloat16",
    *_PRODUCTS,
    source="TNN: precision LOW is bfloat16; Intel, BFLOAT16 hardware numerics definition (2018)",
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
    source=f"{_QUANTIZATION}; ONNX DequantizeLinear: axis",
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
    source="ONNX QuantizeLinear: zero point; int8 against uint8 (128) conventions",
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
    source="checkpoints matched by shape or by order; PyTorch, load_state_dict(strict=False)",
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
    source="checkpoints matched by shape or by order",
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
    source="structured pruning and channel permutation applied to one of two neighbouring layers",
)
def channels_reordered(site: Site) -> Iterator[Variant]:
    """Input channels of the weights are in reversed order."""
    weight = _weight(site)
    if weight is not None and weight.ndim == 4 and weight.shape[1] > 3:
        yield site.fed("reversed", {1: np.ascontiguousarray(weight[:, ::-1])})
