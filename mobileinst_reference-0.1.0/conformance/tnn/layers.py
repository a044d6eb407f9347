"""TNN's layer types: the parameters of each, in the order of its line in the `.tnnproto`.

One dataclass per family of parameters; the order of the fields is the order in the file, and the annotation
of a field is its grammar: an ``int``, a ``float``, a ``str``, a counted list (``n`` then ``n`` numbers) or
the numbers left (`rest`). Fields with a default may be absent from older files. Source: TNN's layer
interpreters and real files of `onnx2tnn`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from refimpl.errors import FileError, UnsupportedOperationError

EXPLICIT_PADS, SAME_PADS, VALID_PADS = -1, 0, 1
NO_ACTIVATION, RELU, RELU6, SILU = 0, 1, 2, 256
ACTIVATIONS = (NO_ACTIVATION, RELU, RELU6, SILU)
MAX_POOLING, AVERAGE_POOLING = 0, 1
NEAREST, BILINEAR = 1, 2
NO_CONSTANT = -1


def plain() -> Any:
    """Declare a field whose annotation says all there is."""
    return field()


def counted() -> Any:
    """Declare a field that the file writes as a count followed by that many integers."""
    return field(metadata={"kind": "counted"})


def rest() -> Any:
    """Declare a field that takes all the integers left on the line."""
    return field(metadata={"kind": "rest"})


def choice(*allowed: int, **keywords: Any) -> Any:
    """Declare an integer field that has a few legal values."""
    return field(metadata={"kind": "int", "allowed": allowed}, **keywords)


def size(**keywords: Any) -> Any:
    """Declare an integer field that must be at least 1."""
    return field(metadata={"kind": "int", "minimum": 1}, **keywords)


def amount(**keywords: Any) -> Any:
    """Declare an integer field that must be at least 0."""
    return field(metadata={"kind": "int", "minimum": 0}, **keywords)


@dataclass(frozen=True)
class Parameters:
    """Parameters of a layer; this class itself is those of a layer that has none (ReLU, Sigmoid, …)."""

    @classmethod
    def read(cls, words: list[str]) -> Self:
        """Read the parameters from the words of a proto line.

        Raises
        ------
        FileError
            A word that is no number, an illegal value, too few words or too many.
        """
        left = iter(words)
        values = {}
        for slot in dataclasses.fields(cls):
            value = _read_field(slot, left)
            if value is not _ABSENT:
                values[slot.name] = value
        extra = list(left)
        if extra:
            raise FileError(f"{len(extra)} parameters too many: {' '.join(extra[:8])}; {cls.grammar()}")
        return cls(**values)

    def write(self) -> list[str]:
        """Return the words of the proto line; fields absent from the file stay absent."""
        words: list[str] = []
        for slot in dataclasses.fields(self):
            value = getattr(self, slot.name)
            if value is not None:
                words += _write_field(slot, value)
        return words

    @classmethod
    def grammar(cls) -> str:
        """Return the fields in order, for error messages."""
        names = " ".join(slot.name for slot in dataclasses.fields(cls))
        return f"expected: {names}" if names else "this layer type takes no parameters"


_ABSENT: Any = object()


def _kind(slot: dataclasses.Field[Any]) -> str:
    return str(slot.metadata.get("kind", slot.type))


def _integer(word: str, name: str) -> int:
    digits = word[1:] if word.startswith("-") else word
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise FileError(f"parameter {name} is {word!r}, expected an integer")
    return int(word)


def _float(word: str, name: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FileError(f"parameter {name} is {word!r}, expected a finite number")
    return value


def _next(left: Iterator[str], name: str) -> str:
    word = next(left, None)
    if word is None:
        raise FileError(f"parameter {name} is missing")
    return word


def _read_field(slot: dataclasses.Field[Any], left: Iterator[str]) -> Any:
    kind = _kind(slot)
    if kind == "rest":
        return tuple(_integer(word, slot.name) for word in left)
    if slot.default is not dataclasses.MISSING:
        word = next(left, None)
        return _ABSENT if word is None else _read_word(slot, word)
    word = _next(left, slot.name)
    if kind == "counted":
        count = _integer(word, f"count of {slot.name}")
        return tuple(_integer(_next(left, slot.name), slot.name) for _ in range(count))
    return _read_word(slot, word)


def _read_word(slot: dataclasses.Field[Any], word: str) -> Any:
    if _kind(slot) == "float":
        return _float(word, slot.name)
    if _kind(slot) == "str":
        return word
    value = _integer(word, slot.name)
    allowed = slot.metadata.get("allowed")
    if allowed is not None and value not in allowed:
        raise FileError(f"parameter {slot.name} is {value}, expected one of {allowed}")
    minimum = slot.metadata.get("minimum")
    if minimum is not None and value < minimum:
        raise FileError(f"parameter {slot.name} is {value}, expected at least {minimum}")
    return value


def _write_field(slot: dataclasses.Field[Any], value: Any) -> list[str]:
    if isinstance(value, tuple):
        numbers = [str(number) for number in value]
        return numbers if _kind(slot) == "rest" else [str(len(numbers)), *numbers]
    return [f"{value:g}" if isinstance(value, float) else str(value)]


@dataclass(frozen=True)
class Convolution(Parameters):
    """Parameters of Convolution and Deconvolution; pads are the same before and after."""

    group: int = size()
    channels_per_group: int = size()
    output_channels: int = size()
    kernel_h: int = size()
    kernel_w: int = size()
    stride_h: int = size()
    stride_w: int = size()
    pad_h: int = amount()
    pad_w: int = amount()
    bias: int = choice(0, 1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    dilation_h: int = size()
    dilation_w: int = size()
    activation: int | None = choice(*ACTIVATIONS, default=None)


@dataclass(frozen=True)
class Convolution1D(Parameters):
    """Parameters of Convolution1D."""

    group: int = size()
    channels_per_group: int = size()
    output_channels: int = size()
    kernel: int = size()
    stride: int = size()
    pad: int = amount()
    bias: int = choice(0, 1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    dilation: int = size()
    activation: int | None = choice(*ACTIVATIONS, default=None)


@dataclass(frozen=True)
class Pooling(Parameters):
    """Parameters of Pooling: a kernel of 0 × 0 pools the whole plane, ``adaptive`` pools to a given size."""

    type: int = choice(MAX_POOLING, AVERAGE_POOLING)
    kernel_h: int = amount()
    kernel_w: int = amount()
    stride_h: int = size()
    stride_w: int = size()
    pad_h: int = amount()
    pad_w: int = amount()
    kernel_index_h: int = choice(-1)
    kernel_index_w: int = choice(-1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    ceil: int = choice(0, 1)
    adaptive: int | None = choice(0, 1, default=None)
    output_w: int | None = field(default=None, metadata={"kind": "int"})
    output_h: int | None = field(default=None, metadata={"kind": "int"})

    @property
    def is_global(self) -> bool:
        """Whether the kernel is the whole plane."""
        return self.kernel_h == 0 and self.kernel_w == 0


@dataclass(frozen=True)
class Upsample(Parameters):
    """Parameters of Upsample; the size, when given, has precedence over the scales."""

    mode: int = choice(NEAREST, BILINEAR)
    scale_h: float = plain()
    scale_w: float = plain()
    align_corners: int = choice(0, 1)
    output_h: int | None = size(default=None)
    output_w: int | None = size(default=None)


@dataclass(frozen=True)
class InnerProduct(Parameters):
    """Parameters of InnerProduct: x · Wᵀ + b over the axes from ``axis``."""

    outputs: int = size()
    bias: int = choice(0, 1)
    transpose: int = choice(0, 1)
    axis: int = plain()


@dataclass(frozen=True)
class Binary(Parameters):
    """Parameters of Add, Sub, Mul, Div and MatMul: which operand is the layer's own constant."""

    constant_operand: int | None = choice(-1, 0, 1, default=None)

    @property
    def has_constant(self) -> bool:
        """Whether one operand comes from the layer's resource."""
        return self.constant_operand in (0, 1)


