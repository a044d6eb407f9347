"""Diagnosis: which mistake makes the failing step compute what the candidate has.

Every fault of the catalogue that can be at the failing step, or at a step between it and the last tensors
that agree, is made in float64 on the candidate's own operands. It is named if the candidate's tensor is then
within the bound. Where none is, the alterations are tried in the same way, which rules make and no memory;
and how the tensor relates to the right one is solved for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from conformance.bounds import Declaration, Format, propagated_bound
from conformance.bounds.worst_element import absolute_error, utilisation
from conformance.faults import ALTERATIONS, CATALOGUE, Fault, ShapedGraph, Variant
from conformance.faults.preprocessing import MEAN
from conformance.graph.evaluation import evaluate_node, run, widened
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.alignment import CandidateTensors, aligned, layouts
from conformance.judge.fed_picture import AFFINE, fed_picture
from conformance.judge.relation import relation
from conformance.judge.replay import DATA_MOVEMENT, stored_error
from conformance.pictures.inputs import Resized, not_resized
from conformance.reports.report import NO_MISTAKE, Comparison, Diagnosis, is_telling
from refimpl import Recording
from refimpl.errors import MobileInstError
from refimpl.graph import Node
from refimpl.ops.operation import Array

NEAR = 0.02
"""Relative difference of extremes up to which a tensor may be the one a fault makes; cheaper to check than
its bound."""
LOOSE = 0.1
"""Of the largest element: a bound above it proves nothing."""
MOSTLY = 0.75
"""Share of elements so bounded beyond which nothing is proved; at ties of nearest resize it is wide."""
MOST = 5
"""How many diagnoses are reported."""
FEWER = 0.5
"""By which factor error / bound must fall where it was not above 1: a fault hidden in a loose bound."""


def _evaluated(call: Node, operands: Sequence[Array | None]) -> tuple[Array, ...]:
    """Return a call's results in float64: casts narrow nothing."""
    return evaluate_node(call, operands, np.float64)


@dataclass(frozen=True)
class Explanation:
    """Why a tensor is wrong.

    Attributes
    ----------
    diagnoses
        At most `MOST`, the likeliest first.
    evidence
        What the numbers say of themselves, in sentences.
    """

    diagnoses: list[Diagnosis] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)


def unexplained(diagnoses: Sequence[Diagnosis], evidence: Sequence[str]) -> list[str]:
    """Say that no mistake fits, where neither one was found nor the numbers tell more than a size."""
    if diagnoses or any(map(is_telling, evidence)):
        return []
    tried = f"{len(CATALOGUE)} and, without memory, {len(ALTERATIONS)} kinds"
    return [f"{NO_MISTAKE}: {tried} were tried"]


def diagnose(
    recording: Recording,
    steps: Sequence[Comparison],
    outputs: Sequence[Comparison],
    captured: Mapping[str, Array],
    given: Mapping[str, Array],
    declared: Declaration,
    placed: tuple[str, str] | None = None,
    resized: Resized = not_resized,
) -> Explanation:
    """Name the mistakes that explain where a candidate first leaves the reference: a step, or else an output.

    Parameters
    ----------
    recording
        The reference's run in float64.
    steps, outputs
        The judged steps and outputs, in order; steps that pass say which of the candidate's tensors are the
        reference's.
    captured, given
        The candidate's tensors and outputs by name.
    declared
        How the candidate computes.
    placed
        The first wrong step and the candidate's tensor in its place, where the wiring tells.
    resized
        The picture, resized in other ways.
    """
    first = next((row for row in (*steps, *outputs) if row.verdict == "fail"), None)
    if first is None:
        return Explanation()
    graph = ShapedGraph.of_recording(recording)
    values = _AlignedValues(recording, graph, steps, captured)
    is_output = first.name in recording.outputs.values() and first.candidate in given
    make = partial(_Search, graph, values, declared, resized=resized)
    explained = None
    if placed and first in steps and not is_output:
        there = captured[placed[1]]
        search = make(CandidateTensors({placed[0]: there}), certain=True)
        explained = search.explanation(placed[0], there, first.utilisation)
        if explained.diagnoses:
            return explained
    if first in steps and not is_output:
        search = make(_fresh(steps, first, captured))
        guessed = search.explanation(first.name, _observed(first, captured), first.utilisation)
        return replace(guessed, evidence=explained.evidence) if explained else guessed
    # The run in which every tensor was captured is the one whose operands are known.
    observed = _observed(first, {**given, **captured})
    if observed is None:
        return Explanation()
    search = make(CandidateTensors({first.name: observed}), certain=True)
    target = first.name if first in steps else recording.outputs[first.name]
    return search.explanation(target, observed, first.utilisation)


