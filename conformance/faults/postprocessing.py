"""Faults of what is done with the network's outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault

_ENDS = ("Add", "Reshape", "Resize", "MatMul")


def _is_output(site: Site) -> bool:
    return site.output in site.graph.outputs.values()


@fault(
    "postprocessing/sigmoid already applied",
    *_ENDS,
    source="YOLOv4-pytorch: a sigmoid in the head and in BCEWithLogitsLoss, "
    "https://github.com/argusswift/YOLOv4-pytorch/issues/89",
)
def sigmoid_applied(site: Site) -> Iterator[Variant]:
    """An output is a probability instead of a logit."""
    if _is_output(site):
        yield site.after("σ", "Sigmoid")


@fault(
    "postprocessing/softmax already applied",
    "Add",
    source="TorchGeo: softmax for the sigmoids of several labels, "
    "https://github.com/torchgeo/torchgeo/pull/791",
)
def softmax_applied(site: Site) -> Iterator[Variant]:
    """An output is a softmax over classes instead of logits."""
    if _is_output(site) and site.output_shape[-1] > 1:
        yield site.after("over classes", "Softmax", axis=-1)


@fault(
    "postprocessing/ReLU after the last layer",
    "Add",
    "Conv",
    source="TabTransformer: a perceptron that activates its last layer too, "
    "https://github.com/lucidrains/tab-transformer-pytorch/issues/9",
)
def relu_at_the_end(site: Site) -> Iterator[Variant]:
    """An output is cut at zero."""
    if _is_output(site):
        yield site.after("ReLU", "Relu")


@fault(
    "postprocessing/masks thresholded",
    "Reshape",
    "Resize",
    source="SparseInst, inference: masks > 0.45 of the probability, "
    "https://github.com/hustvl/SparseInst/blob/main/sparseinst/config.py",
)
def thresholded(site: Site) -> Iterator[Variant]:
    """Masks are zeros and ones instead of logits."""
    if _is_output(site) and len(site.output_shape) == 4:
        rewriting = Rewriting(site)
        made = rewriting.apply(site.call.op_type, *site.call.inputs, **site.call.attributes)
        chosen = rewriting.apply("Greater", made, np.asarray(0, np.float32))
        yield rewriting.result("> 0", "Where", chosen, np.asarray(1, np.float32), np.asarray(0, np.float32))


@fault(
    "postprocessing/masks mirrored",
    "Reshape",
    "Resize",
    source="Windows bitmaps: the bottom row first, "
    "https://learn.microsoft.com/en-us/windows/win32/directshow/top-down-vs--bottom-up-dibs",
)
def mirrored(site: Site) -> Iterator[Variant]:
    """Masks are upside down."""
    if _is_output(site) and len(site.output_shape) == 4:
        rows = np.arange(site.output_shape[2])[::-1].astype(np.int64)
        yield site.after("upside down", "Gather", rows, axis=2)
