"""Right networks in the phones' runtimes: what of them is called wrong?

`python -m conformance.evidence.runtime_alarms --seed N`: networks with seeded weights, in every runtime that
is installed and every way it is asked to run, on several pictures; a table says how many steps and outputs
were judged and what fails. MNN's default Winograd is to fail, and to be named.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

from conformance.candidates.kinds import PHONE_RUNTIMES, Request, make
from conformance.graph.onnx_export import export
from conformance.judge.network import verify
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Report
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import MobileInstError

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
                found = _judged(verify(make(way, request), config, weights, inputs))
            except MobileInstError as error:
                found = f"0 | – | refused: {error}"
            runtime, _, said = way.partition(":")
            yield f"| {network} | {runtime} | {said} | {found} |"


def _judged(report: Report) -> str:
    """Return how much was judged, how much of it is called wrong, and what is said of it."""
    rows = [row for item in report.inputs for row in (*item.steps, *item.outputs)]
    counts = [sum(row.verdict in wanted for row in rows) for wanted in (("pass", "fail"), ("fail",))]
    return f"{counts[0]} | {counts[1]} | {_said(report)}"


def _said(report: Report) -> str:
    """Say what is found wrong, and why."""
    faults = {item.first_fault.step for item in report.inputs if item.first_fault}
    problems = {problem for item in report.inputs for problem in item.problems}
    why = (
        "Winograd named"
        if any("Winograd" in said for item in report.inputs for said in item.evidence)
        else ""
    )
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
    main()
