"""What verification needs of an implementation under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from conformance.bounds.declaration import Declaration
from conformance.reports.report import Comparison
from refimpl.ops.operation import Array

if TYPE_CHECKING:
    from conformance.graph.onnx_graph import OnnxGraph
    from conformance.judge.fusions import Fusion


class Candidate(Protocol):
    """What verification needs of an implementation under test.

    What has a body here need not be written by a class that derives from this one.
    """

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""

    @property
    def captures(self) -> str:
        """What it can capture, in words."""
        return "every tensor it computes"

    @property
    def captures_all(self) -> bool:
        """Whether a tensor that it does not capture is one that it does not compute."""
        return True

    def run(self, images: Array) -> Mapping[str, Array]:
        """Return the outputs by name."""

    def capture(self, images: Array) -> Mapping[str, Array]:
        """Return every tensor that can be had by name, in topological order."""

    def judge(self, images: Array, tensors: Mapping[str, Array]) -> list[Comparison]:
        """Judge the candidate's own nodes on its own tensors; empty if it has no graph."""
        return []

    def nodes_between(self, tensor: str, known: set[str]) -> Sequence[str]:
        """Return the names of the nodes that compute ``tensor`` from ``known`` tensors."""
        return []

    def find_fusion(
        self,
        images: Array,
        captured: Mapping[str, Array],
        is_right: Callable[[Mapping[str, Array]], bool],
    ) -> Fusion | None:
        """Find what optimisation alone makes wrong; None if there is no such thing, or it cannot be found."""
        return None

    def own_graph(self, images: Array) -> tuple[OnnxGraph, Mapping[str, Array]] | None:
        """Return the ONNX graph it runs and what that is fed; None if there is none."""
        return None
