"""MNN's ``.mnn``, read by its own schema: operators in order, what each is told, and their constants.

Source: github.com/alibaba/MNN, ``schema/default/*.fbs``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conformance.conversion.flatbuffer import Table, root
from conformance.conversion.stored_weight import StoredWeight
from refimpl.errors import FileError, UnsupportedOperationError
from refimpl.ops.operation import Array

Fields = Mapping[str, tuple[Any, ...]]
"""Name → its place, and a number's kind and default, a list's dtype with ``[]``, or a table's own fields."""

_COMMON: Fields = {
    "pad_x": (0, "i"), "pad_y": (1, "i"), "kernel_x": (2, "i", 1), "kernel_y": (3, "i", 1),
    "stride_x": (4, "i", 1), "stride_y": (5, "i", 1), "dilate_x": (6, "i", 1), "dilate_y": (7, "i", 1),
    "pad_mode": (8, "b"), "group": (9, "i", 1), "made": (10, "i"), "relu": (12, "b"), "relu6": (13, "b"),
    "pads": (14, "i4[]"),
}  # fmt: skip
_NARROWED: Fields = {
    "buffer": (0, "u1[]"), "scales": (1, "f4[]"), "way": (2, "i"), "factor": (4, "f"), "bits": (7, "i"),
    "lowest": (8, "i"), "ranges": (9, "i"), "kept": (10, "b"), "long": (11, "b"), "halves": (14, "u2[]"),
}  # fmt: skip
_INTEGERS: Fields = {"weight": (0, "i1[]"), "winograd": (10, "i4[]"), "made": (11, "i", 6)}
_CONVOLUTION: Fields = {
    "common": (0, _COMMON), "weight": (1, "f4[]"), "bias": (2, "f4[]"), "narrowed": (3, _NARROWED),
    "integers": (4, _INTEGERS), "sparse": (5, {}), "external": (6, "i8[]"),
}  # fmt: skip
_POOL: Fields = {
    "pad_x": (0, "i"), "pad_y": (1, "i"), "global": (2, "b"), "kernel_x": (3, "i"), "kernel_y": (4, "i"),
    "stride_x": (5, "i"), "stride_y": (6, "i"), "average": (7, "b"), "pad_mode": (8, "b"),
    "ceil": (10, "b", 1), "pads": (11, "i4[]"), "counted": (12, "b"),
}  # fmt: skip
_BLOB: Fields = {
    "dims": (0, "i4[]"), "type": (2, "i", 1), "u1": (3, "u1[]"), "i1": (4, "i1[]"), "i4": (5, "i4[]"),
    "i8": (6, "i8[]"), "f4": (7, "f4[]"), "external": (9, "i8[]"),
}  # fmt: skip
_INTERP: Fields = {
    "width": (2, "i"), "height": (3, "i"), "way": (4, "i"), "aligned": (5, "b"), "halves": (6, "b"),
    "cubic": (9, "f", -0.75), "where": (10, "b"),
}  # fmt: skip
_NORM: Fields = {
    "axis": (0, "i4[]"), "epsilon": (1, "f"), "gamma": (2, "f4[]"), "beta": (3, "f4[]"),
    "group": (4, "i", 1), "external": (5, "i8[]"), "root_mean_square": (6, "b"),
}  # fmt: skip
_REDUCTION: Fields = {"way": (0, "b"), "dim": (1, "i4[]"), "keeps": (3, "b")}
_SLICES: Fields = {
    "begin": (2, "i"), "end": (3, "i"), "ellipsis": (4, "i"), "new": (5, "i"), "shrink": (6, "i"),
    "onnx": (7, "i"),
}  # fmt: skip
_MATRICES: Fields = {"swapped_a": (1, "b"), "swapped_b": (2, "b"), "weight": (3, "f4[]"), "bias": (4, "f4[]")}
_AXIS, _DIMS, _WAY = {"axis": (0, "i")}, {"dims": (0, "i4[]")}, {"way": (0, "i")}
_PARAMETERS: Mapping[int, Fields] = {
    4: _AXIS,
    6: {**_WAY, "activation": (2, "i")},
    7: _BLOB,
    8: {"to": (1, "i")},
    9: _CONVOLUTION,
    21: _DIMS,
    22: _INTERP,
    25: _MATRICES,
    29: _DIMS,
    31: _POOL,
    32: {"slope": (1, "f4[]")},
    50: _REDUCTION,
    51: {"slope": (0, "f")},
    52: {"low": (0, "f"), "high": (1, "f", 6.0)},
    55: {**_DIMS, "last": (1, "b")},
    58: {"scale": (1, "f4[]"), "bias": (2, "f4[]"), "external": (3, "i8[]")},
    61: {**_AXIS, "points": (1, "i4[]"), "source": (2, "b")},
    64: _DIMS,
    65: _SLICES,
    66: {"to": (1, "b")},
    70: _WAY,
    73: {"swapped_a": (0, "b"), "swapped_b": (1, "b")},
    84: {"way": (0, "b")},
    88: _NORM,
    104: {"has_start": (0, "b"), "has_end": (2, "b")},
}
"""Place in the union ``OpParameter`` → fields."""
KINDS = {
    7: "BinaryOp", 9: "Cast", 10: "Concat", 11: "Const", 12: "Convolution", 13: "ConvolutionDepthwise",
    34: "Input", 35: "Interp", 39: "MatMul", 45: "Padding", 46: "Permute", 47: "Pooling", 49: "PReLU",
    66: "Rank", 68: "Reduction", 69: "ReLU", 70: "ReLU6", 73: "Reshape", 77: "Scale", 80: "Shape",
    81: "Sigmoid", 83: "Slice", 84: "SliceTf", 85: "Softmax", 90: "Squeeze", 91: "StridedSlice",
    95: "TanH", 101: "UnaryOp", 106: "BatchMatMul", 107: "Unsqueeze", 129: "ConvertTensor",
    262: "Identity", 603: "LayerNorm",
}  # fmt: skip
"""``OpType`` → its name, of those whose meaning is written down."""
CONVOLUTIONS = ("Convolution", "ConvolutionDepthwise")
_BLOBS = {
    1: ("f4", "f4"),
    3: ("i4", "i4"),
    4: ("u1", "u1"),
    6: ("i1", "i1"),
    9: ("i8", "i8"),
    19: ("u1", "f2"),
}
"""``DataType`` → the list that holds the numbers, and what they are."""
_INT8 = 6
"""``DataType`` of 8-bit integers."""
INTEGERS, SPARSE, HALVED = 1, 2, 3
"""``IDSTQuan``'s ``type`` of weights in a table of integers, of those that are not zero, and in float16."""
_LARGEST = 1 << 28
"""Integers of a kernel that is mostly zeros: its file says no more than how many."""
LOWEST = -128
"""The integer that stands for the least number of a range where none is told."""


