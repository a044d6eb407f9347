"""Converted models beside their sources and the runtime's outputs, judged one after the other.

Beside ``m.tnnproto`` and ``m.tnnmodel`` may stand ``m.onnx`` (the source), ``m.in.txt`` (the input text) and
``m.<DEVICE>.out`` or ``m.<DEVICE>_<PRECISION>.out`` (what `TNNTest` wrote), such as ``m.ARM_AUTO.out``. An
input without an output that at least half the models of the folder have is a run that wrote none; a source
without a proto there was not converted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.bounds.worst_element import Worst, worst_of
from conformance.graph.findings import FAILS
from conformance.graph.onnx_graph import OnnxGraph
from conformance.tnn.conversion import Conversion, compare_conversion
from conformance.tnn.devices import known_faults
from conformance.tnn.graph import TnnGraph, read_graph
from conformance.tnn.lint import lint
from conformance.tnn.rounding import allowed_outputs, declared
from conformance.tnn.runner import DEVICES, PRECISIONS, Settings, found_arithmetic
from conformance.tnn.text import read_input, read_output
from refimpl.errors import FileError, MobileInstError

Array = NDArray[Any]
CORRECT, LOST, WRONG, UNREADABLE = "correct", "conversion lost the meaning", "runtime error", "unreadable"
NO_OUTPUT, NOT_CONVERTED = "no output", "not converted"
VERDICTS = (CORRECT, LOST, NOT_CONVERTED, WRONG, NO_OUTPUT, UNREADABLE)


@dataclass(frozen=True)
class OutputVerdict:
    """One output of a run beside what the converted file means in float64.

    Attributes
    ----------
    name
        Of the output.
    worst
        Where it uses most of what rounding is allowed; infinite where the shape is wrong.
    message
        What is wrong when there was nothing to compare ("" otherwise).
    """

    name: str
    worst: Worst
    message: str = ""

    @property
    def passes(self) -> bool:
        """Whether rounding explains it."""
        return not self.message and self.worst.utilisation <= 1


@dataclass(frozen=True)
class RunVerdict:
    """What one run gave: its outputs, or why there are none.

    Attributes
    ----------
    label
        What the run is called.
    arithmetic, found
        What it was declared to compute with, and what its errors look like ("" where nothing can be seen).
    outputs, message
    known
        What the device is known to compute wrongly of the model's layers.
    """

    label: str
    arithmetic: str
    outputs: tuple[OutputVerdict, ...] = ()
    message: str = ""
    found: str = ""
    known: tuple[str, ...] = ()

    @property
    def utilisation(self) -> float:
        """The largest error over what is allowed."""
        return max((item.worst.utilisation for item in self.outputs), default=float("inf"))

    @property
    def passes(self) -> bool:
        """Whether rounding explains every output."""
        return not self.message and all(item.passes for item in self.outputs)


@dataclass(frozen=True)
class Surveyed:
    """One converted model: how its conversion and its runs came out.

    Attributes
    ----------
    path
        The proto, or the source where there is none.
    layers
        How many.
    conversion
        None where no source stands beside it.
    runs
        By the label in the file's name.
    without_output
        Runs that at least half the models of the folder have, and this one, with an input, has not.
    refused
        Of a source that was not converted, what is known of the reason.
    message
        Why it could not be judged ("" if it was).
    """

    path: Path
    layers: int = 0
    conversion: Conversion | None = None
    runs: Mapping[str, RunVerdict] = field(default_factory=dict)
    without_output: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    message: str = ""

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if self.message:
            return UNREADABLE
        if self.path.suffix == ".onnx":
            return NOT_CONVERTED
        if self.conversion is not None and not self.conversion.kept:
            return LOST
        if not all(run.passes for run in self.runs.values()):
            return WRONG
        return NO_OUTPUT if self.without_output else CORRECT


def models_in(paths: Sequence[Path]) -> list[Path]:
    """Return the protos named, and those in the folders named with the sources that have none.

    Raises
    ------
    FileError
        A folder holds no proto.
    """
    found = []
    for path in paths:
        inside = sorted(path.glob("*.tnnproto")) if path.is_dir() else [path]
        if not inside:
            raise FileError(f"{path}: no .tnnproto in this folder; name the folder that holds them")
        converted = {proto.stem for proto in inside}
        alone = [source for source in path.glob("*.onnx") if source.stem not in converted]
        found += sorted([*inside, *alone])
    return found


def survey(paths: Sequence[Path], *, seed: int = 0) -> Iterator[Surveyed]:
    """Judge converted models, each with what stands beside it.

    A model that cannot be read, or an output that cannot, is a row and not an end.

    Parameters
    ----------
    paths
        Protos, and sources without one.
    seed
        Of the probes of the conversion.
    """
    usual = {folder: _usual_runs(folder) for folder in {path.parent for path in paths}}
    for path in paths:
        try:
            yield _surveyed(path, seed, usual[path.parent])
        except MobileInstError as error:
            yield Surveyed(path, message=str(error))


def _surveyed(path: Path, seed: int, usual: Sequence[str]) -> Surveyed:
    if path.suffix == ".onnx":
        known = [str(finding) for finding in lint(path) if finding.severity == FAILS]
        return Surveyed(path, refused=tuple(known))
    graph, source = read_graph(path), path.with_suffix(".onnx")
    conversion = compare_conversion(graph, OnnxGraph.load(source), seed=seed) if source.exists() else None
    runs = {label: _run(graph, path, label, output) for label, output in outputs_beside(path).items()}
    ran = path.with_suffix(".in.txt").exists()
    missing = tuple(label for label in usual if ran and label not in runs)
    return Surveyed(path, len(graph.proto.layers), conversion, runs, missing)


def _usual_runs(folder: Path) -> list[str]:
    """Return the runs of which at least half the models of a folder have an output."""
    protos = list(folder.glob("*.tnnproto"))
    counts = Counter(label for proto in protos for label in outputs_beside(proto))
    return sorted((label for label, count in counts.items() if 2 * count >= len(protos)), key=_order)


def outputs_beside(path: Path) -> dict[str, Path]:
    """Return the outputs that stand beside a proto, by what their names say of the run."""
    found = {}
    for output in sorted(path.parent.glob(f"{path.stem}.*.out")):
        label = output.name[len(path.stem) + 1 : -len(".out")]
        if settings_of(label) is not None:
            found[label] = output
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(label: str) -> tuple[int, int]:
    settings = settings_of(label) or Settings()
    return DEVICES.index(settings.device), PRECISIONS.index(settings.precision)


def settings_of(label: str) -> Settings | None:
    """Return how a run was made, by a label such as ``ARM_HIGH``; None if it is no such label."""
    device, _, precision = label.partition("_")
    if device not in DEVICES or (precision and precision not in PRECISIONS):
        return None
    return Settings(device, precision or ("HIGH" if device in ("NAIVE", "X86") else "AUTO"))


def input_beside(path: Path, graph: TnnGraph) -> dict[str, Array]:
    """Read the input text that stands beside a proto (errors: those of `read_input`)."""
    shapes = {item.name: item.dims for item in graph.proto.inputs}
    return read_input(path.with_suffix(".in.txt"), shapes)


def _run(graph: TnnGraph, path: Path, label: str, output: Path) -> RunVerdict:
    settings = settings_of(label) or Settings()
    try:
        found = read_output(output)
        run = judge_outputs(graph, input_beside(path, graph), found, label, settings.arithmetic)
        return run if run.passes else replace(run, known=known_faults(settings.device, graph))
    except FileError as error:
        return RunVerdict(label, settings.arithmetic, message=str(error))


def judge_outputs(
    graph: TnnGraph,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    label: str,
    arithmetic: str,
    **text: float,
) -> RunVerdict:
    """Judge a run's outputs against what the converted file means in float64.

    Parameters
    ----------
    graph, inputs
        What ran.
    outputs
        What came out.
    label
        What to call the run.
    arithmetic
        What it is declared to compute with.
    text
        ``text``: absolute error of the text; that of `TNNTest`'s outputs by default.
    """
    allowed = allowed_outputs(graph, inputs, declared(arithmetic), **text)
    verdicts = [_output(name, outputs.get(name), *allowed[name]) for name in graph.proto.outputs]
    extra = sorted(set(outputs) - set(allowed))
    message = f"outputs {extra} are not the graph's; it is of another model" if extra else ""
    found = found_arithmetic(graph, inputs, outputs) if _comparable(outputs, allowed) else ""
    return RunVerdict(label, arithmetic, tuple(verdicts), message, found)


def _comparable(outputs: Mapping[str, Array], allowed: Mapping[str, tuple[Array, float]]) -> bool:
    shapes = {name: array.shape for name, array in outputs.items()}
    return shapes == {name: truth.shape for name, (truth, _) in allowed.items()} and all(
        np.isfinite(array).all() for array in outputs.values()
    )


def _output(name: str, values: Array | None, truth: Array, allowed: float) -> OutputVerdict:
    nowhere = Worst(float("inf"), 0.0, float("inf"), ())
    if values is None:
        return OutputVerdict(name, nowhere, "missing")
    if values.shape != truth.shape:
        return OutputVerdict(name, nowhere, f"shape {values.shape}, expected {truth.shape}")
    return OutputVerdict(name, worst_of(values, truth, allowed))
