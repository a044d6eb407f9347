"""Every operation of the vocabulary, with ordinary and awkward attributes, and the probes.

A probe's input is chosen so that a wrong result shows the mistake at a look: ramps, impulses, numbers that
name their place, exact ties, values at the ends of a range.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from golden.case import Case, Confirmation, Golden, halves, json_value
from golden.computation import of_model, operation_bounds, operation_model, run
from golden.sources import source as sources
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

PARAMETRIC = frozenset(
    (
        "Conv",
        "ConvTranspose",
        "Gemm",
        "BatchNormalization",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "PRelu",
        "QuantizeLinear",
        "DequantizeLinear",
    )
)
"""Operations of one tensor and parameters, which a model holds as initializers."""


WITH_ALL_OUTPUTS = {
    "MaxPool": ("refimpl.ops.max_pool_with_indices",),
    "LayerNormalization": ("refimpl.ops.layer_normalization_with_statistics",),
}

_DOUBLE_DOUBLE = tuple(
    f"refimpl.ops.double_double.{name}" for name in ("product", "multiplied", "added", "quotient", "chosen")
)
BENEATH = {
    "Gelu": (
        "refimpl.ops.last_place.gelu",
        "refimpl.ops.last_place.gelu_tanh",
        "refimpl.ops.normal_distribution.upper_tail",
        *_DOUBLE_DOUBLE,
    ),
    "Swish": ("refimpl.ops.last_place.swish", *_DOUBLE_DOUBLE),
    "Mish": ("refimpl.ops.last_place.mish", *_DOUBLE_DOUBLE),
}
"""What an operation is made of."""


class Draw:
    """Random operands of a call, from its own seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Array:
        """Return normal float32 numbers that are exact in float16."""
        return halves(self.rng.normal(size=shape) * scale + shift)

    def between(self, low: float, high: float, *shape: int) -> Array:
        """Return uniform float32 numbers that are exact in float16."""
        return halves(self.rng.uniform(low, high, shape))

    def integers(self, low: int, high: int, *shape: int, dtype: Any = np.int64) -> Array:
        """Return integers from ``low`` to below ``high``."""
        return self.rng.integers(low, high, shape).astype(dtype)

    def logical(self, *shape: int) -> Array:
        """Return booleans."""
        return self.rng.random(shape) < 0.5


Make = Callable[[Draw], tuple[Any, ...]]


@dataclass(frozen=True)
class Call:
    """One declared call. Arrays among the operands are fed; numbers and tuples are part of the call."""

    name: str
    op_type: str
    make: Make
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shows: str = ""
    outputs: int = 1

    @property
    def seed(self) -> int:
        """The seed of its operands: the CRC-32 of its name."""
        return zlib.crc32(self.name.encode())

    @cached_property
    def drawn(self) -> tuple[Any, ...]:
        """The operands as declared."""
        return self.make(Draw(self.seed))

    @cached_property
    def operands(self) -> dict[str, Array | None]:
        """Name of the operation's parameter → operand."""
        return {
            name: _array(x) for name, x in zip(_names(self.op_type, len(self.drawn)), self.drawn, strict=True)
        }

    @cached_property
    def fed(self) -> int:
        """How many leading operands are a model's inputs."""
        arrays = [isinstance(x, np.ndarray) for x in self.drawn]
        leading = next((i for i, is_array in enumerate(arrays) if not is_array), len(arrays))
        return min(leading, 1) if self.op_type in PARAMETRIC else leading

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return ("output",) if self.outputs == 1 else tuple(f"output{i}" for i in range(self.outputs))

    def model(self) -> onnx.ModelProto:
        """Return the float32 model of this one node."""
        model = operation_model(
            self.op_type, list(self.operands.values()), self.attributes, self.fed, self.results
        )
        return _renamed(model, {f"x{i}": name for i, name in enumerate(self.operands)})

    def feeds(self) -> dict[str, Array]:
        """Return the model's inputs."""
        return {name: x for name, x in list(self.operands.items())[: self.fed] if x is not None}

    def case(self) -> Case:
        """Compute the golden."""
        model, feeds = self.model(), self.feeds()
        truth = run(model, feeds)
        computation = of_model(model, feeds)
        inputs = {name: x for name, x in self.operands.items() if x is not None}

        def confirm() -> list[Confirmation]:
            bounds = operation_bounds(computation, truth, sources.FLOAT32)
            return sources.confirm_operation(self.op_type, model, feeds, computation, truth, bounds)

        return Case(
            inputs,
            truth,
            lambda form: operation_bounds(computation, truth, form),
            confirm,
            lambda: model.SerializeToString(deterministic=True),
            settled=sources.settled(computation),
        )

    def golden(self) -> Golden:
        """Return the entry of the list."""
        arguments = {
            **{
                name: json_value(x)
                for name, x in zip(self.operands, self.drawn, strict=True)
                if not isinstance(x, np.ndarray)
            },
            **{name: json_value(x) for name, x in self.attributes.items()},
        }
        kind = "probe" if self.name.startswith("probes/") else "operation"
        function = f"refimpl.ops.{OPERATIONS[self.op_type].__name__}"
        covers = WITH_ALL_OUTPUTS.get(self.op_type, ()) if self.outputs > 1 else BENEATH.get(self.op_type, ())
        return Golden(self.name, kind, function, arguments, self.seed, self.shows, self.case, covers)


