"""What a runtime's model file means, whichever runtime's it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import onnx

from conformance.bounds import INT8, INT8_OF_RANGE, Format
from conformance.conversion.coreml_graph import coreml_graph
from conformance.conversion.coreml_model import read_coreml
from conformance.conversion.executorch_graph import executorch_graph, stored_in_executorch
from conformance.conversion.executorch_model import read_executorch
from conformance.conversion.litert_graph import litert_graph
from conformance.conversion.litert_model import read_litert, stored_in_litert
from conformance.conversion.mnn_graph import mnn_graph
from conformance.conversion.mnn_model import read_mnn, stored_in_mnn
from conformance.conversion.ncnn_graph import ncnn_graph
from conformance.conversion.ncnn_model import read_ncnn
from conformance.conversion.openvino_graph import openvino_graph
from conformance.conversion.openvino_model import read_openvino, stored_in_openvino
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


INTEGERS: Mapping[str, tuple[Callable[[Path], Iterable[StoredWeight]], Format]] = {
    ".pte": (lambda path: stored_in_executorch(read_executorch(path)), INT8),
    ".mnn": (lambda path: stored_in_mnn(read_mnn(path)), INT8),
    ".tflite": (lambda path: stored_in_litert(read_litert(path)), INT8),
    ".xml": (lambda path: stored_in_openvino(read_openvino(path)), INT8_OF_RANGE),
}
"""Suffix of a runtime's model → the constants that it holds, and how its weights are made integers."""


def with_integers(path: Path) -> tuple[list[StoredWeight], Format | None]:
    """Return the constants of a runtime's model whose weights are integers, and how these were made.

    Of another nothing: its graph holds all that it does.
    """
    read, weights = INTEGERS.get(path.suffix, (lambda path: (), None))
    held = [*read(path)]
    return (held, weights) if any(each.scale is not None for each in held) else ([], None)
