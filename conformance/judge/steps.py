"""Is this candidate MobileInst? Each step of the reference on the candidate's own operands.

A step is judged by the error it *introduces*, against a rigorous bound of what rounding may do there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice, takewhile

import numpy as np

from conformance.bounds import Declaration
from conformance.bounds.worst_element import worst_of
from conformance.candidates.candidate import FUSION_REACH, OwnGraph
from conformance.judge.alignment import LIKENESS, RESEMBLANCE, CandidateTensors, Match
from conformance.judge.detail import Spotlight
from conformance.judge.replay import Replay, Structure
from conformance.judge.same_nodes import SameNodes
from conformance.judge.wrong_tensor import Around
from conformance.reports.report import Comparison, Fault
from refimpl import Recording, Step
from refimpl.ops.operation import Array

MOST_FAULTS = 4
"""How many wrong tensors are taken over, one after another, so that the steps behind them are judged too."""
MOST_BEFORE = 16
"""Steps before a failing one, that seem fused away, which may be what is wrong."""
MOST_TRIED = 24
"""Tensors that are tried as one step's, the nearest first."""


@dataclass(frozen=True)
class _Prediction:
    """What a step makes of the candidate's own tensors, and the candidate's tensor that is it."""

    step: Step
    match: Match | None
    value: Array | None
    bound: Array | float
    reason: str | None = None
    """How what is within the bound is unlike rounding."""

    @property
    def known_value(self) -> Array:
        """What a step that is not found should be."""
        assert self.value is not None
        return self.value


def compare_steps(
    recording: Recording,
    outputs: Mapping[str, str],
    tensors: CandidateTensors,
    declaration: Declaration,
    *,
    captures_all: bool = True,
    own: OwnGraph | None = None,
    nodes: Sequence[Comparison] = (),
    folded: Mapping[str, Array] | None = None,
    reach: int = FUSION_REACH,
    finely: Collection[str] = (),
) -> tuple[list[Comparison], Fault | None]:
    """Find the reference's tensors in the candidate, and the first step it computes differently.

    Each step is computed on the candidate's own tensors, so an error is seen where it is made, however much
    or little the network makes of it later.

    Parameters
    ----------
    recording
        The reference's run.
    outputs
        Output → the candidate's tensor that is given for it.
    tensors
        What it captured.
    declaration
        What it is declared to compute with.
    captures_all
        Whether a tensor that it did not capture is one that it does not compute.
    own
        What it says it computes, by which the fault's place is named.
    nodes
        How the nodes of that were judged.
    folded
        As of `Replay`.
    reach
        How many steps in a row it may have fused.
    finely
        As of `Replay`.
    """
    both = recording, Structure(recording), outputs, tensors
    sides = _Sides(*both, declaration, captures_all, own, nodes, folded, reach, finely)
    seen = _compare_once(sides, {}, {})
    while len(seen.taken) < MOST_FAULTS and (place := _next_fault(sides, seen)):
        seen = _compare_once(sides, {**seen.taken, **place}, _until(sides, seen, place))
    first = next((row for row in seen.rows if row.verdict == "fail"), None)
    if first is None:
        return seen.rows, None
    between = own.names_between(seen.known, first.candidate) if own and first.candidate else []
    return seen.rows, Fault(first.name, first.operation, "network", tuple(between))


def of_one_key(recording: Recording, rows: Sequence[Comparison]) -> list[str]:
    """Say what the candidate may have left out, as no output sees it: `Structure.immaterial`."""
    unseen = Structure(recording).immaterial
    absent = [row.name for row in rows if row.name in unseen and row.verdict == "absent"]
    if not absent:
        return []
    return [
        f"a Softmax over one element is one whatever it is given: {len(absent)} steps before it were not "
        f"found, such as {absent[0]}; a larger input shows them"
    ]


