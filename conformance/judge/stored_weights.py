"""Weights as a candidate's file stores them, in the place of the reference's: what rounded them is no error.

A kernel or matrix that the file holds as integers differs from the network's by up to half a step each. Where
that is all, the truth is computed with the file's own numbers, and no bound need allow for their rounding.
Where some channels differ by more, as much of that as rounding allows is taken over: the rest is a mistake.
What is taken over never differs from the network's by more than half a step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from conformance.bounds import Declaration, copied_weights, of_largest
from conformance.conversion.stored_weight import StoredWeight
from conformance.graph.evaluation import evaluate_node, run
from conformance.judge.weight_uses import FEWEST, Part, Use, Way, parts_of, uses_of
from refimpl import Recording
from refimpl.ops.operation import Array

ALIKE = 0.9
"""Cosine, and ratio of sizes, above which a constant may be a weight."""
FOLDED = 2e-6
"""Of the largest of a channel: what folding a norm in float32 moves a weight by."""
VERGE = 0.01
"""Of half a step: what is beyond that by no more is a tie."""
UNEVEN = 0.1
"""Of its largest: what the elements of a bias must differ by to be told from others."""
ROUNDED_FACTOR = 1e-3
"""What a factor differs from one by if it is a mistake."""
COARSER = 2.0
"""How many times as coarse as declared a file's own steps may be: a range's that lie about zero."""
SIX_BITS = 31
"""The largest integer of ncnn's 3×3 kernels, which leaves room for Winograd's sums."""
LEAST_STEP = 2.0**-12
"""What XNNPACK's quantiser makes a step at least, however small a channel's weights are."""
SCALING = ("BatchNormalization", "Div", "LayerNormalization", "Mul")
"""Operators that may multiply channels by constants."""
THROUGH = ("Concat", "Identity", "Pad", "Reshape", "Transpose")
"""Operators behind which they may still be taken out of a product's factor."""
MOST_CUT = 0.05
"""Of its elements: how many of a constant a quantiser may cut off, and by how much of its largest."""
BLOCK = 1 << 15
"""Elements of which as much is computed at a time as stays in a processor's cache."""


@dataclass(frozen=True)
class Stored:
    """What of the reference's weights is taken from the file.

    Attributes
    ----------
    weights
        Name → array, as the file has it, as far as rounding explains that.
    computed
        What is computed of weights alone, and is an operand of a product, alike: converters compute it.
    runs
        Which of their elements are, as of `Declaration.read`.
    wrong
        What a product makes → how the file's weight, or bias, differs from the reference's otherwise.
    unknown
        Whether something that is computed of weights alone is not found: of those of the file it may be.
    """

    weights: Mapping[str, Array] = field(default_factory=dict)
    computed: Mapping[str, Array] = field(default_factory=dict)
    runs: tuple[tuple[str, int, int], ...] = ()
    wrong: Mapping[str, str] = field(default_factory=dict)
    unknown: bool = False


@dataclass(frozen=True)
class _Laid:
    """A constant of the file with its axes in an order.

    Attributes
    ----------
    numbers
        Of the shape that it is given then.
    steps
        How far apart they can be.
    """

    numbers: Array
    steps: Array


