"""Is this candidate MobileInst? Each step beside float64, within derived bounds.

The order of the checks: shapes, repeatability, finiteness, values. A step is judged by the error it
*introduces* on its own operands, against a rigorous bound of what rounding may do there; an output by its
distance from the reference, against the noise envelope.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.faults import ShapedGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.alignment import CandidateTensors
from conformance.judge.conditioning import explain_large_errors
from conformance.judge.course import Course, first_wrong
from conformance.judge.decisions import compare_decisions
from conformance.judge.diagnosis import diagnose, steps_behind, unexplained
from conformance.judge.node_reading import Side, read_nodes
from conformance.judge.outputs import compare_outputs
from conformance.judge.recording_cache import cached_recording
from conformance.judge.replay import DATA_MOVEMENT
from conformance.judge.steps import compare_steps
from conformance.judge.strangers import like_nothing, not_finite
from conformance.judge.stretch import Stretch, wrong_stretch
from conformance.judge.systematic import judged_over_several
from conformance.judge.track_identity import TrackIdentity, frames_of_one_video
from conformance.judge.weight_comparison import compare_constants, compare_weights
from conformance.reports.report import Comparison, Decision, Diagnosis, Fault, InputReport, Report
from refimpl import MobileInst, MobileInstConfig, Recording, record
from refimpl.graph import Graph
from refimpl.inference import STRIDE
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
    part: Callable[[MobileInst, Array], RecordableModel] = lambda network, images: network,
    cache: Path | None = None,
    frames: bool = False,
    nodes: Callable[[Array], list[Comparison]] | None = None,
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

    Raises
    ------
    ShapeError, NonFiniteError, CandidateError
        An input does not fit, or the candidate cannot be run.
    """
    if frames:
        frames_of_one_video({label: np.shape(images) for label, images in inputs.items()})
    wide = {key: array.astype(np.float64) for key, array in weights.items()}
    network = MobileInst(config, wide)
    tracks = TrackIdentity() if frames else None
    reports = []
    alone = len({np.asarray(images).tobytes() for images in inputs.values()}) == 1
    for label, images in inputs.items():
        fed = np.array(images, np.float32)
        say = partial(_say, progress, label)
        say("reference in float64")
        recording = cached_recording(part(network, fed), fed.astype(np.float64), cache)
        digest = hashlib.sha256(fed.tobytes()).hexdigest()
        feeds = {"images": fed}
        course = _Course(candidate, feeds, label, fed.shape, digest, recording, say, cache)
        course.tracks, course.judged_nodes, course.alone = tracks, nodes, alone
        course.network, course.weights = partial(_truth, part, network), wide
        course.remarks += _unpadded(fed)
        reports.append(course.follow())
    reports = judged_over_several(candidate, reports, inputs, partial(_truth, part, network), progress)
    model = {"config": asdict(config), "weights_sha256": weights_hash(weights)}
    return Report(reports, name, model, str(candidate.declaration))


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
class _Course(Course):
    """One input's way, beside the network that the candidate should be."""

    candidate: Candidate
    network: Callable[[Array], Recording] | None = None
    weights: Mapping[str, Array] = field(default_factory=dict)
    tracks: TrackIdentity | None = None
    judged_nodes: Callable[[Array], list[Comparison]] | None = None

    def given(self, feeds: Mapping[str, Array]) -> Array:
        """Return the images."""
        return feeds["images"]

    def compare_outputs(self, outputs: Mapping[str, Array]) -> tuple[list[Comparison], list[str]]:
        """Pair its outputs with the reference's."""
        return compare_outputs(self.recording, self.allowed, outputs)

    def judge_own(self, own: OwnGraph | None) -> list[Comparison]:
        """Judge its own nodes, or take them as judged elsewhere."""
        return self.judged_nodes(self.feeds["images"]) if self.judged_nodes else super().judge_own(own)

    def compare_steps(self, own: OwnGraph | None) -> None:
        """Look for every step of the reference, and at what users make of the outputs."""
        given = {row.name: row.candidate for row in self.outputs if row.candidate is not None}
        self.steps, self.fault = compare_steps(
            self.recording,
            given,
            CandidateTensors(self.captured),
            self.candidate.declaration,
            captures_all=self.candidate.captures_all,
            own=own,
        )
        self.fault = self.fault or _output_fault(self.outputs, self.recording)
        self.decisions = self._decisions()
        if not self.candidate.captures_all:
            self._look_at_strangers()
        if first_wrong([*self.outputs, *self.nodes, *self.steps]) is None:
            self.remarks += explain_large_errors(self.recording, self.outputs, self.steps)

    def _look_at_strangers(self) -> None:
        """Say which of the candidate's tensors are like none of the network's: they were not judged."""
        placed = {row.candidate for row in (*self.outputs, *self.steps)}
        inside = {name: array for name, array in self.captured.items() if name not in self.shipped}
        strangers = {name: array for name, array in inside.items() if name not in placed}
        self.problems += not_finite(strangers)
        if strangers:
            self.remarks.append(like_nothing(strangers, len(inside)))

    def _decisions(self) -> list[Decision]:
        reference = {name: self.recording.tensors[tensor] for name, tensor in self.recording.outputs.items()}
        given = {
            row.name: self.shipped[row.candidate].reshape(row.shape)
            for row in self.outputs
            if row.candidate is not None
            and row.verdict != "not judged"
            and np.isfinite(self.shipped[row.candidate]).all()
        }
        found = compare_decisions(reference, given, self.allowed)
        return found + (self.tracks.compare(reference, given, self.allowed) if self.tracks else [])

    def truth(self, feeds: Mapping[str, Array]) -> Recording:
        """Return the network's run on other images."""
        assert self.network is not None
        return self.network(feeds["images"])

    def tensor_of(self, name: str) -> str | None:
        """Return the step of which it is the tensor."""
        held = (row.name for row in self.steps if row.candidate == name and row.verdict == "pass")
        return next(held, None)

    def diagnose(self) -> None:
        """Name the mistake, and move the fault to where it is made."""
        own = self.candidate.own_graph(self.given(self.feeds))
        graph = None if own is None else own.graph
        wrong = first_wrong([*self.outputs, *self.steps]) is not None
        if graph and self.weights and wrong:
            self.evidence += compare_weights(self.weights, graph.initializers)
        # Without the tensors around the failing step every mistake of the whole network could be the one.
        if self.candidate.captures_all:
            stretch = wrong_stretch(self.recording, self.steps, self.captured, graph) if graph else None
            if graph and self.fault:
                self._read(stretch or self._guessed(self.fault, graph), graph)
            found = (self.recording, self.steps, self.outputs, self.captured, self.shipped)
            placed = (stretch.step, stretch.tensor) if stretch else None
            explained = diagnose(*found, self.candidate.declaration, placed)
            self.diagnoses = explained.diagnoses
            self.evidence += explained.evidence
            self.evidence += unexplained(self.diagnoses, self.evidence) if wrong else []
            self.fault = _placed(self.fault, self.diagnoses, self.steps, self.recording)

    def _guessed(self, fault: Fault, graph: OnnxGraph) -> Stretch:
        """Return the stretch of the tensor that was taken for the first wrong step's."""
        calls, _ = steps_behind(self.recording, self.steps, self.captured, fault.step)
        nodes = [node for node in graph.nodes if node.name in fault.candidate_nodes]
        return Stretch(fault.step, "", calls, nodes)

    def _read(self, stretch: Stretch, graph: OnnxGraph) -> None:
        """Say what the candidate's nodes and constants at the first fault have of their own."""
        origins = _origins(self.recording.graph, self.recording.weights)
        ours = Side(stretch.calls, ShapedGraph.of_recording(self.recording), origins)
        theirs = Side(stretch.nodes, ShapedGraph.of_onnx(graph, self.captured))
        self.evidence += read_nodes(ours, theirs)
        if not any(said.startswith("weight") for said in self.evidence):
            self.evidence += compare_constants(ours, theirs, self.weights)

    def follow(self) -> InputReport:
        """Go all the way, and take note of a frame on which there is nothing to track."""
        report = super().follow()
        if self.tracks and not self.decisions:
            self.tracks.skip()
        return report


