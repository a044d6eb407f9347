"""What ncnn's layers of one operand mean that change every number by itself.

Source: github.com/Tencent/ncnn, ``src/layer/*.cpp`` and ``src/layer/fused_activation.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten

Meaning = Callable[[NcnnWriter, NcnnLayer], None]
Activation = Callable[[NcnnWriter, NcnnLayer, str], str]


def activated(writer: NcnnWriter, layer: NcnnLayer, name: str) -> str:
    """Return what a layer makes of its result, as its parameters 9 and 10 say."""
    kind, params = layer.param(9), layer.param(10, ())
    if kind == 0:
        return name
    if kind == 1:
        return writer.node("Relu", [name])
    if kind == 2:
        return writer.node("LeakyRelu", [name], alpha=float(params[0]))
    if kind == 3:
        return writer.node("Clip", [name, *map(writer.scalar, params[:2])])
    if kind == 4:
        return writer.node("Sigmoid", [name])
    if kind == 5:
        return writer.node("Mish", [name])
    if kind == 6:
        return _hard(writer, layer, name, float(params[0]), float(params[1]), times_itself=True)
    raise unwritten(layer, f"activation {kind}")


def _hard(writer: NcnnWriter, layer: NcnnLayer, x: str, alpha: float, beta: float, times_itself: bool) -> str:
    if alpha <= 0:
        # ncnn compares with −β/α first, which lies on the other side then.
        raise unwritten(layer, f"a slope of {alpha}")
    slope = writer.node("HardSigmoid", [x], alpha=alpha, beta=beta)
    return writer.node("Mul", [x, slope]) if times_itself else slope


def _plain(operator: str) -> Activation:
    return lambda writer, layer, x: writer.node(operator, [x])


def _clip(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    most = float(np.finfo(np.float32).max)
    return writer.node("Clip", [x, writer.scalar(layer.param(0, -most)), writer.scalar(layer.param(1, most))])


def _relu(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    slope = float(layer.param(0, 0.0))
    return writer.node("LeakyRelu", [x], alpha=slope) if slope else writer.node("Relu", [x])


def _hard_sigmoid(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return _hard(writer, layer, x, float(layer.param(0, 0.2)), float(layer.param(1, 0.5)), False)


def _hard_swish(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return _hard(writer, layer, x, float(layer.param(0, 0.2)), float(layer.param(1, 0.5)), True)


def _p_relu(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.node("PRelu", [x, writer.along_first(layer, layer.weights[0])])


def _dropout(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.node("Mul", [x, writer.scalar(layer.param(0, 1.0))])


def _gelu(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.gelu(x, by_tanh=bool(layer.param(0)))


def _swish(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.node("Mul", [x, writer.node("Sigmoid", [x])])


def _elu(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.node("Elu", [x], alpha=float(layer.param(0, 0.1)))


def _celu(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.node("Celu", [x], alpha=float(layer.param(0, 1.0)))


def _selu(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    how: dict[str, Any] = {
        "alpha": float(layer.param(0, 1.67326324)),
        "gamma": float(layer.param(1, 1.050700987)),
    }
    return writer.node("Selu", [x], **how)


def _shrink(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.node("Shrink", [x], bias=float(layer.param(0, 0.0)), lambd=float(layer.param(1, 0.5)))


def _threshold(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    above = writer.node("Greater", [x, writer.scalar(layer.param(0, 0.0))])
    return writer.node("Cast", [above], to=onnx.TensorProto.FLOAT)


def _affine(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    """Return the line that Exp, Log and Power begin with."""
    scaled = writer.node("Mul", [x, writer.scalar(layer.param(1, 1.0))])
    return writer.node("Add", [scaled, writer.scalar(layer.param(2, 0.0))])


NATURAL = -1.0
"""Base of Exp and Log that stands for e."""


def _exp(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    base, x = layer.param(0, NATURAL), _affine(writer, layer, x)
    return writer.node("Exp", [x]) if base == NATURAL else writer.node("Pow", [writer.scalar(base), x])


def _log(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    base, x = layer.param(0, NATURAL), writer.node("Log", [_affine(writer, layer, x)])
    return x if base == NATURAL else writer.node("Mul", [x, writer.scalar(1 / np.log(np.float32(base)))])


def _power(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    return writer.node("Pow", [_affine(writer, layer, x), writer.scalar(layer.param(0, 1.0))])


def _trunc(writer: NcnnWriter, x: str) -> str:
    whole = writer.node("Floor", [writer.node("Abs", [x])])
    return writer.node("Mul", [writer.node("Sign", [x]), whole])


_UNARY: Mapping[int, tuple[str, ...]] = {
    0: ("Abs",),
    1: ("Neg",),
    2: ("Floor",),
    3: ("Ceil",),
    5: ("Sqrt",),
    6: ("Sqrt", "Reciprocal"),
    7: ("Exp",),
    8: ("Log",),
    9: ("Sin",),
    10: ("Cos",),
    11: ("Tan",),
    12: ("Asin",),
    13: ("Acos",),
    14: ("Atan",),
    15: ("Reciprocal",),
    16: ("Tanh",),
    18: ("Round",),
    20: ("Sign",),
    22: ("Sinh",),
    23: ("Asinh",),
    24: ("Cosh",),
    25: ("Acosh",),
    26: ("Atanh",),
}
"""UnaryOp's type → operators, one after the other. Source: ``src/layer/unaryop.h``."""
_COMPOSED: Mapping[int, Callable[[NcnnWriter, str], str]] = {
    4: lambda writer, x: writer.node("Mul", [x, x]),
    17: lambda writer, x: writer.node("Mul", [writer.node("Log", [x]), writer.scalar(1 / np.log(10))]),
    19: _trunc,
    21: lambda writer, x: writer.node("Sub", [writer.node("Exp", [x]), writer.scalar(1.0)]),
    27: lambda writer, x: writer.node("Log", [writer.node("Add", [x, writer.scalar(1.0)])]),
}
"""Those of more operands."""


def _unary(writer: NcnnWriter, layer: NcnnLayer, x: str) -> str:
    kind = layer.param(0)
    if kind in _COMPOSED:
        return _COMPOSED[kind](writer, x)
    if kind not in _UNARY:
        raise unwritten(layer, f"operation {kind}")
    for operator in _UNARY[kind]:
        x = writer.node(operator, [x])
    return x


_BY_NUMBER: Mapping[str, Activation] = {
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "CELU": _celu,
    "Clip": _clip,
    "Dropout": _dropout,
    "ELU": _elu,
    "Erf": _plain("Erf"),
    "Exp": _exp,
    "GELU": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Log": _log,
    "Mish": _plain("Mish"),
    "PReLU": _p_relu,
    "Power": _power,
    "ReLU": _relu,
    "SELU": _selu,
    "Shrink": _shrink,
    "Sigmoid": _plain("Sigmoid"),
    "Softplus": _plain("Softplus"),
    "Swish": _swish,
    "TanH": _plain("Tanh"),
    "Threshold": _threshold,
    "UnaryOp": _unary,
}


def _meaning(activation: Activation) -> Meaning:
    return lambda writer, layer: writer.like(layer, activation(writer, layer, layer.bottoms[0]))


ACTIVATIONS: Mapping[str, Meaning] = {kind: _meaning(each) for kind, each in _BY_NUMBER.items()}
"""Layers that change every number by itself."""
