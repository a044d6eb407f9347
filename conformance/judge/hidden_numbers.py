"""Numbers that an input or rounding hides: read in the candidate's nodes, where what it computes is right.

Float16 hides an epsilon, a map that is zero hides the kernel that it goes into, and scores that are far apart
hide the threshold between them. A node that is a step's counterpart, fed what that is given, must have the
same numbers, whatever they do on this input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, Format
from conformance.faults import ShapedGraph
from conformance.judge.node_reading import with_defaults
from conformance.judge.replay import DATA_MOVEMENT, TABLE_ROUNDINGS
from conformance.judge.unreached import MOVING
from conformance.judge.weight_comparison import difference_of_constants
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "NonMaxSuppression")
"""What is known by its operands: its results are no floats, and one number decides on them."""

READ = (
    *("Add", "Conv", "ConvTranspose", "Div", "GroupNormalization", "InstanceNormalization"),
    *("LayerNormalization", "MatMul", "Mul", "PRelu", "Sub"),
)
"""What is known by its result, and has only one way to be written."""

TOLD = ("alpha", "beta", "bias", "epsilon", "fmod", "gamma", "lambd", "select_last_index")
"""Attributes that are numbers within an operation, or say what it does of numbers that may not be there."""

PRINTED = 1e-4
"""By what share an attribute may be off that was printed, and read."""

ROUNDINGS = 2 * (1 + 2.0**-10)
"""By how many roundings a number of a file may be off: once stored, or cut off."""


def read_numbers(
    reference: ShapedGraph, candidate: ShapedGraph, found: Mapping[str, str], storage: Format
) -> dict[str, str]:
    """Return the numbers that the candidate's nodes have otherwise.

    Parameters
    ----------
    reference, candidate
    found
        The reference's tensor → the candidate's that is it.
    storage
        In which the candidate stores its constants, at the coarsest.

    Returns
    -------
    dict
        The tensor that a step makes → what its node has otherwise.
    """
    bases = {name: _base(candidate, own) for name, own in found.items()}
    bases |= dict(zip(reference.inputs.values(), candidate.inputs.values(), strict=False))
    reading = _Reading(reference, candidate, bases, storage)
    return {step.outputs[0]: said for step in reference.nodes if (said := reading.of_step(step))}


class _Reading:
    """Both sides, and where the reference's tensors begin in the candidate, before what only moves them."""

    def __init__(
        self, reference: ShapedGraph, candidate: ShapedGraph, bases: Mapping[str, str], storage: Format
    ) -> None:
        self.reference, self.candidate, self.bases, self.storage = reference, candidate, bases, storage
        self.steps, self.nodes = _compared(reference), _compared(candidate)

    def of_step(self, step: Node) -> str:
        """Return what a step's counterpart has otherwise, empty if nothing or if there is none."""
        node = self._counterpart(step)
        if node is None:
            return ""
        said = next(self._differences(step, node), "")
        return said and f"{said} at its {node.name}; no number of this input tells, or rounding hides it"

    def _counterpart(self, step: Node) -> Node | None:
        """Return the candidate's node of the same operator that is fed the same; None if that is not sure."""
        given = _moving(self.reference, step)
        fed = [self.bases.get(_base(self.reference, name)) for name in given]
        if not given or None in fed:
            return None
        if step.op_type in COMPARING:
            ours, theirs = (
                side.get((step.op_type, *names), [])
                for side, names in (
                    (self.steps, [_base(self.reference, name) for name in given]),
                    (self.nodes, fed),
                )
            )
            return theirs[0] if len(ours) == len(theirs) == 1 else None
        node = self.candidate.producer(self.bases.get(step.outputs[0], ""))
        if node is None or node.op_type != step.op_type or len(given) > 1:
            return None
        own = [_base(self.candidate, name) for name in _moving(self.candidate, node)]
        return node if own == fed else None

    def _differences(self, step: Node, node: Node) -> Iterator[str]:
        told = [{key: x for key, x in with_defaults(each).items() if key in TOLD} for each in (step, node)]
        ours, theirs = _operands(self.reference, step), _operands(self.candidate, node)
        sizes: Mapping[int, Array] = {}
        if step.op_type == "Gemm":
            return  # its factors may be in its matrices
        if step.op_type == "BatchNormalization":
            sizes = _sizes_of_norm(ours, told[0])
            ours, theirs = (_scale_and_shift(*each) for each in ((ours, told[0]), (theirs, told[1])))
            told = [{}, {}]
        for key, mine in told[0].items():
            if mine is not None and not self._alike(mine, told[1].get(key)):
                yield f"{step.op_type}'s {key} is {told[1].get(key):.6g}, where the reference has {mine:.6g},"
        wanted = step.op_type in (*READ, *COMPARING, "BatchNormalization")
        for place in sorted(ours.keys() & theirs.keys()) if wanted else ():
            if said := self._difference(ours[place], theirs[place], sizes.get(place, ours[place])):
                name = step.inputs[place] if place < len(step.inputs) else step.name
                yield f"{name} {said},"

    def _alike(self, mine: Any, other: Any) -> bool:
        allowed = PRINTED * abs(mine) + float(self._allowed(np.asarray(mine)))
        return other is not None and bool(abs(other - mine) <= allowed)

    def _allowed(self, sizes: Array) -> Array:
        """Return by how much numbers of a file may be off: stored, or of tables that exporters compute."""
        sizes = np.abs(sizes).astype(np.float64)
        largest = float(sizes.max(initial=0.0))
        return np.asarray(
            ROUNDINGS * self.storage.rounding_of(sizes) + TABLE_ROUNDINGS * FLOAT32.unit_roundoff * largest
        )

    def _difference(self, ours: Array, theirs: Array, sizes: Array) -> str:
        kinds = {ours.dtype.kind, theirs.dtype.kind}
        if ours.size != theirs.size or kinds not in ({"f"}, {"i"}) or np.array_equal(ours, theirs):
            return ""
        if kinds == {"i"}:
            return f"is {theirs.tolist()}, where yours is {ours.tolist()}"
        theirs = theirs.astype(np.float64).reshape(ours.shape)
        alike = np.abs(theirs - ours) <= self._allowed(sizes)
        return "" if alike.all() else difference_of_constants(ours, np.where(alike, ours, theirs), {})


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


def _compared(graph: ShapedGraph) -> dict[tuple[str, ...], list[Node]]:
    """Return the comparisons by what they are given."""
    found: dict[tuple[str, ...], list[Node]] = {}
    for node in graph.nodes:
        if node.op_type in COMPARING:
            names = (_base(graph, name) for name in _moving(graph, node))
            found.setdefault((node.op_type, *names), []).append(node)
    return found


def _moving(graph: ShapedGraph, node: Node) -> list[str]:
    return [name for name in node.uses if name not in graph.constants]


def _base(graph: Graph, name: str) -> str:
    """Return the tensor of which one is only another arrangement."""
    while (maker := graph.producer(name)) is not None and maker.op_type in (*MOVING, "Cast"):
        name = maker.inputs[0]
    return name
