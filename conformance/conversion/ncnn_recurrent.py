"""What ncnn's recurrent layers mean: a matrix, a row for every step, and what is carried on.

Source: github.com/Tencent/ncnn, ``src/layer/lstm.cpp``, ``gru.cpp``, ``rnn.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from conformance.conversion.ncnn_model import BOTH_WAYS, NcnnLayer
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten
from refimpl.ops.operation import Array

_GATES: Mapping[str, tuple[int, ...]] = {"LSTM": (0, 2, 1, 3), "GRU": (1, 0, 2), "RNN": (0,)}
"""Kind → the places of ONNX's gates among ncnn's: input, output, forget, cell; update, reset, hidden."""


def _recurrent(writer: NcnnWriter, layer: NcnnLayer) -> None:
    made = int(layer.param(0))
    if layer.integers or any(each.dtype == np.int8 for each in layer.weights):
        raise unwritten(layer, f"a {layer.kind} of integers")
    if layer.kind == "LSTM" and layer.param(3, made) != made:
        raise unwritten(layer, "an LSTM that projects what it carries")
    for blob in range(len(layer.bottoms)):
        writer.rank(layer, 2, blob=blob)
    way = layer.param(2)
    directions = 2 if way == BOTH_WAYS else 1
    x = writer.node("Unsqueeze", [layer.bottoms[0], writer.shape(1)])
    begins = [
        writer.reshaped(name, directions, 1, made)
        for name in layer.bottoms[1 : 3 if layer.kind == "LSTM" else 2]
    ]
    how = {"linear_before_reset": 1} if layer.kind == "GRU" else {}
    operands = [x, *_matrices(writer, layer, directions, made), "", *begins]
    results = writer.several(
        layer.kind,
        operands if begins else operands[:4],
        3 if layer.kind == "LSTM" else 2,
        hidden_size=made,
        direction=("forward", "reverse", "bidirectional")[way],
        **how,
    )
    # (step, direction, batch, number) → both directions side by side.
    writer.give(layer.tops[0], writer.reshaped(results[0], -1, directions * made), 2)
    for top, carried in zip(layer.tops[1:], results[1:], strict=False):
        writer.give(top, writer.reshaped(carried, directions, made), 2)


def _matrices(writer: NcnnWriter, layer: NcnnLayer, directions: int, made: int) -> list[str]:
    """Return the weights of what is given and of what is carried, and what is added to either."""
    gates = _GATES[layer.kind]
    given, added, carried = layer.weights

    def ordered(held: Array) -> Array:
        held = held.reshape(directions, len(gates), made, -1)[:, gates, :, :]
        return held.reshape(directions, len(gates) * made, -1)

    shifts = added.reshape(directions, -1, made)
    # A GRU's fourth shift is within what the reset gate scales.
    inner = np.zeros((directions, len(gates), made), added.dtype)
    inner[:, -1] = shifts[:, 3] if layer.kind == "GRU" else 0
    both = np.concatenate([shifts[:, gates, :], inner], axis=1).reshape(directions, -1)
    return [writer.constant(each) for each in (ordered(given), ordered(carried), both)]


RECURRENT: Mapping[str, Callable[[NcnnWriter, NcnnLayer], None]] = dict.fromkeys(_GATES, _recurrent)
"""Recurrent layers."""