@dataclass(frozen=True)
class Axis(Parameters):
    """Parameters of SoftmaxCaffe and Concat."""

    axis: int


@dataclass(frozen=True)
class SplitV(Parameters):
    """Parameters of SplitV."""

    axis: int
    sizes: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Reduce(Parameters):
    """Parameters of ReduceMean."""

    keepdims: int = choice(0, 1)
    axes: tuple[int, ...] = rest()


@dataclass(frozen=True)
class Permute(Parameters):
    """Parameters of Permute."""

    order: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Axes(Parameters):
    """Parameters of Squeeze and Unsqueeze."""

    axes: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Gather(Parameters):
    """Parameters of Gather: which of its operands the layer's resource holds."""

    axis: int
    data_constant: int = choice(0, 1)
    indices_constant: int = choice(0, 1)


@dataclass(frozen=True)
class Reshape(Parameters):
    """Parameters of Reshape: 0 copies the dimension, −1 infers it; type 0 is ONNX's row-major order."""

    axis: int
    axis_count: int
    dims: tuple[int, ...] = counted()
    type: int = choice(0, 1)


@dataclass(frozen=True)
class StridedSliceV2(Parameters):
    """Parameters of StridedSliceV2, meaning those of ONNX's Slice."""

    begins: tuple[int, ...] = counted()
    ends: tuple[int, ...] = counted()
    axes: tuple[int, ...] = counted()
    strides: tuple[int, ...] = counted()


