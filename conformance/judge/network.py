"""Is this candidate MobileInst? Each step beside float64, within derived bounds.

The order of the checks: shapes, repeatability, finiteness, values. A step is judged by the error it
*introduces* on its own operands, against a rigorous bound of what rounding may do there; an output by its
distance from the reference, against the noise envelope.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from conformance.candidates.candidate import FUSION_REACH, Candidate, OwnGraph, needed_outputs
from conformance.judge.alignment import in_layout_of
from conformance.judge.decisions import compare_decisions
from conformance.judge.fed_picture import fed_otherwise
from conformance.judge.graph_course import look_into_file
from conformance.judge.outputs import compare_outputs
from conformance.judge.step_course import StepCourse
from conformance.judge.stored_weights import weights_of_file
from conformance.judge.systematic import judged_over_several
from conformance.judge.track_identity import TrackIdentity, frames_of_one_video
from conformance.judge.unreached import remark_on, with_remarks
from conformance.pictures.inputs import Resized, not_resized
from conformance.reports.report import Comparison, Decision, InputReport, Report
from refimpl import MobileInstConfig, Network, Recording, record
from refimpl.inference import STRIDE
from refimpl.model import build_network
from refimpl.ops.operation import Array
from refimpl.recording import RecordableModel


def verify(
    candidate: Candidate,
    config: MobileInstConfig,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    *,
    name: str = "candidate",
    progress: Callable[[str], None] = lambda stage: None,
    part: Callable[[Network, Array], RecordableModel] = lambda network, images: network,
    cache: Path | None = None,
    frames: bool = False,
    nodes: Callable[[Array], list[Comparison]] | None = None,
    resized: Mapping[str, Resized] | None = None,
) -> Report:
    """Judge a candidate against the reference.

    Parameters
    ----------
    candidate
        The implementation under test.
    config, weights
        The network it should be.
    inputs
        Name → normalised images (B, 3, H, W). Both sides are given the same float32 numbers.
    name
        What to call the candidate in the report.
    progress
        Called with a few words before each stage.
    part
        The float64 network and the images → what the candidate should compute of it; the whole by default.
    cache
        Folder in which the reference's runs and envelopes are kept between verdicts; None: nowhere.
    frames
        Whether the inputs are consecutive keyframes of one video: then it is also judged whether the kernels
        carry each track to the query it should.
    nodes
        Images → the candidate's own nodes, judged; by default its own graph is replayed, if it has one.
    resized
        Name → that picture, resized in other ways, for inputs that are pictures; None: no other picture is
        looked for that gives a candidate's outputs, of which each costs a forward pass.

    Raises
    ------
    ShapeError, NonFiniteError, CandidateError
        An input does not fit, or the candidate cannot be run.
    """
    if frames:
        frames_of_one_video({label: np.shape(images) for label, images in inputs.items()})
    wide = {key: array.astype(np.float64) for key, array in weights.items()}
    network, mistaken = _with_weights_of_file(candidate, build_network(config, wide), part, inputs)
    tracks = TrackIdentity() if frames else None
    reports, seen = list[InputReport](), []
    alone = len({np.asarray(images).tobytes() for images in inputs.values()}) == 1
    for label, images in inputs.items():
        fed = np.array(images, np.float32)
        say = partial(_say, progress, label)
        say("reference in float64")
        recording = record(part(network, fed), fed.astype(np.float64))
        digest = hashlib.sha256(fed.tobytes()).hexdigest()
        feeds = {"images": fed}
        course = _Course(candidate, feeds, label, fed.shape, digest, recording, say, cache)
        course.tracks, course.judged_nodes, course.alone = tracks, nodes, alone
        course.reach = getattr(candidate, "fusion_reach", FUSION_REACH)
        course.needed = needed_outputs(config.architecture)
        course.network, course.weights = partial(_truth, part, network), wide
        course.mistaken = mistaken
        course.resized = (resized or {}).get(label, not_resized)
        course.looks_at_pictures = resized is not None and all(item.verdict == "pass" for item in reports)
        course.remarks += _unpadded(fed)
        reports.append(course.follow())
        seen.append(course.unreached)
    reports = with_remarks(reports, remark_on(seen))
    reports = judged_over_several(candidate, reports, inputs, partial(_truth, part, network), progress)
    model = {"config": asdict(config), "weights_sha256": weights_hash(weights)}
    return Report(reports, name, model, str(candidate.declaration))


def _with_weights_of_file(
    candidate: Candidate,
    network: Network,
    part: Callable[[Network, Array], RecordableModel],
    inputs: Mapping[str, Array],
) -> tuple[Network, Mapping[str, str]]:
    """Return the network with the weights that the candidate's file has rounded, and which it has wrong."""
    if not getattr(candidate, "stored", ()) or not inputs:
        return network, {}
    images = next(iter(inputs.values()))
    found = weights_of_file(candidate, _truth(part, network, np.array(images, np.float32)))
    return build_network(network.config, {**network.weights, **found.weights}), found.wrong


