"""Which of a graph's nodes come down to operators of PyTorch that a runtime has no kernels of."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conformance.candidates.arrays import first_line
from conformance.graph.evaluation import as_tuple, evaluate_node, run
from conformance.graph.findings import FAILS, UNJUDGED, Finding
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.pytorch_replay import given_attributes, import_torch, operators
from conformance.pictures.graph_inputs import graph_inputs
from refimpl.graph import Node
from refimpl.ops.operation import Array

INSTEAD = "express it by other operators, or write a kernel of your own"
_PLACE = re.compile(r"steps\.(\d+)")


def kernels_missing(graph: OnnxGraph, kernels: set[str]) -> list[Finding]:
    """Return a finding for each node that cannot be computed by kernels, in graph order.

    Parameters
    ----------
    graph
        It is run once on random inputs, then exported by ``torch.export``.
    kernels
        Names of ATen operators, ``add`` or ``view_copy``.

    Raises
    ------
    MobileInstError
        A node cannot be run.
    MissingDependencyError
        PyTorch is not installed.
    """
    feeds = graph_inputs(graph, [], [], 0)
    values = run(graph.nodes, {**graph.initializers, **feeds}, evaluate_node)
    calls = {place: _call(node, values) for place, node in enumerate(graph.nodes)}
    translated = {place: call for place, call in calls.items() if call is not None}
    happens = "no translation of it to PyTorch is known here"
    found = [
        (place, Finding("untranslated", _subject(node), UNJUDGED, happens, INSTEAD))
        for place, node in enumerate(graph.nodes)
        if place not in translated
    ]
    try:
        called = _exported(graph, values, feeds, translated)
    except Exception as error:  # PyTorch raises of many kinds
        happens = f"torch.export fails: {first_line(error)}"
        return [Finding("export", "model", UNJUDGED, happens, "export the module itself")]
    for place, names in called.items():
        missing = sorted(name for name in names if not kernels & {name, f"{name}_copy", name.rstrip("_")})
        if missing:
            happens = f"there is no portable kernel of {', '.join(missing)}"
            subject = _subject(graph.nodes[place])
            found.append((place, Finding("kernel", subject, FAILS, happens, INSTEAD)))
    return [finding for _, finding in sorted(found, key=lambda pair: pair[0])]


def _subject(node: Node) -> str:
    return f"{node.op_type} {node.name!r}"


def _call(node: Node, values: dict[str, Array]) -> Callable[..., Any] | None:
    """Return what computes a node in PyTorch, None if nothing does; shapes and numbers are literals."""
    function = operators().get(node.op_type)
    if function is None:
        return None
    literals = {
        place: values[name].tolist()
        for place, name in enumerate(node.inputs)
        if name and (values[name].ndim == 0 or (values[name].dtype.kind == "i" and values[name].ndim == 1))
    }
    given = given_attributes(node.op_type, node.attributes)

    def call(*operands: Any) -> tuple[Any, ...]:
        return as_tuple(function(*(literals.get(place, x) for place, x in enumerate(operands)), **given))

    torch = import_torch()
    try:
        call(*(torch.from_numpy(np.array(values[name])) if name else None for name in node.inputs))
    except Exception:  # an attribute that PyTorch has no word for
        return None
    return call


def _exported(
    graph: OnnxGraph,
    values: dict[str, Array],
    feeds: dict[str, Array],
    calls: dict[int, Callable[..., Any]],
) -> dict[int, set[str]]:
    """Export the nodes as one module, and return place of a node → operators that it comes down to."""
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

        def forward(self, *given: Any) -> list[Any]:
            fixed = {name: getattr(self, f"fixed_{place}") for place, name in enumerate(self.names)}
            tensors = {**fixed, **dict(zip(feeds, given, strict=True))}
            for place, node in enumerate(graph.nodes):
                if place in calls:
                    operands = [tensors[name] if name else None for name in node.inputs]
                    tensors.update(zip(node.outputs, self.steps[place](*operands), strict=False))
            return [tensors[name] for name in graph.outputs]

    given = tuple(torch.from_numpy(np.array(array)) for array in feeds.values())
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(Whole().eval(), given).run_decompositions()
    return _operators_by_place(program.graph.nodes)


def _operators_by_place(nodes: Sequence[Any]) -> dict[int, set[str]]:
    called: dict[int, set[str]] = {}
    for node in nodes:
        stack = str(list(node.meta.get("nn_module_stack", {}).values())[-1:])
        place = _PLACE.search(stack)
        name = getattr(getattr(node.target, "_schema", None), "name", "")
        if node.op == "call_function" and place and name.startswith("aten::"):
            called.setdefault(int(place[1]), set()).add(name.removeprefix("aten::"))
    return called
