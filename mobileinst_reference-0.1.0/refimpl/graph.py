"""A computation as a graph: nodes that take tensors by name and make others."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from refimpl.ops.operation import Array

T = TypeVar("T")


class Call:
    """What makes tensors of others.

    Attributes
    ----------
    inputs, outputs
        Names of tensors; "" where an optional one is absent.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def uses(self) -> tuple[str, ...]:
        """The inputs that are not absent."""
        return tuple(filter(None, self.inputs))

    def operands(self, tensors: Mapping[str, T]) -> tuple[T | None, ...]:
        """Return its inputs' values by their names, None where absent."""
        return tuple(tensors[name] if name else None for name in self.inputs)


@dataclass(frozen=True)
class Node(Call):
    """One operation on named tensors, as ONNX's NodeProto.

    Attributes
    ----------
    name
        Unique in its graph.
    op_type
        The ONNX operator's name.
    inputs, outputs
        Names of tensors; "" where an optional one is absent.
    attributes
        As Python values: int, float, str, tuples of them, arrays.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, and what they begin and end with.

    Attributes
    ----------
    nodes
    initializers
        Name → value of the tensors that no node makes and nobody feeds: weights and literals.
    inputs, outputs
        What the caller calls them → name of the tensor.
    """

    nodes: Sequence[Node]
    initializers: Mapping[str, Array] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def places(self) -> dict[str, int]:
        """Name of a tensor that a node makes → the node's place."""
        return {name: place for place, node in enumerate(self.nodes) for name in node.outputs if name}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """Name of a tensor → the nodes that use it."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.uses):
                users.setdefault(name, []).append(node)
        return users

    def producer(self, name: str) -> Node | None:
        """Return the node that makes a tensor, None for what is given."""
        return self.nodes[self.places[name]] if name in self.places else None

    def between(self, known: Container[str], targets: Iterable[str]) -> list[Node]:
        """Return the nodes, in order, that make tensors from those known and those that no node makes."""
        waiting, found = list(targets), set[int]()
        while waiting:
            place = self.places.get(waiting.pop())
            if place is not None and place not in found:
                found.add(place)
                waiting += [name for name in self.nodes[place].uses if name not in known]
        return [self.nodes[place] for place in sorted(found)]

    def dependent(self, names: Iterable[str]) -> set[str]:
        """Return these tensors and all that is computed from them."""
        found = set(names)
        for node in self.nodes:
            if not found.isdisjoint(node.uses):
                found.update(filter(None, node.outputs))
        return found
