"""A step that `conformance.reproduction.folder` wrote as a folder, read and judged again."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import FORMATS, RUNTIMES, Declaration
from conformance.foreign_names import plain_name
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.json_files import read_json
from conformance.judge.any_graph import digest_of
from conformance.judge.diagnosis import Explanation, diagnose, diagnose_node
from conformance.judge.nodes import judge_nodes, judged_row
from conformance.judge.replay import Replay
from conformance.pictures.graph_inputs import described, read_array
from conformance.reports.report import Comparison, Fault, InputReport, Report
from refimpl.errors import FileError
from refimpl.ops.operation import Array

MODEL = "step.onnx"
NOTE = "step.json"
MOST_STEPS = 16
"""In how many steps a mistake is looked for: in more, of a candidate that captured little, many would fit."""


@dataclass(frozen=True)
class RecordedStep:
    """What a folder says of its step beside the tensors.

    Attributes
    ----------
    question
        As of `Fault`: ``network``, the model is the reference's, of one step or several that are judged
        together; ``graph``, it is one node of the candidate's.
    step, operation
        Name of the tensor that is wrong, as in the verdict it is from, and what computes it.
    arithmetic, storage, runtime
        Names of what the candidate was declared to compute with.
    envelope
        How far the tensor may be from float64 by the noise envelope, if that is what it left.
    """

    question: str
    step: str
    operation: str
    arithmetic: str
    storage: str
    runtime: str
    envelope: float | None = None

    @classmethod
    def of(cls, fault: Fault, declared: Declaration, envelope: float | None = None) -> RecordedStep:
        """Return the description of a verdict's first fault."""
        names = (declared.arithmetic.name, declared.storage.name, declared.runtime.name)
        finite = envelope if envelope is not None and math.isfinite(envelope) else None
        return cls(fault.question, fault.step, fault.operation, *names, finite)

    @classmethod
    def read(cls, folder: Path) -> RecordedStep:
        """Read the description in a folder.

        Raises
        ------
        FileError
            It is missing or malformed.
        """
        path = folder / NOTE
        if not path.is_file():
            raise FileError(f"{path}: cannot be read; name a folder that --reproduce wrote")
        said = read_json(path, SCHEMA)
        if "sha256" in said:
            _check_digests(folder, said)
        return cls(**{name: said[name] for name in _FIELDS if name in said})

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""
        return Declaration(FORMATS[self.arithmetic], FORMATS[self.storage], RUNTIMES[self.runtime])

    def to_json(self, folder: Path) -> str:
        """Return it as text, with the hashes of the files in a folder and of itself."""
        files = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
        said = {**dataclasses.asdict(self), "files": files}
        return json.dumps({**said, "sha256": _digest(said)}, indent=1, allow_nan=False) + "\n"


_FIELDS = tuple(field.name for field in dataclasses.fields(RecordedStep))
_TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": {"enum": ["network", "graph"]},
        "step": _TEXT,
        "operation": _TEXT,
        "arithmetic": {"enum": list(FORMATS)},
        "storage": {"enum": list(FORMATS)},
        "runtime": {"enum": list(RUNTIMES)},
        "envelope": {"type": ["number", "null"], "minimum": 0, "maximum": sys.float_info.max},
        "files": {"type": "object", "additionalProperties": _TEXT},
        "sha256": _TEXT,
    },
    "required": ["question", "step", "operation", "arithmetic", "storage", "runtime"],
    "dependentRequired": {"files": ["sha256"], "sha256": ["files"]},
    "additionalProperties": False,
}
"""Of the description. One written by hand may leave out the hashes."""


def _digest(said: Mapping[str, Any]) -> str:
    """Return the hash of a description without its own."""
    kept = {name: value for name, value in said.items() if name != "sha256"}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _check_digests(folder: Path, said: Mapping[str, Any]) -> None:
    """Raise `FileError` unless the description and the files it names are as they were written."""
    if _digest(said) != said["sha256"]:
        raise FileError(f"{folder / NOTE}: altered since it was written; copy the folder again")
    for name, digest in said["files"].items():
        path = folder / plain_name(name, "file", str(folder / NOTE))
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != digest:
            raise FileError(f"{path}: missing, or altered since it was written; copy the folder again")


