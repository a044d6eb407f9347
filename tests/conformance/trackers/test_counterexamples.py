"""Counterexamples are small, and the documented ones are those that are found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conformance.trackers.known_bad_trackers import KNOWN_BAD
from conformance.trackers.properties import properties
from conformance.trackers.property import check_property

DOCS = Path(__file__).parents[3] / "docs"
BY_NAME = {wanted.name: wanted for wanted in properties()}
SMALL = (
    *("greedy claimed optimal", "minimised instead of maximised", "best query of each slot alone"),
    *("ties in reverse order", "absolute cosine", "centred cosine", "norm over the wrong axis"),
    *(
        "NaN taken as zero",
        "surplus kernels cut off",
        "input normalised in place",
        "zero kernel taken as opposite",
    ),
)


@pytest.mark.parametrize("name", SMALL)
def test_three_kernels_are_enough(name):
    make, wanted = KNOWN_BAD[name]
    request = check_property(BY_NAME[wanted], make()).request
    assert max(len(np.atleast_1d(request[side])) for side in ("previous", "current")) <= 3


def plain(text: str) -> str:
    """The text without spaces and last commas, in which a formatter may differ."""
    return re.sub(r",(?=[)\]])", "", "".join(text.split()))


def test_the_documented_tests_are_those_found():
    """In a process of its own, as pytest adds to the messages of assertions."""
    script = DOCS.parent / "tests" / "support" / "pasted_examples.py"
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    text = (DOCS / "check-tracker.md").read_text(encoding="utf-8")
    assert plain(text).endswith(plain(run.stdout))
