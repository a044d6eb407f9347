"""The reference's steps that a candidate computes otherwise, cut out and fed the candidate's own tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from conformance.bounds import FLOAT64
from conformance.bounds.worst_element import absolute_error
from conformance.candidates.candidate import Candidate
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.submodel import submodel
from conformance.judge.alignment import aligned
from conformance.judge.diagnosis import steps_behind
from conformance.judge.stored_finely import stored_finely
from conformance.reports.report import Comparison, Fault, InputReport
from conformance.reproduction.recorded_step import MODEL, Judgement, RecordedStep, judge_steps
from conformance.reproduction.step_folder import OWN_MODEL, StepFolder
from refimpl import Recording
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import Array


class ReferenceStep:
    """Where a candidate leaves the network.

    Parameters
    ----------
    recording
        The reference's run in float64.
    item, fault
        The verdict on the images, and its first fault, of the question ``network``.
    candidate, images
        What is run again.

    Raises
    ------
    CandidateError
        The candidate cannot be run again.
    """

    def __init__(
        self, recording: Recording, item: InputReport, fault: Fault, candidate: Candidate, images: Array
    ) -> None:
        self.recording = recording
        self.item = item
        self.fault = fault
        self.candidate = candidate
        self.images = images
        self.captured = candidate.capture(images)
        self.own = candidate.own_graph(images)
        # A step that the candidate left out, at which the fault is, shows at the first that fails.
        self.failing = next((row for row in item.steps if row.verdict == "fail"), None)
        self.target = self.failing.name if self.failing else fault.step
        declared = candidate.declaration
        fine = declared.otherwise and self.target in stored_finely(recording, item.steps, self.own)
        self.declared = declared.finely() if fine else declared
        self.agreeing = {row.candidate for row in item.steps if row.verdict == "pass" and row.candidate}

    def folder(self) -> StepFolder | None:
        """Return what shows the fault; None if no steps on their own do."""
        note = RecordedStep.of(self.fault, self.declared)
        if self.failing is not None:
            return self._of_step(note, self.failing)
        row = next(row for row in self.item.outputs if self.recording.outputs[row.name] == self.target)
        values = self._as_reference(self.candidate.run(self.images)[row.candidate or ""])
        # Its operands tell more, if they were captured; the whole network leaves the envelope in any case.
        whole = RecordedStep.of(self.fault, self.declared, row.tolerance)
        steps = self.item.steps
        return self._showing(note, steps, values) or self._showing(whole, [], values)

    def _of_step(self, note: RecordedStep, row: Comparison) -> StepFolder | None:
        if row.candidate is None:
            return self._showing(note, self.item.steps, None)
        name = self._likeliest(row.candidate)
        values = self._as_reference(self.captured[name], any_layout=row.systematic)
        folder = self._showing(note, self.item.steps, values)
        if folder is not None and self.own is not None and self.own.graph is not None:
            self._add_own(folder, self.own.graph, self.own.feeds, name)
        return folder

    def _likeliest(self, nearest: str) -> str:
        """Return the candidate's tensor that is the failing one.

        Of those of its shape, the one whose operators are most like the reference's, the nearest of these:
        by value alone a wrong tensor may be nearer to one before or after it.
        """
        own = self.own.graph if self.own else None
        if own is None or self.captured[nearest].size == 0:
            return nearest
        truth = self.recording.tensors[self.target]
        calls, _ = steps_behind(self.recording, self.item.steps, self.captured, self.target)
        wanted = Counter(call.op_type for call in calls)

        def unlikeness(name: str) -> tuple[int, float]:
            found = Counter(node.op_type for node in own.between(self.agreeing, [name]))
            error = absolute_error(self.captured[name].reshape(truth.shape), truth).max()
            return ((wanted - found) + (found - wanted)).total(), float(error)

        others = [name for name, array in self.captured.items() if _squeezed(array) == _squeezed(truth)]
        return min({*others, nearest} - self.agreeing, key=unlikeness, default=nearest)

    def _as_reference(self, array: Array, any_layout: bool = False) -> Array:
        """Return a tensor of the candidate in the failing one's shape and layout."""
        reference = self.recording.tensors[self.target]
        if _squeezed(array) == _squeezed(reference) and not any_layout:
            return array.reshape(reference.shape)
        return aligned(array, reference)

    def _showing(
        self, note: RecordedStep, steps: Sequence[Comparison], values: Array | None
    ) -> StepFolder | None:
        """Return the reference's steps between what agrees and the failing one, if they show the failure."""
        calls, operands = steps_behind(self.recording, steps, self.captured, self.target)
        dtype = np.float64 if note.storage == FLOAT64.name else np.float32
        part = _part(self.recording, calls, operands, self.target, dtype)
        model = onnx_export.to_onnx(part, "step")
        feeds = {name: part.tensors[name] for name in operands}
        judged = judge_steps(note, OnnxGraph.load(model), feeds, values)
        if judged.row.verdict != "fail":
            return None
        return _folder(note, model, feeds, values, judged)

    def _add_own(self, folder: StepFolder, graph: OnnxGraph, feeds: Mapping[str, Array], tensor: str) -> None:
        """Add the part of the candidate's own graph that stands in the step's place, if it can be cut out."""
        part = graph.between(self.agreeing, [tensor])
        known = {**graph.initializers, **feeds, **self.captured}
        try:
            model, fed = submodel(graph, part, known, [tensor])
        except UnsupportedOperationError as error:
            folder.contents.append(f"no `{OWN_MODEL}`: {error}")
            return
        folder.models[OWN_MODEL] = model
        nodes = f"{len(part)} nodes" if len(part) > 1 else "node"
        folder.contents.append(f"`{OWN_MODEL}`: the candidate's {nodes} in its place, which made `{tensor}`")
        folder.add_operands(OWN_MODEL, fed, known, "candidate_input")


def _squeezed(array: Array) -> tuple[int, ...]:
    return tuple(size for size in array.shape if size != 1)


def _part(
    recording: Recording, calls: Sequence[Node], operands: Mapping[str, Array], target: str, dtype: type
) -> Recording:
    """Return some steps of a recording as one of their own, floats in one dtype."""
    names = {call.name for call in calls}
    steps = [step for step in recording.steps if step.name in names]
    used = {name for step in steps for name in step.uses}
    tensors = {**recording.tensors, **operands}
    kept = {*used, *(name for step in steps for name in step.outputs)}
    return Recording(
        steps=steps,
        tensors={name: _narrowed(tensors[name], dtype) for name in kept},
        inputs={name: name for name in operands},
        outputs={target: target},
        weights=[name for name in recording.weights if name in used],
        constants=[name for name in recording.constants if name in used],
    )


def _narrowed(array: Array, dtype: type) -> Array:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def _folder(
    note: RecordedStep,
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    values: Array | None,
    judged: Judgement,
) -> StepFolder:
    count = len(model.graph.node)
    steps = f"{count} steps of the reference" if count > 1 else "the step of the reference"
    folder = StepFolder(note, {MODEL: model}, contents=[f"`{MODEL}`: {steps} alone, weights in it"])
    folder.add_operands(MODEL, list(feeds), feeds)
    if values is None:
        folder.contents.append("no `candidate_0.npy`: the candidate holds no tensor of that shape")
    else:
        what = "`candidate_0.npy`: the candidate's tensor, laid out as the reference's"
        folder.add("candidate_0.npy", values, what)
    folder.add("truth_0.npy", judged.truth, "`truth_0.npy`: the reference's in float64, on these operands")
    if judged.bound is not None:
        folder.add("bound_0.npy", judged.bound, "`bound_0.npy`: how far rounding may carry each element")
    return folder
