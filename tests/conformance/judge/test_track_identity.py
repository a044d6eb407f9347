"""Track identity: how far rounding moves a cosine, and which tracks it may send elsewhere."""

from __future__ import annotations

import itertools

import narrow_network
import numpy as np
import pytest

import conformance
from conformance.candidates.plain import NumpyCandidate, PythonCandidate
from conformance.judge.track_identity import compare_tracks, cycles, similarity_errors
from conformance.reports.html_report import html_report
from conformance.reports.markdown_report import markdown_report
from conformance.reports.report import Decision, Report
from refimpl.association import associate
from refimpl.errors import ShapeError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")


def cosines(one: Array, other: Array) -> Array:
    """Return the cosine of each row with each, by its definition."""
    return np.array([[x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for y in other] for x in one])


def errors(one: Array, other: Array, radius: float) -> tuple[Array, Array]:
    """Return by how much the cosines may fall and rise if all vectors move by at most ``radius``."""
    norms = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    radii = np.full(len(one), radius), np.full(len(other), radius)
    return similarity_errors(associate(one, other).similarities, norms[0], radii[0], norms[1], radii[1])


@pytest.mark.parametrize("size", [1e-9, 1e-4, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_perturbation_moves_a_cosine_further(seed: int, size: float) -> None:
    """Elements moved by up to ``size``, at random, all by the most, and towards and away from each other."""
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((4, 6)), rng.standard_normal((5, 6))
    other[:2] = one[:2] * (1 + 1e-7 * rng.standard_normal((2, 6)))
    other[2] = -one[2]
    fall, rise = errors(one, other, size * np.sqrt(6))
    before = cosines(one, other)
    for move in range(60):
        if move < 40:
            draws = [rng.uniform(-size, size, x.shape) for x in (one, other)]
            moves = [size * np.sign(draw) if move % 2 else draw for draw in draws]
        else:
            i, j = move % len(one), move % len(other)
            sign = 1 if move % 2 else -1
            moves = [
                np.broadcast_to(sign * size * np.sign(x), y.shape)
                for x, y in ((other[j], one), (one[i], other))
            ]
        after = cosines(one + moves[0], other + moves[1])
        assert (before - after <= fall).all()
        assert (after - before <= rise).all()


@pytest.mark.parametrize(("norm", "radius"), [(1.0, 0.2), (5.0, 0.01), (0.3, 0.2)])
def test_the_bound_is_reached(norm: float, radius: float) -> None:
    """In a plane, both vectors turned as far as they can: onto the tangents of their balls."""
    one, other = np.array([[norm, 0.0]]), np.array([[0.0, norm]])
    turn = np.arcsin(radius / norm)
    stretched = norm * np.cos(turn)
    nearer = (
        stretched * np.array([[np.cos(turn), np.sin(turn)]]),
        stretched * np.array([[np.sin(turn), np.cos(turn)]]),
    )
    assert np.linalg.norm(nearer[0] - one) == pytest.approx(radius)
    _, rise = errors(one, other, radius)
    assert cosines(*nearer)[0, 0] == pytest.approx(float(rise[0, 0]), rel=1e-9)


def test_a_vector_that_may_vanish_may_turn_anywhere() -> None:
    fall, rise = errors(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 0.0]]), 1.0)
    root = np.sqrt(0.5)
    np.testing.assert_allclose(fall, [[1 + root, 1.0]], atol=1e-9)
    np.testing.assert_allclose(rise, [[1 - root, 1.0]], atol=1e-9)


def totals(similarities: Array) -> dict[tuple[int, ...], float]:
    """Return every permutation's total."""
    count = len(similarities)
    return {order: similarities[range(count), order].sum() for order in itertools.permutations(range(count))}


def compared(reference: tuple[Array, Array], given: tuple[Array, Array], allowed: float) -> Decision:
    """Compare two frames of one picture each."""
    previous, current = ((r[None], g[None], allowed) for r, g in zip(reference, given, strict=True))
    return compare_tracks(previous, current)


