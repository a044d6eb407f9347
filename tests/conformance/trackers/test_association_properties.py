"""The properties hold for the reference, and every known-bad tracker is caught by the one that should."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from conformance.trackers.bad_tracker import Bad, BadOnline
from conformance.trackers.candidate import CallableCandidate, NotOffered, Refusal, VideoFrame
from conformance.trackers.command_candidate import CommandCandidate
from conformance.trackers.known_bad_associations import GreedyClaimedOptimal
from conformance.trackers.known_bad_trackers import KNOWN_BAD
from conformance.trackers.line_process import CommandFailure
from conformance.trackers.optimality_properties import assignments
from conformance.trackers.properties import catch_table, catch_table_markdown, check_candidate, properties
from conformance.trackers.property import check_property
from conformance.trackers.protocol import AnswerError
from conformance.trackers.reference_candidate import ReferenceCandidate
from refimpl.errors import ConfigurationError

DOCS = Path(__file__).parents[3] / "docs"
BY_NAME = {wanted.name: wanted for wanted in properties()}
VIDEOS = {
    *("keyframe_schedule", "tracks_followed", "kernel_reuse", "interval_one", "frozen_video", "streaming"),
    *("independent_videos", "crowds", "drift", "interleaved_videos", "long_videos", "map_shapes", "recovery"),
    *("restart", "state_used_twice", "unread_kernels", "large_maps"),
}
ONLINE = {
    *("lifecycle", "online_scores", "online_masks", "maskness", "online_streaming"),
    *("online_interleaved", "online_recovery", "online_long", "online_crowds"),
}


@pytest.mark.parametrize("method", ["optimal", "greedy"])
def test_the_reference_has_every_property(method):
    outcomes = list(check_candidate(ReferenceCandidate(method), method, cases=30))
    assert [(one.name, one.message) for one in outcomes if not one.holds] == []
    # Only the few possible shapes of empty sides are exhausted before their share of the cases.
    shares = {one.name: one.share for one in properties(method)}
    assert all(one.cases >= min(round(30 * shares[one.name]), 4) for one in outcomes)


@pytest.mark.parametrize("name", KNOWN_BAD)
def test_known_bad_trackers_are_caught(name):
    make, wanted = KNOWN_BAD[name]
    outcome = check_property(BY_NAME[wanted], make(), cases=300, shrink=False)
    assert outcome.holds is False, f"{wanted} holds for the tracker with {name}"
    assert outcome.message
    assert json.loads(outcome.line)["op"] in ("associate", "video", "online")


class IndexOfAByte(Bad):
    """Keeps the index of a query in eight bits."""

    def associate(self, previous, current):
        answer = super().associate(previous, current)
        return np.where(answer < 0, -1, answer & 0xFF)


class LastTwoExchanged(Bad):
    """Goes wrong where there are as many kernels as a tracker is asked for."""

    def associate(self, previous, current):
        answer = super().associate(previous, current)
        return answer[[*range(298), 299, 298]] if len(answer) == len(current) == 300 else answer


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [IndexOfAByte, LastTwoExchanged])
def test_what_goes_wrong_with_the_most_kernels_only_is_caught(make, seed):
    many = [BY_NAME[name] for name in ("optimal_scipy", "one_to_one_of_many", "crowds")]
    assert any(not check_property(one, make(), seed=seed, shrink=False).holds for one in many)


def test_the_frame_of_the_known_bad_trackers_is_sound():
    """Without its defect each would pass: what is caught is the defect."""
    outcomes = {one.name: one.holds for one in check_candidate(Bad(), cases=20)}
    assert {name for name, holds in outcomes.items() if holds is None} == ONLINE
    assert False not in outcomes.values()
    assert all(one.holds for one in check_candidate(BadOnline(), cases=20))


def test_the_counterexample_is_the_smallest():
    """A tracker that goes wrong wherever two slots want one query is shown two slots of one channel."""
    make, wanted = KNOWN_BAD["best query of each slot alone"]
    request = check_property(BY_NAME[wanted], make(), cases=200).request
    assert np.shape(request["previous"]) == (2, 1)


def test_the_table_names_what_catches():
    table = catch_table({"greedy": GreedyClaimedOptimal}, cases=40)
    assert "optimal_scipy" in table["greedy"]
    assert "keyframe_schedule" not in table["greedy"]
    assert "| greedy | " in catch_table_markdown(table)
    assert "**nothing**" in catch_table_markdown({"sound": []})


def test_assignments_are_counted_by_the_formula():
    """m! / (m − n)! for n ≤ m, and the same for the transposed."""
    assert [len(assignments(*shape)) for shape in ((3, 3), (2, 4), (4, 2), (0, 3))] == [6, 12, 12, 1]


def test_any_callable_can_be_checked():
    """SciPy on cosines, written here: all properties of associations but the tie rule, and no videos."""

    def scipys(previous, current):
        if not np.isfinite(previous).all() or not np.isfinite(current).all():
            raise ValueError
        answer = np.full(len(previous), -1)
        if len(previous) and len(current):
            with np.errstate(invalid="ignore"):
                cosines = np.nan_to_num(1 - cdist(previous, current, "cosine"))
            rows, columns = linear_sum_assignment(cosines, maximize=True)
            answer[rows] = columns
        return answer

    outcomes = {one.name: one.holds for one in check_candidate(CallableCandidate(scipys), cases=25)}
    assert {name for name, holds in outcomes.items() if holds is None} == VIDEOS | ONLINE
    # SciPy's cosine rounds ties apart and overflows; of assignments with equal totals it takes any.
    rules = {"tie_rule", "rounding_ties", "extreme_norms"}
    assert {name for name, holds in outcomes.items() if holds is False} <= rules


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigurationError, match="sinkhorn"):
        properties("sinkhorn")


ECHO = f"""{sys.executable} -c '
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(ANSWER), flush=True)
'"""