@dataclass(frozen=True)
class Judgement:
    """A tensor that steps of the reference compute, beside float64.

    Attributes
    ----------
    row
        The comparison.
    truth
        The tensor in float64, on the operands given.
    bound
        How far rounding may carry each element; None if no bound is known.
    """

    row: Comparison
    truth: Array
    bound: Array | None


def judge_folder(folder: Path) -> Report:
    """Judge a recorded step again, from what is in its folder alone.

    Raises
    ------
    FileError
        A file is missing or damaged.
    """
    note, graph = RecordedStep.read(folder), OnnxGraph.load(folder / MODEL)
    feeds = {name: read_array(folder / f"input_{place}.npy") for place, name in enumerate(graph.inputs)}
    rows, explained = (_node if note.question == "graph" else _steps)(note, graph, feeds, folder)
    failed = any(row.verdict == "fail" for row in rows)
    fault = Fault(note.step, note.operation, note.question) if failed else None
    shape = next((array.shape for array in feeds.values()), ())
    item = InputReport(
        described(feeds),
        shape,
        digest_of(feeds),
        [],
        [],
        rows,
        fault,
        diagnoses=explained.diagnoses,
        evidence=explained.evidence,
    )
    model = {"graph": note.step, "nodes": len(graph.nodes)}
    return Report([item], f"{folder.resolve().name}, recorded", model, str(note.declaration))


def _node(
    note: RecordedStep, graph: OnnxGraph, feeds: Mapping[str, Array], folder: Path
) -> tuple[list[Comparison], Explanation]:
    """Judge the outputs of a node of the candidate's own graph."""
    outputs = [name for node in graph.nodes for name in node.outputs]
    tensors = {
        name: read_array(folder / f"candidate_{place}.npy") for place, name in enumerate(outputs) if name
    }
    declared = note.declaration
    rows = judge_nodes(graph, feeds, tensors, declared)
    failed = [row for row in rows if row.verdict == "fail"]
    if not failed:
        return rows, Explanation()
    return rows, diagnose_node(graph, {**feeds, **tensors}, failed[0], declared)


def _steps(
    note: RecordedStep, graph: OnnxGraph, feeds: Mapping[str, Array], folder: Path
) -> tuple[list[Comparison], Explanation]:
    """Judge what the candidate has in the place of steps of the reference."""
    path = folder / "candidate_0.npy"
    values = read_array(path) if path.exists() else None
    row = judge_steps(note, graph, feeds, values).row
    if values is None or len(graph.nodes) > MOST_STEPS:
        return [row], Explanation()
    captured, recording = {row.name: values}, graph_recording(graph, feeds)
    return [row], diagnose(recording, [row], [], captured, {}, note.declaration)


def judge_steps(
    note: RecordedStep, graph: OnnxGraph, feeds: Mapping[str, Array], values: Array | None
) -> Judgement:
    """Judge a tensor that several steps compute from what they are fed, all of them together.

    Parameters
    ----------
    note
    graph, feeds
        The steps as a graph, whose last node computes the tensor, and their operands.
    values
        The candidate's tensor; None if it has none.
    """
    declared, recording = note.declaration, graph_recording(graph, feeds)
    replay = Replay(recording, declared)
    for step in recording.steps[:-1]:
        replay.compute(step)
        replay.forget(step)
    last, target = recording.steps[-1], list(graph.outputs)[-1]
    replay.compute(last)
    truth = replay.values[target]
    limit = np.inf if note.envelope is None else note.envelope
    allowed = np.broadcast_to(np.minimum(replay.bound(target), limit), truth.shape)
    bound = allowed if np.isfinite(allowed).any() else None
    if values is None:
        missing = Comparison.absent(target, note.operation, truth.shape, "fail")
        return Judgement(missing, truth, bound)
    row = judged_row(graph.nodes[-1], target, values, truth, bound)
    reason = replay.unlike_rounding(last, target, values) if row.verdict == "pass" else None
    if reason:
        row = row.made_systematic(reason)
    return Judgement(dataclasses.replace(row, candidate=target), truth, bound)
