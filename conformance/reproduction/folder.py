"""The failing step as a folder that anyone can run: model, inputs, what came out and should have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from conformance.bounds import Declaration, introduced_bounds
from conformance.candidates.candidate import Candidate
from conformance.graph.evaluation import evaluate_node, widened
from conformance.graph.narrow import narrow_tensors
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.submodel import submodel
from conformance.judge.stored_weights import with_weights_of_file
from conformance.reports.report import Fault, InputReport, Report
from conformance.reproduction.recorded_step import MODEL, RecordedStep
from conformance.reproduction.reference_step import ReferenceStep
from conformance.reproduction.step_folder import StepFolder
from refimpl import record
from refimpl.errors import ShapeError
from refimpl.graph import Node
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
    # What only the file says in float64 is no wrong step of the run.
    if fault is None or fault.question == "meaning":
        return None
    own = candidate.own_graph(images)
    if fault.question == "graph" and own is not None and own.graph is not None:
        known = {**own.feeds, **candidate.capture(images)}
        return reproduce_node(folder, item, own.graph, known, candidate.declaration)
    recording = with_weights_of_file(candidate, record(network, images.astype(np.float64)))
    step = ReferenceStep(recording, item, fault, candidate, images).folder()
    return None if step is None else step.write(folder, item.diagnoses)


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


def _written_node(
    graph: OnnxGraph, node: Node, known: Mapping[str, Array], fault: Fault, declaration: Declaration
) -> StepFolder:
    fixed = {**graph.initializers, **known}
    missing = [name for name in (*node.inputs, *node.outputs) if name and name not in fixed]
    if missing:
        raise ShapeError(f"{node.name}: {', '.join(missing)} was not captured; nothing to reproduce")
    # Of a graph of several formats, as it is stored.
    coarse = not narrow_tensors(graph).isdisjoint(node.outputs)
    declaration = declaration if coarse else declaration.finely()
    model, fed = submodel(graph, [node], fixed, [name for name in node.outputs if name])
    note = RecordedStep.of(fault, declaration)
    written = StepFolder(note, {MODEL: model}, contents=[f"`{MODEL}`: the node alone, its weights in it"])
    written.add_operands(MODEL, fed, fixed)
    operands = [None if x is None else widened(x) for x in node.operands(fixed)]
    truths = evaluate_node(node, operands, np.float64)
    bounds = introduced_bounds(node.op_type, operands, node.attributes, truths, declaration)
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
