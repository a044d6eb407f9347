"""Random calls of every operation that computes, to measure and test the bounds with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refimpl.ops.operation import Array


@dataclass(frozen=True)
class Trial:
    """One call: operands in float64 or integers, and attributes."""

    op_type: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


Draw = Callable[..., Array]
Make = Callable[[np.random.Generator, Draw], tuple[tuple[Array | None, ...], dict[str, Any]]]

_TRIALS: dict[str, Make] = {}


def trial(op_type: str, seed: int, scale: float = 1.0) -> Trial:
    """Return a random call of ``op_type``, its data about ``scale`` in size and of mixed magnitudes."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Array:
        spread = np.exp(rng.normal(size=shape) * rng.choice([0.0, 0.5, 2.0]))
        return np.asarray(rng.normal(size=shape) * spread * scale + scale * rng.choice([0.0, 0.0, 3.0]))

    inputs, attributes = _TRIALS[op_type](rng, draw)
    return Trial(op_type, inputs, attributes)


def tried() -> tuple[str, ...]:
    """Return the operations that have trials."""
    return tuple(_TRIALS)


def _trial(*op_types: str) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        _TRIALS.update(dict.fromkeys(op_types, make))
        return make

    return register


@_trial("Conv")
def _conv(rng: np.random.Generator, draw: Draw) -> Any:
    group, per_group, kernel = (int(rng.choice(c)) for c in ([1, 1, 4], [1, 3, 16], [1, 3]))
    x, w = draw(1, group * per_group, 9, 8), rng.normal(size=(group * 3, per_group, kernel, kernel))
    stride, pad = int(rng.integers(1, 3)), kernel // 2
    attributes = {"group": group, "strides": (stride, stride), "pads": (pad,) * 4}
    return (x, w, draw(group * 3) if rng.random() < 0.7 else None), attributes


@_trial("DeformConv")
def _deform_conv(rng: np.random.Generator, draw: Draw) -> Any:
    x, w, b = draw(1, 4, 7, 8), rng.normal(size=(6, 2, 3, 3)), draw(6)
    offset, mask = rng.normal(size=(1, 36, 7, 8)) * 2, rng.random((1, 18, 7, 8))
    return (x, w, offset, b, mask), {"group": 2, "offset_group": 2, "pads": (1,) * 4}


@_trial("ConvTranspose")
def _conv_transpose(rng: np.random.Generator, draw: Draw) -> Any:
    stride, kernel = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    return (draw(1, 5, 4, 5), rng.normal(size=(5, 3, kernel, kernel)), draw(3)), {"strides": (stride, stride)}


@_trial("MatMul")
def _mat_mul(rng: np.random.Generator, draw: Draw) -> Any:
    k = int(rng.choice([1, 2, 7, 64, 500]))
    return (draw(2, 6, k), draw(k, 5)), {}


@_trial("Gemm")
def _gemm(rng: np.random.Generator, draw: Draw) -> Any:
    k = int(rng.choice([1, 8, 100]))
    return (draw(6, k), draw(5, k), draw(5)), {"transB": 1, "alpha": 0.75, "beta": 1.25}


@_trial("Einsum")
def _einsum(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(2, 5, 16), draw(2, 16, 4, 3)), {"equation": "bnd,bdhw->bnhw"}


@_trial("Add", "Sub", "Mul")
def _binary(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(40, 25), draw(25)), {}


@_trial("Max", "Min", "Sum", "Mean")
def _several(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(40, 25), draw(25), draw(40, 1)), {}


@_trial("Div")
def _div(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(40, 25), np.exp(rng.normal(size=25))), {}


@_trial("Reciprocal", "Sqrt", "Log")
def _positive(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.abs(draw(1000)) + 1e-3,), {}


@_trial("Pow")
def _power(rng: np.random.Generator, draw: Draw) -> Any:
    exponent = rng.choice([2.0, 3.0, 0.5, 1.75, -1.0])
    return (rng.uniform(0.1, 10, 1000), np.asarray(exponent)), {}


