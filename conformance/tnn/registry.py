"""What `onnx2tnn` converts: the operators it has registered, and which attributes of each it reads.

Source: the converters of https://github.com/Tencent/TNN/tree/f0cb081/tools/onnx2tnn/src/core/layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from refimpl.graph import Node

JUDGED: Any = object()
"""Stands for an attribute that rules of `conformance.tnn.traps` judge."""

_CONVOLUTION = {"auto_pad": "NOTSET", "group": 1, **dict.fromkeys(("dilations", "kernel_shape"), JUDGED)}
_WINDOW = {"auto_pad": "NOTSET", "ceil_mode": 0, "kernel_shape": JUDGED}
_PADDED = {"pads": JUDGED, "strides": JUDGED}
_RESIZE = dict.fromkeys(
    (
        *("coordinate_transformation_mode", "mode", "nearest_mode", "cubic_coeff_a", "exclude_outside"),
        *("extrapolation_value", "antialias", "scales"),
    ),
    JUDGED,
)
_NO_ATTRIBUTES = (
    *("Abs", "Acos", "Add", "And", "Asin", "Atan", "Ceil", "Cos", "Div"),
    *("Equal", "Erf", "Exp", "Expand", "Floor", "Greater", "HDRGuide", "Histogram", "Identity"),
    *(
        "Inverse",
        "Less",
        "Log",
        "LogSigmoid",
        "MatMul",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "PRelu",
    ),
    *("Pow", "Range", "Reciprocal", "Relu", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Softplus"),
    *("Softsign", "Sqrt", "Sub", "Swish", "Tan", "Tanh", "Tile", "Where", "adaptive_avg_pool2d", "ScatterND"),
)
_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
_DIALECTS = (
    *("DetectionOutput", "GELU", "Normalize", "PixelShuffle", "PriorBox", "ShuffleChannel", "SignedMul"),
)

CONVERTED: dict[str, dict[str, Any]] = {
    **{name: {} for name in (*_NO_ATTRIBUTES, *_DIALECTS)},
    **{name: {"axes": (), "keepdims": 1} for name in _REDUCTIONS},
    "ArgMax": {"axis": 0, "keepdims": 1, "select_last_index": 0},
    "ArgMin": {"axis": 0, "keepdims": 1, "select_last_index": 0},
    "AveragePool": {**_WINDOW, **_PADDED, "count_include_pad": JUDGED},
    "BatchNormalization": {"epsilon": 1e-5, "momentum": JUDGED, "training_mode": 0, "spatial": 1},
    "BitShift": {"direction": ""},
    "Cast": {"to": 0, "saturate": JUDGED},
    "Clip": {"min": JUDGED, "max": JUDGED},
    "Concat": {"axis": 1},
    "Constant": dict.fromkeys(
        (
            *("value", "value_float", "value_floats", "value_int", "value_ints", "sparse_value"),
            *("value_string", "value_strings"),
        ),
        JUDGED,
    ),
    "ConstantOfShape": {"value": JUDGED},
    "Conv": {**_CONVOLUTION, **_PADDED},
    "ConvTranspose": {**_CONVOLUTION, **_PADDED, "output_padding": JUDGED},
    "DepthToSpace": {"blocksize": 2, "mode": "DCR"},
    "Dropout": dict.fromkeys(("ratio", "seed", "is_test"), JUDGED),
    "Einsum": {"equation": ""},
    "Elu": {"alpha": 1.0},
    "Flatten": {"axis": 0},
    "Gather": {"axis": 0},
    "GatherND": {"batch_dims": 0},
    "Gemm": {"transA": 0, "transB": 0, "alpha": 1.0},
    "GlobalAveragePool": {},
    "GlobalMaxPool": {},
    "GridSample": {},
    "GroupNormalization": {"num_groups": 0, "stash_type": JUDGED},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "HardSwish": {},
    "InstanceNormalization": {"epsilon": 1e-5},
    "LRN": {"alpha": 1e-4, "beta": 0.75, "bias": 1.0, "size": 0},
    "LSTM": {"hidden_size": 0, "direction": "forward"},
    "LayerNormalization": {"epsilon": 1e-5, "axis": JUDGED, "stash_type": JUDGED},
    "LeakyRelu": {"alpha": 0.01},
    "LogSoftmax": {"axis": JUDGED},
    "LpNormalization": {"axis": 1, "p": 2},
    "MaxPool": {**_WINDOW, **_PADDED, "storage_order": JUDGED},
    "NonMaxSuppression": {"center_point_box": 0},
    "OneHot": {"axis": -1},
    "Pad": {"mode": "constant", "pads": JUDGED, "value": 0.0},
    "Reshape": {"allowzero": JUDGED},
    "Resize": _RESIZE,
    "RoiAlign": {
        "mode": "avg",
        "output_height": 1,
        "output_width": 1,
        "sampling_ratio": 0,
        "spatial_scale": 1.0,
    },
    "Scatter": {"axis": 0},
    "ScatterElements": {"axis": 0},
    "Selu": {"alpha": 0.0, "gamma": 0.0},
    "Slice": {"starts": JUDGED, "ends": JUDGED, "axes": JUDGED},
    "Softmax": {"axis": JUDGED},
    "SpaceToDepth": {"blocksize": 2},
    "Split": {"axis": 1, "split": JUDGED, "num_outputs": JUDGED},
    "Squeeze": {"axes": JUDGED},
    "TopK": {"axis": -1, "k": JUDGED, "largest": 1, "sorted": 1},
    "Transpose": {"perm": JUDGED},
    "Unsqueeze": {"axes": JUDGED},
    "Upsample": _RESIZE,
}
"""Operator → the attributes that its converter reads, each with what it takes where the file has none."""

INSTEAD = {("RoiAlign", "coordinate_transformation_mode"): "output_half_pixel"}
"""Of what is not read, TNN's own value where that is not ONNX's default."""


def lost_settings(node: Node, opset: int) -> Iterator[tuple[str, Any, Any]]:
    """Yield the attributes of which TNN gets another value: the name, what ONNX means, what TNN gets."""
    read = CONVERTED.get(node.op_type)
    if read is None or not onnx.defs.has(node.op_type, max(opset, 1)):
        return
    for name, attribute in onnx.defs.get_schema(node.op_type, max(opset, 1)).attributes.items():
        default = (
            onnx.helper.get_attribute_value(attribute.default_value) if _has_default(attribute) else None
        )
        default = default.decode() if isinstance(default, bytes) else default
        meant = node.attributes.get(name, default)
        unread = INSTEAD.get((node.op_type, name), default)
        taken = node.attributes.get(name, read[name]) if name in read else unread
        if (
            meant is not None
            and taken is not JUDGED
            and read.get(name) is not JUDGED
            and _differ(meant, taken)
        ):
            yield name, meant, taken


def _has_default(attribute: Any) -> bool:
    return bool(attribute.default_value.name)


def _differ(meant: Any, taken: Any) -> bool:
    if taken is None:
        # What ONNX leaves open is one step along each axis.
        return not np.array_equal(meant, np.ones(np.shape(meant)))
    if isinstance(meant, str) or isinstance(taken, str):
        return bool(meant != taken)
    a, b = np.asarray(meant), np.asarray(taken)
    return a.shape != b.shape or not np.allclose(a, b, rtol=1e-6, atol=0)
