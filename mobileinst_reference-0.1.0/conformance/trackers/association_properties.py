"""Properties that any tracker must have, to be run against any tracker in any language.

A candidate offers ``associate(previous, current)`` and, if it can, ``video(frames, interval, state)``. Each
property draws cases with Hypothesis and, where it fails, returns the smallest case found and a line to
paste.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from refimpl.association import Association, associate, associate_similarities, cosine_similarity
from refimpl.errors import ConfigurationError, MobileInstError
from refimpl.tracker import KeyframeTensors, Tracker, TrackerState, frame_masks

Array = NDArray[Any]
UNAMBIGUOUS = 1e-3
"""Margin above which two correct trackers must agree, whatever their precision."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video of kernels: (N, dim) and (dim, h, w)."""

    kernels: Array
    mask_features: Array


@dataclass(frozen=True)
class FrameAnswer:
    """A tracker's answer for one frame: per slot the keyframe query that continues it, and the mask logits.

    keyframe: bool; order: (N,) int, of the last keyframe; masks: (N, h, w).
    """

    keyframe: bool
    order: Array
    masks: Array


class Candidate(Protocol):
    """A tracker to be checked."""

    def associate(self, previous: Array, current: Array) -> Any:
        """For each previous kernel the index of the current one that continues it, −1 for none."""

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Answer for each frame, and the state to go on from; ``state`` None begins a new video."""


class Refusal(MobileInstError):
    """The candidate reported an error instead of an answer."""


class NotOffered(MobileInstError):
    """The candidate does not offer what the property needs."""


class CallableCandidate:
    """Any association callable as a candidate, without videos."""

    def __init__(self, function: Callable[[Array, Array], Any]) -> None:
        self.associate = function

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Raise `NotOffered`."""
        raise NotOffered("a callable associates; it follows no video")


class ReferenceCandidate:
    """The tracker of this project, as a candidate."""

    def __init__(self, method: str = "optimal") -> None:
        self.method = method

    def associate(self, previous: Array, current: Array) -> Array:
        """See `refimpl.association.associate`."""
        return associate(previous, current, self.method).permutation

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Run `refimpl.tracker.Tracker`; the state is its arrays as lists."""
        begin = None if state is None else TrackerState.from_arrays(state)
        tracker = Tracker(keyframe_interval, method=self.method, state=begin)
        answers = [self._answer(tracker, frame) for frame in frames]
        return answers, {name: array.tolist() for name, array in tracker.state.to_arrays().items()}

    def _answer(self, tracker: Tracker, frame: VideoFrame) -> FrameAnswer:
        if tracker.keyframe_due:
            logits = np.zeros((len(frame.kernels), 1))
            tensors = KeyframeTensors(logits, logits, frame.kernels, frame.mask_features)
            tracked = tracker.keyframe(tensors)
        else:
            tracked = tracker.reuse(frame.mask_features)
        return FrameAnswer(tracked.keyframe, tracker.state.queries, tracked.mask_logits)


# Cases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Kernels of two keyframes; ``extra`` is what the property needs besides."""

    previous: Array
    current: Array
    extra: Any = None

    def request(self) -> dict[str, Any]:
        """The case as a request of the command protocol."""
        return {
            "op": "associate",
            "previous": finite_lists(self.previous),
            "current": finite_lists(self.current),
        }


@dataclass(frozen=True)
class Clip:
    """A video of kernels with a keyframe interval."""

    frames: tuple[VideoFrame, ...]
    keyframe_interval: int
    extra: Any = None

    def request(self) -> dict[str, Any]:
        """The case as a request of the command protocol."""
        return video_request(self.frames, self.keyframe_interval, None)


def finite_lists(array: Array) -> Any:
    """Nested lists for JSON, null for what is not finite."""
    if array.ndim > 1:
        return [finite_lists(row) for row in array]
    return [value if np.isfinite(value) else None for value in array.tolist()]


