"""The noise envelope: how far rounding alone can carry each output, by Monte-Carlo arithmetic.

Worst-case bounds explode over a hundred layers. So the reference is run again with every step's result
perturbed by a random sign times the
size that its rounding is expected to have (√n roundings instead of n; Higham & Mary 2019), and the spread is
the envelope.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conformance.bounds import Format, Runtime, introduced_bounds
from refimpl import Recording
from refimpl.ops.operation import OPERATIONS, Array

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
    sizes = _expected_roundings(recording, arithmetic, storage, runtime)
    rng = np.random.default_rng(seed)
    largest = dict.fromkeys(recording.outputs, 0.0)
    for sample in range(samples):
        outputs = _perturbed_run(recording, sizes, rng)
        for name, tensor in recording.outputs.items():
            deviation = float(np.abs(outputs[tensor] - recording.tensors[tensor]).max(initial=0.0))
            largest[name] = max(largest[name], deviation)
        progress(sample + 1, samples)
    return {name: MULTIPLE * deviation for name, deviation in largest.items()}


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
            if bound is not None and bound.any():
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
    for i, step in enumerate(recording.steps):
        operands = [None if name is None else values[name] for name in step.inputs]
        result = OPERATIONS[step.operation](*operands, **step.attributes)
        for name, value in zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=True):
            values[name] = value + _signed(sizes[name], rng) if name in sizes else value
        for used in {*step.inputs, *step.outputs} - kept:
            if used is not None and last_use.get(used, i) == i:
                values.pop(used, None)
    return values


def _signed(size: Array, rng: np.random.Generator) -> Array:
    bits = np.frombuffer(rng.bytes((size.size + 7) // 8), np.uint8)
    negative = np.unpackbits(bits, count=size.size).view(bool).reshape(size.shape)
    return np.where(negative, -size, size)
