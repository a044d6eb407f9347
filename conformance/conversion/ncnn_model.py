"""ncnn's two files, read strictly: layers from the ``.param`` in text, their weights from the ``.bin``.

The ``.bin`` has no table of contents: the layers' parameters say how many numbers each takes, in order. An
array begins with a tag, 0 for float32, `HALF` for float16 or `INTEGERS` for int8, where ncnn's ``ModelBin``
reads one of type 0; biases, norms and the scales of integers (type 1) have none.

Source: github.com/Tencent/ncnn, ``src/modelbin.cpp`` and ``src/layer/*.cpp``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.errors import FileError, MobileInstError, UnsupportedOperationError
from refimpl.ops.operation import Array

MAGIC = "7767517"
HALF = 0x01306B47
INTEGERS = 0x000D4B38
_STORED: Mapping[int, str] = {0: "<f4", HALF: "<f2", INTEGERS: "i1"}
MOST_LAYERS = 1 << 20
BOTH_WAYS = 2
"""Direction of a recurrent layer."""
SCALE_IS_GIVEN = -233
"""Numbers of a Scale whose factors are its second blob."""
ARRAY_KEYS = 23300
"""Parameter −23300 − k is parameter k as an array."""
REQUANTISED = 100
"""What the parameter that tells of integers is above where a convolution's result is integers, too."""
IN_BLOCKS = 400
"""From here on it tells of weights of 4 to 8 bits, in blocks that have a scale each."""


@dataclass(frozen=True)
class NcnnLayer:
    """One layer.

    Attributes
    ----------
    kind, name
    bottoms, tops
        The blobs it takes and makes.
    params
        Number → int, float, text, or a tuple of numbers.
    weights
        Its arrays in the file's order, float32, float16 or int8.
    scales
        Of a layer of integers: how many of their steps make 1. Of its weights, as many as it has of them; of
        a convolution's operand, and of its result where that is integers, too.
    """

    kind: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: dict[int, Any]
    weights: list[Array] = field(default_factory=list)
    scales: list[Array] = field(default_factory=list)

    @property
    def integers(self) -> int:
        """The parameter that tells of integers; 0: it has none."""
        return int(self.params.get(_TERMS.get(self.kind, -1), 0))

    def param(self, number: int, default: Any = 0) -> Any:
        """Return a parameter, or what it is where the file leaves it out."""
        return self.params.get(number, default)


def read_ncnn(param: Path, content: bytes | bytearray | None = None) -> list[NcnnLayer]:
    """Return the layers of a ``.param`` with the weights of the ``.bin`` beside it.

    Parameters
    ----------
    param
    content
        What the ``.bin`` holds, if it has been read: the weights are views of it.

    Raises
    ------
    FileError
        A file is missing, malformed, of another runtime; the weights end too early or are not used up.
    UnsupportedOperationError
        A layer is of a kind whose weights are not read.
    """
    layers = [_layer(param, line) for line in _lines(param)]
    weights = param.with_suffix(".bin")
    if not weights.is_file():
        raise FileError(f"{weights}: there is no such file; ncnn keeps the weights of {param.name} there")
    kinds = {layer.kind for layer in layers}
    if foreign := sorted(kind for kind in kinds if "." in kind or ":" in kind):
        raise UnsupportedOperationError(
            f"{param.name}: {', '.join(foreign)}: no layers of ncnn; its converter leaves them as they are"
        )
    unread = kinds & UNREAD
    unread |= {f"{layer.kind} in blocks" for layer in layers if layer.integers >= IN_BLOCKS}
    if unread:
        raise UnsupportedOperationError(f"{param}: the weights of {', '.join(sorted(unread))} are not read")
    reader = _Weights(weights, weights.read_bytes() if content is None else content)
    for layer in layers:
        try:
            layer.weights.extend(_SIZES.get(layer.kind, _none)(layer, reader))
            layer.scales.extend(reader.scales(layer))
        except MobileInstError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise FileError(f"{param}: layer {layer.name}: its parameters tell no size: {error}") from error
    if reader.place != len(reader.content):
        raise FileError(
            f"{weights}: {len(reader.content) - reader.place} bytes are left over; it is not {param.name}'s"
        )
    return layers


def has_integers(param: Path) -> bool:
    """Tell whether a layer of a ``.param`` computes in integers; raise `FileError` if it is none."""
    return any(_layer(param, line).integers for line in _lines(param))


def _lines(param: Path) -> list[list[str]]:
    if not param.is_file():
        raise FileError(f"{param}: there is no such file")
    head = param.read_bytes()[: len(MAGIC)]
    if head != MAGIC.encode():
        raise FileError(f"{param} begins with {head!r}, not with {MAGIC}: it is no .param of ncnn in text")
    try:
        _, counts, *rest = param.read_text(encoding="utf-8").splitlines()
        count = int(counts.split()[0])
    except (ValueError, IndexError) as error:
        raise FileError(f"{param}: its second line is no count of layers and blobs") from error
    lines = [line.split() for line in rest if line.strip()]
    if count != len(lines) or count > MOST_LAYERS:
        raise FileError(f"{param}: it says {count} layers and has {len(lines)}: it is cut off")
    return lines