def test_a_command_answers():
    answer = '{"permutation": [len(request["current"]) - 1]}'
    with CommandCandidate(ECHO.replace("ANSWER", answer)) as candidate:
        assert candidate.associate(np.ones((1, 2)), np.ones((3, 2))).tolist() == [2]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ('{"error": "no"}', Refusal, "no"),
        ('{"unsupported": "video"}', NotOffered, "video"),
        ('{"permutation": ["a"]}', AnswerError, "integers"),
        ('{"permutation": 1}', AnswerError, "list"),
        ("[1]", CommandFailure, "object"),
        ("sys.exit(3)", CommandFailure, "status 3"),
    ],
)
def test_answers_of_a_command_are_checked(answer, error, message):
    with (
        CommandCandidate(ECHO.replace("ANSWER", answer)) as candidate,
        pytest.raises(error, match=message),
    ):
        candidate.associate(np.ones((1, 1)), np.ones((1, 1)))


def test_a_silent_command_times_out():
    with (
        CommandCandidate(f"{sys.executable} -c 'import time; time.sleep(60)'", timeout=0.2) as candidate,
        pytest.raises(CommandFailure, match=r"within 0\.2 s"),
    ):
        candidate.associate(np.ones((1, 1)), np.ones((1, 1)))


def test_a_missing_command_is_named():
    with pytest.raises(CommandFailure, match="no-such-program"):
        CommandCandidate("no-such-program --option")


def test_what_is_not_offered_is_not_counted_as_held():
    with CommandCandidate(ECHO.replace("ANSWER", '{"unsupported": "video"}')) as candidate:
        outcome = check_property(BY_NAME["streaming"], candidate, cases=5)
    assert outcome.holds is None
    assert outcome.cases == 0


def test_the_documented_exchange_is_what_the_reference_answers():
    """Request and answer of docs/check-tracker.md, line by line; the state is each tracker's own."""
    text = (DOCS / "check-tracker.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```json\n(.*?)\n(.*?)\n```", text)
    (asked, answered), (video, shown) = [[json.loads(line) for line in block] for block in blocks]
    reference = ReferenceCandidate()
    permutation = reference.associate(np.array(asked["previous"], float), np.array(asked["current"], float))
    assert permutation.tolist() == answered["permutation"]
    frames = [
        VideoFrame(np.array(one["kernels"], float), np.array(one["mask_features"], float))
        for one in video["frames"]
    ]
    answers, _ = reference.video(frames, video["keyframe_interval"], video["state"])
    told = [{"keyframe": a.keyframe, "order": a.order.tolist(), "masks": a.masks.tolist()} for a in answers]
    assert told == shown["frames"]
