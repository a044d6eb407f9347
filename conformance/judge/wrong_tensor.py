"""Which tensor of the candidate is the wrong one, where it fuses steps: that from which the next is right."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from conformance.bounds import Declaration
from conformance.bounds.worst_element import absolute_error
from conformance.graph.evaluation import evaluate_node
from conformance.judge.alignment import RESEMBLANCE, CandidateTensors, Match
from conformance.judge.replay import Structure
from refimpl import Recording
from refimpl.ops.operation import Array

ROUNDINGS = 4096.0
"""Unit roundoffs of its largest element by which what is computed of a tensor may be off to be found."""


@dataclass(frozen=True)
class Around:
    """The reference's steps, those of the candidate's tensors that are known, laid out as they, and all.

    ``reach`` is how many steps in a row the candidate may have fused.
    """

    recording: Recording
    structure: Structure
    compared: set[str]
    declaration: Declaration
    tensors: CandidateTensors
    found: Mapping[str, Array]
    reach: int

    def explains(self, name: str, likely: Match, nearest: bool) -> bool:
        """Tell whether the candidate has what is computed of ``name``, if ``likely`` is its tensor.

        What it has first counts: of a tensor that is cut off already, cutting it off makes the same. Of many
        a tensor its ReLU is held: but of the nearest, only what weights or known tensors go into tells.
        """
        after = self.structure.within(name, self.compared, self.reach) - {name}
        known = {key: array for key, array in self.found.items() if key not in after}
        computed, telling = {name}, set[str]()
        held, right = self._computed({**known, name: likely.values}, after), None
        for step in self.recording.graph.between({*known, name}, after):
            if computed.isdisjoint(step.uses):
                continue
            computed.update(step.outputs)
            if not telling.isdisjoint(step.uses) or {*step.uses} - computed - {*self.recording.constants}:
                telling.update(step.outputs)
            for target in after.intersection(step.outputs):
                match = self._held(target, held[target])
                if match and match.name == likely.name:
                    return False
                if match and (nearest or target in telling):
                    # A softmax makes the same of much: then what the right tensor makes is as near.
                    right = right or self._computed(known, after)
                    if _error(match, held[target]) < _error(match, right[target]):
                        return True
        return False

    def _computed(self, known: Mapping[str, Array], targets: Collection[str]) -> dict[str, Array]:
        """Return what the reference computes of some tensors on the way to others."""
        recording = self.recording
        given = (*recording.weights, *recording.constants, *recording.inputs.values())
        held = {**{key: recording.tensors[key] for key in given}, **known}
        for step in recording.graph.between({*known}, targets):
            held.update(zip(step.outputs, evaluate_node(step, step.operands(held), np.float64), strict=False))
        return held

    def _held(self, target: str, value: Array) -> Match | None:
        """Return the candidate's tensor that is a value, but for some rounding."""
        declared = self.declaration
        formats = (declared.arithmetic, declared.storage, declared.weights or declared.storage)
        unit = max(each.unit_roundoff for each in formats)
        allowed = min(ROUNDINGS * unit, RESEMBLANCE) * float(np.abs(value).max(initial=0.0))
        return self.tensors.find(value, allowed, spatial=target in self.structure.maps)


def _error(match: Match, value: Array) -> float:
    return float(absolute_error(match.values, value).max(initial=0.0))