@_trial("Exp", "Sin", "Cos", "Tanh", "Erf", "Sigmoid", "Softplus", "Elu", "Mish", "Swish", "HardSwish")
@_trial("Selu", "Celu", "Softsign", "Tan", "Atan", "Sinh", "Cosh", "Asinh")
def _function(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.clip(draw(2000), -10, 10),), {}


@_trial("Gelu")
def _gelu(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.clip(draw(2000), -10, 10),), {"approximate": str(rng.choice(["none", "tanh"]))}


@_trial("Asin", "Acos", "Atanh")
def _inverse(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.tanh(draw(1000)) * 0.999,), {}


@_trial("Acosh")
def _acosh(rng: np.random.Generator, draw: Draw) -> Any:
    return (1 + np.abs(draw(1000)),), {}


@_trial("Shrink")
def _shrink(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(1000),), {"lambd": 1.5, "bias": 0.75}


@_trial("ThresholdedRelu")
def _thresholded(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(1000),), {"alpha": 0.5}


@_trial("Hardmax")
def _hardmax(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(12, 20),), {"axis": 1}


@_trial("GridSample")
def _grid_sample(rng: np.random.Generator, draw: Draw) -> Any:
    attributes = {
        "mode": str(rng.choice(["linear", "linear", "nearest", "cubic"])),
        "padding_mode": str(rng.choice(["zeros", "border", "reflection"])),
        "align_corners": int(rng.integers(2)),
    }
    return (draw(2, 3, 7, 9), rng.uniform(-1.4, 1.4, (2, 6, 5, 2))), attributes


@_trial("RoiAlign")
def _roi_align(rng: np.random.Generator, draw: Draw) -> Any:
    first, size = rng.uniform(-3, 40, (5, 2)), rng.uniform(0.5, 30, (5, 2))
    attributes = {
        "output_height": 3,
        "output_width": 4,
        "sampling_ratio": int(rng.integers(3)),
        "spatial_scale": float(rng.choice([0.25, 0.3])),
        "coordinate_transformation_mode": str(rng.choice(["half_pixel", "output_half_pixel"])),
    }
    return (draw(2, 3, 12, 13), np.concatenate([first, first + size], 1), rng.integers(0, 2, 5)), attributes


def _recurrent(gates: int) -> Make:
    def make(rng: np.random.Generator, draw: Draw) -> Any:
        hidden, count = int(rng.integers(1, 9)), int(rng.integers(1, 3))
        weights, recurrence = (rng.normal(size=(count, gates * hidden, n)) / n**0.5 for n in (5, hidden))
        x, bias = (
            np.clip(draw(int(rng.integers(1, 7)), 3, 5), -10, 10),
            rng.normal(size=(count, 2 * gates * hidden)),
        )
        attributes = {"hidden_size": hidden, "direction": ("forward", "bidirectional")[count - 1]}
        return (x, weights, recurrence, bias), attributes

    return make


_trial("LSTM")(_recurrent(4))
_trial("GRU")(_recurrent(3))
_trial("RNN")(_recurrent(1))


@_trial("DFT")
def _dft(rng: np.random.Generator, draw: Draw) -> Any:
    length, inverse = int(rng.integers(1, 130)), int(rng.integers(2))
    parts = 2 if inverse else int(rng.integers(1, 3))
    attributes = {"inverse": inverse, "onesided": int(parts == 1 and rng.integers(2))}
    return (draw(2, length, parts), None, np.array(1)), attributes


