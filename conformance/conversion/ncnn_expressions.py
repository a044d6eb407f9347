"""Lists of whole numbers that ncnn computes from how long blobs are, written as in ``//(0w,2),-1``.

Source: github.com/Tencent/ncnn, ``src/expression.cpp``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import SIDES, NcnnWriter, unwritten

Number = int | float
Side = Number | str
"""A number, or the tensor that holds it, where it is not known before the graph runs."""
_OF_ONE: Mapping[str, Callable[[Number], Number]] = {
    "abs": abs,
    "neg": lambda x: -x,
    "sign": lambda x: (x > 0) - (x < 0),
    "square": lambda x: x * x,
    "trunc": math.trunc,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": lambda x: math.trunc(x + math.copysign(0.5, x)),
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "exp": math.exp,
    "log": math.log,
}
_OF_TWO: Mapping[str, Callable[[Number, Number], Number]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    # Of whole numbers what is behind the point is dropped, as C does.
    "//": lambda x, y: math.trunc(x / y) if isinstance(x, int) and isinstance(y, int) else math.floor(x / y),
    "/": lambda x, y: x / y,
    "max": max,
    "min": min,
    "pow": math.pow,
    "fmod": math.fmod,
}


def listed(writer: NcnnWriter, layer: NcnnLayer, expression: str) -> list[int | str]:
    """Return the whole numbers of an expression, and tensors for those that are not known yet."""
    stack: list[Side] = []
    for word in reversed([each for each in re.split(r"[(),]", expression) if each]):
        if word in _OF_ONE:
            stack.append(_OF_ONE[word](_number(layer, stack.pop())))
        elif word in _OF_TWO:
            first, second = _number(layer, stack.pop()), _number(layer, stack.pop())
            stack.append(_OF_TWO[word](first, second))
        else:
            stack.append(_term(writer, layer, word))
    return [each if isinstance(each, str) else math.trunc(each) for each in reversed(stack)]


def whole(layer: NcnnLayer, numbers: Sequence[int | str]) -> list[int]:
    """Return a list without what is not known; refuse it where there is such."""
    return [int(_number(layer, each)) for each in numbers]


def _number(layer: NcnnLayer, side: Side) -> Number:
    if isinstance(side, str):
        raise unwritten(layer, "a length computed from one that is not declared")
    return side


def _term(writer: NcnnWriter, layer: NcnnLayer, word: str) -> Side:
    """Return a number, or the side of a blob, as in ``1h``."""
    if re.fullmatch(r"\d[whdc]", word) and int(word[0]) < len(layer.bottoms):
        return side_of(writer, layer.bottoms[int(word[0])], word[1])
    try:
        return float(word) if re.search(r"[.eE]", word) else int(word)
    except ValueError:
        raise unwritten(layer, f"the side {word!r}") from None


def side_of(writer: NcnnWriter, name: str, side: str) -> int | str:
    """Return how long a blob is along one of ncnn's sides, or a tensor that tells it; 1 where it has none."""
    own = SIDES[writer.ranks[name]]
    if side not in own:
        return 1
    place = own.index(side)
    length = writer.lengths(name)[place]
    if length is not None:
        return length
    return writer.node("Gather", [writer.node("Shape", [name]), writer.shape(place)], axis=0)


def shape_of(writer: NcnnWriter, sides: Sequence[int | str]) -> str:
    """Return a list of lengths as a tensor."""
    known = [each for each in sides if not isinstance(each, str)]
    if len(known) == len(sides):
        return writer.shape(*known)
    parts = [each if isinstance(each, str) else writer.shape(each) for each in sides]
    return writer.node("Concat", parts, axis=0)
