"""Attention and rotated positions."""

from __future__ import annotations

import numpy as np

from golden.declared.operations.call import Call, call, integers, randn, uniform

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("attention.shared", "two heads of queries for one of keys, a mask that is added", randn(1, 4, 5, 8), randn(1, 2, 6, 8), randn(1, 2, 6, 3), randn(5, 6)),
    call("attention.causal", "no query sees what is behind it", randn(2, 2, 4, 8), randn(2, 2, 4, 8), randn(2, 2, 4, 8), is_causal=1),
    call("attention.hidden", "booleans: a query that sees nothing is given zeros", randn(1, 1, 3, 4), randn(1, 1, 4, 4), randn(1, 1, 4, 4), np.asarray([[True, False, True, True], [False, False, False, False], [False, True, False, False]])),
    call("rotary_embedding.halves", "one of the first half with one of the second, by position", randn(1, 2, 3, 8), uniform(-1, 1, 9, 4), uniform(-1, 1, 9, 4), integers(0, 9, 1, 3)),
    call("rotary_embedding.neighbours", "neighbours are a pair; the last four numbers stay", randn(1, 2, 3, 8), uniform(-1, 1, 1, 3, 2), uniform(-1, 1, 1, 3, 2), interleaved=1, rotary_embedding_dim=4),
)
