"""Faults of preprocessing: what is fed to the first convolution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault
from refimpl.ops.operation import Array

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])


def _reads_picture(site: Site) -> bool:
    is_input = site.call.inputs[0] in site.graph.inputs.values()
    return is_input and len(site.shape(0)) == 4 and site.shape(0)[1] == 3


def _affine(site: Site, detail: str, scale: Array | float, shift: Array | float) -> Iterator[Variant]:
    """Yield the convolution of scale · raw + shift, where the input given is (raw − MEAN) / STD."""
    if not _reads_picture(site):
        return
    factor, offset = STD * scale, MEAN * scale + shift
    rewriting = Rewriting(site)
    scaled = rewriting.apply("Mul", site.call.inputs[0], factor.reshape(1, 3, 1, 1))
    yield rewriting.same(detail, {0: rewriting.apply("Add", scaled, offset.reshape(1, 3, 1, 1))})


@fault(
    "preprocessing/BGR",
    "Conv",
    source="CameraHMR: OpenCV's BGR fed to a network of RGB, "
    "https://github.com/pixelite1201/CameraHMR/issues/20",
)
def bgr(site: Site) -> Iterator[Variant]:
    """Red and blue are exchanged, after normalising or before."""
    if _reads_picture(site):
        yield site.before("after normalising", "Gather", np.asarray([2, 1, 0], np.int64), axis=1)
        rewriting = Rewriting(site)
        swapped = rewriting.apply("Gather", site.call.inputs[0], np.asarray([2, 1, 0], np.int64), axis=1)
        scaled = rewriting.apply("Mul", swapped, (STD[::-1] / STD).reshape(1, 3, 1, 1))
        shift = ((MEAN[::-1] - MEAN) / STD).reshape(1, 3, 1, 1)
        yield rewriting.same("before normalising", {0: rewriting.apply("Add", scaled, shift)})


@fault(
    "preprocessing/not normalised",
    "Conv",
    source="ONNX: an exported ResNet fed without normalisation, https://github.com/onnx/onnx/issues/1440",
)
def raw(site: Site) -> Iterator[Variant]:
    """Raw values 0 … 255 are fed."""
    yield from _affine(site, "0 … 255", 1.0, 0.0)


@fault(
    "preprocessing/scaled to one only",
    "Conv",
    source="Mapping challenge: mean 0 and deviation 1 before ImageNet's weights, "
    "https://github.com/neptune-ai/open-solution-mapping-challenge/issues/77",
)
def unit_range(site: Site) -> Iterator[Variant]:
    """Values 0 … 1 are fed, mean and deviation forgotten."""
    yield from _affine(site, "0 … 1", 1 / 255, 0.0)


@fault(
    "preprocessing/scaled to −1 … 1",
    "Conv",
    source="Keras, mobilenet.preprocess_input: −1 … 1, "
    "https://www.tensorflow.org/api_docs/python/tf/keras/applications/mobilenet/preprocess_input",
)
def symmetric_range(site: Site) -> Iterator[Variant]:
    """TensorFlow's convention."""
    yield from _affine(site, "−1 … 1", 1 / 127.5, -1.0)


@fault(
    "preprocessing/mean only",
    "Conv",
    source="Detectron2, PIXEL_STD: 1, where the deviation is in the backbone, "
    "https://github.com/facebookresearch/detectron2/blob/main/detectron2/config/defaults.py",
)
def mean_only(site: Site) -> Iterator[Variant]:
    """The mean is subtracted, the deviation forgotten."""
    yield from _affine(site, "std = 1", 1.0, -MEAN)


@fault(
    "preprocessing/deviation only",
    "Conv",
    source="torchvision, models: both mean and deviation are wanted, "
    "https://pytorch.org/vision/0.8/models.html",
)
def deviation_only(site: Site) -> Iterator[Variant]:
    """Divided by the deviation, the mean not subtracted."""
    yield from _affine(site, "mean = 0", 1 / STD, 0.0)


@fault(
    "preprocessing/mean of the other range",
    "Conv",
    source="EfficientDet.Pytorch: values 0 … 255, mean and deviation of 0 … 1, "
    "https://github.com/toandaominh1997/EfficientDet.Pytorch/issues/137",
)
def mixed_ranges(site: Site) -> Iterator[Variant]:
    """Constants in 0 … 1 on values 0 … 255, or the reverse."""
    yield from _affine(site, "constants 0 … 1, picture 0 … 255", 255 / STD, -MEAN / STD)
    yield from _affine(site, "constants 0 … 255, picture 0 … 1", 1 / 255 / STD, -MEAN / STD)


@fault(
    "preprocessing/mean of another data set",
    "Conv",
    source="FOA: 0.5 and 0.5, or ImageNet's mean and deviation, https://github.com/mr-eggplant/FOA/issues/2",
)
def half_half(site: Site) -> Iterator[Variant]:
    """Mean 0.5 and deviation 0.25, or the mean of three channels."""
    yield from _affine(site, "mean 0.5, std 0.25", 1 / 63.75, -2.0)
    yield from _affine(site, "grey mean and std", 1 / STD.mean(), -MEAN.mean() / STD.mean())