def _layer(param: Path, words: list[str]) -> NcnnLayer:
    try:
        kind, name, takes, makes, *rest = words
        bottoms, tops, params = _split(rest, int(takes), int(makes))
        return NcnnLayer(kind, name, bottoms, tops, dict(map(_param, params)))
    except ValueError as error:
        raise FileError(f"{param}: {' '.join(words)[:80]!r} is no layer: {error}") from error


def _split(words: list[str], takes: int, makes: int) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    if not 0 <= takes <= takes + makes <= len(words):
        raise ValueError(f"it has fewer than {takes} + {makes} blobs")
    return tuple(words[:takes]), tuple(words[takes : takes + makes]), words[takes + makes :]


def _param(text: str) -> tuple[int, Any]:
    key, _, value = text.partition("=")
    number = int(key)
    if value.startswith('"'):
        return number, value.strip('"')
    if number > -ARRAY_KEYS and "," in value:
        # The newer way of an array: of one number, too, it has a comma.
        return number, tuple(_number(each) for each in value.split(",") if each)
    if number > -ARRAY_KEYS:
        return number, _number(value)
    count, *values = value.split(",")
    if int(count) != len(values):
        raise ValueError(f"{text} is an array of another length than it says")
    return -ARRAY_KEYS - number, tuple(map(_number, values))


def _number(text: str) -> int | float:
    return float(text) if any(sign in text for sign in ".einfEIN") else int(text)


class _Weights:
    """A ``.bin``, read from front to back."""

    def __init__(self, path: Path, content: bytes | bytearray) -> None:
        self.path, self.content, self.place = path, content, 0

    def plain(self, layer: NcnnLayer, count: int) -> Array:
        """Return an array without a tag."""
        return self._array(layer, count, np.dtype("<f4"))

    def tagged(self, layer: NcnnLayer, count: int) -> Array:
        """Return an array whose format a tag tells."""
        if self.place + 4 > len(self.content):
            raise FileError(f"{self.path}: it ends within layer {layer.name}")
        (tag,) = struct.unpack_from("<I", self.content, self.place)
        if tag not in _STORED:
            raise FileError(
                f"{self.path}: layer {layer.name} begins with the tag {tag:#x}; expected 0, float32, "
                f"{HALF:#x}, float16, or {INTEGERS:#x}, int8; tables are not read"
            )
        self.place += 4
        return self._array(layer, count, np.dtype(_STORED[tag]))

    def scales(self, layer: NcnnLayer) -> Iterator[Array]:
        """Yield the scales of a layer of integers."""
        counts = _SCALES[layer.kind](layer) if layer.integers else ()
        for count in counts:
            scales = self.plain(layer, count)
            if not np.isfinite(scales).all():
                raise FileError(f"{self.path}: layer {layer.name} has the scale {scales.max()} of integers")
            yield scales

    def _array(self, layer: NcnnLayer, count: int, dtype: np.dtype[Any]) -> Array:
        end = self.place + count * dtype.itemsize
        if count < 0 or end > len(self.content):
            raise FileError(f"{self.path}: it ends within layer {layer.name}, which has {count} numbers")
        array = np.frombuffer(self.content, dtype, count, self.place)
        self.place = min(end + -end % 4, len(self.content))
        return array


Sizes = Callable[[NcnnLayer, _Weights], Iterator[Array]]


