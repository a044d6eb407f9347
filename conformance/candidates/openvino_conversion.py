"""OpenVINO's own converter, and NNCF, which narrows weights further, called in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import calibrating
from refimpl.errors import ConfigurationError


def write_openvino(source: Path, target: Path, precision: str) -> None:
    """Convert an ONNX file to an IR.

    Parameters
    ----------
    source, target
    precision
        ``float32``; ``float16``, or ``int8`` with a scale and a zero point for each output channel: of the
        weights, widened as it runs; ``int8-static``: all is of integers, by ranges of what `calibrating`
        gives.

    Raises
    ------
    ConfigurationError
        No weight is large enough to be made integers.
    """
    # In CI, which this says it is, neither sends a report of its use.
    os.environ["CI"] = "true"
    import openvino

    model = openvino.convert_model(source)
    if precision == "int8":
        import nncf

        model = nncf.compress_weights(model)
        if not any(held.get_element_type() == openvino.Type.u8 for held in _constants(model)):
            raise ConfigurationError("NNCF makes integers of no weight of it: it has no kernel or matrix")
    if precision == "int8-static":
        import nncf

        inputs = calibrating(source)
        model = nncf.quantize(model, nncf.Dataset(inputs), subset_size=len(inputs))
    # Unless told so, it stores weights in float16.
    openvino.save_model(model, target, compress_to_fp16=precision == "float16")


def _constants(model: Any) -> list[Any]:
    return [each for each in model.get_ops() if each.get_type_name() == "Constant"]


if __name__ == "__main__":
    end_with_starter()
    write_openvino(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