def video_request(frames: Sequence[VideoFrame], keyframe_interval: int, state: Any) -> dict[str, Any]:
    """The request that asks for a video."""
    listed = [
        {"kernels": finite_lists(f.kernels), "mask_features": finite_lists(f.mask_features)} for f in frames
    ]
    return {"op": "video", "keyframe_interval": keyframe_interval, "state": state, "frames": listed}


@st.composite
def kernel_sets(draw: st.DrawFn, count: int, dimension: int, *, zero: bool = False) -> Array:
    """Kernels (count, dimension) of small, readable integers; none zero unless asked."""
    entries = st.lists(st.integers(-3, 3), min_size=dimension, max_size=dimension)
    rows = draw(st.lists(entries if zero else entries.filter(any), min_size=count, max_size=count))
    return np.array(rows, np.float64).reshape(count, dimension)


@st.composite
def pairs(draw: st.DrawFn, *, largest: int = 6, square: bool = False, zero: bool = False) -> Pair:
    """Two independent kernel sets, of differing sizes unless ``square``."""
    dimension = draw(st.integers(1, 5))
    n = draw(st.integers(1, largest))
    m = n if square else draw(st.integers(1, largest))
    sets = [draw(kernel_sets(count, dimension, zero=zero)) for count in (n, m)]
    return Pair(sets[0], sets[1])


@st.composite
def pairs_with_zeros(draw: st.DrawFn) -> Pair:
    """Pairs with a zero kernel on one side or on both."""
    case = draw(pairs(largest=4))
    for kernels in draw(st.sampled_from([[case.previous], [case.current], [case.previous, case.current]])):
        kernels[draw(st.integers(0, len(kernels) - 1))] = 0
    return case


@st.composite
def unambiguous_pairs(draw: st.DrawFn, method: str = "optimal") -> Pair:
    """Pairs whose association every correct tracker shares; the margin is in ``extra``."""
    case = draw(pairs(largest=5))
    similarities = cosine_similarity(case.previous, case.current)
    lead = associate_similarities(similarities).margin if method == "optimal" else _smallest_gap(similarities)
    hypothesis.assume(lead > UNAMBIGUOUS)
    return Pair(case.previous, case.current, lead)


def _smallest_gap(similarities: Array) -> float:
    return float(np.diff(np.sort(similarities, axis=None)).min(initial=np.inf))


@st.composite
def near_ties(draw: st.DrawFn) -> Pair:
    """Duplicated kernels, one of each pair turned a little: many assignments are almost the best."""
    base = draw(kernel_sets(draw(st.integers(1, 3)), 4))
    copies = np.repeat(base, 2, axis=0)
    tilt = np.zeros_like(copies)
    tilt[1::2, 0] = draw(st.sampled_from([0, 1e-12, 1e-6, 1e-2]))
    return Pair(copies + tilt, copies[draw(st.permutations(range(len(copies))))])


@st.composite
def exact_ties(draw: st.DrawFn) -> Pair:
    """Kernels along axes: cosines are exactly −1, 0 or 1 in any arithmetic, so ties are exact."""
    dimension = draw(st.integers(1, 3))
    axes = [list(row) for row in np.concatenate([np.eye(dimension), -np.eye(dimension)])]
    counts = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    sets = [draw(st.lists(st.sampled_from(axes), min_size=n, max_size=n)) for n in counts]
    return Pair(np.array(sets[0]), np.array(sets[1]))


