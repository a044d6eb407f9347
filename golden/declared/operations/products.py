"""Products of matrices."""

from __future__ import annotations

import numpy as np

from golden.declared.operations.call import Call, call, places, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("mat_mul.batched", "batch axes broadcast", randn(2, 3, 4, 6), randn(3, 6, 5)),
    call("mat_mul.attention", "queries times keys", randn(1, 4, 10, 16), randn(1, 4, 16, 12)),
    call("mat_mul.vector", "a vector is a row", randn(7), randn(7, 4)),
    call("gemm.linear", "PyTorch's Linear", randn(5, 8), randn(6, 8, scale=0.4), randn(6), transB=1),
    call("gemm.awkward", "A transposed, α and β, a column broadcast", randn(8, 5), randn(8, 6, scale=0.4), randn(5, 1), transA=1, alpha=0.5, beta=2.0),
    call("einsum.masks", "kernels times mask features", randn(2, 5, 8), randn(2, 8, 3, 4), equation="bnd,bdhw->bnhw"),
    call("probes/mat_mul.places", "a permutation of columns: 2, 0, 3, 1", places(3, 4), np.eye(4, dtype=np.float32)[:, [2, 0, 3, 1]]),
)
