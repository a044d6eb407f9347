"""Right networks in the phones' runtimes: what of them is called wrong?

`python -m conformance.evidence.runtime_alarms --seed N`: networks with seeded weights, in every runtime that
is installed and every way it is asked to run, on several pictures; a table says how many steps and outputs
were judged and what fails. MNN's default Winograd is to fail, and to be named.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx

from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.integer_graph import integer_graph
from conformance.candidates.kinds import PHONE_RUNTIMES, Request, make
from conformance.candidates.phone_runtime import STATIC
from conformance.evidence.program import end_with
from conformance.graph.onnx_export import export
from conformance.judge.any_graph import verify_graph
from conformance.judge.network import verify
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import InputReport, Report
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import MobileInstError
from refimpl.ops.operation import Array

NETWORKS = ("topformer-tiny", "seaformer-tiny", "topformer-base")
SIZE = (128, 192)


def lines(
    network: str, ways: Sequence[str], pictures: int, seed: int, interpreter: Sequence[str] = ()
) -> Iterator[str]:
    """Judge one network in some ways, and yield a line of the table for each, in Markdown.

    Parameters
    ----------
    network
    ways
        As after ``--candidate``.
    pictures, seed
    interpreter
        The words that start the Python in which the runtimes are installed; none: this one.
    """
    config = MobileInstConfig.preset(network)
    weights = Weights.seeded(config, seed=seed)
    inputs = {
        f"{place}": images
        for place in range(pictures)
        for images in rendered_input(SIZE, 1, 1000 * seed + place).values()
    }
    with tempfile.TemporaryDirectory(prefix="alarms-") as folder:
        model = Path(folder) / "model.onnx"
        onnx.save(export(MobileInst(config, weights.folded().astype(np.float32)), inputs["0"]), model)
        for way in ways:
            request = Request("", config, weights, model, interpreter=interpreter)
            try:
                if f"weights={STATIC}" in way:
                    found = _judged(*_of_integers(way, model, inputs, interpreter))
                else:
                    found = _judged(verify(make(way, request), config, weights, inputs))
            except MobileInstError as error:
                found = f"0 | – | refused: {error}"
            runtime, _, said = way.partition(":")
            yield f"| {network} | {runtime} | {said} | {found} |"


def _of_integers(
    way: str, model: Path, inputs: Mapping[str, Array], interpreter: Sequence[str]
) -> Iterator[Report]:
    """Convert to integers throughout, and judge the file by what it means, on each input."""
    name, _, options = way.partition(":")
    converter, given = CONVERTERS[name], dict(word.partition("=")[::2] for word in options.split(","))
    place = model.with_suffix(converter.suffixes[0])
    made, *_ = convert(converter, model, place, STATIC, given.get("delegate"))
    with closing(integer_graph(made, f"{name}:{options}", interpreter)) as candidate:
        (own,) = candidate.graph.inputs
        for images in inputs.values():
            yield verify_graph(candidate, {own: images})


def _judged(*reports: Report) -> str:
    """Return how much was judged, how much of it is called wrong, and what is said of it."""
    items = [item for report in reports for item in report.inputs]
    rows = [row for item in items for row in (*(item.steps or item.nodes), *item.outputs)]
    counts = [sum(row.verdict in wanted for row in rows) for wanted in (("pass", "fail"), ("fail",))]
    return f"{counts[0]} | {counts[1]} | {_said(items)}"


def _said(items: Sequence[InputReport]) -> str:
    """Say what is found wrong, and why."""
    faults = {item.first_fault.step for item in items if item.first_fault}
    problems = {problem for item in items for problem in item.problems}
    why = "Winograd named" if any("Winograd" in said for item in items for said in item.evidence) else ""
    return ", ".join(filter(None, [*sorted(faults), *sorted(problems), why])) or "–"


def main() -> None:
    """Judge, and print the table line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only these; default: all")
    parser.add_argument("--runtime", action="append", choices=list(PHONE_RUNTIMES), help="only these")
    parser.add_argument("--way", action="append", metavar="RUNTIME:OPTIONS", help="instead: these ways")
    parser.add_argument("--interpreter", default="", help="as of mobileinst verify")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    installed = [name for name, runtime in PHONE_RUNTIMES.items() if runtime.is_installed]
    ways = given.way or [
        f"{name}:{way}" for name in given.runtime or installed for way in PHONE_RUNTIMES[name].ways
    ]
    interpreter = shlex.split(given.interpreter)
    print("| network | runtime | way | judged | wrong | said |\n|" + "---|" * 6, flush=True)
    for network in given.network or NETWORKS:
        for line in lines(network, ways, given.pictures, given.seed, interpreter):
            print(line, flush=True)


if __name__ == "__main__":
    end_with(main)
