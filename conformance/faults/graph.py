"""A computation as the faults see it: calls, what is constant, shapes, and who makes and uses each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from conformance.graph.onnx_file import Node
from conformance.graph.onnx_graph import OnnxGraph
from refimpl import Recording, Step
from refimpl.ops.operation import Array

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """Calls in topological order.

    Attributes
    ----------
    calls
    constants
        Name → value of every tensor that does not depend on the inputs: weights, literals, and what is
        computed from them.
    shapes
        Name → shape of every tensor.
    weights
        Names of the learned arrays.
    inputs, outputs
        Names of tensors.
    """

    calls: tuple[Node, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, Shape]
    weights: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of_recording(cls, recording: Recording) -> Graph:
        """Return the graph of a recorded network."""
        return cls._of(
            tuple(call_of(step) for step in recording.steps),
            recording.tensors,
            tuple(recording.weights),
            tuple(recording.inputs.values()),
            tuple(recording.outputs.values()),
        )

    @classmethod
    def of_onnx(cls, graph: OnnxGraph, tensors: Mapping[str, Array]) -> Graph:
        """Return the graph of an ONNX model of which ``tensors``, the inputs among them, are known by
        name."""
        known = {**graph.initializers, **tensors}
        learned = tuple(name for name, array in graph.initializers.items() if array.dtype.kind == "f")
        return cls._of(graph.nodes, known, learned, tuple(graph.inputs), tuple(graph.outputs))

    @classmethod
    def _of(
        cls,
        calls: tuple[Node, ...],
        tensors: Mapping[str, Array],
        weights: tuple[str, ...],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
    ) -> Graph:
        dependent = _dependent(calls, inputs)
        constants = {name: array for name, array in tensors.items() if name not in dependent}
        shapes = {name: array.shape for name, array in tensors.items()}
        return cls(calls, constants, shapes, weights, inputs, outputs)

    @cached_property
    def producers(self) -> dict[str, Node]:
        """Name of a tensor → the call that makes it."""
        return {name: call for call in self.calls for name in call.outputs if name}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """Name of a tensor → the calls that use it."""
        users: dict[str, list[Node]] = {}
        for call in self.calls:
            for name in dict.fromkeys(call.inputs):
                users.setdefault(name, []).append(call)
        return users

    @cached_property
    def order(self) -> dict[str, int]:
        """Name of a tensor that a call makes → the call's place."""
        return {name: place for place, call in enumerate(self.calls) for name in call.outputs}


def call_of(step: Step) -> Node:
    """Return a recorded step as a call; absent operands are ""."""
    inputs = tuple(name or "" for name in step.inputs)
    return Node(step.name, step.operation, inputs, step.outputs, step.attributes)


def _dependent(calls: Iterable[Node], inputs: Iterable[str]) -> set[str]:
    found = set(inputs)
    for call in calls:
        if found.intersection(call.inputs):
            found.update(call.outputs)
    return found
