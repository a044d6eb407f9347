"""Replaying the reference step by step on a candidate's own tensors, in float64 and, to see what rounding does, in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from refimpl import Recording, Step
from refimpl.ops.operation import OPERATIONS, Array

DATA_MOVEMENT = frozenset("Reshape Transpose Expand Unsqueeze Squeeze Split Slice Gather Identity Concat Cast".split())
"""Operations whose results a candidate need not hold as tensors of their own."""


class Structure:
    """Who computes and who uses each tensor of a recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.producers = {name: step for step, name in recording.results()}
        self.consumers: dict[str, list[Step]] = {}
        for step in recording.steps:
            for name in set(step.inputs):
                if name is not None:
                    self.consumers.setdefault(name, []).append(step)

    def compared(self, outputs: Iterable[str]) -> set[str]:
        """Return the tensors that a candidate with these outputs should hold.

        Left out: what does not depend on the images, what only moves data, and a convolution before its batch norm.
        """
        dependent = set(self.recording.inputs.values())
        needed = self._ancestors([self.recording.outputs[name] for name in outputs])
        names = set()
        for step, name in self.recording.results():
            if dependent.intersection(step.inputs):
                dependent.add(name)
                if name in needed and step.operation not in DATA_MOVEMENT and not self._before_norm(name):
                    names.add(name)
        return names

    def _ancestors(self, waiting: list[str]) -> set[str]:
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in found and name in self.producers:
                found.add(name)
                waiting += [source for source in self.producers[name].inputs if source is not None]
        return found

    def _before_norm(self, name: str) -> bool:
        return any(step.operation == "BatchNormalization" for step in self.consumers.get(name, []))

    def soon_found(self, name: str, found: Mapping[str, object], compared: set[str], reach: int) -> bool:
        """Tell whether a tensor computed from ``name`` through fewer than ``reach`` other compared ones is among those found."""
        front = {name}
        for _ in range(reach):
            front = self._next_compared(front, compared)
            if any(tensor in found for tensor in front):
                return True
        return False

    def _next_compared(self, front: set[str], compared: set[str]) -> set[str]:
        reached, waiting, seen = set(), list(front), set(front)
        while waiting:
            for step in self.consumers.get(waiting.pop(), []):
                fresh = set(step.outputs) - seen
                seen |= fresh
                reached |= fresh & compared
                waiting += fresh - compared
        return reached


class Replay:
    """A forward pass in lockstep in float64 and float32 that takes over a candidate's tensors where they are known.

    After `adopt`, the steps that follow compute on the candidate's values: their difference from what the candidate has is the
    error it introduced there, and the difference between the two precisions is what rounding alone does.
    """

    def __init__(self, recording: Recording) -> None:
        fixed = [*recording.inputs.values(), *recording.weights, *recording.constants]
        self.wide = {name: recording.tensors[name] for name in fixed}
        self.narrow = {name: _narrowed(array) for name, array in self.wide.items()}

    def compute(self, step: Step) -> None:
        """Compute one step in both precisions."""
        for values in (self.wide, self.narrow):
            operands = [None if name is None else values[name] for name in step.inputs]
            result = OPERATIONS[step.operation](*operands, **step.attributes)
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=True))

    def adopt(self, name: str, values: Array) -> None:
        """Continue with the candidate's values of a tensor."""
        self.wide[name] = values.astype(np.float64)
        self.narrow[name] = values.astype(np.float32)


def _narrowed(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array