SHORT = 9
"""Steps in a row over which no bound grows so far: those of a layer norm."""
EXACT = 1e-5
"""Of the largest of a tensor: what rounding leaves of a difference of float64's."""


@dataclass(frozen=True)
class _Sides:
    """The reference's run, and the candidate's tensors in which it is looked for."""

    recording: Recording
    structure: Structure
    outputs: Mapping[str, str]
    tensors: CandidateTensors
    declaration: Declaration
    captures_all: bool
    own: OwnGraph | None
    nodes: Sequence[Comparison]
    folded: Mapping[str, Array] | None
    reach: int
    finely: Collection[str]

    @cached_property
    def compared(self) -> set[str]:
        """What the candidate should hold."""
        return self.structure.compared(self.outputs)

    @property
    def reference(self) -> tuple[Recording, Structure, set[str]]:
        """Return the run, its structure, and what the candidate should hold of it."""
        return self.recording, self.structure, self.compared

    @cached_property
    def sought(self) -> set[str]:
        """What it should hold, and what it may."""
        return self.compared | self.structure.folded(self.outputs)

    @cached_property
    def given(self) -> dict[str, str]:
        """Tensor of the reference that is an output → the candidate's that is given for it."""
        return {self.recording.outputs[name]: own for name, own in self.outputs.items()}

    def is_kept(self, name: str, step: Step) -> bool:
        """Tell whether the candidate has a node of this operator that makes a tensor of this name."""
        maker = self.own.nodes.producer(name) if self.own else None
        return maker is not None and maker.op_type == step.op_type

    def is_with_bias(self, name: str, match: Match, value: Array, bound: Array | float) -> bool:
        """Tell whether a tensor is nearer to a product with its bias added than to the product alone."""
        bias = self.structure.biases.get(name)
        if bias is None or np.shape(self.recording.tensors[bias])[-1:] != value.shape[-1:]:
            return False
        biased = value + self.recording.tensors[bias]
        near = bound if np.isfinite(bound).any() else 1.0
        return biased.shape == value.shape and (
            worst_of(match.values, biased, near).utilisation < worst_of(match.values, value, near).utilisation
        )

    def wrong_output(self, name: str, value: Array, bound: Array | float) -> Match | None:
        """Return what the candidate gives for a tensor, if that is an output and not within its bound.

        Nothing is computed of an output, so what is done to it last shows nowhere else.
        """
        own = self.tensors.tensors.get(self.given.get(name, ""))
        alike = own is not None and own.shape == value.shape
        if not alike or not self.captures_all or not np.isfinite(bound).any():
            return None
        if self._is_given_narrow(name, own):
            bound = bound + self.declaration.storage.rounding_of(value)
        match = self.tensors.named(self.given[name], value, bound)
        return match if match is not None and match.worst.utilisation > 1 else None

    def _is_given_narrow(self, name: str, own: Array | None) -> bool:
        """Tell whether an output says that it was rounded: what says float32 is to hold it."""
        bfloat16 = self.own.graph.bfloat16 if self.own and self.own.graph else ()
        return self.given[name] in bfloat16 or (own is not None and own.dtype == np.float16)

    def match(self, name: str, value: Array, bound: Array | float) -> Match | None:
        """Find a tensor within its bound.

        Where that is so loose, or missing, that anything is, one that resembles it, if the candidate holds
        all of its tensors: else it may be the next one.
        """
        if np.isfinite(bound).any():
            match = self.tensors.find(value, bound, name in self.structure.maps, called=name)
            largest = float(np.abs(value).max(initial=0.0))
            if float(np.max(bound, initial=0.0)) <= LIKENESS * largest:
                return match
        else:
            match = self.tensors.nearest(value, np.inf, set())
        return match if self.captures_all and match and match.resembles(value) else None


