"""Replaying the reference in float64, step by step, on a candidate's own tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from conformance.bounds import (
    FLOAT32,
    Declaration,
    Format,
    Shared,
    carried_bounds,
    copied_weights,
    narrowed_attributes,
)
from conformance.bounds.worst_element import is_varied, unlike_rounding
from conformance.graph.evaluation import evaluate_node
from refimpl import Recording, Step
from refimpl.ops import TRAITS, Trait, having
from refimpl.ops.operation import Array

DATA_MOVEMENT = having(Trait.MOVES) | {"Cast"}
"""Operations whose results a candidate need not hold as tensors of their own."""

OF_ONE = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
"""Operations that make the same of any single element."""

TABLE_ROUNDINGS = 32.0
"""Unit roundoffs of its largest element by which a table that the exporter computes may be off."""


class Structure:
    """Who computes and who uses each tensor of a recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.graph = recording.graph
        self.maps = _maps(recording)
        self.biases = _biases(recording)

    def compared(self, outputs: Iterable[str]) -> set[str]:
        """Return the tensors that a candidate with these outputs should hold.

        Left out: what does not depend on the images, what only moves data, what holds no floats, and a
        convolution before its batch norm.
        """
        return {name for name in self._computed(outputs) if not self._before_norm(name)}

    def folded(self, outputs: Iterable[str]) -> set[str]:
        """Return the tensors that a candidate may hold but need not: convolutions before a batch norm."""
        return {name for name in self._computed(outputs) if self._before_norm(name)}

    def _computed(self, outputs: Iterable[str]) -> set[str]:
        wanted = [self.recording.outputs[name] for name in outputs]
        steps = self.graph.between((), wanted)
        used = {*wanted, *(name for step in steps for name in step.uses)}
        made = {name for step in steps if step.op_type not in DATA_MOVEMENT for name in step.outputs}
        tensors = self.recording.tensors
        floats = {name for name in made & used if tensors[name].dtype.kind == "f" and tensors[name].size}
        return floats & self.graph.dependent(self.recording.inputs.values())

    @cached_property
    def immaterial(self) -> set[str]:
        """The tensors of which no output sees anything: a Softmax over one element, as of one key, is one."""
        steps = self.recording.steps
        given = {step.outputs[0] for step in steps if step.op_type in OF_ONE and self._of_one(step)}
        outputs = self.recording.outputs.values()
        seen = {name for step in self.graph.between(given, outputs) for name in step.outputs} - given
        return {name for step in steps for name in step.outputs if name not in seen} if given else set()

    def _of_one(self, step: Step) -> bool:
        shape = self.recording.tensors[step.inputs[0]].shape
        return bool(shape) and shape[step.attributes.get("axis", -1)] == 1

    def _before_norm(self, name: str) -> bool:
        return any(step.op_type == "BatchNormalization" for step in self.graph.consumers.get(name, []))

    def soon_found(self, name: str, found: Mapping[str, object], compared: set[str], reach: int) -> list[str]:
        """Return the nearest found ones computed from ``name`` through fewer than ``reach`` compared ones."""
        front = {name}
        for _ in range(reach):
            front = self._next_compared(front, compared)
            if nearest := [tensor for tensor in front if tensor in found]:
                return nearest
        return []

    def within(self, name: str, compared: set[str], reach: int) -> set[str]:
        """Return a tensor and those computed from it through fewer than ``reach`` compared ones."""
        front, reached = {name}, {name}
        for _ in range(reach):
            front = self._next_compared(front, compared)
            reached |= front
        return reached

    def heirs(self, wrong: Collection[str], found: Collection[str]) -> set[str]:
        """Return the tensors that are computed from ``wrong`` ones through others that are not ``found``."""
        reached: set[str] = set()
        for step in self.recording.steps:
            if any(name in reached or name in wrong for name in step.inputs if name not in found):
                reached.update(step.outputs)
        return reached

    def behind(self, name: str, found: Collection[str]) -> list[str]:
        """Return what ``name`` is computed from through tensors that are not ``found``, the nearest first."""
        wanted, reached = {name}, []
        for step in reversed(self.recording.steps):
            if wanted.intersection(step.outputs):
                wanted.update(set(step.uses).difference(found))
                reached += [output for output in step.outputs if output in wanted and output != name]
        return reached

    def _next_compared(self, front: set[str], compared: set[str]) -> set[str]:
        reached, waiting, seen = set(), list(front), set(front)
        while waiting:
            for step in self.graph.consumers.get(waiting.pop(), []):
                fresh = set(step.outputs) - seen
                seen |= fresh
                reached |= fresh & compared
                waiting += fresh - compared
        return reached


def _biases(recording: Recording) -> dict[str, str]:
    """Return the matrix products to which a constant is added and that nothing else uses, each with it."""
    fixed, users = {*recording.weights, *recording.constants}, recording.graph.consumers
    found: dict[str, str] = {}
    for step in recording.steps:
        if fixed.issuperset(step.uses):
            fixed.update(step.outputs)
    for name in (step.outputs[0] for step in recording.steps if step.op_type == "MatMul"):
        after = users.get(name, [])
        if len(after) == 1 and after[0].op_type == "Add" and name not in recording.outputs.values():
            found.update((name, other) for other in after[0].inputs if other in fixed)
    return found


