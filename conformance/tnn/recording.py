"""A TNN graph written down as ONNX operations, in the words the bounds are stated in.

A layer is one operation or a few (a layer norm is a standardisation, a product and a sum). They are recorded
while `conformance.tnn.evaluation` computes them, so there is no second table of what a layer means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from conformance.bounds import BFLOAT16, FLOAT16
from conformance.graph.onnx_file import Node
from conformance.tnn.evaluation import evaluate, evaluate_layer
from conformance.tnn.graph import TnnGraph
from conformance.tnn.proto import Layer
from refimpl import Recording, Step
from refimpl.ops.operation import OPERATIONS, intercepted

Array = NDArray[Any]
R = TypeVar("R")
TRUNCATED = 2.0
"""Unit roundoffs that a constant loses where it is truncated, not rounded, to the arithmetic's format."""


class _Recorder:
    """Writes down the operations that compute a layer; arrays are told apart by their identity."""

    def __init__(self) -> None:
        self.recording = Recording()
        self._names: dict[int, str] = {}

    def name(self, array: Array, name: str) -> None:
        """Give an array the name of a blob; one that has a name already (an operand) keeps it."""
        self.recording.tensors[name] = array
        self._names.setdefault(id(array), name)

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        """Compute an operation and write it down."""
        with intercepted(None):
            result = OPERATIONS[name](*inputs, **attributes)
        outputs = result if isinstance(result, tuple) else (result,)
        if name == "Constant":
            self._fixed(result)
            return result
        place = f"{len(self.recording.steps):05d}/{name}"
        operands = tuple(None if value is None else self._fixed(value) for value in inputs)
        made = tuple(f"{place}:{index}" for index in range(len(outputs)))
        for array, tensor in zip(outputs, made, strict=True):
            self.recording.tensors[tensor] = array
            self._names[id(array)] = tensor
        self.recording.steps.append(Step(place, name, "", operands, made, dict(attributes)))
        return result

    def block(self, path: str, compute: Callable[[], R]) -> R:
        """Run a block; TNN's graphs have none."""
        return compute()

    def tensor(self, array: Array) -> str | None:
        """Return the name of the tensor that an array is, None if no operation made it."""
        return self._names.get(id(array))

    def _fixed(self, value: Any) -> str:
        """Return the name of an operand; one that nothing made is a constant."""
        if id(value) in self._names:
            return self._names[id(value)]
        array = np.asarray(value)
        name = f"constant {len(self.recording.constants)}"
        self.recording.tensors[name] = array
        self.recording.constants.append(name)
        # A scalar's or a list's identity may return with another object; an array is kept alive here.
        if array is value:
            self._names[id(array)] = name
        return name


def record_layers(
    graph: TnnGraph, chain: Sequence[Layer], operands: Mapping[str, Array]
) -> tuple[Recording, dict[str, Array]]:
    """Compute layers that ran as one, and write down the operations.

    Parameters
    ----------
    graph, chain
        The layers, each reading what the one before it makes.
    operands
        Of the first: blob → float64 array. An operand that is there twice is one blob.

    Returns
    -------
    recording, results
        The operations, and the outputs of the last layer. ``recording.outputs`` names the tensors they are.
    """
    recorder = _Recorder()
    for name, array in operands.items():
        recorder.name(array, name)
        recorder.recording.inputs[name] = name
    values = tuple(operands[name] for name in chain[0].inputs)
    # NaN and infinity are the candidate's values here like others.
    with intercepted(recorder), np.errstate(all="ignore"):
        for layer in chain:
            values = evaluate_layer(graph, layer, values)
    results = dict(zip(chain[-1].outputs, values, strict=True))
    return recorder.recording, _named_outputs(recorder, results)


def record_graph(graph: TnnGraph, inputs: Mapping[str, Array]) -> Recording:
    """Compute a whole graph in float64 and write down the operations; errors: those of `evaluate`."""
    recorder = _Recorder()
    with intercepted(recorder), np.errstate(all="ignore"):
        blobs = evaluate(graph, inputs)
    for item in graph.proto.inputs:
        recorder.name(blobs[item.name], item.name)
    recording = _renamed_inputs(recorder, {item.name: blobs[item.name] for item in graph.proto.inputs})
    _named_outputs(recorder, {name: blobs[name] for name in graph.proto.outputs})
    return recording


def _named_outputs(recorder: _Recorder, results: dict[str, Array]) -> dict[str, Array]:
    for name, array in results.items():
        tensor = recorder.tensor(array)
        if tensor is not None:
            recorder.recording.outputs[name] = tensor
    return results


def _renamed_inputs(recorder: _Recorder, inputs: Mapping[str, Array]) -> Recording:
    """Turn the constants that are the graph's inputs into inputs: what is fed was made by no operation."""
    recording = recorder.recording
    for name, array in inputs.items():
        tensor = recorder.tensor(array) or name
        recording.inputs[name] = tensor
        if tensor in recording.constants:
            recording.constants.remove(tensor)
    return recording


def with_stored_inputs(recording: Recording) -> Recording:
    """Return a recording whose inputs are first stored: a sum with zero, which rounds once."""
    inputs = {name: f"{tensor} as given" for name, tensor in recording.inputs.items()}
    tensors = dict(recording.tensors)
    steps = []
    for name, tensor in recording.inputs.items():
        tensors[inputs[name]] = tensors[tensor]
        tensors["zero"] = np.zeros(())
        steps.append(Step(f"{name}/stored", "Add", "", (inputs[name], "zero"), (tensor,), {}))
    constants = [*recording.constants, "zero"]
    return replace(
        recording, steps=steps + recording.steps, tensors=tensors, inputs=inputs, constants=constants
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


def nodes(recording: Recording) -> list[Node]:
    """Return the steps in the form of a graph's nodes."""
    return [
        Node(
            step.name,
            step.operation,
            tuple(name or "" for name in step.inputs),
            step.outputs,
            step.attributes,
        )
        for step in recording.steps
    ]
