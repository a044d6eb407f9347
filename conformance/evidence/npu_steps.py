"""How many steps Snapdragon's NPU, as emulated, is off in quantised networks.

`python -m conformance.evidence.npu_steps`: networks with seeded weights are quantised on pictures and judged
on others, result by result; a table says by operator how far off the worst is and how many are within what
the judge allows.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from conformance.candidates.onnx_runtime import plugin
from conformance.candidates.qnn import PROVIDER, Npu, npu_graph
from conformance.evidence.program import end_with
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import FORMATS, quantized_for_npu
from conformance.judge.quantized import judge_units, only_as_shipped
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Comparison
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.ops.operation import Array

NETWORKS = ("topformer-tiny", "seaformer-tiny", "sparseinst-topformer-tiny")
SIZE = (128, 192)
CALIBRATING = 4
"""Pictures on which ranges are taken."""


@dataclass(frozen=True)
class Settings:
    """What is quantised and judged.

    Attributes
    ----------
    networks, quantization
        Presets; one of `conformance.graph.quantizing.FORMATS`.
    chip
        As after ``qnn:``.
    pictures
        How many are judged.
    seed
        Of the weights and the pictures.
    """

    networks: Sequence[str]
    quantization: str
    chip: str
    pictures: int
    seed: int


def judged(settings: Settings) -> Iterator[tuple[str, list[Comparison], list[str]]]:
    """Yield the network, its rows and the remarks on them, for each network and picture."""
    npu = Npu.parse(settings.chip)
    first = 1000 * settings.seed
    ranges = [_picture(first + place) for place in range(CALIBRATING)]
    for name in settings.networks:
        config = MobileInstConfig.preset(name)
        weights = Weights.seeded(config, seed=settings.seed).folded().astype(np.float32)
        exported = export(MobileInst(config, weights), ranges[0])
        graph = OnnxGraph.load(quantized_for_npu(exported, ranges, settings.quantization))
        candidate = npu_graph(graph, npu)
        for place in range(settings.pictures):
            feeds = {"images": _picture(first + CALIBRATING + place)}
            shipped, captured = candidate.run(feeds), candidate.capture(feeds)
            rows, explained = judge_units(graph, feeds, captured)
            rows, apart = only_as_shipped(graph, rows, shipped, captured)
            yield name, rows, explained + apart


def _picture(seed: int) -> Array:
    (images,) = rendered_input(SIZE, 1, seed).values()
    return images


def table(settings: Settings) -> str:
    """Return the table, in Markdown."""
    by_operation: dict[str, list[tuple[str, Comparison]]] = defaultdict(list)
    for network, rows, _ in judged(settings):
        for row in rows:
            by_operation[row.operation].append((network, row))
    lines = [
        "| operation | results | judged | wrong | most steps off | there allowed | in |",
        "|" + "---|" * 7,
    ]
    for operation, found in sorted(by_operation.items()):
        network, worst = max(found, key=lambda pair: pair[1].introduced_error or 0.0)
        off = [
            f"{value:.2f}" if value is not None else "–"
            for value in (worst.introduced_error, worst.tolerance)
        ]
        counts = [sum(row.verdict in wanted for _, row in found) for wanted in (("pass", "fail"), ("fail",))]
        lines.append(
            f"| {operation} | {len(found)} | {counts[0]} | {counts[1]} | {' | '.join(off)} | {network} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only these; default: all")
    parser.add_argument("--quantize", default="a8w8", choices=FORMATS)
    parser.add_argument("--chip", default="snapdragon-8-gen-2")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plugin(PROVIDER)  # said before anything is computed
    networks = given.network or NETWORKS
    print(table(Settings(networks, given.quantize, given.chip, given.pictures, given.seed)))


if __name__ == "__main__":
    end_with(main)