@dataclass(frozen=True)
class _Seen:
    """The comparisons of all steps, some wrong tensors taken for what they should be.

    Attributes
    ----------
    taken
        Step → the wrong tensor on which those after it were computed.
    rows
    known
        The candidate's tensors that are right.
    missed
        Steps that fail and have none taken.
    found
        Step → the candidate's values of it.
    lacking
        Step that is not found → what it should be.
    likely
        Such a step → the tensor nearest to it.
    sure
        Steps of which that is a version, or has the name.
    predictions
        Of all steps.
    """

    taken: Mapping[str, Match]
    rows: list[Comparison]
    known: set[str]
    missed: set[str]
    found: Mapping[str, Array]
    lacking: Mapping[str, _Prediction]
    likely: Mapping[str, Match]
    sure: set[str]
    predictions: Mapping[str, _Prediction]


def _until(sides: _Sides, seen: _Seen, place: Mapping[str, Match]) -> dict[str, _Prediction]:
    """Return what was predicted before a tensor is taken: that stays as it is."""
    ahead = takewhile(lambda step: place.keys().isdisjoint(step.outputs), sides.recording.steps)
    names = (name for step in ahead for name in step.outputs)
    return {name: seen.predictions[name] for name in names if name in seen.predictions}


def _next_fault(sides: _Sides, seen: _Seen) -> dict[str, Match]:
    """Return the first step that fails and is not yet taken over, with the wrong tensor that it is.

    What seemed fused away before it may be what is wrong; and where nothing resembles it, it may be fused
    away itself, and a later one wrong. Such a tensor is known by what the candidate computes of it.
    """
    failing = next((row for row in seen.rows if row.name in seen.missed), None)
    if failing is None:
        return {}
    around = Around(*sides.reference, sides.declaration, sides.tensors, seen.found, sides.reach)
    own = seen.likely.get(failing.name) if failing.name in seen.sure else None
    # What was not captured may be there all the same.
    for name in _suspects(sides, seen, failing) if sides.captures_all else ():
        for place, match in enumerate(islice(_versions(sides, seen, name), MOST_TRIED)):
            if not (own and match.name == own.name) and around.explains(name, match, nearest=place == 0):
                return {name: match}
    wrong = (row.name for row in seen.rows if row.verdict == "fail")
    missed = (name for name in wrong if name in seen.missed and name in seen.likely)
    return {name: seen.likely[name] for name in islice(missed, 1)}


def _versions(sides: _Sides, seen: _Seen, name: str) -> Iterator[Match]:
    """Yield the tensors that may be a step's, the likeliest first."""
    item = seen.lacking[name]
    likely = seen.likely.get(name)
    # One that was kept by its name may be the copy of a right one: a step that was left out.
    first = [likely] if likely else []
    others = sides.tensors.by_distance(item.known_value, item.bound, seen.known)
    for match in chain(first, (match for match in others if likely is None or match.name != likely.name)):
        if not sides.is_with_bias(name, match, item.known_value, item.bound):
            yield match


def _suspects(sides: _Sides, seen: _Seen, failing: Comparison) -> list[str]:
    """Return the steps of which a tensor may be what is wrong where one fails, in order.

    Those before it from which it is computed; and itself and those after it, if what is nearest to it is no
    version of it.
    """
    passing = {row.name for row in seen.rows if row.verdict == "pass"}
    around = set(sides.structure.behind(failing.name, passing)[:MOST_BEFORE])
    if failing.name not in seen.sure:
        around |= sides.structure.within(failing.name, sides.compared, sides.reach)
    return [row.name for row in seen.rows if row.name in around and row.name in seen.lacking]


