"""A tracker of the paper's Table 2 as a candidate, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conformance.trackers.candidate import CallableCandidate, Identified
from refimpl.detections import Detections
from refimpl.errors import ConfigurationError
from refimpl.rivals import RIVALS, RivalAssociation


class RivalCandidate(CallableCandidate):
    """A tracker of `RIVALS`: it associates kernels, and identifies detections.

    Raises
    ------
    ConfigurationError
        An unknown name.
    """

    leaves_unmatched = True

    def __init__(self, name: str) -> None:
        if name not in RIVALS:
            raise ConfigurationError(f"tracker {name!r} is unknown; choose one of {', '.join(RIVALS)}")
        super().__init__(RivalAssociation(name), identify=self._identities)
        self.name = name

    def _identities(self, frames: Sequence[Detections]) -> list[Identified]:
        tracker, answers = RIVALS[self.name](), []
        for frame in frames:
            identities = tracker.identify(frame)
            names = None if tracker.scores is None else np.array(tracker.scored, np.int64)
            answers.append(Identified(identities, tracker.scores, names))
        return answers
