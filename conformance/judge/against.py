"""Does this mean what that graph does? The graph in float64, its tensors found in what should compute it.

They are found by name and value, as the network's are in a candidate of it. Two graphs are both computed in
float64: they may differ by what folding constants in float32 does, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from conformance.bounds import Format
from conformance.candidates.candidate import Candidate
from conformance.candidates.evaluated import fit_for_both, paired_inputs
from conformance.conversion.stored_weight import StoredWeight
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.any_graph import digest_of, model_of
from conformance.judge.graph_course import GraphCourse, Wide, wide_tolerance
from conformance.judge.stored_weights import Stored, weights_of_file
from conformance.judge.unreached import remark_on, with_remarks
from conformance.reports.report import InputReport, Report, is_telling
from refimpl import Recording
from refimpl.ops.operation import Array

Inputs = Mapping[str, Mapping[str, Array]]
"""What a report calls an input → name of the graph's input → array."""


def verify_beside(
    candidate: Candidate,
    graph: OnnxGraph,
    inputs: Inputs,
    *,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
) -> Report:
    """Judge whether a candidate of any kind computes a graph.

    Parameters
    ----------
    candidate
        It is given the graph's input, or several by name; it need not have its names of tensors.
    graph
        What it should compute, in float64.
    inputs
        Under the graph's names.
    names
        What to call the two in the report.
    progress
        Called with a few words before each stage.
    cache
        Folder in which envelopes are kept between runs; None: nowhere.

    Raises
    ------
    ShapeError, FileError
        An input does not fit, or the candidate's tensors are of another model.
    UnsupportedOperationError
        A node of the graph is outside the vocabulary.
    """
    reports, seen = [], []
    for label, feeds in inputs.items():
        progress(f"{label}: float64")
        recording = graph_recording(graph, feeds)
        if hasattr(candidate, "fit"):
            candidate.fit(recording.tensors)
        rounded, recording, found = _with_weights_of_file(candidate, graph, recording, feeds)
        wrong = dict(found.wrong)
        if found.unknown:
            # As much of what is wrong as rounding explains is taken over by now, and would be twice.
            rounded, recording, found = _with_weights_of_file(candidate, rounded, recording, feeds)
        shape = next((array.shape for array in feeds.values()), ())
        course = GraphCourse(candidate, feeds, label, shape, digest_of(feeds), recording, progress, cache)
        course.alone, course.graph, course.needed = len(inputs) == 1, rounded, graph.outputs
        course.mistaken = {**found.wrong, **wrong}
        reports.append(course.follow())
        seen.append(course.unreached)
    reports = with_remarks(reports, remark_on(seen))
    tolerance = getattr(candidate, "tolerance", str(candidate.declaration))
    return Report(reports, names[0], model_of(graph), tolerance, reference=names[1])


def _with_weights_of_file(
    candidate: Candidate, graph: OnnxGraph, recording: Recording, feeds: Mapping[str, Array]
) -> tuple[OnnxGraph, Recording, Stored]:
    """Return the graph and its run with what the candidate's file has rounded, and what that is."""
    found = weights_of_file(candidate, replace(recording, weights=[*graph.initializers]), ahead=True)
    if not found.weights and not found.computed:
        return graph, recording, found
    rounded = _with(graph, {**found.weights, **found.computed})
    return rounded, graph_recording(rounded, feeds), found


def _with(graph: OnnxGraph, constants: Mapping[str, Array]) -> OnnxGraph:
    """Return the graph with some constants, and the nodes that still make something of its outputs."""
    nodes = graph.between(constants, graph.outputs.values())
    return replace(graph, nodes=nodes, initializers={**graph.initializers, **constants})


def verify_against(
    after: OnnxGraph,
    before: OnnxGraph,
    inputs: Inputs,
    *,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
    partly: bool = False,
    stored: Sequence[StoredWeight] = (),
    weights: Format | None = None,
) -> Report:
    """Judge whether a graph means what another does, from which a tool has made it.

    Parameters
    ----------
    after, before
        Both are computed in float64.
    inputs
        Under the names that ``before`` has for them.
    names, progress, cache
        As of `verify_beside`.
    partly
        Operands in ``after`` that do not fit together are a fault of it, and no error.
    stored
        The constants of the file that ``after`` was read from, if weights are integers there.
    weights
        Those integers.

    Raises
    ------
    ShapeError
        An input does not fit one of them: they are of different models.
    UnsupportedOperationError
        A node of either is outside the vocabulary.
    """
    fitting = {label: fit_for_both(after, feeds) for label, feeds in inputs.items()}
    candidate = Wide(after, stored, weights)
    candidate.failed = [] if partly else None
    report = verify_beside(candidate, before, fitting, names=names, progress=progress, cache=cache)
    reports = with_remarks(report.inputs, _paired_by_order(after, next(iter(inputs.values()))))
    return replace(report, inputs=reports, model=model_of(after))


def _paired_by_order(graph: OnnxGraph, feeds: Mapping[str, Array]) -> list[str]:
    """Say which of several inputs are taken for which, where their names do not tell."""
    pairs = [(own, name) for own, name in paired_inputs(graph, feeds).items() if own != name]
    said = ", ".join(f"{own} for {name}" for own, name in pairs)
    return [f"its inputs are taken by their order, as their names differ: {said}"] * bool(pairs[1:])


def verify_export(
    export: OnnxGraph,
    module: Candidate,
    inputs: Inputs,
    *,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
) -> Report:
    """Judge whether an exported graph means what a module does, whose operators cannot be replayed.

    So it is the graph's tensors that are looked for in the module's.

    Parameters
    ----------
    export
    module
        Computes in float64, if its ``constants`` are there.
    inputs
        Under the names that ``export`` has for them.
    names, progress, cache, and errors
        As of `verify_beside`.
    """
    report = verify_beside(module, export, inputs, names=names, progress=progress, cache=cache)
    wide = getattr(module, "constants", None) is not None
    tolerance = wide_tolerance(module.declaration) if wide else report.tolerance
    return replace(report, inputs=[_turned(item) for item in report.inputs], tolerance=tolerance)


def _turned(item: InputReport) -> InputReport:
    """Return a report as seen from the other side."""
    fault = item.first_fault
    if fault is not None:
        fault = replace(fault, candidate_nodes=fault.reference_nodes, reference_nodes=fault.candidate_nodes)
    said = [text.replace("the reference", "the export") for text in item.evidence if is_telling(text)]
    said = [text.replace("the candidate", "the module") for text in said]
    known = [f"the module computes it with {found.named}; the export does not" for found in item.diagnoses]
    sides = dict(zip(item.subgraphs, reversed(item.subgraphs.values()), strict=True))
    return replace(item, first_fault=fault, diagnoses=[], evidence=[*known[:1], *said], subgraphs=sides)
