"""Numbers that an input or rounding hides: read in the candidate's nodes, where what it computes is right.

Float16 hides an epsilon, a map that is zero hides the kernel that it goes into, and scores that are far apart
hide the threshold between them. A node that is a step's counterpart, fed what that is given, must have the
same numbers, whatever they do on this input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from conformance.bounds import FLOAT32, Format
from conformance.faults import ShapedGraph
from conformance.judge.node_reading import with_defaults
from conformance.judge.replay import DATA_MOVEMENT, TABLE_ROUNDINGS
from conformance.judge.unreached import BELOW_ZERO, MOVING
from conformance.judge.weight_comparison import difference_of_constants
from refimpl.graph import Node
from refimpl.ops.operation import Array

CHOOSING = (
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "NonMaxSuppression",
)
"""What is known by its operands: its results are no floats, and one number decides on them."""

READ = (
    *("Add", "Conv", "ConvTranspose", "Div", "GroupNormalization", "InstanceNormalization"),
    *("LayerNormalization", "MatMul", "Mul", "PRelu", "Sub"),
)
"""What is known by its result, and has only one way to be written."""

TOLD = ("alpha", "beta", "bias", "epsilon", "fmod", "gamma", "lambd", "select_last_index")
"""Attributes that are numbers within an operation, or say what it does of numbers that may not be there."""

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
"""Types to which a cast does no more than round."""

PRINTED = 1e-4
"""By what share an attribute may be off that was printed, and read."""

ROUNDINGS = 2 * (1 + 2.0**-10)
"""By how many roundings a number of a file may be off: once stored, or cut off."""


def read_numbers(
    reference: ShapedGraph,
    candidate: ShapedGraph,
    found: Mapping[str, str],
    storage: Format,
    tensors: Mapping[str, Array],
) -> dict[str, str]:
    """Return the numbers that the candidate's nodes have otherwise.

    Parameters
    ----------
    reference, candidate
    found
        The reference's tensor → the candidate's that is it.
    storage
        In which the candidate stores its constants, at the coarsest.
    tensors
        What the candidate computed, by name.

    Returns
    -------
    dict
        The tensor that a step makes → what its node has otherwise.
    """
    # Of what is the same everywhere, as zeros are, another's may have been found.
    sure = {name: own for name, own in found.items() if name == own or not _is_one_number(tensors.get(own))}
    reading = _Reading(reference, candidate, sure, storage)
    return {step.outputs[0]: said for step in reference.nodes if (said := reading.of_step(step))}


class _Origins:
    """Of what that is computed a tensor is an arrangement, or a part: as a text, the same for the same.

    ``known`` are those of which the text is known.
    """

    def __init__(self, graph: ShapedGraph, known: Mapping[str, str]) -> None:
        self.graph, self.known = graph, dict(known)

    def of(self, name: str) -> str:
        """Return the text."""
        if name not in self.known:
            self.known[name] = self._of(name)
        return self.known[name]

    def _of(self, name: str) -> str:
        maker = self.graph.producer(name)
        if maker is None or maker.op_type not in (*DATA_MOVEMENT, *MOVING):
            return name
        if maker.op_type in MOVING or maker.attributes.get("to") in FLOATS:
            return self.of(maker.inputs[0])
        constants = self.graph.constants
        operands = [
            str(hash(constants[each].astype(np.float64).tobytes())) if each in constants else self.of(each)
            for each in maker.uses
        ]
        told = sorted(with_defaults(maker).items())
        return f"{maker.op_type} {operands} {told} {maker.outputs.index(name)}"

    def moving(self, node: Node) -> list[str]:
        """Return those of a node's operands that are not constant."""
        return [self.of(name) for name in node.uses if name not in self.graph.constants]

    def choosing(self) -> dict[tuple[str, ...], list[Node]]:
        """Return the nodes that choose, by what they are given."""
        found: dict[tuple[str, ...], list[Node]] = {}
        for node in self.graph.nodes:
            if node.op_type in CHOOSING:
                found.setdefault((node.op_type, *self.moving(node)), []).append(node)
        return found


