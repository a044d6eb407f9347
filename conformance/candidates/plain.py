"""Candidates without a graph of their own: a Python callable, and the NumPy network in another precision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, FLOAT64, Declaration, Format
from conformance.candidates.arrays import Given, attempted, operands_of
from conformance.candidates.candidate import Candidate, OwnGraph
from refimpl import MobileInstConfig, Network, record
from refimpl.graph import Graph, Node
from refimpl.ops.operation import OPERATIONS, Array


class GraphlessCandidate(Candidate):
    """What all candidates share whose nodes nobody can replay: only the first question is asked of them.

    Attributes
    ----------
    declaration
        The arithmetic it is judged by.
    sources
        Tensor → tensors it was computed from, where known.
    """

    declaration = Declaration()
    captures_all = False

    def __init__(self, declaration: Declaration | None = None) -> None:
        self.declaration = declaration or Declaration()
        self.sources: dict[str, tuple[str, ...]] = {}

    @abstractmethod
    def run(self, images: Given) -> Mapping[str, Array]:
        """Return the outputs by name."""

    def capture(self, images: Given) -> Mapping[str, Array]:
        """Return every tensor that can be had by name: the outputs, unless a subclass has more."""
        return self.run(images)

    def own_graph(self, images: Given) -> OwnGraph:
        """Return which tensor was computed from which, each as a node of its own name."""
        return OwnGraph(Graph([Node(name, "", listed, (name,)) for name, listed in self.sources.items()]))


class PythonCandidate(GraphlessCandidate):
    """A callable that takes images, or the inputs of a graph, and returns arrays.

    Parameters
    ----------
    function
        Takes float32 (B, 3, H, W), or a graph's inputs one after another; returns a mapping, an object with
        ``items()`` or fields, or a sequence of arrays.
    capture
        Returns more tensors by name, if there is such a function.
    declaration
        The arithmetic it is judged by.
    """

    def __init__(
        self,
        function: Callable[[Array], Any],
        capture: Callable[[Array], Any] | None = None,
        declaration: Declaration | None = None,
    ) -> None:
        super().__init__(declaration)
        self.function = function
        self.more = capture

    def run(self, images: Given) -> dict[str, Array]:
        """Call the function."""
        return attempted(lambda given: self.function(*operands_of(given)), images)

    def capture(self, images: Given) -> dict[str, Array]:
        """Call the capturing function, or else the function."""
        function = self.more or self.function
        return attempted(lambda given: function(*operands_of(given)), images)


class NumpyCandidate(GraphlessCandidate):
    """The NumPy network itself, computing in float32 or float64 and storing every tensor in a format.

    Parameters
    ----------
    config, weights
        The network.
    storage
        The format every result is rounded to; float32 arithmetic, unless it is float64.
    """

    captures_all = True

    def __init__(
        self, config: MobileInstConfig, weights: Mapping[str, Array], storage: Format = FLOAT32
    ) -> None:
        super().__init__(Declaration(FLOAT64 if storage == FLOAT64 else FLOAT32, storage))
        self.storage = storage
        self.dtype = np.dtype(self.declaration.arithmetic.name)
        rounded = {name: self._rounded(np.asarray(array)) for name, array in weights.items()}
        self.network = Network(config, rounded)

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs."""
        return self._tensors(*operands_of(images))[0]

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every tensor."""
        return self._tensors(*operands_of(images))[1]

    def _tensors(self, images: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        operations = {name: self._rounding(function) for name, function in OPERATIONS.items()}
        recording = record(self.network, self._rounded(images), operations=operations)
        self.sources = {
            name: tuple(source for source in step.inputs if source) for step, name in recording.results()
        }
        outputs = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
        return outputs, {name: recording.tensors[name] for _, name in recording.results()}

    def _rounding(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*operands: Any, **attributes: Any) -> Any:
            result = function(*operands, **attributes)
            if isinstance(result, tuple):
                return tuple(self._rounded(array) for array in result)
            return self._rounded(result)

        return call

    def _rounded(self, array: Array) -> Array:
        if array.dtype.kind != "f":
            return array
        if self.storage in (FLOAT32, FLOAT64):
            return array.astype(self.dtype, copy=False)
        return self.storage.rounded(array.astype(np.float64)).astype(self.dtype)
