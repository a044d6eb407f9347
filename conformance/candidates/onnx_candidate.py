"""Candidates: implementations under test, run on an input and asked for their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.bounds import BFLOAT16, Declaration
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.onnx_runtime import RuntimeOptions, is_blocked
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import CandidateError, ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array

MEMBERS = ("run", "capture", "own_graph", "declaration", "captures_all")
"""What a candidate has; see `conformance.candidates.candidate.Candidate`."""


def checked_candidate(given: Any) -> Candidate:
    """Return what is given if it is a candidate.

    Raises
    ------
    CandidateError
        It lacks members of one; the message lists them.
    """
    missing = [member for member in MEMBERS if not hasattr(given, member)]
    if missing:
        raise CandidateError(
            f"the candidate is {type(given).__name__}, which has no {', '.join(missing)}; "
            "give the path of an ONNX file, an onnx.ModelProto, or an object of a class derived from "
            "conformance.candidates.candidate.Candidate"
        )
    candidate: Candidate = given
    return candidate


@dataclass(frozen=True)
class GraphInput:
    """The candidate's only input: its name and shape, None where an axis is bound by what is given."""

    name: str
    shape: tuple[int | None, ...]

    def check(self, images: Array) -> None:
        """Raise `ShapeError` unless an array of that shape can be fed."""
        fits = len(images.shape) == len(self.shape) and all(
            wanted in (None, given) for wanted, given in zip(self.shape, images.shape, strict=True)
        )
        if not fits:
            wanted = tuple("any" if size is None else size for size in self.shape)
            raise ShapeError(
                f"the candidate's input {self.name!r} takes shape {wanted}, but the input given has "
                f"{images.shape}"
            )


class OnnxRuntimeCandidate(Candidate):
    """An ONNX model of the network in ONNX Runtime.

    Parameters
    ----------
    graph
        The model, read and checked.
    threads
        Threads within an operator, unless ``options`` say; 0 lets the runtime choose.
    options, declaration
        As of `OnnxRuntimeGraph`.
    others
        Images → what the model's other inputs are fed, for a model that has some.
    timeout
        Seconds that a run may take, in a process of its own; None: in this one, as long as it likes.
    interpreter
        The words that start the Python in which ONNX Runtime is installed; none: this one.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        threads: int = 0,
        options: RuntimeOptions | None = None,
        declaration: Declaration | None = None,
        others: Callable[[Array], Mapping[str, Array]] | None = None,
        timeout: float | None = None,
        interpreter: Sequence[str] = (),
    ) -> None:
        self.graph = graph
        self.input = images_input(graph) if others else only_input(graph)
        self.others = others
        options = options or RuntimeOptions(threads=threads)
        self.model = runtime_graph(graph, options, declaration, timeout, interpreter)

    @property
    def captures_all(self) -> bool:
        """Whether no tensor of it is in a layout that cannot be read."""
        return not any(map(is_blocked, self.graph.model.graph.node))

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""
        return self.model.declaration

    @property
    def version(self) -> str:
        """Of the runtime, where that is not this Python's; known after a run."""
        return getattr(self.model, "version", "")

    def run(self, images: Array) -> dict[str, Array]:
        """Run the model as users do and return its outputs by name.

        Raises
        ------
        ShapeError, CandidateError
            The input does not fit, or the runtime fails.
        UnsupportedOperationError
            Neither the vocabulary nor the runtime knows an operator.
        """
        try:
            return self.model.run(self.feeds(images))
        except CandidateError as error:
            known = next(iter(self.graph.unknown.items()), None)
            if known is None:
                raise
            raise UnsupportedOperationError(f"{known[0]}: {known[1]}, and {error}") from error

    def capture(self, images: Array) -> dict[str, Array]:
        """Run the model unoptimised and return every node's output by name, in topological order."""
        return self.model.capture(self.feeds(images))

    def own_graph(self, images: Array) -> OwnGraph:
        """Return the model's graph and what it is fed."""
        return self.model.own_graph(self.feeds(images))

    def feeds(self, images: Array) -> dict[str, Array]:
        """Return what the model is fed, by name; raise `ShapeError` if it does not fit."""
        self.input.check(images)
        feeds = {self.input.name: images, **(self.others(images) if self.others else {})}
        return {name: self._as_declared(name, array) for name, array in feeds.items()}

    def _as_declared(self, name: str, array: Array) -> Array:
        if name in self.graph.bfloat16:
            return BFLOAT16.rounded(array).astype(np.float32)
        dtype = self.graph.declared[name].dtype or np.dtype(np.float32)
        return array.astype(dtype, copy=False)


def only_input(graph: OnnxGraph) -> GraphInput:
    """Return the input of a model of the network.

    Raises
    ------
    CandidateError
        The model has not exactly one input, of four axes.
    """
    inputs = list(graph.inputs)
    if len(inputs) != 1:
        raise CandidateError(
            f"the model has {len(inputs)} inputs ({', '.join(inputs) or 'none'}); "
            "expected one, the normalised images (batch, 3, height, width)"
        )
    return images_input(graph)


def images_input(graph: OnnxGraph) -> GraphInput:
    """Return the first input of a model, which must have four axes.

    Raises
    ------
    CandidateError
    """
    name, info = next(iter(graph.declared.items()))
    if info.shape is None or len(info.shape) != 4:
        raise CandidateError(
            f"the model's input {name!r} has shape {info.shape}; expected (batch, 3, height, width)"
        )
    return GraphInput(name, tuple(size if isinstance(size, int) else None for size in info.shape))