@dataclass(frozen=True)
class _Beside:
    """A constant of the file beside a use's elements.

    Attributes
    ----------
    laid
    ours, bound
        The reference's, and how far each may be off.
    factor
        Of a step: what the file has multiplied all by, besides the way's scale.
    way
    axis
        Of the output channels.
    alone
        Whether slices along other axes tell nothing: they may have been multiplied.
    """

    laid: _Laid
    ours: Array
    bound: Array
    factor: float
    way: Way
    axis: int
    alone: bool = False

    @cached_property
    def scale(self) -> Array:
        """What the file has multiplied them by."""
        return np.asarray(self.factor * self.way.scale)

    @property
    def blocks(self) -> Iterator[tuple[slice, ...]]:
        """Yield some output channels after the other."""
        before, channels = self.axis % self.ours.ndim, self.ours.shape[self.axis]
        count = max(1, BLOCK * channels // max(1, self.ours.size))
        for begin in range(0, channels, count):
            yield *(slice(None),) * before, slice(begin, begin + count)

    def apart(self, part: tuple[slice, ...]) -> tuple[Array, Array, Array]:
        """Return by how much the file's are more than ours, half a step of each, and what folding may move.

        The latter of each channel.
        """
        plain, scale = self.ours[part], np.broadcast_to(self.scale, self.ours.shape)[part]
        ours, step = plain * scale, self.laid.steps[part]
        others = tuple(place for place in range(ours.ndim) if place != self.axis % ours.ndim)
        largest, own = (np.abs(each).max(axis=others, keepdims=True, initial=0.0) for each in (ours, plain))
        # The steps are of the channel's largest number as the file has it; or one is of several channels.
        bound = self.bound[part] * np.divide(largest, own, out=np.ones_like(own), where=own > 0)
        bound = np.maximum(bound, self.shared[part])
        coarsest = np.where(step == LEAST_STEP, np.inf, self.coarser * bound)
        half = np.maximum(bound, np.minimum(step / 2, coarsest)) * (step > 0)
        return self.laid.numbers[part] - ours, half, FOLDED * largest

    def beyond(self, part: tuple[slice, ...]) -> Array:
        """Return which elements rounding does not explain."""
        moved, half, folding = self.apart(part)
        return np.asarray((np.abs(moved) > (1 + VERGE) * half + folding) & ~self.cut[part])

    @cached_property
    def cut(self) -> Array:
        """Which elements lie beyond the range of a step that all share: few, and not far."""
        numbers, steps = self.laid.numbers, self.laid.steps
        if not self.shared.any() or steps.min() != steps.max():
            return np.zeros(numbers.shape, bool)
        beyond, ours = self.beyond_ends, self.ours * self.scale
        largest = np.abs(numbers - ours)[beyond].max(initial=0.0)
        few = beyond.mean() <= MOST_CUT and largest <= MOST_CUT * np.abs(ours).max()
        return np.asarray(beyond & few)

    @cached_property
    def beyond_ends(self) -> Array:
        """Which elements lie beyond the file's largest or least number, and are that there."""
        numbers, ours = self.laid.numbers, self.ours * self.scale
        low, high = numbers.min(), numbers.max()
        return np.asarray(((numbers == high) & (ours > high)) | ((numbers == low) & (ours < low)))

    @cached_property
    def is_cut_off(self) -> bool:
        """Whether nothing but that is wrong with it."""
        return not (self.wrong & ~self.beyond_ends).any() and bool(self.beyond_ends.mean() < 0.5)

    @cached_property
    def coarser(self) -> float:
        """How many times as coarse as declared the steps may be."""
        laid = self.laid
        whole = np.divide(laid.numbers, laid.steps, out=np.zeros_like(laid.numbers), where=laid.steps > 0)
        of_six_bits = self.ours.shape[-2:] == (3, 3) and np.rint(np.abs(whole).max()) <= SIX_BITS
        return 127 / SIX_BITS if of_six_bits else COARSER

    @cached_property
    def shared(self) -> Array:
        """How far each may be off where output channels share a step, all or those of a group; else 0."""
        steps, bounds = (
            _by_channel(each, self.axis).max(axis=1, initial=0.0)
            for each in (self.laid.steps, self.bound * np.abs(self.scale))
        )
        _, alike, counts = np.unique(steps, return_inverse=True, return_counts=True)
        largest = np.zeros(len(counts))
        np.maximum.at(largest, alike, bounds)
        found = np.where((counts[alike] > 1) & (steps > 0), largest[alike], 0.0)
        along = [-1 if place == self.axis % self.ours.ndim else 1 for place in range(self.ours.ndim)]
        return np.broadcast_to(found.reshape(along), self.ours.shape)

    @cached_property
    def is_right(self) -> bool:
        """Whether rounding explains all."""
        return not any(self.beyond(part).any() for part in self.blocks)

    @cached_property
    def wrong(self) -> Array:
        """Which elements rounding does not explain."""
        found = np.empty(self.ours.shape, bool)
        for part in self.blocks:
            found[part] = self.beyond(part)
        return found

    @cached_property
    def fewest(self) -> int:
        """The axis along which the fewest slices, of all, hold a wrong element; if several, the channels'."""
        last = self.axis % self.ours.ndim
        axes = [last, *(axis for axis in range(self.ours.ndim) if axis != last and not self.alone)]
        return min(axes, key=lambda axis: self.wrong_along(axis).mean())

    def wrong_along(self, axis: int) -> Array:
        """Tell which slices along an axis hold a wrong element."""
        return np.asarray(_by_channel(self.wrong, axis).any(axis=1))

    @property
    def is_mostly_right(self) -> bool:
        """Whether at least half the slices along an axis are: then no factor was folded into all.

        Of what is cut off, as many numbers.
        """
        return self.is_cut_off or bool(self.wrong_along(self.fewest).mean() <= 0.5)

    @cached_property
    def explained(self) -> Array:
        """What of the file's is rounding, in the reference's scale."""
        found = np.zeros(self.ours.shape)
        for part in self.blocks:
            moved, half, folding = self.apart(part)
            scale = np.broadcast_to(self.scale, self.ours.shape)[part]
            within = np.where(self.cut[part], moved, np.clip(moved, -half - folding, half + folding))
            np.divide(within, scale, out=found[part], where=scale != 0)
        return found


def weights_of_file(candidate: Any, recording: Recording, *, ahead: bool = False) -> Stored:
    """Return what of the reference's weights is a candidate's file's, and let the candidate declare it.

    Parameters
    ----------
    candidate
        If it has ``stored``, constants of a file, ``read`` is set by which its ``declaration`` says so.
    recording
        The reference's run.
    ahead
        As of `taken_over`.
    """
    stored = getattr(candidate, "stored", ())
    if not stored:
        return Stored()
    # A stranger's scales may be infinite.
    with np.errstate(all="ignore"):
        found = taken_over(recording, stored, replace(candidate.declaration, read=()), ahead=ahead)
    candidate.read = found.runs
    return found


def with_weights_of_file(candidate: Any, recording: Recording, *, ahead: bool = False) -> Recording:
    """Return the reference's run, computed anew with the weights that are the candidate's file's."""
    found = weights_of_file(candidate, recording, ahead=ahead)
    if not found.runs:
        return recording
    held = {**found.weights, **found.computed}
    given = {*recording.inputs.values(), *recording.weights, *recording.constants}
    known = {name: recording.tensors[name] for name in given} | held
    steps = [step for step in recording.steps if held.keys().isdisjoint(step.outputs)]
    weights = [*recording.weights, *found.computed]
    return replace(recording, steps=steps, weights=weights, tensors=run(steps, known, evaluate_node))


def taken_over(
    recording: Recording, stored: Iterable[StoredWeight], declaration: Declaration, *, ahead: bool = False
) -> Stored:
    """Return the reference's weights as a file has them, of those that are found there.

    A weight of which two constants could be a rounding is not taken over.

    Parameters
    ----------
    recording
        The reference's run, its weights not rounded.
    stored
        The constants of the file.
    declaration
        What is declared of its weights.
    ahead
        Whether what is computed of weights alone can be taken over, as the file's.
    """
    bounds = copied_weights(recording, declaration)
    uses: dict[tuple[int, ...], list[Use]] = {}
    for use in uses_of(recording):
        if ahead and use.name not in recording.weights and declaration.weights is not None:
            bounds[use.name] = of_largest(recording.tensors[use.name], declaration.weights)
        if use.name in bounds:
            uses.setdefault(use.places.shape, []).append(use)
    parts = [part for part in parts_of(recording) if part.places.size >= FEWEST]
    biases = {use.bias.numbers.size for alike in uses.values() for use in alike}
    pool = _by_size(stored, {*biases, *map(math.prod, uses), *(part.places.size for part in parts)})
    search = _Search(recording, bounds, _factors(recording), pool, ahead)
    norms = {name for alike in uses.values() for use in alike if use.before for name in use.before.names}
    search.look_beside(part for part in parts if part.name in norms)
    for shape, alike in uses.items():
        search.look(shape, alike)
    search.look_beside(parts)
    computed = {use.name for alike in uses.values() for use in alike} - {*recording.weights}
    return replace(search.found, unknown=not computed <= search.moved.keys())


@dataclass
class _Search:
    """Looking for a run's weights in a file.

    Attributes
    ----------
    recording
    bounds
        Weight → how far each of its elements may be off.
    factors
        Which may be folded into it.
    pool
        The file's constants by their size.
    ahead
        As of `taken_over`.
    moved, kept, wrong
        What is found so far: weight → its elements as the file has them, NaN if not; what nothing rounds, and
        what is wrong, as of `Stored`.
    vectors
        Size → the file's constants of it, flat, once they were asked for.
    several
        Weights that are several constants of the file: as integers for one product, as floats for another.
    """

    recording: Recording
    bounds: Mapping[str, Array]
    factors: Sequence[float]
    pool: Mapping[int, Sequence[StoredWeight]]
    ahead: bool
    moved: dict[str, Array] = field(default_factory=dict)
    kept: list[tuple[str, int, int]] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    vectors: dict[int, list[tuple[Array, Array]]] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)

    def look(self, shape: tuple[int, ...], alike: Sequence[Use]) -> None:
        """Look for the uses of one shape."""
        laid = [*_laid(self.pool.get(math.prod(shape), ()), shape)]
        if not laid:
            for use in alike:
                self._keep(use, [])
            return
        numbers = [use.of(self.recording.tensors[use.name]) for use in alike]
        scaled = (ours * way.scale for use, ours in zip(alike, numbers, strict=True) for way in use.ways)
        size, count = math.prod(shape), sum(len(use.ways) for use in alike)
        ours, lengths = _directions(scaled, (count, size))
        theirs, others = _directions((each.numbers for each in laid), (len(laid), size))
        resembling = zip(lengths, ours @ theirs.T >= ALIKE, strict=True)
        for use, own in zip(alike, numbers, strict=True):
            bound, beside, alone = use.of(self.bounds[use.name]), [], self._is_scaled_before(use.name)
            for way, (length, like) in zip(use.ways, resembling, strict=False):
                for each, other in itertools.compress(zip(laid, others, strict=True), like):
                    factors = [x for x in self.factors if ALIKE * other <= x * length <= other / ALIKE]
                    beside += [_Beside(each, own, bound, factor, way, use.axis, alone) for factor in factors]
            found = _only(beside, whole=self._is_scaled(use.bias.result or use.result))
            if found is not None:
                self._take(use, found)
            else:
                self.several |= {use.name} if any(each.is_right for each in beside) else set()
                self._keep(use, beside)

    def _keep(self, use: Use, beside: Sequence[_Beside]) -> None:
        """Know of a weight that nothing rounds it: it is floats there, or its product was computed before."""
        rounded = any(each.laid.steps.any() for each in beside)
        if not rounded and (beside or (use.ahead and self.ahead)):
            known = np.zeros(self.recording.tensors[use.name].size, bool)
            known[use.places] = True
            self.kept += _runs(use.name, known)

    def _take(self, use: Use, found: _Beside) -> None:
        """Take over what is found, and note what is wrong with it, or if nothing is, with the bias behind."""
        if not found.is_right:
            self.wrong[use.result] = f"weight {use.name} {_said(found)}"
        made, bias = found.ours + found.explained, use.bias
        if (norm := found.way.norm) is not None:
            # The file's own numbers are the norm's where it is no product's.
            now = self._now(norm.names[0], norm.factors)
            apart = np.divide(norm.factors, now, out=np.ones_like(now), where=now != norm.factors)
            made = made * use.along_input(apart)
        shift = self._bias_moved(use, found, made)
        if norm is not None and (shift is None or not np.isfinite(made).all()):
            return
        if shift is not None and bias.places.size:
            self._hold(bias.name, bias.places, self.recording.tensors[bias.name].ravel()[bias.places] + shift)
        self._hold(use.name, use.places, made)
        if found.is_right and bias.numbers.size >= FEWEST and found.way is use.ways[0] and found.factor == 1:
            factor = _factor_of(bias.numbers, [numbers for numbers, _ in self._vectors(bias.numbers.size)])
            self.wrong |= {bias.result: f"weight {bias.name} is {factor:.3g} × yours"} if factor else {}

    def _hold(self, name: str, places: Array, numbers: Array) -> None:
        """Take over some elements of a weight."""
        if places.size:
            own = np.full(self.recording.tensors[name].shape, np.nan)
            self.moved.setdefault(name, own).reshape(-1)[places] = numbers

    def _bias_moved(self, use: Use, found: _Beside, made: Array) -> Array | None:
        """Return by how much the file's bias is more than the reference's, as far as rounding explains that.

        Where a norm before is folded in, the file's has in it what that shifts by. None: the file has no such
        bias, or several; or it has the reference's own.
        """
        norm, bias = found.way.norm, use.bias
        if not bias.name or (norm is None and found.way is not use.ways[0]):
            return np.zeros(0) if norm is not None and not norm.shift.any() else None
        before = after = blurred = sizes = np.zeros(bias.numbers.shape)
        if norm is not None:
            before = use.shifted(found.ours, norm.shift)
            after = use.shifted(made, self._now(norm.names[1], norm.shift))
            blurred, sizes = (
                use.shifted(np.abs(x), np.abs(norm.shift)) for x in (found.explained, found.ours)
            )
        expected = found.factor * (before + bias.numbers)
        slack = found.factor * (FOLDED * (sizes + np.abs(bias.numbers).max(initial=0.0)) + blurred)
        alike = [
            (bool(steps.any()), numbers - offset)
            for numbers, steps in self._vectors(expected.size)
            for offset in self.offsets
            if (norm is not None or steps.any()) and _is_rounding(numbers, steps, expected + offset, slack)
        ]
        # Of one that the file has as floats, too, the integers are the product's.
        alike = [each for each in alike if each[0]] or alike
        if not alike or any(not np.array_equal(each, alike[0][1]) for _, each in alike):
            return None
        return np.asarray(alike[0][1] / found.factor - after - bias.numbers)

    def _now(self, name: str, numbers: Array) -> Array:
        """Return what a vector is, as far as it is taken over."""
        moved = self.moved.get(name)
        return numbers if moved is None else np.where(np.isnan(moved), numbers, moved)

    def _vectors(self, size: int) -> list[tuple[Array, Array]]:
        """Return the file's constants of a size, flat, and their steps."""
        if size not in self.vectors:
            self.vectors[size] = [
                (each.numbers.ravel(), each.steps.ravel()) for each in self.pool.get(size, ())
            ]
        return self.vectors[size]

    def look_beside(self, parts: Iterable[Part]) -> None:
        """Look for what is no operand of a product: integers that it was rounded to."""
        for part in (part for part in parts if part.name not in self.several):
            known, own = self.moved.get(part.name), self.recording.tensors[part.name].ravel()[part.places]
            if known is not None and not np.isnan(known.ravel()[part.places]).any():
                continue
            laid = [each for each in _laid(self.pool.get(own.size, ()), own.shape) if each.steps.any()]
            alike = [
                each.numbers - before
                for each in laid
                for before in (0.0, part.before)
                if _is_rounding(each.numbers, each.steps, own + before, FOLDED * np.abs(own + before).max())
            ]
            if alike and all(np.array_equal(each, alike[0]) for each in alike):
                self._hold(part.name, part.places, alike[0])

    def _is_scaled(self, name: str) -> bool:
        """Tell whether constants multiply a tensor's channels next, which may be folded into its weight."""
        users = self.recording.graph.consumers.get(name, [])
        factors = {each for user in users if user.op_type in ("Mul", "Div") for each in user.uses}
        return any(self.recording.tensors[each].size > 1 for each in factors - self.varying)

    def _is_scaled_before(self, name: str) -> bool:
        """Tell whether channels of a weight's other factor are multiplied before: that may be folded in."""
        graph = self.recording.graph
        waiting = {each for user in graph.consumers.get(name, []) for each in user.uses}
        seen: set[str] = set()
        while waiting := waiting & self.varying - seen:
            seen |= waiting
            makers = [maker for each in waiting if (maker := graph.producer(each)) is not None]
            if any(maker.op_type in SCALING and self._takes_channels(maker) for maker in makers):
                return True
            # Of a sum of two that are computed nothing can be taken out.
            passed = [maker for maker in makers if maker.op_type in THROUGH]
            passed += [maker for maker in makers if maker.op_type == "Add" and self._takes_channels(maker)]
            waiting = {each for maker in passed for each in maker.uses}
        return False

    def _takes_channels(self, step: Any) -> bool:
        """Tell whether a step takes a constant of several numbers."""
        return any(self.recording.tensors[each].size > 1 for each in {*step.uses} - self.varying)

    @cached_property
    def offsets(self) -> set[float]:
        """What may be added to a bias that is folded: nothing, or what a HardSigmoid behind it adds."""
        gates = (step for step in self.recording.steps if step.op_type == "HardSigmoid")
        return {0.0, *(float(step.attributes.get("beta", 0.5)) for step in gates)}

    @cached_property
    def varying(self) -> set[str]:
        """The tensors that depend on an input."""
        return self.recording.graph.dependent(self.recording.inputs.values())

    @property
    def found(self) -> Stored:
        """What is found; what is not stays the reference's."""
        held, whole, runs = self.recording.tensors, dict(self.moved), [*self.kept]
        for name, array in self.moved.items():
            known = ~np.isnan(array)
            runs += _runs(name, known)
            if not known.all():
                whole[name] = np.where(known, array, held[name])
        weights = {name: array for name, array in whole.items() if name in self.recording.weights}
        computed = {name: array for name, array in whole.items() if name not in weights}
        return Stored(weights, computed, tuple(runs), self.wrong)