@st.composite
def large_pairs(draw: st.DrawFn) -> Pair:
    """Up to 200 random kernels, the current ones a noisy shuffle of the previous."""
    n, m = draw(st.tuples(st.integers(1, 200), st.integers(1, 200)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    previous = random.standard_normal((n, 16))
    noisy = previous[random.permutation(np.arange(m) % n)] + random.standard_normal((m, 16))
    return Pair(previous, noisy)


@st.composite
def scaled_pairs(draw: st.DrawFn, exponent: int, method: str) -> Pair:
    """Unambiguous pairs, and in ``extra`` a positive factor for every kernel."""
    case = draw(unambiguous_pairs(method))
    powers = st.integers(-exponent, exponent)
    sizes = len(case.previous), len(case.current)
    return Pair(
        case.previous,
        case.current,
        [10.0 ** np.array(draw(st.lists(powers, min_size=n, max_size=n))) for n in sizes],
    )


@st.composite
def shuffled_pairs(draw: st.DrawFn, method: str) -> Pair:
    """Unambiguous pairs, and in ``extra`` a permutation of either side."""
    case = draw(unambiguous_pairs(method))
    orders = [draw(st.permutations(range(len(kernels)))) for kernels in (case.previous, case.current)]
    return Pair(case.previous, case.current, [np.array(order) for order in orders])


@st.composite
def perturbed_pairs(draw: st.DrawFn) -> Pair:
    """A pair and a perturbed one (``extra``) whose totals all move by less than half the margin."""
    case = draw(unambiguous_pairs())
    before = associate(case.previous, case.current)
    directions = draw(kernel_sets(len(case.current), case.current.shape[1], zero=True))
    lead = min(before.margin, 1.0)
    moved = case.current + directions * lead / (40 * len(case.previous))
    change = np.abs(cosine_similarity(case.previous, moved) - before.similarities)
    hypothesis.assume(change.max(axis=1).sum() < 0.45 * lead)
    return Pair(case.previous, case.current, moved)


@st.composite
def poisoned_pairs(draw: st.DrawFn) -> Pair:
    """A pair with one value that is not finite."""
    case = draw(pairs(largest=3))
    kernels = draw(st.sampled_from([case.previous, case.current]))
    row, column = (draw(st.integers(0, size - 1)) for size in kernels.shape)
    kernels[row, column] = draw(st.sampled_from([np.nan, np.inf]))
    return case


@st.composite
def empty_pairs(draw: st.DrawFn) -> Pair:
    """No kernels on one side or on both."""
    n, m = draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (0, 3), (3, 0)]))
    return Pair(np.ones((n, 2)), np.ones((m, 2)))


@st.composite
def clips(draw: st.DrawFn, *, longest: int = 8, intervals: Sequence[int] = (1, 2, 3, 4)) -> Clip:
    """Videos whose queries are shuffled in every frame and drift slowly; ``extra`` is each slot's true query.

    The kernels of one frame are far apart, so that every correct tracker gives the same answer.
    """
    count, length = draw(st.integers(1, 4)), draw(st.integers(1, longest))
    dimension = count + 1
    orders = [np.array(draw(st.permutations(range(count)))) for _ in range(length)]
    grid = st.lists(st.integers(-3, 3), min_size=2 * dimension, max_size=2 * dimension)
    frames, truth = [], []
    for index, order in enumerate(orders):
        # All drift the same way, by less than what separates them.
        tracks = 4 * np.eye(count, dimension) + 0.1 * index * np.eye(1, dimension, count)
        features = np.array(draw(grid), np.float64).reshape(dimension, 1, 2)
        frames.append(VideoFrame(tracks[order], features))
        truth.append(np.argsort(order)[orders[0]])
    return Clip(tuple(frames), draw(st.sampled_from(intervals)), tuple(truth))


@st.composite
def split_clips(draw: st.DrawFn) -> Clip:
    """A clip, and in ``extra`` where it is split."""
    clip = draw(clips())
    return Clip(clip.frames, clip.keyframe_interval, draw(st.integers(0, len(clip.frames))))


@st.composite
def clip_pairs(draw: st.DrawFn) -> Clip:
    """A clip, and in ``extra`` another with as many queries or a different number."""
    clip = draw(clips(longest=4))
    return Clip(clip.frames, clip.keyframe_interval, draw(clips(longest=4)))


# Checks -----------------------------------------------------------------------------------------------------


