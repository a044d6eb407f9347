"""LiteRT's own converter, litert-torch, called on an ONNX file in a process of its own.

It takes PyTorch modules: the graph's nodes in PyTorch's words are one.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import calibrating, module_and_inputs
from conformance.candidates.phone_runtime import DYNAMIC, STATIC
from refimpl.ops.operation import Array

FLOAT16 = [
    {
        "regex": ".*",
        "operation": operation,
        "algorithm_key": "float_casting",
        "op_config": {
            "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
        },
    }
    for operation in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
]
"""A recipe of AI Edge Quantizer's, which has none ready: kernels and matrices in half precision."""


def write_litert(source: Path, target: Path, weights: str) -> None:
    """Convert an ONNX file, for inputs of the shapes that it declares.

    Parameters
    ----------
    source, target
    weights
        ``float32``; ``float16``, or ``int8`` with a scale for each output channel: widened as it runs;
        ``int8-dynamic``: what they are multiplied by is made integers, too; ``int8-static``: all is of
        integers, by ranges of what `calibrating` gives.

    Raises
    ------
    UnsupportedOperationError
        PyTorch has no word for some nodes.
    ShapeError
        An axis of an input has no length.
    """
    module, given = module_and_inputs(source)
    # After what may be refused: it takes seconds.
    import litert_torch

    litert_torch.convert(module, given).export(str(target))
    if weights != "float32":
        _store(target, weights, calibrating(source) if weights == STATIC else ())


def _samples(model: Path, inputs: Sequence[Array]) -> dict[str, list[dict[str, Array]]]:
    """Return what ranges are taken on, by the names that the converted model has."""
    from ai_edge_litert.interpreter import Interpreter

    ((signature, ends),) = Interpreter(str(model)).get_signature_list().items()
    return {signature: [{ends["inputs"][0]: array} for array in inputs]}


def _store(model: Path, weights: str, inputs: Sequence[Array]) -> None:
    from ai_edge_quantizer import quantizer

    made = quantizer.Quantizer(str(model), _recipe(weights))
    ranges = made.calibrate(_samples(model, inputs)) if weights == STATIC else None
    made.quantize(ranges).export_model(str(model), overwrite=True)


def _recipe(weights: str) -> list[dict[str, Any]]:
    """Return AI Edge Quantizer's own recipe, but for what LiteRT does not compute of it.

    Of BATCH_MATMUL the first operand, too, becomes integers if it is constant, by scales along the axis that
    is summed: with a second operand of floats LiteRT refuses it, of integers it computes other numbers.
    """
    from ai_edge_quantizer import recipe

    if weights == "float16":
        return FLOAT16
    if weights == "int8":
        return list(recipe.weight_only_wi8_afp32())
    product = {"regex": ".*", "operation": "BATCH_MATMUL"}
    if weights == DYNAMIC:
        return [*recipe.dynamic_wi8_afp32(), {**product, "algorithm_key": "no_quantize"}]
    (every,) = recipe.static_wi8_ai8()
    how = copy.deepcopy(every["op_config"])
    how["weight_tensor_config"]["granularity"] = "TENSORWISE"
    return [every, {**every, **product, "op_config": how}]


if __name__ == "__main__":
    end_with_starter()
    write_litert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
