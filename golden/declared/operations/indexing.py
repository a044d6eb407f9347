"""Indexing."""

from __future__ import annotations

import numpy as np

from golden.declared.operations.call import Call, call, integers, places, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("gather.axis", "negative indices, two axes for one", places(3, 5), np.asarray([[4, 0], [-1, 2]]), axis=1),
    call("gather_elements.ordinary", "along columns", places(3, 4), integers(0, 3, 2, 4), axis=0),
    call("gather_nd.ordinary", "rows of two", places(3, 4, 2), np.asarray([[0, 1], [2, 3]])),
    call("scatter_nd.ordinary", "two rows replaced", places(4, 3), np.asarray([[3], [0]]), randn(2, 3)),
    call("scatter_elements.add", "added", randn(3, 4), np.asarray([[0, 0, 2, 1]]), randn(1, 4), axis=0, reduction="add"),
    call("scatter_elements.ordinary", "replaced", places(3, 4), np.asarray([[2, 0, 1, 1]]), randn(1, 4), axis=0),
)
