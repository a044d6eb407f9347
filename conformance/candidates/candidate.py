"""What verification needs of an implementation under test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol, Self

from conformance.bounds import Declaration
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.graph import Graph
from refimpl.model import WITH_QUERIES, Outputs, output_names
from refimpl.ops.operation import Array

OUTPUTS = tuple(field.name for field in fields(Outputs))
"""What the network gives."""
FUSION_REACH = 4
"""How many steps in a row a runtime may have fused, unless it says otherwise."""
NEEDED_OUTPUTS = ("class_logits", "objectness", "masks")
"""What inference needs of a network with queries; the others may be left inside an export."""


def needed_outputs(architecture: str) -> tuple[str, ...]:
    """Return the outputs that inference needs of a network: of one without masks of its own, all."""
    return NEEDED_OUTPUTS if architecture in WITH_QUERIES else output_names(architecture)


class Optimising(Protocol):
    """A runtime that optimises a graph before it runs it, and can be asked not to."""

    graph: OnnxGraph

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs by name."""

    def without(self, optimizers: Sequence[str]) -> Self:
        """Return the same, in which these optimisers do not run."""

    def with_graph(self, graph: OnnxGraph) -> Self:
        """Return another graph, run in the same way."""

    def unoptimized(self) -> Self:
        """Return the same, in which no optimiser runs."""

    def optimizers(self) -> list[str]:
        """Return the optimisers that change the graph."""

    def optimized(
        self, feeds: Mapping[str, Array], captured: Mapping[str, Array]
    ) -> tuple[Mapping[str, Collection[str]], Mapping[str, Array]]:
        """Return the captured tensors that the optimised graph's own nodes make, of which others, and them.

        Its own are those that are not in the graph as it is.
        """


@dataclass(frozen=True)
class OwnGraph:
    """What a candidate says it computes.

    Attributes
    ----------
    nodes
        How they depend on one another.
    graph, feeds
        The nodes as a graph that can be replayed, and what that is fed; None and nothing where only their
        names are known.
    optimising
        What can run it again without optimisers, and parts of it; None if nothing can.
    wide_float16
        Whether the runtime may hand on a float16 result before it is rounded, as one does that computes in
        float32 and leaves out casts to float16 and back.
    """

    nodes: Graph
    graph: OnnxGraph | None = None
    feeds: Mapping[str, Array] = field(default_factory=dict)
    optimising: Optimising | None = None
    wide_float16: bool = False

    def names_between(self, known: Collection[str], tensor: str) -> list[str]:
        """Return the names of the nodes, in order, that compute a tensor from known ones."""
        return [node.name for node in self.nodes.between(known, [tensor])]


class Candidate(Protocol):
    """An implementation under test, whose runs are given float32 images (B, 3, H, W).

    Beside a graph of somebody's they are given its input, or several by name, in the graph's order.

    What has a body here need not be written by a class that derives from this one.
    """

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""

    @property
    def captures_all(self) -> bool:
        """Whether a tensor that it does not capture is one that it does not compute."""
        return True

    @property
    def reruns(self) -> bool:
        """Whether it computes anew what it is given, unlike dumps of one run."""
        return True

    @property
    def fusion_reach(self) -> int:
        """How many steps in a row it may have fused: attention's scale, logits, softmax and product."""
        return FUSION_REACH

    @property
    def without_winograd(self) -> str:
        """How it is told to do without Winograd's convolutions; empty: it cannot be."""
        return ""

    @property
    def remarks(self) -> Sequence[str]:
        """What a reader of the verdict should know of its runs, after them."""
        return ()

    def run(self, images: Array) -> Mapping[str, Array]:
        """Return the outputs by name."""

    def capture(self, images: Array) -> Mapping[str, Array]:
        """Return every tensor that can be had by name, in topological order."""

    def own_graph(self, images: Array) -> OwnGraph | None:
        """Return what it says it computes, after `capture`; None if it does not tell."""
        return None
