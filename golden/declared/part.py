"""A declared part of the network as a golden: its weights are inputs, its named tensors are outputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, Format
from golden.case import Bounds, Case, Confirmation, Golden, halves
from golden.computation import chain_bounds, kept, noise_bounds, of_recording, serialised
from golden.sources.comparison import confirmed
from golden.sources.source import confirm_with_pytorch, module_results, module_source
from refimpl import Recording, record
from refimpl.errors import VerificationError
from refimpl.ops.operation import OPERATIONS, Array, intercepted
from refimpl.predictions import NamedOutputs
from refimpl.scope import DeclaringScope, Scope

Compute = Callable[[Array, Scope], Any]


@dataclass(frozen=True)
class Part:
    """A declared part of the network.

    Attributes
    ----------
    name
    function
        Importable name of what computes it.
    shape
        Of its input ``x``.
    compute
        From input and weights; what it asks of its scope becomes a further input of the golden.
    every_tensor
        Whether the results of all blocks in it are outputs too.
    """

    name: str
    function: str
    shape: tuple[int, ...]
    compute: Compute
    shows: str
    covers: tuple[str, ...] = ()
    every_tensor: bool = False
    scale: float = 1.0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of input and weights."""
        return zlib.crc32(self.name.encode())

    @cached_property
    def fed(self) -> tuple[Array, dict[str, Array]]:
        """Input and weights, float32."""
        rng = np.random.default_rng(self.seed)
        shapes: dict[str, tuple[int, ...]] = {}
        with intercepted(None):
            self.compute(np.zeros(self.shape, np.float32), DeclaringScope(shapes))
        x = halves(rng.normal(size=self.shape) * self.scale)
        weights = {name: _initial(name, shape, rng) for name, shape in shapes.items()}
        wide = {name: array.astype(np.float64) for name, array in weights.items()}
        with intercepted(_Calibration()):
            self.compute(x.astype(np.float64), Scope(wide))
        return x, {name: halves(array) for name, array in wide.items()}

    def recording(self, dtype: type) -> Recording:
        """Record it on the golden's input; the tensors of interest are its outputs."""
        x, weights = self.fed
        # A recording takes its dtype from a weight; a part without any has one that it does not use.
        own: dict[str, Array] = {
            name: array.astype(dtype) for name, array in (weights or {"none": np.zeros(1)}).items()
        }
        recording = record(_Model(self.compute, own), x.astype(dtype), input_name="x")
        return replace(recording, outputs=self._outputs(recording))

    def _outputs(self, recording: Recording) -> dict[str, str]:
        """Return label → tensor in the order of computation; a tensor of two names has the first."""
        named = dict(recording.outputs)
        if self.every_tensor:
            fusable = _before_norm(recording)
            named |= {
                path: tensor
                for path, tensor in recording.blocks.items()
                if path not in named and tensor not in fusable
            }
        labels: dict[str, str] = {}
        for label, tensor in named.items():
            labels.setdefault(tensor, label)
        computed = [tensor for _, tensor in recording.results()]
        return {labels[tensor]: tensor for tensor in computed if tensor in labels}

    def case(self) -> Case:
        """Compute the golden."""
        recording = self.recording(np.float64)
        computation = of_recording(recording, recording.outputs)
        truth = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
        x, weights = self.fed

        def bounds(form: Format) -> Bounds:
            noise = noise_bounds(recording, recording.outputs, form)
            chain = chain_bounds(computation, recording.constants, form)
            return kept({name: np.minimum(bound, chain[name]) for name, bound in noise.items()})

        def confirm() -> list[Confirmation]:
            allowed = bounds(FLOAT32)
            return [self._confirmed(recording, allowed), *confirm_with_pytorch(computation, truth, allowed)]

        return Case(
            {"x": x, **weights},
            truth,
            bounds,
            confirm,
            lambda: serialised(self.recording(np.float32), self.name.rpartition("/")[2]),
        )

    def _confirmed(self, recording: Recording, bounds: Bounds) -> Confirmation:
        """Compare with a module that shares no code with the reference, every output and every path.

        Raises
        ------
        VerificationError
            They disagree, or the module has no tensor of some output.
        """
        found = module_results(self.name, *self.fed)
        paths = {**recording.blocks, **recording.outputs}
        labels = {tensor: name for name, tensor in recording.outputs.items()}
        known = {path: labels[paths[path]] for path in found if paths.get(path) in labels}
        unseen = set(labels.values()) - set(known.values())
        if unseen:
            raise VerificationError(f"the independent module has no tensor for {sorted(unseen)}")
        truth = {path: recording.tensors[paths[path]] for path in known}
        allowed = {path: bounds[name] for path, name in known.items() if name in bounds}
        return confirmed(module_source(), found, truth, allowed)

    def golden(self) -> Golden:
        """Return the entry of the list."""
        kind = "model" if self.name.startswith("models/") else "block"
        arguments = {"input": list(self.shape), **self.arguments}
        return Golden(
            self.name, kind, self.function, arguments, self.seed, self.shows, self.case, self.covers
        )


def _before_norm(recording: Recording) -> set[str]:
    """Return the convolutions that a batch norm follows: a candidate that folds it has no such tensor."""
    return {step.inputs[0] for step in recording.steps if step.operation == "BatchNormalization"}


@dataclass(frozen=True)
class _Model:
    """What `record` takes: weights, and a call."""

    compute: Compute
    weights: Mapping[str, Array]

    def __call__(self, images: Array) -> Any:
        result = self.compute(images, Scope(self.weights))
        if isinstance(result, NamedOutputs):
            return result
        if isinstance(result, tuple):
            return {f"output{i}": part for i, part in enumerate(result)}
        return {"output": result}


class _Calibration:
    """An interceptor that fits each batch norm to what it is given, so that depth does no harm."""

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        if name == "BatchNormalization":
            x, _, _, mean, variance = inputs
            # Over few positions all is mean: taking half of it away leaves digits to compare.
            mean[...] = halves(x.mean(axis=(0, 2, 3)) / 2)
            # A channel that hardly varies over a few positions must not be blown up.
            variance[...] = halves(np.maximum(x.var(axis=(0, 2, 3)), np.mean(x * x)))
        return OPERATIONS[name](*inputs, **attributes)

    def block(self, path: str, compute: Callable[[], Any]) -> Any:
        return compute()


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """He-scaled weights; scales around one, biases around zero."""
    if len(shape) == 1 and name.endswith(("weight", "running_var")):
        # Small queries, keys and residual branches keep the error from growing from block to block.
        small = any(part in name for part in (".to_q.", ".to_k.", ".proj.1.", ".fc2.", ".conv.4."))
        return halves(rng.uniform(0.8, 1.2, shape) * (0.4 if small and name.endswith("weight") else 1.0))
    if len(shape) == 1:
        return halves(0.1 * rng.normal(size=shape))
    if len(shape) == 2 and name.endswith("weight"):
        return halves(rng.normal(size=shape) * np.sqrt(1 / shape[1]))
    if len(shape) == 4 and name.endswith("weight"):
        gain = 1.0 if name.startswith(("encoder", "decoder.mask_branch.proj")) else 2.0
        return halves(rng.normal(size=shape) * np.sqrt(gain / np.prod(shape[1:])))
    return halves(rng.normal(size=shape))