def _unpadded(images: Array) -> list[str]:
    """Say that the paper pads a picture of this size, where it does."""
    height, width = images.shape[2:]
    if height % STRIDE == 0 and width % STRIDE == 0:
        return []
    return [
        f"{height}×{width} is no multiple of {STRIDE}: the paper pads such pictures right and bottom with "
        "zeros; judged as fed, without"
    ]


def _say(progress: Callable[[str], None], label: str, stage: str) -> None:
    progress(f"{label}: {stage}")


@dataclass
class _Course(StepCourse):
    """One input's way, beside the network that the candidate should be."""

    candidate: Candidate
    network: Callable[[Array], Recording] | None = None
    tracks: TrackIdentity | None = None
    judged_nodes: Callable[[Array], list[Comparison]] | None = None
    looks_at_pictures: bool = False

    def given(self, feeds: Mapping[str, Array]) -> Array:
        """Return the images."""
        return feeds["images"]

    def compare_outputs(self, outputs: Mapping[str, Array]) -> tuple[list[Comparison], list[str]]:
        """Pair its outputs with the reference's."""
        return compare_outputs(self.recording, self.allowed, outputs, self.needed)

    def judge_own(self, own: OwnGraph | None) -> list[Comparison]:
        """Judge its own nodes, or take them as judged elsewhere."""
        return self.judged_nodes(self.feeds["images"]) if self.judged_nodes else super().judge_own(own)

    def compare_steps(self, own: OwnGraph | None) -> None:
        """Look for every step of the reference, and at what users make of the outputs."""
        random = own.graph.random if own and own.graph else {}
        self.problems += [f"its node {name!r} {why}; the network is not" for name, why in random.items()]
        super().compare_steps(own)
        self.decisions = self._decisions()

    def diagnose(self) -> None:
        """Name the mistake; where nothing is wrong, look for one in the model's file."""
        super().diagnose()
        look_into_file(self, self.feeds)

    def _decisions(self) -> list[Decision]:
        reference = {name: self.recording.tensors[tensor] for name, tensor in self.recording.outputs.items()}
        given = {
            row.name: in_layout_of(self.shipped[row.candidate], reference[row.name])
            for row in self.outputs
            if row.candidate is not None
            and row.verdict != "not judged"
            and np.isfinite(self.shipped[row.candidate]).all()
        }
        found = compare_decisions(reference, given, self.allowed)
        return found + (self.tracks.compare(reference, given, self.allowed) if self.tracks else [])

    def fed_otherwise(self) -> str:
        """Say which other picture gives all its outputs, looked for by the reference's run on each."""
        if not self.looks_at_pictures:
            return ""
        self.progress("other pictures")
        truths = {name: self.recording.tensors[tensor] for name, tensor in self.recording.outputs.items()}
        observed = {
            name: in_layout_of(self.shipped[own], truths[name]) for name, own in self.held_outputs().items()
        }
        given = fed_otherwise(self._outputs_of, self.feeds["images"], observed, self.allowed, self.resized())
        return given if observed else ""

    def _outputs_of(self, images: Array) -> dict[str, Array]:
        run = self.truth({"images": images})
        return {name: run.tensors[tensor] for name, tensor in run.outputs.items()}

    def truth(self, feeds: Mapping[str, Array]) -> Recording:
        """Return the network's run on other images."""
        assert self.network is not None
        return self.network(feeds["images"])

    def follow(self) -> InputReport:
        """Go all the way, and take note of a frame on which there is nothing to track."""
        report = super().follow()
        if self.tracks and not self.decisions:
            self.tracks.skip()
        return report


def _truth(part: Callable[[Network, Array], RecordableModel], network: Network, images: Array) -> Recording:
    return record(part(network, images), images.astype(np.float64))


def weights_hash(weights: Mapping[str, Array]) -> str:
    """Return a SHA-256 over names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(json.dumps([name, list(weights[name].shape), str(weights[name].dtype)]).encode())
        digest.update(np.ascontiguousarray(weights[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
