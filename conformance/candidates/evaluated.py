"""A graph that our own evaluation computes, in float64 or with every result stored in a narrower format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, FLOAT64, Declaration, Format
from conformance.candidates.arrays import Given
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from refimpl import Recording
from refimpl.errors import ShapeError
from refimpl.ops.operation import Array


class EvaluatedGraph(Candidate):
    """Any ONNX graph, computed in NumPy.

    Parameters
    ----------
    graph
        The model, read and checked.
    storage
        The format every result is rounded to; float32 arithmetic, unless it is float64.
    declaration
        The arithmetic it is judged by; that in which it is computed by default.

    Attributes
    ----------
    failed
        Of the latest run, what is wrong with nodes whose operands do not fit together; None, the default:
        that is an error.
    """

    declaration = Declaration()
    captures_all = True

    def __init__(
        self, graph: OnnxGraph, storage: Format = FLOAT64, declaration: Declaration | None = None
    ) -> None:
        self.graph = graph
        self.arithmetic = FLOAT64 if storage == FLOAT64 else FLOAT32
        self.storage = storage
        self.declaration = declaration or Declaration(self.arithmetic, storage)
        self.failed: list[str] | None = None
        self.latest: tuple[dict[str, Array], Recording] | None = None

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs; inputs have the graph's names of them, or are in its order.

        Where nodes fail and no output is computed, the last tensor that is.
        """
        run = self._recording(images)
        given = {name: run.tensors[tensor] for name, tensor in run.outputs.items() if tensor in run.tensors}
        last = [name for _, name in run.results()][-1:]
        return given or {name: run.tensors[name] for name in last}

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every tensor that a node makes, and the outputs, which may be inputs or constants."""
        run = self._recording(images)
        names = dict.fromkeys([*(name for _, name in run.results()), *run.outputs.values()])
        return {name: run.tensors[name] for name in names if name in run.tensors}

    def own_graph(self, images: Given) -> OwnGraph:
        """Return the graph and what it is fed."""
        return OwnGraph(self.graph, self.graph, own_feeds(self.graph, self._named(images)))

    def _named(self, images: Given) -> Mapping[str, Array]:
        return images if isinstance(images, Mapping) else dict.fromkeys(list(self.graph.inputs)[:1], images)

    def _recording(self, images: Given) -> Recording:
        """Return the run on an input; the latest is kept, since a verdict asks for it several times."""
        feeds = self._named(images)
        if self.latest is None or not _same(self.latest[0], feeds):
            given, narrow, dtype = own_feeds(self.graph, feeds), self.storage, self.arithmetic.name
            stored = None if narrow in (FLOAT32, FLOAT64) else lambda x: narrow.rounded(x).astype(dtype)
            self.failed = None if self.failed is None else []
            run = graph_recording(self.graph, given, dtype=dtype, stored=stored, failed=self.failed)
            self.latest = {name: array.copy() for name, array in feeds.items()}, run
        return self.latest[1]


def _same(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(array, second[name], equal_nan=array.dtype.kind == "f")
        for name, array in first.items()
    )


def own_feeds(graph: OnnxGraph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return what a graph is fed under its own names of its inputs, floats in the declared dtypes.

    Parameters
    ----------
    graph
    feeds
        Under the names of another graph of the same meaning. Of those that differ the order counts.

    Raises
    ------
    ShapeError
        The graph takes another number of inputs.
    """
    return {
        own: feeds[name].astype(_dtype(graph, own, feeds[name]), copy=False)
        for own, name in paired_inputs(graph, feeds).items()
    }


def fit_for_both(graph: OnnxGraph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the feeds with floats rounded to what a graph takes, so that both are fed the same numbers.

    Parameters and errors as of `own_feeds`.
    """
    pairs = paired_inputs(graph, feeds).items()
    dtypes = {name: _dtype(graph, own, feeds[name]) for own, name in pairs}
    return {
        name: array.astype(dtypes.get(name, array.dtype)).astype(array.dtype) for name, array in feeds.items()
    }


def paired_inputs(graph: OnnxGraph, feeds: Mapping[str, Array]) -> dict[str, str]:
    """Return the graph's name of each of its inputs → the name in the feeds; errors as of `own_feeds`."""
    if all(name in feeds for name in graph.inputs):
        return {name: name for name in graph.inputs}
    if len(graph.inputs) != len(feeds):
        raise ShapeError(
            f"the graph takes {', '.join(graph.inputs) or 'nothing'}, the other {', '.join(feeds)}: "
            "they are of different models"
        )
    others = iter([name for name in feeds if name not in graph.inputs])
    return {own: own if own in feeds else next(others) for own in graph.inputs}


def _dtype(graph: OnnxGraph, name: str, array: Array) -> np.dtype[Any]:
    declared = graph.declared[name].dtype
    return declared if declared is not None and declared.kind == array.dtype.kind == "f" else array.dtype
