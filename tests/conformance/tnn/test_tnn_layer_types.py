"""Every layer type: written back byte for byte, computed as ONNX Runtime does, and its parameters damaged."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from conformance.tnn.evaluation import evaluate
from conformance.tnn.graph import TnnGraph, join
from conformance.tnn.layers import LAYER_TYPES
from conformance.tnn.meaning import MEANINGS
from conformance.tnn.model import Model, RawBuffer, Resource, parse_model, write_model
from conformance.tnn.proto import parse_proto, write_proto
from conformance.tnn.rounding import allowed_outputs, declared
from conformance.tnn.survey import judge_outputs
from conformance.tnn.text import read_output, write_output
from refimpl.errors import FileError, MobileInstError, ShapeError, UnsupportedOperationError

Array = NDArray[Any]
TNN_DTYPES = {"f": (0, np.float32), "i": (3, np.int32), "b": (2, np.int8)}
OPSET = 20


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integers(*values: int, shape: Sequence[int] = (-1,)) -> Array:
    return np.array(values, np.int64).reshape(shape)


IMAGE = random(1, 4, 5, 6)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer, and what somebody else computes for it.

    Attributes
    ----------
    type, words
        The layer's type, and its parameters as the file holds them.
    operands
        The first are inputs of the graph; ``constants`` says how many of the last stand in the constant map.
    buffers
        The layer's own constants.
    expected
        Computes the outputs of the operands, by code that is not ours.
    """

    type: str
    words: str = ""
    operands: tuple[Array, ...] = (IMAGE,)
    constants: int = 0
    buffers: Mapping[str, Array] = field(default_factory=dict)
    outputs: int = 1
    expected: Callable[..., Any]

    def graph(self, words: str | None = None) -> TnnGraph:
        """Return the graph of the one layer, through the bytes of both files."""
        return join(self.proto(words), parse_model(self.model(), "model"), "test")

    def proto(self, words: str | None = None):
        return parse_proto(self.text(self.words if words is None else words), "proto")

    def text(self, words: str) -> bytes:
        names = [f"x{place}" for place in range(len(self.operands))]
        given, outputs = names[: len(names) - self.constants], [f"y{place}" for place in range(self.outputs)]
        declared = " : ".join(
            f"{name} {x.ndim} {''.join(f'{n} ' for n in x.shape)}0"
            for name, x in zip(given, self.operands, strict=False)
        )
        layer = f"{self.type} n {len(names)} {len(outputs)} {' '.join([*names, *outputs])} {words}".rstrip()
        blobs = " " + " ".join([*names, *outputs])
        lines = (
            f"1 {len(names) + len(outputs)} 1 4206624772",
            declared,
            blobs,
            " ".join(outputs),
            " 1",
            layer,
        )
        return "".join(f'"{line} ,"\n' for line in lines).encode()

    def model(self) -> bytes:
        held = {role: buffer(values) for role, values in self.buffers.items()}
        label = "n" if LAYER_TYPES[self.type].payload in ("convolution", "inner product", "slope") else ""
        resources = [Resource(self.type, "n", held, LAYER_TYPES[self.type].type_id, label)] if held else []
        first = len(self.operands) - self.constants
        mapped = {f"x{first + place}": buffer(x) for place, x in enumerate(self.operands[first:])}
        return write_model(Model(tuple(resources), mapped or None))

    def inputs(self) -> dict[str, Array]:
        first = len(self.operands) - self.constants
        return {f"x{place}": x for place, x in enumerate(self.operands[:first])}


def buffer(values: Array) -> RawBuffer:
    code, dtype = TNN_DTYPES[np.asarray(values).dtype.kind]
    return RawBuffer(np.ascontiguousarray(values, dtype), code)


