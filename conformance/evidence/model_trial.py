"""One model judged as ``verify --graph-only`` judges it, in a process of its own, and what that cost.

Run as a module with a model and its inputs as JSON, it prints a row as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conformance.candidates.onnx_runtime import RuntimeOptions, declared_by
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.evidence.memory import peak_megabytes
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.pictures.graph_inputs import graph_inputs, parse_shape
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError, MobileInstError
from refimpl.ops.operation import Array

FLOAT64 = "float64"
"""The stage of a verdict in which the graph runs in float64."""


@dataclass(frozen=True)
class Trial:
    """What a verdict on a model said and cost.

    Attributes
    ----------
    verdict
        ``pass``, ``fail``, ``not judged``, ``refused``, or how the process ended.
    nodes
        Of the graph.
    judged
        The share of them whose results were judged.
    seconds
        Of the verdict, of a processor.
    forward
        Of it, the seconds of one run in float64.
    megabytes
        Peak resident memory of the process.
    says
        Why it is refused or fails.
    """

    verdict: str
    nodes: int = 0
    judged: float = 0.0
    seconds: float = 0.0
    forward: float = 0.0
    megabytes: float = 0.0
    says: str = ""

    @property
    def forwards(self) -> float:
        """The cost of the verdict in runs in float64."""
        return self.seconds / max(self.forward, 1e-3)


def trial(path: Path, inputs: Mapping[str, str], seed: int = 0) -> Trial:
    """Judge a model in ONNX Runtime; a refusal is a row, too.

    Parameters
    ----------
    path
        The model.
    inputs
        Input → what it is fed, as ``models.toml`` says.
    seed
        Of random inputs.
    """
    began = time.process_time()
    stages: list[tuple[str, float]] = []
    try:
        graph = OnnxGraph.load(path, partly=True)
        feeds = fed(graph, inputs, seed)
        candidate = runtime_graph(graph, RuntimeOptions(threads=1), declared_by(graph))
        report = verify_graph(
            candidate,
            feeds,
            name=path.name,
            progress=lambda stage: stages.append((stage, time.process_time())),
        )
    except MobileInstError as error:
        return Trial(
            "refused", seconds=time.process_time() - began, megabytes=peak_megabytes(), says=str(error)
        )
    ended = [when for _, when in stages[1:]] + [time.process_time()]
    forward = next(end - start for (stage, start), end in zip(stages, ended, strict=True) if stage == FLOAT64)
    return _row(report, ended[-1] - began, forward)


def _row(report: Report, seconds: float, forward: float) -> Trial:
    item = report.leading
    unjudged = {row.candidate or row.name for row in item.nodes if row.verdict == "not judged"}
    total = max(len({row.candidate or row.name for row in item.nodes}), 1)
    # Nodes of unknown operators have no row.
    unknown = max(report.model["nodes"] - total, 0) if _has_unknown(item.remarks) else 0
    return Trial(
        report.verdict,
        report.model["nodes"],
        (total - len(unjudged)) / (total + unknown),
        seconds,
        forward,
        peak_megabytes(),
        "" if report.verdict == "pass" else re.sub(r"\s+", " ", report.headline()),
    )


def _has_unknown(remarks: list[str]) -> bool:
    return any("outside the vocabulary" in remark for remark in remarks)


def fed(graph: OnnxGraph, inputs: Mapping[str, str], seed: int) -> dict[str, Array]:
    """Return an array for every input of a graph, as ``models.toml`` says, or random of its own shape."""
    known = {name: text for name, text in inputs.items() if name in graph.inputs}
    plain = {name: text for name, text in known.items() if not set(text) & {"<", "="}}
    shapes = {**plain, **{name: re.split("[<=]", text)[0] for name, text in known.items()}}
    feeds = graph_inputs(graph, (), [f"{name}={shape}" for name, shape in shapes.items()], seed)
    return {name: _taking_its_place(array, known.get(name, ""), name, seed) for name, array in feeds.items()}


def _taking_its_place(array: Array, text: str, name: str, seed: int) -> Array:
    """Return what takes a random array's place."""
    found = re.fullmatch(r"([0-9x]*)(?:([<=])([-0-9.]+))?", text)
    if found is None:
        raise ConfigurationError(f"input {name!r} is fed {text!r}; expected 1x3x64x64, 1x24<30 or 1x24=1")
    shape, sign, number = found.groups()
    if sign is None:
        return array
    if sign == "=":
        return np.full(parse_shape(shape), float(number)).astype(array.dtype)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.integers(0, int(number), parse_shape(shape)).astype(array.dtype)


def main() -> None:
    """Judge the model that the arguments name, and print the row."""
    print(json.dumps(dataclasses.asdict(trial(Path(sys.argv[1]), json.loads(sys.argv[2])))))


if __name__ == "__main__":
    main()
