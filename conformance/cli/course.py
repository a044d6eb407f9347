"""What every verdict of `mobileinst verify` has in common, whatever the candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from conformance.candidates.candidate import Candidate
from conformance.cli.options import Progress
from conformance.cli.reproduction import say_reproduced
from conformance.judge.network import verify
from conformance.pictures.inputs import Resized
from conformance.reports.report import Report
from conformance.reproduction.folder import reproduce
from refimpl import MobileInstConfig, Network, Weights
from refimpl.model import build_network
from refimpl.ops.operation import Array
from refimpl.recording import RecordableModel

Part = Callable[[Network, Array], RecordableModel]
"""The network and the images → what the candidate should compute of it."""


def whole(network: Network, images: Array) -> RecordableModel:
    """Return the network itself."""
    return network


@dataclass(frozen=True)
class Course:
    """How a candidate is judged.

    Attributes
    ----------
    config, weights
        The network it should be.
    inputs
        Name → images.
    progress
        Called with a few words before each stage.
    cache
        Where envelopes are kept; None: nowhere.
    reproduction
        The folder that a failing step is written to, if any.
    frames
        Whether the inputs are consecutive keyframes of one video.
    resized
        Name → the picture, resized in other ways.
    """

    config: MobileInstConfig
    weights: Weights
    inputs: Mapping[str, Array]
    progress: Progress
    cache: Path | None
    reproduction: Path | None
    frames: bool = False
    resized: Mapping[str, Resized] = field(default_factory=dict)

    def judge(self, candidate: Candidate, name: str, part: Part = whole) -> Report:
        """Judge a candidate on every input, and write its first wrong step to the folder."""
        given = (candidate, self.config, self.weights, self.inputs)
        report = verify(
            *given,
            name=name,
            progress=self.progress,
            part=part,
            cache=self.cache,
            frames=self.frames,
            resized=self.resized,
        )
        if self.reproduction is not None:
            self.progress("reproduction")
            folder, images = self.reproduction, np.array(self.inputs[report.leading.name], np.float32)
            network = part(build_network(self.config, self.weights.astype(np.float64)), images)
            say_reproduced(lambda: reproduce(folder, report, candidate, network, images))
        return report