def _is_rounding(numbers: Array, steps: Array, ours: Array, slack: Array | float) -> bool:
    """Tell whether integers are the nearest to each number; their ends are to what is beyond.

    Half a step more, where a zero point was rounded, and by more in few places, which were cut off.
    """
    half, apart = (1 + VERGE) * steps / 2 + slack, np.abs(numbers - ours)
    beyond = ((numbers == numbers.max()) & (ours > numbers)) | ((numbers == numbers.min()) & (ours < numbers))
    cut = beyond & (apart > 2 * half)
    few = cut.mean() <= MOST_CUT and apart.max() <= MOST_CUT * np.abs(ours).max()
    return bool((few or not cut.any()) and (apart <= np.where(beyond, 2 * half, half))[~cut].all())


def _factor_of(bias: Array, vectors: Sequence[Array]) -> float | None:
    """Return what a bias is multiplied by in the only vector that it is but for that; None: it is right.

    A factor that is folded into it is folded into its kernel, too, and a constant that is added to it
    multiplies nothing.
    """
    size = np.abs(bias).max()
    if bias.std() < UNEVEN * size or any((np.abs(each - bias) <= FOLDED * size).all() for each in vectors):
        return None
    fitted = ((float(np.vdot(bias, each) / np.vdot(bias, bias)), each) for each in vectors)
    factors = [
        factor
        for factor, each in fitted
        if ALIKE < factor < 1 / ALIKE
        and abs(factor - 1) > ROUNDED_FACTOR
        and (np.abs(each - factor * bias) <= FOLDED * size).all()
    ]
    return factors[0] if len(factors) == 1 else None


