"""Right networks in the phones' runtimes: what of them is called wrong?

`python -m conformance.evidence.runtime_alarms --seed N`: networks with seeded weights, in every runtime that
is installed and every way it is asked to run, on several pictures; a table says how many steps and outputs
were judged and what fails. MNN's default Winograd is to fail, and to be named.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection, Iterator
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


def lines(network: str, runtimes: Collection[str], pictures: int, seed: int) -> Iterator[str]:
    """Judge one network in some runtimes, and yield a line of the table for each way, in Markdown."""
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
        for runtime in runtimes:
            for way in PHONE_RUNTIMES[runtime].ways:
                request = Request("", config, weights, model, threads=0)
                try:
                    candidate = make(f"{runtime}:{way}", request)
                    found = _judged(verify(candidate, config, weights, inputs))
                except MobileInstError as error:
                    found = f"0 | – | refused: {error}"
                yield f"| {network} | {runtime} | {way} | {found} |"


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
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    installed = [name for name, runtime in PHONE_RUNTIMES.items() if runtime.is_installed]
    print("| network | runtime | way | judged | wrong | said |\n|" + "---|" * 6, flush=True)
    for network in given.network or NETWORKS:
        for line in lines(network, given.runtime or installed, given.pictures, given.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
