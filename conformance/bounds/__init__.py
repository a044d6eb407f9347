"""Bounds of what rounding may do, derived step by step: the tolerance of every verdict.

`introduced_bound` is the error one operation may make on exact operands; `propagated_bound` that of a fused
chain; `bias_test` finds a small systematic fault inside a bound that is loose. The rules stand in one module
per family, registered under the ONNX name; the functions that are approximated have their allowances in
`conformance.bounds.allowances`.
"""

from conformance.bounds.allowances import (
    CPU,
    EXECUTORCH,
    EXECUTORCH_DYNAMIC,
    EXECUTORCH_PORTABLE_DYNAMIC,
    HEXAGON,
    LITERT,
    LITERT_DYNAMIC,
    MNN,
    MNN_ARM,
    MNN_ARM_DYNAMIC,
    MNN_DYNAMIC,
    MOBILE,
    NCNN,
    NCNN_ARM,
    NCNN_ARM_INTEGERS,
    NCNN_INTEGERS,
    ONNX_RUNTIME,
    OPENVINO,
    OPENVINO_DYNAMIC,
    RUNTIMES,
    TILES,
    Allowance,
    Runtime,
    with_winograd,
)
from conformance.bounds.bias import BiasTest, bias_test, utilisation
from conformance.bounds.copies import (
    copied_weights,
    narrowed_attributes,
    norm_behind,
    norm_scale,
    of_largest,
    output_axis,
)
from conformance.bounds.declaration import DEFAULT, Declaration
from conformance.bounds.formats import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FORMATS,
    INT8,
    INT8_OF_RANGE,
    TRUNCATED_FLOAT16,
    WEIGHT_FORMATS,
    Format,
    format_of,
)
from conformance.bounds.introduced import introduced_bound, introduced_bounds
from conformance.bounds.propagation import carried_bounds, propagated_bound
from conformance.bounds.recurrent import RECURRENT, step_by_step
from conformance.bounds.step import RULES, Shared
from conformance.bounds.winograd import winograd_applies

__all__ = [
    "BFLOAT16",
    "CPU",
    "DEFAULT",
    "EXECUTORCH",
    "EXECUTORCH_DYNAMIC",
    "EXECUTORCH_PORTABLE_DYNAMIC",
    "FLOAT16",
    "FLOAT32",
    "FLOAT64",
    "FORMATS",
    "HEXAGON",
    "INT8",
    "INT8_OF_RANGE",
    "LITERT",
    "LITERT_DYNAMIC",
    "MNN",
    "MNN_ARM",
    "MNN_ARM_DYNAMIC",
    "MNN_DYNAMIC",
    "MOBILE",
    "NCNN",
    "NCNN_ARM",
    "NCNN_ARM_INTEGERS",
    "NCNN_INTEGERS",
    "ONNX_RUNTIME",
    "OPENVINO",
    "OPENVINO_DYNAMIC",
    "RECURRENT",
    "RULES",
    "RUNTIMES",
    "TILES",
    "TRUNCATED_FLOAT16",
    "WEIGHT_FORMATS",
    "Allowance",
    "BiasTest",
    "Declaration",
    "Format",
    "Runtime",
    "Shared",
    "bias_test",
    "carried_bounds",
    "copied_weights",
    "format_of",
    "introduced_bound",
    "introduced_bounds",
    "narrowed_attributes",
    "norm_behind",
    "norm_scale",
    "of_largest",
    "output_axis",
    "propagated_bound",
    "step_by_step",
    "utilisation",
    "winograd_applies",
    "with_winograd",
]
