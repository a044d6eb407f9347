"""Where a network uses its weights: as an operand of which product, and what is folded in or added there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from conformance.bounds import norm_behind, norm_scale, output_axis
from conformance.graph.evaluation import evaluate_node
from refimpl import Recording, Step
from refimpl.graph import Node
from refimpl.ops import TRAITS, Trait
from refimpl.ops.operation import Array

FEWEST = 16
"""Elements below which resemblance proves nothing."""
ARRANGING = ("Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""Operators after which a weight's elements are still told apart."""


@dataclass(frozen=True)
class Bias:
    """What is added to a product, or to the norm behind it; nothing where it is no weight.

    Attributes
    ----------
    name
        Of the weight.
    places
        Which elements of it.
    numbers
        What is added, of each output channel.
    result
        What has it added.
    """

    name: str = ""
    places: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    numbers: Array = field(default_factory=lambda: np.zeros(0))
    result: str = ""


@dataclass(frozen=True)
class NormBefore:
    """A layer norm whose results a matrix multiplies: its factors may be folded into that.

    Attributes
    ----------
    names
        Of its factors, and of what it shifts by; "" if it does not shift.
    factors, shift
    """

    names: tuple[str, str]
    factors: Array
    shift: Array


@dataclass(frozen=True)
class Way:
    """How a file may hold a weight.

    Attributes
    ----------
    scale
        What is folded in, as it broadcasts to the weight.
    norm
        The norm before it, whose factors these are; None: they are of none.
    """

    scale: Array
    norm: NormBefore | None = None


@dataclass(frozen=True)
class Use:
    """A kernel or matrix as an operand of a product.

    Attributes
    ----------
    name
        Of the weight.
    whole
        Whether the operand is the weight as it is.
    places
        Which elements of it the operand has, in the operand's shape.
    scale
        What a norm behind multiplies each of its first axis by, or one.
    axis
        Of the output channels.
    result
        What the product makes, or the norm behind it.
    bias
    before
        The norm before it, if there is one.
    ahead
        Whether the product is of weights alone: a converter may compute it.
    """

    name: str
    whole: bool
    places: Array
    scale: Array
    axis: int
    result: str
    bias: Bias
    before: NormBefore | None
    ahead: bool

    @cached_property
    def ways(self) -> list[Way]:
        """A norm's factors behind it folded in, none, or those of a norm before it."""
        folded = self.scale.reshape(-1, *(1,) * (self.places.ndim - 1))
        found = [Way(folded)] if (folded == 1).all() else [Way(folded), Way(np.ones_like(folded[:1]))]
        if self.before is None:
            return found
        return [*found, Way(self.along_input(self.before.factors), self.before)]

    def along_input(self, factors: Array) -> Array:
        """Return a number for each input channel as it broadcasts to the weight."""
        return factors.reshape((-1, 1) if self.is_turned else (1, -1))

    @property
    def is_turned(self) -> bool:
        """Whether output channels are its last axis, of two."""
        return self.axis == -1

    def shifted(self, matrix: Array, shift: Array) -> Array:
        """Return what a shift of each number makes of each output channel."""
        return np.asarray((matrix.T if self.is_turned else matrix) @ shift)

    def of(self, array: Array) -> Array:
        """Return the operand's elements of what has the weight's shape."""
        return array if self.whole else array.ravel()[self.places]


