"""The noise envelope: how far rounding alone can carry each output, by Monte-Carlo arithmetic.

Worst-case bounds explode over a hundred layers. So the reference is run again with every step's result
perturbed by a random sign times the size that its rounding is expected to have (√n roundings instead of n;
Higham & Mary 2019), and the spread is the envelope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from conformance.bounds import Format, Runtime, introduced_bounds
from conformance.onnx_file import Node
from conformance.onnx_graph import evaluate_node
from conformance.utilisation import absolute_error
from refimpl import Recording, Step
from refimpl.ops import dequantize_linear
from refimpl.ops.operation import Array

SAMPLES = 8
MULTIPLE = 4.0
"""How many times the largest deviation seen in the samples a candidate may deviate."""


def envelope(
    recording: Recording,
    arithmetic: Format,
    storage: Format,
    runtime: Runtime,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Return, for each output, the largest deviation from the reference that rounding explains.

    Parameters
    ----------
    recording
        The reference's run in float64.
    arithmetic, storage, runtime
        What the candidate is declared to compute with.
    samples, seed
        How many perturbed runs, and the seed of their signs.

    Returns
    -------
    dict
        Output → `MULTIPLE` times the largest absolute deviation of the samples.
    """
    largest = dict.fromkeys(recording.outputs, 0.0)
    runs = deviations(recording, arithmetic, storage, runtime, samples=samples, seed=seed)
    for done, sample in enumerate(runs, start=1):
        for name, deviation in sample.items():
            largest[name] = max(largest[name], float(deviation.max(initial=0.0)))
        progress(done, samples)
    return {name: MULTIPLE * deviation for name, deviation in largest.items()}


def deviations(
    recording: Recording,
    arithmetic: Format,
    storage: Format,
    runtime: Runtime,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    stored: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[dict[str, Array]]:
    """Yield, for each perturbed run, how far every element of each output is from the reference.

    Parameters
    ----------
    recording, arithmetic, storage, runtime, samples, seed
        As of `envelope`.
    stored
        Weight or constant → by how much a candidate's copy of it may be off.
    """
    sizes = _expected_roundings(recording, arithmetic, storage, runtime)
    sizes |= {name: np.full(recording.tensors[name].shape, error) for name, error in stored.items()}
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        outputs = _perturbed_run(recording, sizes, rng)
        yield {
            name: absolute_error(outputs[tensor], recording.tensors[tensor])
            for name, tensor in recording.outputs.items()
        }


def _expected_roundings(
    recording: Recording, arithmetic: Format, storage: Format, runtime: Runtime
) -> dict[str, Array]:
    sizes = {}
    for step in recording.steps:
        operands = [None if name is None else recording.tensors[name] for name in step.inputs]
        outputs = [recording.tensors[name] for name in step.outputs]
        bounds = introduced_bounds(
            step.operation,
            operands,
            step.attributes,
            outputs,
            arithmetic,
            storage,
            runtime=runtime,
            probable=True,
        )
        for name, bound in zip(step.outputs, bounds, strict=False):
            if bound is not None and recording.tensors[name].dtype.kind == "f" and bound.any():
                sizes[name] = np.where(np.isfinite(bound), bound, 0.0).astype(np.float32)
    return sizes


def _perturbed_run(
    recording: Recording, sizes: dict[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """Run the recorded steps, each result off by its expected rounding in a random direction; free what is
    used up."""
    last_use = {name: i for i, step in enumerate(recording.steps) for name in step.inputs if name is not None}
    kept = {*recording.outputs.values(), *recording.weights, *recording.constants, *recording.inputs.values()}
    values = {name: recording.tensors[name] for name in kept if name not in recording.outputs.values()}
    values |= {
        name: values[name] + _signed(sizes[name], rng) for name in sorted(sizes.keys() & values.keys())
    }
    for i, step in enumerate(recording.steps):
        operands = [None if name is None else values[name] for name in step.inputs]
        for name, value in zip(
            step.outputs, evaluate_node(node_of(step), operands, np.float64), strict=False
        ):
            values[name] = value + _signed(sizes[name], rng) if name in sizes else value
        if step.operation == "QuantizeLinear":
            values[step.outputs[0]] = _with_a_flip(values[step.outputs[0]], operands, step, rng)
        for used in {*step.inputs, *step.outputs} - kept:
            if used is not None and last_use.get(used, i) == i:
                values.pop(used, None)
    return values


def _with_a_flip(quantised: Array, operands: Sequence[Any], step: Step, rng: np.random.Generator) -> Array:
    """Move one of the values nearest to a tie to its neighbour: it happens too seldom to be met by chance."""
    x, scale, *zero_points = operands[:3]
    point = zero_points[0].astype(np.int32) if zero_points and zero_points[0] is not None else None
    places = {key: step.attributes[key] for key in ("axis", "block_size") if key in step.attributes}
    restored, above = (
        dequantize_linear(quantised.astype(np.int32) + move, scale, point, **places) for move in (0, 1)
    )
    residual = ((x - restored) / (above - restored)).ravel()
    distance = np.where(np.abs(residual) <= 0.5, 0.5 - np.abs(residual), np.inf)
    nearest = np.argsort(distance)[:SAMPLES]
    place = nearest[rng.integers(len(nearest))] if len(nearest) else 0
    flipped = quantised.copy()
    if len(nearest) and np.isfinite(distance[place]):
        limits = np.iinfo(quantised.dtype)
        moved = int(flipped.flat[place]) + (1 if residual[place] > 0 else -1)
        flipped.flat[place] = min(max(moved, limits.min), limits.max)
    return flipped


def node_of(step: Step) -> Node:
    """Return a recorded step in the form of a graph's node."""
    return Node(
        step.name, step.operation, tuple(name or "" for name in step.inputs), step.outputs, step.attributes
    )


def _signed(size: Array, rng: np.random.Generator) -> Array:
    bits = np.frombuffer(rng.bytes((size.size + 7) // 8), np.uint8)
    negative = np.unpackbits(bits, count=size.size).view(bool).reshape(size.shape)
    return np.where(negative, -size, size)