def _runs(name: str, known: Array) -> list[tuple[str, int, int]]:
    """Return from where to where a weight's elements are known, in the order of memory."""
    ends = np.flatnonzero(np.diff(known.ravel(), prepend=False, append=False))
    return [(name, int(first), int(last)) for first, last in ends.reshape(-1, 2)]


def _factors(recording: Recording) -> list[float]:
    """Return the positive numbers by which steps scale whole tensors: they may be folded into weights."""
    found = {1.0}
    for step in recording.steps:
        held = (recording.tensors.get(name) for name in step.uses)
        scalars = {float(x.item()) for x in held if x is not None and x.size == 1 and x.dtype.kind == "f"}
        if step.op_type == "HardSigmoid":
            found.add(step.attributes.get("alpha", 0.2))
        elif step.op_type in ("Mul", "Div"):
            found |= scalars if step.op_type == "Mul" else {1 / each for each in scalars if each}
    return sorted(each for each in found if 0 < each < np.inf)


def _by_size(stored: Iterable[StoredWeight], sizes: set[int]) -> dict[int, list[StoredWeight]]:
    found: dict[int, list[StoredWeight]] = {}
    for each in stored:
        if each.held.size in sizes and each.fits:
            found.setdefault(each.held.size, []).append(each)
    return found


