"""Runtimes' files read as the graphs that they mean, beside their sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from conformance.conversion.meanings import MEANINGS, with_integers
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from conformance.reports.report import Report


def read(path: Path, source: onnx.ModelProto | Path) -> tuple[OnnxGraph, OnnxGraph]:
    """Return what a runtime's file means, and its source."""
    before = OnnxGraph.load(source)
    shapes = {name: [*info.shape] for name, info in before.declared.items() if info.shape}
    return OnnxGraph.load(MEANINGS[path.suffix](path, shapes, list(before.outputs))), before


def beside_its_source(path: Path, source: onnx.ModelProto | Path, partly: bool = False) -> Report:
    """Judge a runtime's file beside its source on noise; ``partly`` as of `verify_against`."""
    after, before = read(path, source)
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(size=info.shape).astype(np.float32) for name, info in before.declared.items()}
    stored, weights = with_integers(path)
    return verify_against(after, before, {"noise": feeds}, partly=partly, stored=stored, weights=weights)


def with_slice_multiplied(source: Path, weight: str, factor: float) -> onnx.ModelProto:
    """Return a model of which the first sixteenth of a weight's rows is multiplied."""
    model = onnx.load(source)
    (held,) = (each for each in model.graph.initializer if each.name == weight)
    array = np.array(onnx.numpy_helper.to_array(held))
    array[: max(1, len(array) // 16)] *= np.float32(factor)
    held.CopyFrom(onnx.numpy_helper.from_array(array, weight))
    return model