def _asked(candidate: Candidate, previous: Array, current: Array) -> Array:
    """The candidate's permutation, checked to be one-to-one and complete."""
    kept = previous.copy(), current.copy()
    answer = np.asarray(candidate.associate(previous, current))
    n, m = len(previous), len(current)
    assert np.array_equal(kept[0], previous, equal_nan=True), "the candidate changed the previous kernels"
    assert np.array_equal(kept[1], current, equal_nan=True), "the candidate changed the current kernels"
    assert answer.shape == (n,), f"{n} previous kernels need {n} answers, got shape {answer.shape}"
    assert n == 0 or np.issubdtype(answer.dtype, np.integer), f"answers must be integers, got {answer.dtype}"
    matched = answer[answer != -1]
    assert ((matched >= 0) & (matched < m)).all(), f"{answer.tolist()}: answers must be −1 or 0…{m - 1}"
    assert len(set(matched.tolist())) == len(matched), f"{answer.tolist()}: a query continues two tracks"
    assert len(matched) == min(n, m), f"{answer.tolist()}: {min(n, m)} pairs were possible"
    return answer.astype(np.int64)


def _total(similarities: Array, permutation: Array) -> float:
    return Association(permutation, similarities).total


def _one_to_one(candidate: Candidate, case: Pair) -> None:
    _asked(candidate, case.previous, case.current)


def _same_answer_twice(candidate: Candidate, case: Pair) -> None:
    first = _asked(candidate, case.previous, case.current)
    candidate.associate(case.current, case.previous)
    again = _asked(candidate, case.previous, case.current)
    assert np.array_equal(first, again), f"{first.tolist()}, then {again.tolist()} for the same input"


def _equivariant(candidate: Candidate, case: Pair) -> None:
    rows, columns = case.extra
    plain = _asked(candidate, case.previous, case.current)
    shuffled = _asked(candidate, case.previous[rows], case.current[columns])
    expected = np.append(np.argsort(columns), -1)[plain][rows]
    assert np.array_equal(shuffled, expected), (
        f"previous in the order {rows.tolist()}, current in the order {columns.tolist()}: "
        f"expected {expected.tolist()}, got {shuffled.tolist()}"
    )


def _scale_invariant(candidate: Candidate, case: Pair) -> None:
    plain = _asked(candidate, case.previous, case.current)
    scaled = [k * f[:, None] for k, f in zip((case.previous, case.current), case.extra, strict=True)]
    answer = _asked(candidate, *scaled)
    assert np.array_equal(plain, answer), (
        f"{plain.tolist()} becomes {answer.tolist()} when the previous kernels are scaled by "
        f"{case.extra[0].tolist()} and the current ones by {case.extra[1].tolist()}"
    )


def _identity(candidate: Candidate, case: Pair) -> None:
    kernels = case.previous
    cosine = cosine_similarity(kernels, kernels)
    hypothesis.assume((cosine - 2 * np.eye(len(kernels)) < 1 - UNAMBIGUOUS).all())
    answer = _asked(candidate, kernels, kernels.copy())
    assert np.array_equal(answer, np.arange(len(kernels))), f"equal frames: got {answer.tolist()}"


def _optimal_by_brute_force(candidate: Candidate, case: Pair) -> None:
    similarities = cosine_similarity(case.previous, case.current)
    best = max(_total(similarities, choice) for choice in assignments(*similarities.shape))
    _best_total(candidate, case, similarities, best)


def _optimal_by_scipy(candidate: Candidate, case: Pair) -> None:
    similarities = cosine_similarity(case.previous, case.current)
    best = float(similarities[linear_sum_assignment(similarities, maximize=True)].sum())
    _best_total(candidate, case, similarities, best)


def _best_total(candidate: Candidate, case: Pair, similarities: Array, best: float) -> None:
    answer = _asked(candidate, case.previous, case.current)
    total = _total(similarities, answer)
    assert total >= best - TOLERANCE * len(answer), f"{answer.tolist()} has total {total}, the best is {best}"


def _most_similar_first(candidate: Candidate, case: Pair) -> None:
    similarities = cosine_similarity(case.previous, case.current)
    answer = _asked(candidate, case.previous, case.current)
    left = similarities.copy()
    for _ in range(min(left.shape)):
        slot, query = np.unravel_index(left.argmax(), left.shape)
        assert answer[slot] == query, (
            f"{answer.tolist()}: slot {slot} and query {query} are the most similar left"
        )
        left[slot] = left[:, query] = -np.inf