def diagnose_node(
    graph: OnnxGraph, known: Mapping[str, Array], node: Comparison, declared: Declaration
) -> Explanation:
    """Name the mistakes that explain a node of the candidate's own graph that its runtime computes wrongly.

    Parameters
    ----------
    graph
    known
        The inputs and the candidate's tensors, by name.
    node
        The judged output of the node.
    declared
        How the candidate computes.
    """
    view = ShapedGraph.of_onnx(graph, known)
    values = {**graph.initializers, **known}
    target = CandidateTensors({node.name: known[node.name]})
    search = _Search(view, _KnownValues(values), declared, target, certain=True)
    return search.explanation(node.name, known[node.name], node.utilisation)


def steps_behind(
    recording: Recording, steps: Sequence[Comparison], captured: Mapping[str, Array], target: str
) -> tuple[list[Node], dict[str, Array]]:
    """Return the reference's steps between a tensor and the candidate's that agree, and what they are fed.

    Parameters
    ----------
    recording, steps, captured
        As of `diagnose`; without steps, all of the network up to the tensor is returned.
    target
        The reference's name of the tensor.

    Returns
    -------
    calls, operands
        In order; by the reference's names and in its layouts, float64: the images, and the candidate's
        tensors. Weights and constants are not among them.
    """
    graph = ShapedGraph.of_recording(recording)
    values = _AlignedValues(recording, graph, steps, captured)
    calls = graph.between(values, {target})
    made = {*recording.weights, *recording.constants, *(name for call in calls for name in call.outputs)}
    fed = dict.fromkeys(name for call in calls for name in call.inputs if name and name not in made)
    return calls, {name: values[name] for name in fed}


def agreeing(steps: Sequence[Comparison]) -> dict[str, str]:
    """Return the steps that pass with the candidate's tensors that they are.

    One that stands for a wrong step before proves nothing of a later: it is compared with itself.
    """
    found, wrong = dict[str, str](), set[str | None]()
    for row in steps:
        if row.verdict != "pass":
            wrong.add(row.candidate)
        elif row.candidate is not None and row.candidate not in wrong:
            found[row.name] = row.candidate
    return found


def _fresh(steps: Sequence[Comparison], first: Comparison, captured: Mapping[str, Array]) -> CandidateTensors:
    """Return the candidate's tensors that are none of the reference's up to the first that fails."""
    known = set(agreeing(steps).values())
    return CandidateTensors({name: array for name, array in captured.items() if name not in known})


def _observed(row: Comparison, captured: Mapping[str, Array]) -> Array | None:
    return captured.get(row.candidate) if row.candidate is not None else None


class _KnownValues:
    """Values of tensors by name, in float64, and which of them are the candidate's own."""

    def __init__(self, values: Mapping[str, Array]) -> None:
        self.values = values

    def __contains__(self, name: object) -> bool:
        """Tell whether a tensor need not be computed."""
        return name in self.values

    def __getitem__(self, name: str) -> Array:
        return widened(self.values[name])


class _AlignedValues(_KnownValues):
    """The candidate's tensors under the reference's names; what it lacks is computed from them when asked
    for."""

    def __init__(
        self,
        recording: Recording,
        graph: ShapedGraph,
        steps: Sequence[Comparison],
        captured: Mapping[str, Array],
    ) -> None:
        super().__init__({})
        self.recording = recording
        self.graph = graph
        self.captured = captured
        self.names = {
            row.name: row.candidate for row in steps if row.verdict == "pass" and row.candidate in captured
        }
        self.computed: dict[str, Array] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.names or name in self.graph.inputs.values() or name in self.graph.weights

    def __getitem__(self, name: str) -> Array:
        if name not in self.computed:
            self.computed[name] = self._value(name)
        return self.computed[name]

    def _value(self, name: str) -> Array:
        if name in self.names:
            return widened(aligned(self.captured[self.names[name] or ""], self.recording.tensors[name]))
        call = self.graph.producer(name)
        if call is None:
            return widened(self.recording.tensors[name])
        operands = [self[operand] if operand else None for operand in call.inputs]
        made = _evaluated(call, operands)
        self.computed.update(zip(call.outputs, made, strict=False))
        return self.computed[name]


