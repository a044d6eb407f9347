"""What ncnn's layers of transformers mean that have no weights: blobs of heads, steps and numbers.

Source: github.com/Tencent/ncnn, ``src/layer/sdpa.cpp``, ``rotaryembed.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten


def _attention(writer: NcnnWriter, layer: NcnnLayer) -> None:
    for blob in range(3):
        writer.rank(layer, 3, blob=blob)
    query, *keys, mask = [*layer.bottoms[:3], layer.bottoms[3] if layer.param(5) else ""]
    if layer.param(7):
        # ncnn's package gives them in another order than its source.
        raise unwritten(layer, "an attention that keeps its keys")
    heads, groups = (writer.lengths(name)[0] for name in layer.bottoms[:2])
    if heads == groups:
        writer.give(layer.tops[0], _attended(writer, layer, query, keys, mask), 3)
        return
    # Several heads share a key: they become an axis of their own.
    heads, steps, _ = writer.known(layer, query)
    groups = writer.known(layer, layer.bottoms[1])[0]
    if heads % groups:
        raise unwritten(layer, f"an attention of {heads} heads over {groups}")
    query = _grouped(writer, query, heads, groups, steps)
    keys = [writer.node("Unsqueeze", [name, writer.shape(1)]) for name in keys]
    if mask and writer.ranks[mask] == 3 and writer.known(layer, mask)[0] > 1:
        mask = _grouped(writer, mask, heads, groups, steps)
    made = _attended(writer, layer, query, keys, mask)
    writer.give(layer.tops[0], writer.reshaped(made, heads, steps, -1), 3)


def _grouped(writer: NcnnWriter, name: str, heads: int, groups: int, steps: int) -> str:
    return writer.reshaped(name, groups, heads // groups, steps, -1)


def _attended(writer: NcnnWriter, layer: NcnnLayer, query: str, keys: list[str], mask: str) -> str:
    """Return the values that a query asks for, weighed; all end in an axis of steps and one of numbers."""
    key, value = keys
    axes = [*range(len(writer.lengths(query)) or 3)]
    transposed = writer.node("Transpose", [key], perm=[*axes[:-2], axes[-1], axes[-2]])
    logits = writer.product(writer.rounded(layer, query, (-1,)), writer.rounded(layer, transposed, (-2, -1)))
    scale = layer.param(6, 0.0) or 1 / np.sqrt(writer.known(layer, query)[-1])
    logits = writer.node("Mul", [logits, writer.scalar(scale)])
    logits = writer.node("Add", [logits, mask]) if mask else logits
    chances = writer.node("Softmax", [logits], axis=-1)
    return writer.product(writer.rounded(layer, chances, (-1,)), writer.rounded(layer, value, (-2, -1)))


def _rotary(writer: NcnnWriter, layer: NcnnLayer) -> None:
    """Turn pairs of numbers: neighbours, or one of each half."""
    x, cosine, sine = layer.bottoms
    length = writer.known(layer, x)[-1]
    if length % 2:
        raise unwritten(layer, f"a RotaryEmbed of {length}")
    if layer.param(0):
        first, second = (writer.cut(x, -1, start, length, 2) for start in (0, 1))
    else:
        first, second = (writer.cut(x, -1, start, start + length // 2) for start in (0, length // 2))

    def turned(one: str, other: str, operator: str) -> str:
        parts = writer.node("Mul", [one, cosine]), writer.node("Mul", [other, sine])
        return writer.node(operator, parts)

    pair = [turned(first, second, "Sub"), turned(second, first, "Add")]
    if layer.param(0):
        pair = [writer.node("Unsqueeze", [each, writer.shape(-1)]) for each in pair]
    made = writer.node("Concat", pair, axis=-1)
    writer.like(layer, writer.shaped_like(made, x))


ATTENTION: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = {
    "RotaryEmbed": _rotary,
    "SDPA": _attention,
}
"""Layers of transformers."""