def _maps(recording: Recording) -> set[str]:
    """Return the tensors whose last two axes are rows and columns.

    What operations on maps take and give, and what is computed of them, or they of it, element by element.
    """
    maps: set[str] = set()
    before = -1
    while len(maps) > before:
        before = len(maps)
        for step in recording.steps:
            names = {*step.inputs[:1], step.outputs[0]} - {""}
            alike = len({recording.tensors[name].shape for name in names}) == 1
            if Trait.MAPS in TRAITS[step.op_type] or (
                alike and step.operation not in DATA_MOVEMENT and not maps.isdisjoint(names)
            ):
                maps |= {name for name in names if recording.tensors[name].ndim == 4}
    return maps


class Replay:
    """A float64 forward pass on a candidate's tensors where known, with a bound on every result.

    After `adopt`, the steps that follow compute on the candidate's values: what the candidate has differs
    from the result by the error it introduced there. What it lacks is carried along, with the bound of all
    that it may have fused.

    Parameters
    ----------
    recording
    declaration
        What the candidate computes with.
    folded
        Constant → by how much each element of the candidate's may be off, where both sides are computed in
        float64 and differ by their constants alone (`conformance.judge.folding`); None: each constant by what
        storing it costs.
    wide_float16
        As of `conformance.candidates.candidate.OwnGraph`.
    finely
        Results that the candidate stores, with all that it may have fused before them, as finely as it
        declares of any.
    """

    def __init__(
        self,
        recording: Recording,
        declaration: Declaration,
        folded: Mapping[str, Array] | None = None,
        wide_float16: bool = False,
        finely: Collection[str] = (),
    ) -> None:
        self.declaration = declaration
        self.wide_float16 = wide_float16
        self.folded = folded
        self.finely = finely
        self.last_use = {name: step.name for step in recording.steps for name in step.uses}
        self.values = {name: recording.tensors[name] for name in recording.inputs.values()}
        self.bounds: dict[str, Array | None] = {}
        self.scales: dict[str, Array | None] = {}
        self.fixed = {*recording.weights, *recording.constants}
        self.constant = {*self.fixed}
        self.unrounded = {name for name, array in self.values.items() if self._is_unrounded(array)}
        self.added: dict[str, Array] = {}
        for name in [*recording.weights, *recording.constants]:
            self.values[name] = array = recording.tensors[name]
            if folded is not None:
                if name in folded:
                    self.bounds[name] = self.scales[name] = folded[name]
                continue
            storage = self._storage_of(name, recording)
            if error := stored_error(array, storage, computed=name in recording.constants):
                self.bounds[name] = self.scales[name] = np.full(array.shape, error)
        copied = copied_weights(recording, declaration)
        self.bounds |= copied
        self.scales |= copied

    def _storage_of(self, name: str, recording: Recording) -> Format:
        """Return what a weight or constant is stored in: as finely as every step that uses it."""
        users = recording.graph.consumers.get(name, [])
        fine = bool(users) and all(step.outputs[0] in self.finely for step in users)
        return self.declaration.finest if fine else self.declaration.storage

    def compute(self, step: Step) -> None:
        """Compute a step, how far a correct candidate may be from it, and how far it likely is."""
        operands = step.operands(self.values)
        outputs = evaluate_node(step, operands, np.float64)
        self.values.update(zip(step.outputs, outputs, strict=False))
        declared = self._declared(step)
        shared: Shared = {}
        for errors, probable in ((self.bounds, False), (self.scales, True))[
            : 2 if self.folded is None else 1
        ]:
            before = [errors.get(name, 0.0) for name in step.inputs]
            if declared.otherwise and step.op_type not in DATA_MOVEMENT:
                before = self._stored_before(step, before)
            call = (step, operands, before, outputs, declared)
            after = carried_bounds(*call, probable=probable, shared=shared)
            errors.update(zip(step.outputs, after, strict=False))
        if step.op_type in DATA_MOVEMENT and not self.unrounded.isdisjoint(step.uses):
            self.unrounded.update(step.outputs)
        self._widen(step.outputs[0], narrowed_attributes(step, operands, self.declaration))
        if self.constant.issuperset(step.uses):
            self.constant.update(step.outputs)
        elif self.declaration.runtime.adds_constants_first and step.op_type == "Add":
            self._allow_constants_first(step)

    def computes_more(self, step: Step) -> bool:
        """Tell whether of a step more is noted than its results, which `adopt` replaces."""
        first = self.declaration.runtime.adds_constants_first and step.op_type == "Add"
        return first or self.constant.issuperset(step.uses) or self.fixed.issuperset(step.uses)

    def _allow_constants_first(self, step: Step) -> None:
        """Widen the bound of (x + b) + c, c constant, by the roundings of x + b and of b + c."""
        constants = [self.values[name] for name in step.inputs if name in self.constant]
        (result,), before = step.outputs, [name for name in step.inputs if name in self.added]
        if len(constants) != 1:
            return
        total = constants[0] + sum(self.added[name] for name in before)
        for name in before:
            sizes = np.abs(self.values[name]) + np.abs(total)
            self._widen(result, self.declaration.arithmetic.unit_roundoff * sizes)
        self.added[result] = total

    def _widen(self, name: str, error: Array | float) -> None:
        """Add to how far a correct tensor may be off, where that is known."""
        for errors in (self.bounds, self.scales) if np.any(error) else ():
            held = errors.get(name, 0.0)
            errors[name] = None if held is None else np.asarray(held + error)

    def _stored_before(
        self, step: Step, errors: Sequence[Array | float | None]
    ) -> list[Array | float | None]:
        """Return by how much operands may be off that may be cast before a step."""
        storage = self.declaration.storage
        return [
            np.asarray(error + storage.rounding_of(self.values[name]))
            if error is not None and name in self.unrounded
            else error
            for name, error in zip(step.inputs, errors, strict=True)
        ]

    def _declared(self, step: Step) -> Declaration:
        """Return what a step is computed with.

        Of a graph that stores some tensors more coarsely, those that it stores finely.

        Of two graphs in float64, what is computed of constants alone was computed in float32, and the numbers
        within an operation (a sixth in HardSwish) may have become constants.
        """
        declared = self.declaration
        if step.outputs[0] in self.finely:
            declared = declared.finely()
        if self.folded is None:
            return declared
        if self.fixed.issuperset(step.uses):
            self.fixed.update(step.outputs)
            return Declaration()
        elementwise = Trait.ELEMENTWISE in TRAITS[step.op_type]
        return replace(declared, arithmetic=FLOAT32) if elementwise else declared

    def bound(self, name: str) -> Array | float:
        """Return how far a correct tensor may be from ``values[name]``; infinite without a bound."""
        bound = self.bounds.get(name, 0.0)
        return np.inf if bound is None else bound

    def unlike_rounding(self, step: Step, name: str, values: Array) -> str | None:
        """Say how a tensor within its bound differs from ``values[name]`` otherwise than by rounding."""
        bound, scale = self.bounds.get(name), self.scales.get(name)
        # Of integers that share a scale, those beside a much larger one may all become zero.
        if (
            self.folded is not None
            or self.declaration.runtime.makes_integers
            or bound is None
            or scale is None
        ):
            return None
        roundoff = self._declared(step).storage.unit_roundoff
        reason = unlike_rounding(values, self.values[name], bound, scale, roundoff)
        return reason if reason and self._fed_varied(step) else None

    def _fed_varied(self, step: Step) -> bool:
        """Whether what a step is computed of is not rounded alike everywhere."""
        # A constant of few values, such as 1/n, is rounded alike wherever it is a factor.
        rounded = self.declaration.runtime.rounds_operands and Trait.SUMS in TRAITS[step.op_type]
        return all(is_varied(self.values[name]) for name in step.uses if rounded or name not in self.fixed)

    def forget(self, step: Step) -> None:
        """Free what no later step uses."""
        for name in {*step.uses, *step.outputs}:
            if self.last_use.get(name, step.name) == step.name:
                for kept in (self.values, self.bounds, self.scales):
                    kept.pop(name, None)

    def _is_unrounded(self, values: Array) -> bool:
        """Tell whether floats are stored more finely than some of the candidate's tensors.

        Where both sides are computed in float64 nothing is cast.
        """
        storage = self.declaration.storage
        return (
            self.folded is None
            and self.declaration.otherwise is not None
            and values.dtype.kind == "f"
            and not np.array_equal(storage.rounded(values), values)
        )

    def adopt(self, name: str, values: Array) -> None:
        """Continue with the candidate's values of a tensor."""
        self.values[name] = values.astype(np.float64)
        self.bounds.pop(name, None)
        self.scales.pop(name, None)
        self.unrounded |= {name} if self._is_unrounded(values) else set()
        storage = self.declaration.storage
        unrounded = self.declaration.runtime.stores_when_used and not np.array_equal(
            storage.rounded(values), values
        )
        if unrounded or (self.wide_float16 and values.dtype == np.float16):
            self.bounds[name] = self.scales[name] = storage.rounding_of(self.values[name])


def stored_error(array: Array, storage: Format, computed: bool) -> float:
    """Return by how much a candidate's copy of a fixed tensor may be off.

    Nothing if the format holds it exactly; one rounding for a weight or a scalar; more for a table that the
    exporter computes itself in its own precision, as it does position embeddings: sines of angles up to 2π
    that are rounded first.
    """
    if array.dtype.kind != "f" or np.array_equal(storage.rounded(array), array):
        return 0.0
    roundings = TABLE_ROUNDINGS if computed and array.ndim else 1.0
    return roundings * storage.unit_roundoff * float(np.abs(array).max())
