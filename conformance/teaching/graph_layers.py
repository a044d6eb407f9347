"""Any graph's layers: what each node is, costs and makes, and the parts that their names tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from refimpl.costs import StepCost, step_costs
from refimpl.ops.operation import Array

FEWEST, MOST = 4, 60
"""Parts that a table of parts should have."""
_LONGEST = 6
"""Numbers of an attribute that are shown."""


@dataclass(frozen=True)
class Part:
    """Nodes whose names begin alike; of a graph whose names tell nothing, of one operator.

    Attributes
    ----------
    name
    costs
        Of its nodes, in order.
    """

    name: str
    costs: tuple[StepCost, ...]

    @property
    def parameters(self) -> int:
        """Numbers that the file holds."""
        return sum(cost.parameters for cost in self.costs)

    @property
    def macs(self) -> int:
        """Multiply–accumulates."""
        return sum(cost.macs for cost in self.costs)


def graph_costs(
    graph: OnnxGraph, feeds: Mapping[str, Array], taken: Mapping[str, Array] | None = None
) -> list[StepCost]:
    """Return what each node costs, in order, run on some inputs.

    Parameters
    ----------
    graph
    feeds
        Input → array.
    taken
        What nodes of unknown operators make; they are not listed.

    Raises
    ------
    ShapeError, UnsupportedOperationError
        As of `graph_recording`.
    """
    recording = graph_recording(graph, feeds, taken, dtype=np.float32)
    # Shapes and axes are constants, too, but not parameters.
    learned = [name for name in recording.weights if recording.tensors[name].dtype.kind == "f"]
    return step_costs(replace(recording, weights=learned))


def parts(costs: Sequence[StepCost]) -> list[Part]:
    """Group nodes by how their names begin, as far as makes a readable number of parts."""
    paths = [_path(cost.step.name) for cost in costs]
    for depth in range(1, max(map(len, paths), default=0) + 1):
        named = ["/".join(path[:depth]) or "(at the root)" for path in paths]
        if FEWEST <= len(set(named)) <= MOST:
            break
    else:
        named = [cost.step.operation for cost in costs]
    return [
        Part(name, tuple(cost for cost, own in zip(costs, named, strict=True) if own == name))
        for name in dict.fromkeys(named)
    ]


def _path(name: str) -> list[str]:
    """Return the parts that a node's name says it is within."""
    return [word for word in re.split(r"[/.:]+", name)[:-1] if word]


def plain_step(cost: StepCost) -> dict[str, Any]:
    """Return a line of a layer table, for JSON."""
    step = cost.step
    return {
        "name": step.name,
        "operation": step.operation,
        "inputs": [name or None for name in step.inputs],
        "input_shapes": list(cost.input_shapes),
        "output_shape": list(cost.output_shape),
        "attributes": {
            key: value for key, value in step.attributes.items() if not isinstance(value, np.ndarray)
        },
        "parameters": cost.parameters,
        "macs": cost.macs,
    }


def attributes_text(attributes: Mapping[str, Any]) -> str:
    """Return attributes in one line, arrays as their shape."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in attributes.items())


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{'×'.join(map(str, value.shape))}]"
    if isinstance(value, list | tuple):
        words = [f"{x:g}" if isinstance(x, float) else str(x) for x in value[:_LONGEST]]
        return f"[{','.join(words)}{',…' if len(value) > _LONGEST else ''}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
