"""What ExecuTorch hands to XNNPACK, read by its schema: a header, and a flatbuffer of nodes and values.

Source: github.com/pytorch/executorch, ``backends/xnnpack/serialization/runtime_schema.fbs`` and
``backends/xnnpack/runtime/XNNHeader.h``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.conversion.flatbuffer import Content, Table, root, unpacked
from conformance.conversion.stored_weight import StoredWeight
from refimpl.errors import FileError, UnsupportedOperationError
from refimpl.ops.operation import Array

HEADER, MAGICS = b"XH00", (b"XN00", b"XN01")
"""Stand at byte 4 of the whole, and of the flatbuffer."""
_HEADER_BYTES = 30
_NONE = 2**32 - 1
"""Number of a value that is left out."""
_INPUT, _OUTPUT = 1, 2
"""Flags of a value that comes from outside, or goes there."""
_PLAIN, _QUANTIZED = 1, 2
"""``XValueUnion`` of what is no integer, and of what stands for fractions."""
_DTYPES = {1: "<f4", 3: "<i1", 5: "<i4", 6: "<i1", 7: "<i4", 9: "<i1"}
"""``XNNDatatype`` of float32, and of integers by a scale, one for each channel, or one found as it runs."""
_BY_CHANNEL, _BY_TENSOR, _AS_IT_RUNS = 1, 2, 3
"""``XNNQuantParams``."""
_MOST_AXES = 6
"""``XNN_MAX_TENSOR_DIMS``."""

_ONE, _TWO = ("input", "output", "flags"), ("input1", "input2", "output", "flags")
_CONVOLUTION = (
    "top", "right", "bottom", "left", "kernel_height", "kernel_width", "stride_height", "stride_width",
    "dilation_height", "dilation_width", "group_inputs", "group_outputs", "groups", "adjusted_height",
    "adjusted_width", "input1", "filter", "bias", "output", "flags",
)  # fmt: skip
_POOLING = (
    "top", "right", "bottom", "left", "kernel_height", "kernel_width", "stride_height", "stride_width",
    "dilation_height", "dilation_width", "input", "output", "flags",
)  # fmt: skip
_JOINED = ("axis", "input1", "input2", "input3", "input4", "output", "flags", "input5")
FIELDS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    1: ("Add", _TWO),
    2: ("FullyConnected", ("input1", "filter", "bias", "output", "flags")),
    3: ("Softmax", _ONE),
    4: ("Sigmoid", _ONE),
    5: ("StaticTranspose", ("axes", "perm[]", "input", "output", "flags")),
    6: ("Clamp", _ONE),
    7: ("Conv2d", _CONVOLUTION),
    8: ("Div", _TWO),
    9: ("StaticResizeBilinear2D", ("height", "width", "input", "output", "flags")),
    10: ("StaticConstantPad", ("before[]", "after[]", "value%", "input", "output", "flags")),
    11: ("AvgPooling2d", _POOLING),
    12: ("Minimum", _TWO),
    13: ("DepthwiseConv2d", _CONVOLUTION),
    14: ("MaxPooling2d", _POOLING),
    15: ("Multiply", _TWO),
    16: ("Subtract", _TWO),
    17: ("Floor", _ONE),
    18: ("Convert", _ONE),
    19: ("GlobalAvgPooling2d", _ONE),
    20: ("StaticReshape", ("axes", "shape[]", "input", "output", "flags")),
    22: ("SquareRoot", _ONE),
    23: ("Ceiling", _ONE),
    24: ("Hardswish", _ONE),
    25: ("LeakyReLU", ("slope%", "input", "output", "flags")),
    26: ("Maximum", _TWO),
    27: ("Negate", _ONE),
    28: ("Square", _ONE),
    29: ("ELU", ("alpha%", "input", "output", "flags")),
    30: ("Abs", _ONE),
    31: ("PReLU", _TWO),
    32: ("Concatenate", _JOINED),
    33: ("Concatenate", _JOINED),
    34: ("Concatenate", _JOINED),
    35: ("StaticSlice", ("axes", "offsets[]", "sizes[]", "input", "output", "flags")),
    37: ("BatchMatrixMultiply", _TWO),
    38: ("Concatenate", _JOINED),
    40: ("ReciprocalSquareRoot", _ONE),
    41: ("Log", _ONE),
    42: ("Gelu", _ONE),
    43: ("Tanh", _ONE),
    44: ("Exp", _ONE),
    45: ("Sin", _ONE),
    46: ("Copy", _ONE),
    47: ("Cos", _ONE),
}
"""Place in ``XNodeUnion`` → the node, and its fields in order: lists end in [], fractions in %."""
_VALUES = ("input", "input1", "input2", "input3", "input4", "input5", "filter", "bias")


@dataclass(frozen=True)
class XnnpackValue:
    """A tensor.

    Attributes
    ----------
    shape
        As it lies in memory: of maps the channels last.
    stored
        Its numbers, if it is a constant.
    outside
        Its place among what is handed over, or None.
    is_output
        Whether it goes there.
    grid
        Scale and zero point of integers, of 8 bits, that are computed; None: they are floats, or integers of
        a scale that is found as it runs.
    """

    shape: tuple[int, ...]
    stored: StoredWeight | None = None
    outside: int | None = None
    is_output: bool = False
    grid: tuple[float, int] | None = None

    @property
    def constant(self) -> Array | None:
        """Its numbers, float32, if it is a constant; what integers stand for."""
        return None if self.stored is None else self.stored.numbers.astype(np.float32)


@dataclass(frozen=True)
class XnnpackNode:
    """An operation.

    Attributes
    ----------
    kind
        As the schema calls it, without ``XNN``.
    inputs
        Numbers of values, without those that are left out.
    output
        Number of a value.
    how
        Field → number, or several.
    limits
        What results are clipped to, or None.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    how: Mapping[str, Any]
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class XnnpackGraph:
    """Nodes in order, and values by number."""

    nodes: Sequence[XnnpackNode]
    values: Mapping[int, XnnpackValue]