def _array(operand: Any) -> Array | None:
    if operand is None or isinstance(operand, np.ndarray):
        return operand
    return np.asarray(operand, np.float32 if isinstance(operand, float) else np.int64)


def _names(op_type: str, count: int) -> list[str]:
    parameters = inspect.signature(OPERATIONS[op_type]).parameters.values()
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return named[:count] if named else [f"input{i}" for i in range(count)]


def _renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    for tensor in (*model.graph.input, *model.graph.initializer):
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        operands = [names.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(operands)
    return model


def goldens() -> Iterator[Golden]:
    """Yield the goldens of single operations."""
    for call in CALLS:
        yield call.golden()


# --- the list -------------------------------------------------------------------------------------

CALLS: list[Call] = []


def _call(
    name: str, op_type: str, make: Make, *, shows: str = "", outputs: int = 1, **attributes: Any
) -> None:
    folder = "" if name.startswith("probes/") else "operations/"
    rounded = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in attributes.items()}
    CALLS.append(
        Call(folder + name, op_type, make, rounded, shows or f"{op_type} on ordinary numbers", outputs)
    )


def _places(*shape: int) -> Array:
    """Numbers that name their place, 0, 1, 2, …: exact in float16 up to 2048."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def _impulse(*shape: int, at: tuple[int, ...]) -> Array:
    """One at a place, zero elsewhere."""
    x = np.zeros(shape, np.float32)
    x[at] = 1
    return x


def _line(low: float, high: float, count: int, *extra: float) -> Array:
    return halves(np.concatenate([np.linspace(low, high, count), extra]))


# Convolutions
_call(
    "conv.pointwise",
    "Conv",
    lambda d: (d(2, 6, 5, 7), d(4, 6, 1, 1, scale=0.4), d(4)),
    shows="1×1 with a bias",
)
_call(
    "conv.same",
    "Conv",
    lambda d: (d(1, 5, 9, 7), d(6, 5, 3, 3, scale=0.2), d(6)),
    pads=(1, 1, 1, 1),
    shows="3×3 with padding and a bias",
)
_call(
    "conv.strided",
    "Conv",
    lambda d: (d(1, 3, 11, 14), d(8, 3, 3, 3, scale=0.2)),
    pads=(1, 1, 1, 1),
    strides=(2, 2),
    shows="the stem: stride 2, no bias; an even and an odd side",
)
_call(
    "conv.depthwise",
    "Conv",
    lambda d: (d(1, 8, 9, 7), d(8, 1, 5, 5, scale=0.2)),
    pads=(2, 2, 2, 2),
    group=8,
    strides=(2, 2),
    shows="depthwise 5×5, stride 2",
)
_call(
    "conv.grouped",
    "Conv",
    lambda d: (d(1, 6, 6, 5), d(9, 2, 3, 3, scale=0.3), d(9)),
    pads=(1, 1, 1, 1),
    group=3,
    shows="three groups: input and output channels of a group are neighbours",
)
_call(
    "conv.dilated",
    "Conv",
    lambda d: (d(1, 3, 12, 10), d(4, 3, 3, 3, scale=0.2)),
    dilations=(2, 3),
    pads=(2, 3, 2, 3),
    shows="dilation 2 and 3",
)
_call(
    "conv.uneven_pads",
    "Conv",
    lambda d: (d(1, 2, 7, 6), d(3, 2, 3, 2, scale=0.3)),
    pads=(0, 1, 2, 1),
    strides=(1, 2),
    shows="padding differs at top and bottom; kernel 3×2; strides 1 and 2",
)
_call(
    "conv.wide_sum",
    "Conv",
    lambda d: (d(1, 64, 6, 6), d(4, 64, 3, 3, scale=0.05)),
    pads=(1, 1, 1, 1),
    shows="576 products in each sum",
)
_call(
    "conv.line", "Conv", lambda d: (d(2, 3, 17), d(4, 3, 5, scale=0.3)), pads=(2, 2), shows="one spatial axis"
)
_call(
    "conv_transpose.strided",
    "ConvTranspose",
    lambda d: (d(1, 4, 4, 5), d(4, 3, 3, 3, scale=0.3), d(3)),
    strides=(2, 2),
    pads=(1, 1, 1, 1),
    output_padding=(1, 1),
    shows="stride 2 with output padding",
)
_call(
    "conv_transpose.grouped",
    "ConvTranspose",
    lambda d: (d(1, 4, 3, 4), d(4, 2, 2, 2, scale=0.5)),
    group=2,
    strides=(2, 2),
    shows="two groups",
)
_call(
    "probes/conv.impulse",
    "Conv",
    lambda d: (_impulse(1, 1, 7, 9, at=(0, 0, 3, 4)), _places(1, 1, 3, 5) + 1),
    pads=(1, 2, 1, 2),
    shows="an impulse shows the kernel, turned by 180°; not turned: a convolution, not a correlation",
)
_call(
    "probes/conv.corner",
    "Conv",
    lambda d: (_impulse(1, 1, 6, 6, at=(0, 0, 0, 0)), _places(1, 1, 3, 3) + 1),
    pads=(1, 1, 1, 1),
    strides=(2, 2),
    shows="an impulse in the corner: where the first window lies",
)
_call(
    "probes/conv.same_upper",
    "Conv",
    lambda d: (_places(1, 1, 6, 6), np.ones((1, 1, 3, 3), np.float32)),
    pads=(1, 1, 1, 1),
    strides=(2, 2),
    shows="a ramp at stride 2: TensorFlow's SAME pads only at the bottom and right",
)
_call(
    "probes/conv.channels",
    "Conv",
    lambda d: (_places(1, 4, 3, 3), halves(10.0 ** np.arange(-2, 2)).reshape(4, 1, 1, 1)),
    group=4,
    shows="each channel has its own power of ten: which one went where",
)

# Products
_call("mat_mul.batched", "MatMul", lambda d: (d(2, 3, 4, 6), d(3, 6, 5)), shows="batch axes broadcast")
_call("mat_mul.attention", "MatMul", lambda d: (d(1, 4, 10, 16), d(1, 4, 16, 12)), shows="queries times keys")
_call("mat_mul.vector", "MatMul", lambda d: (d(7), d(7, 4)), shows="a vector is a row")
_call(
    "gemm.linear", "Gemm", lambda d: (d(5, 8), d(6, 8, scale=0.4), d(6)), transB=1, shows="PyTorch's Linear"
)
_call(
    "gemm.awkward",
    "Gemm",
    lambda d: (d(8, 5), d(8, 6, scale=0.4), d(5, 1)),
    transA=1,
    alpha=0.5,
    beta=2.0,
    shows="A transposed, α and β, a column broadcast",
)
_call(
    "einsum.masks",
    "Einsum",
    lambda d: (d(2, 5, 8), d(2, 8, 3, 4)),
    equation="bnd,bdhw->bnhw",
    shows="kernels times mask features",
)
_call(
    "probes/mat_mul.places",
    "MatMul",
    lambda d: (_places(3, 4), np.eye(4, dtype=np.float32)[:, [2, 0, 3, 1]]),
    shows="a permutation of columns: 2, 0, 3, 1",
)

# Normalisation
_call(
    "batch_normalization.ordinary",
    "BatchNormalization",
    lambda d: (d(2, 5, 4, 3), d.between(0.5, 1.5, 5), d(5), d(5), d.between(0.2, 2, 5)),
    shows="running statistics",
)
_call(
    "batch_normalization.tiny_variance",
    "BatchNormalization",
    lambda d: (
        d(1, 4, 3, 3, scale=0.01),
        d.between(0.5, 1.5, 4),
        d(4),
        d(4, scale=0.01),
        halves([1e-3, 1e-4, 1e-5, 0]),
    ),
    shows="variances about ε, and zero: ε is inside the root, and 1e-5",
)
_call(
    "layer_normalization.ordinary",
    "LayerNormalization",
    lambda d: (d(2, 5, 32), d(32), d(32)),
    shows="the last axis",
)
_call(
    "layer_normalization.axes",
    "LayerNormalization",
    lambda d: (d(2, 3, 4, 5), d(3, 4, 5)),
    axis=1,
    epsilon=1e-3,
    shows="three axes, no bias, ε = 1e-3",
)
_call(
    "instance_normalization.ordinary",
    "InstanceNormalization",
    lambda d: (d(2, 3, 5, 4), d(3), d(3)),
    shows="each channel of each sample",
)
_call(
    "group_normalization.ordinary",
    "GroupNormalization",
    lambda d: (d(2, 6, 3, 4), d(6), d(6)),
    num_groups=3,
    shows="three groups of two channels",
)
_call(
    "probes/layer_normalization.near_constant",
    "LayerNormalization",
    lambda d: (
        halves(np.stack([np.full(16, 3.0), 3 + _places(16) / 512, _places(16), -_places(16)])),
        np.ones(16, np.float32),
        np.zeros(16, np.float32),
    ),
    shows="rows almost constant: the first is 0, in the second ε and the divisor n decide",
)

# Activations
_RANGE = (-8.0, 8.0, 65)
_ENDS = (1e-3, -1e-3, 0.0, 20.0, -20.0)
for _op in ("Sigmoid", "Tanh", "Erf", "Gelu", "Mish", "Softplus", "Swish", "Elu", "Sin", "Cos"):
    _call(f"{_op.lower()}.line", _op, lambda d: (_line(*_RANGE, *_ENDS),), shows="−8 … 8, near 0, and ±20")
_call(
    "gelu.tanh",
    "Gelu",
    lambda d: (_line(*_RANGE, *_ENDS),),
    approximate="tanh",
    shows="the tanh approximation",
)
_call("elu.alpha", "Elu", lambda d: (_line(-5, 5, 41),), alpha=0.5, shows="α = 0.5")
_call("swish.alpha", "Swish", lambda d: (_line(-6, 6, 41),), alpha=1.5, shows="α = 1.5")
_call(
    "leaky_relu.ordinary",
    "LeakyRelu",
    lambda d: (_line(-4, 4, 33),),
    alpha=0.125,
    shows="slope 1/8 below zero",
)
_call(
    "prelu.channels", "PRelu", lambda d: (d(2, 3, 4), d.between(0, 1, 3, 1)), shows="a slope for each channel"
)
_call("relu.ordinary", "Relu", lambda d: (_line(-4, 4, 33),), shows="zero below zero")
_call("clip.relu6", "Clip", lambda d: (_line(-3, 9, 49), 0.0, 6.0), shows="ReLU6")
_call("clip.one_side", "Clip", lambda d: (_line(-3, 9, 49), None, 2.5), shows="no lower end")
_call(
    "hard_sigmoid.pytorch",
    "HardSigmoid",
    lambda d: (_line(-5, 5, 41),),
    alpha=1 / 6,
    beta=0.5,
    shows="slope 1/6",
)
_call("hard_sigmoid.onnx", "HardSigmoid", lambda d: (_line(-5, 5, 41),), shows="ONNX's default slope 0.2")
_call("hard_swish.ordinary", "HardSwish", lambda d: (_line(-5, 5, 41),), shows="x · relu6(x + 3) / 6")
_call("softmax.last", "Softmax", lambda d: (d(2, 4, 10, scale=2),), shows="the last axis")
_call("softmax.channels", "Softmax", lambda d: (d(2, 5, 3, 2, scale=2),), axis=1, shows="axis 1")
_call("log_softmax.last", "LogSoftmax", lambda d: (d(3, 10, scale=2),), shows="the last axis")
_KINKS = (-3.0, 3.0, 0.0, 6.0, -2.998, -3.002, 2.998, 3.002, 5.996, 6.004, 1e-4, -1e-4, 100.0, -100.0)
_KINKED: dict[str, dict[str, Any]] = {
    "HardSigmoid": {"alpha": 1 / 6, "beta": 0.5},
    "HardSwish": {},
    "Relu": {},
}
for _op, _attributes in _KINKED.items():
    _call(
        f"probes/{OPERATIONS[_op].__name__}.kinks",
        _op,
        lambda d: (halves(_KINKS),),
        **_attributes,
        shows="values around −3, 0, 3 and 6: the slope and both ends",
    )
_call(
    "probes/clip.kinks",
    "Clip",
    lambda d: (halves(_KINKS), 0.0, 6.0),
    shows="values around 0 and 6: both ends of ReLU6",
)
_call(
    "probes/softmax.hundred",
    "Softmax",
    lambda d: (
        halves([[100, -100, 99, 0], [100, 100, 100, 100], [-100, -101, -100, -104], [0, 0.5, 0, 88]]),
    ),
    shows="logits of ±100: without subtracting the maximum it overflows",
)
_call(
    "probes/sigmoid.far",
    "Sigmoid",
    lambda d: (halves([-100, -88, -40, -17, -10, 0, 10, 17, 40, 88, 100]),),
    shows="far tails: 1 − σ, overflow of exp",
)
_call(
    "probes/gelu.tails",
    "Gelu",
    lambda d: (_line(-6, -2, 33),),
    shows="the left tail, where the tanh form is off",
)

# Pooling
_call(
    "max_pool.stem",
    "MaxPool",
    lambda d: (d(1, 3, 9, 12),),
    kernel_shape=(3, 3),
    strides=(2, 2),
    pads=(1, 1, 1, 1),
    shows="3×3, stride 2, padded",
)
_call(
    "max_pool.eight",
    "MaxPool",
    lambda d: (d(1, 2, 20, 28),),
    kernel_shape=(8, 8),
    strides=(8, 8),
    shows="X_L: 8×8, sizes that are no multiples: the rest is dropped",
)
_call(
    "max_pool.ceil",
    "MaxPool",
    lambda d: (d(1, 2, 7, 10),),
    kernel_shape=(3, 2),
    strides=(2, 2),
    ceil_mode=1,
    shows="ceil_mode",
)
_call(
    "max_pool.dilated",
    "MaxPool",
    lambda d: (d(1, 2, 9, 9),),
    kernel_shape=(3, 3),
    dilations=(2, 2),
    shows="dilation 2",
)
_call(
    "average_pool.inside",
    "AveragePool",
    lambda d: (d(1, 3, 9, 12),),
    kernel_shape=(3, 3),
    strides=(2, 2),
    pads=(1, 1, 1, 1),
    shows="padding does not count",
)
_call(
    "average_pool.counted",
    "AveragePool",
    lambda d: (d(1, 3, 9, 12),),
    kernel_shape=(3, 3),
    strides=(2, 2),
    pads=(1, 1, 1, 1),
    count_include_pad=1,
    shows="padding counts",
)
_call(
    "average_pool.ceil",
    "AveragePool",
    lambda d: (d(1, 2, 7, 9),),
    kernel_shape=(3, 3),
    strides=(2, 2),
    ceil_mode=1,
    shows="ceil_mode: the last window is divided by what it has",
)
_call(
    "global_average_pool.ordinary", "GlobalAveragePool", lambda d: (d(2, 3, 7, 5),), shows="the mean of a map"
)
_call("global_max_pool.ordinary", "GlobalMaxPool", lambda d: (d(2, 3, 7, 5),), shows="the maximum of a map")
_call(
    "max_pool.indices",
    "MaxPool",
    lambda d: (d(1, 2, 6, 8),),
    kernel_shape=(2, 2),
    strides=(2, 2),
    outputs=2,
    shows="with the flat indices of the maxima",
)
_call(
    "layer_normalization.statistics",
    "LayerNormalization",
    lambda d: (d(4, 16), d(16), d(16)),
    outputs=3,
    shows="with mean and 1 / deviation",
)
_call(
    "probes/max_pool.negative",
    "MaxPool",
    lambda d: (-_places(1, 1, 5, 7) - 1,),
    kernel_shape=(3, 3),
    strides=(2, 2),
    pads=(1, 1, 1, 1),
    shows="all negative: a zero means that padding took part",
)
_call(
    "probes/average_pool.ones",
    "AveragePool",
    lambda d: (np.ones((1, 1, 5, 7), np.float32),),
    kernel_shape=(3, 3),
    strides=(2, 2),
    pads=(1, 1, 1, 1),
    shows="ones: 2/3 or 4/9 at the edge means that padding was counted",
)

# Resizing
_call(
    "resize.up",
    "Resize",
    lambda d: (d(1, 2, 5, 6), None, None, (1, 2, 10, 12)),
    mode="linear",
    shows="×2, half-pixel centres",
)
_call(
    "resize.down",
    "Resize",
    lambda d: (d(1, 2, 11, 13), None, None, (1, 2, 4, 5)),
    mode="linear",
    shows="down, no antialias",
)
_call(
    "resize.odd",
    "Resize",
    lambda d: (d(1, 2, 3, 5), None, None, (1, 2, 7, 9)),
    mode="linear",
    shows="sizes without a common factor",
)
_call(
    "resize.line",
    "Resize",
    lambda d: (d(1, 4, 16), None, None, (1, 4, 10)),
    mode="linear",
    shows="one axis: SeaFormer's position embedding",
)
_call(
    "resize.corners",
    "Resize",
    lambda d: (d(1, 2, 4, 6), None, None, (1, 2, 9, 7)),
    mode="linear",
    coordinate_transformation_mode="align_corners",
    shows="corners aligned",
)
_call(
    "resize.asymmetric",
    "Resize",
    lambda d: (d(1, 2, 4, 6), None, None, (1, 2, 8, 12)),
    mode="linear",
    coordinate_transformation_mode="asymmetric",
    shows="TensorFlow's old default",
)
_call(
    "resize.nearest",
    "Resize",
    lambda d: (d(1, 2, 4, 6), None, None, (1, 2, 8, 9)),
    mode="nearest",
    coordinate_transformation_mode="asymmetric",
    nearest_mode="floor",
    shows="nearest, as PyTorch has it",
)
_call(
    "resize.nearest_half_pixel",
    "Resize",
    lambda d: (d(1, 2, 4, 6), None, None, (1, 2, 8, 12)),
    mode="nearest",
    shows="nearest with half-pixel centres",
)
_call(
    "resize.cubic",
    "Resize",
    lambda d: (d(1, 2, 6, 7), None, None, (1, 2, 12, 10)),
    mode="cubic",
    shows="bicubic, a = −0.75",
)
_call(
    "resize.scales",
    "Resize",
    lambda d: (d(1, 2, 4, 5), None, np.asarray([1, 1, 2, 2], np.float32)),
    mode="linear",
    shows="by scales",
)
_call(
    "probes/resize.ramp",
    "Resize",
    lambda d: (np.tile(np.arange(8, dtype=np.float32), (1, 1, 3, 1)), None, None, (1, 1, 3, 16)),
    mode="linear",
    shows="a ramp: by 1/2 between clamped ends; 0 to 7 evenly is align_corners; from 0 by 1/2, asymmetric",
)
_call(
    "probes/resize.impulse",
    "Resize",
    lambda d: (_impulse(1, 1, 5, 5, at=(0, 0, 2, 2)), None, None, (1, 1, 15, 10)),
    mode="linear",
    shows="an impulse shows the kernel of interpolation: 3 × 2",
)
_call(
    "probes/resize.shrinking_ramp",
    "Resize",
    lambda d: (_places(1, 1, 1, 12), None, None, (1, 1, 1, 5)),
    mode="linear",
    shows="a ramp made shorter: antialiasing changes only its ends",
)

# Arithmetic
for _op in ("Add", "Sub", "Mul"):
    _call(
        f"{_op.lower()}.broadcast", _op, lambda d: (d(2, 3, 4, 5), d(3, 1, 5)), shows="three axes broadcast"
    )
_call("div.broadcast", "Div", lambda d: (d(3, 4), d.between(0.2, 3, 4)), shows="rows by a row")
_call(
    "div.integers",
    "Div",
    lambda d: (np.asarray([7, -7, 7, -7, 6]), np.asarray([2, 2, -2, -2, 3])),
    shows="integers: towards zero",
)
_call("pow.ordinary", "Pow", lambda d: (d.between(0.1, 4, 24), d.between(-2, 3, 24)), shows="positive base")
_call("pow.square", "Pow", lambda d: (d(20, scale=3), 2.0), shows="a square of negative numbers")
_call(
    "mod.fmod",
    "Mod",
    lambda d: (d(20, scale=5), d.between(0.5, 2, 20)),
    fmod=1,
    shows="the sign of the dividend",
)
_call(
    "mod.integers",
    "Mod",
    lambda d: (np.asarray([7, -7, 7, -7]), np.asarray([3, 3, -3, -3])),
    shows="the sign of the divisor",
)
for _op in ("Neg", "Abs", "Sign", "Floor", "Ceil"):
    _call(
        f"{_op.lower()}.ordinary",
        _op,
        lambda d: (_line(-3, 3, 25, 0.0, -0.0),),
        shows="quarters from −3 to 3",
    )
_call("round.halves", "Round", lambda d: (_line(-3.5, 3.5, 29),), shows="halves go to the even neighbour")
_call("reciprocal.ordinary", "Reciprocal", lambda d: (d.between(0.1, 8, 30),), shows="0.1 … 8")
_call("sqrt.ordinary", "Sqrt", lambda d: (d.between(0, 60, 30),), shows="0 … 60")
_call("exp.ordinary", "Exp", lambda d: (_line(-10, 10, 61),), shows="−10 … 10")
_call("log.ordinary", "Log", lambda d: (halves(np.geomspace(1e-4, 6e4, 61)),), shows="1e-4 … 6e4")
for _op in ("Max", "Min", "Sum", "Mean"):
    _call(f"{_op.lower()}.three", _op, lambda d: (d(3, 4), d(4), d(3, 1)), shows="three inputs, broadcast")
_LIMITS = (65504.0, -65504.0, 2.0**-14, -(2.0**-14), 2.0**-24, 3 * 2.0**-24, 60000.0, 1.0)
_call(
    "probes/add.limits",
    "Add",
    lambda d: (halves(_LIMITS), halves(np.asarray(_LIMITS)[::-1] * [1, 1, 1, -1, 1, 1, -1, 1])),
    shows="near the limits of float16: 65504, and numbers below 2⁻¹⁴ that may be flushed to zero",
)
_call(
    "probes/mul.limits",
    "Mul",
    lambda d: (halves(_LIMITS), halves([1, 1, 0.5, 0.25, 1, 2, 1.0, 1])),
    shows="near the limits of float16: what overflows, what is flushed to zero",
)
_call(
    "probes/conv.limits",
    "Conv",
    lambda d: (halves([[[[30000, -30000, 30000, 2.0**-14]]]]), halves([[[[1, 1, 0.5]]]])),
    shows="a sum whose parts fit float16 and whose total does too",
)

# Comparisons and logic
for _op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
    _call(
        f"{OPERATIONS[_op].__name__}.ties",
        _op,
        lambda d: (halves([1, 2, 3, -0.0, 2.5]), halves([1, 3, 2, 0.0, 2.5])),
        shows="ties, and ±0",
    )
for _op in ("And", "Or", "Xor"):
    _call(
        f"{OPERATIONS[_op].__name__}.ordinary",
        _op,
        lambda d: (d.logical(3, 4), d.logical(4)),
        shows="broadcast",
    )
_call("logical_not.ordinary", "Not", lambda d: (d.logical(3, 4),), shows="booleans")
_call("where.broadcast", "Where", lambda d: (d.logical(3, 1), d(3, 4), d(4)), shows="all three broadcast")
_SPECIAL = np.asarray([0, 1, np.inf, -np.inf, np.nan], np.float32)
_call("is_nan.ordinary", "IsNaN", lambda d: (_SPECIAL,), shows="NaN only")
_call("is_inf.ordinary", "IsInf", lambda d: (_SPECIAL,), shows="both infinities")
_call("is_inf.positive", "IsInf", lambda d: (_SPECIAL,), detect_negative=0, shows="only the positive one")

# Reductions and selections
for _op in (
    "ReduceSum",
    "ReduceMean",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMin",
):
    _call(
        f"{OPERATIONS[_op].__name__}.two_axes",
        _op,
        lambda d: (d(2, 3, 4, 5), (1, 3)),
        shows="axes 1 and 3, kept",
    )
    _call(
        f"{OPERATIONS[_op].__name__}.dropped",
        _op,
        lambda d: (d(2, 3, 4), (-1,)),
        keepdims=0,
        shows="the last axis, dropped",
    )
_call(
    "reduce_prod.ordinary", "ReduceProd", lambda d: (d.between(0.5, 1.5, 3, 8), (1,)), shows="eight factors"
)
_call(
    "reduce_log_sum.ordinary",
    "ReduceLogSum",
    lambda d: (d.between(0.1, 2, 3, 8), (1,)),
    shows="positive numbers",
)
_call("cum_sum.forward", "CumSum", lambda d: (d(3, 12), 1), shows="along rows")
_call(
    "cum_sum.reverse",
    "CumSum",
    lambda d: (d(5, 4), 0),
    reverse=1,
    exclusive=1,
    shows="from the end, without the element itself",
)
for _op in ("ArgMax", "ArgMin"):
    _call(f"{OPERATIONS[_op].__name__}.ordinary", _op, lambda d: (d(3, 5, 4),), axis=1, shows="axis 1, kept")
    _call(
        f"probes/{OPERATIONS[_op].__name__}.ties",
        _op,
        lambda d: (halves([[1, 3, 3, 1], [2, 2, 2, 2]]),),
        axis=1,
        keepdims=0,
        shows="exact ties: the first of equals",
    )
_call(
    "arg_max.last",
    "ArgMax",
    lambda d: (halves([[1, 3, 3, 1]]),),
    axis=1,
    select_last_index=1,
    shows="the last of equals",
)
_call("top_k.ordinary", "TopK", lambda d: (d(3, 9), (4,)), outputs=2, shows="four of nine, descending")
_call(
    "top_k.smallest",
    "TopK",
    lambda d: (d(5, 3), (2,)),
    outputs=2,
    axis=0,
    largest=0,
    shows="the two smallest of each column",
)
_call(
    "probes/top_k.ties",
    "TopK",
    lambda d: (halves([[1, 5, 5, 3, 5], [2, 2, 2, 2, 2]]), (3,)),
    outputs=2,
    shows="exact ties: of equals the lower index first",
)

# Making tensors
_call("constant.ordinary", "Constant", lambda d: (), value=_places(2, 3), shows="a literal")
_call(
    "constant_of_shape.ordinary",
    "ConstantOfShape",
    lambda d: ((2, 3),),
    value=np.asarray([2.5], np.float32),
    shows="filled with 2.5",
)
_call("arange.floats", "Range", lambda d: (0.5, 4.0, 0.25), shows="by 1/4")
_call("arange.down", "Range", lambda d: (10, 1, -3), shows="integers, downwards")
_call(
    "one_hot.ordinary",
    "OneHot",
    lambda d: (np.asarray([0, 2, -1, 5]), 4, halves([0, 1])),
    shows="a negative index counts from the end; 5 is nowhere",
)
_call("shape.part", "Shape", lambda d: (d(2, 3, 4),), start=1, shows="from axis 1")
_call("size.ordinary", "Size", lambda d: (d(2, 3, 4),), shows="the number of elements")
_call(
    "non_zero.ordinary",
    "NonZero",
    lambda d: (halves([[1, 0, 2], [0, 0, 3]]),),
    shows="coordinates, axis by axis",
)

# Arranging
_call("identity.ordinary", "Identity", lambda d: (d(2, 3),), shows="unchanged")
_call("cast.to_integers", "Cast", lambda d: (_line(-3, 3, 25),), to=7, shows="towards zero")
_call("cast.to_logical", "Cast", lambda d: (halves([0, -0.0, 0.5, -2]),), to=9, shows="zero is false")
_call("cast_like.ordinary", "CastLike", lambda d: (d.integers(-5, 5, 6), d(1)), shows="integers to floats")
_call(
    "probes/reshape.places",
    "Reshape",
    lambda d: (_places(2, 3, 4), (0, -1, 2)),
    shows="places in order: 0 keeps, −1 is inferred",
)
_call(
    "probes/transpose.tokens",
    "Transpose",
    lambda d: (_places(1, 4, 2, 3),),
    perm=(0, 2, 3, 1),
    shows="places: NCHW to NHWC",
)
_call(
    "probes/transpose.heads",
    "Transpose",
    lambda d: (_places(1, 3, 2, 4),),
    perm=(0, 2, 1, 3),
    shows="places: heads before tokens",
)
_call("transpose.reversed", "Transpose", lambda d: (_places(2, 3, 4),), shows="no permutation: reversed")
_call("flatten.ordinary", "Flatten", lambda d: (_places(2, 3, 4),), axis=2, shows="from axis 2")
_call("squeeze.ordinary", "Squeeze", lambda d: (_places(1, 3, 1, 2), (0, -2)), shows="axes 0 and −2")
_call("unsqueeze.ordinary", "Unsqueeze", lambda d: (_places(3, 2), (0, -1)), shows="first and last")
_call(
    "probes/concat.channels",
    "Concat",
    lambda d: (_places(1, 2, 2, 2), _places(1, 1, 2, 2) + 100),
    axis=1,
    shows="places, then 100 + places",
)
_call(
    "split.sizes",
    "Split",
    lambda d: (_places(2, 7), (3, 1, 3)),
    outputs=3,
    axis=1,
    shows="3, 1 and 3 columns",
)
_call(
    "split.uneven",
    "Split",
    lambda d: (_places(7, 2),),
    outputs=3,
    num_outputs=3,
    shows="three parts of seven: 3, 3 and 1",
)
_call(
    "slice.steps",
    "Slice",
    lambda d: (_places(5, 8), (1, -1), (5, -9), (0, 1), (2, -3)),
    shows="steps 2 and −3",
)
_call(
    "slice.beyond",
    "Slice",
    lambda d: (_places(5, 8), (-3,), (1000,), (1,)),
    shows="from the end, beyond the end",
)
for _mode in ("constant", "edge", "reflect", "wrap"):
    _call(f"pad.{_mode}", "Pad", lambda d: (_places(3, 4), (1, 2, 1, 1)), mode=_mode, shows=f"by {_mode}")
_call(
    "pad.crop",
    "Pad",
    lambda d: (_places(4, 5), (-1, 1, 0, -2), 9.0),
    shows="negative: cropped; filled with 9",
)
_call("expand.ordinary", "Expand", lambda d: (_places(3, 1), (2, 1, 4)), shows="broadcast both ways")
_call("tile.ordinary", "Tile", lambda d: (_places(2, 3), (2, 2)), shows="twice each way")
for _mode in ("DCR", "CRD"):
    _call(
        f"probes/depth_to_space.{_mode}",
        "DepthToSpace",
        lambda d: (_places(1, 8, 2, 3),),
        blocksize=2,
        mode=_mode,
        shows=f"places, {_mode}: which of block and channel runs faster",
    )
_call(
    "probes/space_to_depth.places",
    "SpaceToDepth",
    lambda d: (_places(1, 2, 4, 6),),
    blocksize=2,
    shows="places",
)
_call("trilu.lower", "Trilu", lambda d: (_places(4, 5), -1), upper=0, shows="below the diagonal")
_call("trilu.upper", "Trilu", lambda d: (_places(4, 5),), shows="the diagonal and above")

# Indexing
_call(
    "gather.axis",
    "Gather",
    lambda d: (_places(3, 5), np.asarray([[4, 0], [-1, 2]])),
    axis=1,
    shows="negative indices, two axes for one",
)
_call(
    "gather_elements.ordinary",
    "GatherElements",
    lambda d: (_places(3, 4), d.integers(0, 3, 2, 4)),
    axis=0,
    shows="along columns",
)
_call(
    "gather_nd.ordinary",
    "GatherND",
    lambda d: (_places(3, 4, 2), np.asarray([[0, 1], [2, 3]])),
    shows="rows of two",
)
_call(
    "scatter_nd.ordinary",
    "ScatterND",
    lambda d: (_places(4, 3), np.asarray([[3], [0]]), d(2, 3)),
    shows="two rows replaced",
)
_call(
    "scatter_elements.add",
    "ScatterElements",
    lambda d: (d(3, 4), np.asarray([[0, 0, 2, 1]]), d(1, 4)),
    axis=0,
    reduction="add",
    shows="added",
)
_call(
    "scatter_elements.ordinary",
    "ScatterElements",
    lambda d: (_places(3, 4), np.asarray([[2, 0, 1, 1]]), d(1, 4)),
    axis=0,
    shows="replaced",
)

# Quantisation
_call(
    "quantize_linear.ties",
    "QuantizeLinear",
    lambda d: (_line(-40, 40, 65), 0.25, np.asarray(3, np.uint8)),
    shows="halves to even, saturated to 0 … 255",
)
_call(
    "quantize_linear.channels",
    "QuantizeLinear",
    lambda d: (d(2, 3, 4, scale=2), halves([0.03125, 0.0625, 0.125]), np.zeros(3, np.int8)),
    axis=1,
    shows="a scale for each channel, int8",
)
_call(
    "dequantize_linear.channels",
    "DequantizeLinear",
    lambda d: (
        d.integers(-128, 128, 2, 3, 4, dtype=np.int8),
        halves([0.03, 0.06, 0.12]),
        np.asarray([0, 5, -7], np.int8),
    ),
    axis=1,
    shows="a scale and a zero point for each channel",
)
_call(
    "dynamic_quantize_linear.ordinary",
    "DynamicQuantizeLinear",
    lambda d: (halves([0, 2.484375, -1.5, -0.7, 1.34, 0.53]),),
    outputs=3,
    shows="the range includes zero",
)
