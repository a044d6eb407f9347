"""What mistakes of the catalogue do to the masks of one picture, and what the eye sees of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from conformance.faults import CATALOGUE, Injection, injections
from conformance.faults.graph import ShapedGraph
from conformance.graph.evaluation import evaluate_node, run
from conformance.teaching.clip import MASK_THRESHOLD
from refimpl import Recording
from refimpl.errors import MobileInstError
from refimpl.graph import Node
from refimpl.ops.operation import Array

SHOWN = (
    "preprocessing/BGR",
    "preprocessing/scaled to one only",
    "layout/NHWC read as NCHW",
    "layout/flattened column by column",
    "convolution/kernel transposed",
    "convolution/padded at the end",
    "convolution/groups interleaved",
    "normalization/batch norm epsilon",
    "normalization/variance instead of deviation",
    "normalization/layer norm epsilon",
    "normalization/unbiased variance",
    "activation/hard sigmoid of slope 0.2",
    "activation/leaky ReLU",
    "activation/ReLU6 without its bound",
    "attention/scale added",
    "attention/scale missing",
    "attention/softmax over the wrong axis",
    "attention/heads interleaved",
    "decoder/position x and y swapped",
    "decoder/position from zero",
    "decoder/masks scaled",
    "resize/corners aligned",
    "resize/nearest instead of bilinear",
    "pooling/average instead of maximum",
    "weights/int8 per tensor",
)
"""The gallery: some that nobody misses, some that no eye can see."""


@dataclass(frozen=True)
class Wrong:
    """One mistake made in the network, and what became of the picture.

    Attributes
    ----------
    name, happens
        As in the catalogue.
    step
        Where it was made.
    masks
        (N, h, w) the mask logits.
    changed
        Mask pixels that changed sides, of all queries.
    error
        The largest change of a logit.
    before, after
        A slice of the step's result where it differs most, right and wrong: two axes.
    """

    name: str
    happens: str
    step: str
    masks: Array
    changed: int
    error: float
    before: Array
    after: Array


def gallery(recording: Recording, kept: Array) -> Iterator[Wrong]:
    """Yield the mistakes of `SHOWN` that this network can have.

    Parameters
    ----------
    recording
        The right run.
    kept
        The queries whose masks count.
    """
    graph = ShapedGraph.of_recording(recording)
    for name in SHOWN:
        found = injections(CATALOGUE[name], graph)
        made = next((wrong for each in found[:3] if (wrong := _made(recording, each, kept))), None)
        if made:
            yield made


def _made(recording: Recording, injection: Injection, kept: Array) -> Wrong | None:
    """Make a mistake; None if it cannot be computed or changes nothing."""
    right = recording.tensors[recording.outputs["masks"]][0]
    output = injection.call.outputs[0]
    try:
        masks, after = run_faulty(recording, injection)
    except MobileInstError:
        return None
    before = recording.tensors[output]
    if not (np.isfinite(masks).all() and before.shape == after.shape) or np.array_equal(before, after):
        return None
    changed = (expit(masks[kept]) > MASK_THRESHOLD) != (expit(right[kept]) > MASK_THRESHOLD)
    fault = injection.fault
    slices = _slices(before, after)
    error = float(np.abs(masks - right).max())
    return Wrong(fault.name, fault.happens, injection.call.name, masks, int(changed.sum()), error, *slices)


def run_faulty(recording: Recording, injection: Injection) -> tuple[Array, Array]:
    """Run the network from a mistake in it on: what is computed before is as in the right run, in float64.

    Returns
    -------
    masks, result
        (N, h, w), and what the faulty step made.
    """
    variant, called = injection.variant, injection.call.name
    wide = {key: x.astype(np.float64) if x.dtype.kind == "f" else x for key, x in variant.constants.items()}
    nodes, other = list[Node](), set(wide)
    for node in recording.graph.nodes:
        if node.name == called or not other.isdisjoint(node.uses):
            nodes += variant.calls if node.name == called else [node]
            other.update(node.outputs)
    tensors = {name: x for name, x in recording.tensors.items() if name not in other} | wide
    masks, output = recording.outputs["masks"], injection.call.outputs[0]
    values = run(_sorted(nodes, set(tensors)), tensors, _in_float64, keep={masks, output})
    return values[masks][0], values[output]


def _in_float64(node: Node, operands: tuple[Array | None, ...]) -> tuple[Array, ...]:
    return evaluate_node(node, operands, np.float64)


def _sorted(nodes: list[Node], made: set[str]) -> list[Node]:
    """Put nodes behind those whose results they use: a wrong wire may come from a later node."""
    waiting, ordered = nodes, list[Node]()
    while waiting:
        later = []
        for node in waiting:
            if made.issuperset(node.uses):
                made.update(node.outputs)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            break  # of what is left, nothing can be computed
        waiting = later
    return ordered


def _slices(before: Array, after: Array) -> tuple[Array, Array]:
    """Return the two-dimensional slice of each where they differ most, at most 64 × 96 cells of it."""
    shape = (-1, *before.shape[-2:]) if before.ndim > 1 else (1, 1, -1)
    one, other = before.reshape(shape), after.reshape(shape)
    place = int(np.abs(one - other).reshape(len(one), -1).max(axis=1).argmax())
    height, width = one.shape[1:]
    step = max(-(-height // 64), -(-width // 96))
    return one[place, ::step, ::step], other[place, ::step, ::step]
