"""The failing step as a folder that anyone can run: a minimal model, its inputs, what came out and what
should have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from conformance import onnx_export
from conformance.alignment import aligned
from conformance.bounds import FLOAT64, introduced_bounds
from conformance.diagnosis import steps_behind
from conformance.onnx_file import Node
from conformance.onnx_graph import OnnxGraph, evaluate_node
from conformance.recorded_step import MODEL, Judgement, RecordedStep, judge_steps
from conformance.report import Comparison, Fault, InputReport, Report
from conformance.step_folder import OWN_MODEL, StepFolder
from conformance.submodel import submodel
from conformance.verification import Candidate, Declaration
from refimpl import Recording, record
from refimpl.errors import ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array
from refimpl.recording import RecordableModel


def reproduce(
    folder: Path, report: Report, candidate: Candidate, network: RecordableModel, images: Array
) -> str | None:
    """Write the first wrong step of a candidate's leading input as a folder, whole or not at all.

    Parameters
    ----------
    folder
        Does not exist yet, or is empty.
    report
        The verdict.
    candidate, network
        What was judged, and the float64 network it should be.
    images
        The leading input.

    Returns
    -------
    str or None
        The command that shows the step again, run in a shell; None if no step on its own is wrong.

    Raises
    ------
    FileError
        The folder cannot be written, or is not empty.
    CandidateError
        The candidate cannot be run again.
    """
    item, fault = report.leading, report.leading.first_fault
    if fault is None:
        return None
    captured = candidate.capture(images)
    own = candidate.own_graph(images)
    if fault.question == "graph":
        assert own is not None, "only a graph's nodes are judged"
        graph, feeds = own
        return reproduce_node(folder, item, graph, {**feeds, **captured}, candidate.declaration)
    recording = record(network, images.astype(np.float64))
    written = _written_step(recording, item, fault, candidate, images, captured)
    if written is None:
        return None
    if own is not None and fault.candidate_nodes:
        graph, feeds = own
        _add_own(written, graph, fault, {**feeds, **captured})
    return written.write(folder, item.diagnoses)


def reproduce_node(
    folder: Path, item: InputReport, graph: OnnxGraph, known: Mapping[str, Array], declaration: Declaration
) -> str | None:
    """Write the first node of a graph that its runtime computes wrongly as a folder.

    Parameters
    ----------
    folder
        Does not exist yet, or is empty.
    item
        The verdict on one input.
    graph
    known
        The inputs and the tensors that were captured, by name.
    declaration
        What the runtime is declared to compute with.

    Returns
    -------
    str or None
        The command that shows it again; None if no node is wrong.

    Raises
    ------
    FileError
        The folder cannot be written, or is not empty.
    ShapeError
        The node's operands or outputs were not captured.
    """
    fault = item.first_fault
    if fault is None or fault.question != "graph":
        return None
    node = next(
        node for node in graph.nodes if node.name in fault.candidate_nodes or fault.step in node.outputs
    )
    return _written_node(graph, node, known, fault, declaration).write(folder, item.diagnoses)


# --- a step of the network ------------------------------------------------------------------------


def _written_step(
    recording: Recording,
    item: InputReport,
    fault: Fault,
    candidate: Candidate,
    images: Array,
    captured: Mapping[str, Array],
) -> StepFolder | None:
    """Return the reference's steps that the candidate computes otherwise, on its own operands."""
    row = next((row for row in item.steps if row.name == fault.step and row.verdict == "fail"), None)
    if row is not None:
        values = None if row.candidate is None else _as_reference(row, captured, recording.tensors[row.name])
        note = RecordedStep.of(fault, candidate.declaration)
        return _failing(recording, note, item.steps, captured, values)
    row = next(row for row in item.outputs if recording.outputs[row.name] == fault.step)
    values = _as_reference(row, candidate.run(images), recording.tensors[fault.step])
    # Its operands tell more, if they were captured; the whole network leaves the envelope in any case.
    note = RecordedStep.of(fault, candidate.declaration)
    whole = RecordedStep.of(fault, candidate.declaration, row.tolerance)
    return _failing(recording, note, item.steps, captured, values) or _failing(
        recording, whole, [], captured, values
    )


def _as_reference(row: Comparison, tensors: Mapping[str, Array], reference: Array) -> Array:
    """Return the candidate's tensor of a row in the reference's shape and layout."""
    array = tensors[row.candidate or ""]
    squeezed = ([size for size in shape if size != 1] for shape in (array.shape, reference.shape))
    if next(squeezed) == next(squeezed) and not row.systematic:
        return array.reshape(reference.shape)
    return aligned(array, reference)


