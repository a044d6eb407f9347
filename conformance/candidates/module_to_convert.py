"""An ONNX file as what converters from PyTorch take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.pytorch_module import module_of
from conformance.graph.pytorch_replay import import_torch
from conformance.pictures.graph_inputs import graph_inputs


def module_and_inputs(source: Path) -> tuple[Any, tuple[Any, ...]]:
    """Return a file's graph as a module, and tensors of the shapes that it declares.

    Raises
    ------
    UnsupportedOperationError
        PyTorch has no word for some nodes.
    ShapeError
        An axis of an input has no length.
    """
    graph = OnnxGraph.load(source)
    feeds = graph_inputs(graph, [], [], 0)
    torch = import_torch()
    given = tuple(torch.from_numpy(np.array(array)) for array in feeds.values())
    return module_of(graph, feeds), given
