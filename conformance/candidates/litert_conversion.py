"""LiteRT's own converter, litert-torch, called on an ONNX file in a process of its own.

It takes PyTorch modules: the graph's nodes in PyTorch's words are one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import module_and_inputs

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
        ``int8-dynamic``: what they are multiplied by is made integers, too.

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
        _store(target, weights)


def _store(model: Path, weights: str) -> None:
    from ai_edge_quantizer import quantizer, recipe

    recipes = {"int8": recipe.weight_only_wi8_afp32, "int8-dynamic": recipe.dynamic_wi8_afp32}
    wanted = FLOAT16 if weights == "float16" else recipes[weights]()
    # It would make integers of a first operand, too, which LiteRT then refuses.
    left = {"regex": ".*", "operation": "BATCH_MATMUL", "algorithm_key": "no_quantize"}
    wanted += [left] if weights == "int8-dynamic" else []
    made = quantizer.Quantizer(str(model), wanted).quantize()
    made.export_model(str(model), overwrite=True)


if __name__ == "__main__":
    end_with_starter()
    write_litert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
