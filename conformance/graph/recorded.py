"""A graph's run written down in the form of the reference's own runs: every step, every tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import DTypeLike

from conformance.graph.control_flow import Written
from conformance.graph.evaluation import widened_all
from conformance.graph.onnx_graph import OnnxGraph, bound_inputs
from conformance.graph.output_sizes import Sizes
from refimpl import Recording, Step
from refimpl.errors import ShapeError
from refimpl.graph import Node
from refimpl.ops.operation import Array


def graph_recording(
    graph: OnnxGraph,
    feeds: Mapping[str, Array],
    taken: Mapping[str, Array] | None = None,
    *,
    dtype: DTypeLike = np.float64,
    stored: Callable[[Array], Array] | None = None,
    failed: list[str] | None = None,
) -> Recording:
    """Return the graph's run, in float64 unless another dtype is given.

    Parameters
    ----------
    graph
    feeds
        Input → array.
    taken
        What the nodes of unknown operators make: they are no steps of the recording.
    dtype
        At least this precision everywhere, as in `conformance.graph.evaluation`.
    stored
        What storing makes of every floating-point result; None: nothing.
    failed
        Takes what is wrong with nodes whose operands do not fit together; they and what is behind them are
        left out. None: that is an error.

    Raises
    ------
    ShapeError
        An input is missing, unknown or does not fit, or the graph's operands do not fit together.
    UnsupportedOperationError
        A node wants what its operation does not compute.
    """
    given = {**graph.initializers, **(taken or {})}
    known = {**widened_all(given, dtype), **bound_inputs(graph, feeds, dtype)}
    written = Written(known, dtype, check=Sizes().check)
    for node in graph.nodes:
        if node.name not in graph.unknown and (failed is None or _can_be_run(node, written)):
            try:
                written.run(_step(node))
            except ShapeError as error:
                if failed is None:
                    raise
                failed.append(str(error))
            if stored is not None:
                made = {name: written.values[name] for name in node.outputs if name in written.values}
                written.values |= {name: stored(x) for name, x in made.items() if x.dtype.kind == "f"}
    steps = [_step(node) for node in written.nodes]
    return Recording(
        steps=steps,
        tensors=written.values,
        inputs={name: name for name in feeds},
        outputs=dict(graph.outputs),
        weights=[*given, *written.constants],
    )


def _can_be_run(node: Node, written: Written) -> bool:
    return all(name in written.values or name in written.sequences for name in node.uses)


def _step(node: Node) -> Step:
    """Return a node whose every output has a name."""
    return Step(node.name, node.op_type, node.inputs, named_outputs(node), node.attributes)


def named_outputs(node: Node) -> tuple[str, ...]:
    """Return a name for every output of a node, those that it leaves out too."""
    return tuple(name or f"{node.name}:{place}" for place, name in enumerate(node.outputs))