def read_xnnpack(content: Content, named: Mapping[str, Content]) -> XnnpackGraph:
    """Return the graph of what is handed over.

    Parameters
    ----------
    content
        The whole.
    named
        Constants that the program keeps, by key.

    Raises
    ------
    FileError
        It is cut off, malformed, or of another delegate.
    UnsupportedOperationError
        A node or numbers of a kind that is not read.
    """
    if bytes(content[4:8]) != HEADER or len(content) < _HEADER_BYTES:
        raise FileError(f"bytes 4 to 8 are {bytes(content[4:8])!r}, not {HEADER!r}: XNNPACK's is malformed")
    begin, size, constants = (int(unpacked(content, at, "I")) for at in (10, 14, 18))
    held = content[begin : begin + size]
    if len(held) != size or bytes(held[4:8]) not in MAGICS or constants > len(content):
        raise FileError("XNNPACK's graph is cut off or malformed")
    graph = root(held)
    blobs = _Blobs(content[constants:], named, graph.tables(8))
    return XnnpackGraph(
        [_node(each) for each in graph.tables(1)],
        dict(_value(each, blobs) for each in graph.tables(2)),
    )


def _node(table: Table) -> XnnpackNode:
    place, said = table.whole(0, "B"), table.table(1)
    if place not in FIELDS or said is None:
        raise UnsupportedOperationError(f"XNNPACK's node of kind {place} is not read")
    kind, fields = FIELDS[place]
    how = {field.rstrip("[]%"): _field(said, at, field) for at, field in enumerate(fields)}
    inputs = [how[each] for each in _VALUES if each in how]
    limits = table.table(3)
    return XnnpackNode(
        kind,
        tuple(each for each in inputs if each != _NONE),
        how["output"],
        how,
        None if limits is None else (float(limits.number(0, "f")), float(limits.number(1, "f"))),
    )


