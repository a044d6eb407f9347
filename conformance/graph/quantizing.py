"""A float model quantised by ONNX Runtime's own tools, as Snapdragon's NPU takes it: QDQ, 8 or 16 bits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from conformance.silent_onnxruntime import onnxruntime  # noqa: F401
from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array

FORMATS = {"a8w8": ("QUInt8", "QInt8"), "a16w8": ("QUInt16", "QInt8")}
"""Format → types of the activations and of the weights, as ONNX Runtime names them."""


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
        config = get_qnn_qdq_config(source, reader, activation_type=activations, weight_type=weights)
        quantize(source, target, config)
        return onnx.load(target)


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
