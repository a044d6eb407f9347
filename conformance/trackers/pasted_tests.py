"""A counterexample as a unit test to paste, in the language the tracker is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers.candidate import LivingTrack
from conformance.trackers.pasted_languages import LANGUAGES, Assertion, Question, Refused, Value
from conformance.trackers.property import Call, Outcome
from conformance.trackers.reference_candidate import ReferenceCandidate
from refimpl.errors import ConfigurationError, MobileInstError

Array = NDArray[Any]
LONGEST_TEST = 20_000
"""Characters above which nobody pastes a test."""
CLOSE = 1e-5


@dataclass(frozen=True)
class Replayed:
    """A call, what the reference answers (None: it refuses), and the call whose state it goes on from."""

    call: Call
    expected: Any
    state_from: int | None


def pasted_test(outcome: Outcome, language: str, method: str = "optimal") -> str:
    """Return the smallest counterexample of a property as a unit test; "" if too long, or of detections.

    The test asks what was asked, of functions ``associate``, ``video`` and ``online`` that take and return
    what the requests of docs/check-tracker.md do, and expects the first thing that the reference answers
    otherwise.

    Raises
    ------
    ConfigurationError
        An unknown language.
    """
    if language not in LANGUAGES:
        raise ConfigurationError(f"language {language!r} is unknown; choose one of {', '.join(LANGUAGES)}")
    if any(call.kind == "identify" for call in outcome.calls):
        return ""
    replayed = _replay(outcome.calls, method)
    wrong = next((i for i, one in enumerate(replayed) if _difference(one) is not None), len(replayed) - 1)
    if wrong < 0:
        return ""
    kept = list(range(wrong + 1)) if outcome.history else _ancestry(replayed, wrong)
    questions = [_question(replayed[index], index, kept) for index in kept]
    assertion = _difference(replayed[wrong]) or Assertion("", Refused())
    text = LANGUAGES[language].test(outcome.name, outcome.message, questions, assertion)
    return text if len(text) <= LONGEST_TEST else ""


def _replay(calls: Sequence[Call], method: str) -> list[Replayed]:
    """Ask the reference the same; a state is that of the call whose answer brought it."""
    reference = ReferenceCandidate(method)
    replayed: list[Replayed] = []
    for call in calls:
        arguments, state_from = call.arguments, None
        if call.kind != "associate" and call.arguments[2] is not None:
            state_from = _origin(replayed, call.arguments[2])
            before = None if state_from is None else replayed[state_from].expected
            arguments = (*call.arguments[:2], None if before is None else before[1])
        try:
            expected = getattr(reference, call.kind)(*arguments)
        except MobileInstError:
            expected = None
        replayed.append(Replayed(call, expected, state_from))
    return replayed


def _origin(replayed: Sequence[Replayed], state: Any) -> int | None:
    """The last call whose answer holds this state."""
    states = [
        one.call.answer[1] if one.call.kind != "associate" and one.call.answer is not None else None
        for one in replayed
    ]
    return next((i for i in reversed(range(len(states))) if states[i] == state), None)


def _ancestry(replayed: Sequence[Replayed], index: int) -> list[int]:
    """The calls whose states lead to this one, and itself."""
    before = replayed[index].state_from
    return [*([] if before is None else _ancestry(replayed, before)), index]


def _question(one: Replayed, index: int, kept: Sequence[int]) -> Question:
    state_from = None if one.state_from is None else kept.index(one.state_from)
    return Question(one.call.kind, one.call.arguments, kept.index(index), state_from)


def _difference(one: Replayed) -> Assertion | None:
    """The first thing in which an answer differs from the reference's; None if in nothing."""
    if one.expected is None:
        return None if one.call.answer is None else Assertion("", Refused())
    if one.call.kind == "associate":
        expected = np.asarray(one.expected).tolist()
        return _unequal(
            "", expected, None if one.call.answer is None else np.asarray(one.call.answer).tolist()
        )
    answers = one.call.answer[0] if one.call.answer is not None else [None] * len(one.expected[0])
    compare = _video_difference if one.call.kind == "video" else _online_difference
    pairs = zip(one.expected[0], answers, strict=False)
    found = (compare(f"frames[{index}]", *pair) for index, pair in enumerate(pairs))
    return next((difference for difference in found if difference is not None), None)


def _unequal(path: str, expected: Any, given: Any) -> Assertion | None:
    return None if expected == given else Assertion(path, Value(expected))


def _video_difference(path: str, expected: Any, given: Any) -> Assertion | None:
    if given is None:
        return Assertion(f"{path}.order", Value(expected.order.tolist()))
    return (
        _unequal(f"{path}.keyframe", expected.keyframe, given.keyframe)
        or _unequal(f"{path}.order", expected.order.tolist(), np.asarray(given.order).tolist())
        or _mask_difference(path, expected.masks, np.asarray(given.masks))
    )


def _mask_difference(path: str, expected: Array, given: Array) -> Assertion | None:
    if expected.shape != given.shape or not expected.size:
        return None
    worst = np.unravel_index(np.abs(expected - given).argmax(), expected.shape)
    if abs(expected[worst] - given[worst]) <= CLOSE:
        return None
    place = "".join(f"[{index}]" for index in worst)
    return Assertion(f"{path}.masks{place}", Value(float(expected[worst]), CLOSE))


def _online_difference(
    path: str, expected: Sequence[LivingTrack], given: Sequence[LivingTrack] | None
) -> Assertion | None:
    given = given or []
    for index, track in enumerate(expected):
        if index >= len(given):
            return Assertion(f"{path}.tracks[{index}].identity", Value(track.identity))
        here, other = f"{path}.tracks[{index}]", given[index]
        difference = (
            _unequal(f"{here}.identity", track.identity, other.identity)
            or _unequal(f"{here}.label", track.label, other.label)
            or _segmentation_difference(f"{here}.segmentation", track.segmentation, other.segmentation)
        )
        if difference is None and abs(track.score - other.score) > CLOSE:
            difference = Assertion(f"{here}.score", Value(track.score, CLOSE))
        if difference is not None:
            return difference
    return Assertion(f"{path}.tracks", Value(len(expected)), "length") if len(given) > len(expected) else None


def _segmentation_difference(path: str, expected: Array | None, given: Array | None) -> Assertion | None:
    if expected is None:
        return _unequal(path, None, _counts(given))
    return _unequal(f"{path}.counts", _counts(expected), _counts(given))


def _counts(segmentation: Array | None) -> list[int] | None:
    """COCO's run lengths, down the columns, beginning with those outside."""
    if segmentation is None:
        return None
    flat = np.asarray(segmentation, np.uint8).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes.tolist(), len(flat)]).tolist()
    return [0, *runs] if flat[0] else runs
