"""Faults of resizing: coordinates, interpolation, order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault
from refimpl.ops.operation import Array


def _linear(site: Site) -> bool:
    return site.attribute("mode", "nearest") == "linear"


@fault(
    "resize/corners aligned",
    "Resize",
    source="PyTorch, interpolate: align_corners, "
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html",
)
def corners_aligned(site: Site) -> Iterator[Variant]:
    """Corner pixels are aligned (`align_corners=True`) instead of half-pixel centres."""
    if _linear(site):
        yield site.changed("align_corners", coordinate_transformation_mode="align_corners")


@fault(
    "resize/no half pixel",
    "Resize",
    source="tf2onnx: half_pixel_centers not read, Resize without the half pixel, "
    "https://github.com/onnx/tensorflow-onnx/issues/914",
)
def asymmetric(site: Site) -> Iterator[Variant]:
    """Source coordinates are `i · scale` (asymmetric) instead of half-pixel centres."""
    if _linear(site):
        yield site.changed("asymmetric", coordinate_transformation_mode="asymmetric")


@fault(
    "resize/nearest instead of bilinear",
    "Resize",
    source="PyTorch, Upsample: mode defaults to nearest, "
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.Upsample.html",
)
def nearest(site: Site) -> Iterator[Variant]:
    """The nearest pixel is taken instead of interpolating."""
    if _linear(site):
        asymmetric_floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        yield site.changed("asymmetric, floor", mode="nearest", **asymmetric_floor)
        yield site.changed(
            "half pixel, round_prefer_floor", mode="nearest", nearest_mode="round_prefer_floor"
        )


@fault(
    "resize/bilinear instead of nearest",
    "Resize",
    source="Detectron2, FPN: nearest in the top-down path, "
    "https://github.com/facebookresearch/detectron2/blob/main/detectron2/modeling/backbone/fpn.py",
)
def bilinear(site: Site) -> Iterator[Variant]:
    """Pixels are interpolated where the nearest is wanted."""
    if not _linear(site):
        yield site.changed("half pixel", mode="linear", coordinate_transformation_mode="half_pixel")


@fault(
    "resize/bicubic instead of bilinear",
    "Resize",
    source="ONNX Resize: mode cubic, cubic_coeff_a −0.75, https://onnx.ai/onnx/operators/onnx__Resize.html",
)
def bicubic(site: Site) -> Iterator[Variant]:
    """Cubic interpolation instead of linear."""
    if _linear(site) and len(site.output_shape) == 4:
        yield site.changed("a = −0.75", mode="cubic", cubic_coeff_a=-0.75)


@fault(
    "resize/antialiased",
    "Resize",
    source="torchvision, Resize: Pillow filters, tensors were not, "
    "https://github.com/pytorch/vision/issues/2950",
)
def antialiased(site: Site) -> Iterator[Variant]:
    """A low-pass filter is applied when shrinking."""
    sizes, new_sizes = site.shape(0)[2:], site.output_shape[2:]
    if (
        _linear(site)
        and len(sizes) == 2
        and any(new < old for new, old in zip(new_sizes, sizes, strict=True))
    ):
        rows, columns = (_triangles(old, new) for old, new in zip(sizes, new_sizes, strict=True))
        rewriting = Rewriting(site)
        narrowed = rewriting.apply("MatMul", site.call.inputs[0], columns.T)
        yield rewriting.result("triangle filter", "MatMul", rows, narrowed)


def _triangles(size: int, new_size: int) -> Array:
    """Return the weights (new, old) of Pillow's bilinear filter, whose support grows with the scale."""
    scale = size / new_size
    centres = (np.arange(new_size) + 0.5)[:, None] * scale
    distance = np.abs(np.arange(size) + 0.5 - centres) / max(scale, 1.0)
    weights = np.maximum(1 - distance, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@fault(
    "resize/before the activation",
    "Resize",
    source="TopFormer, InjectionMultiSum: sigmoid, then upsampling; others reverse it, "
    "https://github.com/hustvl/TopFormer/blob/main/mmseg/models/backbones/topformer.py",
)
def before_activation(site: Site) -> Iterator[Variant]:
    """A map is resized before its activation instead of after."""
    activation = site.producer(0)
    if (
        _linear(site)
        and activation is not None
        and activation.op_type in ("HardSigmoid", "Sigmoid", "Relu", "Clip")
    ):
        rewriting = Rewriting(site)
        resized = rewriting.apply(
            "Resize", activation.inputs[0], *site.call.inputs[1:], **site.call.attributes
        )
        yield rewriting.result(
            activation.op_type, activation.op_type, resized, *activation.inputs[1:], **activation.attributes
        )
