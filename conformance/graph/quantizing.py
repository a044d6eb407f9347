"""A float model quantised by ONNX Runtime's own tools, as Snapdragon's NPU takes it: QDQ, 8 or 16 bits."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import MOVING
from conformance.silent_onnxruntime import onnxruntime  # noqa: F401
from refimpl.errors import ConfigurationError
from refimpl.graph import Node
from refimpl.ops.operation import Array

FORMATS = {"a8w8": ("QUInt8", "QInt8"), "a16w8": ("QUInt16", "QInt8")}
"""Format → types of the activations and of the weights, as ONNX Runtime names them."""

CUTTING = ("Relu", "Clip")
"""Operators that the quantiser leaves to the ends of its range; a symmetric one would not end there."""


def quantized_for_npu(
    model: onnx.ModelProto, images: Sequence[Array], quantization: str = "a8w8"
) -> onnx.ModelProto:
    """Return a QDQ model, its ranges those seen on some inputs.

    Parameters
    ----------
    model
        Of one input, float32, batch norms folded.
    images
        What it is fed while its ranges are taken, at least one array.
    quantization
        One of `FORMATS`.

    Raises
    ------
    ConfigurationError
        Another format, or nothing to take ranges from.
    """
    from onnxruntime.quantization import QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    if quantization not in FORMATS:
        raise ConfigurationError(f"no quantisation {quantization!r}; expected one of {', '.join(FORMATS)}")
    if not images:
        raise ConfigurationError("quantisation takes its ranges from pictures; give at least one")
    activations, weights = (QuantType[name] for name in FORMATS[quantization])
    with tempfile.TemporaryDirectory(prefix="quantizing-") as name, _quiet():
        source, target = Path(name) / "float.onnx", Path(name) / "quantized.onnx"
        onnx.save(model, source)
        reader = _reader(model.graph.input[0].name, images)
        config = get_qnn_qdq_config(
            source,
            reader,
            activation_type=activations,
            weight_type=weights,
            init_overrides=_as_the_npu_computes(OnnxGraph.load(model), quantization),
            add_qtype_converts=False,
        )
        quantize(source, target, config)
        return onnx.load(target)


def _as_the_npu_computes(graph: OnnxGraph, quantization: str) -> dict[str, list[dict[str, Any]]]:
    """Return ranges, as the quantiser takes them, where the NPU would compute otherwise than the graph says.

    Joined convolutions of one tensor share a scale of weights; second operands of products are symmetric,
    if of 8 bits.
    """
    overrides: dict[str, list[dict[str, Any]]] = {}
    for node in graph.nodes:
        if node.op_type == "Concat":
            weights = _joined_weights(graph, node)
            largest = max((float(np.abs(graph.initializers[name]).max()) for name in weights), default=0.0)
            overrides |= {name: [{"rmin": -largest, "rmax": largest}] for name in weights}
        elif node.op_type == "MatMul" and quantization == "a8w8" and graph.producer(node.inputs[1]):
            moved = list(_moved(graph, node.inputs[1]))
            maker = graph.producer(moved[-1])
            if maker is None or maker.op_type not in CUTTING:
                overrides |= {name: [{"symmetric": True}] for name in moved}
    return overrides


def _joined_weights(graph: OnnxGraph, concat: Node) -> list[str]:
    """Return the weights of convolutions of one tensor that are concatenated, where there are several."""
    makers = [graph.producer(name) for name in concat.uses]
    convolutions = [node for node in makers if node is not None and node.op_type == "Conv"]
    sources = Counter(node.inputs[0] for node in convolutions)
    return [node.inputs[1] for node in convolutions if sources[node.inputs[0]] > 1]


def _moved(graph: OnnxGraph, name: str) -> Iterator[str]:
    """Yield a tensor and those whose elements it holds; the first that is quantised gives all their scale."""
    yield name
    maker = graph.producer(name)
    if maker is not None and maker.op_type in MOVING:
        yield from _moved(graph, maker.inputs[0])


def _reader(name: str, images: Sequence[Array]) -> Any:
    """Return the inputs as ONNX Runtime's quantiser asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Array] | None:
            return next(self.left, None)

        def rewind(self) -> None:
            self.left: Iterator[dict[str, Array]] = iter([{name: array} for array in images])

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the quantiser's advice."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
