"""Every runtime that is installed × precision × conversion: one model of the network, judged in each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.candidates.converters import CONVERTERS
from conformance.candidates.kinds import PHONE_RUNTIMES, Request, make
from conformance.judge.network import verify
from conformance.reports.report import InputReport, Report
from refimpl import MobileInstConfig, Weights
from refimpl.errors import MissingDependencyError, MobileInstError
from refimpl.ops.operation import Array

OTHERS = {"onnxruntime": ("level=all", "level=disabled"), "qnn": ("snapdragon-8-gen-2",)}
"""Runtimes that take ONNX files as they are → ways in which they are asked to run them."""
ARM = {"ncnn": ("arithmetic=float16",), "mnn": ("winograd=off,precision=low",)}
"""What runtimes can be asked besides under another interpreter: it may be an Arm core's."""
MODULES = {"onnxruntime": "onnxruntime", "qnn": "onnxruntime_qnn"}


@dataclass(frozen=True)
class Cell:
    """One runtime, asked to run the model in one way.

    Attributes
    ----------
    runtime, version
    way
        Its options.
    route
        What converted the model.
    verdict
        ``pass``, ``fail``, ``not judged``; ``refused`` if it cannot be run, ``not installed``.
    steps, judged
        How many steps the network has there, and how many were judged.
    worst, worst_step
        The largest error over bound of a step, and where.
    says
        Why it fails or is refused.
    seconds
        Of conversion, runs and verdict.
    """

    runtime: str
    version: str
    way: str
    route: str
    verdict: str
    steps: int = 0
    judged: int = 0
    worst: float | None = None
    worst_step: str = ""
    says: str = ""
    seconds: float = 0.0


def runtime_matrix(
    model: Path,
    config: MobileInstConfig,
    weights: Weights,
    inputs: Mapping[str, Array],
    progress: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
    ways: Sequence[tuple[str, str]] = (),
    interpreter: Sequence[str] = (),
) -> Iterator[Cell]:
    """Yield a cell for each runtime and way; a runtime that is not installed has one.

    Parameters
    ----------
    model
        The network as an ONNX file.
    config, weights
        The network it should be.
    inputs
        Name → images.
    progress
        Called with what is judged.
    cache
        Where envelopes are kept; None: nowhere.
    ways
        Runtimes and their options; none: all, under an interpreter all that can be run there.
    interpreter
        The words that start the Python in which the runtimes are installed; none: this one.
    """
    for runtime, way in ways or (_ways_elsewhere() if interpreter else _ways()):
        progress(f"{runtime}:{way}")
        package = MODULES.get(runtime) or PHONE_RUNTIMES[runtime].package
        if not interpreter and importlib.util.find_spec(package) is None:
            yield Cell(runtime, "", "", "", "not installed", says=f"extra {runtime}")
            continue
        known = (runtime, _version(package), way, _route(runtime))
        began = time.monotonic()
        try:
            threads = 0 if runtime in PHONE_RUNTIMES else 1
            request = Request("", config, weights, model, threads=threads, interpreter=interpreter)
            candidate = make(f"{runtime}:{way}", request)
            report = verify(candidate, config, weights, inputs, name=runtime, cache=cache)
            known = (runtime, getattr(candidate, "version", "") or known[1], *known[2:])
        except MissingDependencyError as error:
            yield Cell(runtime, "", way, known[3], "not installed", says=str(error))
            continue
        except MobileInstError as error:
            yield Cell(*known, "refused", says=str(error), seconds=time.monotonic() - began)
            continue
        yield _judged(known, report, time.monotonic() - began)


def _ways() -> Iterator[tuple[str, str]]:
    for runtime, ways in {**OTHERS, **{name: each.ways for name, each in PHONE_RUNTIMES.items()}}.items():
        package = MODULES.get(runtime) or PHONE_RUNTIMES[runtime].package
        installed = importlib.util.find_spec(package) is not None
        yield from ((runtime, way) for way in (ways if installed else ways[:1]))


def _ways_elsewhere() -> Iterator[tuple[str, str]]:
    yield from (("onnxruntime", way) for way in OTHERS["onnxruntime"])
    for runtime, each in PHONE_RUNTIMES.items():
        yield from ((runtime, way) for way in (*each.ways, *ARM.get(runtime, ())))


def _version(package: str) -> str:
    names = importlib.metadata.packages_distributions().get(package, [])
    return importlib.metadata.version(names[0]) if names else ""


def _route(runtime: str) -> str:
    if runtime not in PHONE_RUNTIMES:
        return "ONNX as it is"
    converter = CONVERTERS[runtime]
    return f"{converter.package} {_version(converter.package)}"


def _judged(known: tuple[str, str, str, str], report: Report, seconds: float) -> Cell:
    item = report.leading
    rows = [row for row in item.steps if row.utilisation is not None]
    worst = max(rows, key=lambda row: row.utilisation or 0.0, default=None)
    return Cell(
        *known,
        report.verdict,
        steps=len(item.steps),
        judged=sum(row.verdict in ("pass", "fail") for row in item.steps),
        worst=worst.utilisation if worst else None,
        worst_step=worst.name if worst else "",
        says=_says(item) if report.verdict == "fail" else "",
        seconds=seconds,
    )


HEADS = ("runtime", "version", "way", "converted by", "verdict", "judged", "worst step", "error / bound", "s")


def row_of(cell: Cell) -> tuple[str, ...]:
    """Return a cell as a table's row, under `HEADS`."""
    judged = f"{cell.judged} of {cell.steps}" if cell.steps else "-"
    worst = "-" if cell.worst is None else f"{cell.worst:.2g}"
    seconds = f"{cell.seconds:.0f}" if cell.seconds else "-"
    named = (cell.runtime, cell.version or "-", cell.way or "-", cell.route or "-", cell.verdict)
    return (*named, judged, cell.worst_step or "-", worst, seconds)


def _says(item: InputReport) -> str:
    """Say in a few words why it fails."""
    fault = item.first_fault
    place = f"at {fault.step}" if fault else ""
    return ": ".join(filter(None, [place, *item.problems[:1], item.likely]))
