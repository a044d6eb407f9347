"""A TNN graph written down as ONNX operations, in the words the bounds are stated in.

A layer is one operation or a few (a layer norm is a standardisation, a product and a sum). They are recorded
while `conformance.tnn.evaluation` computes them, so there is no second table of what a layer means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.bounds import BFLOAT16, FLOAT16, Format
from conformance.tnn.evaluation import checked_inputs, evaluate_layer, evaluate_layers
from conformance.tnn.graph import TnnGraph
from conformance.tnn.proto import Layer
from refimpl import Recording, Step
from refimpl.recording import record_call

Array = NDArray[Any]
TRUNCATED = 2.0
"""Unit roundoffs that a constant loses where it is truncated, not rounded, to the arithmetic's format."""


def record_layers(graph: TnnGraph, chain: Sequence[Layer], operands: Mapping[str, Array]) -> Recording:
    """Compute layers that ran as one, and write down the operations; its outputs are those of the last layer.

    Parameters
    ----------
    graph, chain
        The layers, each reading what the one before it makes.
    operands
        Of the first: blob → float64 array. An operand that is there twice is one blob.
    """

    def compute(blobs: dict[str, Array]) -> dict[str, Array]:
        values = tuple(blobs[name] for name in chain[0].inputs)
        for layer in chain:
            values = evaluate_layer(graph, layer, values)
        return dict(zip(chain[-1].outputs, values, strict=True))

    # NaN and infinity are the candidate's values here like others.
    with np.errstate(all="ignore"):
        return record_call(compute, operands)


def record_graph(graph: TnnGraph, inputs: Mapping[str, Array]) -> Recording:
    """Compute a whole graph in float64 and write down the operations; errors: those of `evaluate`."""

    def compute(blobs: dict[str, Array]) -> dict[str, Array]:
        made = evaluate_layers(graph, blobs, np.float64)
        return {name: made[name] for name in graph.proto.outputs}

    with np.errstate(all="ignore"):
        return record_call(compute, checked_inputs(graph, inputs, np.float64))


def with_stored_inputs(recording: Recording, storage: Format) -> Recording:
    """Return a recording whose inputs are first stored: a sum with zero, which rounds once.

    Not so those that the format holds exactly.
    """
    inputs, tensors = dict(recording.inputs), dict(recording.tensors)
    steps = []
    for name, tensor in recording.inputs.items():
        if not np.array_equal(storage.rounded(tensors[tensor]), tensors[tensor], equal_nan=True):
            inputs[name] = f"{tensor} as given"
            tensors[inputs[name]] = tensors[tensor]
            tensors["zero"] = np.zeros(())
            steps.append(Step(f"{name}/stored", "Add", (inputs[name], "zero"), (tensor,)))
    constants = [*recording.constants, *(("zero",) if steps else ())]
    return replace(
        recording, steps=[*steps, *recording.steps], tensors=tensors, inputs=inputs, constants=constants
    )


def stored_errors(recording: Recording, unit_roundoff: float) -> dict[str, Array]:
    """Return how far a half-precision runtime's copies of the constants may be off: they are truncated."""
    errors = {}
    for name in recording.constants:
        array = recording.tensors[name]
        if array.dtype.kind == "f":
            exact = (FLOAT16.rounded(array) == array) & (BFLOAT16.rounded(array) == array)
            errors[name] = np.where(exact, 0.0, TRUNCATED * unit_roundoff * np.abs(array))
    return {name: error for name, error in errors.items() if error.any()}