class _Reading:
    """Both sides, and the reference's tensors under the candidate's names."""

    def __init__(
        self, reference: ShapedGraph, candidate: ShapedGraph, found: Mapping[str, str], storage: Format
    ) -> None:
        self.reference, self.candidate, self.found, self.storage = reference, candidate, found, storage
        self.theirs = _Origins(candidate, {})
        both = [name for name in reference.inputs if name in candidate.inputs]
        sides = ([name for name in side.inputs if name not in both] for side in (reference, candidate))
        named = {**dict(zip(both, both, strict=True)), **dict(zip(*sides, strict=False))}
        inputs = {reference.inputs[name]: candidate.inputs[own] for name, own in named.items()}
        # What is not found may have the name of something else there.
        unknown = {name: f"unknown {name}" for node in reference.nodes for name in _computed(node)}
        known = {name: self.theirs.of(own) for name, own in found.items()}
        self.ours = _Origins(reference, {**unknown, **inputs, **known})
        self.steps, self.nodes = self.ours.choosing(), self.theirs.choosing()

    def of_step(self, step: Node) -> str:
        """Return what a step's counterpart has otherwise, empty if nothing or if there is none."""
        node = self._counterpart(step)
        if node is None:
            return ""
        said = next(self._differences(step, node), "")
        return said and f"{said} at its {node.name}; no number of this input tells, or rounding hides it"

    def _counterpart(self, step: Node) -> Node | None:
        """Return the candidate's node of the same operator that is fed the same; None if that is not sure."""
        given = self.ours.moving(step)
        if step.op_type in CHOOSING:
            sides = [side.get((step.op_type, *given), []) for side in (self.steps, self.nodes)]
            return sides[1][0] if [len(side) for side in sides] == [1, 1] else None
        node = self.candidate.producer(self.found.get(step.outputs[0], ""))
        while node is not None and node.op_type in MOVING and step.op_type not in MOVING:
            node = self.candidate.producer(node.inputs[0])
        alike = node is not None and node.op_type == step.op_type and self.theirs.moving(node) == given
        return node if alike and len(given) == 1 else None

    def _differences(self, step: Node, node: Node) -> Iterator[str]:
        told = [{key: x for key, x in with_defaults(each).items() if key in TOLD} for each in (step, node)]
        ours, theirs = _operands(self.reference, step), _operands(self.candidate, node)
        sizes: Mapping[int, Array] = {}
        if step.op_type in ("Gemm", *BELOW_ZERO):
            return  # its factors may be in its matrices; what is below zero is read elsewhere
        if step.op_type == "BatchNormalization":
            sizes = _sizes_of_norm(ours, told[0])
            ours, theirs = (_scale_and_shift(*each) for each in ((ours, told[0]), (theirs, told[1])))
            told = [{}, {}]
        if step.op_type == "NonMaxSuppression":
            boxes = self.reference.shapes[step.inputs[0]][1]  # more than there are cannot be kept
            ours, theirs = ({**each, **_at_most(each, 2, boxes)} for each in (ours, theirs))
        for key, mine in told[0].items():
            other = told[1].get(key)
            if mine is not None and other is not None and not self._alike(mine, other):
                yield f"{step.op_type}'s {key} is {other:.6g}, where the reference has {mine:.6g},"
        wanted = step.op_type in (*READ, *CHOOSING, "BatchNormalization")
        for place in sorted(ours.keys() & theirs.keys()) if wanted else ():
            if said := self._difference(ours[place], theirs[place], sizes.get(place, ours[place])):
                name = step.inputs[place] if place < len(step.inputs) else step.name
                yield f"{name} {said},"

    def _alike(self, mine: float, other: float) -> bool:
        allowed = PRINTED * abs(mine) + float(self._allowed(np.asarray(mine)))
        return abs(other - mine) <= allowed

    def _allowed(self, sizes: Array) -> Array:
        """Return by how much numbers of a file may be off: stored, or of tables that exporters compute."""
        sizes = np.abs(sizes).astype(np.float64)
        stored = ROUNDINGS * self.storage.rounding_of(sizes)
        flushed = np.where(sizes < self.storage.smallest_normal, sizes, 0.0)
        computed = TABLE_ROUNDINGS * FLOAT32.unit_roundoff * float(sizes.max(initial=0.0))
        return np.asarray(np.maximum(stored, flushed) + computed)

    def _difference(self, ours: Array, theirs: Array, sizes: Array) -> str:
        kinds = {ours.dtype.kind, theirs.dtype.kind}
        if ours.size != theirs.size or kinds not in ({"f"}, {"i"}) or np.array_equal(ours, theirs):
            return ""
        if kinds == {"i"}:
            return f"is {theirs.tolist()}, where yours is {ours.tolist()}"
        theirs = theirs.astype(np.float64).reshape(ours.shape)
        alike = np.abs(theirs - ours) <= self._allowed(sizes)
        # What is added to a tensor that is otherwise laid out is, too.
        sides = np.sort(ours, axis=None), np.sort(theirs, axis=None)
        if alike.all() or (np.abs(sides[1] - sides[0]) <= self._allowed(sides[0])).all():
            return ""
        return difference_of_constants(ours, np.where(alike, ours, theirs), {})


def _at_most(operands: Mapping[int, Array], place: int, most: int) -> dict[int, Array]:
    return {place: np.minimum(operands[place], most)} if place in operands else {}


def _operands(side: ShapedGraph, node: Node) -> dict[int, Array]:
    """Return a node's operands that are constants as they are stored, by their places."""
    named = [(place, name) for place, name in enumerate(node.inputs) if name in side.constants]
    return {place: np.asarray(side.constants[name]) for place, name in named if _is_stored(side, name)}


def _is_stored(side: ShapedGraph, name: str) -> bool:
    """Tell whether nothing is computed of a constant: what is, is off by more than one rounding."""
    while (maker := side.producer(name)) is not None and maker.op_type in DATA_MOVEMENT:
        name = maker.inputs[0]
    return maker is None


def _sizes_of_norm(operands: Mapping[int, Array], told: Mapping[str, Any]) -> dict[int, Array]:
    """Return the sizes of what `_scale_and_shift` is summed and multiplied of: four roundings' worth."""
    made = _scale_and_shift(operands, told)
    if not made:
        return {}
    return {1: 2 * made[1], 2: 2 * (np.abs(operands[2]) + np.abs(operands[3] * made[1]))}


def _scale_and_shift(operands: Mapping[int, Array], told: Mapping[str, Any]) -> dict[int, Array]:
    """Return a batch norm's operands 1 and 2 as if its mean were 0 and its variance 1: it has many ways."""
    if not {1, 2, 3, 4} <= operands.keys():
        return {}
    scale, shift, mean, variance = (operands[place].astype(np.float64) for place in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + told["epsilon"])
    return {1: factor, 2: shift - mean * factor}


def _is_one_number(array: Array | None) -> bool:
    if array is None or not array.size or array.flat[0] != array.flat[-1]:
        return False
    return bool((array == array.flat[0]).all())


def _computed(node: Node) -> tuple[str, ...]:
    """Return what a node makes, nothing of one that only moves."""
    return () if node.op_type in (*DATA_MOVEMENT, *MOVING) else tuple(node.outputs)
