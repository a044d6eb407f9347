"""What lies between two sets of tensors of a computation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


class Named(Protocol):
    """A node of any computation, as far as this page looks at it."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def inputs(self) -> Sequence[str]:
        """The tensors it is computed from; an empty name stands for none."""

    @property
    def outputs(self) -> Sequence[str]:
        """The tensors it computes."""


@dataclass(frozen=True)
class NamedNode:
    """A node of which nothing else is known."""

    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def nodes_between(nodes: Sequence[Named], tensor: str, known: Collection[str]) -> list[str]:
    """Return the names of the nodes, in order, that compute ``tensor`` from ``known`` tensors."""
    producers = {name: node for node in nodes for name in node.outputs if name}
    waiting, found = [tensor], set()
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += [name for name in node.inputs if name not in known]
    return [node.name for node in nodes if node.name in found]
