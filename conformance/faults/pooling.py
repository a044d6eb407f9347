"""Faults of pooling and reductions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault

_WINDOWS = "Zhang et al., MobileInst (2023), Table 4: max or average 8×8, https://arxiv.org/abs/2303.17594"


@fault("pooling/average instead of maximum", "MaxPool", source=_WINDOWS)
def average(site: Site) -> Iterator[Variant]:
    """Windows are averaged."""
    kept = {
        name: site.call.attributes[name]
        for name in ("kernel_shape", "strides", "pads")
        if site.call.attributes.get(name) is not None
    }
    yield site.instead("average", "AveragePool", site.call.inputs[0], **kept)


@fault("pooling/maximum instead of average", "AveragePool", source=_WINDOWS)
def maximum(site: Site) -> Iterator[Variant]:
    """The maximum of each window is taken."""
    kept = {
        name: site.call.attributes[name]
        for name in ("kernel_shape", "strides", "pads")
        if site.call.attributes.get(name) is not None
    }
    yield site.instead("maximum", "MaxPool", site.call.inputs[0], **kept)


@fault(
    "pooling/padding counted",
    "AveragePool",
    source="ONNX-Chainer: count_include_pad is 0 in ONNX, 1 in Chainer, "
    "https://github.com/chainer/onnx-chainer/pull/45",
)
def padding_counted(site: Site) -> Iterator[Variant]:
    """Zeros of the padding are counted in the mean, or not counted where they should be."""
    if any(site.attribute("pads", ())):
        other = 1 - int(site.attribute("count_include_pad", 0))
        yield site.changed(f"count_include_pad={other}", count_include_pad=other)


@fault(
    "pooling/padded with zeros",
    "MaxPool",
    source="EfficientDet in PyTorch: zeros padded before a pool of the maximum, "
    "https://github.com/zylo117/Yet-Another-EfficientDet-Pytorch/pull/352",
)
def zero_padded(site: Site) -> Iterator[Variant]:
    """The border is padded with zeros instead of −∞."""
    pads = site.attribute("pads", ())
    if len(pads) == 4 and any(pads):
        rewriting = Rewriting(site)
        amounts = np.asarray([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        padded = rewriting.apply("Pad", site.call.inputs[0], amounts, mode="constant")
        yield rewriting.same("zeros", {0: padded}, pads=(0, 0, 0, 0))


@fault(
    "pooling/subsampled",
    "MaxPool",
    "AveragePool",
    source="Detectron2, LastLevelMaxPool: a window of one, every second pixel, "
    "https://github.com/facebookresearch/detectron2/blob/main/detectron2/modeling/backbone/fpn.py",
)
def subsampled(site: Site) -> Iterator[Variant]:
    """The first pixel of each window is taken."""
    kernel, strides = site.attribute("kernel_shape"), site.attribute("strides", (1, 1))
    if tuple(kernel) != tuple(strides) or len(kernel) != 2 or any(site.attribute("pads", ())):
        return
    ends = np.asarray(
        [size * step for size, step in zip(site.output_shape[2:], strides, strict=True)], np.int64
    )
    zeros, axes = np.zeros(2, np.int64), np.asarray([2, 3], np.int64)
    yield site.instead(
        "first pixel", "Slice", site.call.inputs[0], zeros, ends, axes, np.asarray(strides, np.int64)
    )


@fault(
    "pooling/window shifted",
    "MaxPool",
    "AveragePool",
    source="onnx2tf: padding of ceil_mode that belongs to the end, "
    "https://github.com/PINTO0309/onnx2tf/pull/211",
)
def shifted(site: Site) -> Iterator[Variant]:
    """Windows start one pixel late, the last padded by repetition."""
    if len(site.shape(0)) == 4 and not any(site.attribute("pads", ())):
        rewriting = Rewriting(site)
        amounts = np.asarray([0, 0, -1, -1, 0, 0, 0, 0], np.int64)
        cut = rewriting.apply("Pad", site.call.inputs[0], amounts, mode="constant")
        moved = rewriting.apply("Pad", cut, np.asarray([0, 0, 0, 0, 0, 0, 1, 1], np.int64), mode="edge")
        yield rewriting.same("by one", {0: moved})


@fault(
    "pooling/sum instead of mean",
    "ReduceMean",
    source="Wan et al., SeaFormer (2023), §3.1: squeezing by the mean, https://arxiv.org/abs/2301.13156",
)
def reduced_sum(site: Site) -> Iterator[Variant]:
    """An axis is summed instead of averaged."""
    yield site.instead("sum", "ReduceSum", *site.call.inputs, **site.call.attributes)


@fault(
    "pooling/maximum instead of mean",
    "ReduceMean",
    source="Woo et al., CBAM (2018): squeezing by maximum and mean, https://arxiv.org/abs/1807.06521",
)
def reduced_maximum(site: Site) -> Iterator[Variant]:
    """The maximum along an axis instead of the mean."""
    yield site.instead("maximum", "ReduceMax", *site.call.inputs, **site.call.attributes)
