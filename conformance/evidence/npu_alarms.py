"""Right networks on Snapdragon's NPU, as emulated: what of them is called wrong?

`python -m conformance.evidence.npu_alarms --seed N`: networks with seeded weights, each in float16 and
quantised to 8 and 16 bits, on several pictures and chips; a table says how many steps or integer results were
judged and what fails.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np

from conformance.candidates.onnx_runtime import plugin
from conformance.candidates.qnn import PROVIDER, Npu, NpuCandidate
from conformance.evidence.npu_steps import NETWORKS, SIZE, Settings, judged
from conformance.evidence.program import end_with
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import FORMATS
from conformance.judge.network import verify
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Comparison
from refimpl import MobileInst, MobileInstConfig, Weights

CHIPS = ("snapdragon-8-gen-2", "snapdragon-8-elite")
FLOAT = "float16"


def line(network: str, arithmetic: str, chip: str, pictures: int, seed: int) -> str:
    """Judge one network in one format on one chip, and return a line of the table, in Markdown."""
    rows = _float_rows if arithmetic == FLOAT else _quantized_rows
    found = list(rows(network, arithmetic, chip, pictures, seed))
    failing = Counter(row.operation for row in found if row.verdict == "fail")
    told = ", ".join(f"{operation} ×{count}" for operation, count in failing.items()) or "–"
    counts = [sum(row.verdict in wanted for row in found) for wanted in (("pass", "fail"), ("fail",))]
    return f"| {network} | {arithmetic} | {chip} | {len(found)} | {counts[0]} | {counts[1]} | {told} |"


def _float_rows(network: str, arithmetic: str, chip: str, pictures: int, seed: int) -> Iterator[Comparison]:
    config = MobileInstConfig.preset(network)
    weights = Weights.seeded(config, seed=seed).folded().astype(np.float32)
    inputs = {
        f"{place}": images
        for place in range(pictures)
        for images in rendered_input(SIZE, 1, 1000 * seed + place).values()
    }
    graph = OnnxGraph.load(export(MobileInst(config, weights), inputs["0"]))
    for report in verify(NpuCandidate(graph, Npu.parse(chip)), config, weights, inputs).inputs:
        yield from (*report.steps, *report.outputs)
        for problem in report.problems:
            yield Comparison.absent(problem, problem, (), "fail")


def _quantized_rows(
    network: str, arithmetic: str, chip: str, pictures: int, seed: int
) -> Iterator[Comparison]:
    for _, rows, _ in judged(Settings([network], arithmetic, chip, pictures, seed)):
        yield from rows


def main() -> None:
    """Judge, and print the table line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, known in (("network", NETWORKS), ("chip", CHIPS), ("format", (FLOAT, *FORMATS))):
        parser.add_argument(f"--{option}", action="append", choices=known, help="only these; default: all")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plugin(PROVIDER)  # said before anything is computed
    print("| network | format | chip | results | judged | wrong | of them |\n|" + "---|" * 7, flush=True)
    for arithmetic in given.format or (FLOAT, *FORMATS):
        for chip in given.chip or CHIPS:
            for network in given.network or NETWORKS:
                print(line(network, arithmetic, chip, given.pictures, given.seed), flush=True)


if __name__ == "__main__":
    end_with(main)
