"""Recurrent layers."""

from __future__ import annotations

from golden.declared.operations.call import Call, call, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("lstm.ordinary", "five steps of two sequences, all outputs", randn(5, 2, 3), randn(1, 16, 3), randn(1, 16, 4), randn(1, 32), outputs=3, hidden_size=4),
    call("lstm.peepholes", "gates that see the cell, given states", randn(4, 2, 3), randn(1, 16, 3), randn(1, 16, 4), randn(1, 32), None, randn(1, 2, 4), randn(1, 2, 4), randn(1, 12), outputs=3, hidden_size=4),
    call("gru.ordinary", "the reset gate before the product", randn(5, 2, 3), randn(1, 12, 3), randn(1, 12, 4), randn(1, 24), outputs=2, hidden_size=4),
    call("gru.linear_before_reset", "the reset gate after the product, as PyTorch has it", randn(5, 2, 3), randn(1, 12, 3), randn(1, 12, 4), randn(1, 24), outputs=2, hidden_size=4, linear_before_reset=1),
    call("rnn.ordinary", "tanh of the sum", randn(5, 2, 3), randn(1, 4, 3), randn(1, 4, 4), randn(1, 8), outputs=2, hidden_size=4),
)