class Sources:
    """Which elements of which weight a tensor has, if it is one rearranged, or is computed of weights alone.

    Attributes
    ----------
    places
        Tensor → its elements' places in its source.
    names
        Tensor → the source: a weight, or what is computed of weights and constants.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.fixed = {*recording.weights, *recording.constants}
        self.names = {name: name for name in recording.weights}
        self.places = {name: self._counted(name) for name in self.names}

    def follow(self, step: Step) -> None:
        """Know what a step makes of a weight, or of several."""
        if not self.fixed.issuperset(step.uses):
            return
        self.fixed.update(step.outputs)
        first, *others = step.inputs or ("",)
        if step.op_type in ARRANGING and first in self.places:
            held = [self.recording.tensors[name] if name else None for name in others]
            moved = evaluate_node(step, [self.places[first], *held], np.float64)
            self.places |= zip(step.outputs, moved, strict=False)
            self.names |= dict.fromkeys(step.outputs, self.names[first])
        elif len(step.outputs) == 1 and self.recording.tensors[step.outputs[0]].dtype.kind == "f":
            (name,) = step.outputs
            self.places[name], self.names[name] = self._counted(name), name

    def of_matrix(self, name: str) -> bool:
        """Tell whether a tensor has elements enough to be known by, and is more than a vector."""
        return name in self.places and self.places[name].size >= FEWEST and self.places[name].ndim > 1

    def _counted(self, name: str) -> Array:
        shape = self.recording.tensors[name].shape
        return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)


def uses_of(recording: Recording) -> Iterator[Use]:
    """Yield the operands of products that are weights, rearranged or in parts.

    And those that are computed of weights alone.

    Parameters
    ----------
    recording
        Of its weights all are asked for.
    """
    sources = Sources(recording)
    for step in recording.steps:
        sources.follow(step)
        if Trait.PRODUCTS not in TRAITS[step.op_type]:
            continue
        norm = norm_behind(recording, step)
        scale = np.ones(()) if norm is None else norm_scale(recording, norm)
        bias, result = _bias(recording, step, norm, sources), (norm or step).outputs[0]
        for place, name in enumerate(step.inputs[:2]):
            if sources.of_matrix(name) and (place == 1 or step.op_type != "Conv"):
                own, axis = sources.names[name], output_axis(step, place)
                before, ahead = _norm_before(recording, step, place), sources.fixed.issuperset(step.uses)
                yield Use(own, own == name, sources.places[name], scale, axis, result, bias, before, ahead)


@dataclass(frozen=True)
class Part:
    """A weight, or some of its elements, or what is computed of weights alone, as an operand of no product.

    Attributes
    ----------
    name, places
        Of the weight, and which elements.
    before
        What was added before this is: a converter may add the two first.
    """

    name: str
    places: Array
    before: Array


def parts_of(recording: Recording) -> Iterator[Part]:
    """Yield weights where they are operands of no product, and all that is computed of weights alone.

    Parameters
    ----------
    recording
        As of `uses_of`.
    """
    sources, found, added = Sources(recording), set[str](), dict[str, Array]()
    for step in recording.steps:
        sources.follow(step)
        if sources.fixed.issuperset(step.uses):
            made = [name for name in step.outputs if sources.names.get(name) == name]
            yield from (Part(name, sources.places[name], np.zeros(())) for name in made)
            continue
        for name in (each for each in step.uses if each in sources.names and each not in found):
            found.add(name)
            before = next((added[each] for each in step.uses if each in added), np.zeros(()))
            places = sources.places[name]
            yield Part(sources.names[name], places, before if _fits(before, places) else np.zeros(()))
        if (shift := _shift(recording, step, sources, added)) is not None:
            added[step.outputs[0]] = shift


def _fits(array: Array, other: Array) -> bool:
    """Tell whether an array broadcasts to another's shape."""
    sides = zip(reversed(array.shape), reversed(other.shape), strict=False)
    return array.ndim <= other.ndim and all(one in (1, side) for one, side in sides)


def _shift(recording: Recording, step: Step, sources: Sources, added: Mapping[str, Array]) -> Array | None:
    """Return what was added to a result last, as it broadcasts to that; None: nothing is known of it."""
    held = recording.tensors
    fixed = [name for name in step.uses if name in sources.names]
    if step.op_type == "Add" and len(fixed) == 1:
        return held[fixed[0]]
    if step.op_type == "Conv" and len(step.uses) > 2:
        return held[step.inputs[2]].reshape(-1, *(1,) * (held[step.outputs[0]].ndim - 2))
    maker = recording.graph.producer(step.inputs[0])
    if step.op_type == "BatchNormalization" and maker is not None and maker.op_type == "Conv":
        bias = _bias(recording, recording.steps[recording.graph.places[step.inputs[0]]], step, sources)
        return bias.numbers.reshape(-1, *(1,) * (held[step.outputs[0]].ndim - 2))
    if step.op_type == "ReduceMean" and step.inputs[0] in added:
        shape = held[step.inputs[0]].shape
        operands = [held[name] if name else None for name in step.inputs[1:]]
        (mean,) = evaluate_node(step, [np.broadcast_to(added[step.inputs[0]], shape), *operands], np.float64)
        return np.asarray(mean)
    return None


def _norm_before(recording: Recording, step: Step, place: int) -> NormBefore | None:
    """Return the layer norm whose results a matrix at a place multiplies."""
    held, norm = recording.tensors, recording.graph.producer(step.inputs[0])
    if place != 1 or held[step.inputs[1]].ndim != 2 or norm is None or norm.op_type != "LayerNormalization":
        return None
    names = norm.inputs[1], norm.inputs[2] if len(norm.inputs) > 2 else ""
    factors = held[names[0]]
    if factors.ndim != 1:
        return None
    return NormBefore(names, factors, held[names[1]] if names[1] else np.zeros_like(factors))


def _bias(recording: Recording, step: Step, norm: Node | None, sources: Sources) -> Bias:
    """Return what a product, or the norm behind it, is shifted by."""
    held = recording.tensors
    if norm is not None:
        added = [held[name] for name in step.uses[2:]]
        shift, mean = (held[norm.inputs[place]] for place in (2, 3))
        numbers = shift + (sum(added) - mean) * norm_scale(recording, norm)
        return Bias(norm.inputs[2], np.arange(shift.size), numbers, norm.outputs[0])
    adding: list[tuple[Node, Sequence[str]]] = [(step, step.uses[2:])] if step.op_type == "Conv" else []
    users = recording.graph.consumers.get(step.outputs[0], []) if step.op_type == "MatMul" else []
    adding += [(user, user.uses) for user in users if user.op_type == "Add" and len(users) == 1]
    found = [
        Bias(sources.names[name], sources.places[name].ravel(), held[name].ravel(), node.outputs[0])
        for node, names in adding
        for name in names
        if name in sources.names and held[name].size == max(held[name].shape, default=1)
    ]
    return found[0] if found else Bias()