def _stable(candidate: Candidate, case: Pair) -> None:
    plain = _asked(candidate, case.previous, case.current)
    moved = _asked(candidate, case.previous, case.extra)
    assert np.array_equal(plain, moved), (
        f"{plain.tolist()} becomes {moved.tolist()} with current kernels {case.extra.tolist()}, "
        "which move every total by less than half the margin"
    )


def _tie_rule(candidate: Candidate, case: Pair) -> None:
    similarities = cosine_similarity(case.previous, case.current)
    choices = assignments(*similarities.shape)
    best = max(_total(similarities, choice) for choice in choices)
    tied = [choice for choice in choices if _total(similarities, choice) == best]
    expected = min(
        tied, key=lambda choice: [q if q >= 0 else len(choice) + len(case.current) for q in choice]
    )
    answer = _asked(candidate, case.previous, case.current)
    assert np.array_equal(answer, expected), (
        f"{len(tied)} assignments have the total {best}; the first is {expected.tolist()}, "
        f"got {answer.tolist()}"
    )


def _refuses(candidate: Candidate, case: Pair) -> None:
    try:
        answer = candidate.associate(case.previous, case.current)
    except NotOffered:
        raise
    except Exception:
        return
    raise AssertionError(f"kernels that are not finite were answered with {answer!r}, not with an error")


def assignments(slots: int, queries: int) -> list[Array]:
    """Every complete one-to-one assignment, as permutations with −1 for unmatched slots."""
    filled = list(range(queries)) + [-1] * max(slots - queries, 0)
    chosen = set(itertools.permutations(filled, slots))
    return [np.array(c, np.int64) for c in chosen if sum(q >= 0 for q in c) == min(slots, queries)]


def _watched(candidate: Candidate, clip: Clip, state: Any = None) -> tuple[list[FrameAnswer], Any]:
    answers, after = candidate.video(clip.frames, clip.keyframe_interval, state)
    assert len(answers) == len(clip.frames), f"{len(clip.frames)} frames, {len(answers)} answers"
    return answers, after


def _keyframes(candidate: Candidate, clip: Clip) -> None:
    for index, answer in enumerate(_watched(candidate, clip)[0]):
        due = index % clip.keyframe_interval == 0
        assert answer.keyframe == due, (
            f"frame {index} at interval {clip.keyframe_interval}: keyframe {answer.keyframe}"
        )


def _follows(candidate: Candidate, clip: Clip) -> None:
    for index, answer in enumerate(_watched(candidate, clip)[0]):
        expected = clip.extra[index - index % clip.keyframe_interval]
        assert np.array_equal(answer.order, expected), (
            f"frame {index}: slots hold queries {np.asarray(answer.order).tolist()}, "
            f"the truth is {expected.tolist()}"
        )


def _reuses(candidate: Candidate, clip: Clip) -> None:
    for index, answer in enumerate(_watched(candidate, clip)[0]):
        keyframe = clip.frames[index - index % clip.keyframe_interval]
        kernels = keyframe.kernels[np.asarray(answer.order)]
        _same_masks(index, answer, frame_masks(kernels, clip.frames[index].mask_features))


def _same_masks(index: int, answer: FrameAnswer, expected: Array) -> None:
    assert answer.masks.shape == expected.shape, (
        f"frame {index}: masks {answer.masks.shape}, not {expected.shape}"
    )
    worst = float(np.abs(answer.masks - expected).max(initial=0))
    assert worst <= TOLERANCE * max(float(np.abs(expected).max(initial=0)), 1), (
        f"frame {index}: mask logits differ by up to {worst} from "
        "the keyframe's kernels times this frame's features"
    )


def _no_reuse(candidate: Candidate, clip: Clip) -> None:
    _reuses(candidate, Clip(clip.frames, 1))
    _keyframes(candidate, Clip(clip.frames, 1))


def _frozen(candidate: Candidate, clip: Clip) -> None:
    still = (clip.frames[0],) * len(clip.frames)
    reused = _watched(candidate, Clip(still, clip.keyframe_interval))[0]
    computed = _watched(candidate, Clip(still, 1))[0]
    for index, (answer, expected) in enumerate(zip(reused, computed, strict=True)):
        _same_masks(index, answer, expected.masks)