def ort(
    operator: str,
    *more: Array,
    cast: Any = None,
    outputs: int = 1,
    domain: str = "",
    opset: int = OPSET,
    **attributes,
):
    """Return what has ONNX Runtime compute an operator of the operands and of ``more`` (None: absent)."""

    def compute(*operands: Array) -> Any:
        given = [np.asarray(x) if cast is None else x.astype(cast) for x in operands]
        given += [None if x is None else np.asarray(x) for x in more]
        names = ["" if x is None else f"x{place}" for place, x in enumerate(given)]
        made = [f"y{place}" for place in range(outputs)]
        infos = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in zip(names, given, strict=True)
            if name
        ]
        node = helper.make_node(operator, names, made, domain=domain, **attributes)
        results = [onnx.ValueInfoProto(name=name) for name in made]
        found = helper.make_graph([node], "g", infos, results)
        opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
        model = helper.make_model(found, opset_imports=opsets, ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        fed = {name: x for name, x in zip(names, given, strict=True) if name}
        return session.run(None, fed)

    return compute


def unary(*names: str, operand: Array = IMAGE) -> list[Case]:
    return [Case(type=name, operands=(operand,), expected=ort(name)) for name in names]


def reductions() -> list[Case]:
    names = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    positive = (np.abs(IMAGE) + np.float32(0.1),)
    return [
        case
        for name in names
        for case in (
            Case(
                type=f"Reduce{name}",
                words="1 2 3",
                operands=positive,
                expected=ort(f"Reduce{name}", integers(2, 3), keepdims=1),
            ),
            Case(
                type=f"Reduce{name}", words="0", operands=positive, expected=ort(f"Reduce{name}", keepdims=0)
            ),
            Case(
                type=f"Reduce{name}",
                words="0 -1",
                operands=positive,
                expected=ort(f"Reduce{name}", integers(-1), keepdims=0),
            ),
        )
    ]


def binaries() -> list[Case]:
    other, channels = random(1, 4, 5, 6, seed=1), random(1, 4, 1, 1, seed=2)
    names = {"Add": "Add", "Sub": "Sub", "Mul": "Mul", "Div": "Div", "Maximum": "Max", "Minimum": "Min"}
    names |= {"Greater": "Greater", "Less": "Less"}
    return [
        case
        for name, operator in names.items()
        for case in (
            Case(type=name, words="-1", operands=(IMAGE, other), expected=ort(operator)),
            Case(type=name, words="1", buffers={"constant": channels}, expected=ort(operator, channels)),
            Case(
                type=name,
                words="0",
                buffers={"constant": channels},
                expected=lambda x, operator=operator: ort(operator)(channels, x),
            ),
        )
    ]


def repeated_curves(x: Array) -> Array:
    """HDRGuide by its pixels."""
    matrix, bias, shifts, slopes, mix, last = COLOURS.values()
    y = np.empty((1, 1, *x.shape[2:]), np.float64)
    for row, column in np.ndindex(*x.shape[2:]):
        colour = matrix.reshape(3, 3) @ x[0, :, row, column].astype(np.float64) + bias
        curves = [
            sum(slopes[4 * c + k] * max(colour[c] - shifts[4 * c + k], 0) for k in range(4)) for c in range(3)
        ]
        y[0, 0, row, column] = min(max(float(mix @ np.array(curves)) + float(last[0]), 0), 1)
    return y


def signed_product(x: Array) -> Array:
    """SignedMul by its steps."""
    y = (np.sign(x - np.float32(0.1)) + np.float32(0.5)) / np.float32(2)
    return y * y[:, :1]


def shuffled(x: Array) -> Array:
    return np.concatenate([x[:, [place, place + 2]] for place in range(2)], axis=1)


COLOURS = {
    "ccm weight": random(9, seed=1),
    "ccm bias": random(3, seed=2),
    "shifts": random(12, seed=3),
    "slopes": random(12, seed=4),
    "projection weight": random(3, seed=5),
    "projection bias": np.float32([0.3]),
}
W2, W1, W3 = random(6, 2, 3, 3, seed=1), random(6, 2, 3, seed=1), random(6, 2, 2, 3, 3, seed=1)
BIAS, SCALE = random(6, seed=2), random(4, seed=3)
LINE, VOLUME = random(1, 4, 9), random(1, 4, 4, 5, 6)
UNIT = np.float32(0.99) * np.tanh(IMAGE)
WINDOW = {"strides": [2, 1], "pads": [1, 0, 1, 0], "group": 2}
SEQUENCE, W_LSTM, R_LSTM, B_LSTM = (
    random(5, 2, 4),
    random(2, 12, 4, seed=1),
    random(2, 12, 3, seed=2),
    random(2, 24, seed=3),
)
STATES = random(2, 2, 3, seed=4), random(2, 2, 3, seed=5)
BOXES = np.float32([[[0, 0, 2, 2], [0, 0, 2, 2.2], [3, 3, 5, 5]]])
REGIONS = np.float32([[0.1, 0.2, 4, 3.1], [1, 1.1, 5.3, 4]])

CASES = [
    *unary("Abs", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Sign", "Sin", "Tan", "Tanh"),
    *unary("Sigmoid", "Softplus", "Softsign", "Reciprocal", "NonZero", "Shape", "Size"),
    *unary("Acos", "Asin", operand=UNIT),
    *unary("Log", "Sqrt", operand=np.abs(IMAGE)),
    *reductions(),
    Case(
        type="Maximum",
        words="-1",
        operands=(IMAGE, random(1, 4, 1, 6, seed=1), random(1, 1, 5, 6, seed=2)),
        expected=ort("Max"),
    ),
    Case(
        type="Minimum",
        words="2",
        operands=(IMAGE, random(1, 4, 1, 6, seed=1)),
        buffers={"constant": SCALE.reshape(4, 1, 1)},
        expected=ort("Min", SCALE.reshape(4, 1, 1)),
    ),
    *binaries(),
    Case(type="Rsqrt", operands=(np.abs(IMAGE),), expected=lambda x: 1 / ort("Sqrt")(x)[0]),
    Case(type="LogSigmoid", expected=lambda x: ort("Log")(ort("Sigmoid")(x)[0])),
    Case(type="Swish", expected=lambda x: x * ort("Sigmoid")(x)[0]),
    Case(type="ReLU", expected=ort("Relu")),
    Case(type="ReLU6", operands=(5 * IMAGE,), expected=ort("Clip", np.float32(0), np.float32(6))),
    Case(type="GELU", expected=ort("Gelu")),
    Case(type="Elu", words="0.7", expected=ort("Elu", alpha=0.7)),
    Case(type="Selu", words="1.5 1.1", expected=ort("Selu", alpha=1.5, gamma=1.1)),
    Case(type="PReLU", words="1 0", buffers={"slope": SCALE[:1]}, expected=ort("PRelu", SCALE[:1])),
    Case(
        type="PReLU",
        words="0 0",
        buffers={"slope": SCALE},
        expected=ort("PRelu", SCALE.reshape(4, 1, 1)),
    ),
    Case(
        type="PReLU", words="1 0", buffers={"slope": np.float32([0.2])}, expected=ort("LeakyRelu", alpha=0.2)
    ),
    Case(type="HardSigmoid", words="0.3 0.4", expected=ort("HardSigmoid", alpha=0.3, beta=0.4)),
    Case(type="HardSwish", words="0.166667 0.5", expected=ort("HardSwish")),
    Case(type="Clip", words="-0.25 0.5", expected=ort("Clip", np.float32(-0.25), np.float32(0.5))),
    Case(type="Clip", words="-inf 0.5", expected=ort("Clip", None, np.float32(0.5))),
    Case(type="Power", words="3 1 0", expected=ort("Pow", np.float32(3))),
    Case(type="Power", words="2 0.5 1", expected=lambda x: ort("Pow", np.float32(2))(x / 2 + 1)),
    Case(type="SoftmaxCaffe", words="1", expected=ort("Softmax", axis=1)),
    Case(type="LogSoftmax", words="-1", expected=ort("LogSoftmax", axis=-1)),
    Case(
        type="And",
        words="-1",
        operands=(np.maximum(IMAGE, 0), np.maximum(random(1, 4, 5, 6, seed=1), 0)),
        expected=ort("And", cast=bool),
    ),
    Case(type="Not", operands=(np.maximum(IMAGE, 0),), expected=ort("Not", cast=bool)),
    Case(type="Equal", operands=(np.sign(IMAGE), np.sign(random(1, 4, 5, 6, seed=1))), expected=ort("Equal")),
    Case(
        type="Where",
        operands=(IMAGE, random(1, 4, 5, 6, seed=1), np.maximum(random(1, 4, 5, 6, seed=2), 0)),
        expected=lambda x, y, condition: ort("Where")(condition.astype(bool), x, y),
    ),
    Case(
        type="BitShift",
        words="1 2",
        operands=(np.float32([1, 3, 7]),),
        expected=ort("BitShift", np.uint32([2, 2, 2]), cast=np.uint32, direction="LEFT"),
    ),
    Case(
        type="BitShift",
        words="0 1",
        operands=(np.float32([1, 3, 7]),),
        expected=ort("BitShift", np.uint32([1, 1, 1]), cast=np.uint32, direction="RIGHT"),
    ),
    Case(type="SignedMul", words="0.1 0.5 2", expected=signed_product),
    Case(type="MatMul", words="-1", operands=(IMAGE, random(1, 4, 6, 3, seed=1)), expected=ort("MatMul")),
    Case(
        type="MatMul",
        words="1",
        buffers={"constant": random(6, 3, seed=1)},
        expected=ort("MatMul", random(6, 3, seed=1)),
    ),
    Case(
        type="Einsum",
        words="bchw;bcxw->bchx",
        operands=(IMAGE, random(1, 4, 3, 6, seed=1)),
        expected=ort("Einsum", equation="bchw,bcxw->bchx"),
    ),
    Case(
        type="InnerProduct",
        words="3 1 0 1",
        operands=(random(2, 8),),
        buffers={"weight": random(3, 8, seed=1), "bias": random(3, seed=2)},
        expected=ort("Gemm", random(3, 8, seed=1), random(3, seed=2), transB=1),
    ),
    Case(
        type="Convolution",
        words="2 2 6 3 3 2 1 1 0 1 -1 1 1 0",
        buffers={"weight": W2, "bias": BIAS},
        expected=ort("Conv", W2, BIAS, **WINDOW),
    ),
    Case(
        type="Convolution1D",
        words="2 2 6 3 2 1 1 1 -1 1 0",
        operands=(LINE,),
        buffers={"weight": W1, "bias": BIAS},
        expected=ort("Conv", W1, BIAS, strides=[2], pads=[1, 1], group=2),
    ),
    Case(
        type="Convolution1D",
        words="2 2 6 3 1 2 0 1 -1 1 0",
        operands=(LINE,),
        buffers={"weight": W1, "bias": BIAS},
        # The runtime's reader takes the second number for the pad before.
        expected=ort("Conv", W1, BIAS, pads=[0, 2], group=2),
    ),
    Case(
        type="Convolution3D",
        words="2 2 6 2 3 3 1 2 1 0 1 1 1 -1 1 1 1 0",
        operands=(VOLUME,),
        buffers={"weight": W3, "bias": BIAS},
        expected=ort("Conv", W3, BIAS, strides=[1, 2, 1], pads=[0, 1, 1, 0, 1, 1], group=2),
    ),
    Case(
        type="Deconvolution",
        words="1 4 3 3 3 2 2 1 1 0 -1 1 1 0",
        buffers={"weight": random(4, 3, 3, 3, seed=1)},
        expected=ort("ConvTranspose", random(4, 3, 3, 3, seed=1), strides=[2, 2], pads=[1, 1, 1, 1]),
    ),
    *(
        Case(
            type="Deconvolution",
            words=f"1 4 3 {kernel} {kernel} {stride} {stride} 1 1 0 3 1 1 0",
            buffers={"weight": random(4, 3, kernel, kernel, seed=1)},
            expected=ort(
                "ConvTranspose",
                random(4, 3, kernel, kernel, seed=1),
                strides=[stride] * 2,
                pads=[pad] * 4,
                output_padding=[2 * pad + stride - kernel] * 2,
            ),
        )
        for kernel, stride, pad in ((3, 2, 1), (2, 3, 0), (5, 2, 2))
    ),
    Case(
        type="Pooling",
        words="0 3 3 2 2 1 1 -1 -1 -1 1 0 0 0",
        expected=ort("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1),
    ),
    Case(type="Pooling", words="1 0 0 1 1 0 0 -1 -1 -1 0 0 -1 -1", expected=ort("GlobalAveragePool")),
    Case(
        type="Pooling",
        words="1 -1 -1 -1 -1 0 0 -1 -1 -1 0 1 3 2",
        operands=(random(1, 4, 4, 6),),
        expected=ort("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    ),
    Case(
        type="Pooling1D",
        words="1 3 2 1 -1 -1 -1 0",
        operands=(LINE,),
        expected=ort("AveragePool", kernel_shape=[3], strides=[2], pads=[1, 1]),
    ),
    Case(
        type="Pooling3D",
        words="0 2 3 3 2 1 2 0 1 1 -1 -1 -1 -1 0",
        operands=(VOLUME,),
        expected=ort("MaxPool", kernel_shape=[2, 3, 3], strides=[2, 1, 2], pads=[0, 1, 1, 0, 1, 1]),
    ),
    Case(
        type="Pooling3D",
        words="0 0 0 0 1 1 1 0 0 0 -1 -1 -1 -1 0",
        operands=(VOLUME,),
        expected=ort("GlobalMaxPool"),
    ),
    Case(
        type="Upsample",
        words="2 0 0 1 9 11",
        expected=ort(
            "Resize",
            None,
            None,
            integers(1, 4, 9, 11),
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
    ),
    Case(
        type="BatchNormCxx",
        buffers={"scale": SCALE, "bias": SCALE[::-1]},
        expected=ort(
            "BatchNormalization",
            SCALE,
            SCALE[::-1].copy(),
            np.zeros(4, np.float32),
            np.ones(4, np.float32) - np.float32(1e-5),
        ),
    ),
    Case(
        type="InstBatchNormCxx",
        words="4 0.01",
        buffers={"scale": SCALE, "bias": SCALE[::-1]},
        expected=ort("InstanceNormalization", SCALE, SCALE[::-1].copy(), epsilon=0.01),
    ),
    Case(
        type="GroupNorm",
        words="2 0.01",
        operands=(IMAGE, SCALE, SCALE[::-1]),
        constants=2,
        # Of version 21, whose scales are per channel.
        expected=lambda x, scale, bias: ort(
            "GroupNormalization", scale, bias.copy(), opset=21, num_groups=2, epsilon=0.01
        )(x),
    ),
    *(
        Case(
            type="LayerNorm",
            words=f"{reduced} 0.01",
            operands=(IMAGE, random(5, 6, seed=1), random(5, 6, seed=2)),
            constants=2,
            expected=lambda x, scale, bias: ort("LayerNormalization", scale, bias, axis=-2, epsilon=0.01)(x),
        )
        for reduced in (2, 0)
    ),
    Case(type="LRN", words="0.3 0.75 2 3", expected=ort("LRN", alpha=0.3, beta=0.75, bias=2.0, size=3)),
    # An even window is the odd one below it, but for the division: α is over 4 where the window has 3.
    Case(type="LRN", words="0.4 0.75 2 4", expected=ort("LRN", alpha=0.3, beta=0.75, bias=2.0, size=3)),
    Case(type="Normalize", words="0 1e-12 0 1 2", expected=ort("LpNormalization", axis=1, p=2)),
    Case(type="Normalize", words="0 1e-12 0 1 1", expected=ort("LpNormalization", axis=1, p=1)),
    Case(type="ArgMaxOrMin", words="1 1 0 0", expected=ort("ArgMax", axis=1, keepdims=0)),
    Case(type="ArgMaxOrMin", words="0 -1 1 0", expected=ort("ArgMin", axis=-1, keepdims=1)),
    Case(
        type="TopK",
        words="-1 0 1 2",
        outputs=2,
        expected=ort("TopK", integers(2), outputs=2, axis=-1, largest=0),
    ),
    Case(
        type="NonMaxSuppression",
        words="0 2 0.5 0.1",
        operands=(BOXES, np.float32([[[0.9, 0.8, 0.05]]])),
        expected=ort("NonMaxSuppression", integers(2), np.float32([0.5]), np.float32([0.1])),
    ),
    Case(
        type="Histogram",
        words="4",
        operands=(np.float32([[0, 3, 1], [1, 1, 3]]),),
        expected=lambda x: np.bincount(x.astype(int).ravel(), minlength=4),
    ),
    Case(type="Cast", words="3", operands=(3 * IMAGE,), expected=ort("Cast", to=onnx.TensorProto.INT32)),
    Case(type="Cast", words="0", expected=ort("Cast", to=onnx.TensorProto.FLOAT)),
    Case(
        type="Concat", words="2", operands=(IMAGE, random(1, 4, 2, 6, seed=1)), expected=ort("Concat", axis=2)
    ),
    Case(
        type="ConstantOfShape",
        operands=(np.float32([2, 3]),),
        buffers={"value": np.float32([1.5])},
        expected=ort("ConstantOfShape", cast=np.int64, value=numpy_helper.from_array(np.float32([1.5]))),
    ),
    Case(type="Expand", words="4 2 4 5 6", expected=ort("Expand", integers(2, 4, 5, 6))),
    Case(
        type="Expand", words="0", operands=(IMAGE, integers(2, 4, 5, 6)), constants=1, expected=ort("Expand")
    ),
    Case(type="Flatten", words="2", expected=ort("Flatten", axis=2)),
    Case(
        type="OneHot",
        words="-1 4 0 1",
        operands=(np.float32([0, 3, 1]),),
        expected=lambda x: ort("OneHot", np.int64(4), np.float32([0, 1]))(x.astype(np.int64)),
    ),
    Case(
        type="OneHot",
        words="0 4 0 1",
        operands=(np.float32([0, 3, 1]), integers(4), np.float32([-2, 5])),
        constants=2,
        expected=lambda x, depth, ends: ort("OneHot", axis=0)(x.astype(np.int64), depth, ends),
    ),
    *(
        Case(
            type="Pad",
            words=f"0 0 1 2 2 1 0 0 {number} 0.5",
            expected=ort("Pad", integers(0, 0, 1, 2, 0, 0, 2, 1), np.float32(0.5), mode=mode),
        )
        for number, mode in enumerate(("constant", "reflect", "edge"))
    ),
    Case(
        type="PadV2",
        words="3 1 0 2 0 1 1 0 0.5",
        operands=(LINE,),
        expected=ort("Pad", integers(1, 0, 2, 0, 1, 1), np.float32(0.5)),
    ),
    Case(type="Permute", words="4 0 2 3 1", expected=ort("Transpose", perm=[0, 2, 3, 1])),
    Case(type="PixelShuffle", words="2", expected=ort("DepthToSpace", blocksize=2, mode="CRD")),
    Case(type="Range", operands=tuple(np.float32(n) for n in (1, 6, 2)), expected=ort("Range")),
    Case(type="Reorg", words="2 1 0 0", expected=ort("DepthToSpace", blocksize=2)),
    Case(type="Reorg", words="2 1 0 1", expected=ort("DepthToSpace", blocksize=2, mode="CRD")),
    Case(
        type="Reorg",
        words="2 0 0 0",
        operands=(random(1, 4, 4, 6),),
        expected=ort("SpaceToDepth", blocksize=2),
    ),
    Case(type="Reshape", words="0 3 3 0 -1 3 0", expected=ort("Reshape", integers(0, -1, 3))),
    Case(
        type="Reshape",
        words="0 0 0 0",
        operands=(IMAGE, integers(4, -1)),
        constants=1,
        expected=ort("Reshape"),
    ),
    Case(type="ShuffleChannel", words="2", expected=shuffled),
    Case(type="SplitV", words="1 2 1 3", outputs=2, expected=ort("Split", integers(1, 3), outputs=2, axis=1)),
    Case(type="SplitV", words="1 0", outputs=2, expected=ort("Split", outputs=2, axis=1, num_outputs=2)),
    Case(type="Squeeze", words="1 0", expected=ort("Squeeze", integers(0))),
    Case(type="Unsqueeze", words="2 0 -1", expected=ort("Unsqueeze", integers(0, -1))),
    Case(
        type="StridedSliceV2",
        words="2 1 -1 2 2147483647 -6 2 2 3 2 2 -2",
        expected=ort("Slice", integers(1, -1), integers(2**31 - 1, -6), integers(2, 3), integers(2, -2)),
    ),
    Case(type="Tile", words="1 2 1 2", expected=ort("Tile", integers(1, 2, 1, 2))),
    Case(
        type="Gather",
        words="2 0 1",
        buffers={"indices": integers(0, 3, 1)},
        expected=ort("Gather", integers(0, 3, 1), axis=2),
    ),
    Case(
        type="Gather",
        words="0 1 0",
        operands=(np.float32([0, 2]),),
        buffers={"data": random(3, 4, seed=1)},
        expected=lambda x: ort("Gather")(random(3, 4, seed=1), x.astype(np.int64)),
    ),
    Case(
        type="GatherND",
        words="1",
        operands=(random(2, 4, 5), integers(0, 3, shape=(2, 1))),
        constants=1,
        expected=ort("GatherND", batch_dims=1),
    ),
    Case(
        type="GridSample",
        words="2 0 0",
        operands=(IMAGE, np.float32(0.8) * random(1, 3, 2, 2, seed=1)),
        expected=ort("GridSample", mode="linear", padding_mode="zeros", align_corners=0),
    ),
    Case(
        type="RoiAlign",
        words="1 2 3 2 0.5",
        operands=(IMAGE, 2 * REGIONS, integers(0, 0)),
        constants=2,
        expected=ort(
            "RoiAlign",
            coordinate_transformation_mode="output_half_pixel",
            output_height=2,
            output_width=3,
            sampling_ratio=2,
            spatial_scale=0.5,
        ),
    ),
    *(
        Case(
            type="ScatterElements",
            words=f"1 {number}",
            operands=(random(3, 4), integers(0, 2, 3, 1, shape=(2, 2)), random(2, 2, seed=1)),
            constants=2,
            expected=ort("ScatterElements", axis=1, reduction=reduction),
        )
        for number, reduction in enumerate(("none", "add"))
    ),
    Case(
        type="Scatter",
        words="1",
        operands=(random(3, 4), random(2, 2, seed=1)),
        buffers={"indices": integers(0, 2, 3, 1, shape=(2, 2))},
        expected=lambda x, updates: ort("ScatterElements", axis=1)(
            x, integers(0, 2, 3, 1, shape=(2, 2)), updates
        ),
    ),
    Case(
        type="ScatterND",
        operands=(random(4, 3),),
        buffers={"indices": integers(2, 0, shape=(2, 1)), "updates": random(2, 3, seed=1)},
        expected=ort("ScatterND", integers(2, 0, shape=(2, 1)), random(2, 3, seed=1)),
    ),
    *(
        Case(
            type="LSTMONNX",
            words=f"0 3 {number}",
            operands=(SEQUENCE, *(x[:count] for x in (W_LSTM, R_LSTM, B_LSTM, *STATES))),
            constants=5,
            outputs=3,
            expected=lambda x, w, r, b, h, c, direction=direction: joined_directions(
                ort(
                    "LSTM", None, h.copy(), c.copy(), hidden_size=3, direction=direction, outputs=3, opset=14
                )(x, w, r, b)
            ),
        )
        for number, direction, count in ((0, "forward", 1), (1, "reverse", 1), (2, "bidirectional", 2))
    ),
    Case(type="HDRGuide", operands=(random(1, 3, 4, 5),), buffers=COLOURS, expected=repeated_curves),
    Case(type="Inverse", operands=(random(3, 2, 2),), expected=np.linalg.inv),
    Case(
        type="PriorBox",
        words="1 30 1 60 1 1 4 0.1 0.1 0.2 0.2 3 1 2 0.5 300 200 8 9 0.5",
        operands=(IMAGE,),
        expected=lambda x: prior_boxes(x, 300, 200, 8, 9),
    ),
    Case(
        type="PriorBox",
        words="1 30 1 60 1 1 4 0.1 0.1 0.2 0.2 3 1 2 0.5 0 0 0 0 0.5",
        operands=(IMAGE, random(1, 3, 40, 60)),
        expected=lambda x, image: prior_boxes(x, 60, 40, 60 / 6, 40 / 5),
    ),
    Case(type="DetectionOutput", words="21 1 0 0 2 200 0.01 0.45 400 1", expected=None),
]


def prior_boxes(x: Array, width: int, height: int, step_w: float, step_h: float) -> Array:
    """PriorBox, box by box: sizes 30 and √(30 · 60), ratios 2 and ½."""
    boxes = []
    for row, column in np.ndindex(*x.shape[2:]):
        for w, h in ((30, 30), (1800**0.5,) * 2, (30 * 2**0.5, 30 / 2**0.5), (30 / 2**0.5, 30 * 2**0.5)):
            left, top = (column + 0.5) * step_w - w / 2, (row + 0.5) * step_h - h / 2
            corners = (left / width, top / height, (left + w) / width, (top + h) / height)
            boxes += [min(max(corner, 0), 1) for corner in corners]
    return np.array([boxes, [0.1, 0.1, 0.2, 0.2] * (len(boxes) // 4)]).reshape(1, 2, -1, 1)


def joined_directions(results: Sequence[Array]) -> list[Array]:
    every, *last = results
    return [np.concatenate(list(np.moveaxis(every, 1, 0)), axis=-1), *last]


NAMES = [f"{case.type} {case.words}" for case in CASES]
EVALUATED = [case for case in CASES if case.expected is not None]
each = pytest.mark.parametrize("case", CASES, ids=NAMES)
each_evaluated = pytest.mark.parametrize(
    "case", EVALUATED, ids=[f"{case.type} {case.words}" for case in EVALUATED]
)


def test_every_type_is_described_evaluated_and_tested():
    assert LAYER_TYPES.keys() == MEANINGS.keys()
    assert {case.type for case in CASES} == LAYER_TYPES.keys()


def test_numbers_of_types_are_their_own():
    ids = [description.type_id for description in LAYER_TYPES.values()]
    assert len(set(ids)) == len(ids)


@each
def test_a_file_of_the_layer_comes_back_byte_for_byte(case):
    assert write_proto(case.proto()) == case.text(case.words)
    assert write_model(parse_model(case.model(), "model")) == case.model()


@each_evaluated
def test_it_computes_what_onnx_runtime_does(case):
    found = evaluate(case.graph(), case.inputs())
    made = case.expected(*case.operands)
    for place, expected in enumerate(made if isinstance(made, list | tuple) else [made]):
        result = found[f"y{place}"]
        assert result.shape == expected.shape
        size = np.abs(expected.astype(np.float64)).max(initial=1)
        np.testing.assert_allclose(result.astype(np.float64), expected, rtol=0, atol=3e-6 * size)


@each_evaluated
def test_an_honest_float32_run_is_within_its_bounds(case):
    """ONNX Runtime's result passes; one that is off by a hundredth of the output does not."""
    graph = case.graph()
    allowed = allowed_outputs(graph, case.inputs(), declared("float32"))
    made = case.expected(*case.operands)
    for place, expected in enumerate(made if isinstance(made, list | tuple) else [made]):
        truth, bound = allowed[f"y{place}"]
        size = np.abs(truth.astype(np.float64)).max(initial=0)
        assert np.abs(truth.astype(np.float64) - expected).max(initial=0) <= bound
        assert bound < 1e-2 * max(size, 1e-3)


@each_evaluated
def test_its_run_is_judged_from_the_runtime_s_text(case, tmp_path):
    made = case.expected(*case.operands)
    listed = made if isinstance(made, list | tuple) else [made]
    written = {
        f"y{place}": x.astype(np.int32 if x.dtype.kind == "i" else np.float32)
        for place, x in enumerate(listed)
    }
    write_output(tmp_path / "run.out", written)
    run = judge_outputs(case.graph(), case.inputs(), read_output(tmp_path / "run.out"), "NAIVE", "float32")
    assert run.passes
    written["y0"] = written["y0"] + 1
    write_output(tmp_path / "wrong.out", written)
    wrong = judge_outputs(
        case.graph(), case.inputs(), read_output(tmp_path / "wrong.out"), "NAIVE", "float32"
    )
    assert not wrong.passes


@each
def test_too_few_parameters_are_a_named_error_or_a_default(case):
    words = case.words.split()
    for count in range(len(words)):
        with contextlib.suppress(FileError):
            case.graph(" ".join(words[:count]))
    if words and case.type not in OPTIONAL:
        with pytest.raises(FileError, match=f"{case.type} 'n'"):
            case.graph("")


#: Types of which the last parameters may be missing, or that take all that is left.
OPTIONAL = {name for name in LAYER_TYPES if name in ("Tile",) or LAYER_TYPES[name].payload == "constant"}


@each
def test_too_many_parameters_are_a_named_error(case):
    if case.type.startswith("Reduce") or case.type == "Tile":
        return
    padded = "0 0 0" if case.type in ("Pooling", "Upsample", "Convolution") else ""
    with pytest.raises(FileError, match=f"{case.type} 'n'"):
        case.graph(f"{case.words} {padded} 1 1")


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_parameters_never_crash(data):
    case = data.draw(st.sampled_from(EVALUATED))
    words = case.words.split()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(words)))
        word = data.draw(
            st.sampled_from(["0", "1", "-1", "2", "7", "-3", "1e9", "nan", "inf", "x", "2147483647"])
        )
        words[place : place + data.draw(st.integers(0, 1))] = [word]
    with contextlib.suppress(MobileInstError), np.errstate(all="ignore"):
        evaluate(case.graph(" ".join(words)), case.inputs())


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.expected is None], ids=lambda case: case.type
)
def test_what_is_read_and_not_evaluated_says_so(case):
    with pytest.raises(UnsupportedOperationError, match="not evaluated"):
        evaluate(case.graph(), case.inputs())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Tile", "1 1 99999 99999"),
        ("Expand", "6 99999 9999 1 4 5 6"),
        ("Pad", "0 0 99999 99999 99999 99999 0 0 0 0"),
        ("Upsample", "2 0 0 0 99999 99999"),
        ("Upsample", "1 99999 99999 0"),
        ("Pooling", "0 3 3 1 1 99999 99999 -1 -1 -1 0 0 0 0"),
    ],
)
def test_what_asks_for_too_much_memory_is_refused_before(kind, words):
    case = next(case for case in CASES if case.type == kind)
    graph = case.graph(words)
    tracemalloc.start()
    with pytest.raises(ShapeError, match=f"{kind} 'n'"):
        evaluate(graph, case.inputs())
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_constants_never_crash(data):
    case = data.draw(st.sampled_from([case for case in CASES if case.buffers or case.constants]))
    content = bytearray(case.model())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(len(content) - 1, 120)))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MobileInstError), np.errstate(all="ignore"):
        graph = join(case.proto(), parse_model(bytes(content), "model"), "test")
        evaluate(graph, case.inputs())