@dataclass(frozen=True)
class _Hypothesis:
    fault: Fault
    call: Node
    variant: Variant


class _Search:
    """Tries the faults of the catalogue on the calls between a failing tensor and those that are known.

    ``certain`` says that the candidate's tensor is known by name, not only one of many that may be it;
    ``resized`` has the picture, resized in other ways.
    """

    def __init__(
        self,
        graph: ShapedGraph,
        values: _KnownValues,
        declared: Declaration,
        candidates: CandidateTensors,
        certain: bool = False,
        resized: Resized = not_resized,
    ) -> None:
        self.graph = graph
        self.values = values
        self.declared = declared
        self.candidates = candidates
        self.certain = certain
        self.resized = resized

    def explanation(self, target: str, observed: Array | None, failing: float | None) -> Explanation:
        """Return the mistakes that explain a tensor, those of the catalogue first, and how it relates."""
        found = self.diagnoses(CATALOGUE, target, observed, failing)
        if not any(diagnosis.source for diagnosis in found):
            found = [*self.diagnoses(ALTERATIONS, target, observed, failing), *found]
        said = [] if observed is None else self.relation(target, observed)
        return Explanation(found[:MOST], said)

    def relation(self, target: str, observed: Array) -> list[str]:
        """Say how the candidate's tensor relates to the right one."""
        chain = self.chain({target})
        try:
            values, bounds = self._propagated(chain, {}, self.declared)
        except MobileInstError:
            return []
        right, known = values[target], self._operands(chain, {})
        if observed.size != right.size:
            return [f"{target}: the candidate's has shape {observed.shape}, the reference's {right.shape}"]
        observed = widened(observed)
        in_place = [size for size in observed.shape if size > 1] == [size for size in right.shape if size > 1]
        wrong = observed.reshape(right.shape) if in_place else aligned(observed, right)
        fed = {name: x for name, x in known.items() if name not in self.graph.weights}
        said = [f"{target}: the candidate's {relation(right, wrong, bounds[target], fed)}"]
        return said + self._picture(chain, target, wrong, bounds[target])

    def _picture(self, chain: list[Node], target: str, wrong: Array, bound: Array | None) -> list[str]:
        """Say which picture would give the candidate's tensor, if the stretch begins with it."""
        inputs = {name for call in chain for name in call.uses} & set(self.graph.inputs.values())
        affine = all(call.op_type in AFFINE for call in chain)
        if len(inputs) != 1 or not affine or bound is None:
            return []
        (name,) = inputs
        images = self.values[name]
        if images.ndim != 4 or images.shape[1] != MEAN.size:
            return []
        operands = self._operands(chain, {})

        def compute(fed: Array) -> Array:
            return run(chain, {**operands, name: fed}, _evaluated)[target]

        said = fed_picture(compute, images, wrong, bound, self.resized())
        return [said] if said else []

    def diagnoses(
        self,
        catalogue: Mapping[str, Fault],
        target: str,
        observed: Array | None,
        failing: float | None,
    ) -> list[Diagnosis]:
        """Return the mistakes of a catalogue that explain a tensor, the likeliest first."""
        limit = 1.0 if failing is None or failing > 1 else FEWER * failing
        chain = self.chain({target})
        found = [
            (self._rank(hypothesis, reached, target), self._diagnosis(hypothesis, reached))
            for hypothesis in self.hypotheses(catalogue, chain, target, observed)
            if (reached := self.explains(hypothesis, chain, target)) is not None and reached <= limit
        ]
        found.sort(key=lambda pair: pair[0])
        return [diagnosis for _, diagnosis in found][:MOST]

    @staticmethod
    def _rank(hypothesis: _Hypothesis, reached: float, target: str) -> tuple[bool, bool, float]:
        """Order: a fault is likelier at the failing step than before it.

        Narrower formats come last, since they explain every small error, the widest of them first.
        """
        narrow = hypothesis.variant.formats is not None
        return narrow, target not in hypothesis.call.outputs, -reached if narrow else reached

    @staticmethod
    def _diagnosis(hypothesis: _Hypothesis, reached: float) -> Diagnosis:
        fault, variant = hypothesis.fault, hypothesis.variant
        return Diagnosis(
            fault.name, fault.happens, variant.detail, hypothesis.call.name, reached, fault.source
        )

    def chain(self, targets: set[str]) -> list[Node]:
        """Return the calls that compute tensors from what is known, in order."""
        return self.graph.between(self.values, targets)

    def _replaced(self, chain: list[Node], call: Node, others: tuple[Node, ...]) -> list[Node]:
        """Return the chain with other calls in the place of one; what that is fed comes first if it is
        before the chain."""
        if call in chain:
            return [new for old in chain for new in (others if old.name == call.name else (old,))]
        fed = self.chain({name for name in call.uses if name not in self.values})
        return [*fed, *others, *chain]

    def hypotheses(
        self, catalogue: Mapping[str, Fault], chain: list[Node], target: str, observed: Array | None
    ) -> Iterable[_Hypothesis]:
        """Yield every fault that can be in the chain, or directly after the calls that feed it."""
        fed = {name for call in chain for name in call.inputs}
        inside = {call.name for call in chain}
        for call in self.graph.nodes:
            if call.name not in inside and not fed.intersection(call.outputs):
                continue
            seen = (
                observed if target in call.outputs else None if call.name in inside else self._changed(call)
            )
            for fault in catalogue.values():
                for variant in fault.at(self.graph, call, seen):
                    if call.name in inside or variant.follows(call):
                        yield _Hypothesis(fault, call, variant)

    def _changed(self, call: Node) -> Array | None:
        """Return the candidate's tensor that is a call's result but for some elements, if it holds one."""
        value = self.values[call.outputs[0]] if call.outputs[0] not in self.graph.constants else np.zeros(0)
        same = [self.candidates.tensors[name] for name in self.candidates.by_size.get(value.size, [])]
        alike = (array for array in same if array.shape == value.shape)
        return next((array for array in alike if np.median(absolute_error(array, value)) < 1e-6), None)

    def explains(self, hypothesis: _Hypothesis, chain: list[Node], target: str) -> float | None:
        """Return error / bound of the candidate's tensor if the fault is made, None if it holds no such
        tensor."""
        variant = hypothesis.variant
        try:
            if variant.formats is not None:
                return self._within_format(hypothesis, chain, target)
            return self._if_made(self._replaced(chain, hypothesis.call, variant.calls), variant, target)
        except (MobileInstError, ValueError, TypeError, IndexError, KeyError, ArithmeticError):
            return None  # a fault that cannot be computed on these operands is not the one

    def _within_format(self, hypothesis: _Hypothesis, chain: list[Node], target: str) -> float | None:
        """Return error / bound if one call computes and stores in other formats than the rest."""
        arithmetic, storage = hypothesis.variant.formats or (self.declared.arithmetic, self.declared.storage)
        narrow, call = replace(self.declared, arithmetic=arithmetic, storage=storage), hypothesis.call
        chain = self._replaced(chain, call, (call,))
        place = chain.index(call) + 1
        values, bounds = self._propagated(chain[:place], {}, narrow)
        for name in call.outputs:
            bounds[name] = _stored_bound(values[name], bounds[name], storage)
        if target not in call.outputs:
            if not self._holds_stored(values, bounds, call, storage):
                return None
            operands = {**self._operands(chain, {}), **values}
            errors = {name: bound for name in call.outputs if (bound := bounds[name]) is not None}
            values, bounds = propagated_bound(chain[place:], operands, self.declared, errors=errors)
        match = self._match(values[target], bounds[target])
        if match is None:
            return None
        array, reached = match
        stored = target in call.outputs and not np.array_equal(storage.rounded(array), array)
        return None if stored else reached

    def _holds_stored(
        self, values: Mapping[str, Array], bounds: Mapping[str, Array | None], call: Node, storage: Format
    ) -> bool:
        """Tell whether the candidate holds the result on the format's grid: a bound explains anything."""
        held = (self._match(values[name], bounds[name]) for name in call.outputs)
        return all(
            match is not None and np.array_equal(storage.rounded(match[0]), match[0]) for match in held
        )

    def _if_made(self, faulty: list[Node], variant: Variant, target: str) -> float | None:
        constants = self._stored(variant.constants)
        operands = self._operands(faulty, constants)
        made = run(faulty, operands, _evaluated)
        value = made.pop(target)
        moved = {name for call in faulty if call.op_type in DATA_MOVEMENT for name in call.outputs}
        known = {name: array for name, array in made.items() if name in operands or name in moved}
        if not self.certain and self._is_copy(value, known):
            return self._downstream(faulty, constants, target)
        return self._reached(faulty, constants, target, value)

    def _reached(
        self, calls: list[Node], constants: Mapping[str, Array], target: str, value: Array
    ) -> float | None:
        if not any(True for _ in self._near(value)):
            return None
        values, bounds = self._propagated(calls, constants, self.declared)
        match = self._match(values[target], bounds[target])
        return None if match is None else match[1]

    @staticmethod
    def _is_copy(value: Array, operands: Mapping[str, Array]) -> bool:
        """Tell whether the faulty tensor is but an operand, or one moved, as when a summand is left out:
        finding that proves nothing."""
        return any(x.size == value.size and _extremes(x) == _extremes(value) for x in operands.values())

    def _downstream(self, faulty: list[Node], constants: Mapping[str, Array], target: str) -> float | None:
        """Look for what the next steps make of the faulty tensor."""
        made = {call.name for call in faulty}
        for user in self.graph.consumers.get(target, []):
            for name in self._judged_after(user):
                calls = [*faulty, *(call for call in self.chain({name}) if call.name not in made)]
                value = run(calls, self._operands(calls, constants), _evaluated)[name]
                reached = self._reached(calls, constants, name, value)
                if reached is not None:
                    return reached
        return None

    def _judged_after(self, user: Node) -> list[str]:
        """Return the outputs of a call, or of the first after it that is the last or more than moves data."""
        while user.op_type in DATA_MOVEMENT:
            users = self.graph.consumers.get(user.outputs[0], [])
            if not users:
                break
            if len(users) != 1:
                return []
            user = users[0]
        return list(user.outputs)

    def _stored(self, constants: Mapping[str, Array]) -> dict[str, Array]:
        """Return new constants as the candidate stores them."""
        storage = self.declared.storage
        return {name: storage.rounded(x) if x.dtype.kind == "f" else x for name, x in constants.items()}

    def _operands(self, calls: Sequence[Node], constants: Mapping[str, Array]) -> dict[str, Array]:
        made = {name for call in calls for name in call.outputs}
        wanted = {name for call in calls for name in call.inputs if name} - made
        return {name: constants[name] if name in constants else self.values[name] for name in wanted}

    def _propagated(
        self, calls: Sequence[Node], constants: Mapping[str, Array], declared: Declaration
    ) -> tuple[dict[str, Array], dict[str, Array | None]]:
        operands = self._operands(calls, constants)
        errors = self._errors_of_constants(operands.keys() - constants.keys())
        return propagated_bound(calls, operands, declared, errors=errors)

    def _errors_of_constants(self, names: Iterable[str]) -> dict[str, Array]:
        """Return by how much the candidate's copies of weights and tables may be off."""
        graph, storage = self.graph, self.declared.storage
        errors = {
            name: stored_error(array, storage, computed=name not in graph.weights)
            for name in names
            if (array := graph.constants.get(name)) is not None
        }
        return {name: np.full(graph.shapes[name], error) for name, error in errors.items() if error}

    def _near(self, value: Array) -> Iterable[str]:
        """Yield the candidate's tensors that may be ``value``, by their extremes."""
        low, high = _extremes(value)
        reach = NEAR * max(abs(low), abs(high))
        for name in self.candidates.by_size.get(value.size, []):
            other_low, other_high = self.candidates.ranges[name]
            if abs(other_low - low) <= reach and abs(other_high - high) <= reach:
                yield name

    def _match(self, value: Array, bound: Array | None) -> tuple[Array, float] | None:
        """Return the candidate's tensor nearest to ``value`` and its largest error / bound.

        A bound in which anything lies explains nothing.
        """
        best = None
        if not np.isfinite(value).all():
            return None
        if bound is not None and (bound > LOOSE * np.abs(value).max(initial=0.0)).mean() > MOSTLY:
            return None
        for name in self._near(value):
            for array in layouts(self.candidates.tensors[name], value.shape):
                error = absolute_error(array, value)
                reached = float(utilisation(error, np.inf if bound is None else bound).max(initial=0.0))
                if bound is None and error.max(initial=0.0) > NEAR * np.abs(value).max(initial=0.0):
                    continue
                if best is None or reached < best[1]:
                    best = (array, reached)
        return best


def _stored_bound(value: Array, bound: Array | None, storage: Format) -> Array | None:
    """Return the bound of a result that is also rounded where the format it came in need not have been."""
    return None if bound is None else bound + storage.unit_roundoff * np.abs(value) + storage.smallest_normal


def _extremes(array: Array) -> tuple[float, float]:
    return float(array.min()), float(array.max())
