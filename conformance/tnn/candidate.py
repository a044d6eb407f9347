"""A converted model as a candidate of the judge: is the file MobileInst, and what did a run make of it?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.bounds import FLOAT16, Declaration
from conformance.bounds.worst_element import worst_of
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.reports.report import Comparison
from conformance.tnn.dumps import Step
from conformance.tnn.evaluation import evaluate
from conformance.tnn.graph import TnnGraph
from conformance.tnn.parameters import HardSigmoid
from conformance.tnn.rounding import declared
from refimpl.errors import CandidateError
from refimpl.graph import Graph, Node

Array = NDArray[Any]
Outputs = Callable[[Mapping[str, Array]], Mapping[str, Array]]
HALF = 1
"""The file's code of float16 constants."""
SIXTH = 1 / 6
"""The slope of the network's hard sigmoid, which the proto's six digits cannot hold."""


class TnnCandidate(Candidate):
    """A TNN graph judged as an implementation of the network.

    Its tensors are what the converted file means, in float32; its outputs those of a run, where one is given.

    Parameters
    ----------
    graph
        The converted model.
    arithmetic
        What the run is declared to compute with.
    run
        Inputs → outputs by name, of a device; by default the file's own meaning.
    steps
        Inputs → the replay of a dump, if the run has one.
    reruns
        Whether ``run`` computes anew what it is given.
    """

    def __init__(
        self,
        graph: TnnGraph,
        arithmetic: str = "float32",
        run: Outputs | None = None,
        steps: Callable[[Mapping[str, Array]], Iterable[Step]] | None = None,
        reruns: bool = True,
    ) -> None:
        if len(graph.proto.inputs) != 1:
            raise CandidateError(
                f"the graph has {len(graph.proto.inputs)} inputs; expected one, the normalised images"
            )
        self.graph, self._run, self._steps = _with_exact_slope(graph), run, steps
        self.name = graph.proto.inputs[0].name
        self._reruns = reruns
        how = declared(arithmetic)
        buffers = [buffer for item in graph.model.resources for buffer in item.buffers.values()]
        half = any(buffer.dtype == HALF for buffer in buffers)
        storage = max(how.storage, FLOAT16 if half else how.storage, key=lambda format: format.unit_roundoff)
        self._declaration = Declaration(how.arithmetic, storage, how.runtime)

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""
        return self._declaration

    @property
    def reruns(self) -> bool:
        """Whether it computes anew what it is given."""
        return self._reruns

    def run(self, images: Array) -> dict[str, Array]:
        """Return the outputs by name; errors: those of the run."""
        if self._run is not None:
            return dict(self._run({self.name: images}))
        blobs = self._evaluated(images)
        return {name: blobs[name] for name in self.graph.proto.outputs}

    def capture(self, images: Array) -> dict[str, Array]:
        """Return every blob of the file's float32 evaluation, in the order of the layers."""
        blobs = self._evaluated(images)
        made = [name for layer in self.graph.proto.layers for name in layer.outputs]
        return {name: blobs[name] for name in made if blobs[name].dtype.kind == "f"}

    def judged_layers(self, images: Array) -> list[Comparison]:
        """Judge the layers of the dump; without one there is nothing to judge."""
        steps = self._steps({self.name: images}) if self._steps else ()
        return [comparison_of(step) for step in steps]

    def own_graph(self, images: Array) -> OwnGraph:
        """Return its layers."""
        layers = self.graph.proto.layers
        return OwnGraph(Graph([Node(each.name, each.type, each.inputs, each.outputs) for each in layers]))

    def _evaluated(self, images: Array) -> dict[str, Array]:
        return evaluate(self.graph, {self.name: images}, np.float32)


def _with_exact_slope(graph: TnnGraph) -> TnnGraph:
    """Read a slope of 0.166667 as the 1/6 it was: six digits are the file's, not a mistake of the network."""
    layers = tuple(
        dataclasses.replace(layer, parameters=dataclasses.replace(layer.parameters, alpha=SIXTH))
        if isinstance(layer.parameters, HardSigmoid) and f"{layer.parameters.alpha:g}" == f"{SIXTH:g}"
        else layer
        for layer in graph.proto.layers
    )
    return dataclasses.replace(graph, proto=dataclasses.replace(graph.proto, layers=layers))


def comparison_of(step: Step) -> Comparison:
    """Return a step of a dump as a row of a report."""
    worst = step.worst
    known = step.produced.shape == step.expected.shape
    largest = worst_of(step.produced, step.expected, 1.0) if known else worst
    scale = float(np.abs(step.expected).max(initial=0.0))
    finite = np.isfinite(worst.error)
    return Comparison(
        name=step.tensor,
        operation=step.type,
        candidate=step.name,
        shape=step.expected.shape,
        max_abs_error=largest.error if known else None,
        relative_error=(largest.error / scale if scale and finite else largest.error) if known else None,
        worst_index=worst.index if known else None,
        introduced_error=worst.error if known else None,
        tolerance=worst.bound if step.bound is not None and known else None,
        utilisation=worst.utilisation if step.bound is not None and known else None,
        verdict=step.verdict,
        systematic=step.systematic,
    )