def _compare_once(sides: _Sides, taken: Mapping[str, Match], before: Mapping[str, _Prediction]) -> _Seen:
    """Compare every step; where a wrong tensor is ``taken`` for a step, those after it compute on it.

    ``before`` is what is known already of those before it.
    """
    # Where a tensor is taken, a wrong one is looked at in any case.
    spotlight = Spotlight(highest=np.inf if taken else -1.0)
    recording, tensors = sides.recording, sides.tensors
    predictions = _predict(sides, spotlight, taken, before)
    found = {name: item.match for name, item in predictions.items() if item.match}
    known = {match.name for name, match in found.items() if name not in taken}
    output_names = {tensor: output for output, tensor in recording.outputs.items()}
    rows, missed = [], set()
    likely, sure = dict[str, Match](), set[str]()
    for name, item in predictions.items():
        match, missing = item.match, "fail"
        if match is None and item.value is not None and not sides.captures_all:
            match, missing = tensors.named(output_names.get(name, name), item.value, item.bound), "absent"
            likely |= {name: match} if match else {}
        elif match is None and item.value is not None:
            fused = _soon_found(sides, name, found)
            later = tensors.from_first(found[user].name for user in fused)
            match = tensors.likeliest(output_names.get(name, name), item.value, item.bound, known | later)
            kept = match is not None and match.name == name and sides.is_kept(name, item.step)
            alike = match is not None and match.resembles(item.value)
            if match and alike and not kept and sides.is_with_bias(name, match, item.value, item.bound):
                match, alike = None, False
            if match:
                likely[name] = match
            if kept or alike:
                sure.add(name)
            elif fused or name in sides.structure.immaterial:
                match, missing = None, "absent"
        if match and item.value is not None:
            spotlight.show(name, match.values, item.value, item.bound, match.worst.utilisation)
        called, truth = (name, item.step.operation), recording.tensors[name]
        row = match.compared(*called, truth) if match else Comparison.absent(*called, truth.shape, missing)
        if item.match is None and row.verdict == "fail":
            missed.add(name)
            # Where rounding may make anything of a step, nothing tells that it is not there.
            row = row if np.isfinite(item.bound).any() else replace(row, verdict="absent")
        rows.append(row.made_systematic(item.reason) if item.reason and row.verdict != "fail" else row)
    heirs = sides.structure.heirs(missed, found)
    rows = [replace(row, verdict="inherited") if _inherits(row, heirs) else row for row in rows]
    values = {name: match.values for name, match in found.items()}
    lacking = {name: item for name, item in predictions.items() if item.value is not None}
    return _Seen(taken, spotlight.placed(rows), known, missed, values, lacking, likely, sure, predictions)


def _soon_found(sides: _Sides, name: str, found: Mapping[str, Match]) -> list[str]:
    """Return the nearest steps behind one that are found, if it may be fused with them."""
    users = sides.structure.soon_found(name, found, sides.compared, sides.reach)
    if sides.folded is None:
        return users
    # In float64 nothing that is right is so far off that no bound is left; and over many steps a bound grows
    # until something resembles anything.
    near = sides.structure.soon_found(name, found, sides.compared, SHORT)
    return [
        user
        for user in users
        if (user in near and found[user].worst.judged) or _tells(sides, user, found[user])
    ]


def _tells(sides: _Sides, name: str, match: Match) -> bool:
    """Tell whether what a step was found as is it: by a bound of its own, or but for rounding.

    Where its bound is looser what resembles it is found. In float64 what is right is off by no more than
    constants are rounded.
    """
    largest = float(np.abs(sides.recording.tensors[name]).max(initial=0.0))
    near = EXACT + sides.declaration.storage.unit_roundoff
    worst = match.worst
    return worst.judged and (worst.bound < 0.9 * RESEMBLANCE * largest or worst.error <= near * largest)


def _inherits(row: Comparison, heirs: Collection[str]) -> bool:
    """Tell whether a failing step was given operands that the candidate never had."""
    return row.verdict == "fail" and row.name in heirs


def _predict(
    sides: _Sides,
    spotlight: Spotlight,
    taken: Mapping[str, Match],
    before: Mapping[str, _Prediction],
) -> dict[str, _Prediction]:
    wide = sides.own is not None and sides.own.wide_float16
    replay = Replay(sides.recording, sides.declaration, sides.folded, wide, sides.finely)
    replay.values |= _fed_narrower(sides)
    walk = _Walk(sides, spotlight, taken, before, replay)
    for step in sides.recording.steps:
        if not (walk.repeats(step) or walk.takes_as_judged(step)):
            walk.judges(step)
        walk.replay.forget(step)
    return walk.predictions