def _failing(
    recording: Recording,
    note: RecordedStep,
    steps: Sequence[Comparison],
    captured: Mapping[str, Array],
    values: Array | None,
) -> StepFolder | None:
    """Return the steps between the tensors that agree and the failing one, if they show the failure."""
    calls, operands = steps_behind(recording, steps, captured, note.step)
    wide = note.storage == FLOAT64.name
    part = _part(recording, calls, operands, note.step, np.float64 if wide else np.float32)
    model = onnx_export.to_onnx(part, "step")
    feeds = {name: part.tensors[name] for name in operands}
    judged = judge_steps(note, OnnxGraph.load(model), feeds, values)
    if judged.row.verdict != "fail":
        return None
    return _of_judgement(note, model, feeds, values, judged, len(calls))


def _part(
    recording: Recording, calls: Sequence[Node], operands: Mapping[str, Array], target: str, dtype: type
) -> Recording:
    """Return some steps of a recording as one of their own, floats in one dtype."""
    names = {call.name for call in calls}
    steps = [step for step in recording.steps if step.name in names]
    used = {name for step in steps for name in step.inputs if name is not None}
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


def _of_judgement(
    note: RecordedStep,
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    values: Array | None,
    judged: Judgement,
    count: int,
) -> StepFolder:
    steps = f"{count} steps of the reference" if count > 1 else "the step of the reference"
    written = StepFolder(note, {MODEL: model}, contents=[f"`{MODEL}`: {steps} alone, weights in it"])
    written.add_operands(MODEL, list(feeds), feeds)
    if values is None:
        written.contents.append("no `candidate_0.npy`: the candidate holds no tensor of that shape")
    else:
        written.arrays["candidate_0.npy"] = values
        written.contents.append("`candidate_0.npy`: the candidate's tensor, laid out as the reference's")
    written.arrays["truth_0.npy"] = judged.truth
    written.contents.append("`truth_0.npy`: the reference's in float64, on the candidate's own operands")
    if judged.bound is not None:
        written.arrays["bound_0.npy"] = judged.bound
        written.contents.append("`bound_0.npy`: how far rounding may carry each element")
    return written


def _add_own(folder: StepFolder, graph: OnnxGraph, fault: Fault, known: Mapping[str, Array]) -> None:
    """Add the part of the candidate's own graph that stands in the step's place, if it can be cut out."""
    part = [node for node in graph.nodes if node.name in fault.candidate_nodes]
    try:
        model, fed = submodel(graph, part, {**graph.initializers, **known}, [part[-1].outputs[0]])
    except UnsupportedOperationError as error:
        folder.contents.append(f"no `{OWN_MODEL}`: {error}")
        return
    folder.models[OWN_MODEL] = model
    folder.contents.append(f"`{OWN_MODEL}`: the candidate's nodes in its place, {len(part)} in all")
    folder.add_operands(OWN_MODEL, fed, known, "candidate_input")


# --- a node of the candidate's own graph ----------------------------------------------------------


def _written_node(
    graph: OnnxGraph, node: Node, known: Mapping[str, Array], fault: Fault, declaration: Declaration
) -> StepFolder:
    fixed = {**graph.initializers, **known}
    missing = [name for name in (*node.inputs, *node.outputs) if name and name not in fixed]
    if missing:
        raise ShapeError(f"{node.name}: {', '.join(missing)} was not captured; nothing to reproduce")
    model, fed = submodel(graph, [node], fixed, [name for name in node.outputs if name])
    note = RecordedStep.of(fault, declaration)
    written = StepFolder(note, {MODEL: model}, contents=[f"`{MODEL}`: the node alone, its weights in it"])
    written.add_operands(MODEL, fed, fixed)
    operands = [_widened(fixed[name]) if name else None for name in node.inputs]
    truths = evaluate_node(node, operands, np.float64)
    formats = (declaration.arithmetic, declaration.storage)
    bounds = introduced_bounds(
        node.op_type, operands, node.attributes, truths, *formats, runtime=declaration.runtime
    )
    for place, (name, truth, bound) in enumerate(zip(node.outputs, truths, bounds, strict=False)):
        if name:
            written.arrays |= {f"candidate_{place}.npy": fixed[name], f"truth_{place}.npy": truth}
            written.arrays |= {f"bound_{place}.npy": bound} if bound is not None else {}
    written.contents += [
        "`candidate_N.npy`: what the runtime made of them, output N",
        "`truth_N.npy`: what the node is in float64 on the same operands",
        "`bound_N.npy`: how far rounding may carry each element",
    ]
    return written


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