@_trial("STFT")
def _stft(rng: np.random.Generator, draw: Draw) -> Any:
    length = int(rng.integers(2, 65))
    return (draw(2, 128, 1), np.array(length // 2), rng.random(length)), {}


@_trial("LeakyRelu", "Relu", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round")
def _unary(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(1000),), {}


@_trial("Clip")
def _clip(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(1000), np.asarray(0.0), np.asarray(6.0)), {}


@_trial("PRelu")
def _prelu(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(4, 50), rng.random(50)), {}


@_trial("HardSigmoid")
def _hard_sigmoid(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(1000),), {"alpha": float(np.float32(1 / 6)), "beta": 0.5}


@_trial("Softmax", "LogSoftmax")
def _softmax(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.clip(draw(12, int(rng.integers(1, 200))), -40, 40),), {"axis": -1}


@_trial("BatchNormalization")
def _batch_normalization(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(2, 5, 9, 9), rng.normal(size=5), draw(5), draw(5), rng.uniform(0.01, 2, 5)), {}


@_trial("LayerNormalization")
def _layer_normalization(rng: np.random.Generator, draw: Draw) -> Any:
    n = int(rng.integers(2, 300))
    return (draw(12, n), rng.normal(size=n), rng.normal(size=n)), {"axis": -1}


@_trial("InstanceNormalization")
def _instance_normalization(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(2, 4, 9, 9), rng.normal(size=4), rng.normal(size=4)), {}


@_trial("GroupNormalization")
def _group_normalization(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(2, 4, 9, 9), rng.normal(size=4), rng.normal(size=4)), {"num_groups": 2}


@_trial("RMSNormalization")
def _rms_normalization(rng: np.random.Generator, draw: Draw) -> Any:
    n = int(rng.integers(2, 300))
    return (draw(12, n), rng.normal(size=n)), {"axis": -1}


@_trial("MeanVarianceNormalization")
def _mean_variance_normalization(rng: np.random.Generator, draw: Draw) -> Any:
    # Of one size: about 1e-6 it shows that ONNX Runtime leaves out the function's 1e-9.
    return (rng.normal(size=(2, 3, 9, 9)) + rng.choice([0.0, 3.0]),), {"axes": (0, 2, 3)}


@_trial("LpNormalization")
def _lp_normalization(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(12, int(rng.integers(1, 200))),), {"p": int(rng.integers(1, 3))}


@_trial("LRN")
def _lrn(rng: np.random.Generator, draw: Draw) -> Any:
    attributes = {"size": int(rng.choice([1, 3, 5])), "alpha": 0.5, "beta": 0.75, "bias": 2.0}
    return (np.clip(draw(2, 9, 4, 5), -100, 100),), attributes


@_trial("LpPool")
def _lp_pool(rng: np.random.Generator, draw: Draw) -> Any:
    kernel, p = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    return (np.clip(draw(1, 4, 13, 12), -1e4, 1e4),), {"kernel_shape": (kernel, kernel), "p": p}


@_trial("GlobalLpPool")
def _global_lp_pool(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.clip(draw(2, 8, int(rng.integers(1, 30)), 7), -1e4, 1e4),), {"p": int(rng.integers(1, 4))}


@_trial("NonMaxSuppression")
def _suppression(rng: np.random.Generator, draw: Draw) -> Any:
    boxes = rng.uniform(0, 10, (2, 30, 4))
    limits = np.array([8]), np.array([0.4]), np.array([0.2])
    return (boxes, rng.random((2, 3, 30)), *limits), {"center_point_box": int(rng.integers(2))}


@_trial("Attention")
def _attention(rng: np.random.Generator, draw: Draw) -> Any:
    tokens, keys, size = (int(n) for n in rng.integers(1, 20, 3))
    shapes = (2, 4, tokens, size), (2, 2, keys, size), (2, 2, keys, 5)
    attributes = {"softcap": float(rng.choice([0.0, 2.0])), "is_causal": int(rng.integers(2))}
    return (*(np.clip(draw(*s), -30, 30) for s in shapes), rng.normal(size=(tokens, keys))), attributes


@_trial("RotaryEmbedding")
def _rotary(rng: np.random.Generator, draw: Draw) -> Any:
    angle = rng.uniform(0, 6, (9, 4))
    places = rng.integers(0, 9, (2, 5))
    return (draw(2, 3, 5, 8), np.cos(angle), np.sin(angle), places), {"interleaved": int(rng.integers(2))}


@_trial("AveragePool", "MaxPool")
def _average_pool(rng: np.random.Generator, draw: Draw) -> Any:
    kernel = int(rng.integers(1, 6))
    return (draw(1, 4, 13, 12),), {"kernel_shape": (kernel, kernel), "strides": (2, 2)}


@_trial("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(2, 8, int(rng.integers(1, 30)), 7),), {}


@_trial("Resize")
def _resize(rng: np.random.Generator, draw: Draw) -> Any:
    height, width = (int(n) for n in rng.integers(1, 40, 2))
    modes = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
    attributes = {"mode": str(rng.choice(["linear", "linear", "nearest", "cubic"]))}
    attributes["coordinate_transformation_mode"] = str(rng.choice(modes))
    antialias = int(rng.integers(2)) if attributes["mode"] != "nearest" else 0
    return (draw(1, 2, 11, 13), None, None, np.array([1, 2, height, width])), {
        **attributes,
        "antialias": antialias,
    }


@_trial("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
def _reduction(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.clip(draw(3, int(rng.integers(1, 300)), 4), -1e4, 1e4), np.array([1])), {}


@_trial("ReduceMax", "ReduceMin")
def _extremum(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(3, 30, 4), np.array([1])), {}


@_trial("ReduceProd")
def _product(rng: np.random.Generator, draw: Draw) -> Any:
    return (rng.uniform(0.7, 1.4, (3, 12, 4)), np.array([1])), {}


@_trial("ReduceLogSum")
def _log_sum(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.abs(draw(3, 40, 4)) + 0.1, np.array([1])), {}


@_trial("CumSum")
def _cum_sum(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(5, 60), np.array(1)), {"reverse": int(rng.integers(2))}


@_trial("CumProd")
def _cum_prod(rng: np.random.Generator, draw: Draw) -> Any:
    return (rng.uniform(0.7, 1.4, (5, 20)), np.array(1)), {"exclusive": int(rng.integers(2))}


@_trial("Col2Im")
def _col2im(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(1, 18, 20), np.array([6, 7]), np.array([3, 3])), {}


@_trial("ScatterElements")
def _scatter(rng: np.random.Generator, draw: Draw) -> Any:
    reduction = str(rng.choice(["none", "add", "mul"]))
    return (draw(6, 5), rng.integers(0, 6, (20, 5)), draw(20, 5)), {"axis": 0, "reduction": reduction}


@_trial("Range")
def _range(rng: np.random.Generator, draw: Draw) -> Any:
    return (np.asarray(rng.normal()), np.asarray(20.0), np.asarray(0.1)), {}


@_trial("QuantizeLinear")
def _quantize(rng: np.random.Generator, draw: Draw) -> Any:
    scale = np.asarray(rng.uniform(0.01, 0.1))
    return (draw(40, 25), scale, np.asarray(rng.integers(0, 256), np.uint8)), {}


@_trial("DequantizeLinear")
def _dequantize(rng: np.random.Generator, draw: Draw) -> Any:
    values = rng.integers(-128, 128, (40, 25)).astype(np.int8)
    return (values, rng.uniform(0.01, 0.1, 25), np.zeros(25, np.int8)), {"axis": 1}


@_trial("QLinearConv")
def _quantised_conv(rng: np.random.Generator, draw: Draw) -> Any:
    x, w = rng.integers(0, 256, (1, 3, 7, 8)).astype(np.uint8), rng.integers(-128, 128, (4, 3, 3, 3))
    scales = np.asarray(rng.uniform(0.01, 0.1)), rng.uniform(0.001, 0.01, 4)
    parameters = (
        scales[1],
        np.zeros(4, np.int8),
        np.asarray(rng.uniform(0.05, 0.2)),
        np.asarray(100, np.uint8),
    )
    return (x, scales[0], np.asarray(120, np.uint8), w.astype(np.int8), *parameters), {"pads": (1,) * 4}


@_trial("QLinearMatMul")
def _quantised_product(rng: np.random.Generator, draw: Draw) -> Any:
    a, b = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((2, 5, 30), (30, 4)))
    scale, zero = np.asarray(rng.uniform(0.01, 0.1)), np.asarray(120, np.uint8)
    return (a, scale, zero, b, scale, zero, np.asarray(rng.uniform(0.05, 0.5)), zero), {}


@_trial("DynamicQuantizeLinear")
def _dynamic_quantize(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(40, 25),), {}


@_trial("ArgMax", "ArgMin")
def _arg(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(5, 40),), {"axis": 1}


@_trial("TopK")
def _top_k(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(5, 40), np.array([7])), {}


@_trial("Cast")
def _cast(rng: np.random.Generator, draw: Draw) -> Any:
    return (draw(1000),), {"to": 11}
