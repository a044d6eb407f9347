"""An ONNX file as what converters take beside it: a PyTorch module, and inputs on which ranges are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.pytorch_module import module_of
from conformance.graph.pytorch_replay import import_torch
from conformance.pictures.graph_inputs import graph_inputs
from conformance.pictures.inputs import rendered_input
from refimpl.errors import ShapeError
from refimpl.ops.operation import Array


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


CALIBRATING = 8
"""Inputs on which ranges are taken."""


def calibrating(source: Path) -> list[Array]:
    """Return inputs on which a quantiser takes ranges: rendered scenes, or random numbers if not of pictures.

    Raises
    ------
    ShapeError
        The graph has several inputs, or an axis has no length.
    """
    graph = OnnxGraph.load(source)
    if len(graph.inputs) != 1:
        raise ShapeError(f"ranges are taken of one input; the model has {len(graph.inputs)}")
    drawn = [only for seed in range(CALIBRATING) for only in graph_inputs(graph, [], [], seed).values()]
    if drawn[0].ndim != 4 or drawn[0].shape[1] != 3:
        return drawn
    batch, _, height, width = drawn[0].shape
    scenes = (rendered_input((height, width), batch, seed) for seed in range(CALIBRATING))
    return [only for scene in scenes for only in scene.values()]
