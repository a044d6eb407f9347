"""A network quantised for Snapdragon's NPU, on it and on ONNX Runtime's CPU provider, beside its float self.

`python -m conformance.evidence.npu_beside_cpu --quantize a8w8`: which results lose most, what their own
scales let expect, where the NPU makes an integer that is more than a step off where the CPU does not, and
which decisions come out otherwise.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions, plugin
from conformance.candidates.qnn import PROVIDER, Npu, npu_graph
from conformance.evidence.npu_steps import CALIBRATING, NETWORKS, SIZE
from conformance.evidence.program import end_with
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import FORMATS, quantized_for_npu
from conformance.judge.any_graph import graph_recording
from conformance.judge.decisions import compare_decisions
from conformance.judge.quantized import judge_units
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Comparison
from refimpl import MobileInst, MobileInstConfig, Recording, Weights
from refimpl.ops.operation import Array

SUFFIX = "_QuantizeLinear_Output"
"""What ONNX Runtime's quantiser makes of a tensor's name for its integers."""

UNKNOWN = "what it loses itself"


@dataclass(frozen=True)
class Loss:
    """One integer result on both processors.

    Attributes
    ----------
    name, operation
    expected
        What rounding to its own scale loses: scale / √12 over the float tensor's root mean square.
    lost
        On the NPU and on the CPU: root mean square of the difference from the float network's, over its own.
    off
        On the NPU and on the CPU: steps off what is made of its own operands, at most.
    why
        What explains the NPU's, if that is known.
    """

    name: str
    operation: str
    expected: float
    lost: tuple[float, float]
    off: tuple[float, float]
    why: str


@dataclass(frozen=True)
class Setting:
    """A float network, its quantised self and a picture."""

    source: OnnxGraph
    quantised: OnnxGraph
    feeds: Mapping[str, Array]

    @functools.cached_property
    def truth(self) -> Recording:
        """The float network's run, in float64."""
        return graph_recording(self.source, self.feeds)

    @classmethod
    def of(cls, network: str, quantization: str, seed: int) -> Setting:
        """Return a network with seeded weights, ranges taken on other pictures than the one judged."""
        config = MobileInstConfig.preset(network)
        weights = Weights.seeded(config, seed=seed).folded().astype(np.float32)
        pictures = [rendered_input(SIZE, 1, 1000 * seed + place) for place in range(CALIBRATING + 1)]
        *ranges, images = [picture for each in pictures for picture in each.values()]
        exported = export(MobileInst(config, weights), images)
        quantised = quantized_for_npu(exported, ranges, quantization)
        return cls(OnnxGraph.load(exported), OnnxGraph.load(quantised), {"images": images})


def losses(setting: Setting, npu: Mapping[str, Array], cpu: Mapping[str, Array]) -> list[Loss]:
    """Return what each integer result loses on both, in order."""
    truth = setting.truth.tensors
    judged = [judge_units(setting.quantised, setting.feeds, tensors) for tensors in (npu, cpu)]
    ours, theirs = ({row.name: row for row in found} for found, _ in judged)
    whys = dict(remark.partition(": ")[::2] for remark in judged[0][1])
    shared = [name for name in ours if name in theirs and name.removesuffix(SUFFIX) in truth]
    return [
        _loss(
            setting.quantised,
            truth[name.removesuffix(SUFFIX)],
            (npu[name], cpu[name]),
            (ours[name], theirs[name]),
            whys,
        )
        for name in shared
    ]


def _loss(
    graph: OnnxGraph,
    truth: Array,
    integers: Sequence[Array],
    rows: Sequence[Comparison],
    whys: Mapping[str, str],
) -> Loss:
    name = rows[0].name
    quantize = graph.producer(name)
    assert quantize is not None
    scale, point = (graph.initializers[each].astype(np.float64) for each in quantize.uses[1:])
    size = float(np.sqrt(np.mean(np.square(truth)))) or 1.0
    real = [(each.astype(np.float64) - point) * scale for each in integers]
    npu, cpu = (float(np.sqrt(np.mean(np.square(values - truth)))) / size for values in real)
    off = [row.introduced_error or 0.0 for row in rows]
    why = whys.get(rows[0].candidate or "", "")
    expected = float(np.mean(scale)) / np.sqrt(12) / size
    return Loss(name.removesuffix(SUFFIX), rows[0].operation, expected, (npu, cpu), (off[0], off[1]), why)


def report(setting: Setting, chip: str, most: int) -> Iterator[str]:
    """Yield the lines of the tables, in Markdown."""
    runtimes = (npu_graph(setting.quantised, Npu.parse(chip)), _on_cpu(setting.quantised))
    npu, cpu = (runtime.capture(setting.feeds) for runtime in runtimes)
    found = losses(setting, npu, cpu)
    yield "| result | operation | its scale lets expect | lost, NPU | lost, CPU | steps off, NPU | CPU |"
    yield "|" + "---|" * 7
    for each in sorted(found, key=lambda each: -each.lost[0])[:most]:
        lost = " | ".join(f"{100 * value:.1f} %" for value in each.lost)
        off = " | ".join(f"{value:.2f}" for value in each.off)
        yield f"| {each.name} | {each.operation} | {100 * each.expected:.2f} % | {lost} | {off} |"
    apart = [each for each in found if each.off[0] > 1 + each.off[1]]
    yield f"{len(found)} results; on the NPU {len(apart)} are more than a step further off than on the CPU:"
    for each in apart:
        steps = "{:.1f} steps, {:.1f} on the CPU".format(*each.off)
        yield f"* {each.name} ({each.operation}): {steps}; {each.why or UNKNOWN}"
    for name, runtime in zip(("NPU", "CPU"), runtimes, strict=True):
        yield from _flipped(setting, name, runtime.run(setting.feeds))


def _on_cpu(graph: OnnxGraph) -> OnnxRuntimeGraph:
    return OnnxRuntimeGraph(graph, RuntimeOptions(threads=1))


def _flipped(setting: Setting, name: str, outputs: Mapping[str, Array]) -> Iterator[str]:
    """Say which decisions come out otherwise than the float network's, whatever the margin."""
    truth = setting.truth
    reference = {each: truth.tensors[tensor] for each, tensor in truth.outputs.items()}
    for decision in compare_decisions(reference, outputs, dict.fromkeys(reference, 0.0)):
        yield f"{name}: {decision}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default=NETWORKS[0], choices=NETWORKS)
    parser.add_argument("--quantize", default="a8w8", choices=FORMATS)
    parser.add_argument("--chip", default="snapdragon-8-gen-2")
    parser.add_argument("--most", type=int, default=12, help="results that lose most, to print")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plugin(PROVIDER)  # said before anything is computed
    for line in report(Setting.of(given.network, given.quantize, given.seed), given.chip, given.most):
        print(line, flush=True)


if __name__ == "__main__":
    end_with(main)