def _streams(candidate: Candidate, clip: Clip) -> None:
    whole = _watched(candidate, clip)[0]
    interval, parts = clip.keyframe_interval, (clip.frames[: clip.extra], clip.frames[clip.extra :])
    first, state = _watched(candidate, Clip(parts[0], interval))
    second, _ = _watched(candidate, Clip(parts[1], interval), json.loads(json.dumps(state)))
    _same_answers(whole, first + second, f"split before frame {clip.extra}")


def _forgets(candidate: Candidate, clip: Clip) -> None:
    first = _watched(candidate, clip)[0]
    _watched(candidate, clip.extra)
    _same_answers(first, _watched(candidate, clip)[0], "the same video again, after another")


def _same_answers(expected: list[FrameAnswer], answers: list[FrameAnswer], when: str) -> None:
    for index, (one, other) in enumerate(zip(expected, answers, strict=True)):
        same = one.keyframe == other.keyframe and np.array_equal(one.order, other.order)
        assert same, (
            f"{when}: frame {index} had keyframe {one.keyframe} and "
            f"slots {np.asarray(one.order).tolist()}, now {other.keyframe} and "
            f"{np.asarray(other.order).tolist()}"
        )
        _same_masks(index, other, one.masks)


# The list ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Property:
    """A named property: what it says, where its cases come from, and the check that raises where it fails."""

    name: str
    statement: str
    cases: st.SearchStrategy[Any]
    check: Callable[[Candidate, Any], None]


@dataclass(frozen=True)
class Outcome:
    """What running a property gave.

    Attributes
    ----------
    holds : bool or None
        None if the candidate does not offer what the property needs.
    cases : int
        Cases tried.
    message : str
        What is wrong with the smallest counterexample.
    request : dict or None
        The smallest counterexample as a request of the command protocol.
    """

    name: str
    statement: str
    holds: bool | None
    cases: int
    message: str = ""
    request: dict[str, Any] | None = None

    @property
    def line(self) -> str:
        """The request as one line of JSON, to paste."""
        return "" if self.request is None else json.dumps(self.request)


def properties(method: str = "optimal") -> list[Property]:
    """All properties of a tracker that claims ``method``, "optimal" or "greedy".

    Raises
    ------
    ConfigurationError
    """
    if method not in ("optimal", "greedy"):
        raise ConfigurationError(f"method {method!r} is unknown; choose 'optimal' or 'greedy'")
    return _shared_properties(method) + (
        _optimal_properties() if method == "optimal" else _greedy_properties()
    )


def _shared_properties(method: str) -> list[Property]:
    """Properties of both methods."""
    return [
        Property("one_to_one", "min(n, m) pairs, none twice, others −1", pairs(), _one_to_one),
        Property("one_to_one_with_duplicates", "so with duplicates and near-ties", near_ties(), _one_to_one),
        Property("empty_sides", "no kernels on a side: no pairs", empty_pairs(), _one_to_one),
        Property(
            "single_kernels", "one kernel each: matched whatever its cosine", pairs(largest=1), _one_to_one
        ),
        Property("repeatable", "the same input gives the same answer", pairs(), _same_answer_twice),
        Property(
            "equivariance", "permuted queries give the permuted answer", shuffled_pairs(method), _equivariant
        ),
        Property(
            "scale_invariance", "positive factors change nothing", scaled_pairs(3, method), _scale_invariant
        ),
        Property("extreme_norms", "so for factors 10⁻³⁰…10³⁰", scaled_pairs(30, method), _scale_invariant),
        Property("identity", "equal frames give the identity", pairs(square=True), _identity),
        Property("refuses_non_finite", "NaN or infinity is an error", poisoned_pairs(), _refuses),
        Property("keyframe_schedule", "frames 0, T, 2T, … are keyframes", clips(), _keyframes),
        Property("tracks_followed", "slots follow their kernels through all keyframes", clips(), _follows),
        Property("kernel_reuse", "masks = last keyframe's kernels · the frame's features", clips(), _reuses),
        Property("interval_one", "T = 1 is no reuse", clips(), _no_reuse),
        Property("frozen_video", "reuse on a frozen video = recomputation", clips(), _frozen),
        Property("streaming", "a split video = the whole video", split_clips(), _streams),
        Property("independent_videos", "nothing is kept from video to video", clip_pairs(), _forgets),
    ]