def _laid(pool: Iterable[StoredWeight], shape: tuple[int, ...]) -> Iterator[_Laid]:
    """Yield constants of one size in every layout that has a shape."""
    wanted = [side for side in shape if side != 1]
    for each in pool:
        sides = [side for side in each.held.shape if side != 1]
        # Of a grouped convolution the groups may have an axis of their own.
        sides = wanted if [math.prod(sides[:2]), *sides[2:]] == wanted else sides
        if sorted(sides) != sorted(wanted):
            continue
        held = each.numbers.reshape(sides), each.steps.reshape(sides)
        for order in itertools.permutations(range(len(sides))):
            if [sides[place] for place in order] == wanted:
                yield _Laid(*(array.transpose(order).reshape(shape) for array in held))


def _directions(arrays: Iterable[Array], shape: tuple[int, int]) -> tuple[Array, list[float]]:
    """Return so many arrays of so many numbers, float32 of length one, and the lengths that they had."""
    found, lengths = np.empty(shape, np.float32), []
    for array, row in zip(arrays, found, strict=True):
        lengths.append(float(np.linalg.norm(array)))
        np.divide(array, lengths[-1] or 1.0, out=row.reshape(array.shape), casting="same_kind")
    return found, lengths


def _only(found: Sequence[_Beside], *, whole: bool) -> _Beside | None:
    """Return what alone is a rounding, or, unless it must be whole, was one but for a few channels."""
    right = [each for each in found if each.is_right]
    likely = right or [each for each in found if each.is_mostly_right and not whole]
    if not likely or any(not np.array_equal(each.explained, likely[0].explained) for each in likely[1:]):
        return None
    return likely[0]


def _by_channel(x: Array, axis: int) -> Array:
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def _said(found: _Beside) -> str:
    """Say which output channels of a weight are wrong, or which slices along another axis, and how."""
    if found.is_cut_off:
        largest, end = np.abs(found.ours * found.scale).max(), np.abs(found.laid.numbers).max()
        return f"is cut off at ±{end:.3g}: {found.beyond_ends.mean():.2%} of its numbers, up to {largest:.3g}"
    axis = found.fewest
    sides = found.ours * found.scale, found.laid.numbers
    ours, theirs = (_by_channel(x, axis) for x in sides)
    wrong = found.wrong_along(axis)
    places = np.flatnonzero(wrong)
    factor = float(np.vdot(ours[places], theirs[places]) / np.vdot(ours[places], ours[places]))
    named = f", the first {places[0]}" if places.size > 1 else f": {places[0]}"
    what = "output channels" if axis == found.axis % found.ours.ndim else f"slices along axis {axis}"
    where = f"in {places.size} of {wrong.size} {what}{named}"
    return f"is {factor:.3g} × yours {where}: more than rounding to integers"