@pytest.mark.parametrize("seed", range(5))
def test_margins_are_those_of_every_permutation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((5, 8)), rng.standard_normal((5, 8))
    decision = compared(frames, frames, 0.0)
    every = totals(associate(*frames).similarities)
    best = max(every, key=lambda order: every[order])
    runners_up = [
        max(total for order, total in every.items() if order[track] != best[track]) for track in range(5)
    ]
    assert (decision.count, decision.flips, decision.ties) == (5, 0, 0)
    assert decision.smallest_margin == pytest.approx(every[best] - max(runners_up), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_what_rounding_can_do_is_never_a_flip(seed: int) -> None:
    """Kernels nearly alike, so that noise exchanges tracks all the time; the tracks are brute force's."""
    rng = np.random.default_rng(seed)
    allowed = 10.0 ** rng.uniform(-6, -1)
    base = rng.standard_normal((1, 8))
    frames = [base + allowed * rng.standard_normal((5, 8)) for _ in range(2)]
    given = [frame + rng.choice([-allowed, allowed], frame.shape) for frame in frames]
    decision = compared((frames[0], frames[1]), (given[0], given[1]), allowed)
    every = totals(cosines(*given))
    chosen = max(every, key=lambda order: every[order])
    assert decision.flips == 0
    assert decision.ties == np.count_nonzero(associate(*frames).permutation != chosen)
    assert decision.near == 5


def test_noise_does_exchange_tracks() -> None:
    """Else the test above would say nothing."""
    rng = np.random.default_rng(0)
    frames = [1 + 1e-3 * rng.standard_normal((5, 8)) for _ in range(2)]
    given = [frame + rng.choice([-1e-3, 1e-3], frame.shape) for frame in frames]
    assert compared((frames[0], frames[1]), (given[0], given[1]), 1e-3).ties > 0


def test_each_exchange_is_judged_by_itself() -> None:
    """Two tracks exchanged that are alike, and two that are not."""
    alike = np.array([[1.0, 0, 0, 0], [1.0, 1e-4, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    order = [1, 0, 3, 2]
    decision = compared((alike, alike), (alike, alike[order]), 1e-3)
    assert (decision.ties, decision.flips) == (2, 2)
    assert decision.largest_flipped_margin == pytest.approx(2.0)
    assert decision.verdict == "fail"


def test_cycles_are_those_of_the_permutation() -> None:
    found = cycles(np.arange(6), np.array([1, 2, 0, 3, 5, 4]))
    assert [cycle.tolist() for cycle in found] == [[0, 1, 2], [4, 5]]


def test_one_query_has_nowhere_else_to_go() -> None:
    decision = compared((np.ones((1, 3)), np.ones((1, 3))), (np.ones((1, 3)), -np.ones((1, 3))), 0.1)
    assert (decision.count, decision.flips, decision.smallest_margin) == (1, 0, None)


# Through `conformance.verify`.

FRAMES = {f"frame {number}": frame[None] for number, frame in enumerate(narrow_network.picture(3))}


def judged(change: str, given: dict[str, Array] = FRAMES, *, frames: bool = True) -> Report:
    """Judge our own float32 network, whose outputs are changed on the second frame."""
    right = NumpyCandidate(narrow_network.CONFIG, narrow_network.weights())
    second = list(FRAMES.values())[1]

    def run(images: Array) -> dict[str, Array]:
        outputs = dict(right.run(images))
        if change == "left out":
            del outputs["kernels"]
        elif change == "exchanged" and np.array_equal(images, second):
            outputs["kernels"] = outputs["kernels"][:, ::-1].copy()
        return outputs

    candidate = PythonCandidate(run)
    return conformance.verify(
        candidate, narrow_network.CONFIG, narrow_network.weights(), given, frames=frames
    )


def tracks(report: Report) -> list[list[Decision]]:
    """Return what is said of tracks on each input."""
    return [[d for d in item.decisions if d.kind == "track identity"] for item in report.inputs]


def test_our_own_kernels_follow_every_track() -> None:
    report = judged("nothing")
    assert report.verdict == "pass"
    first, second, third = tracks(report)
    assert first == []
    assert second[0].count == third[0].count == 5
    assert report.decisions[-1].count == 10


def test_exchanged_kernels_lose_the_tracks_there_and_after() -> None:
    report = judged("exchanged")
    assert report.verdict == "fail"
    _, second, third = tracks(report)
    assert second[0].flips + second[0].ties == 4
    assert third[0].flips + third[0].ties == 4
    assert [item.flipped for item in report.inputs] == [
        "",
        *(f"{item[0].flips} track identity" for item in (second, third)),
    ]
    assert f"| frame 1 | 1×3×64×96 | {second[0].flips} track identity | fail |" in markdown_report(report)
    assert f"flipped: {second[0].flips} track identity" in html_report(report)


def test_without_kernels_tracks_are_not_judged() -> None:
    report = judged("left out")
    assert report.verdict == "pass"
    assert [item[0].verdict for item in tracks(report)[1:]] == ["not judged"] * 2
    assert str(report.decisions[-1]).startswith("track identity: not judged, the candidate's kernels")


def test_pictures_that_are_no_video_claim_nothing() -> None:
    assert tracks(judged("nothing", frames=False)) == [[], [], []]


@pytest.mark.parametrize(("counts", "said"), [([1], "got 1"), ([2, 1], "batches of one size")])
def test_what_is_no_video_is_refused(counts: list[int], said: str) -> None:
    pictures = {f"frame {place}": narrow_network.picture(count) for place, count in enumerate(counts)}
    with pytest.raises(ShapeError, match=said):
        judged("nothing", pictures)
