"""A recording replayed by PyTorch, eagerly and operation by operation: the peer that speed is measured
against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conformance.graph.evaluation import as_tuple, run
from refimpl import Recording, Step
from refimpl.errors import MissingDependencyError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import Array


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


def _translate(torch: Any, step: Step, recording: Recording) -> Callable[..., Any]:
    """Return PyTorch's call for one step; shapes and bounds are literals of the recording."""
    builders = _builders(torch)
    if step.operation not in builders:
        raise UnsupportedOperationError(f"{step.name}: {step.operation} is not translated to PyTorch")
    call = builders[step.operation](list(step.operands(recording.tensors)), step.attributes)
    assert callable(call)
    return call


def _builders(torch: Any) -> dict[str, Callable[[list[Array | None], dict[str, Any]], Callable[..., Any]]]:
    functional = torch.nn.functional

    def conv(_: Any, a: dict[str, Any]) -> Any:
        pads = a["pads"][: len(a["pads"]) // 2]
        return lambda x, w, b=None: functional.conv2d(x, w, b, a["strides"], pads, a["dilations"], a["group"])

    def norm(_: Any, a: dict[str, Any]) -> Any:
        return lambda x, w, b, mean, variance: functional.batch_norm(
            x, mean, variance, w, b, eps=a["epsilon"]
        )

    def pool(function: Any) -> Any:
        def build(_: Any, a: dict[str, Any]) -> Any:
            pads = tuple(a.get("pads", (0, 0, 0, 0))[:2])
            return lambda x: function(x, a["kernel_shape"], a["strides"], pads)

        return build

    def interpolate(literals: Any, a: dict[str, Any]) -> Any:
        size = tuple(int(n) for n in literals[3][2:])
        if a["mode"] == "nearest":
            return lambda x, *_: functional.interpolate(x, size, mode="nearest")
        mode = "bilinear" if len(size) == 2 else "linear"
        return lambda x, *_: functional.interpolate(x, size, mode=mode, align_corners=False)

    def clamp(literals: Any, _: Any) -> Any:
        low, high = (None if bound is None else float(bound) for bound in (*literals[1:], None, None)[:2])
        return lambda x, *_: torch.clamp(x, low, high)

    def reduce(function: Any) -> Any:
        def build(literals: Any, a: dict[str, Any]) -> Any:
            axes, keep = tuple(int(n) for n in literals[1]), bool(a.get("keepdims", 1))
            return lambda x, *_: function(x, axes, keepdim=keep)

        return build

    def shaped(function: Any) -> Any:
        return lambda literals, a: lambda x, *_: function(x, tuple(int(n) for n in literals[1]), a)

    return {
        "Conv": conv,
        "BatchNormalization": norm,
        "LayerNormalization": lambda _, a: (
            lambda x, w, b: functional.layer_norm(x, w.shape, w, b, a["epsilon"])
        ),
        "MaxPool": pool(functional.max_pool2d),
        "AveragePool": pool(functional.avg_pool2d),
        "Resize": interpolate,
        "Relu": lambda *_: functional.relu,
        "HardSigmoid": lambda *_: functional.hardsigmoid,
        "Sigmoid": lambda *_: torch.sigmoid,
        "Clip": clamp,
        "Softmax": lambda _, a: lambda x: torch.softmax(x, a["axis"]),
        "MatMul": lambda *_: torch.matmul,
        "Add": lambda *_: torch.add,
        "Mul": lambda *_: torch.mul,
        "Div": lambda *_: torch.div,
        "ReduceMean": reduce(torch.mean),
        "ReduceSum": reduce(torch.sum),
        "Concat": lambda _, a: lambda *x: torch.cat(x, a["axis"]),
        "Split": shaped(lambda x, sizes, a: torch.split(x, sizes, a["axis"])),
        "Transpose": lambda _, a: lambda x: x.permute(a["perm"]),
        "Reshape": shaped(lambda x, shape, a: x.reshape(shape)),
        "Expand": shaped(lambda x, shape, a: x.expand(shape)),
        "Unsqueeze": shaped(lambda x, axes, a: x.unsqueeze(axes[0])),
    }
