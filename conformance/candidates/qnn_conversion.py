"""Qualcomm's compiler called on an ONNX file for one chip, in a process of its own.

What it writes is an ONNX file still: one node holds what the chip's Hexagon processor computes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.qnn import Npu
from conformance.candidates.qnn_process import session_on_npu
from conformance.graph.onnx_graph import OnnxGraph
from conformance.pictures.graph_inputs import graph_inputs
from refimpl.errors import FileError

COMPILED = "EPContext"
"""Operator of what is compiled."""


def write_qnn(source: Path, target: Path, chip: str) -> None:
    """Compile a model for a chip; every node has to be computed there.

    Parameters
    ----------
    source, target
    chip
        As of `Npu.parse`.

    Raises
    ------
    ConfigurationError
        The chip is unknown, or refuses the model, or some of its nodes.
    ShapeError
        An axis of an input has no length.
    FileError
        What is written computes something else on random inputs than the model does there.
    """
    npu = replace(Npu.parse(chip), strict=True).options
    written = {"ep.context_enable": "1", "ep.context_embed_mode": "1", "ep.context_file_path": str(target)}
    graph = OnnxGraph.load(source, partly=True)
    feeds = graph_inputs(graph, [], [], 0)
    model = onnx.load(source)
    # It compiles a model as it loads it.
    told = session_on_npu(model, replace(npu, entries={**npu.entries, **written}))
    before, after = (each.run(None, dict(feeds)) for each in (told, session_on_npu(onnx.load(target), npu)))
    pairs = [(np.asarray(one), np.asarray(other)) for one, other in zip(before, after, strict=True)]
    if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
        raise FileError("what QNN has compiled computes something else than the model does on that chip")


def check_compiled(path: Path) -> None:
    """Raise `FileError` unless all of a model is compiled."""
    try:
        kinds = {node.op_type for node in onnx.load(path).graph.node}
    except Exception as error:  # protobuf raises its own types
        raise FileError(f"{path.name} is no ONNX file, or cut off") from error
    if kinds != {COMPILED}:
        raise FileError(
            f"{path.name} holds {', '.join(sorted(kinds)) or 'nothing'}; expected {COMPILED} alone"
        )


if __name__ == "__main__":
    end_with_starter()
    write_qnn(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
