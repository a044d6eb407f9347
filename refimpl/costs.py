"""What each recorded step costs: parameters, and multiply–accumulates counted as the paper counts its FLOPs.

Convolutions, linear layers and matrix products count; everything else is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from refimpl.recording import Recording, Step


@dataclass(frozen=True)
class StepCost:
    """One line of the layer table.

    Attributes
    ----------
    step
        The recorded operation.
    input_shapes, output_shape
        Shapes of its tensors; of several outputs, the first's.
    parameters
        Elements of the weights it is the first to use.
    macs
        Multiply–accumulates, for the batch recorded.
    """

    step: Step
    input_shapes: tuple[tuple[int, ...] | None, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


def step_costs(recording: Recording) -> list[StepCost]:
    """Return the cost of every step, in order."""
    shapes = {name: array.shape for name, array in recording.tensors.items()}
    unused = set(recording.weights)
    costs = []
    for step in recording.steps:
        weights = unused.intersection(step.inputs)
        unused -= weights
        inputs = tuple(None if name is None else shapes[name] for name in step.inputs)
        output = shapes[step.outputs[0]]
        parameters = sum(math.prod(shapes[name]) for name in weights)
        costs.append(StepCost(step, inputs, output, parameters, multiply_accumulates(step, inputs, output)))
    return costs


def multiply_accumulates(
    step: Step, inputs: tuple[tuple[int, ...] | None, ...], output: tuple[int, ...]
) -> int:
    """Return the products a step sums up: outputs times the length of each one's sum; 0 for other operations."""
    if step.operation == "Conv":
        assert inputs[1] is not None
        return math.prod(output) * math.prod(inputs[1][1:])
    if step.operation == "MatMul":
        assert inputs[0] is not None
        return math.prod(output) * inputs[0][-1]
    if step.operation == "Gemm":
        assert inputs[0] is not None
        return math.prod(output) * inputs[0][0 if step.attributes.get("transA") else 1]
    if step.operation == "Einsum":
        return _einsum_products(step.attributes["equation"], inputs)
    return 0


def _einsum_products(equation: str, inputs: tuple[tuple[int, ...] | None, ...]) -> int:
    labels = equation.split("->")[0].replace(" ", "").split(",")
    sizes = {
        label: size
        for names, shape in zip(labels, inputs, strict=True)
        for label, size in zip(names, shape or (), strict=True)
    }
    return math.prod(sizes.values())
