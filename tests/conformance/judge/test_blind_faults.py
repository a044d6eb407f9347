"""Mistakes drawn by a seed, in exports of the independent modules, are found, placed and described."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from blind_faults import trials

pytestmark = pytest.mark.runtimes


def test_mistakes_never_seen_before_are_described() -> None:
    """Of twelve, each of another kind: all are detected, and at most one is misplaced or only sized."""
    found = list(trials(12, seed=7))
    assert all(each.detected for each in found)
    assert sum(each.localised for each in found) >= 11
    assert sum(each.described for each in found) >= 11
    assert sum(each.misleading for each in found) == 0