@dataclass(frozen=True)
class MnnOperator:
    """One operator.

    Attributes
    ----------
    kind
        Its name in the schema, or its number where it is not known here.
    name
    inputs, outputs
        Places of tensors.
    told
        Name → number, list, or the same of a table within; empty where the operator has no parameters.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    told: Mapping[str, Any]


@dataclass(frozen=True)
class MnnGrid:
    """The numbers that a tensor's integers stand for.

    Attributes
    ----------
    scale
        Of a step.
    point
        The integer that stands for zero.
    low, high
        The least and the largest integer.
    """

    scale: float
    point: int = 0
    low: int = -128
    high: int = 127


@dataclass(frozen=True)
class MnnModel:
    """A model without subgraphs.

    Attributes
    ----------
    operators
        In the order in which they run.
    names
        Place of a tensor → its name.
    outputs
        Their names.
    grids
        Place of a tensor that may be integers → how.
    """

    operators: Sequence[MnnOperator]
    names: Sequence[str]
    outputs: Sequence[str]
    grids: Mapping[int, MnnGrid] = field(default_factory=dict)


def read_mnn(path: Path) -> MnnModel:
    """Return the operators of a ``.mnn``.

    Raises
    ------
    FileError
        The file is missing, of another runtime, cut off or malformed.
    UnsupportedOperationError
        It has branches or loops, or weights in another file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return _read(root(content))
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(f"{path}: {error}") from error
    except (FileError, ValueError) as error:
        raise FileError(f"{path}: it is no model of MNN: {str(error)[:120]}") from error


def _read(net: Table) -> MnnModel:
    if net.tables(10):
        raise UnsupportedOperationError("its branches or loops are not read")
    operators = [_operator(table) for table in net.tables(3)]
    names = net.texts(7)
    if not operators:
        raise FileError("it has no operators")
    made: set[int] = set()
    for each in operators:
        places = (*each.inputs, *each.outputs)
        if min(places, default=0) < 0 or max(places, default=0) >= len(names):
            raise FileError(f"{each.name} has tensors {places} of {len(names)}")
        if not made.issuperset(each.inputs) or not made.isdisjoint(each.outputs):
            raise FileError(f"{each.name} takes a tensor that is not made, or makes one again")
        made |= {*each.outputs}
    outputs = net.texts(4) or _unused(operators, names)
    if not {names[place] for place in made}.issuperset(outputs):
        raise FileError(f"one of its outputs {outputs} is not made")
    return MnnModel(operators, names, outputs, dict(_grids(net)))


