"""What a recording costs: parameters, multiply–accumulates (the paper's FLOPs), memory, time on a roofline.

Only convolutions, linear layers and matrix products count as multiply–accumulates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from refimpl.blank import BLANK
from refimpl.config import MobileInstConfig
from refimpl.errors import ConfigurationError
from refimpl.model import Network, parameter_shapes
from refimpl.ops import Trait, having
from refimpl.recording import Recording, Step, record

VIEWS = having(Trait.VIEWS)
"""Operations that give another shape to the memory they are given."""


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
        Elements of the weights it is the first to use, but for batch norms' running statistics.
    macs
        Multiply–accumulates, for the batch recorded.
    bytes_moved
        Size of what it reads and writes, each tensor once; 0 for a view.
    """

    step: Step
    input_shapes: tuple[tuple[int, ...] | None, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    bytes_moved: int

    @property
    def stage(self) -> str:
        """The part of the network it belongs to: ``backbone``, ``mask_decoder``, …"""
        return self.step.block.partition(".")[0]


def record_shapes(config: MobileInstConfig, height: int, width: int) -> Recording:
    """Record the network of float32 zeros on one blank picture: enough wherever only shapes matter."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    images = np.zeros((1, 3, height, width), np.float32)
    return record(Network(config, weights), images, operations=BLANK)


def step_costs(recording: Recording) -> list[StepCost]:
    """Return the cost of every step, in order."""
    shapes = {name: array.shape for name, array in recording.tensors.items()}
    unused = set(recording.weights)
    costs = []
    for step in recording.steps:
        weights = unused.intersection(step.inputs)
        unused -= weights
        inputs = step.operands(shapes)
        output = shapes[step.outputs[0]]
        parameters = sum(math.prod(shapes[name]) for name in weights if ".running_" not in name)
        macs = multiply_accumulates(step, inputs, output)
        costs.append(StepCost(step, inputs, output, parameters, macs, _bytes_moved(step, recording)))
    return costs


@dataclass(frozen=True)
class StageCost:
    """Parameters, multiply–accumulates and bytes moved of one part of the network."""

    stage: str
    parameters: int
    macs: int
    bytes_moved: int


def stage_costs(costs: list[StepCost]) -> list[StageCost]:
    """Sum the steps of each stage, in the order in which the stages begin."""
    groups: dict[str, list[StepCost]] = {}
    for cost in costs:
        groups.setdefault(cost.stage, []).append(cost)
    return [
        StageCost(
            stage,
            sum(cost.parameters for cost in group),
            sum(cost.macs for cost in group),
            sum(cost.bytes_moved for cost in group),
        )
        for stage, group in groups.items()
    ]


def multiply_accumulates(
    step: Step, inputs: tuple[tuple[int, ...] | None, ...], output: tuple[int, ...]
) -> int:
    """Return the products a step sums up: outputs times the length of each sum; 0 for other operations."""
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
    """Return how many products the sum has; axes of an ellipsis are counted from the right."""
    terms = equation.split("->")[0].replace(" ", "").split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        lengths = shape or ()
        for label, length in zip(_labels(term, len(lengths)), lengths, strict=True):
            sizes[label] = max(length, sizes.get(label, 1))
    return math.prod(sizes.values())


def _labels(term: str, rank: int) -> list[str]:
    """Return a label for each axis of an operand."""
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *(f"...{place}" for place in range(hidden, 0, -1)), *after]


def _bytes_moved(step: Step, recording: Recording) -> int:
    if step.operation in VIEWS:
        return 0
    return sum(recording.tensors[name].nbytes for name in {*step.uses, *step.outputs})


# Memory.


@dataclass(frozen=True)
class PeakMemory:
    """The most that the activations occupy at once, and the step during which they do."""

    bytes: int
    step: str


def peak_activation_memory(recording: Recording) -> PeakMemory:
    """Return the most memory that live activations need, each from its making to its last use.

    The images and what is computed from them count, in the recording's dtype; weights and what is computed
    from weights alone do not. A view shares its source's memory; nothing is computed in place; outputs live
    to the end.
    """
    owners = _owners(recording)
    last_use = {owners[name]: i for i, name in _uses(recording) if name in owners}
    live = {name: recording.tensors[name].nbytes for name in recording.inputs.values()}
    peak = PeakMemory(sum(live.values()), "")
    for i, step in enumerate(recording.steps):
        made = (name for name in step.outputs if owners.get(name) == name)
        live.update({name: recording.tensors[name].nbytes for name in made})
        peak = max(peak, PeakMemory(sum(live.values()), step.name), key=lambda found: found.bytes)
        live = {name: size for name, size in live.items() if last_use.get(name, -1) > i}
    return peak


def _owners(recording: Recording) -> dict[str, str]:
    """Return, for every tensor computed from the images, the tensor whose memory it is in."""
    owners = {name: name for name in recording.inputs.values()}
    for step in recording.steps:
        sources = [owners[name] for name in step.inputs if name in owners]
        for name in step.outputs:
            if sources:
                owners[name] = sources[0] if step.operation in VIEWS else name
    return owners


def _uses(recording: Recording) -> Iterator[tuple[int, str]]:
    for i, step in enumerate(recording.steps):
        yield from ((i, name) for name in (*step.uses, *step.outputs))
    yield from ((len(recording.steps), name) for name in recording.outputs.values())


# Time.


@dataclass(frozen=True)
class Roofline:
    """A machine by its two limits (Williams et al., CACM 2009).

    Attributes
    ----------
    gflops
        10⁹ floating-point operations per second; a multiply–accumulate is two.
    gbps
        10⁹ bytes per second to and from memory.

    Raises
    ------
    ConfigurationError
        A limit that is not a positive number.
    """

    gflops: float
    gbps: float

    def __post_init__(self) -> None:
        for name in ("gflops", "gbps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name} is {value}; expected a positive number")

    def seconds(self, cost: StepCost) -> float:
        """Return the least time a step can take: that of its arithmetic or that of its memory."""
        return max(self.arithmetic_seconds(cost), self.memory_seconds(cost))

    def arithmetic_seconds(self, cost: StepCost) -> float:
        """Return the time of its multiply–accumulates alone."""
        return 2 * cost.macs / (1e9 * self.gflops)

    def memory_seconds(self, cost: StepCost) -> float:
        """Return the time of its reading and writing alone."""
        return cost.bytes_moved / (1e9 * self.gbps)