def _none(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    yield from ()


GIVEN = {"Convolution": 19, "Deconvolution": 28}
"""Beginning of a kind → the parameter that says that its weights are blobs."""


def _convolution(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    if any(layer.kind.startswith(kind) and layer.param(number) for kind, number in GIVEN.items()):
        return
    yield weights.tagged(layer, int(layer.param(6)))
    if layer.param(5):
        yield weights.plain(layer, int(layer.param(0)))


def _inner_product(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    yield weights.tagged(layer, int(layer.param(2)))
    if layer.param(1):
        yield weights.plain(layer, int(layer.param(0)))


def _gemm(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    m, n, k = (int(layer.param(number)) for number in (7, 8, 9))
    for constant, count in ((4, m * k), (5, n * k)):
        if layer.param(constant):
            yield weights.tagged(layer, count)
    spread = {-1: 0, 0: 1, 1: m, 2: m, 3: m * n, 4: n}[int(layer.param(10))]
    if layer.param(6) and spread:
        yield weights.tagged(layer, spread)


def _vectors(times: int, length: int, affine: int | None = None, default: int = 1) -> Sizes:
    """Return what reads so many vectors, of as many numbers as one parameter tells, if another says so."""

    def read(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
        if affine is None or layer.param(affine, default):
            for _ in range(times):
                yield weights.plain(layer, int(layer.param(length)))

    return read


def _scale(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    if layer.param(0) != SCALE_IS_GIVEN:
        for _ in range(2 if layer.param(1) else 1):
            yield weights.plain(layer, int(layer.param(0)))


def _recurrent(inside: int, shift: int) -> Sizes:
    """Return what reads a recurrent layer, of so many matrices within, and so many vectors that are added."""

    def read(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
        made, directions = int(layer.param(0)), 2 if layer.param(2) == BOTH_WAYS else 1
        hidden = int(layer.param(3, made)) if layer.kind == "LSTM" else made
        counts = [int(layer.param(1)), *(part * hidden * directions for part in (shift, inside * made))]
        # What is carried from step to step is projected where it is of another length.
        for count in counts + [hidden * made * directions] * (hidden != made):
            yield weights.tagged(layer, count)

    return read


def _embed(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    yield weights.tagged(layer, int(layer.param(3)))
    if layer.param(2):
        yield weights.plain(layer, int(layer.param(0)))


def _memory(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    sizes = [int(layer.param(number)) for number in (0, 1, 11, 2)]
    count = math.prod(size for size in sizes if size)
    yield weights.tagged(layer, count) if layer.param(21, 1) == 0 else weights.plain(layer, count)


def _attention(layer: NcnnLayer, weights: _Weights) -> Iterator[Array]:
    embedding, square = int(layer.param(0)), int(layer.param(2))
    of_key, of_value = (int(layer.param(number, embedding)) for number in (3, 4))
    out = square // max(embedding, 1)
    for count, bias in (
        (square, embedding),
        (embedding * of_key, embedding),
        (embedding * of_value, embedding),
        (square, out),
    ):
        yield weights.tagged(layer, count)
        yield weights.plain(layer, bias)


_CONVOLUTIONS = [
    f"{kind}{axes}"
    for kind in ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise")
    for axes in ("", "1D", "3D")
]
_SIZES: dict[str, Sizes] = {
    **dict.fromkeys([*_CONVOLUTIONS, "DeformableConv2D"], _convolution),
    "BatchNorm": _vectors(4, 0),
    "Bias": _vectors(1, 0),
    "Embed": _embed,
    "Gemm": _gemm,
    "GRU": _recurrent(3, 4),
    "GroupNorm": _vectors(2, 1, 3),
    "InnerProduct": _inner_product,
    "InstanceNorm": _vectors(2, 0, 2),
    "LSTM": _recurrent(4, 4),
    "LayerNorm": _vectors(2, 0, 2),
    "MemoryData": _memory,
    "MultiHeadAttention": _attention,
    "Normalize": _vectors(1, 3),
    "PReLU": _vectors(1, 0),
    "Padding": _vectors(1, 6, 6, 0),
    "RMSNorm": _vectors(1, 0, 2),
    "RNN": _recurrent(1, 1),
    "Scale": _scale,
}
"""Layers that have weights → what they read of the file; the others' leave it out of step, which is seen."""


def _of_convolution(layer: NcnnLayer) -> list[int]:
    grouped = layer.kind == "ConvolutionDepthWise"
    shared = grouped and layer.integers % REQUANTISED == SHARED
    kernels = 1 if shared else int(layer.param(7, 1) if grouped else layer.param(0))
    return [kernels, 1, *[1] * (layer.integers > REQUANTISED)]


def _of_gemm(layer: NcnnLayer) -> list[int]:
    return [count for constant, count in ((4, int(layer.param(7))), (5, 1)) if layer.param(constant)]


def _of_attention(layer: NcnnLayer) -> list[int]:
    return [*[int(layer.param(0))] * 3, 1]


def _of_recurrent(gates: int) -> Callable[[NcnnLayer], list[int]]:
    def counts(layer: NcnnLayer) -> list[int]:
        made, directions = int(layer.param(0)), 2 if layer.param(2) == BOTH_WAYS else 1
        hidden = int(layer.param(3, made)) if layer.kind == "LSTM" else made
        return [gates * hidden * directions] * 2

    return counts


SHARED = 2
"""Where a grouped convolution's parameter tells of integers: all its kernels have one scale."""
_SCALES: dict[str, Callable[[NcnnLayer], list[int]]] = {
    "Convolution": _of_convolution,
    "ConvolutionDepthWise": _of_convolution,
    "Embed": lambda layer: [1],
    "Gemm": _of_gemm,
    "GRU": _of_recurrent(3),
    "InnerProduct": lambda layer: [int(layer.param(0)), 1],
    "LSTM": _of_recurrent(4),
    "MultiHeadAttention": _of_attention,
    "RNN": _of_recurrent(1),
    "SDPA": lambda layer: [],
}
"""Layers that may be of integers → how many scales of each kind the file has behind their weights."""
_TERMS = {kind: 18 if kind in ("Embed", "Gemm", "MultiHeadAttention", "SDPA") else 8 for kind in _SCALES}
"""The same → the parameter that tells of integers."""
UNREAD = {"Dequantize", "Quantize", "Requantize"}
"""Layers of integers, whose weights are not read."""
