"""Properties of trackers that give detections identities: what is given, and what is followed."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.trackers import identity_strategies as clips
from conformance.trackers.candidate import Candidate, Identified
from conformance.trackers.identity_strategies import DetectionClip
from conformance.trackers.property import Property

Array = NDArray[Any]
NOBODY, NEW = -1, -2
"""A detection without an identity, and one whose identity no detection of the first frame has."""
MARGIN = 1e-6


def asked(candidate: Candidate, *frames: Any) -> list[Identified]:
    """Return the answers, checked to be an identity for each detection."""
    answers = candidate.identify(frames)
    assert len(answers) == len(frames), f"{len(frames)} frames need as many answers, got {len(answers)}"
    for frame, one in zip(frames, answers, strict=True):
        shape = one.identities.shape
        assert shape == (len(frame),), f"{len(frame)} detections need {len(frame)} identities, got {shape}"
    return answers


def owners(answers: list[Identified]) -> Array:
    """(m,) for each detection of the last frame that of the first with its identity, `NEW` or `NOBODY`."""
    before, after = answers[0].identities, answers[-1].identities
    first = {name: row for row, name in reversed(list(enumerate(before.tolist())))}
    return np.array([NOBODY if one == NOBODY else first.get(one, NEW) for one in after.tolist()], np.int64)


def give_each_track_once(candidate: Candidate, case: DetectionClip) -> None:
    """No identity twice in a frame."""
    for one in asked(candidate, *case.frames):
        given = one.identities[one.identities != NOBODY].tolist()
        assert len(set(given)) == len(given), f"identities {one.identities.tolist()}: one is given twice"


def drop_nobody(candidate: Candidate, case: DetectionClip) -> None:
    """Every detection has an identity."""
    for one in asked(candidate, *case.frames):
        assert (one.identities != NOBODY).all(), f"identities {one.identities.tolist()}: one has none"


def ignore_the_order(side: int) -> Any:
    """Return the check that the detections of frame ``side`` may come in another order."""

    def check(candidate: Candidate, case: DetectionClip) -> None:
        frames, order = list(case.frames), case.extra[side]
        answers = asked(candidate, *frames)
        _assume_decided(case, answers[-1])
        plain = owners(answers)
        frames[side] = frames[side].take(order)
        shuffled = owners(asked(candidate, *frames))
        # Back in the order of the case.
        again = shuffled[np.argsort(order)] if side else _renumbered(shuffled, order)
        assert np.array_equal(plain, again), (
            f"frame 1 continues {plain.tolist()} of frame 0, but {again.tolist()} when frame {side} comes in "
            f"the order {order.tolist()} ({NOBODY}: none, {NEW}: new)"
        )

    return check


def _renumbered(rows: Array, order: Array) -> Array:
    return np.array([row if row < 0 else order[row] for row in rows.tolist()], np.int64)


def _assume_decided(case: DetectionClip, last: Identified) -> None:
    """Leave out cases in which something ties: any rule for those depends on the order."""
    for frame in case.frames:
        assert frame.scores is not None
        hypothesis.assume(len(set(frame.scores.tolist())) == len(frame))
    if last.scores is not None and last.scores.size:
        values = np.concatenate([np.sort(last.scores, axis=None), [np.inf]])
        hypothesis.assume((np.diff(values) > MARGIN).all())
        for count in range(1, min(last.scores.shape) + 1):
            totals = np.sort([*_totals(last.scores, count), -np.inf])
            hypothesis.assume(totals[-1] - totals[-2] > MARGIN)


def _totals(scores: Array, count: int) -> list[float]:
    """Totals of all one-to-one matchings of ``count`` pairs."""
    rows = itertools.combinations(range(scores.shape[0]), count)
    columns = list(itertools.permutations(range(scores.shape[1]), count))
    return [float(scores[row, column].sum()) for row in map(list, rows) for column in map(list, columns)]


def be_optimal_by_its_own_score(candidate: Candidate, case: DetectionClip) -> None:
    """No matching of as many pairs has a larger total of the tracker's own score."""
    last = asked(candidate, *case.frames)[-1]
    if last.scores is None or last.tracks is None:
        return
    column = {name: index for index, name in enumerate(last.tracks.tolist())}
    holder = {column[name]: row for row, name in enumerate(last.identities.tolist()) if name in column}
    total = sum(float(last.scores[row, track]) for track, row in holder.items())
    best = max(_totals(last.scores, len(holder)))
    assert total >= best - MARGIN, (
        f"{len(holder)} pairs, track to detection {holder}, have the "
        f"total {total:.6g} of its own scores {np.round(last.scores, 4).tolist()}; {best:.6g} was possible"
    )


def follow(candidate: Candidate, case: DetectionClip) -> None:
    """Who is the same has the same identity, and nobody else has it."""
    answers = asked(candidate, *case.frames)
    names: dict[int, int] = {}
    for frame, (one, shown) in enumerate(zip(answers, case.extra, strict=True)):
        for name, who in zip(one.identities.tolist(), shown, strict=True):
            expected = names.setdefault(who, name)
            assert name == expected, f"frame {frame}: object {who} was {expected} and is now {name}"
            others = {other for other, given in names.items() if given == name and other != who}
            assert not others, f"frame {frame}: object {who} has the identity of object {others.pop()}"


def identity_properties() -> list[Property]:
    """What holds of some trackers only, each with the smallest case in which it does not."""
    return [*_of_giving(), *_of_following()]


def _of_giving() -> list[Property]:
    free = clips.free_clips()
    return [
        Property(
            "tracks_given_once", "no two detections of a frame share an identity", free, give_each_track_once
        ),
        Property("nobody_dropped", "every detection has an identity", free, drop_nobody),
        Property("order_of_detections", "detections in any order, ties apart", free, ignore_the_order(1)),
        Property("order_of_tracks", "tracks in any order, ties apart", free, ignore_the_order(0)),
        Property(
            "own_optimum",
            "no as many pairs have more of its own score",
            st.one_of(free, clips.contested_clips()),
            be_optimal_by_its_own_score,
            share=3,
        ),
    ]


def _of_following() -> list[Property]:
    return [
        Property(
            "objects_followed", "unmistakable objects keep their identity", clips.followed_clips(), follow
        ),
        Property("newcomers", "an object unlike all is new", clips.changing_clips(), follow),
        Property("labels_switched", "so where their label changes", clips.relabelled_clips(), follow),
        Property("crossings", "so where they exchange places", clips.crossing_clips(), follow),
        Property("twins", "so where only places tell them apart", clips.twin_clips(), follow),
        Property("gap", "so after a frame unseen", clips.interrupted_clips(1), follow, share=0.3),
        Property("long_gap", "so after twelve", clips.interrupted_clips(12), follow, share=0.3),
    ]
