"""Which of a graph's nodes come down to operators of PyTorch that a runtime has no kernels of."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from conformance.candidates.arrays import first_line
from conformance.graph.evaluation import evaluate_node, run
from conformance.graph.findings import FAILS, UNJUDGED, Finding
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.pytorch_module import Calls, assembled, translated, untranslated
from conformance.graph.pytorch_replay import import_torch
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
    calls = translated(graph, values)
    happens = "no translation of it to PyTorch is known here"
    found = [
        (place, Finding("untranslated", _subject(graph.nodes[place]), UNJUDGED, happens, INSTEAD))
        for place in untranslated(graph, calls)
    ]
    try:
        called = _exported(graph, values, feeds, calls)
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


def _exported(
    graph: OnnxGraph,
    values: dict[str, Array],
    feeds: dict[str, Array],
    calls: Calls,
) -> dict[int, set[str]]:
    """Export the nodes as one module, and return place of a node → operators that it comes down to."""
    torch = import_torch()
    given = tuple(torch.from_numpy(np.array(array)) for array in feeds.values())
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(assembled(graph, values, feeds, calls), given).run_decompositions()
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