def _optimal_properties() -> list[Property]:
    """Properties of the optimal method."""
    return [
        Property(
            "optimal_brute_force", "no assignment has a larger Σ cos (≤ 6)", pairs(), _optimal_by_brute_force
        ),
        Property("optimal_scipy", "so against SciPy (≤ 200)", large_pairs(), _optimal_by_scipy),
        Property("stability", "moving less than half the margin changes nothing", perturbed_pairs(), _stable),
        Property("tie_rule", "of equal totals the first permutation", exact_ties(), _tie_rule),
        Property(
            "zero_norm", "the cosine of a zero kernel is 0", pairs_with_zeros(), _optimal_by_brute_force
        ),
    ]


def _greedy_properties() -> list[Property]:
    """Properties of the greedy method."""
    return [
        Property(
            "most_similar_first",
            "the most similar pair left is matched",
            unambiguous_pairs("greedy"),
            _most_similar_first,
        )
    ]


def check_property(
    wanted: Property, candidate: Candidate, examples: int = 100, seed: int = 0, shrink: bool = True
) -> Outcome:
    """Run one property; a failure is shrunk to the smallest counterexample found.

    Parameters
    ----------
    wanted : Property
    candidate : Candidate
    examples : int
        Most cases to draw, besides those tried while shrinking.
    seed : int
    shrink : bool
        False returns the first counterexample, which is faster.
    """
    tried = 0
    smallest: tuple[Any, Exception] | None = None

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(wanted.cases)
    def run(case: Any) -> None:
        nonlocal tried, smallest
        try:
            wanted.check(candidate, case)
        except hypothesis.errors.UnsatisfiedAssumption:
            raise
        except Exception as error:
            smallest = case, error
            raise
        tried += 1

    try:
        run()
    except NotOffered as reason:
        return Outcome(wanted.name, wanted.statement, None, 0, str(reason))
    except Exception as error:
        if smallest is None:
            raise
        case, cause = smallest
        text = str(cause) if isinstance(cause, AssertionError) else f"{type(error).__name__}: {cause}"
        return Outcome(wanted.name, wanted.statement, False, tried, text, case.request())
    return Outcome(wanted.name, wanted.statement, True, tried)


def check_candidate(
    candidate: Candidate, method: str = "optimal", examples: int = 100, seed: int = 0
) -> Iterable[Outcome]:
    """Run every property of ``method``; outcomes come one by one, for a progress display."""
    for wanted in properties(method):
        yield check_property(wanted, candidate, examples, seed)


def catch_table(
    candidates: Mapping[str, Callable[[], Candidate]], examples: int = 50, seed: int = 0
) -> dict[str, list[str]]:
    """Which properties each known-bad tracker fails: name → names of properties."""
    return {name: caught_by(make, examples, seed) for name, make in candidates.items()}


def caught_by(make: Callable[[], Candidate], examples: int = 50, seed: int = 0) -> list[str]:
    """Names of the properties that a known-bad tracker, made anew for each, fails."""
    outcomes = [check_property(wanted, make(), examples, seed, shrink=False) for wanted in properties()]
    return [outcome.name for outcome in outcomes if outcome.holds is False]


def catch_table_markdown(table: Mapping[str, Sequence[str]]) -> str:
    """Write `catch_table` as a Markdown table, one row per known-bad tracker."""
    rows = [
        f"| {name.replace('_', ' ')} | {', '.join(caught) or '**nothing**'} |"
        for name, caught in table.items()
    ]
    return "\n".join(["| known-bad tracker | properties that catch it |", "|---|---|", *rows]) + "\n"
