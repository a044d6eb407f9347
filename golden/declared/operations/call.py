"""One declared call of an operation, and the operands it may be given."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    "RoiAlign": ("refimpl.ops.sampling.roi_samples",),
    "STFT": ("refimpl.ops.fourier.frames",),
    "DeformConv": ("refimpl.ops.deformable_convolution.deformed_columns",),
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN"), ("refimpl.ops.recurrent.layers", "refimpl.ops.recurrent.assembled")
    ),
}
"""What an operation is made of."""


Draw = Callable[[np.random.Generator], Array]
"""A random operand, drawn when the golden is computed, from the seed of its call."""


def randn(*shape: int, scale: float = 1.0) -> Draw:
    """Normal float32 numbers that are exact in float16."""
    return lambda rng: halves(rng.normal(size=shape) * scale)


def uniform(low: float, high: float, *shape: int) -> Draw:
    """Uniform float32 numbers that are exact in float16."""
    return lambda rng: halves(rng.uniform(low, high, shape))


def integers(low: int, high: int, *shape: int, dtype: type[np.integer[Any]] = np.int64) -> Draw:
    """Integers from ``low`` to below ``high``."""
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def booleans(*shape: int) -> Draw:
    """True or false, equally often."""
    return lambda rng: rng.random(shape) < 0.5


def places(*shape: int) -> Array:
    """Numbers that name their place, 0, 1, 2, …, float32: exact in float16 up to 2048."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def impulse(*shape: int, at: tuple[int, ...]) -> Array:
    """One at a place, zero elsewhere, float32."""
    x = np.zeros(shape, np.float32)
    x[at] = 1
    return x


def line(low: float, high: float, count: int, *extra: float) -> Array:
    """Evenly spaced float32 numbers that are exact in float16, and further ones."""
    return halves(np.concatenate([np.linspace(low, high, count), extra]))


@dataclass(frozen=True)
class Call:
    """One declared call. Arrays among the operands are fed; numbers and tuples are part of the call."""

    name: str
    op_type: str
    shows: str
    declared: tuple[Any, ...]
    attributes: Mapping[str, Any]
    outputs: int = 1

    @property
    def seed(self) -> int:
        """The seed of its operands: the CRC-32 of its name."""
        return zlib.crc32(self.name.encode())

    @cached_property
    def drawn(self) -> tuple[Any, ...]:
        """The operands as declared, the random ones drawn."""
        rng = np.random.default_rng(self.seed)
        return tuple(x(rng) if callable(x) else x for x in self.declared)

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
        covers = (WITH_ALL_OUTPUTS if self.outputs > 1 and self.op_type in WITH_ALL_OUTPUTS else BENEATH).get(
            self.op_type, ()
        )
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


def call(name: str, shows: str, *operands: Any, outputs: int = 1, **attributes: Any) -> Call:
    """Declare one call.

    Parameters
    ----------
    name
        ``operation.case``, or with ``probes/`` before it; the operation by its name in `refimpl.ops`, or by
        ONNX's in lower case.
    shows
        What a wrong result here means, in one line.
    operands
        In ONNX's order. Arrays, and what is drawn, are fed; numbers, tuples and None are part of the call.
    outputs
        How many results are asked for.
    attributes
        ONNX's; numbers are rounded to float32, as a model's file holds them.
    """
    probe = name.startswith("probes/")
    op_type = _OP_TYPES[name.removeprefix("probes/").partition(".")[0]]
    rounded = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in attributes.items()}
    return Call(name if probe else f"operations/{name}", op_type, shows, operands, rounded, outputs)


_OP_TYPES = {op_type.lower(): op_type for op_type in OPERATIONS} | {
    function.__name__: op_type for op_type, function in OPERATIONS.items()
}
"""Name of an operation → ONNX operator."""