def _field(table: Table, place: int, name: str) -> Any:
    if name.endswith("[]"):
        return table.wholes(place, "u4")
    return float(table.number(place, "f")) if name.endswith("%") else table.whole(place, "I")


class _Blobs:
    """The constants, by their number: behind the graph, or kept by the program under a key."""

    def __init__(self, own: Content, named: Mapping[str, Content], listed: Sequence[Table]) -> None:
        self.own, self.named, self.listed = own, named, listed

    def array(self, number: int, shape: tuple[int, ...], dtype: str = "<f4") -> Array:
        """Return a constant as it is stored."""
        if number >= len(self.listed):
            raise FileError(f"XNNPACK's constant {number} of {len(self.listed)} is not there")
        entry, count = self.listed[number], math.prod(shape)
        key = entry.text(2)
        if key and key not in self.named:
            raise FileError(f"XNNPACK's constant {key[:16]} is not among the program's")
        blob = self.named[key] if key else self.own[entry.whole(0, "Q") :]
        if len(blob) < np.dtype(dtype).itemsize * count:
            raise FileError(f"XNNPACK's constant {number} of {count} numbers is cut off")
        return np.frombuffer(blob, dtype, count).reshape(shape)


def _value(table: Table, blobs: _Blobs) -> tuple[int, XnnpackValue]:
    kind, held = table.whole(0, "B"), table.table(1)
    said = held.table(0) if held is not None and kind == _QUANTIZED else held
    dtype = None if said is None else _DTYPES.get(said.whole(0, "h"))
    if held is None or said is None or dtype is None or (kind == _PLAIN) != (dtype == "<f4"):
        raise UnsupportedOperationError("XNNPACK's numbers that are not float32, or of 8 bits, are not read")
    shape = said.wholes(2, "u4")
    if len(shape) > _MOST_AXES:
        raise FileError(f"XNNPACK's value has {len(shape)} axes; it knows {_MOST_AXES}")
    number, outside, flags = said.whole(3, "I"), said.whole(4, "I"), said.whole(5, "I")
    scale, point = _grid(held, blobs, len(shape)) if kind == _QUANTIZED else (None, 0)
    if number and kind == _QUANTIZED and scale is None:
        raise FileError(f"XNNPACK's constant {number} has a scale that is found as it runs")
    stored = StoredWeight(blobs.array(number, shape, dtype), scale, point) if number else None
    if stored is not None and not stored.fits:
        raise FileError(f"XNNPACK's constant {number} has scales that do not fit it")
    if stored is None and scale is not None and (dtype != "<i1" or scale.size != 1):
        raise UnsupportedOperationError("XNNPACK's results of integers by channel are not read")
    return said.whole(6, "I"), XnnpackValue(
        shape,
        stored,
        outside if flags & (_INPUT | _OUTPUT) else None,
        bool(flags & _OUTPUT),
        None if scale is None or stored is not None else (float(scale.item()), point),
    )


def _grid(table: Table, blobs: _Blobs, axes: int) -> tuple[Array | None, int]:
    """Return what integers are multiplied by, of a shape that broadcasts to theirs, and their zero point.

    None: it is found as it runs.
    """
    way, said = table.whole(1, "B"), table.table(2)
    if way == _AS_IT_RUNS:
        return None, 0
    if said is None or way not in (_BY_CHANNEL, _BY_TENSOR):
        raise UnsupportedOperationError(f"XNNPACK's integers by quantisation {way} are not read")
    if way == _BY_TENSOR:
        return np.array(said.number(0, "f")), said.whole(1)
    number, axis = said.whole(2, "I"), said.whole(1)
    scales = blobs.array(number, (said.whole(3, "I"),)) if number else said.array(0, "f4")
    if not 0 <= axis < axes:
        raise FileError(f"XNNPACK's scales are along axis {axis} of {axes}")
    return scales.astype(np.float64).reshape([-1 if each == axis else 1 for each in range(axes)]), 0
