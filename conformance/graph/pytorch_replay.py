"""A recording replayed by PyTorch, operation by operation: the peer that speed is measured against."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from conformance.graph.evaluation import as_tuple, run
from refimpl import Recording, Step
from refimpl.errors import MissingDependencyError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import OPERATIONS


class PyTorchReplay:
    """The recorded network on PyTorch's CPU operators.

    Parameters
    ----------
    recording
        A recorded forward; its weights' dtype is used.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    UnsupportedOperationError
        The recording has an operation that is not translated.
    """

    def __init__(self, recording: Recording) -> None:
        torch = import_torch()
        self.recording = recording
        self.calls = {step.name: _translate(torch, step, recording) for step in recording.steps}
        given = recording.graph.initializers
        self.fixed = {name: torch.from_numpy(np.array(array)) for name, array in given.items()}

    def __call__(self, images: Any) -> dict[str, Any]:
        """Run on a tensor of the recorded shape and return the outputs by name."""
        torch = import_torch()
        graph = self.recording.graph
        (source,) = graph.inputs.values()
        with torch.inference_mode():
            values = run(
                graph.nodes, {**self.fixed, source: images}, self.compute, keep=set(graph.outputs.values())
            )
        return {name: values[tensor] for name, tensor in graph.outputs.items()}

    def compute(self, node: Node, operands: Sequence[Any]) -> tuple[Any, ...]:
        """Return PyTorch's outputs of one recorded step."""
        return as_tuple(self.calls[node.name](*operands))


def import_torch() -> Any:
    """Return the module torch, or say which extra brings it."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "PyTorch is not installed: pip install 'mobileinst-reference[torch]'"
        ) from error
    return torch


def operators() -> Mapping[str, Callable[..., Any]]:
    """Return ONNX operator → PyTorch's function of tensors and of ONNX's attributes.

    A function raises `UnsupportedOperationError`, or TypeError, for attributes that PyTorch has no word for.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    """
    import_torch()
    from conformance.graph.pytorch_operators import OPERATORS

    return OPERATORS


def given_attributes(operation: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that are not ONNX's defaults: only those need a translation."""
    parameters = inspect.signature(OPERATIONS[operation]).parameters
    return {name: x for name, x in attributes.items() if not _equal(x, parameters[name].default)}


def _equal(value: Any, default: Any) -> bool:
    return bool(np.array_equal(value, default)) and isinstance(value, type(default))


def _translate(torch: Any, step: Step, recording: Recording) -> Callable[..., Any]:
    """Return PyTorch's call for one step; numbers and shapes are literals of the recording."""
    if step.op_type not in operators():
        raise UnsupportedOperationError(f"{step.name}: {step.op_type} is not translated to PyTorch")
    call = partial(operators()[step.op_type], **given_attributes(step.op_type, step.attributes))
    constants = {name: recording.tensors[name] for name in step.inputs if name in recording.constants}
    literals = {
        place: constants[name].tolist()
        for place, name in enumerate(step.inputs)
        if name in constants and (constants[name].ndim == 0 or constants[name].dtype.kind == "i")
    }
    return lambda *operands: call(*(literals.get(place, x) for place, x in enumerate(operands)))