@dataclass(frozen=True)
class HardSigmoid(Parameters):
    """Parameters of HardSigmoid and HardSwish: x · clip(alpha · y + beta, 0, 1)."""

    alpha: float = plain()
    beta: float = plain()


@dataclass(frozen=True)
class Clip(Parameters):
    """Parameters of Clip."""

    minimum: float = plain()
    maximum: float = plain()


@dataclass(frozen=True)
class LayerNorm(Parameters):
    """Parameters of LayerNorm over the last ``reduced_dims`` axes."""

    reduced_dims: int = size()
    epsilon: float = plain()


@dataclass(frozen=True)
class InstanceNorm(Parameters):
    """Parameters of InstBatchNormCxx."""

    channels: int = size()
    epsilon: float = plain()


@dataclass(frozen=True)
class Einsum(Parameters):
    """Parameters of Einsum; the file writes ``;`` for the equation's commas."""

    equation: str


@dataclass(frozen=True)
class LayerType:
    """What a layer type looks like in the files.

    Attributes
    ----------
    parameters
        The class of its parameters.
    inputs, outputs
        Smallest and largest number of blobs.
    payload
        Which payload the `.tnnmodel` holds for it ("" when none).
    """

    parameters: type[Parameters]
    inputs: tuple[int, int] = (1, 1)
    outputs: tuple[int, int] = (1, 1)
    payload: str = ""


_MANY = 2**31 - 1
_BINARY = LayerType(Binary, inputs=(1, 2), payload="constant")
_UNARY = LayerType(Parameters)

LAYER_TYPES: dict[str, LayerType] = {
    "Convolution": LayerType(Convolution, payload="convolution"),
    "Convolution1D": LayerType(Convolution1D, payload="convolution"),
    "Deconvolution": LayerType(Convolution, payload="convolution"),
    "Pooling": LayerType(Pooling),
    "Upsample": LayerType(Upsample),
    "InnerProduct": LayerType(InnerProduct, payload="inner product"),
    "MatMul": _BINARY,
    "Add": _BINARY,
    "Sub": _BINARY,
    "Mul": _BINARY,
    "Div": _BINARY,
    "SoftmaxCaffe": LayerType(Axis),
    "Concat": LayerType(Axis, inputs=(1, _MANY)),
    "SplitV": LayerType(SplitV, outputs=(1, _MANY)),
    "ReduceMean": LayerType(Reduce),
    "Permute": LayerType(Permute),
    "Squeeze": LayerType(Axes),
    "Unsqueeze": LayerType(Axes),
    "Gather": LayerType(Gather, inputs=(0, 2), payload="gather"),
    "Reshape": LayerType(Reshape),
    "StridedSliceV2": LayerType(StridedSliceV2),
    "HardSigmoid": LayerType(HardSigmoid),
    "HardSwish": LayerType(HardSigmoid, inputs=(1, 2)),
    "Clip": LayerType(Clip),
    "ReLU": _UNARY,
    "ReLU6": _UNARY,
    "Sigmoid": _UNARY,
    "GELU": _UNARY,
    "BatchNormCxx": LayerType(Parameters, payload="scale and bias"),
    "LayerNorm": LayerType(LayerNorm, inputs=(3, 3)),
    "InstBatchNormCxx": LayerType(InstanceNorm, payload="scale and bias"),
    "Einsum": LayerType(Einsum, inputs=(1, _MANY)),
}
"""Every layer type that is read, evaluated and judged."""

TYPE_IDS = {
    "Convolution": 1,
    "BatchNormCxx": 2,
    "InnerProduct": 19,
    "Deconvolution": 22,
    "Add": 38,
    "Mul": 42,
    "Gather": 104,
    "MatMul": 105,
}
"""Numbers the runtime gives to layer types in the `.tnnmodel`, as seen in real files."""


def layer_type(name: str, where: str) -> LayerType:
    """Return the description of layer type ``name``.

    Raises
    ------
    UnsupportedOperationError
        A type outside `LAYER_TYPES`; ``where`` says in which file and layer.
    """
    if name not in LAYER_TYPES:
        raise UnsupportedOperationError(
            f"{where}: unknown layer type {name!r}. Known: {', '.join(sorted(LAYER_TYPES))}. "
            "Rewrite the operation in the source model with these (see `mobileinst lint --target tnn`) and "
            "convert again."
        )
    return LAYER_TYPES[name]
