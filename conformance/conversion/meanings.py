"""What a runtime's model file means, whichever runtime's it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from conformance.conversion.coreml_graph import coreml_graph
from conformance.conversion.coreml_model import read_coreml
from conformance.conversion.executorch_graph import executorch_graph
from conformance.conversion.executorch_model import read_executorch
from conformance.conversion.litert_graph import litert_graph
from conformance.conversion.litert_model import read_litert
from conformance.conversion.mnn_graph import mnn_graph
from conformance.conversion.mnn_model import read_mnn, stored_in_mnn
from conformance.conversion.ncnn_graph import ncnn_graph
from conformance.conversion.ncnn_model import read_ncnn
from conformance.conversion.openvino_graph import openvino_graph
from conformance.conversion.openvino_model import read_openvino
from conformance.conversion.stored_weight import StoredWeight

Meaning = Callable[[Path, Mapping[str, Sequence[int]], Sequence[str]], onnx.ModelProto]
MEANINGS: Mapping[str, Meaning] = {
    ".mlpackage": lambda path, inputs, outputs: coreml_graph(read_coreml(path), inputs, outputs),
    ".mnn": lambda path, inputs, outputs: mnn_graph(read_mnn(path), inputs, outputs),
    ".param": lambda path, inputs, outputs: ncnn_graph(read_ncnn(path), inputs, outputs),
    ".pte": lambda path, inputs, outputs: executorch_graph(read_executorch(path), inputs, outputs),
    ".tflite": lambda path, inputs, outputs: litert_graph(read_litert(path), inputs, outputs),
    ".xml": lambda path, inputs, outputs: openvino_graph(read_openvino(path), inputs, outputs),
}
"""Suffix of a runtime's model → its file, its source's inputs and outputs, and what it means."""


def with_integers(path: Path) -> list[StoredWeight]:
    """Return the constants of a runtime's model where some are integers, of which its graph holds the floats.

    None of other models; nor of LiteRT's, whose converter folds factors into weights that are then not found.
    """
    held = [*stored_in_mnn(read_mnn(path))] if path.suffix == ".mnn" else []
    return held if any(each.scale is not None for each in held) else []