def _unused(operators: Sequence[MnnOperator], names: Sequence[str]) -> list[str]:
    """Return the results that no operator takes: outputs of a file that names none."""
    used = {place for each in operators for place in each.inputs}
    return [names[place] for each in operators for place in each.outputs if place not in used]


def _grids(net: Table) -> Iterator[tuple[int, MnnGrid]]:
    """Yield the places of tensors that may be of 8-bit integers, and how."""
    for described in net.tables(1):
        held = described.table(4)
        if held is not None and held.whole(4) == _INT8:
            scale, *ends = (held.number(n, "f", default) for n, default in enumerate((0, 0, -128, 127)))
            point, low, high = ends
            kept = low < high and all(LOWEST <= end < -LOWEST for end in ends)
            if not (0 < scale < math.inf and kept):
                raise FileError(f"integers of scale {scale} and zero point {point} from {low} to {high}")
            yield described.whole(1), MnnGrid(float(scale), int(point), int(low), int(high))


def _operator(table: Table) -> MnnOperator:
    number, parameter, told = table.whole(5), table.whole(1, "B"), table.table(2)
    fields = _PARAMETERS.get(parameter, {})
    return MnnOperator(
        KINDS.get(number, f"OpType {number}"),
        table.text(3),
        table.wholes(0),
        table.wholes(4),
        {} if told is None else _told(told, fields),
    )


def _told(table: Table, fields: Fields) -> dict[str, Any]:
    return {name: _field(table, *how) for name, how in fields.items()}


def _field(table: Table, place: int, how: str | Fields, default: float = 0) -> Any:
    if not isinstance(how, str):
        held = table.table(place)
        return None if held is None else _told(held, how)
    return table.array(place, how[:-2]) if how.endswith("[]") else table.number(place, how, default)


def constant(each: MnnOperator) -> Array:
    """Return the numbers of a ``Const``.

    Raises
    ------
    UnsupportedOperationError
        They lie in another file, or are of a type that is not read.
    ValueError
        They are not as many as their sides say.
    """
    told = each.told
    if told["external"].size:
        raise UnsupportedOperationError(f"{each.name}: its numbers lie in another file")
    if told["type"] not in _BLOBS:
        raise UnsupportedOperationError(f"{each.name}: constants of DataType {told['type']} are not read")
    held, dtype = _BLOBS[told["type"]]
    sides = tuple(map(int, told["dims"]))
    numbers = told[held].view(np.dtype(dtype).newbyteorder("<"))
    if min(sides, default=0) < 0 or math.prod(sides) != numbers.size:
        raise ValueError(f"{numbers.size} numbers of sides {sides}")
    return np.asarray(numbers.reshape(sides))


def kernel(each: MnnOperator) -> StoredWeight:
    """Return the weights of a convolution, of the shape that ONNX gives them.

    Raises
    ------
    UnsupportedOperationError
        They lie in another file, or are quantised in a way that is not read.
    ValueError
        They are not as many as is told.
    """
    told, narrowed = each.told, each.told["narrowed"]
    if told["external"].size:
        raise UnsupportedOperationError(f"{each.name}: its weights lie in another file")
    if told["sparse"] is not None or _otherwise_in_integers(told["integers"]):
        raise UnsupportedOperationError(
            f"{each.name}: its weights are sparse, or integers of an older quantiser, or of Winograd's"
        )
    sides = (told["common"]["made"], -1, told["common"]["kernel_y"], told["common"]["kernel_x"])
    if narrowed is None:
        return StoredWeight(np.asarray(told["weight"]).reshape(sides))
    if narrowed["way"] == HALVED:
        return StoredWeight(np.asarray(narrowed["buffer"].view(np.dtype("<f2"))).reshape(sides))
    zeros = narrowed["way"] == SPARSE and not narrowed["ranges"]
    if not (narrowed["way"] == INTEGERS or zeros) or narrowed["kept"]:
        raise UnsupportedOperationError(f"{each.name}: its weights are quantised in way {narrowed['way']}")
    return _widened(narrowed, sides)


def _otherwise_in_integers(told: Mapping[str, Any] | None) -> bool:
    """Tell whether a convolution of integers is another than its weights and its tensors' scales say."""
    return told is not None and bool(told["weight"].size or told["winograd"].size or told["made"] != _INT8)


