"""A graph as a PyTorch module, for runtimes that are converted to from those."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from conformance.graph.evaluation import as_tuple, evaluate_node, run
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.pytorch_replay import given_attributes, import_torch, operators
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops.operation import Array

Calls = Mapping[int, Callable[..., Any]]
"""Place of a node → what computes it."""


def translated(graph: OnnxGraph, values: Mapping[str, Array]) -> dict[int, Callable[..., Any]]:
    """Return what computes each node in PyTorch, those left out that nothing does.

    Parameters
    ----------
    graph
    values
        Its tensors: numbers and shapes among them become literals.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    """
    fixed = _fixed(graph)
    calls = {place: _call(node, values, fixed) for place, node in enumerate(graph.nodes)}
    return {place: call for place, call in calls.items() if call is not None}


def untranslated(graph: OnnxGraph, calls: Calls) -> list[int]:
    """Return the places of nodes without a call, whose results are not the same whatever is fed either."""
    fixed = _fixed(graph)
    return [
        place
        for place, node in enumerate(graph.nodes)
        if place not in calls and not fixed.issuperset(node.outputs)
    ]


def module_of(graph: OnnxGraph, feeds: Mapping[str, Array]) -> Any:
    """Return a graph as a module of its inputs, in order, which returns its outputs by name.

    Parameters
    ----------
    graph
    feeds
        Arrays of the shapes that it is to be run with.

    Raises
    ------
    UnsupportedOperationError
        PyTorch has no word for some nodes; the message lists all of them.
    MissingDependencyError
        PyTorch is not installed.
    """
    values = run(graph.nodes, {**graph.initializers, **feeds}, evaluate_node)
    calls = translated(graph, values)
    missing = {graph.nodes[place].op_type for place in untranslated(graph, calls)}
    if missing:
        raise UnsupportedOperationError(f"not translated to PyTorch: {', '.join(sorted(missing))}")
    return assembled(graph, values, feeds, calls)


def assembled(graph: OnnxGraph, values: Mapping[str, Array], feeds: Mapping[str, Array], calls: Calls) -> Any:
    """Return the nodes with calls as a module, each a submodule ``steps.N``; others' results are fixed."""
    torch = import_torch()

    class Step(torch.nn.Module):  # type: ignore[name-defined]  # PyTorch is optional
        def __init__(self, call: Any) -> None:
            super().__init__()
            self.call = call

        def forward(self, *operands: Any) -> Any:
            return self.call(*operands)

    class Whole(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.steps = torch.nn.ModuleList([Step(calls.get(place)) for place in range(len(graph.nodes))])
            made = {name for place, node in enumerate(graph.nodes) if place in calls for name in node.outputs}
            self.names = [name for name in values if name not in made and name not in feeds]
            for place, name in enumerate(self.names):
                self.register_buffer(f"fixed_{place}", torch.from_numpy(np.array(values[name])))

        def forward(self, *given: Any) -> dict[str, Any]:
            fixed = {name: getattr(self, f"fixed_{place}") for place, name in enumerate(self.names)}
            tensors = {**fixed, **dict(zip(feeds, given, strict=True))}
            for place, node in enumerate(graph.nodes):
                if place in calls:
                    operands = [tensors[name] if name else None for name in node.inputs]
                    tensors.update(zip(node.outputs, self.steps[place](*operands), strict=False))
            return {name: tensors[name] for name in graph.outputs}

    for each in (Step, Whole):  # what is made of it names its tensors after them
        each.__module__, each.__qualname__ = "onnx", each.__name__
    return Whole().eval()


def _fixed(graph: OnnxGraph) -> set[str]:
    """Return the tensors that are the same whatever is fed, of the shapes that it has."""
    fixed = {*graph.initializers}
    for node in graph.nodes:
        # What is random has no operands, as constants have none.
        if node.op_type in ("Constant", "Shape", "Size") or (node.uses and fixed.issuperset(node.uses)):
            fixed.update(node.outputs)
    return fixed


def _call(node: Node, values: Mapping[str, Array], fixed: Collection[str]) -> Callable[..., Any] | None:
    """Return what computes a node in PyTorch, None if nothing does; fixed shapes and numbers are literals."""
    function = operators().get(node.op_type)
    if function is None:
        return None
    literals = {
        place: values[name].tolist()
        for place, name in enumerate(node.inputs)
        if name in fixed and _is_literal(values[name])
    }
    given = given_attributes(node.op_type, node.attributes)
    torch = import_torch()
    # Not every function takes numbers for its first operand, or for any.
    after_first = {place: literal for place, literal in literals.items() if place}
    lists = {place: literal for place, literal in literals.items() if isinstance(literal, list)}
    for each in (literals, after_first, lists, {}):
        call = partial(_called, function, each, given)
        try:
            made = call(*(torch.from_numpy(np.array(values[name])) if name else None for name in node.inputs))
        except Exception:  # an attribute or a type that PyTorch has no word for
            continue
        if len(made) >= len(node.outputs) and all(isinstance(each, torch.Tensor) for each in made):
            return call
    return None


def _is_literal(array: Array) -> bool:
    return array.ndim == 0 or (array.dtype.kind == "i" and array.ndim == 1)


def _called(
    function: Callable[..., Any], literals: Mapping[int, Any], given: Mapping[str, Any], *operands: Any
) -> tuple[Any, ...]:
    return as_tuple(function(*(literals.get(place, x) for place, x in enumerate(operands)), **given))
