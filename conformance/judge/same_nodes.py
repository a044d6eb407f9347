"""Steps of the reference that the candidate has as nodes: what is known of a node is known of its step.

A node of a step's operator, attributes and constants, fed the numbers that the step is given, introduces
the error that the step introduces. It was judged, and is not computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from conformance.bounds import Declaration, format_of
from conformance.bounds.worst_element import Worst
from conformance.candidates.candidate import OwnGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.alignment import RESEMBLANCE, Match
from conformance.judge.node_reading import with_defaults
from conformance.judge.replay import Replay
from conformance.reports.report import Comparison
from refimpl import Recording
from refimpl.graph import Node
from refimpl.ops import TRAITS, Trait
from refimpl.ops.operation import Array


@dataclass
class SameNodes:
    """The nodes of a candidate's graph, and how they were judged, beside a reference's steps.

    Attributes
    ----------
    graph
    rows
        The candidate's tensor → how it was judged as a node's.
    tensors
        What the candidate computed, its constants and what it was fed, by name.
    declaration
        What it was judged by.
    twins
        The reference's tensor → the candidate's of which a replay has the very numbers.
    """

    graph: OnnxGraph
    rows: Mapping[str, Comparison]
    tensors: Mapping[str, Array]
    declaration: Declaration
    twins: dict[str, str] = field(default_factory=dict)
    _equal: dict[tuple[str, str], bool] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        own: OwnGraph | None,
        rows: Sequence[Comparison],
        tensors: Mapping[str, Array],
        declaration: Declaration,
        recording: Recording,
    ) -> SameNodes | None:
        """Return them; None where a node's judgement allows for more or less than a step's."""
        runtime = declaration.runtime
        if not rows or own is None or own.graph is None or own.graph.bfloat16:
            return None
        wide = own.wide_float16 and any(array.dtype == np.float16 for array in tensors.values())
        if wide or runtime.stores_when_used or runtime.adds_constants_first:
            return None
        known = {**own.graph.initializers, **own.feeds, **tensors}
        same = cls(own.graph, {row.name: row for row in rows}, known, declaration)
        for name in recording.inputs.values():
            truth = recording.tensors[name]
            same.twins.update((name, key) for key, array in own.feeds.items() if np.array_equal(array, truth))
        return same

    def match(self, step: Node, replay: Replay) -> Match | None:
        """Return the candidate's tensor of a step's only result, within its bound; None if none is known."""
        node = self._node(step, replay)
        row = self.rows.get(node.outputs[0]) if node and len(step.outputs) == 1 else None
        if row is None or row.verdict != "pass" or row.utilisation is None or row.worst_index is None:
            return None
        values = self.tensors[row.name]
        largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
        if (
            row.max_abs_error is None
            or row.max_abs_error > RESEMBLANCE * largest
            or not self._is_fine(values)
        ):
            return None
        error, bound = float(row.introduced_error or 0.0), float(row.tolerance or 0.0)
        return Match(row.name, values, Worst(error, bound, row.utilisation, row.worst_index))

    def take(self, name: str, match: Match) -> None:
        """Take note that a replay goes on with a tensor of the candidate's, if it is laid out as it was."""
        array = self.tensors.get(match.name)
        if array is not None and _is_view_of(match.values, array):
            self.twins[name] = match.name

    def move(self, step: Node, replay: Replay) -> None:
        """Take note of what a step only moves, if the candidate has moved it alike."""
        node = self._node(step, replay) if Trait.MOVES in TRAITS[step.op_type] else None
        for name, own in zip(step.outputs, node.outputs if node else (), strict=False):
            row = self.rows.get(own)
            if row is not None and row.max_abs_error == 0 and row.shape == np.shape(replay.values[name]):
                self.twins[name] = own

    def _is_fine(self, values: Array) -> bool:
        """Tell whether it is stored as finely as declared: a node's bound is that of what it is stored in."""
        stored = format_of(values.dtype)
        return stored.unit_roundoff <= self.declaration.storage.unit_roundoff

    def _node(self, step: Node, replay: Replay) -> Node | None:
        """Return the node of the same operator and attributes that is fed what the step is given."""
        first = next((self.twins[name] for name in step.uses if name in self.twins), None)
        for node in self.graph.consumers.get(first, []) if first else ():
            if (
                node.op_type == step.op_type
                and self._is_fed_alike(step, node, replay)
                and _attributes(step) == _attributes(node)
            ):
                return node
        return None

    def _is_fed_alike(self, step: Node, node: Node, replay: Replay) -> bool:
        pairs = list(zip_longest(step.inputs, node.inputs, fillvalue=""))
        # How a reshape says its result's shape does not matter.
        return all(
            self._is_alike(*pair, replay) for pair in pairs[: 1 if step.op_type == "Reshape" else None]
        )

    def _is_alike(self, name: str, own: str, replay: Replay) -> bool:
        """Tell whether two operands are the same numbers."""
        if not (name and own):
            return name == own
        if name in self.twins:
            return self.twins[name] == own
        if name not in replay.constant or own not in self.tensors:
            return False
        if (name, own) not in self._equal:
            mine, other = replay.values[name], self.tensors[own]
            self._equal[name, own] = mine.shape == other.shape and np.array_equal(mine, other)
        return self._equal[name, own]


def _is_view_of(values: Array, array: Array) -> bool:
    """Tell whether it is an array's memory, in the same order and shape."""
    mine, other = values.__array_interface__, array.__array_interface__
    return values.shape == array.shape and mine["data"] == other["data"] and values.strides == array.strides


def _attributes(node: Node) -> dict[str, Any]:
    """Return the attributes with defaults filled in; floats as ONNX stores them."""
    return {name: _stored(value) for name, value in with_defaults(node).items() if value is not None}


def _stored(value: Any) -> Any:
    if isinstance(value, float):
        return float(np.float32(value))
    return list(value) if isinstance(value, (tuple, list)) else value