def _truth(
    part: Callable[[MobileInst, Array], RecordableModel], network: MobileInst, images: Array
) -> Recording:
    return record(part(network, images), images.astype(np.float64))


def _origins(graph: Graph, weights: Sequence[str]) -> dict[str, str]:
    """Return the tensors that are weights otherwise arranged, each with its weight."""
    found = {name: name for name in weights}
    for node in graph.nodes:
        if node.op_type in DATA_MOVEMENT and node.inputs[0] in found and len(node.outputs) == 1:
            found[node.outputs[0]] = found[node.inputs[0]]
    return found


def _output_fault(rows: Sequence[Comparison], recording: Recording) -> Fault | None:
    """Return the first wrong output: every step is right, but what is done to the last."""
    for row in rows:
        if row.verdict == "fail":
            tensor = recording.outputs[row.name]
            operation = next(step.operation for step, name in recording.results() if name == tensor)
            return Fault(tensor, operation, "network", ())
    return None


def _placed(
    fault: Fault | None, diagnoses: Sequence[Diagnosis], steps: Sequence[Comparison], recording: Recording
) -> Fault | None:
    """Move a fault to the absent step before it at which the likeliest mistake was made.

    A step that a candidate left out is missing from its tensors, and shows at the next.
    """
    call = diagnoses[0].call if fault and diagnoses else None
    made = next((step.outputs for step in recording.steps if step.name == call), ())
    absent = next((row for row in steps if row.name in made and row.verdict == "absent"), None)
    if fault is None or absent is None:
        return fault
    return replace(fault, step=absent.name, operation=absent.operation)


def weights_hash(weights: Mapping[str, Array]) -> str:
    """Return a SHA-256 over names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(json.dumps([name, list(weights[name].shape), str(weights[name].dtype)]).encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