def _fed_narrower(sides: _Sides) -> dict[str, Array]:
    """Return the reference's only input as the candidate is fed it, where that is rounded to float16."""
    names = list(sides.recording.inputs.values())
    fed = list(sides.own.feeds.values()) if sides.own else []
    if len(names) != 1 or len(fed) != 1 or fed[0].dtype != np.float16:
        return {}
    return {names[0]: fed[0].astype(np.float64)}


@dataclass
class _Walk:
    """The way along the steps: what the candidate has of each, and what was predicted of it."""

    sides: _Sides
    spotlight: Spotlight
    taken: Mapping[str, Match]
    before: Mapping[str, _Prediction]
    replay: Replay
    predictions: dict[str, _Prediction] = field(default_factory=dict)

    @cached_property
    def same(self) -> SameNodes | None:
        """Return the candidate's nodes, where what is known of them is known of steps."""
        sides = self.sides
        known = sides.own if sides.folded is None else None
        return SameNodes.of(known, sides.nodes, sides.tensors.tensors, sides.declaration, sides.recording)

    def repeats(self, step: Step) -> bool:
        """Go on with what the candidate has of a step, if that is known and was right before.

        Not so of one that fails all the same, which is to be looked at.
        """
        known = {name: self.before[name] for name in step.outputs if name in self.before}
        held = {name: each.match for name, each in known.items() if each.match and not each.reason}
        right = {name: match for name, match in held.items() if match.worst.utilisation <= 1}
        if len(right) < len(step.outputs) or self.replay.computes_more(step):
            return False
        self.predictions |= known
        for name, match in right.items():
            self._goes_on_with(name, match)
        if self.same:
            self.same.move(step, self.replay)
        return True

    def takes_as_judged(self, step: Step) -> bool:
        """Take a step as its node was judged, if it has one; but one to be looked at is computed."""
        name = step.outputs[0]
        if self.same is None or name in self.taken or name not in self.sides.sought:
            return False
        match = self.same.match(step, self.replay)
        if match is None or self.sides.given.get(name, match.name) != match.name:
            return False
        if match.worst.utilisation > self.spotlight.highest:
            return False
        self._goes_on_with(name, match)
        self.predictions[name] = _Prediction(step, match, None, 0.0)
        return True

    def judges(self, step: Step) -> None:
        """Compute a step, and find what the candidate has of it."""
        self.replay.compute(step)
        if self.same:
            self.same.move(step, self.replay)
        for name in {*self.sides.sought, *self.sides.given}.intersection(step.outputs):
            self._judges(step, name)

    def _judges(self, step: Step, name: str) -> None:
        sides, value, bound, reason = self.sides, self.replay.values[name], self.replay.bound(name), None
        match = sides.match(name, value, bound) if name in sides.sought else None
        if match and sides.is_with_bias(name, match, value, bound):
            match = None
        if match is None and name in self.taken:
            match = self.taken[name].beside(value, bound)
        if match:
            reason = self.replay.unlike_rounding(step, name, match.values)
            self._goes_on_with(name, match)
        if match or name not in sides.sought:
            match = sides.wrong_output(name, value, bound) or match
        if match:
            reached = np.inf if reason else match.worst.utilisation
            self.spotlight.show(name, match.values, value, bound, reached)
            self.predictions[name] = _Prediction(step, match, None, 0.0, reason)
        elif name in sides.compared:
            self.predictions[name] = _Prediction(step, None, value, bound)

    def _goes_on_with(self, name: str, match: Match) -> None:
        self.replay.adopt(name, match.values)
        if self.same:
            self.same.take(name, match)