def _widened(narrowed: Mapping[str, Any], sides: Sequence[int]) -> StoredWeight:
    """Return integers with the scale of each and the number that is added: as many in a row share them."""
    listed = _beside_zeros if narrowed["way"] == SPARSE else _listed
    held = listed(narrowed["buffer"], "<u4" if narrowed["long"] else "<u2").reshape(sides)
    given = narrowed["scales"] if narrowed["scales"].size else narrowed["halves"].view(np.dtype("<f2"))
    parts = given.astype(np.float32).reshape(-1, 2 if narrowed["ranges"] else 1)
    if not len(parts) or held.size % len(parts):
        raise ValueError(f"{held.size} weights have {len(parts)} scales")
    scale, shift = parts[:, -1], np.zeros(len(parts), np.float32)
    if narrowed["ranges"]:
        shift = parts[:, 0] - np.float32(narrowed["lowest"] or LOWEST) * scale
    factor = np.float32(narrowed["factor"])
    return StoredWeight(held, _spread(factor * scale, held), shift=_spread(factor * shift, held))


def _spread(numbers: Array, held: Array) -> Array:
    """Return numbers so that they broadcast to an array, of whose elements as many in a row share one."""
    if numbers.size == len(held):
        return numbers.reshape(-1, *(1,) * (held.ndim - 1))
    return np.repeat(numbers, held.size // numbers.size).reshape(held.shape)


def _listed(buffer: Array, side: str) -> Array:
    """Return integers that are stored as their places among those that occur, in as few bits as these take.

    First are told their sides, then how many occur, 0 for 256, and which.
    """
    ends = 1 + int(buffer[0]) * np.dtype(side).itemsize
    sides = buffer[1:ends].view(np.dtype(side))
    count = int(buffer[ends]) or 256
    occurring = np.sort(buffer[ends + 1 : ends + 1 + count].view(np.int8))
    size, bits = math.prod(map(int, sides)), max((count - 1).bit_length(), 1)
    return np.asarray(occurring[_unpacked(buffer[ends + 1 + count :], size, bits)])


def _beside_zeros(buffer: Array, side: str) -> Array:
    """Return integers of which those are stored that are not zero: how far each is behind the one before.

    First are told their sides, how many are stored, and in how many bits the distances; behind these how many
    occur, which, and each one's place among them, as of `_listed`.
    """
    ends = 1 + int(buffer[0]) * np.dtype(side).itemsize
    size = math.prod(map(int, buffer[1:ends].view(np.dtype(side))))
    count, bits = int(buffer[ends : ends + 4].view(np.dtype("<u4"))[0]), int(buffer[ends + 4])
    if size > _LARGEST:
        raise ValueError(f"{size} weights, which are mostly zero")
    found = np.zeros(size, np.int8)
    behind = ends + 5 + math.ceil(count * bits / 8)
    places = np.cumsum(_unpacked(buffer[ends + 5 :], count, bits), dtype=np.int64)
    kinds = int(buffer[behind]) or 256
    occurring = np.sort(buffer[behind + 1 : behind + 1 + kinds].view(np.int8))
    own = _unpacked(buffer[behind + 1 + kinds :], count, max((kinds - 1).bit_length(), 1))
    found[places] = occurring[own]
    return found


def _unpacked(packed: Array, count: int, bits: int) -> Array:
    """Return so many numbers of so many bits each, the first in the highest ones."""
    if not 0 < bits <= 8 or packed.size < math.ceil(count * bits / 8):
        raise ValueError(f"{count} numbers of {bits} bits in {packed.size} bytes")
    if bits == 8:
        return packed[:count]
    found = np.packbits(np.unpackbits(packed, count=count * bits).reshape(count, bits), axis=1)[:, 0]
    return np.asarray(found >> (8 - bits))


def stored_in_mnn(model: MnnModel) -> Iterator[StoredWeight]:
    """Yield the kernels and vectors of a model that are floats, or integers with a scale."""
    for each in model.operators:
        with suppress(UnsupportedOperationError, ValueError, KeyError, IndexError):
            if each.kind in CONVOLUTIONS and len(each.inputs) == 1:
                yield kernel(each)
                yield StoredWeight(np.asarray(each.told["bias"]))
            elif each.kind == "Const" and constant(each).dtype.kind == "f":
                yield StoredWeight(constant(each))


def bits_of(model: MnnModel) -> int:
    """Return of how many bits a model's weights are, the fewest if they differ, 0 if none is of integers."""
    narrowed = [each.told.get("narrowed") for each in model.operators if each.kind in CONVOLUTIONS]
    return min((each["bits"] or 8 for each in narrowed if each and each["way"] != HALVED), default=0)
