"""The noise envelope: how far rounding alone can carry each output, by Monte-Carlo arithmetic.

Worst-case bounds explode over a hundred layers. So the reference is run again with every step's result
perturbed by a random sign times the size that its rounding is expected to have (√n roundings instead of n;
Higham & Mary 2019), and the spread is the envelope.

A convolution whose only use is a batch norm, which is linear, is run with the batch norm folded into it.
Their two perturbations are then one of the same variance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from conformance.bounds import Format, Runtime, introduced_bounds
from conformance.bounds.worst_element import absolute_error
from conformance.graph.onnx_file import Node
from conformance.graph.onnx_graph import evaluate_node
from conformance.threads import in_threads
from refimpl import Recording, Step
from refimpl.ops import dequantize_linear
from refimpl.ops.operation import Array

SAMPLES = 8
MULTIPLE = 4.0
"""How many times the largest deviation seen in the samples a candidate may deviate."""

SIGNS = 1 << 22
"""Random signs that are drawn for an envelope; each result takes a run of them that begins anywhere."""

AT_ONCE = 1 << 15
"""Elements that are perturbed at once: what stays in the cache."""


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
    run = _folded(recording, sizes)
    first, *seeds = np.random.SeedSequence(seed).spawn(samples + 1)
    signs = _signs(np.random.default_rng(first))

    def deviation(each: np.random.SeedSequence) -> dict[str, Array]:
        outputs = _perturbed_run(run, signs, np.random.default_rng(each))
        return {
            name: absolute_error(outputs[tensor], recording.tensors[tensor])
            for name, tensor in recording.outputs.items()
        }

    yield from in_threads(deviation, seeds)


def _signs(rng: np.random.Generator) -> Array:
    """Return random signs, float32."""
    return np.where(rng.integers(0, 2, SIGNS, np.uint8), np.float32(1), np.float32(-1))


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
                sizes[name] = _finite(bound).astype(np.float32)
    return sizes


@dataclass(frozen=True)
class _Run:
    """What a perturbed run computes: steps, the tensors that no step makes, the sizes of perturbations."""

    steps: list[Step]
    fixed: dict[str, Array]
    sizes: dict[str, Array]
    outputs: set[str]


def _folded(recording: Recording, sizes: dict[str, Array]) -> _Run:
    """Return the recorded run, every batch norm folded into the convolution of which it is the only use,
    unless copies of their weights may be off."""
    uses = Counter(name for step in recording.steps for name in step.inputs)
    uses.update(recording.outputs.values())
    fixed = {
        name: recording.tensors[name]
        for name in (*recording.weights, *recording.constants, *recording.inputs.values())
    }
    run = _Run([], fixed, sizes, set(recording.outputs.values()))
    exact = fixed.keys() - sizes.keys()
    places: dict[str | None, int] = {}
    for step in recording.steps:
        place = places.get(step.inputs[0]) if step.operation == "BatchNormalization" else None
        if place is not None and uses[step.inputs[0]] == 1 and exact >= set(step.inputs[1:]):
            run.steps[place] = _with_norm(run, run.steps[place], step)
            continue
        if step.operation == "Conv" and exact >= {name for name in step.inputs[1:] if name}:
            places[step.outputs[0]] = len(run.steps)
        run.steps.append(step)
    return run


def _with_norm(run: _Run, convolution: Step, norm: Step) -> Step:
    """Return the convolution that makes the batch norm's result; its weights and its size join the run's."""
    scale, shift, mean, variance = (run.fixed[name or ""] for name in norm.inputs[1:5])
    factor = scale / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
    weight, *biases = (run.fixed[name] for name in convolution.inputs[1:] if name)
    names = (f"{norm.name}/weight", f"{norm.name}/bias")
    run.fixed[names[0]] = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    run.fixed[names[1]] = shift + (sum(biases) - mean) * factor
    given, made = run.sizes.pop(convolution.outputs[0], None), run.sizes.get(norm.outputs[0])
    if given is not None:
        given *= np.abs(factor).astype(np.float32).reshape(-1, *(1,) * (weight.ndim - 2))
        run.sizes[norm.outputs[0]] = given if made is None else _joined(given, made)
    return replace(convolution, inputs=(convolution.inputs[0], *names), outputs=norm.outputs)


def _joined(first: Array, second: Array) -> Array:
    """Return the size of the sum of two independent perturbations; where squares underflow, the larger."""
    larger = np.maximum(first, second)
    np.square(first, out=first)
    first += np.square(second)
    return np.maximum(np.sqrt(first, out=first), larger, out=larger)


def _finite(bound: Array) -> Array:
    return bound if np.isfinite(bound.max(initial=0.0)) else np.where(np.isfinite(bound), bound, 0.0)


def _perturbed_run(run: _Run, signs: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Run the steps, each result off by its expected rounding in a random direction; free what is used up."""
    last_use = {name: i for i, step in enumerate(run.steps) for name in step.inputs if name is not None}
    values = dict(run.fixed)
    for name in sorted(run.sizes.keys() & values.keys()):
        values[name] = values[name].copy(order="C")
        _perturb(values[name], run.sizes[name], signs, int(rng.integers(SIGNS)))
    for i, step in enumerate(run.steps):
        operands = [None if name is None else values[name] for name in step.inputs]
        for name, value in zip(
            step.outputs, evaluate_node(node_of(step), operands, np.float64), strict=False
        ):
            if name in run.sizes:
                value = _own(value, operands)
                _perturb(value, run.sizes[name], signs, int(rng.integers(SIGNS)))
            values[name] = value
        if step.operation == "QuantizeLinear":
            values[step.outputs[0]] = _with_a_flip(values[step.outputs[0]], operands, step, rng)
        for used in {*step.inputs, *step.outputs} - run.outputs - run.fixed.keys():
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


def _own(value: Array, operands: Sequence[Any]) -> Array:
    """Return the value in contiguous memory that no operand shares."""
    shared = any(x is not None and np.may_share_memory(value, x) for x in operands)
    ready = value.flags.c_contiguous and value.flags.writeable and not shared
    return value if ready else value.copy(order="C")


def _perturb(value: Array, size: Array, signs: Array, first: int) -> None:
    """Add ±size to every element, with the signs from the ``first`` on, and from the beginning again."""
    flat, sizes = value.reshape(-1), size.reshape(-1)
    begin = 0
    while begin < flat.size:
        count = min(AT_ONCE, flat.size - begin, signs.size - first)
        flat[begin : begin + count] += sizes[begin : begin + count] * signs[first : first + count]
        begin, first = begin + count, (first + count) % signs.size
