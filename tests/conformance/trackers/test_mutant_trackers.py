"""The harness of `make mutants-trackers` catches what is wrong, and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import mutant_trackers
import pytest
from mutant_trackers import Mutant, change_between, running, verdict, verdicts

from conformance.trackers.candidate import CallableCandidate
from conformance.trackers.known_bad_associations import Minimised
from conformance.trackers.reference_candidate import ReferenceCandidate

ROOT = Path(__file__).parents[3]


def endless(previous, current):
    """Never answer."""
    while len(previous):
        previous = previous + 0
    return previous


def test_what_is_wrong_is_caught_and_what_is_right_is_not():
    makes = {
        "minimised": Minimised,
        "sound": ReferenceCandidate,
        "endless": partial(CallableCandidate, endless),
    }
    mutants = [Mutant("any", name, make) for name, make in makes.items()]
    found = dict(zip(makes, verdicts(mutants, 2, (2,)), strict=True))
    assert found["minimised"] == "optimal_brute_force"
    assert found["sound"] == ""
    assert found["endless"] == "hangs"


def test_a_mutant_that_is_no_program_is_none():
    assert verdict(Mutant("any", "", partial(int, "x")), (1,)) == mutant_trackers.NOT_LOADED


def test_annotations_and_messages_are_not_run():
    one = "def f(a: int | None) -> str:\n    raise ValueError(f'{a + 1}')\n"
    other = "def f(a: int & None) -> int:\n    raise ValueError(f'{a - 1}')\n"
    assert running(one) == running(other)
    assert running(one) != running(one.replace("ValueError", "KeyError"))
    assert change_between("a = 1\nb = 2\n", "a = 1\nb = 3\n") == "b = 2 → b = 3"


@pytest.mark.parametrize(("file", "change"), sorted(mutant_trackers.reasons()))
def test_a_mutant_that_is_equivalent_is_of_a_line_that_there_is(file, change):
    lines = [line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    assert change.partition(" → ")[0] in lines
