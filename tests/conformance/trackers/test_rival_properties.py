"""The properties of identities: one tracker has them all, a defect loses each; and the published table."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from conformance.trackers.candidate import CallableCandidate, Identified
from conformance.trackers.identity_properties import identity_properties
from conformance.trackers.properties import rival_properties
from conformance.trackers.property import check_property
from conformance.trackers.reference_candidate import ReferenceCandidate
from conformance.trackers.rival_candidate import RivalCandidate
from refimpl.errors import ConfigurationError
from refimpl.rivals import RIVALS, RULES

IDENTITIES = {one.name: one for one in identity_properties()}
DOCS = Path(__file__).parents[3] / "docs"


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = np.prod(np.maximum(sides, 0))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


class Sound:
    """Ten times the cosine and the IoU in one score, the largest total above half of it; forgets nothing."""

    needed, patience = 5.0, 10**6

    def __init__(self):
        self.tracks = {}
        self.born = self.frame = 0

    def score(self, found, row, track):
        known, other, _ = track
        cosine = 1 - cdist(found.embeddings[[row]], known.embeddings[[other]], "cosine")[0, 0]
        return 10 * cosine + overlap(found.boxes[row], known.boxes[other])

    def pairs(self, gains):
        return zip(*linear_sum_assignment(gains, maximize=True), strict=True)

    def rest(self):
        self.born += 1
        return self.born - 1

    def identify(self, found):
        names = [name for name, track in self.tracks.items() if self.frame - track[2] <= self.patience]
        table = np.array(
            [[self.score(found, row, self.tracks[name]) for name in names] for row in range(len(found))]
        ).reshape(len(found), len(names))
        gains = np.maximum(table - self.needed, 0)
        given = np.full(len(found), -1)
        for row, column in self.pairs(gains) if table.size else ():
            if gains[row, column] > 0:
                given[row] = names[column]
        for row in np.flatnonzero(given == -1):
            given[row] = self.rest()
        for row, name in enumerate(given.tolist()):
            self.tracks[name] = (found, row, self.frame)
        self.frame += 1
        return Identified(given, table, np.array(names))


class Forced(Sound):
    needed = -1000.0


class ForgetsAtOnce(Sound):
    patience = 1


class ForgetsAfterTen(Sound):
    patience = 10


class EachForItself(Sound):
    def pairs(self, gains):
        return enumerate(gains.argmax(axis=1).tolist())


class DropsTheRest(Sound):
    def rest(self):
        return -1


class DetectionsInTurn(Sound):
    """What comes first chooses first, whatever the others would gain."""

    needed = -1000.0

    def pairs(self, gains):
        left = gains.copy()
        for row in range(min(left.shape)):
            column = int(left[row].argmax())
            left[:, column] = -np.inf
            yield row, column


class TracksInTurn(DetectionsInTurn):
    def pairs(self, gains):
        return ((row, column) for column, row in super().pairs(gains.T))


class CountsAnew(Sound):
    def identify(self, found):
        return Identified(np.arange(len(found)))


class ByLabel(Sound):
    def score(self, found, row, track):
        same = found.labels[row] == track[0].labels[track[1]]
        return super().score(found, row, track) if same else -100.0


class ByPlace(Sound):
    def score(self, found, row, track):
        return 10 * overlap(found.boxes[row], track[0].boxes[track[1]])


class ByKernel(Sound):
    def score(self, found, row, track):
        return super().score(found, row, track) - overlap(found.boxes[row], track[0].boxes[track[1]])


DEFECTS = {
    "tracks_given_once": EachForItself,
    "nobody_dropped": DropsTheRest,
    "order_of_detections": DetectionsInTurn,
    "order_of_tracks": TracksInTurn,
    "own_optimum": DetectionsInTurn,
    "objects_followed": CountsAnew,
    "newcomers": Forced,
    "labels_switched": ByLabel,
    "crossings": ByPlace,
    "twins": ByKernel,
    "gap": ForgetsAtOnce,
    "long_gap": ForgetsAfterTen,
}


def candidate(kind):
    def identify(frames):
        tracker = kind()
        return [tracker.identify(frame) for frame in frames]

    return CallableCandidate(identify=identify)


def test_each_property_is_asked_of_a_defect():
    assert list(DEFECTS) == list(IDENTITIES)


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_sound_tracker_has_it_and_one_with_a_defect_has_not(name):
    outcome = check_property(IDENTITIES[name], candidate(Sound), cases=100)
    assert outcome.holds, outcome.message
    caught = check_property(IDENTITIES[name], candidate(DEFECTS[name]), cases=300, shrink=False)
    assert caught.holds is False
    assert caught.request["op"] == "identify"


def test_who_takes_kernels_only_is_not_asked():
    outcome = check_property(IDENTITIES["gap"], ReferenceCandidate(), cases=3)
    assert outcome.holds is None
    assert "no detections" in outcome.message


def test_an_unknown_rival_or_property_is_refused():
    with pytest.raises(ConfigurationError, match="deepsort"):
        RivalCandidate("deepsort")
    with pytest.raises(ConfigurationError, match="lifecycle"):
        rival_properties(only=["lifecycle"])


def published():
    """Return the table of docs/check-tracker.md: property → tracker → whether it holds."""
    text = (DOCS / "check-tracker.md").read_text(encoding="utf-8")
    header = re.search(r"^\| property \| (masktrack.*) \|$", text, re.MULTILINE)
    names = header[1].replace("<br>", ", ").split(" | ")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text[header.end() :], re.MULTILINE)
    table = {
        name: {rule: cell == "yes" for rule, cell in zip(names, cells.split(" | "), strict=True)}
        for name, cells in rows
    }
    assert names == list(RULES)
    return table


def test_the_published_table_has_every_property():
    assert list(published()) == [one.name for one in rival_properties()]


SHOWN = [
    *IDENTITIES,
    "optimal_brute_force",
    "equivariance",
    "one_to_one",
    "stability",
    "identity",
    "tie_rule",
]


@pytest.mark.parametrize("rule", RULES)
def test_the_published_table_is_what_is_found(rule):
    wanted = rival_properties(only=SHOWN)
    tracker = RivalCandidate(rule.partition(",")[0])
    found = {one.name: check_property(one, tracker, shrink=False).holds for one in wanted}
    assert found == {name: published()[name][rule] for name in found}
    assert set(rule.split(", ")) <= set(RIVALS)
