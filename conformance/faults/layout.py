"""Faults of memory layout: the right numbers in the wrong places."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault


@fault(
    "layout/reshaped instead of transposed",
    "Transpose",
    source="vector-quantize-pytorch: view in place of permute, "
    "https://github.com/lucidrains/vector-quantize-pytorch/issues/70",
)
def viewed(site: Site) -> Iterator[Variant]:
    """The shape is right, the elements stay where they lie."""
    moves = [axis for axis in site.attribute("perm", ()) if site.shape(0)[axis] > 1]
    changes = moves != sorted(moves) and site.call.inputs[0] not in site.graph.constants
    if changes and not (site.feeds("Reshape") and len(site.output_shape) == 4):
        yield site.instead(
            "as it lies", "Reshape", site.call.inputs[0], np.asarray(site.output_shape, np.int64)
        )


@fault(
    "layout/flattened column by column",
    "Reshape",
    source="Keras: MATLAB flattens column by column, https://github.com/keras-team/keras/issues/13830",
)
def column_major(site: Site) -> Iterator[Variant]:
    """Positions are flattened column by column."""
    before, after = site.shape(0), site.output_shape
    flattens = (
        len(before) == 4
        and len(after) in (3, 4)
        and after[-1] == before[2] * before[3]
        and min(before[2:]) > 1
    )
    if flattens and site.call.inputs[0] not in site.graph.constants:
        rewriting = Rewriting(site)
        turned = rewriting.apply("Transpose", site.call.inputs[0], perm=(0, 1, 3, 2))
        yield rewriting.same("columns first", {0: turned})


@fault(
    "layout/unflattened column by column",
    "Reshape",
    source="rp_extract: flattened in one order, reshaped in the other, "
    "https://github.com/tuwien-musicir/rp_extract/issues/16",
)
def column_major_map(site: Site) -> Iterator[Variant]:
    """Positions become a map column by column."""
    before, after = site.shape(0), site.output_shape
    if len(after) == 4 and before[-1] == after[2] * after[3] and min(after[2:]) > 1:
        rewriting = Rewriting(site)
        turned = np.asarray([*after[:2], after[3], after[2]], np.int64)
        made = rewriting.apply("Reshape", site.call.inputs[0], turned)
        yield rewriting.result("columns first", "Transpose", made, perm=(0, 1, 3, 2))


@fault(
    "layout/NHWC read as NCHW",
    "Conv",
    source="NNTrainer: the dimensions of NHWC exchanged, its data not, "
    "https://github.com/nntrainer/nntrainer/pull/697",
)
def channels_last(site: Site) -> Iterator[Variant]:
    """The picture's bytes are interleaved by channel but read as planes."""
    if _reads_picture(site):
        yield _reread(site, (0, 2, 3, 1), "NHWC")


@fault(
    "layout/height and width exchanged",
    "Conv",
    source="Caffe: cv::Size(height, width), https://github.com/BVLC/caffe/issues/950",
)
def picture_turned(site: Site) -> Iterator[Variant]:
    """The picture is transposed in memory but read with the right size."""
    if _reads_picture(site):
        yield _reread(site, (0, 1, 3, 2), "(W, H)")


def _reads_picture(site: Site) -> bool:
    return site.call.inputs[0] in site.graph.inputs.values() and len(site.shape(0)) == 4


def _reread(site: Site, perm: tuple[int, ...], detail: str) -> Variant:
    rewriting = Rewriting(site)
    moved = rewriting.apply("Transpose", site.call.inputs[0], perm=perm)
    flat = rewriting.apply("Reshape", moved, np.asarray(site.shape(0), np.int64))
    return rewriting.same(detail, {0: flat})
